"""Reading a study file: YAML text in, a `Study` out, or one message that says what to change; and site files.

Relative paths in the file are relative to the file. `--set key.path=value` changes a value before
validation, so a wrong one is reported like a wrong line.
"""

from __future__ import annotations

import difflib
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from megavox.core.errors import StudyError
from megavox.study.sections import Study

Path_ = tuple[str | int, ...]
S = TypeVar("S", bound=BaseModel)
CALLED_HERE = {  # words that people use, where spelling leads to another value or to none
    "gpu": "cuda", "nvidia": "cuda", "fp32": "float32", "fp16": "bfloat16", "half": "bfloat16", "amp": "bfloat16",
    "nnunet": "decathlon", "msd": "decathlon", "csv": "table"}


def load_study(path: Path, changes: Iterable[str] = ()) -> Study:
    """Read and validate a study file.

    Args:
        path: the YAML file.
        changes: `key.path=value` texts, the values in YAML.

    Raises:
        StudyError: file missing, not YAML, unknown key, wrong type, impossible combination.
    """
    return parse_study(_text(path, "study file", "`megavox new FOLDER --output study.yaml` writes one"), where=path,
                       changes=changes)


def parse_study(text: str, *, where: Path, changes: Iterable[str] = ()) -> Study:
    """Validate the text of a study file; `where` is its name in messages and the base of its paths."""
    data, lines = _parse_yaml(text, where)
    for change in changes:
        _apply(data, lines, change)
    return _validated(Study, data, lines, where)


def load_section(path: Path, kinds: Mapping[str, type[S]], what: str) -> S:
    """Read and validate a file that holds one section, whose key `kind` says which.

    Args:
        path: the YAML file.
        kinds: type of section for each kind.
        what: name of such files, for messages.

    Raises:
        StudyError: as `load_study`.
    """
    data, lines = _parse_yaml(_text(path, what, "Write it, or correct its name in the study file"), path)
    model = kinds.get(str(data.get("kind")))
    if model is None:
        raise StudyError(f"found kind {data['kind']!r}" if "kind" in data else "the key kind is missing",
                         where=lines.get(("kind",), path), expected="kind: " + " or ".join(kinds))
    return _validated(model, data, lines, path)


def validated(model: type[S], data: dict[str, Any], where: str) -> S:
    """A section of plain values that do not come from a file.

    Raises:
        StudyError: as `load_study`; `where` is the place that it names.
    """
    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise StudyError(_explain_all(error, data, {}, Path(where), model)) from None


def _text(path: Path, what: str, fix: str) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise StudyError(f"there is no such {what}", where=path, fix=fix) from None
    except (OSError, UnicodeDecodeError) as error:
        raise StudyError(f"the {what} cannot be read ({error})", where=path) from None


def _validated(model: type[S], data: dict[str, Any], lines: dict[Path_, str], where: Path) -> S:
    try:
        section = model.model_validate(data)
    except ValidationError as error:
        raise StudyError(_explain_all(error, data, lines, where, model)) from None
    return _with_absolute_paths(section, where.resolve().parent)


def show_study(study: Study) -> str:
    """The study as YAML with every default filled in."""
    return yaml.safe_dump(study.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=100)


# ------------------------------------------------------------------ YAML with line numbers


def _parse_yaml(text: str, where: Path) -> tuple[dict[str, Any], dict[Path_, str]]:
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        data = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        raise StudyError(f"this is not YAML ({getattr(error, 'problem', error)})", where=f"{where}{line}",
                         fix="Check the indentation and the quotes near that line") from None
    if not isinstance(root, yaml.MappingNode) or not isinstance(data, dict):
        raise StudyError("the file holds no keys", where=where, expected="a YAML mapping such as `name: knee`")
    lines: dict[Path_, str] = {}
    _walk(root, (), lines, where)
    return data, lines


