"""Consumers as the library's users write them, and the machinery that runs them."""

from __future__ import annotations

import dataclasses
from itertools import islice
from pathlib import Path
from typing import Any, Self

from trax.compat.unistream.checkpoint import T_POINTER, BaseCheckPoint
from trax.compat.unistream.records import BaseRecord, StreamIsClosedError
from trax.compat.unistream.storage import CheckPointStorage
from trax.consumer import Checkpoint, Consumer, Summary, Tracker
from trax.errors import ExhaustedError, InvalidArgumentError


@dataclasses.dataclass
class BaseConsumer:
    """Brings every record of a stream to an end. A subclass says how records are got and processed.

    Attempt number n+1 comes ``multiplier * base ** (n - 1)`` seconds after attempt n, but not before ``min`` seconds
    and not later than ``max``. With ``skip_error=False`` the order is kept, and the first record that is exhausted ends
    the run with its exception. ``delay`` is how many seconds to wait when nothing is new.
    """

    record_class: type[BaseRecord]
    limit: int
    checkpoint: BaseCheckPoint
    exp_backoff_multiplier: int
    exp_backoff_base: int
    exp_backoff_min: int
    exp_backoff_max: int
    skip_error: bool
    delay: int | float

    def get_records(self, limit: int | None = None) -> tuple[list[Any], T_POINTER | None]:
        """Records from ``checkpoint.start_pointer`` on, and the pointer to what follows; None: the stream ends."""
        raise NotImplementedError

    def process_record(self, record: Any) -> Any:
        raise NotImplementedError

    def process_failed_record(self, record: Any) -> Any:
        """Take a record that is exhausted; called until it returns without an exception."""

    def commit(self) -> None:
        """The batch has ended: move on to the next pointer, and save that. StreamIsClosedError if there is none."""
        if self.checkpoint.next_pointer is None:
            self.checkpoint.dump()
            raise StreamIsClosedError
        self.checkpoint.start_pointer = self.checkpoint.next_pointer
        self.checkpoint.next_pointer = None
        self.checkpoint.dump()

    def process_batch(self, verbose: bool = False) -> None:
        """Bring the present batch to its end, or get one and do so. StreamIsClosedError at the end of the stream."""
        self._running(self.machinery.process_batch)

    def run(self, verbose: bool = False) -> None:
        """Process batch after batch, until SIGTERM or Ctrl-C, then return; StreamIsClosedError at the stream's end."""
        self._running(self.machinery.run)

    @property
    def machinery(self) -> Machinery:
        """The :class:`trax.consumer.Consumer` that does the work; its ``checkpoint`` has ``skip()`` and ``retry()``."""
        if "_machinery" not in vars(self):
            self._machinery = Machinery(self)
        return self._machinery

    def _running(self, action: Any) -> None:
        try:
            action()
        except ExhaustedError as error:
            cause = self.machinery.errors.get(error.record_id)
            if cause is None:
                raise
            raise cause from error
        if self.machinery.checkpoint.ended:
            raise StreamIsClosedError


@dataclasses.dataclass
class SimpleConsumer(BaseConsumer):
    """Reads records from a file, one a line, to which others append; the pointer is the number of the next line.

    A line belongs to the stream once its end is there: one that is still being written waits for the next batch.
    """

    path_source: Path
    path_dlq: Path

    @classmethod
    def new(
        cls,
        record_class: type[BaseRecord],
        path_source: Path,
        path_dlq: Path,
        checkpoint: BaseCheckPoint,
        limit: int = 1000,
        exp_backoff_multiplier: int = 1,
        exp_backoff_base: int = 2,
        exp_backoff_min: int = 1,
        exp_backoff_max: int = 60,
        skip_error: bool = True,
        delay: int | float = 0,
    ) -> Self:
        return cls(
            record_class=record_class,
            path_source=path_source,
            path_dlq=path_dlq,
            checkpoint=checkpoint,
            limit=limit,
            exp_backoff_multiplier=exp_backoff_multiplier,
            exp_backoff_base=exp_backoff_base,
            exp_backoff_min=exp_backoff_min,
            exp_backoff_max=exp_backoff_max,
            skip_error=skip_error,
            delay=delay,
        )

    def get_records(self, limit: int | None = None) -> tuple[list[Any], T_POINTER | None]:
        start = self.checkpoint.start_pointer
        if not isinstance(start, int):
            text = f"the pointer of a file is the number of a line, and not {start!r}."
            raise InvalidArgumentError(text, reason="pointer")
        try:
            with open(self.path_source, encoding="utf-8", newline="\n") as file:
                lines = list(islice(file, start, start + (self.limit if limit is None else limit)))
        except FileNotFoundError:
            lines = []
        records = [self.record_class.deserialize(line) for line in lines if line.endswith("\n")]
        return records, start + len(records)


class Machinery(Consumer):
    """The loop of a :class:`BaseConsumer`."""

    def __init__(self, owner: BaseConsumer) -> None:
        for name in ("get_records", "process_record"):
            if getattr(type(owner), name) is getattr(BaseConsumer, name):
                raise NotImplementedError(f"{type(owner).__name__} does not define {name}()")
        self._owner = owner
        self.errors: dict[str, Exception] = {}
        checkpoint = Checkpoint(
            CheckPointStorage(owner.checkpoint, owner.record_class),
            initial_pointer=owner.checkpoint.start_pointer,
            max_attempts=owner.checkpoint.max_attempts,
            lease_s=owner.checkpoint.lock_expire,
        )
        super().__init__(checkpoint, limit=owner.limit, ordered=not owner.skip_error, poll_s=owner.delay or 1)

    def fetch(self, pointer: Any, limit: int) -> tuple[list[dict[str, str]], Any]:
        checkpoint = self._owner.checkpoint
        checkpoint.start_pointer = pointer  # a crash can have come before the commit
        records, following = self._owner.get_records()
        self.errors.clear()
        return [{"id": record.id, "text": record.serialize()} for record in records], following

    def process(self, record: dict[str, str]) -> None:
        try:
            self._owner.process_record(self._owner.record_class.deserialize(record["text"]))
        except Exception as error:
            self.errors[record["id"]] = error
            raise

    def dead_letter(self, record: dict[str, str], tracker: Tracker) -> None:
        self._owner.process_failed_record(self._owner.record_class.deserialize(record["text"]))

    def backoff(self, attempt: int) -> float:
        owner = self._owner
        seconds = owner.exp_backoff_multiplier * owner.exp_backoff_base ** min(attempt - 1, 100)
        return float(max(0, owner.exp_backoff_min, min(seconds, owner.exp_backoff_max)))

    def on_batch(self, summary: Summary) -> None:
        self._owner.commit()
