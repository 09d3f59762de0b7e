"""What all sections of a study file are made of: their base, and the types of their keys."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

AUTO: Literal["auto"] = "auto"
NAME = "[A-Za-z0-9][A-Za-z0-9_.-]*"  # of studies and runs, which are names of folders too
Auto = Literal["auto"]
Positive = Annotated[int, Field(ge=1)]
Fraction = Annotated[float, Field(ge=0, lt=1)]


class Section(BaseModel):
    """A part of the study file: frozen, and no key that is not named here."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())
