"""In which keys two settings differ."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

MOST = 8  # differences told
_ABSENT = "not set"


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """The keys whose values differ, with both, as a clause; "" without any.

    Args:
        before, now: nested mappings of plain values, such as a study's `model_dump(mode="json")`.
    """
    old, new = _leaves(before), _leaves(now)
    told = [f"{key} was {old.get(key, _ABSENT)} and is {new.get(key, _ABSENT)}"
            for key in dict.fromkeys([*new, *old]) if old.get(key, _ABSENT) != new.get(key, _ABSENT)]
    return "; ".join(told[:MOST] + ([f"and {len(told) - MOST} further keys"] if len(told) > MOST else []))


def _leaves(value: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    """Dotted key -> value of nested mappings."""
    found: dict[str, Any] = {}
    for key, item in value.items():
        if isinstance(item, Mapping) and item:
            found.update(_leaves(item, f"{path}{key}."))
        else:
            found[f"{path}{key}"] = item
    return found
