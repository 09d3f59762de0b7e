"""Randomness as a pure function of where it is used.

There is no generator that is carried along: every draw is made by a fresh, cheap, counter-based
generator whose key is the whole address of the draw, for example `(seed, "batch", step, position)`.
"""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
from numpy.random.bit_generator import ISeedSequence


def generator(seed: int, *address: int | str) -> np.random.Generator:
    """A generator that depends on `seed` and `address` alone.

    Philox (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3") keyed by a
    BLAKE2b hash of the address: equal on every machine, process and thread. Parts of an address are
    compared as text, so 1 is "1"; they must not hold a "/", which parts them.
    """
    text = "/".join([str(int(seed)), *map(str, address)])
    assert text.count("/") == len(address), address
    key = hashlib.blake2b(text.encode(errors="surrogatepass"), digest_size=16).digest()
    key_words = _Key(np.frombuffer(key, "<u8"))
    return np.random.Generator(np.random.Philox(key_words))  # type: ignore[arg-type]  # NumPy's stubs say less


class _Key(ISeedSequence):
    """Gives Philox its key: given as `key`, it would first ask the system for randomness and throw it away."""

    def __init__(self, words: np.ndarray) -> None:
        self._words = words

    def generate_state(self, n_words: int, dtype: Any = np.uint32) -> np.ndarray:
        """The two words of 64 bits that Philox asks for."""
        assert n_words == 2 and dtype == np.uint64, (n_words, dtype)
        return self._words
