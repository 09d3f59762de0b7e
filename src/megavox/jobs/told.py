"""How a job ended, in a sentence for people."""

from __future__ import annotations

import signal

from megavox.core.errors import WorkspaceError
from megavox.core.files import read_json
from megavox.core.signals import INTERRUPTED, TO_BE_CONTINUED
from megavox.jobs.job import JobFolder, State

_WORDS = {
    State.DONE: "it is done",
    State.CANCELLED: "it was cancelled",
    State.TIME_LIMIT: "it reached its time limit and was ended",
    State.MEMORY: "it was ended for want of memory",
    State.PREEMPTED: "a job of higher priority took its place",
    State.NODE_FAILED: "its node failed",
    State.LOST: "nothing knows it any more, and it left no verdict",
}


def how_it_ended(state: State, status: int | None, folder: JobFolder, element: int | None = None) -> str:
    """One sentence, with the end of the log where somebody has to look into it.

    Args:
        status: of the command, minus the signal where one ended it; None: not known.
    """
    if state is State.FAILED:
        text = f"{_culprit(folder, element)} ended {_how(status)}"
    else:
        text = _WORDS[state]
    end = "" if state in (State.DONE, State.CANCELLED) else folder.log_end(element)
    return text + (f"; the end of {folder.log(element)}:\n{end}" if end else "")


def _how(status: int | None) -> str:
    if status is None:
        return "with an unknown status"
    if status < 0:
        known = -status in set(signal.Signals)
        return f"by {signal.Signals(-status).name if known else f'signal {-status}'}"
    meaning = {TO_BE_CONTINUED: " (it wants to go on, and the site does not start it again: submit it once more)",
               INTERRUPTED: " (Ctrl-C)"}.get(status, "")
    return f"with status {status}{meaning}"


def _culprit(folder: JobFolder, element: int | None) -> str:
    """The rank that failed first, where there are several."""
    ranks = folder.request().ranks
    failed = []
    for number in range(ranks if ranks > 1 else 0):
        try:
            found = read_json(folder.rank(number, element))
        except WorkspaceError:
            continue
        if found["exit"] not in (0, TO_BE_CONTINUED):
            failed.append((found["ended"], found["rank"], found["host"]))
    if not failed:
        return "the command"
    _, rank, host = min(failed)
    return f"rank {rank} of {ranks} on {host}"
