"""ZODB with a FileStorage: a BTree of packed values. Each commit ends with an fsync, which can't be switched off."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import transaction
import ZODB
import ZODB.FileStorage
from BTrees.LOBTree import LOBTree

from benchmarks.stores.base import LogStore, pack, unpack


class ZodbLog(LogStore):
    def open(self) -> None:
        self.database = ZODB.DB(ZODB.FileStorage.FileStorage(str(self.directory / "data.fs")))
        self.connection = self.database.open()
        root = self.connection.root()
        if "log" not in root:
            root["log"] = LOBTree()
            transaction.commit()
        self.log = root["log"]

    def put(self, value: Any) -> None:
        self.log[len(self.log)] = pack(value)
        transaction.commit()

    def put_each(self, values: Sequence[Any]) -> None:
        for number, value in enumerate(values):
            self.log[number] = pack(value)
            transaction.commit()

    def put_together(self, values: Sequence[Any]) -> None:
        for number, value in enumerate(values):
            self.log[number] = pack(value)
        transaction.commit()

    def read(self) -> Iterator[Any]:
        return map(unpack, self.log.values())

    def close(self) -> None:
        self.connection.close()
        self.database.close()
