"""Accounting for the Slurm of tests: a database of its own and `slurmdbd`, in the cluster's folder."""

from __future__ import annotations

import subprocess
from pathlib import Path

PACKAGES = ("mariadb-server", "slurmdbd")
PORTS = 2  # that it needs, beside each other

CONFIGURATION = """
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
DbdHost=localhost
DbdAddr=127.0.0.1
DbdPort={port}
SlurmUser=root
PidFile={folder}/slurmdbd.pid
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort={database}
StorageUser=megavox
StoragePass=megavox
StorageLoc=megavox
"""
LINES = """
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort={port}
AccountingStoragePass={folder}/munge.socket
"""


def configured(folder: Path, port: int) -> str:
    """Write the configuration of accounting; returns the lines that the cluster's needs."""
    path = folder / "slurmdbd.conf"
    path.touch(0o600)
    path.write_text(CONFIGURATION.format(folder=folder, port=port, database=port + 1))
    return LINES.format(folder=folder, port=port)


def made_database(folder: Path) -> None:
    """Make an empty database."""
    subprocess.run(
        ["mariadb-install-db", "--no-defaults", "--user=root", f"--datadir={folder}/database", "--skip-test-db",
         "--auth-root-authentication-method=normal", "--skip-name-resolve"], check=True, capture_output=True)


def database(folder: Path, port: int) -> list[str]:
    """The command that serves the database."""
    return ["mariadbd", "--no-defaults", "--user=root", f"--datadir={folder}/database",
            f"--socket={folder}/database.socket", f"--pid-file={folder}/mariadb.pid", f"--port={port + 1}",
            "--bind-address=127.0.0.1", "--skip-name-resolve", "--skip-log-bin", "--innodb-lock-wait-timeout=900",
            "--innodb-log-file-size=64M", "--innodb-flush-log-at-trx-commit=2"]


def with_rights(folder: Path) -> list[str]:
    """The command that gives `slurmdbd` its place in the database, which is up when it succeeds."""
    return ["mariadb", "--no-defaults", "-uroot", f"--socket={folder}/database.socket", "-e",
            "create database if not exists megavox; grant all on megavox.* to 'megavox'@'127.0.0.1' identified by "
            "'megavox'; flush privileges;"]
