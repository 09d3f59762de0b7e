"""From the study's own words to the space that is searched, and from a setting back to a study."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from megavox.core.errors import StudyError
from megavox.search.space import Bound, Choice, Number, Parameter, Setting, Space
from megavox.study import Study
from megavox.study.load import validated
from megavox.study.search import OF_ANOTHER, ParameterSection


def space_of(study: Study) -> Space:
    """The space that a study describes.

    Raises:
        StudyError: no such key, a value that it cannot have, a condition on what is not searched.
    """
    if study.search is None:
        raise StudyError("the section search is missing", expected="search: {space: {training.optimiser.rate: "
                         "{low: 1e-5, high: 1e-2, log: true}}}", fix="Say what is to be searched")
    found: dict[str, Parameter] = {}
    for name, section in study.search.space.items():
        found[name] = _parameter(study, name, section, found)
    return Space(list(found.values()))


def with_setting(study: Study, setting: Mapping[str, Any], where: str = "search.space") -> Study:
    """The study with the values of a setting, and without its search.

    Raises:
        StudyError: together they make no sense.
    """
    data = study.model_dump(exclude={"search"})
    for key, value in setting.items():
        *above, last = key.split(".")
        place = data
        for part in above:
            place = place.get(part)  # type: ignore[assignment]
            if not isinstance(place, dict):
                raise StudyError(f"there is no key {key}", where=where, expected="a key of the study, such as "
                                 "training.optimiser.rate")
        place[last] = value
    return validated(Study, data, where)


def _parameter(study: Study, name: str, section: ParameterSection, before: Mapping[str, Parameter]) -> Parameter:
    where = f"search.space.{name}"
    if name.split(".")[0] not in ("task", "batches", "model", "training"):
        raise StudyError("this key cannot be searched", where=where, expected="one of batches, model, training or "
                         "task: of the training, and not of its packed cases")
    when = {key: _condition(key, wanted, before, where) for key, wanted in section.when.items()}
    if section.choices is not None:
        _try(study, name, section.choices, where)
        return Choice(name, tuple(section.choices), when)
    low, high = (_bound(end, before, where) for end in (section.low, section.high))
    example: Setting = {key: _some(one) for key, one in before.items()}
    ends = low.at(example), max(low.at(example), high.at(example))
    integer = not _accepts(study, name, ends[0] + (ends[1] - ends[0]) / math.e)  # which is not whole
    _try(study, name, [round(end) if integer else end for end in ends], where)
    return Number(name, low, high, section.log, section.step or (1.0 if integer else None), integer, when)


def _condition(key: str, wanted: Any, before: Mapping[str, Parameter], where: str) -> tuple[Any, ...]:
    parent, values = before.get(key), wanted if isinstance(wanted, list) else [wanted]
    if not isinstance(parent, Choice) or not all(value in parent.choices for value in values):
        raise StudyError(f"it stands under the condition {key} = {wanted}", where=f"{where}.when",
                         expected="a key with choices that stands before it in search.space, and some of these choices")
    return tuple(values)


def _bound(end: float | str | None, before: Mapping[str, Parameter], where: str) -> Bound:
    assert end is not None
    if isinstance(end, float):
        return Bound(end)
    found = OF_ANOTHER.fullmatch(end)
    assert found is not None
    if found["key"] not in before:
        raise StudyError(f"its bound {end} follows {found['key']}", where=where,
                         expected="a number, or a key that stands before it in search.space")
    return Bound(float(found["factor"] or 1) / float(found["divisor"] or 1), found["key"])


def _some(one: Parameter) -> Any:
    return one.choices[-1] if isinstance(one, Choice) else one.high.number


def _accepts(study: Study, name: str, value: Any) -> bool:
    try:
        with_setting(study, {name: value})
    except StudyError as error:
        if "there is no key" in error.found:
            raise
        return False
    return True


def _try(study: Study, name: str, values: Iterable[Any], where: str) -> None:
    """Each value has to be one that the key can have.

    Raises:
        StudyError: as for the key itself.
    """
    for value in values:
        with_setting(study, {name: value}, where)
