"""Memory that there is, and memory that a process is held to."""

from __future__ import annotations

import numpy as np
import psutil
import pytest
import torch

from megavox.core.exhausted import held_to
from megavox.memory.available import private_bytes, total_bytes
from megavox.memory.machine import GIVEN_MB, main_memory_gb


def test_a_process_gets_no_more_than_it_is_held_to_and_all_of_it_before_and_after() -> None:
    limit = private_bytes()[1] / 1e9 + 0.2
    with held_to(limit):
        assert len(np.ones(25_000_000 // 8)) > 0
        with pytest.raises(RuntimeError, match="can't allocate memory"):
            torch.ones(100_000_000)
        with pytest.raises(MemoryError):
            np.ones(50_000_000)
    assert torch.ones(100_000_000).sum() == 100_000_000


def test_what_a_job_was_given_counts_where_it_is_less(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = main_memory_gb()
    assert whole == total_bytes() / 1e9 <= psutil.virtual_memory().total / 1e9
    for text, expected in (("1024", 2**30 / 1e9), ("0", whole), ("many", whole), (str(10**9), whole)):
        monkeypatch.setenv(GIVEN_MB, text)
        assert main_memory_gb() == expected
    monkeypatch.setenv("SLURM_MEM_PER_NODE", "512")
    assert main_memory_gb() == 2**29 / 1e9
