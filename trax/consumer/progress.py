"""The batch in hand, in memory: how far each record has come, who works on it, and which comes next.

Invariants:

- What is in memory is what the storage has, or an older version of it: a change is put in when it has been saved.
- One change of a record happens at a time. Changes of several records are saved at the same time, outside the monitor,
  so that threads share an fsync.
- A record that is held was given to one worker of this process, and to no other until it is freed.
- Somebody else's lease is respected until it runs out; in an exclusive storage not at all, since that it could be
  opened proves that whoever held it is gone. What a lapsed lease leaves behind is computed when it is looked at
  (``present``), and saved with the next change.
"""

from __future__ import annotations

import copy
import os
import threading
import weakref
from collections.abc import Callable, Collection, Mapping
from datetime import datetime
from typing import Any

from trax.consumer.agenda import Agenda
from trax.consumer.clock import Clock
from trax.consumer.storage import Batch, Storage
from trax.consumer.tracker import Tracker
from trax.errors import ConflictError, UnknownRecordError

Make = Callable[[Tracker], Tracker | None]
"""The next value of a tracker, or None: no change."""


class Progress:
    """The trackers of the present batch. Any number of threads; ``monitor`` is notified when anything changes."""

    def __init__(self, storage: Storage, clock: Clock, max_attempts: int) -> None:
        self.monitor = threading.Condition()
        self.batch: Batch | None = None
        self._storage = storage
        self._clock = clock
        self._max_attempts = max_attempts
        self._ordered = False
        self._trackers: dict[str, Tracker] = {}
        self._unfinished: set[str] = set()
        self._agenda = Agenda()
        self._changing: set[str] = set()
        self._held: dict[str, str] = {}  # record id: the token of the lease under which it is worked on here
        _all.add(self)

    # Looking

    @property
    def finished(self) -> bool:
        with self.monitor:
            return not self._unfinished

    def present(self, record_id: str) -> Tracker:
        """The tracker as it is now."""
        with self.monitor:
            tracker = self._trackers.get(record_id)
            if tracker is None:
                text = f"the present batch has no record {record_id!r}."
                raise UnknownRecordError(text, reason="no such record", record_id=record_id)
            if tracker.lease is not None and self._held.get(record_id) != tracker.lease.token:
                gone = self._storage.exclusive or tracker.lease.until <= self._clock.now()
                tracker = tracker.lapse() if gone else tracker
            return tracker.within(self._max_attempts)

    def all(self) -> list[Tracker]:
        with self.monitor:
            return [self.present(record_id) for record_id in self._trackers]

    def held(self) -> dict[str, str]:
        """The records that are worked on here, with the tokens of their leases."""
        with self.monitor:
            return dict(self._held)

    # Taking what is stored

    def take(self, loaded: tuple[Batch, Mapping[str, Tracker]] | None) -> None:
        """Put in what a storage has, as far as it is newer."""
        if loaded is None:
            return
        batch, saved = loaded
        with self.monitor:
            if self.batch is None or batch.sequence > self.batch.sequence:
                self.batch = batch
                self._held.clear()
                self._trackers = {record_id: batch.new_tracker(record_id) for record_id in batch.record_ids}
            if batch.sequence == self.batch.sequence:
                for record_id, tracker in saved.items():
                    if tracker.version > self._trackers[record_id].version:
                        self._trackers[record_id] = tracker
            self._plan()

    def keep_order(self, ordered: bool) -> None:
        with self.monitor:
            self._ordered = ordered
            self._plan()

    def _plan(self) -> None:
        self._agenda = Agenda(self._trackers, ordered=self._ordered)
        self._unfinished = set()
        for record_id in self._trackers:
            self._note(record_id)
        self.monitor.notify_all()

    def _note(self, record_id: str) -> None:
        """Put the record where its tracker says that it belongs."""
        tracker = self.present(record_id)
        if tracker.ended:
            self._unfinished.discard(record_id)
            return
        self._unfinished.add(record_id)
        if record_id not in self._held:
            self._agenda.add(record_id, tracker.due if tracker.lease is None else tracker.lease.until)

    # Working

    def reserve(self, token: str) -> str | None:
        """Hold the next record whose time has come under the token, which the caller frees in the end."""
        with self.monitor:
            while (record_id := self._agenda.take(self._clock.now())) is not None:
                if record_id in self._unfinished and record_id not in self._held and self._ready(record_id):
                    self._held[record_id] = token
                    return record_id
            return None

    def _ready(self, record_id: str) -> bool:
        tracker = self.present(record_id)
        ready = tracker.lease is None and (tracker.due is None or tracker.due <= self._clock.now())
        if not ready:
            self._note(record_id)
        return ready

    def free(self, token: str, but: Collection[str] = ()) -> None:
        """What is held under the token may be reserved again, but for some records."""
        with self.monitor:
            for record_id in [one for one, holding in self._held.items() if holding == token and one not in but]:
                del self._held[record_id]
                self._note(record_id)
            self.monitor.notify_all()

    def change(self, record_id: str, make: Make, effect: Any = None, *, batch: int | None = None) -> Tracker | None:
        """Save what ``make`` makes of the tracker, with the effect in one commit; None if nothing was changed.

        That is so if ``make`` returns None, if the record's ``batch`` is no longer the present one, or if another
        process has changed the tracker first.
        """
        with self.monitor:
            self.monitor.wait_for(lambda: record_id not in self._changing)
            if self.batch is None or batch not in (None, self.batch.sequence):
                return None
            changed = make(self.present(record_id))
            if changed is None:
                return None
            self._changing.add(record_id)
        try:
            self._storage.save(changed, effect)
            self._put(changed)
        except ConflictError:
            self.take(self._storage.load())
            return None
        finally:
            with self.monitor:
                self._changing.discard(record_id)
                self.monitor.notify_all()
        return changed

    def _put(self, changed: Tracker) -> None:
        with self.monitor:
            if self.batch is not None and self.batch.sequence == changed.batch:
                self._trackers[changed.record_id] = changed.copied()
                self._note(changed.record_id)

    def begin(self, batch: Batch, records: Mapping[str, Any]) -> bool:
        """Replace the batch, durably; False if another process was first."""
        with self.monitor:
            self.monitor.wait_for(lambda: not self._changing)
            try:
                self._storage.begin(batch, records)
            except ConflictError:
                self.take(self._storage.load())
                return False
            self.take((copy.deepcopy(batch), {}))  # the caller may go on changing the pointer
            return True

    def wait(self, at_most_s: float) -> None:
        """Until a record can perhaps be reserved, all have ended, or so many seconds have passed."""
        with self.monitor:
            due: datetime | None = self._agenda.next_due()
            seconds = at_most_s if due is None else min(at_most_s, (due - self._clock.now()).total_seconds())
            if self._unfinished and seconds > 0:
                self._clock.wait(self.monitor, seconds)

    def _after_fork_in_child(self) -> None:
        """Of other threads nothing remains: neither do their locks, nor the changes that they were saving."""
        self.monitor = threading.Condition()
        self._changing.clear()


_all: weakref.WeakSet[Progress] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for progress in list(_all):
        progress._after_fork_in_child()


os.register_at_fork(after_in_child=_after_fork_in_child)
