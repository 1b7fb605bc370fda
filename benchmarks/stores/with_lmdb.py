"""LMDB: keys appended in order, a map that is large enough from the start."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import lmdb

from benchmarks.stores.base import LogStore, key_of, pack, unpack

MAP_BYTES = 1 << 34


class LmdbLog(LogStore):
    def open(self) -> None:
        # Without syncs a writable map is the fastest, and as safe from the death of the process; with them it is not.
        safe = self.durability == "always"
        self.environment = lmdb.open(
            str(self.directory), map_size=MAP_BYTES, sync=safe, writemap=not safe, map_async=not safe
        )
        with self.environment.begin() as transaction:
            self.numbers = itertools.count(transaction.stat()["entries"])

    def put(self, value: Any) -> None:
        data = pack(value)
        with self.environment.begin(write=True) as transaction:
            transaction.put(key_of(next(self.numbers)), data, append=True)

    def put_each(self, values: Sequence[Any]) -> None:
        begin = self.environment.begin
        for number, value in enumerate(values):
            with begin(write=True) as transaction:
                transaction.put(key_of(number), pack(value), append=True)

    def put_together(self, values: Sequence[Any]) -> None:
        with self.environment.begin(write=True) as transaction:
            pairs = ((key_of(number), pack(value)) for number, value in enumerate(values))
            transaction.cursor().putmulti(pairs, append=True)

    def read(self) -> Iterator[Any]:
        with self.environment.begin(buffers=True) as transaction:
            for data in transaction.cursor().iternext(keys=False, values=True):
                yield unpack(data)

    def close(self) -> None:
        self.environment.close()
