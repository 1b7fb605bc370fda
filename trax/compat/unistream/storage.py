"""A checkpoint of the library as a :class:`trax.consumer.Storage`.

Before a call to save something the checkpoint is changed in memory, and changed back if that call fails: what it says
is what is saved. Records pass as ``{"id": …, "text": …}``, serialized.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from trax.compat.unistream import checkpoint as library
from trax.compat.unistream.records import BaseRecord
from trax.consumer import Batch, Failure, Lease, Status, Tracker
from trax.errors import ConflictError, CorruptionError, InvalidArgumentError

logger = logging.getLogger("trax")

_EPOCH = datetime.fromisoformat(library.EPOCH_STR)
_MORE = ("version", "due", "deliveries", "delivered", "errors")


class CheckPointStorage:
    """What a :class:`BaseCheckPoint` has saved, and how it saves more."""

    def __init__(self, checkpoint: library.BaseCheckPoint, record_class: type[BaseRecord]) -> None:
        self._checkpoint = checkpoint
        self._record_class = record_class
        self._records: dict[str, BaseRecord] = {}
        self.exclusive = checkpoint.exclusive

    def load(self) -> tuple[Batch, Mapping[str, Tracker]] | None:
        checkpoint = self._checkpoint
        if checkpoint.batch_sequence == 0:
            return None
        sequence, start, following = checkpoint.batch_sequence, checkpoint.start_pointer, checkpoint.next_pointer
        trackers = {one: self._from_library(saved) for one, saved in checkpoint.batch.items()}
        committed = following is None and not checkpoint.stream_closed and checkpoint.is_ready_for_next_batch()
        if committed or not self._has_its_records(trackers.values()):
            following, trackers = start, {}
        checkpoint.stream_closed = following is None
        created = min([tracker.created for tracker in trackers.values()], default=_EPOCH)
        return Batch(sequence, start, following, created, tuple(trackers)), trackers

    def begin(self, batch: Batch, records: Mapping[str, Any]) -> None:
        if batch.sequence != self._checkpoint.batch_sequence + 1:
            raise ConflictError(f"batch {batch.sequence} does not follow batch {self._checkpoint.batch_sequence}.")
        fresh = {one: self._record_class.deserialize(record["text"]) for one, record in records.items()}
        with self._unless_it_fails() as checkpoint:
            checkpoint.start_pointer, checkpoint.next_pointer = batch.start_pointer, batch.next_pointer
            checkpoint.stream_closed = batch.next_pointer is None
            checkpoint.batch_sequence = batch.sequence
            checkpoint.batch = {one: _to_library(batch.new_tracker(one), None) for one in batch.record_ids}
            checkpoint.dump_batch(fresh.values())
        self._records = fresh

    def records(self, batch: Batch) -> Mapping[str, Any]:
        found = self._checkpoint.load_records(self._record_class)
        self._records = {record.id: record for record in found}
        return {record.id: {"id": record.id, "text": record.serialize()} for record in found}

    def save(self, tracker: Tracker, effect: Any = None) -> None:
        if effect is not None:
            raise InvalidArgumentError("a checkpoint of this kind makes no effects true.", reason="effect")
        before = self._checkpoint.batch[tracker.record_id]
        if tracker.version != _version(before) + 1:
            raise ConflictError(f"the record {tracker.record_id!r} was changed by another.")
        record = self._records.get(tracker.record_id) or _Named(tracker.record_id)
        self._checkpoint.batch[tracker.record_id] = _to_library(tracker, before)
        try:
            self._dump(tracker.status, record)
        except BaseException:
            self._checkpoint.batch[tracker.record_id] = before
            raise

    def close(self) -> None:
        pass

    def _dump(self, status: Status, record: BaseRecord) -> None:
        if status is Status.SUCCEEDED:
            self._checkpoint.dump_as_succeeded(record)
        elif status in (Status.FAILED, Status.EXHAUSTED):
            self._checkpoint.dump_as_failed_or_exhausted(record)
        elif status is Status.IN_PROGRESS:
            self._checkpoint.dump_as_in_progress(record)
        else:
            self._checkpoint.dump()

    def _has_its_records(self, trackers: Collection[Tracker]) -> bool:
        """Whether the records of the batch were saved too, as far as they are needed; if not, they are fetched again.

        A crash between the two can separate them where they are two files. Then nothing was done with the batch.
        """
        if all(tracker.ended for tracker in trackers):
            return True
        try:
            found = {record.id for record in self._checkpoint.load_records(self._record_class)}
        except (ValueError, KeyError, TypeError) as error:  # a text that was cut off is no record
            logger.warning("the saved records of the batch can't be read: %s", error)
            found = set()
        missing = [tracker.record_id for tracker in trackers if tracker.record_id not in found]
        if not missing:
            return True
        if any(tracker.attempts or tracker.status is not Status.PENDING for tracker in trackers):
            text = f"the batch was begun, and {len(missing)} of its records are missing, such as {missing[0]!r}."
            raise CorruptionError(text, reason="records are missing")
        logger.warning("the batch was saved without its records: it is fetched again")
        return False

    def _from_library(self, saved: library.Tracker) -> Tracker:
        tracker = Tracker(
            saved.record_id,
            self._checkpoint.batch_sequence,
            saved.create_datetime,
            saved.update_datetime,
            Status(library.StatusEnum(saved.status).name),
            saved.attempts,
            data=saved.data,
            errors=_failures(saved),
        )
        tracker = Tracker.from_plain({**tracker.as_plain(), **saved.more, "version": _version(saved)})
        if saved.lock is None:
            return tracker
        until = saved.lock_expire_datetime
        if not saved.more:  # the library saved it, and took the seconds for days
            until = min(until, saved.lock_datetime + timedelta(seconds=self._checkpoint.lock_expire))
        return replace(tracker, lease=Lease("another process", saved.lock, saved.lock_datetime, until))

    @contextmanager
    def _unless_it_fails(self) -> Iterator[library.BaseCheckPoint]:
        before = copy.copy(vars(self._checkpoint))
        try:
            yield self._checkpoint
        except BaseException:
            vars(self._checkpoint).update(before)
            raise


class _Named(BaseRecord):
    """For ``dump_as_…``: a record of which no more than the id is at hand."""

    def __init__(self, record_id: str) -> None:
        self.id = record_id
        self.create_at = library.EPOCH_STR

    def serialize(self) -> str:
        raise NotImplementedError

    @classmethod
    def deserialize(cls, data: str) -> _Named:
        raise NotImplementedError


def _to_library(tracker: Tracker, before: library.Tracker | None) -> library.Tracker:
    plain = tracker.as_plain()
    lease, failures = plain["lease"], plain["errors"]
    times = (before.lock_time, before.lock_expire_time) if before is not None else (library.EPOCH_STR,) * 2
    last = failures[-1] if failures and tracker.status is not Status.SUCCEEDED else None
    return library.Tracker(
        tracker.record_id,
        int(library.StatusEnum[tracker.status]),
        tracker.attempts,
        plain["created"],
        plain["updated"],
        lock=None if lease is None else lease["token"],
        lock_time=times[0] if lease is None else lease["since"],
        lock_expire_time=times[1] if lease is None else lease["until"],
        data=plain["data"],
        errors={} if last is None else {"error": last["error"], "traceback": last["traceback"]},
        more={name: plain[name] for name in _MORE},
    )


def _version(saved: library.Tracker) -> int:
    """A tracker that the library saved has some changes behind it; how many, nobody knows."""
    version: int = saved.more.get("version", 1)
    return version


def _failures(saved: library.Tracker) -> tuple[Failure, ...]:
    if not saved.errors:
        return ()
    error, trace = (str(saved.errors.get(name, "")) for name in ("error", "traceback"))
    return (Failure(saved.attempts, saved.update_datetime, error, trace),)
