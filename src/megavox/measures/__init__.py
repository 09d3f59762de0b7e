"""Measures: pure functions of arrays and geometry, with units in their names.

A measure that does not exist for a case (an empty reference, a class without positives) is NaN with
a reason, left out of means and counted. Intervals resample subjects.
"""
