"""SQLite: a table with an integer key, WAL mode, statements that sqlite3 keeps prepared."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator, Sequence
from typing import Any

from benchmarks.stores.base import LogStore, pack, unpack

INSERT = "INSERT INTO log (entry) VALUES (?)"


class SqliteLog(LogStore):
    def open(self) -> None:
        # One connection for all threads, with a lock: several would poll for each other's.
        self.mutex = threading.Lock()
        self.connection = sqlite3.connect(self.directory / "log.db", isolation_level=None, check_same_thread=False)
        self.connection.execute("PRAGMA journal_mode = WAL")
        self.connection.execute(f"PRAGMA synchronous = {'FULL' if self.durability == 'always' else 'OFF'}")
        self.connection.execute("CREATE TABLE IF NOT EXISTS log (sequence INTEGER PRIMARY KEY, entry BLOB)")

    def put(self, value: Any) -> None:
        with self.mutex:
            self.connection.execute(INSERT, (pack(value),))

    def put_each(self, values: Sequence[Any]) -> None:
        execute = self.connection.execute
        for value in values:
            execute(INSERT, (pack(value),))

    def put_together(self, values: Sequence[Any]) -> None:
        self.connection.execute("BEGIN")
        self.connection.executemany(INSERT, ((pack(value),) for value in values))
        self.connection.execute("COMMIT")

    def read(self) -> Iterator[Any]:
        for (data,) in self.connection.execute("SELECT entry FROM log ORDER BY sequence"):
            yield unpack(data)

    def close(self) -> None:
        self.connection.close()
