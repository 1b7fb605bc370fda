"""What a consumer's checkpoint is kept in: a protocol of five calls, so that others can be written.

Status data (the batch and its trackers) are small and change often; the records' data may be large and are written
once a batch. A storage may keep them in two places, as long as one commit makes both true: write the records under a
key that holds the batch's sequence, then replace the batch.

``trax.testing.consumer_storage`` has the tests that every storage must pass.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from trax.consumer.tracker import Tracker


@dataclass(frozen=True)
class Summary:
    """A batch in figures. ``counts`` are its records by status; statuses without records are left out."""

    sequence: int
    start_pointer: Any
    next_pointer: Any
    created: datetime
    updated: datetime
    counts: Mapping[str, int]

    def as_plain(self) -> dict[str, Any]:
        return {**vars(self), "created": self.created.isoformat(), "updated": self.updated.isoformat()}

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> Summary:
        times = {name: datetime.fromisoformat(plain[name]) for name in ("created", "updated")}
        return cls(**{**plain, **times})


@dataclass(frozen=True)
class Batch:
    """What one fetch gave: from which pointer, up to which pointer, which records, in their order.

    ``sequence`` counts the batches, from 1. A ``next_pointer`` of None says that the stream ends here. ``history`` are
    the batches before it, the oldest first.
    """

    sequence: int
    start_pointer: Any
    next_pointer: Any
    created: datetime
    record_ids: tuple[str, ...]
    history: tuple[Summary, ...] = ()

    def new_tracker(self, record_id: str) -> Tracker:
        """That of a record to which nothing has happened yet."""
        return Tracker(record_id, self.sequence, self.created, self.created)

    def summary(self, trackers: Iterable[Tracker]) -> Summary:
        trackers = list(trackers)
        updated = max([self.created, *(tracker.updated for tracker in trackers)])
        counts = Counter(str(tracker.status) for tracker in trackers)
        return Summary(self.sequence, self.start_pointer, self.next_pointer, self.created, updated, dict(counts))

    def as_plain(self) -> dict[str, Any]:
        """What a storage keeps: nothing but what JSON knows, as far as the pointers do too."""
        history = [summary.as_plain() for summary in self.history]
        times = {"created": self.created.isoformat()}
        return {**vars(self), **times, "record_ids": list(self.record_ids), "history": history}

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> Batch:
        history = tuple(map(Summary.from_plain, plain["history"]))
        created = datetime.fromisoformat(plain["created"])
        return cls(**{**plain, "created": created, "record_ids": tuple(plain["record_ids"]), "history": history})


class Storage(Protocol):
    """A place for the checkpoint of one stream. Any number of threads may call it.

    What a call has saved is durable when it returns, and a call that raises has saved nothing, or, after a failure of
    which nobody knows how far it came, may have saved all of it; never a part.
    """

    @property
    def exclusive(self) -> bool:
        """Whether having opened it proves that whoever held a record before is gone.

        Then their leases need not run out. False where several processes can have it open.
        """

    def load(self) -> tuple[Batch, Mapping[str, Tracker]] | None:
        """The last batch, and the trackers that were saved of it, by record; None before the first batch."""

    def begin(self, batch: Batch, records: Mapping[str, Any]) -> None:
        """Replace the batch, its records and its trackers, of which there are none yet, in one commit.

        Raises ConflictError unless the batch before it, ``batch.sequence - 1``, is the one that is stored (0: none);
        UnsupportedValueError for a record that can't be kept.
        """

    def records(self, batch: Batch) -> Mapping[str, Any]:
        """The records of the batch, by id: the caller's own, made anew by each call.

        ConflictError, or the records all the same, if it is no longer the batch that is stored.
        """

    def save(self, tracker: Tracker, effect: Any = None) -> None:
        """Save one tracker, and make true what ``process`` has given to :class:`~trax.consumer.Effect`, in one commit.

        Raises ConflictError unless ``tracker.batch`` is the stored batch and ``tracker.version - 1`` the stored
        version of the tracker (0: never saved); UnsupportedValueError or InvalidArgumentError for an effect that it
        can't make true, which counts as a failure of the attempt.
        """

    def close(self) -> None:
        """Let go of it."""
