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


def setting_of_study(space: Space, study: Study) -> Setting | None:
    """The study's own values of what is searched; None where they lie outside the space.

    Args:
        space: of the study.
        study: with every value derived.
    """
    data, found = study.model_dump(mode="json"), Setting()
    for one in space.active(found):
        value: Any = data
        for part in one.name.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        if not one.holds(value, found):
            return None
        found[one.name] = value
    return found


def _parameter(study: Study, name: str, section: ParameterSection, before: Mapping[str, Parameter]) -> Parameter:
    where = f"search.space.{name}"
    if name.split(".")[0] not in ("task", "batches", "model", "training"):
        raise StudyError("this key cannot be searched", where=where, expected="one of batches, model, training or "
                         "task: of the training, and not of its packed cases")
    when = {key: _condition(key, wanted, before, where) for key, wanted in section.when.items()}
    if section.choices is not None:
        _try(study, name, section.choices, where)
        return Choice(name, tuple(section.choices), when)
    low, high = (_bound(end, before, when, where) for end in (section.low, section.high))
    example = Space(list(before.values())).example()
    ends = low.at(example), max(low.at(example), high.at(example))
    fractions = any(end.of is None and end.number % 1 for end in (low, high))
    integer = not fractions and not _accepts(study, name, math.floor(sum(ends) / 2) + 0.5)
    if section.step is not None and (section.step % 1 if integer else section.log):
        raise StudyError(f"found step {section.step:g}", where=where, expected="a whole number, as those of the key"
                         if integer else "no step beside log, since the key has any numbers")
    _try(study, name, [round(end) if integer else end for end in ends], where)
    number = Number(name, low, high, section.log, section.step or (1.0 if integer else None), integer, when)
    if section.log and Space([*before.values(), number]).widest(number)[0] <= 0:
        raise StudyError(f"with log, its low may become 0 or less: {section.low}", where=where, expected="a low that "
                         "follows a key with values above 0")
    return number


def _condition(key: str, wanted: Any, before: Mapping[str, Parameter], where: str) -> tuple[Any, ...]:
    parent, values = before.get(key), wanted if isinstance(wanted, list) else [wanted]
    if not isinstance(parent, Choice) or not all(value in parent.choices for value in values):
        raise StudyError(f"it stands under the condition {key} = {wanted}", where=f"{where}.when",
                         expected="a key with choices that stands before it in search.space, and some of these choices")
    return tuple(values)


def _bound(end: float | str | None, before: Mapping[str, Parameter], when: Mapping[str, Any], where: str) -> Bound:
    assert end is not None
    if isinstance(end, float):
        return Bound(end)
    found = OF_ANOTHER.fullmatch(end)
    assert found is not None
    parent, by = before.get(found["key"]), float(found["by"] or 1)
    numeric = isinstance(parent, Number) or (parent is not None and all(map(_is_numeric, parent.choices)))
    if parent is None or not numeric or not by or any(when.get(key) != one for key, one in parent.when.items()):
        raise StudyError(f"its bound is {end}", where=where, expected="a number, or one that follows a key with "
                         "numbers which stands before it in search.space, under no other condition")
    return Bound(float(found["factor"] or 1) * (1 / by if found["sign"] == "/" else by), found["key"])


def _is_numeric(choice: Any) -> bool:
    return all(isinstance(one, (int, float)) for one in (choice if isinstance(choice, list) else [choice]))


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
