"""Progress and messages for people, on standard error; standard output is for results."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from rich.console import Console

T = TypeVar("T")
_PLAIN_EVERY_S = 20.0  # without a terminal, a line this often instead of a moving bar


@cache
def console() -> Console:
    """The console that everything for people goes through."""
    from rich.console import Console

    return Console(stderr=True, highlight=False, soft_wrap=not sys.stderr.isatty())


def say(text: str) -> None:
    """One line for the person who watches."""
    console().print(text, markup=False)


@contextmanager
def busy(title: str) -> Iterator[None]:
    """Show on a terminal that something of unknown length is going on."""
    if not console().is_terminal:
        yield
        return
    with console().status(title):
        yield


def track(items: Iterable[T], title: str, total: int) -> Iterator[T]:
    """Iterate with a progress bar; without a terminal, with a line every 20 s."""
    if console().is_terminal:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        with Progress(TextColumn("{task.description:<12}"), BarColumn(), MofNCompleteColumn(),
                      TimeRemainingColumn(), console=console(), transient=True) as bar:
            yield from bar.track(items, total=total, description=title)
        return
    last = time.monotonic()
    for number, item in enumerate(items, 1):
        yield item
        if time.monotonic() - last > _PLAIN_EVERY_S:
            last = time.monotonic()
            say(f"{title}: {number} of {total}")
