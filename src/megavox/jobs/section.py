"""What every site file can say."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import Field

from megavox.core.errors import StudyError
from megavox.jobs.job import Request
from megavox.study.duration import Seconds
from megavox.study.load import validated
from megavox.study.section import Positive, Section


class Asked(Section):
    """What a job asks of its site; without a value it gets what the site gives."""

    ranks: Positive = Field(1, description="processes in all, evenly on the nodes")
    nodes: Positive = 1
    cpus: Positive | None = Field(None, description="cores of a rank; without a value what Slurm gives, on "
                                 "this machine its share")
    gpus: Annotated[int, Field(ge=0)] | None = Field(None, description="GPUs of a node; without a value none, on this "
                                                     "machine one a rank where there are so many")
    memory_gb: Annotated[float, Field(gt=0)] | None = Field(None, description="of a node, GB")
    time_limit: Seconds | None = None
    grace: Seconds = Field(120.0, description="the job is told so long before its time limit")
    elements: Annotated[int, Field(ge=0)] = Field(0, description="so many jobs share the work, as one array; of "
                                                  "predictions only")
    partition: str | None = None
    account: str | None = None
    environment: dict[str, str] = Field(default_factory=dict, description="more variables")

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
        try:
            values[key.strip()] = yaml.safe_load(text)
        except yaml.YAMLError:
            raise StudyError(f"--ask {change!r}: the value is not YAML") from None
    return validated(Asked, values, "--ask")


class SiteSection(Section):
    """A site: what all its jobs ask for, and what trainings and predictions ask for besides."""

    jobs: Asked = Asked()
    train: Asked = Asked()
    predict: Asked = Asked()

    def wishes(self, stage: str, more: Asked) -> Asked:
        """What is written of a stage's job; `more` stands above all."""
        own = getattr(self, stage, Asked())
        return more.over(own.over(self.jobs))

    def asked(self, stage: str, more: Asked) -> Asked:
        """What a stage's job asks for; `more` stands above all.

        Raises:
            StudyError: taken together it makes no sense.
        """
        found = self.wishes(stage, more)
        if found.ranks % found.nodes:
            raise StudyError(f"{found.ranks} ranks cannot be shared evenly by {found.nodes} nodes", where=stage,
                             fix="Change --ask, or the site's file")
        if found.elements and stage != "predict":
            raise StudyError(f"{stage} cannot be shared by the elements of an array", where="elements",
                             expected="elements for predict only", fix="Ask for ranks, which train together")
        if found.ranks > 1 and stage == "predict":
            raise StudyError("predictions have no ranks", where="ranks", expected="1 rank and 1 node for predict",
                             fix="Move ranks and nodes to `train` in the site's file, or ask for ranks=1 and nodes=1; "
                             "elements share the cases")
        return found
