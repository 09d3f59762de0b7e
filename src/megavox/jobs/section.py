"""What every site file can say."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import Field, model_validator

from megavox.core.errors import StudyError
from megavox.jobs.job import Request
from megavox.study.duration import Seconds
from megavox.study.load import validated
from megavox.study.section import Positive, Section


class Asked(Section):
    """What a job asks of its site; without a value it gets what the site gives."""

    ranks: Positive = Field(1, description="processes in all, evenly on the nodes")
    nodes: Positive = 1
    cpus: Positive = Field(1, description="cores of a rank")
    gpus: Annotated[int, Field(ge=0)] = Field(0, description="GPUs of a node")
    memory_gb: Annotated[float, Field(gt=0)] | None = Field(None, description="of a node, GB")
    time_limit: Seconds | None = None
    grace: Seconds = Field(120.0, description="the job is told so long before its time limit")
    elements: Annotated[int, Field(ge=0)] = Field(0, description="so many jobs share the work, as one array; of "
                                                  "predictions only")
    partition: str | None = None
    account: str | None = None
    environment: dict[str, str] = Field(default_factory=dict, description="more variables")

    @model_validator(mode="after")
    def _consistent(self) -> Asked:
        if self.ranks % self.nodes:
            raise ValueError(f"{self.ranks} ranks cannot be shared evenly by {self.nodes} nodes")
        return self

    def over(self, other: Asked) -> Asked:
        """What stands here, and the rest of what stands there."""
        return Asked.model_validate(other.model_dump(exclude_unset=True) | self.model_dump(exclude_unset=True))

    def request(self, command: Sequence[str], folder: Path) -> Request:
        """The request for a job with this command, to run in this folder."""
        values: dict[str, Any] = {name: getattr(self, name) for name in type(self).model_fields}
        time_limit, grace = values.pop("time_limit"), values.pop("grace")
        return Request(tuple(command), str(folder), time_limit_s=time_limit, grace_s=grace, **values)


def asked(changes: Iterable[str]) -> Asked:
    """What `key=value` texts ask for, the values in YAML.

    Raises:
        StudyError: no such key, or no such value.
    """
    values: dict[str, Any] = {}
    for change in changes:
        key, separator, text = change.partition("=")
        if not separator:
            raise StudyError(f"--ask {change!r} is not key=value", expected="for example --ask ranks=4")
        values[key.strip()] = yaml.safe_load(text)
    return validated(Asked, values, "--ask")


class SiteSection(Section):
    """A site: what all its jobs ask for, and what trainings and predictions ask for besides."""

    jobs: Asked = Asked()
    train: Asked = Asked()
    predict: Asked = Asked()

    def asked(self, stage: str, more: Asked) -> Asked:
        """What a stage's job asks for; `more` stands above all."""
        own = getattr(self, stage, Asked())
        return more.over(own.over(self.jobs))