def _walk(node: yaml.Node, path: Path_, lines: dict[Path_, str], where: Path) -> None:
    lines.setdefault(path, f"{where}:{node.start_mark.line + 1}")
    if isinstance(node, yaml.SequenceNode):
        for number, item in enumerate(node.value):
            _walk(item, (*path, number), lines, where)
    elif isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            here = (*path, key.value)
            if here in lines:
                raise StudyError(f"the key {'.'.join(map(str, here))} stands twice, in lines "
                                 f"{lines[here].rsplit(':', 1)[1]} and {key.start_mark.line + 1}", where=where)
            lines[here] = f"{where}:{key.start_mark.line + 1}"
            _walk(value, here, lines, where)


def _apply(data: dict[str, Any], lines: dict[Path_, str], change: str) -> None:
    key, separator, text = change.partition("=")
    if not separator or not key.strip():
        raise StudyError(f"--set {change!r} is not key.path=value",
                         expected="for example --set training.budget=20min")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        raise StudyError(f"--set {change!r}: the value is not YAML") from None
    parts = key.strip().split(".")
    place: Any = data
    for depth, part in enumerate(parts[:-1], 1):
        if not isinstance(place.setdefault(part, {}), dict):
            place[part] = {}
            lines[tuple(parts[:depth])] = f"--set {change}"
        place = place[part]
    place[parts[-1]] = value
    for end in range(1, len(parts) + 1):
        lines.setdefault(tuple(parts[:end]), f"--set {change}")
    lines[tuple(parts)] = f"--set {change}"


def _with_absolute_paths(section: S, base: Path) -> S:
    def absolute(value: Any) -> Any:
        if isinstance(value, Path):
            return (base / value.expanduser()).resolve()
        if isinstance(value, dict):
            return {name: absolute(one) for name, one in value.items()}
        return _with_absolute_paths(value, base) if isinstance(value, BaseModel) else value

    values = {name: getattr(section, name) for name in type(section).model_fields}
    changed = {name: absolute(value) for name, value in values.items() if isinstance(value, (Path, dict, BaseModel))}
    # What was written and what is a default stay apart.
    return section.model_copy(update={name: value for name, value in changed.items() if value != values[name]})


# ------------------------------------------------------------------ messages


def _explain_all(error: ValidationError, data: dict[str, Any], lines: dict[Path_, str], where: Path,
                 root: type[BaseModel]) -> str:
    messages: dict[Path_, Any] = {}
    for item in error.errors():
        path, _ = _follow(item["loc"], data, root)
        if path in messages and item["type"] != "extra_forbidden":  # one message for `list | "auto"`
            messages[path]["msg"] += f", or: {item['msg'].removeprefix('Input should be ')}"
        else:
            messages[path] = dict(item)
    text = "\n".join(_explain(item, data, lines, where, root) for item in messages.values())
    return text.removesuffix(".")


def _explain(item: Any, data: dict[str, Any], lines: dict[Path_, str], where: Path, root: type[BaseModel]) -> str:
    path, model = _follow(item["loc"], data, root)
    place = next((lines[path[:n]] for n in range(len(path), -1, -1) if path[:n] in lines), str(where))
    key = ".".join(map(str, path)) or root.__name__.lower()
    kind = item["type"]
    if kind == "extra_forbidden":
        return f"{place}: unknown key {key}.{_nearest(str(path[-1]), model)} {_allowed_keys(model)}"
    if kind == "missing":
        return f"{place}: {key} is missing. {_describe(model, str(path[-1]))}"
    if kind == "union_tag_not_found":
        name = item["ctx"]["discriminator"].strip("'")
        allowed = [typing.get_args(member.model_fields[name].annotation)[0]
                   for member in _members(model.model_fields[str(path[-1])])] if model else []
        return f"{place}: {key} needs the key {name}. Allowed: {', '.join(allowed)}."
    if kind == "union_tag_invalid":
        found = item["ctx"]["tag"]
        place = lines.get((*path, item["ctx"]["discriminator"].strip("'")), place)
        tags = item["ctx"]["expected_tags"].replace("'", "")
        hint = _meant(str(found), tags.split(", "))
        return f"{place}: {key}: no such {item['ctx']['discriminator']} {found!r}.{hint} Allowed: {tags}."
    message = item["msg"].removeprefix("Value error, ").rstrip(".")
    if kind == "value_error":
        # A combination of keys is blamed on the one that was changed last.
        changed = [line for at, line in lines.items() if at[:len(path)] == path and line.startswith("--set")]
        return f"{(changed or [place])[-1]}: {key}: {message}."
    found = item.get("input")
    if kind == "model_type":
        field = model.model_fields.get(str(path[-1])) if model else None
        sections = _members(field) if field else []  # none: of a mapping, whose keys are the user's
        keys = " Or: ".join(map(_allowed_keys, sections))
        return f"{place}: {key}: found {found!r}, expected a section. {keys}".rstrip()
    hint = ""
    if kind == "literal_error" and isinstance(found, str):
        allowed = [word.strip("',") for word in item["ctx"]["expected"].split()]
        hint = _meant(found, allowed)
    return (f"{place}: {key}: found {found!r}. {message}.{hint} "
            f"{_describe(model, next((p for p in reversed(path) if isinstance(p, str)), ''))}").rstrip()


