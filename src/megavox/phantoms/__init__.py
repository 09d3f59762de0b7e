"""Synthetic anatomy whose truth is known: to try Megavox without data, and to test it.

Every picture is a pure function of `(seed, number)`.
"""

from megavox.phantoms.chest import Chest, chest
from megavox.phantoms.chest_files import write_detect_cohort
from megavox.phantoms.lumps import Finding
from megavox.phantoms.organs import Organ, organ, write_segment_cohort
from megavox.phantoms.radiograph import FINDINGS, Radiograph, radiograph, write_classify_cohort

COHORTS = {"organ": write_segment_cohort, "radiograph": write_classify_cohort, "chest": write_detect_cohort}

__all__ = ["COHORTS", "FINDINGS", "Chest", "Finding", "Organ", "Radiograph", "chest", "organ", "radiograph",
           "write_classify_cohort", "write_detect_cohort", "write_segment_cohort"]
