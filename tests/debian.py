"""Servers for tests that come as Debian's packages, and which only root may bring up."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path


def missing(programs: Sequence[str], packages: Sequence[str]) -> str:
    """Install what is not there; returns why it cannot be had, or ""."""
    if os.geteuid() != 0:
        return "only root may bring one up"
    with Path(tempfile.gettempdir(), "megavox-debian.lock").open("w") as lock:  # other processes of pytest
        fcntl.flock(lock, fcntl.LOCK_EX)
        if all(shutil.which(name) for name in programs):
            return ""
        if shutil.which("apt-get") is None:
            return "Debian's packages are needed"
        return _installed(packages)


def _installed(packages: Sequence[str]) -> str:
    quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    policy = Path("/usr/sbin/policy-rc.d")  # so that the packages start no daemons of their own
    made = not policy.exists()
    if made:
        policy.write_text("#!/bin/sh\nexit 101\n")
        policy.chmod(0o755)
    try:
        for command in (["apt-get", "update"], ["apt-get", "install", "-y", "--no-install-recommends", *packages]):
            done = subprocess.run(command, env=quiet, capture_output=True, text=True, check=False, timeout=600)
    finally:
        if made:
            policy.unlink()
    return "" if done.returncode == 0 else f"apt-get install fails: {done.stderr.strip()[-200:]}"