def _follow(loc: Sequence[str | int], data: Any, root: type[BaseModel]) -> tuple[Path_, type[BaseModel] | None]:
    """The key path of an error (without the names of union members) and the section it stands in."""
    path: list[str | int] = []
    model: type[BaseModel] | None = root
    holder: type[BaseModel] | None = root
    union: list[type[BaseModel]] = []
    for part in loc:
        if model is not None and isinstance(part, str) and part in model.model_fields:
            path.append(part)
            holder, union = model, _members(model.model_fields[part])
            model = union[0] if len(union) == 1 else None
            continue
        if model is None and isinstance(part, str):
            named = [member for member in union if part in _discriminators(member)]
            if named:
                model = holder = named[0]
                continue
        holder = model or holder
        if _has(data, [*path, part]):
            path.append(part)
    return tuple(path), holder


def _has(data: Any, path: Sequence[str | int]) -> bool:
    for part in path:
        try:
            data = data[part]
        except (KeyError, IndexError, TypeError):
            return False
    return True


def _members(field: FieldInfo) -> list[type[BaseModel]]:
    """The section types that a field can hold."""
    found: list[type[BaseModel]] = []
    todo: list[Any] = [field.annotation]
    while todo:
        kind = todo.pop(0)
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            found.append(kind)
        elif typing.get_origin(kind) in (typing.Union, types.UnionType, typing.Annotated, dict):
            todo.extend(typing.get_args(kind))
    return found


def _discriminators(model: type[BaseModel]) -> set[str]:
    return {value for field in model.model_fields.values()
            if typing.get_origin(field.annotation) is typing.Literal
            for value in typing.get_args(field.annotation) if isinstance(value, str)}


def _nearest(key: str, model: type[BaseModel] | None) -> str:
    return _meant(key, list(model.model_fields) if model else [])


def _meant(word: str, allowed: list[str]) -> str:
    """A hint with what was meant: what the word is called here, else what is spelt nearest; or ""."""
    called = CALLED_HERE.get(word.lower())
    near = [called] if called in allowed else difflib.get_close_matches(word, allowed, 1)
    return f" Did you mean {near[0]}?" if near else ""


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    if isinstance(field.default, BaseModel):
        return "section"
    if field.default_factory is not None:
        return str(field.get_default(call_default_factory=True))
    return "null" if field.default is None else str(field.default)


def _allowed_keys(model: type[BaseModel] | None) -> str:
    if model is None:
        return ""
    keys = ", ".join(f"{name} ({_default(field)})" for name, field in model.model_fields.items())
    return f"Allowed here (with defaults): {keys}."


def _describe(model: type[BaseModel] | None, key: str) -> str:
    field = model.model_fields.get(key) if model else None
    if field is None:
        return ""
    text = f"{key}: {field.description} " if field.description else ""
    return f"{text}(default: {_default(field)})."
