"""The checkpoint of a stream: where it stands, and how far each record of the batch in hand has come.

A batch, its records and its next pointer are one commit, which comes only when the batch before it has ended. So the
present batch says everything, and there is no second commit that a crash could separate from it: the stream stands at
the batch's ``next_pointer`` as soon as its last record has ended.

A record is claimed before it is worked on, and the claim counts the attempt. What became of the attempt is kept until
it is saved: a full disk is no failure of the record.
"""

from __future__ import annotations

import copy
import os
import socket
from collections.abc import Iterable, Mapping
from datetime import timedelta
from functools import partial
from types import TracebackType
from typing import Any, cast

from trax.consumer.clock import Clock
from trax.consumer.local import LocalStorage
from trax.consumer.options import check_count, check_seconds
from trax.consumer.progress import Make, Progress
from trax.consumer.storage import Batch, Storage, Summary
from trax.consumer.tracker import Failure, Lease, Status, Tracker
from trax.errors import (
    ConflictError,
    DuplicateRecordError,
    InvalidArgumentError,
    UnsupportedValueError,
    ValueTooLargeError,
)
from trax.store import Trax

REFUSED = (UnsupportedValueError, ValueTooLargeError, InvalidArgumentError)
"""What saving an effect raises when the effect is at fault, and not the storage."""


