"""The section of a study file that says what is searched."""

from __future__ import annotations

import re
from contextlib import suppress
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from megavox.study.section import Positive, Section

_NUMBER = r"[0-9]*\.?[0-9]+(?:e[+-]?[0-9]+)?"
OF_ANOTHER = re.compile(rf"(?:(?P<factor>{_NUMBER}) *\* *)?(?P<key>[a-z_][\w.]*)"
                        rf"(?: *(?P<sign>[*/]) *(?P<by>{_NUMBER}))?")


def _end(value: Any) -> Any:
    """YAML takes 1e-8 for a text; numbers are meant where a text is one."""
    if not isinstance(value, str):
        return value
    with suppress(ValueError):
        return float(value)
    if not OF_ANOTHER.fullmatch(value):
        raise ValueError(f"found {value!r}, expected a number, or another searched key, also times or by a number, "
                         "such as batches.patch / 4")
    return value


End = Annotated[float | str, BeforeValidator(_end)]


class ParameterSection(Section):
    """What values one key of the study may take: numbers from `low` to `high`, or one of `choices`."""

    low: End | None = Field(None, description="least value; also of another key, such as `batches.patch / 4`, whose "
                            "value or least number it follows")
    high: End | None = Field(None, description="largest value, likewise")
    log: bool = Field(False, description="equal ratios count as equal steps")
    step: Annotated[float, Field(gt=0)] | None = Field(None, description="values from low in such steps")
    choices: list[Any] | None = Field(None, min_length=2, description="values, two or more")
    when: dict[str, Any] = Field(default_factory=dict, description="searched only where another searched key has this "
                                 "value, or one of these")

    @model_validator(mode="after")
    def _one_kind(self) -> ParameterSection:
        if self.choices is not None:
            if (self.low, self.high, self.step, self.log) != (None, None, None, False):
                raise ValueError("give either choices, or low and high")
            return self
        if self.low is None or self.high is None:
            raise ValueError("give low and high, or choices")
        if isinstance(self.low, float) and isinstance(self.high, float) and self.low >= self.high:
            raise ValueError(f"low ({self.low:g}) must be less than high ({self.high:g})")
        if self.log and isinstance(self.low, float) and self.low <= 0:
            raise ValueError("with log, low must be above 0")
        if self.log and self.step not in (None, 1):
            raise ValueError("with log there is no step but 1")
        return self


class StopSection(Section):
    """When a trial that promises nothing is ended."""

    rule: Literal["median", "curve"] = Field(
        "curve", description="median: never as good as half of the others were on average; curve: its end, foretold "
        "from theirs, is worse than the best so far")
    after: Annotated[float, Field(gt=0, lt=1)] = Field(0.25, description="share of the training that it has had")
    risk: Annotated[float, Field(gt=0, lt=0.5)] = Field(
        0.05, description="chance, at the most, that one is ended which would have become the best; of `curve`")


class KnowledgeSection(Section):
    """What proposals are made from, besides trials that ended well; each can be left out to see what it is worth."""

    running: bool = Field(True, description="settings that are being tried")
    previews: bool = Field(True, description="validation scores of trials under way")
    memory: bool = Field(True, description="settings that need more memory than a job has are never tried")
    failures: bool = Field(True, description="where settings fail; without it they count as the worst")


class SearchSection(Section):
    """Which settings are tried, how many, and what makes one good."""

    space: dict[str, ParameterSection] = Field(min_length=1, description="key of the study -> its values")
    workers: Positive = Field(4, description="trials at a time")
    jobs: Positive = Field(40, description="trials in all")
    initial: Annotated[int, Field(ge=2)] = Field(3, description="so many values must be known before a model proposes")
    method: Literal["asynchronous", "random", "sobol", "tpe", "poster"] = Field(
        "asynchronous", description="who proposes; the others are there to compare with")
    objective: str | None = Field(None, description="validation score; default: the task's own")
    goal: Literal["maximise", "minimise"] = "maximise"
    knowledge: KnowledgeSection = KnowledgeSection()
    stop: StopSection | None = Field(None, description="end trials that promise nothing; default: none is ended")
    storage: str | None = Field(None, description="URL of a database, such as postgresql://user@host/name; default: a "
                                "file in the workspace")
