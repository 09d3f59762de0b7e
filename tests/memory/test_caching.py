"""The model of PyTorch's caching allocator, by hand and against a second one without pointers."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from megavox.memory.caching import LARGE_ROUND, MIB, ROUND, CachingAllocator, NoRoom


class Segments:
    """The same rules over plain lists: a segment is a list of [size, number or None]."""

    def __init__(self) -> None:
        self.segments: list[tuple[bool, list[list]]] = []

    def take(self, number: int, size: int) -> None:
        size = -(-size // ROUND) * ROUND
        small = size <= MIB
        fits = [(part[0], index, place) for index, (kind, parts) in enumerate(self.segments) if kind == small
                for place, part in enumerate(parts) if part[1] is None and part[0] >= size]
        if not fits:
            whole = 2 * MIB if small else 20 * MIB if size < 10 * MIB else -(-size // LARGE_ROUND) * LARGE_ROUND
            self.segments.append((small, [[whole, None]]))
            fits = [(whole, len(self.segments) - 1, 0)]
        have, index, place = min(fits)
        rest = have - size
        parts = self.segments[index][1]
        if rest >= ROUND if small else rest > MIB:
            parts[place:place + 1] = [[size, number], [rest, None]]
        else:
            parts[place][1] = number

    def give(self, number: int) -> None:
        for _, parts in self.segments:
            for part in parts:
                if part[1] == number:
                    part[1] = None
            merged: list[list] = []
            for part in parts:
                if merged and merged[-1][1] is None and part[1] is None:
                    merged[-1][0] += part[0]
                else:
                    merged.append(part)
            parts[:] = merged

    @property
    def reserved(self) -> int:
        return sum(part[0] for _, parts in self.segments for part in parts)


@given(st.integers(0, 2**32), st.integers(10, 200))
def test_it_reserves_what_a_second_model_reserves(seed: int, steps: int) -> None:
    draw, one, two, held = random.Random(seed), CachingAllocator(), Segments(), []
    for number in range(steps):
        if held and draw.random() < 0.45:
            gone = held.pop(draw.randrange(len(held)))
            one.give(gone)
            two.give(gone)
        else:
            size = int(2 ** draw.uniform(0, 25))
            one.take(number, size)
            two.take(number, size)
            held.append(number)
        assert one.reserved == two.reserved
    for number in held:
        one.give(number)
    assert one.reserved == one.most_reserved == two.reserved


def test_sizes_and_segments_by_hand() -> None:
    memory = CachingAllocator()
    memory.take(0, 1)
    assert memory.reserved == 2 * MIB
    memory.take(1, 2 * MIB)  # not from a small segment
    assert memory.reserved == 22 * MIB
    memory.take(2, 18 * MIB)  # 18 are left of those 20
    assert memory.reserved == 22 * MIB
    memory.take(3, 11 * MIB + 1)
    assert memory.reserved == 34 * MIB
    memory.give(3)
    memory.take(4, 10 * MIB)  # from what was given back, with 2 left
    memory.take(5, 2 * MIB)
    assert memory.reserved == 34 * MIB


def test_what_is_kept_is_given_back_before_there_is_no_room() -> None:
    memory = CachingAllocator(limit=64 * MIB)
    memory.take(0, 40 * MIB)
    memory.give(0)
    memory.take(1, 50 * MIB)
    assert (memory.reserved, memory.most_reserved) == (50 * MIB, 50 * MIB)
    with pytest.raises(NoRoom, match="of 67108864"):
        memory.take(2, 30 * MIB)
