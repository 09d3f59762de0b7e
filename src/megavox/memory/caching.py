"""What PyTorch's allocator takes from a GPU to hand out what a program asks for: whole segments, which it keeps.

A model of `CUDACachingAllocator` with its usual settings: sizes are rounded up to 512 bytes; up to 1 MiB come from
segments of 2 MiB, up to 10 MiB from segments of 20 MiB, more have a segment of their own in multiples of 2 MiB; the
smallest free block that is large enough is taken, and what is left of it stays usable beside it.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable
from dataclasses import dataclass

MIB = 2**20
ROUND = 512
SMALL, SMALL_SEGMENT = MIB, 2 * MIB
MIDDLE, MIDDLE_SEGMENT = 10 * MIB, 20 * MIB
LARGE_ROUND = 2 * MIB


class NoRoom(Exception):
    """More was asked for than there is, with what is free given back to the device."""


@dataclass(eq=False)
class _Block:
    """Part of a segment; blocks of one segment are chained by address."""

    address: int
    size: int
    small: bool
    free: bool = False
    before: _Block | None = None
    after: _Block | None = None


class CachingAllocator:
    """The model.

    Args:
        limit: bytes of the device; None: as many as it takes.

    Attributes:
        reserved: bytes in segments.
        most_reserved: the most of them so far.
    """

    def __init__(self, limit: int | None = None) -> None:
        self.limit, self.reserved, self.most_reserved = limit, 0, 0
        self._next_address = 0
        self._used: dict[int, _Block] = {}
        self._free: dict[bool, list[tuple[int, int, _Block]]] = {True: [], False: []}

    def run(self, events: Iterable[tuple[int, int]]) -> CachingAllocator:
        """Follow `live.Live.events`.

        Raises:
            NoRoom: they need more than the limit.
        """
        for number, size in events:
            if size > 0:
                self.take(number, size)
            elif size < 0:
                self.give(number)
        return self

    def take(self, number: int, size: int) -> None:
        """Hand out `size` bytes under a number that is not in use."""
        size = _up(size, ROUND)
        small = size <= SMALL
        pool = self._free[small]
        place = bisect_left(pool, (size, -1))
        block = pool.pop(place)[2] if place < len(pool) else self._segment(size, small)
        rest = block.size - size
        if rest >= ROUND if small else rest > SMALL:
            left = _Block(block.address + size, rest, small, before=block, after=block.after)
            if block.after:
                block.after.before = left
            block.after, block.size = left, size
            self._put(left)
        block.free = False
        self._used[number] = block

    def give(self, number: int) -> None:
        """Take back what was handed out under a number; free neighbours become one block."""
        block = self._used.pop(number)
        if block.before and block.before.free:
            block = self._joined(block.before, block)
        if block.after and block.after.free:
            block = self._joined(block, block.after)
        self._put(block)

    def _segment(self, size: int, small: bool) -> _Block:
        whole = SMALL_SEGMENT if small else MIDDLE_SEGMENT if size < MIDDLE else _up(size, LARGE_ROUND)
        if self.limit is not None and self.reserved + whole > self.limit:
            self._release()
            if self.reserved + whole > self.limit:
                raise NoRoom(f"{whole} bytes beside {self.reserved} of {self.limit}")
        self.reserved += whole
        self.most_reserved = max(self.most_reserved, self.reserved)
        block = _Block(self._next_address, whole, small)
        self._next_address += whole
        return block

    def _release(self) -> None:
        """Give segments of which nothing is used back to the device."""
        for pool in self._free.values():
            for _, _, block in [one for one in pool if one[2].before is None and one[2].after is None]:
                self._remove(block)
                self.reserved -= block.size

    def _joined(self, first: _Block, second: _Block) -> _Block:
        self._remove(first if first.free else second)
        first.size += second.size
        first.after = second.after
        if second.after:
            second.after.before = first
        return first

    def _put(self, block: _Block) -> None:
        block.free = True
        insort(self._free[block.small], (block.size, block.address, block))

    def _remove(self, block: _Block) -> None:
        pool = self._free[block.small]
        del pool[bisect_left(pool, (block.size, block.address))]
        block.free = False


def _up(size: int, multiple: int) -> int:
    return -(-size // multiple) * multiple
