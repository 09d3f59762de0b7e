"""Numbers and words as people read them: 0.912 (0.880–0.941), "undefined" with its reason."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite, log10
from typing import Any

DASH, MINUS, TIMES, THIN = "\u2013", "\u2212", "\u00d7", "\u202f"
_DIGITS = {"": 3, "mm": 2, "%": 1}
_UNITS = {"mm3": "mm³", "mm2": "mm²", "mm": "mm", "percent": "%"}
_NAMES = {"dice": "Dice", "iou": "IoU", "hausdorff95_mm": "Hausdorff 95 (mm)", "auroc": "AUROC", "ece": "ECE",
          "surface_distance_mm": "surface distance (mm)", "average_precision": "average precision",
          "brier": "Brier score", "volume_prediction_mm3": "predicted volume (mm³)",
          "volume_reference_mm3": "reference volume (mm³)"}


@dataclass(frozen=True)
class Shown:
    """A number as text.

    Attributes:
        text: "0.912 (0.880–0.941)", "0.912", or "undefined".
        value, interval: the two parts of it, "" where there is none.
        reason: why there is no value or no interval, or "".
        sort: the value for sorting, "" where undefined.
    """

    text: str
    value: str
    interval: str
    reason: str
    sort: str


def shown(measured: Mapping[str, Any], unit: str = "") -> Shown:
    """The text of a `Measured.to_dict()`; `unit` sets the number of digits and is not written."""
    value, low, high = (_finite(measured.get(key)) for key in ("value", "low", "high"))
    reason = str(measured.get("undefined") or "")
    if value is None:
        return Shown("undefined", "", "", reason or "no defined case", "")
    text, interval = number(value, unit), ""
    if low is not None and high is not None:
        between = " to " if low < 0 else DASH  # a dash between minus signs cannot be read
        interval = f"{number(low, unit)}{between}{number(high, unit)}"
    return Shown(f"{text} ({interval})" if interval else text, text, interval, reason, repr(value))


def number(value: Any, unit: str = "") -> str:
    """A number with the digits that its unit deserves: 3 without unit, 2 for mm, 1 for %, else 3 figures."""
    value = _finite(value)
    if value is None:
        return "undefined"
    if unit in _DIGITS:
        digits = _DIGITS[unit]
    else:
        digits = max(0, 2 - int(log10(abs(value)))) if abs(value) >= 1 else 3 if value else 0
    text = f"{value:,.{digits}f}"
    if not float(text.replace(",", "")):
        text = text.lstrip("-")
    return text.replace(",", THIN).replace("-", MINUS)


def count(value: Any) -> str:
    """A whole number, thousands apart."""
    return f"{int(value):,}".replace(",", THIN)


def plural(n: int, one: str, many: str = "") -> str:
    """ "1 case", "2 cases"."""
    return f"{count(n)} {one if n == 1 else many or one + 's'}"


def heading(key: str) -> str:
    """A column's name from a field's: volume_mm3 -> volume (mm³)."""
    if key in _NAMES:
        return _NAMES[key]
    words, _, last = key.rpartition("_")
    if words and last in _UNITS:
        return f"{words.replace('_', ' ')} ({_UNITS[last]})"
    return key.replace("_", " ")


def unit_of(key: str) -> str:
    """The unit that a field's name ends in, as `number` takes it."""
    return _UNITS.get(key.rpartition("_")[2], "")


def cell(value: Any, key: str = "") -> str:
    """Any plain value as a table shows it."""
    if value is None or (isinstance(value, float) and not isfinite(value)):
        return "undefined"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return number(value, unit_of(key)) if unit_of(key) else f"{value:.4g}".replace("-", MINUS)
    if isinstance(value, (list, tuple)):
        joiner = f" {TIMES} " if value and all(isinstance(v, (int, float)) for v in value) else ", "
        return joiner.join(cell(v, key) for v in value) or "none"
    if isinstance(value, Mapping):
        return ", ".join(f"{name}: {cell(v)}" for name, v in value.items()) or "none"
    return str(value)


def is_number(value: Any) -> bool:
    """Whether a table aligns this value as a number; true for what is undefined and for CSV text of a number."""
    return value is None or (isinstance(value, (int, float)) and not isinstance(value, bool)) \
        or (isinstance(value, str) and re.fullmatch(r"-?\d+(\.\d+)?(e-?\d+)?", value) is not None)


def _finite(value: Any) -> float | None:
    return None if value is None or not isfinite(float(value)) else float(value)
