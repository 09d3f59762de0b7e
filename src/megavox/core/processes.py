"""Worker processes that signals to the job do not reach.

Ctrl-C goes to every process of a terminal's group, and a batch queue may signal every process of a job.
The main process decides what a signal means; its workers, and the server that forks them, must live
until it has. So the server is started with these signals blocked, and its workers inherit that.
"""

from __future__ import annotations

import multiprocessing
import signal
from multiprocessing import forkserver, resource_tracker
from multiprocessing.context import ForkServerContext

JOB_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


def worker_context() -> ForkServerContext:
    """The context to start workers in."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, JOB_SIGNALS)
    try:
        resource_tracker.ensure_running()
        signal.pthread_sigmask(signal.SIG_BLOCK, JOB_SIGNALS)  # starting the tracker unblocks some
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return multiprocessing.get_context("forkserver")


def let_be_terminated() -> None:
    """In a worker: SIGTERM ends it. For pools, which end their processes so when one has died."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
