"""diskcache: a cache that never evicts, with packed values."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import diskcache

from benchmarks.stores.base import LogStore, pack, unpack

FULL, OFF = 2, 0


class DiskcacheLog(LogStore):
    def open(self) -> None:
        self.cache = diskcache.Cache(
            str(self.directory),
            eviction_policy="none",
            cull_limit=0,
            sqlite_synchronous=FULL if self.durability == "always" else OFF,
        )
        self.numbers = itertools.count()

    def put(self, value: Any) -> None:
        self.cache.set(next(self.numbers), pack(value))

    def put_together(self, values: Sequence[Any]) -> None:
        with self.cache.transact():
            for value in values:
                self.put(value)

    def read(self) -> Iterator[Any]:
        for number in self.cache:
            yield unpack(self.cache[number])

    def close(self) -> None:
        self.cache.close()