class Checkpoint:
    """Where a stream stands; kept under the name ``stream`` in a store, or in a storage of the user's own.

    ``where``
        A path: the store there is opened, and closed by :meth:`close`. A :class:`trax.Trax`: it stays the caller's, who
        may keep other things in it. A :class:`trax.consumer.Storage`: then ``stream`` has no meaning.
    ``initial_pointer``
        What the first ``fetch`` of the stream gets.
    ``max_attempts``, ``lease_s``
        After how many attempts a record is exhausted; for how many seconds a claim keeps others away.
    ``history_batches``
        How many batches before the present one :meth:`history` remembers.

    All of these are the caller's at each opening; none is read from the storage. A call that changes something returns
    when the storage has it: with a store, that is what its ``sync`` says. Any number of threads.

    Raises StoreLockedError, which says who holds the store; InvalidArgumentError if this process has the stream open.
    """

    def __init__(
        self,
        where: str | os.PathLike[str] | Trax | Storage,
        stream: str = "",
        *,
        initial_pointer: Any = None,
        max_attempts: int = 3,
        lease_s: float = 900.0,
        history_batches: int = 20,
        clock: Clock | None = None,
    ) -> None:
        check_count("max_attempts", max_attempts, 1)
        check_seconds("lease_s", lease_s)
        check_count("history_batches", history_batches, 0)
        self.max_attempts = max_attempts
        self.lease_s = lease_s
        self.clock = clock or Clock()
        self._initial_pointer = copy.deepcopy(initial_pointer)
        self._history_batches = history_batches
        self._storage = _storage(where, stream)
        self._progress = Progress(self._storage, self.clock, max_attempts)
        self._records: Mapping[str, Any] = {}
        self._records_of = 0  # the batch, by its sequence
        self._unsaved: dict[str, tuple[Tracker, Make, Any]] = {}
        try:
            self._progress.take(self._storage.load())
        except BaseException:
            self._storage.close()
            raise

    # What is known

    @property
    def pointer(self) -> Any:
        """What the next ``fetch`` gets: the caller's own, who may change it."""
        batch = self._progress.batch
        return copy.deepcopy(self._initial_pointer if batch is None else batch.next_pointer)

    @property
    def finished(self) -> bool:
        """Whether every record of the present batch has ended, so that the next one can begin."""
        return self._progress.finished

    @property
    def ended(self) -> bool:
        """Whether the stream has come to its end, and all of its records have too."""
        batch = self._progress.batch
        return batch is not None and batch.next_pointer is None and self.finished

    @property
    def shared(self) -> bool:
        """Whether other processes may change what is stored."""
        return not self._storage.exclusive

    def tracker(self, record_id: str) -> Tracker:
        """That of a record of the present batch; UnknownRecordError for another."""
        return self._progress.present(record_id).copied()

    def trackers(self) -> list[Tracker]:
        """Those of the present batch, in its order."""
        return [tracker.copied() for tracker in self._progress.all()]

    def unfinished(self) -> list[Tracker]:
        """Those of the records that have not ended, in the order of the batch."""
        return [tracker for tracker in self.trackers() if not tracker.ended]

    def summary(self) -> Summary | None:
        """The present batch in figures; None before the first one."""
        with self._progress.monitor:
            batch = self._progress.batch
            return None if batch is None else batch.summary(self.trackers())

    def history(self) -> list[Summary]:
        """The last batches in figures, the oldest first; the present one is the last."""
        with self._progress.monitor:
            batch, summary = self._progress.batch, self.summary()
            return [] if batch is None or summary is None else [*batch.history, summary]

    def record(self, record_id: str) -> Any:
        """A record of the present batch as it is stored: the caller's own, which nobody else has seen or changed."""
        with self._progress.monitor:
            self.tracker(record_id)
            self._load_records()
            return copy.deepcopy(self._records[record_id])

    # A batch, and the way of its records

    def begin(self, records: Iterable[tuple[str, Any]], next_pointer: Any) -> bool:
        """Make these, ``(record id, record)``, the present batch, in one commit with the pointer to what follows.

        ``next_pointer=None``: the stream ends with them. False, and nothing is stored, if another process was first.
        Raises before anything is stored: DuplicateRecordError; UnsupportedValueError for a record that can't be kept;
        InvalidArgumentError if an id is no ``str``, or the batch before it has not ended.
        """
        by_id = _by_id(records)
        with self._progress.monitor:
            if not self.finished:
                text = f"{len(self.unfinished())} records of the present batch have not ended: process or skip() them."
                raise InvalidArgumentError(text, reason="not finished")
            past = self.history()
            past = past[max(0, len(past) - self._history_batches) :]
            sequence = 1 if self._progress.batch is None else self._progress.batch.sequence + 1
            batch = Batch(sequence, self.pointer, next_pointer, self.clock.now(), tuple(by_id), tuple(past))
            return self._progress.begin(batch, by_id)

    def claim(self, token: str) -> Tracker | None:
        """Lease the next record to the worker of that token; the attempt is counted, and saved when this returns.

        If the tracker is in progress, process the record, then :meth:`succeed` or :meth:`fail`. If it is exhausted,
        hand the record on, then :meth:`deliver` or :meth:`fail`. In the end :meth:`let_go`. None: there is nothing that
        can be claimed now. A worker has one record at a time, and a token, any text, that no other has.
        """

        def make(tracker: Tracker) -> Tracker | None:
            now = self.clock.now()
            holder = f"pid {os.getpid()} on {socket.gethostname()}"
            lease = Lease(holder, token, now, now + timedelta(seconds=self.lease_s))
            return None if tracker.ended or tracker.lease is not None else tracker.claim(lease)

        try:
            self._load_records()  # if they can't be read, nothing has been counted
        except ConflictError:
            self.refresh()  # other processes have come to the next batch
            return None
        while (record_id := self._progress.reserve(token)) is not None:
            claimed = self._progress.change(record_id, make)
            if claimed is not None:
                return claimed
            self.let_go(token)
        return None

    def succeed(self, claimed: Tracker, effect: Any = None) -> Tracker | None:
        """The record has been processed; this is saved, and the ``effect`` in the same commit, when the call returns.

        The new tracker. None, and nothing is saved, if the lease was lost: another process has the record.
        """
        try:
            return self._finish(claimed, lambda tracker: tracker.succeed(self.clock.now()), effect)
        except REFUSED:
            self._unsaved.pop(claimed.record_id, None)
            raise

    def deliver(self, claimed: Tracker) -> Tracker | None:
        """The exhausted record has been handed on. Otherwise as :meth:`succeed`."""
        return self._finish(claimed, lambda tracker: tracker.deliver(self.clock.now()))

    def fail(self, claimed: Tracker, error: BaseException, backoff_s: float) -> Tracker | None:
        """The attempt, or delivery, has failed; the next comes ``backoff_s`` later. Otherwise as :meth:`succeed`."""
        now = self.clock.now()
        failure = Failure.of(error, claimed.deliveries or claimed.attempts, now)
        due = now + timedelta(seconds=backoff_s)
        return self._finish(claimed, lambda tracker: tracker.fail(failure, due, self.max_attempts))

    def release(self, claimed: Tracker) -> Tracker | None:
        """The attempt was broken off, and counts; others can have the record at once. Otherwise as :meth:`succeed`."""
        return self._finish(claimed, lambda tracker: tracker.release(self.clock.now()))

    def let_go(self, token: str) -> None:
        """The worker works no more on what it had claimed, whatever has become of it. Saves nothing."""
        self._progress.free(token, but=self._unsaved.keys())

    def save_outcomes(self) -> None:
        """Save what became of attempts and could not be saved when they ended."""
        for claimed, make, effect in list(self._unsaved.values()):
            self._finish(claimed, make, effect)
            self.let_go(_token(claimed))

    def renew(self) -> None:
        """Prolong the leases of the records that are worked on here."""
        for record_id, token in self._progress.held().items():
            self._progress.change(record_id, partial(self._renewed, token))

    def refresh(self) -> None:
        """Learn what other processes have stored, where there can be any."""
        if self.shared:
            self._progress.take(self._storage.load())

    def wait(self, at_most_s: float) -> None:
        """Until a record can perhaps be claimed, all have ended, or so many seconds have passed."""
        self._progress.wait(at_most_s)

    def keep_order(self, ordered: bool) -> None:
        """Whether a record is claimed only when all before it have ended. For one worker."""
        self._progress.keep_order(ordered)

    # What the user decides

    def skip(self, record_id: str) -> Tracker:
        """Ignore a record that has not succeeded; saved when this returns.

        Raises InvalidArgumentError if it has, or is being worked on; UnknownRecordError.
        """
        allowed = (Status.PENDING, Status.FAILED, Status.EXHAUSTED, Status.IGNORED)
        return self._decide(record_id, "skipped", allowed, lambda tracker: tracker.skip(self.clock.now()))

    def retry(self, record_id: str) -> Tracker:
        """Give a record all its attempts again, as long as its batch is the present one; saved when this returns.

        Raises InvalidArgumentError if it has succeeded, or is being worked on; UnknownRecordError.
        """
        allowed = (Status.PENDING, Status.FAILED, Status.EXHAUSTED, Status.IGNORED)
        return self._decide(record_id, "retried", allowed, lambda tracker: tracker.retry(self.clock.now()))

    def note(self, record_id: str, data: Mapping[str, Any]) -> Tracker:
        """Add to the ``data`` of a record's tracker, as the user likes; saved when this returns."""
        return self._change(record_id, lambda tracker: tracker.note(self.clock.now(), data))

    # The end

    def close(self) -> None:
        """Let go of the storage. Records in progress are left as a crash leaves them."""
        self._storage.close()

    def __enter__(self) -> Checkpoint:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    # How it is done

    def _load_records(self) -> None:
        with self._progress.monitor:
            batch = self._progress.batch
            if batch is not None and batch.sequence != self._records_of:
                self._records, self._records_of = self._storage.records(batch), batch.sequence

    def _finish(self, claimed: Tracker, make: Make, effect: Any = None) -> Tracker | None:
        token = _token(claimed)
        self._unsaved[claimed.record_id] = (claimed, make, effect)
        changed = self._progress.change(
            claimed.record_id,
            lambda tracker: make(tracker) if tracker.is_held_by(token) else None,
            effect,
            batch=claimed.batch,
        )
        self._unsaved.pop(claimed.record_id, None)
        return changed

    def _renewed(self, token: str, tracker: Tracker) -> Tracker | None:
        if not tracker.is_held_by(token):
            return None
        now = self.clock.now()
        return tracker.renew(now, now + timedelta(seconds=self.lease_s))

    def _decide(self, record_id: str, what: str, allowed: tuple[Status, ...], make: Make) -> Tracker:
        def decide(tracker: Tracker) -> Tracker | None:
            if tracker.status not in allowed or tracker.lease is not None:
                held = "" if tracker.lease is None else f", held by {tracker.lease.holder} until {tracker.lease.until}"
                text = f"the record {record_id!r} can't be {what}: it is {tracker.status}{held}."
                raise InvalidArgumentError(text, reason=str(tracker.status))
            return make(tracker)

        return self._change(record_id, decide)

    def _change(self, record_id: str, make: Make) -> Tracker:
        while (changed := self._progress.change(record_id, make)) is None:
            pass  # another process was first: look at what it has made of the record
        return changed


def _storage(where: object, stream: str) -> Storage:
    if isinstance(where, str | os.PathLike | Trax):
        return LocalStorage(where, stream)
    if not all(hasattr(where, name) for name in ("exclusive", "load", "begin", "records", "save", "close")):
        text = f"a checkpoint is kept in a path, a Trax, or a Storage, and {where!r} is of type {type(where).__name__}."
        raise InvalidArgumentError(text, reason="not a storage")
    return cast(Storage, where)


def _token(claimed: Tracker) -> str:
    if claimed.lease is None:
        text = f"the record {claimed.record_id!r} was not claimed: give back the tracker that claim() returned."
        raise InvalidArgumentError(text, reason="not claimed")
    return claimed.lease.token


def _by_id(records: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    by_id: dict[str, Any] = {}
    for record_id, record in records:
        if not isinstance(record_id, str):
            text = f"the id of a record is a str, and {record_id!r} is of type {type(record_id).__name__}."
            raise InvalidArgumentError(text, reason="not a str")
        if record_id in by_id:
            text = f"the batch has the record id {record_id!r} twice; nothing of it was stored."
            raise DuplicateRecordError(text, reason="twice in a batch", record_id=record_id)
        by_id[record_id] = record
    return by_id
