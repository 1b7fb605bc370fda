"""A consumer's checkpoint in SQLite: how a storage of one's own is written, and how an effect becomes exactly-once.

``process`` returns ``Effect((statement, parameters))``, and the row that the statement writes is committed in the same
transaction as the record's success: after a crash both are there, or neither.
"""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Mapping
from typing import Any

from trax.consumer import Batch, Tracker
from trax.errors import ConflictError, InvalidArgumentError, UnsupportedValueError

BATCHES = """
CREATE TABLE IF NOT EXISTS batches (stream TEXT PRIMARY KEY, sequence INTEGER, status TEXT, records TEXT)
"""
TRACKERS = """
CREATE TABLE IF NOT EXISTS trackers (stream TEXT, record_id TEXT, version INTEGER, tracker TEXT,
                                     PRIMARY KEY (stream, record_id))
"""


class SQLiteStorage:
    """One stream of a database, which several processes may have open: leases keep them apart."""

    exclusive = False

    def __init__(self, path: str, stream: str) -> None:
        self._stream = stream
        self._lock = threading.Lock()
        self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=30)
        # Not WAL: of those that turn it on at once SQLite lets none wait. EXTRA, so that a commit outlives the power.
        self._connection.execute("PRAGMA synchronous=EXTRA")
        with Transaction(self._connection) as run:
            run(BATCHES)
            run(TRACKERS)

    def load(self) -> tuple[Batch, Mapping[str, Tracker]] | None:
        with self._lock, Transaction(self._connection) as run:
            batches = run("SELECT status FROM batches WHERE stream = ?", self._stream)
            trackers = run("SELECT tracker FROM trackers WHERE stream = ?", self._stream)
        if not batches:
            return None
        found = [Tracker.from_plain(json.loads(text)) for (text,) in trackers]
        return Batch.from_plain(json.loads(batches[0][0])), {tracker.record_id: tracker for tracker in found}

    def begin(self, batch: Batch, records: Mapping[str, Any]) -> None:
        try:
            data = json.dumps(records)
        except TypeError as error:
            raise UnsupportedValueError(f"a record is no JSON: {error}") from error
        with self._lock, Transaction(self._connection) as run:
            self._expect(run, batch.sequence - 1)
            run("DELETE FROM trackers WHERE stream = ?", self._stream)
            status = json.dumps(batch.as_plain())
            run("INSERT OR REPLACE INTO batches VALUES (?, ?, ?, ?)", self._stream, batch.sequence, status, data)

    def records(self, batch: Batch) -> Mapping[str, Any]:
        with self._lock, Transaction(self._connection) as run:
            self._expect(run, batch.sequence)
            ((text,),) = run("SELECT records FROM batches WHERE stream = ?", self._stream)
        records: Mapping[str, Any] = json.loads(text)
        return records

    def save(self, tracker: Tracker, effect: Any = None) -> None:
        key = (self._stream, tracker.record_id)
        with self._lock, Transaction(self._connection) as run:
            self._expect(run, tracker.batch)
            stored = run("SELECT version FROM trackers WHERE stream = ? AND record_id = ?", *key) or [(0,)]
            if tracker.version != stored[0][0] + 1:
                raise ConflictError(f"the record {tracker.record_id!r} was changed by another process")
            plain = json.dumps(tracker.as_plain())
            run("INSERT OR REPLACE INTO trackers VALUES (?, ?, ?, ?)", *key, tracker.version, plain)
            if effect is not None:
                self._make_true(run, effect)

    def close(self) -> None:
        self._connection.close()

    def _expect(self, run: Transaction, sequence: int) -> None:
        stored = run("SELECT sequence FROM batches WHERE stream = ?", self._stream) or [(0,)]
        if stored[0][0] != sequence:
            raise ConflictError(f"stored is batch {stored[0][0]}, and not {sequence}")

    def _make_true(self, run: Transaction, effect: Any) -> None:
        try:
            statement, parameters = effect
            run(statement, *parameters)
        except (TypeError, ValueError, sqlite3.ProgrammingError, sqlite3.IntegrityError) as error:
            raise InvalidArgumentError(f"the effect {effect!r} can't be made true: {error}") from error


class Transaction:
    """``with Transaction(connection) as run``: all that is run is committed, or, if the block raises, none of it."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def __call__(self, statement: str, *parameters: Any) -> list[Any]:
        return self._connection.execute(statement, parameters).fetchall()

    def __enter__(self) -> Transaction:
        if self._connection.in_transaction:  # an interrupt has left it behind
            self._connection.execute("ROLLBACK")
        self._connection.execute("BEGIN IMMEDIATE")
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        self._connection.execute("COMMIT" if kind is None else "ROLLBACK")
