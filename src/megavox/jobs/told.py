"""How a job ended, in a sentence for people."""

from __future__ import annotations

import signal
from typing import Any

from megavox.core.errors import WorkspaceError
from megavox.core.files import read_json
from megavox.core.signals import INTERRUPTED, PEER_DIED, TO_BE_CONTINUED
from megavox.jobs.job import JobFolder, State

LINES = 5  # of what the site wrote
_WORDS = {
    State.DONE: "it is done",
    State.CANCELLED: "it was cancelled",
    State.TIME_LIMIT: "it reached its time limit and was ended",
    State.MEMORY: "it was ended for want of memory",
    State.PREEMPTED: "a job of higher priority took its place",
    State.NODE_FAILED: "its node failed",
    State.LOST: "nothing knows it any more, and it left no verdict",
}


def how_it_ended(state: State, status: int | None, folder: JobFolder, element: int | None = None,
                 said: str = "") -> str:
    """One sentence, with the end of the log where somebody has to look into it.

    Args:
        status: of the command, minus the signal where one ended it; None: not known.
        said: what the site wrote of the job.
    """
    text = _failed(status, folder, element) if state is State.FAILED else _WORDS[state]
    if state in (State.DONE, State.CANCELLED):
        return text
    lines = dict.fromkeys(line for line in said.splitlines() if line.strip())  # Slurm repeats itself
    words = "\n".join([*lines][-LINES:])
    text += f"; the site wrote:\n{words}\n" if words else ""
    end = folder.log_end(element)
    return text + (f"; the end of {folder.log(element)}:\n{end}" if end else "")


def first_to_fail(folder: JobFolder, element: int | None = None) -> dict[str, Any] | None:
    """What is known of the rank that failed first, the others on its account; None where no rank failed.

    Its `rank`, `host`, and `exit`: None where it left no word.
    """
    found = []
    for number in range(folder.request().ranks):
        try:
            found.append(read_json(folder.rank(number, element)))
        except WorkspaceError:
            continue
    failed = [one for one in found if one["exit"] not in (0, TO_BE_CONTINUED)]
    return min(failed, key=lambda one: (_on_its_own(one["exit"]), one["ended"]), default=None)


def _on_its_own(status: int | None) -> int:
    """0: it failed by itself; 1: it left no word, as what is killed does; 2: others had failed before."""
    return 1 if status is None else 2 if status in (PEER_DIED, -signal.SIGTERM) else 0


def _how(status: int | None) -> str:
    if status is None:
        return "without a word: it was killed, or could not be started"
    if status < 0:
        known = -status in set(signal.Signals)
        return f"by {signal.Signals(-status).name if known else f'signal {-status}'}"
    meaning = {TO_BE_CONTINUED: " (it wants to go on, and the site does not start it again: submit it once more)",
               INTERRUPTED: " (Ctrl-C)"}.get(status, "")
    return f"with status {status}{meaning}"


def _failed(status: int | None, folder: JobFolder, element: int | None) -> str:
    """With the rank that failed first, where there are several."""
    ranks = folder.request().ranks
    first = first_to_fail(folder, element) if ranks > 1 else None
    if first is None:
        return f"the command ended {_how(status)}"
    return f"rank {first['rank']} of {ranks} on {first['host']} ended {_how(first['exit'])}"
