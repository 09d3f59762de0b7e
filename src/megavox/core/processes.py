"""Worker processes that signals to the job do not reach.

Ctrl-C goes to every process of a terminal's group, and a batch queue may signal every process of a job.
The main process decides what a signal means; its workers, and the server that forks them, must live
until it has. So the server is started with these signals blocked, and its workers inherit that. For
the same reason they must not outlive the main process, however it ends: nothing else would end them.
"""

from __future__ import annotations

import ast
import atexit
import ctypes
import inspect
import linecache
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from multiprocessing import forkserver, resource_tracker
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import NoReturn

from megavox.core.errors import ScriptError
from megavox.core.signals import JOB_SIGNALS

_PR_SET_PDEATHSIG = 1  # of prctl(2)
_AUTOGROUP = "/proc/self/autogroup"  # sched(7)

# Semaphores that libraries make in a worker which is killed are removed by Python's tracker; no need to tell anybody.
QUIET_TRACKER = "ignore::UserWarning:multiprocessing.resource_tracker"


def worker_context(preload: Sequence[str] = ()) -> ForkServerContext:
    """The context to start workers in.

    Args:
        preload: modules that the server imports before it forks, so that its workers share them; without effect
            once it runs.

    Raises:
        ScriptError: the script that calls this would do so again in each worker.
    """
    _refuse_unguarded_script()
    if preload:
        multiprocessing.set_forkserver_preload(list(preload))
    before = signal.pthread_sigmask(signal.SIG_BLOCK, JOB_SIGNALS)
    try:
        with _environment("PYTHONWARNINGS", QUIET_TRACKER):
            resource_tracker.ensure_running()
        signal.pthread_sigmask(signal.SIG_BLOCK, JOB_SIGNALS)  # starting the tracker unblocks some
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return multiprocessing.get_context("forkserver")


@cache  # as the script stood when it began: it may be edited while it runs
def _refuse_unguarded_script() -> None:
    """Workers import the script that the interpreter runs: what stands at its top level, they do too."""
    main = sys.modules["__main__"]
    script, frame = getattr(main, "__file__", None) or "", inspect.currentframe()
    while frame and not (frame.f_code.co_name == "<module>" and frame.f_globals is vars(main)):
        frame = frame.f_back
    source = linecache.getlines(script, vars(main))
    if not frame or not source or Path(frame.f_code.co_filename).name != Path(script).name:
        return  # another thread, a notebook, a prompt
    line = frame.f_lineno
    guards = [part for part in ast.walk(ast.parse("".join(source)))
              if isinstance(part, ast.If) and "__name__" in ast.unparse(part.test)]
    if not any(part.lineno <= line <= (part.end_lineno or line) for part in guards):
        raise ScriptError(f"line {line} starts worker processes, and each of them imports this script as it begins",
                          where=script, expected='if __name__ == "__main__": before what shall be done once',
                          fix="Put that line in, and indent what follows")


@contextmanager
def _environment(name: str, value: str) -> Iterator[None]:
    """For processes that are started in the block, one more of the comma-separated values of a variable."""
    before = os.environ.get(name)
    os.environ[name] = f"{before},{value}" if before else value
    try:
        yield
    finally:
        os.environ.pop(name)
        if before is not None:
            os.environ[name] = before


def begin_in_loader(_worker: int) -> None:
    """First thing in a loader worker: it ends when the main process has."""
    parent = multiprocessing.parent_process()
    assert parent is not None, "only for worker processes"

    def wait() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def begin_in_pool() -> None:
    """First thing in a pool's worker: as in a loader, and SIGTERM ends it, by which pools end when one has died."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
    begin_in_loader(0)


def die_with_parent() -> None:
    """For a process that shall not outlive the one that started it, however that ends; Linux only, elsewhere nothing.

    To be called in the process itself, or as `preexec_fn`.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def nice_session() -> None:
    """For a process that gives way (`nice`) and has just begun a session: let the session give way as much.

    Where Linux has autogroups it shares the cores among sessions first, and niceness counts within one alone; a new
    one has none. To be called in the process itself, or as `preexec_fn`.
    """
    niceness = os.getpriority(os.PRIO_PROCESS, 0)
    if niceness <= 0:
        return
    with suppress(OSError):  # there are none
        file = os.open(_AUTOGROUP, os.O_WRONLY)
        try:
            for _ in range(20):
                with suppress(BlockingIOError):  # Linux hears one such word in a tenth of a second, of all processes
                    os.write(file, str(niceness).encode())
                    break
                time.sleep(0.1)
        finally:
            os.close(file)


@atexit.register
def _kill_loader_workers() -> None:
    """After an error; `multiprocessing` would send SIGTERM, which they do not hear, and wait for ever."""
    for child in multiprocessing.active_children():
        if child.daemon:
            child.kill()


def leave(status: int) -> NoReturn:
    """End this process.

    One of several ranks ends at once: threads of PyTorch that still let go of Python's objects abort a process whose
    interpreter is on its way out ("terminate called without an active exception"), and its work would count as failed.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    sys.exit(status)
