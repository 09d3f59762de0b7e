"""Being asked to stop: SIGTERM, SIGUSR1 (what batch queues send before the time limit) and Ctrl-C.

The signal sets a flag and says so; the stage ends what it must not leave half done and leaves with a
status that says "start me again to go on".
"""

from __future__ import annotations

import os
import signal
import threading
import time
from contextlib import suppress
from types import FrameType

JOB_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
TO_BE_CONTINUED = 75  # EX_TEMPFAIL of sysexits.h: "try again later"
PEER_DIED = 76  # this rank failed since another one had
PASSED_ON_S = 1.0  # within which a Ctrl-C once more is the same one, passed on by `uv run`, `srun` and the like
INTERRUPTED = 130  # 128 + SIGINT, as shells have it


class Stopped(Exception):
    """A stage was asked to stop and did.

    Attributes:
        text: what stands, for the user.
        status: exit status for the process.
    """

    def __init__(self, text: str, status: int) -> None:
        super().__init__(text, status)
        self.text, self.status = text, status


class Stop:
    """Listens for signals while it is entered; a second Ctrl-C ends at once.

    In another thread than the main one, where Python has no signals, nothing is heard.

    Args:
        telling: what is said at the first signal.
    """

    def __init__(self, telling: str) -> None:
        self.telling = telling
        self.signal: int | None = None
        self._since = 0.0
        self._before: dict[int, object] = {}

    def __enter__(self) -> Stop:
        if threading.current_thread() is threading.main_thread():
            for number in JOB_SIGNALS:
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def check(self) -> None:
        """Where the stage may end.

        Raises:
            Stopped: a signal came.
        """
        if self.asked:
            self.leave("stopped; the same command goes on")

    @property
    def asked(self) -> bool:
        """Whether a signal came."""
        return self.signal is not None

    def leave(self, text: str) -> None:
        """End the stage.

        Args:
            text: what stands now, and what to do.

        Raises:
            Stopped: always.
        """
        raise Stopped(text, INTERRUPTED if self.signal == signal.SIGINT else TO_BE_CONTINUED)

    def _note(self, number: int, _frame: FrameType | None) -> None:
        if self.signal == number == signal.SIGINT and time.monotonic() - self._since > PASSED_ON_S:
            raise KeyboardInterrupt
        if self.signal is None and os.environ.get("RANK", "0") == "0":  # the first rank speaks
            _tell(self.telling)
        self._since = self._since or time.monotonic()
        self.signal = number


def ignore_signals() -> None:
    """For a process that ends: a signal that comes once more changes neither its status nor what it says."""
    for number in JOB_SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def _tell(text: str) -> None:
    """A line on standard error, past Python's buffers: the signal may have come while something was written there."""
    lead = "\n" if os.isatty(2) else ""  # there a bar and ^C stand on the line
    with suppress(OSError):  # closed, or nobody reads it any more
        os.write(2, f"{lead}megavox: {text}\n".encode())
