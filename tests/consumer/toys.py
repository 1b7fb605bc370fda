"""A stream, a consumer and a storage that are as small as they can be, and show what was done with them."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping
from typing import Any

from trax.consumer import Batch, Checkpoint, Consumer, Summary, Tracker
from trax.errors import ConflictError, InvalidArgumentError, UnsupportedValueError

Process = Callable[[dict[str, Any]], Any]


class Numbers(Consumer):
    """Reads the records ``r0``, ``r1``, … of a stream of ``size``; the pointer is the number of the next one.

    ``processed``, ``dead`` and ``fetched`` say, in their order, what it was asked to do.
    """

    size = 6
    ends = True

    def __init__(self, checkpoint: Checkpoint, process: Process | None = None, **options: Any) -> None:
        super().__init__(checkpoint, **{"limit": 3, **options})
        self.todo = process
        self.processed: list[str] = []
        self.dead: list[str] = []
        self.fetched: list[int] = []
        self.outcomes: list[Tracker] = []
        self.batches: list[Summary] = []

    def fetch(self, pointer: int, limit: int) -> tuple[list[dict[str, Any]], int | None]:
        self.fetched.append(pointer)
        until = min(pointer + limit, self.size)
        return [{"id": f"r{n}", "n": n} for n in range(pointer, until)], (
            None if self.ends and until == self.size else until
        )

    def process(self, record: dict[str, Any]) -> Any:
        self.processed.append(record["id"])
        return self.todo(record) if self.todo is not None else None

    def dead_letter(self, record: dict[str, Any], tracker: Tracker) -> None:
        self.dead.append(record["id"])

    def backoff(self, attempt: int) -> float:
        return 0

    def on_record(self, record: Any, tracker: Tracker) -> None:
        self.outcomes.append(tracker)

    def on_batch(self, summary: Summary) -> None:
        self.batches.append(summary)


def always_failing(*record_ids: str) -> Process:
    def process(record: dict[str, Any]) -> None:
        if record["id"] in record_ids:
            raise ValueError(f"{record['id']} is bad")

    return process


def statuses(checkpoint: Checkpoint) -> dict[str, str]:
    return {tracker.record_id: str(tracker.status) for tracker in checkpoint.trackers()}


class Database:
    """What a database server would be: texts by key, and a transaction at a time."""

    def __init__(self) -> None:
        self.texts: dict[str, str] = {}
        self.transaction = threading.Lock()


class MemoryStorage:
    """A shared storage in a :class:`Database`: what a user would write for a real one, and no more."""

    exclusive = False

    def __init__(self, database: Database, stream: str = "stream") -> None:
        self._database = database
        self._stream = stream

    def load(self) -> tuple[Batch, Mapping[str, Tracker]] | None:
        with self._database.transaction:
            stored = self._get("batch")
            if stored is None:
                return None
            batch = Batch.from_plain(stored)
            found = {record_id: self._get(f"tracker {batch.sequence} {record_id}") for record_id in batch.record_ids}
            return batch, {key: Tracker.from_plain(plain) for key, plain in found.items() if plain is not None}

    def begin(self, batch: Batch, records: Mapping[str, Any]) -> None:
        try:
            data = json.dumps(records)
        except TypeError as error:
            raise UnsupportedValueError(str(error)) from error
        with self._database.transaction:
            stored = self._get("batch")
            if batch.sequence != (1 if stored is None else stored["sequence"] + 1):
                raise ConflictError(f"batch {batch.sequence} does not follow")
            self._database.texts[f"{self._stream} records {batch.sequence}"] = data
            self._put("batch", batch.as_plain())

    def records(self, batch: Batch) -> Mapping[str, Any]:
        with self._database.transaction:
            records: Mapping[str, Any] = self._get(f"records {batch.sequence}")
            return records

    def save(self, tracker: Tracker, effect: Any = None) -> None:
        if effect is not None:
            raise InvalidArgumentError("this storage makes no effects true")
        key = f"tracker {tracker.batch} {tracker.record_id}"
        with self._database.transaction:
            batch, stored = self._get("batch"), self._get(key)
            version = 0 if stored is None else stored["version"]
            if batch is None or (tracker.batch, tracker.version) != (batch["sequence"], version + 1):
                raise ConflictError(f"{tracker.record_id!r} was changed by another")
            self._put(key, tracker.as_plain())

    def close(self) -> None:
        pass

    def _get(self, key: str) -> Any:
        text = self._database.texts.get(f"{self._stream} {key}")
        return None if text is None else json.loads(text)

    def _put(self, key: str, plain: Any) -> None:
        self._database.texts[f"{self._stream} {key}"] = json.dumps(plain)
