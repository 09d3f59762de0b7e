"""Synthetic anatomy whose truth is known: to try Megavox without data, and to test it.

Every picture is a pure function of `(seed, number)`.
"""

from megavox.phantoms.organs import Organ, organ, write_segment_cohort
from megavox.phantoms.radiograph import FINDINGS, Radiograph, radiograph, write_classify_cohort

__all__ = ["FINDINGS", "Organ", "Radiograph", "organ", "radiograph", "write_classify_cohort",
           "write_segment_cohort"]
