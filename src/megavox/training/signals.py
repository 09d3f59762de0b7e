"""Being asked to stop: SIGTERM, SIGUSR1 (what batch queues send before the time limit) and Ctrl-C.

The signal only sets a flag; the loop finishes its step, writes a checkpoint and leaves with a status
that says "start me again to go on".
"""

from __future__ import annotations

import signal
from types import FrameType

from megavox.core.processes import JOB_SIGNALS
from megavox.training.parallel import Ranks

TO_BE_CONTINUED = 75  # EX_TEMPFAIL of sysexits.h: "try again later"
INTERRUPTED = 130  # 128 + SIGINT, as shells have it


class Stopped(Exception):
    """Training was asked to stop and has written a checkpoint.

    Attributes:
        step: steps done.
        status: exit status for the process.
    """

    def __init__(self, step: int, status: int) -> None:
        super().__init__(step, status)
        self.step, self.status = step, status


class Stop:
    """Listens for signals while it is entered; a second Ctrl-C ends at once."""

    def __init__(self) -> None:
        self.signal: int | None = None
        self._before: dict[int, object] = {}

    def __enter__(self) -> Stop:
        for number in JOB_SIGNALS:
            self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def asked_on_any(self, ranks: Ranks) -> bool:
        """Whether any rank was asked to stop."""
        return ranks.any(self.signal is not None)

    def leave(self, step: int) -> None:
        """End the training.

        Raises:
            Stopped: always.
        """
        raise Stopped(step, INTERRUPTED if self.signal == signal.SIGINT else TO_BE_CONTINUED)

    def _note(self, number: int, _frame: FrameType | None) -> None:
        if self.signal == number == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal = number
