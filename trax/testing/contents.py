"""What a file may hold after a power loss: its size and each of its sectors, every one by itself.

Between two fsyncs of a file anything may reach the disk, in any order, and nothing has to:

- **Its size** is one that it had since the last fsync. A write that made it grow may have come only so far as any
  sector: the size is written down when the data of a block is, or long before.
- **A sector** (512 bytes) holds what it held at some moment since. Or it was torn: its beginning is of one moment and
  its end of another. Where all moments agree, so does the sector: a write does not damage what lies beside it.
- **A sector that the file was given since**, and that did not arrive, reads as zeros, or as what its place on the disk
  held before: noise, or what another file had left there.

An fsync, and an fdatasync too, makes contents and size durable: a changed size is needed for reading the data, so
fdatasync may not leave it out (fdatasync(2)). It makes no *name* durable: see :mod:`trax.testing.names`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise, product
from math import prod
from typing import TypeVar

SECTOR_BYTES = 512
NOISE = bytes(range(256)) * (SECTOR_BYTES // 256)
TOO_MANY = 10**18
"""Stands for every number of states that nobody will ever try one by one."""

_MANY_SECTORS = 64
_MANY_VERSIONS = 6

T = TypeVar("T")

Choose = Callable[[str, int], int]
"""Chooses one of so many possibilities for a ``"name"``, a ``"size"`` or a ``"sector"``: a number from 0 on.

