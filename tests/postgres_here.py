"""A real PostgreSQL on this machine, for tests: Debian's package, brought up in a folder of its own."""

from __future__ import annotations

import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from debian import missing

PROGRAMS = Path("/usr/lib/postgresql")


class Postgres:
    """A server with an empty database.

    Args:
        folder: of the server, which the user `postgres` may enter.
    """

    def __init__(self, folder: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = free.getsockname()[1]
        self._data, self._socket = folder / "data", folder
        self._as_user("initdb", "-D", str(self._data), "-A", "trust", "-U", "megavox")

    @property
    def url(self) -> str:
        """Of the database."""
        return f"postgresql://megavox@127.0.0.1:{self._port}/postgres"

    def up(self) -> None:
        """Start it."""
        self._as_user("pg_ctl", "-D", str(self._data), "-w", "-l", str(self._socket / "log.txt"), "-o",
                      f"-p {self._port} -k {self._socket} -c listen_addresses=127.0.0.1", "start")

    def down(self) -> None:
        """Stop it, whoever is connected."""
        self._as_user("pg_ctl", "-D", str(self._data), "-w", "-m", "immediate", "stop")

    def _as_user(self, program: str, *arguments: str) -> None:
        path = sorted(PROGRAMS.glob(f"*/bin/{program}"))[-1]
        subprocess.run(["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups", str(path), *arguments],
                       cwd=self._socket, check=True, capture_output=True, timeout=60)


@contextmanager
def postgres() -> Iterator[Postgres]:
    """A server that is up; skips the test where there is none and none may be made."""
    why = missing(["pg_ctlcluster"], ["postgresql"])
    if why:
        pytest.skip(f"no PostgreSQL for tests: {why}")
    folder = Path(tempfile.mkdtemp(prefix="megavox-postgres-"))
    shutil.chown(folder, "postgres", "postgres")
    try:
        server = Postgres(folder)
        server.up()
        yield server
        server.down()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
