"""Writing a study file for people: sections in order, and above a key the reason for its value."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from typing import Any

import yaml


def write_commented(data: Mapping[str, Any], comments: Mapping[str, str], head: str) -> str:
    """YAML text of nested `data`.

    Args:
        data: sections; leaves are plain values.
        comments: key path -> sentence, written above that key.
        head: first comment of the file.
    """
    lines = _comment(head, "")
    for key, value in data.items():
        if isinstance(value, Mapping):
            lines.append("")
        lines += _lines(key, value, comments, "", "")
    return "\n".join(lines) + "\n"


def _lines(key: str, value: Any, comments: Mapping[str, str], path: str, indent: str) -> list[str]:
    here = f"{path}.{key}" if path else key
    lines = _comment(comments.get(here, ""), indent)
    if isinstance(value, Mapping) and value and all(isinstance(k, str) for k in value):
        lines.append(f"{indent}{_scalar(key)}:")
        for inner, item in value.items():
            lines += _lines(inner, item, comments, here, indent + "  ")
        return lines
    return [*lines, f"{indent}{_scalar(key)}: {_scalar(value)}"]


def _scalar(value: Any) -> str:
    text = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, width=10**6)
    return text.removesuffix("\n").removesuffix("\n...").strip()


def _comment(text: str, indent: str) -> list[str]:
    return [f"{indent}# {line}" for line in textwrap.wrap(text, 100 - len(indent))] if text else []