0 is always what the operating system shows, 1 what was durable before, where the two differ.
"""


class FileContents:
    """One file: what is durable, and what was asked since."""

    def __init__(self, data: bytes = b"") -> None:
        self._fresh_from = 0
        self._become(data)

    def write(self, data: bytes, offset: int) -> None:
        before = len(self._cached)
        end = offset + len(data)
        sectors = range(offset // SECTOR_BYTES, -(-end // SECTOR_BYTES))
        for sector in sectors:
            self._begin(sector)
        self._grow(end)
        self._cached[offset:end] = data
        for sector in sectors:
            self._changed(sector)
        self._sizes += range(before // SECTOR_BYTES * SECTOR_BYTES + SECTOR_BYTES, end, SECTOR_BYTES)
        self._sizes.append(max(before, end))

    def truncate(self, size: int) -> None:
        before = len(self._cached)
        cut = range(size // SECTOR_BYTES, -(-before // SECTOR_BYTES))
        sectors = [sector for sector in cut if sector in self._versions or any(self._sector(self._cached, sector))]
        for sector in sectors:
            self._begin(sector)
        del self._cached[size:]
        self._grow(size)
        for sector in sectors:
            self._changed(sector)
        self._sizes.append(size)

    def allocate(self, size: int) -> None:
        """Room up to ``size``, as ``posix_fallocate`` makes it: it reads as zeros."""
        self._grow(size)
        self._sizes.append(len(self._cached))

    def sync(self) -> None:
        if self.pending:
            self._become(bytes(self._cached))

    def lose(self, data: bytes) -> None:
        """An fsync has failed and left this on the disk: what was to be synced is not tried again."""
        self._become(data)

    @property
    def pending(self) -> bool:
        """Whether anything was asked since the last fsync."""
        return len(self._sizes) > 1

    def cached(self) -> bytes:
        """What the operating system shows."""
        return bytes(self._cached) if self.pending else self._durable

    def possible(self, left_behind: Sequence[bytes] = ()) -> PossibleContents:
        """What may be on the disk; ``left_behind`` is what removed files held, the last one first."""
        return PossibleContents(self._durable, self._sizes, self._versions, self._fresh_from, left_behind)

    def _become(self, data: bytes) -> None:
        self._durable = data
        self._cached = bytearray(data)
        self._sizes = [len(data)]
        self._versions: dict[int, list[bytes]] = {}
        self._fresh_from = len(data)

    def _grow(self, size: int) -> None:
        if size > len(self._cached):
            self._fresh_from = min(self._fresh_from, len(self._cached))
            self._cached.extend(bytes(size - len(self._cached)))

    def _begin(self, sector: int) -> None:
        if sector not in self._versions:
            self._versions[sector] = [self._sector(self._durable, sector)]

    def _changed(self, sector: int) -> None:
        versions = self._versions[sector]
        now = self._sector(self._cached, sector)
        if now in versions:
            versions.remove(now)
        versions.append(now)

    @staticmethod
    def _sector(data: bytes | bytearray, sector: int) -> bytes:
        return bytes(data[sector * SECTOR_BYTES : (sector + 1) * SECTOR_BYTES]).ljust(SECTOR_BYTES, b"\0")


class PossibleContents:
    """All that a file may hold after a power loss, one ``bytes`` each. Iterate for all, or choose one.

    All but for this: a sector may be torn anywhere, and is torn in the middle of what changed and between two writes;
    noise may be any, and is one pattern; of what removed files left behind it is the last.
    """

    def __init__(
        self,
        durable: bytes,
        sizes: Sequence[int],
        versions: dict[int, list[bytes]],
        fresh_from: int,
        left_behind: Sequence[bytes],
    ) -> None:
        self._durable = durable
        self._sizes = _newest_first(sizes)
        self._versions = {sector: tuple(history) for sector, history in sorted(versions.items())}
        self._fresh_from = -(-fresh_from // SECTOR_BYTES)
        self._left_behind = left_behind
        self._variants: dict[tuple[int, int], list[bytes]] = {}

    @property
    def count(self) -> int:
        """How many there are, ``TOO_MANY`` at most."""
        if len(self._versions) > _MANY_SECTORS:
            return TOO_MANY
        return min(TOO_MANY, sum(prod(map(len, self._cells(size))) for size in self._sizes))

    def __iter__(self) -> Iterator[bytes]:
        for size in self._sizes:
            for picks in product(*self._cells(size)):
                yield self._build(size, picks)

    def choose(self, choose: Choose) -> bytes:
        """One of them."""
        size = self._sizes[choose("size", len(self._sizes))]
        return self._build(size, [cell[choose("sector", len(cell))] for cell in self._cells(size)])

    def _cells(self, size: int) -> list[list[bytes]]:
        """What each changed sector within the size may hold; last, what fills those that were never written."""
        cells = [
            self._cell(sector, min(SECTOR_BYTES, size - sector * SECTOR_BYTES))
            for sector in self._versions
            if sector * SECTOR_BYTES < size
        ]
        return [*cells, [bytes(SECTOR_BYTES), NOISE]] if self._unwritten(size) else cells

    def _cell(self, sector: int, nbytes: int) -> list[bytes]:
        if (sector, nbytes) not in self._variants:
            versions = _newest_first(self._versions[sector])
            every = [*versions, *_torn(self._versions[sector])]
            if sector >= self._fresh_from:
                start = sector * SECTOR_BYTES
                every.append(NOISE)
                left = (data[start : start + SECTOR_BYTES].ljust(SECTOR_BYTES, b"\0") for data in self._left_behind)
                every += [data for data in left if any(data)][:1]
            self._variants[sector, nbytes] = list(dict.fromkeys(data[:nbytes] for data in every))
        return self._variants[sector, nbytes]

    def _unwritten(self, size: int) -> list[int]:
        """The sectors that the file was given and that nobody wrote to."""
        return [sector for sector in range(self._fresh_from, -(-size // SECTOR_BYTES)) if sector not in self._versions]

    def _build(self, size: int, picks: Sequence[bytes]) -> bytes:
        content = bytearray(self._durable[:size]).ljust(size, b"\0")
        for sector, data in zip(self._versions, picks, strict=False):
            if sector * SECTOR_BYTES < size:
                content[sector * SECTOR_BYTES : sector * SECTOR_BYTES + len(data)] = data
        unwritten = self._unwritten(size)
        if unwritten and picks[-1] is NOISE:
            for sector in unwritten:
                content[sector * SECTOR_BYTES : (sector + 1) * SECTOR_BYTES] = NOISE
        return bytes(content[:size])


def _newest_first(history: Sequence[T]) -> list[T]:
    """Each once: the last one, then the first, then what came between, the latest first."""
    return list(dict.fromkeys([history[-1], history[0], *reversed(history)]))


def _torn(history: Sequence[bytes]) -> Iterator[bytes]:
    """What two moments may come to together: torn in the middle of what changed, or where a change between began."""
    pairs = [(old, new) for new in range(len(history)) for old in range(new)]
    if len(history) > _MANY_VERSIONS:
        pairs = [(old, new) for old, new in pairs if old == 0 or new == len(history) - 1]
    begins = [_difference(old, new)[0] for old, new in pairwise(history)]
    for old, new in pairs:
        first, last = _difference(history[old], history[new])
        for cut in dict.fromkeys([(first + last + 1) // 2, *begins[old + 1 : new]]):
            yield history[new][:cut] + history[old][cut:]
            yield history[old][:cut] + history[new][cut:]


def _difference(old: bytes, new: bytes) -> tuple[int, int]:
    """The first and the last byte that differ."""
    bits = int.from_bytes(old) ^ int.from_bytes(new)
    return SECTOR_BYTES - (bits.bit_length() + 7) // 8, SECTOR_BYTES - 1 - ((bits & -bits).bit_length() - 1) // 8
