"""The one-way rule: a room imports `core` and rooms that stand before it, and nobody's private names."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[1] / "src" / "megavox"
ORDER = ("core", "images", "cohort", "store", "batches", "models", "measures", "tasks", "training", "memory",
         "inference", "report", "jobs", "search")
ALLOWED: dict[str, set[str]] = {room: {*ORDER[:place], "study"} for place, room in enumerate(ORDER)}
ALLOWED["core"] = set()
ALLOWED["study"] = {"core"}
ALLOWED["phantoms"] = {"core", "images"}
ALLOWED["pipeline"] = {*ORDER, "study", "phantoms"}
CLI = {"megavox.core", "megavox.study", "megavox.pipeline", "megavox.memory.doctor", "megavox.jobs"}


@dataclass(frozen=True)
class Import:
    """`module` is imported by `file`; `names` are what is taken from it."""

    file: Path
    line: int
    module: str
    names: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.file.relative_to(SOURCE)}:{self.line} imports {self.module} {' '.join(self.names)}".rstrip()


def imports_of(text: str, file: Path) -> Iterator[Import]:
    """Imports of megavox modules anywhere in a file, those inside functions and `TYPE_CHECKING` included."""
    package = ["megavox", *file.relative_to(SOURCE).parts[:-1]]
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(file, node.lineno, alias.name, ())
        elif isinstance(node, ast.ImportFrom):
            base = package[:len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *filter(None, [node.module])])
            names = tuple(alias.name for alias in node.names)
            if module == "megavox":  # from megavox import images
                yield from (Import(file, node.lineno, f"megavox.{name}", ()) for name in names)
            else:
                yield Import(file, node.lineno, module, names)


def room_of(module: str) -> str:
    return [*module.split("."), ""][1]


def faults(found: Import) -> Iterator[str]:
    """What is wrong with one import."""
    if found.module.split(".")[0] != "megavox":
        return
    here, there = found.file.relative_to(SOURCE).parts[0].removesuffix(".py"), room_of(found.module)
    if here == "__main__":
        if found.module != "megavox.cli":
            yield f"{found}: __main__ imports megavox.cli only"
    elif here.startswith("cli"):
        if found.module.startswith("megavox.cli"):
            return
        if not any(found.module == name or found.module.startswith(name + ".") for name in CLI):
            yield f"{found}: the command line imports {', '.join(sorted(CLI))} only"
    elif there != here and there not in ALLOWED[here]:
        yield f"{found}: {here} stands before {there}, or beside it"
    private = [part for part in (*found.module.split("."), *found.names)
               if part.startswith("_") and not part.startswith("__")]
    if private and there != here:
        yield f"{found}: a private name of another room"


def test_every_import_of_the_source_keeps_the_one_way_rule() -> None:
    files = sorted(SOURCE.rglob("*.py"))
    assert len(files) > 60
    found = [one for file in files for one in imports_of(file.read_text(), file)]
    assert sum(one.module.startswith("megavox") for one in found) > 200
    wrong = [text for one in found for text in faults(one)]
    assert not wrong, "\n" + "\n".join(wrong)


def test_every_room_is_placed() -> None:
    rooms = {path.name for path in SOURCE.iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert rooms == set(ALLOWED)


@pytest.mark.parametrize(("file", "text", "wrong"), [
    ("images/new.py", "from megavox.cohort.case import Case", True),
    ("images/new.py", "from megavox.core.files import write_json", False),
    ("images/new.py", "from ..store import read", True),
    ("images/new.py", "from . import geometry", False),
    ("store/new.py", "def f():\n    from megavox.training import loop", True),
    ("cohort/new.py", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import megavox.tasks.segment", True),
    ("training/new.py", "from megavox.pipeline.train import train", True),
    ("training/new.py", "from megavox import cli", True),
    ("report/new.py", "from megavox.core.files import _sync_folder", True),
    ("core/new.py", "from megavox.study import Study", True),
    ("phantoms/new.py", "from megavox.cohort.case import Case", True),
    ("cli.py", "from megavox.memory.doctor import examine", False),
    ("cli.py", "from megavox.training.loop import train", True)])
def test_the_rule_finds_what_breaks_it(file: str, text: str, wrong: bool) -> None:
    assert bool([fault for one in imports_of(text, SOURCE / file) for fault in faults(one)]) == wrong
