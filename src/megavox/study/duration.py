"""Times in a study file: a number with its unit, seconds inside."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import BeforeValidator, Field, PlainSerializer

UNITS = {"s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0}


def seconds(value: object) -> object:
    """`90s`, `20min`, `1.5h`, `2d` in seconds. A bare number is refused: some would mean seconds, some minutes."""
    match = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]*)?)\s*(s|min|h|d)\s*", value) if isinstance(value, str) else None
    if match is None:
        raise ValueError(f"found {value!r}; a time needs its unit, such as 90s, 20min, 1.5h or 2d")
    return float(match[1]) * UNITS[match[2]]


def duration_text(value: float) -> str:
    """Seconds as `seconds` reads them: 1200 is 20min."""
    unit = next((unit for unit in ("d", "h", "min") if value % UNITS[unit] == 0), "s")
    return f"{value / UNITS[unit]:.6f}".rstrip("0").rstrip(".") + unit


Seconds = Annotated[float, BeforeValidator(seconds), Field(gt=0), PlainSerializer(duration_text, return_type=str)]
