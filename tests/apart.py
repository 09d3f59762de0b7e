"""Functions of tests in a process of their own: killed at each of their writes, or on a tiny disk.

A function is named by its file, so that nothing is pickled. The process starts clean: no threads, and
whatever it does to itself does not reach the tests.
"""

from __future__ import annotations

import importlib.util
import inspect
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Generator, Mapping
from itertools import count
from pathlib import Path
from typing import Any

import pytest

Work = Callable[[Path, int], Generator[None, None, None]]
HANGS_S = 600.0  # much longer than any takes, also on a busy machine
WRITES = {"os.rename", "os.mkdir", "os.rmdir", "os.remove", "os.chmod", "os.link", "os.truncate", "os.symlink"}


def run_apart(work: Callable[[Path], None], root: Path, environment: Mapping[str, str] | None = None) -> None:
    """Run `work(root)` in a new process; what it raises fails the test."""
    _finish([*_command("once", work), str(root)], environment)


def run_on_tiny_disk(work: Callable[[Path], None], mount: Path, size: str) -> None:
    """Run `work(mount)` where `mount` is a disk of `size` ("256k,nr_inodes=40"); skips where none can be made."""
    apart = ["unshare", "--map-root-user", "--mount"]
    script = f'mount -t tmpfs -o size={size} tmpfs "$0" && exec "$@"'
    mount.mkdir(parents=True, exist_ok=True)
    try:
        able = subprocess.run([*apart, "sh", "-c", script, str(mount), "true"], capture_output=True).returncode == 0
    except FileNotFoundError:
        able = False
    if not able:
        pytest.skip("this user may not mount a small disk (unshare --map-root-user --mount)")
    _finish([*apart, "sh", "-c", script, str(mount), *_command("once", work), str(mount)])


def kill_at_each_write(work: Work, root: Path) -> int:
    """Run `work(root, 1)`, `work(root, 2)`, ..., each killed before its first, second, ... write under `root`.

    What `work` does before its `yield` is not counted. Ends with the first that is not killed.

    Returns:
        How many were killed.
    """
    root.mkdir(parents=True, exist_ok=True)
    return int(_finish([*_command("kill", work), str(root)]).split()[-1])


def _command(what: str, work: Callable[..., Any]) -> list[str]:
    return [sys.executable, __file__, what, inspect.getfile(work), work.__name__]


def _finish(command: list[str], environment: Mapping[str, str] | None = None) -> str:
    variables = {**os.environ, **(environment or {})}
    done = subprocess.run(command, capture_output=True, text=True, timeout=HANGS_S, env=variables)
    assert done.returncode == 0, done.stderr
    return done.stdout


def _load(file: str, name: str) -> Callable[..., Any]:
    spec = importlib.util.spec_from_file_location(Path(file).stem, file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return getattr(module, name)


def _kill_each(work: Work, root: Path) -> int:
    for number in count(1):
        child = os.fork()
        if child == 0:
            running = work(root, number)
            next(running)
            _die_before_write(number, str(root))
            next(running, None)
            os._exit(0)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if status == 0:
            return number - 1
        if status != -signal.SIGKILL:
            raise RuntimeError(f"{work.__name__} {number} ended with {status} instead of being killed")
    raise AssertionError


def _die_before_write(number: int, root: str) -> None:
    """Kill this process at the given one of its writes under `root`; syncing a file counts as one."""
    left = number

    def point(name: object = None) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            if name is not None:
                os.close(os.open(str(name), os.O_WRONLY | os.O_TRUNC | os.O_CREAT))
            os.kill(os.getpid(), signal.SIGKILL)

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        opened = event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
        if not (opened or event in WRITES) or not str(arguments[0]).startswith(root):
            return
        point()
        if opened and arguments[2] & os.O_TRUNC:
            point(arguments[0])  # killed after the old content is gone, before the new is written

    os.fsync = lambda handle: point()  # a kill loses nothing that was written, so the real one is not needed
    sys.addaudithook(hook)


if __name__ == "__main__":
    what, file, name, folder = sys.argv[1:]
    function = _load(file, name)
    if what == "kill":
        sys.stdout.write(f"{_kill_each(function, Path(folder))}\n")
    else:
        function(Path(folder))
