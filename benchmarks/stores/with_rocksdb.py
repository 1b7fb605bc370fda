"""RocksDB through rocksdict, in raw mode: bytes in, bytes out."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

from rocksdict import Options, Rdict, WriteBatch, WriteOptions

from benchmarks.stores.base import LogStore, batches, key_of, pack, unpack


class RocksdbLog(LogStore):
    def open(self) -> None:
        self.database = Rdict(str(self.directory / "rocksdb"), Options(raw_mode=True))
        self.numbers = itertools.count()
        if self.durability == "always":
            options = WriteOptions()
            options.sync = True
            self.database.set_write_options(options)

    def put(self, value: Any) -> None:
        self.database.put(key_of(next(self.numbers)), pack(value))

    def put_each(self, values: Sequence[Any]) -> None:
        put = self.database.put
        for number, value in enumerate(values):
            put(key_of(number), pack(value))

    def put_together(self, values: Sequence[Any]) -> None:
        for start, some in batches(values):
            batch = WriteBatch(raw_mode=True)
            put = batch.put
            for number, value in enumerate(some, start):
                put(key_of(number), pack(value))
            self.database.write(batch)

    def read(self) -> Iterator[Any]:
        return map(unpack, self.database.values())

    def close(self) -> None:
        self.database.close()
