"""LevelDB through plyvel."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import plyvel

from benchmarks.stores.base import LogStore, batches, key_of, pack, unpack

WRITE_BUFFER_BYTES = 1 << 26
"""RocksDB's default; LevelDB's own, 4 MiB, is slower here."""


class LeveldbLog(LogStore):
    def open(self) -> None:
        self.database = plyvel.DB(
            str(self.directory / "leveldb"), create_if_missing=True, write_buffer_size=WRITE_BUFFER_BYTES
        )
        self.numbers = itertools.count()
        self.sync = self.durability == "always"

    def put(self, value: Any) -> None:
        self.database.put(key_of(next(self.numbers)), pack(value), sync=self.sync)

    def put_each(self, values: Sequence[Any]) -> None:
        put, sync = self.database.put, self.sync
        for number, value in enumerate(values):
            put(key_of(number), pack(value), sync=sync)

    def put_together(self, values: Sequence[Any]) -> None:
        for start, some in batches(values):
            with self.database.write_batch() as batch:
                put = batch.put
                for number, value in enumerate(some, start):
                    put(key_of(number), pack(value))

    def read(self) -> Iterator[Any]:
        return map(unpack, self.database.iterator(include_key=False))

    def close(self) -> None:
        self.database.close()
