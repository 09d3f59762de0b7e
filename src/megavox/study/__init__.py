"""The study file: typed, validated, every default visible."""

from megavox.study.load import load_study, parse_study, show_study
from megavox.study.section import NAME
from megavox.study.sections import AUTO, Study

__all__ = ["AUTO", "NAME", "Study", "load_study", "parse_study", "show_study"]
