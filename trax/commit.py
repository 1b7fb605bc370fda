"""Pending records, group commit and sync policies: what stands between many threads and one storage.

Invariants:

- A record gets its sequence when it is queued, under ``_mutex``, and records reach the storage in that order, under
  ``_io``. Whoever holds ``_io`` brings everything that is queued with it, so threads share one fsync.
- A queued record stays queued until its fate is known. An interrupt anywhere leaves it there, and the next call brings
  it: the storage says how far it has come, so nothing is appended twice.
- A signal handler that calls the handle in the middle of a call of its own thread gets an error, not a deadlock.
- A sequence that was given out is never given out again, even if its record failed.
- After a failed sync the outcome is unknown, for every waiting thread alike: the committer is finished.
"""

from __future__ import annotations

import copy
import logging
import threading
import weakref
from collections.abc import Callable
from itertools import groupby
from typing import Literal, TypeVar

from trax.errors import FinishedError, HandleError, StorageError, TraxError
from trax.guard import CallGuard
from trax.storage.base import MAX_SEQUENCE, Commit, Storage

logger = logging.getLogger("trax")
T = TypeVar("T")

SyncPolicy = Literal["always", "interval", "os"]


class Pending:
    """A commit that was given its sequences and whose fate is not yet known."""

    __slots__ = ("commit", "done", "error", "first", "last", "nbytes", "waits")

    def __init__(self, first: int, commit: Commit, nbytes: int, *, waits: bool) -> None:
        self.first = first
        self.last = first + len(commit) - 1
        self.commit = commit
        self.nbytes = nbytes
        self.waits = waits  # whether its caller is told what becomes of it; otherwise it has already returned
        self.done = False
        self.error: TraxError | None = None


class Committer:
    """Brings records to a storage as the sync policy says. Any number of threads."""

    def __init__(
        self, storage: Storage, *, sync: SyncPolicy, sync_interval_s: float = 1.0, buffer_bytes: int = 0
    ) -> None:
        self._storage = storage
        self._always = sync == "always"
        self._buffer_bytes = buffer_bytes
        self._mutex = threading.Lock()
        self._io = threading.Lock()
        self._queue: list[Pending] = []
        self._queued_bytes = 0
        self._guard = CallGuard()
        self._last = storage.sequence
        self._durable = storage.sequence
        self._failure: TraxError | None = None
        self._ended = threading.Event()
        if sync == "interval":
            ticker = threading.Thread(
                target=_sync_regularly,
                args=(weakref.ref(self), self._ended, sync_interval_s),
                name="trax-sync",
                daemon=True,
            )
            ticker.start()

    @property
    def last_sequence(self) -> int:
        """The last sequence that was given out."""
        return self._last

    @property
    def durable_sequence(self) -> int:
        """Everything up to here is on stable storage."""
        return self._durable

    def log(self, commit: Commit, nbytes: int) -> int:
        """Add records; they are as safe as the sync policy says when this returns the sequence of the last."""
        if nbytes < self._buffer_bytes:
            return self._buffer(commit, nbytes)
        thread = self._guard.check()
        try:
            self._guard.threads.add(thread)
            pending = self._enqueue(commit, nbytes, waits=True)
            if not pending.done:
                with self._io:
                    if not pending.done:
                        self._bring(sync=self._always)
        finally:
            self._guard.threads.discard(thread)
        if pending.error is not None:
            raise copy.copy(pending.error) from pending.error
        return pending.last

    def flush(self) -> None:
        """Hand everything that is queued to the operating system."""
        self.quietly(lambda: self._raise(self._bring(sync=self._always)))

    def sync(self, *, mark: bool = True) -> None:
        """Everything logged before this call is on stable storage when it returns."""
        self.quietly(lambda: self._sync(mark=mark))

    def sync_through(self, sequence: int) -> None:
        """The records up to ``sequence`` are on stable storage when this returns."""
        self.check()
        if self._durable < sequence:
            self.sync(mark=False)

    def exclusively(self, count: int, action: Callable[[int], T]) -> T:
        """Do something with ``count`` new sequences, of which it is given the first.

        Everything before them is synced when it begins, and nothing is appended until it has ended.
        """

        def do() -> T:
            with self._mutex:
                first = self._give_out(count)
            self._raise(self._bring(sync=True, below=first))
            try:
                result = action(first)
            except HandleError as error:
                self.finish(error)
                raise
            self._durable = max(self._durable, first + count - 1)
            return result

        return self.quietly(do)

    def quietly(self, action: Callable[[], T]) -> T:
        """Do something; nothing is appended meanwhile."""
        thread = self._guard.check()
        try:
            self._guard.threads.add(thread)
            with self._io:
                return action()
        finally:
            self._guard.threads.discard(thread)

    def check(self) -> None:
        """Raise what ended this committer, if anything has."""
        if self._failure is not None:
            raise copy.copy(self._failure) from self._failure

    def finish(self, error: TraxError) -> None:
        """End it: every waiting and every later call gets ``error``, or one that names it as the cause."""
        if not isinstance(error, HandleError):
            text = (
                f"this handle is finished: {error} What was not acknowledged may or may not be in the store; open it "
                f"again to see."
            )
            finished = FinishedError(text, path=error.path, reason=error.reason)
            finished.__cause__ = error
            error = finished
        if self._failure is None:
            self._failure = error
        self._ended.set()
        with self._mutex:
            for pending in self._queue:
                pending.error, pending.done = error, True
            self._queue, self._queued_bytes = [], 0

    def close(self, error: HandleError, release: Callable[[], None]) -> None:
        """Sync, refuse every later call with ``error``, and ``release`` the storage; nothing comes in between.

        If the sync fails, the storage is released all the same, and the failure raised. After an interrupt the call can
        be repeated.
        """
        self._ended.set()

        def end() -> None:
            try:
                if self._failure is None:
                    self._sync(mark=False)
            except TraxError:
                self.finish(error)
                release()
                raise
            self.finish(error)
            release()

        self.quietly(end)

    def _sync(self, *, mark: bool) -> None:
        self._raise(self._bring(sync=True))
        if mark:
            self._on_storage(self._storage.mark)

    def _enqueue(self, commit: Commit, nbytes: int, *, waits: bool) -> Pending:
        with self._mutex:
            pending = Pending(self._give_out(len(commit)), commit, nbytes, waits=waits)
            self._queue.append(pending)
            self._queued_bytes += nbytes
        return pending

    def _give_out(self, count: int) -> int:
        """The first of so many new sequences. ``_mutex`` is held."""
        self.check()
        first = self._last + 1
        if first + count > MAX_SEQUENCE:
            raise StorageError("the store has given out its last sequence: begin a new one.", reason="no sequence left")
        self._last += count
        return first

    def _buffer(self, commit: Commit, nbytes: int) -> int:
        # Room is made before the record is queued: if that fails, the call has failed, and nothing of it was kept.
        if self._queued_bytes + nbytes > self._buffer_bytes:
            self.flush()
        thread = self._guard.check()
        try:
            self._guard.threads.add(thread)
            return self._enqueue(commit, nbytes, waits=False).last
        finally:
            self._guard.threads.discard(thread)

    def _bring(self, *, sync: bool, below: int | None = None) -> TraxError | None:
        """Append what is queued, and sync. ``_io`` is held. The error, if records of this call were refused."""
        with self._mutex:
            self.check()
            batch = [pending for pending in self._queue if below is None or pending.first < below]
        refusal = self._append(batch)
        if sync and self._durable < self._storage.appended:
            appended = self._storage.appended
            self._on_storage(self._storage.sync)
            self._durable = max(self._durable, appended)
        self._settle(batch, refusal)
        return refusal

    def _append(self, batch: list[Pending]) -> TraxError | None:
        """Append the records that an interrupted call has not appended before."""
        new = [pending for pending in batch if pending.first > self._storage.appended]
        # A failed call leaves a gap in the sequences, and what is appended together has none.
        length = 0

        def run(pending: Pending) -> int:
            nonlocal length
            length += len(pending.commit)
            return pending.last - length

        for _, pendings in groupby(new, key=run):
            together = list(pendings)
            try:
                self._storage.append(together[0].first, [pending.commit for pending in together])
            except HandleError as error:
                self.finish(error)
                raise
            except TraxError as error:
                return error
        return None

    def _settle(self, batch: list[Pending], refusal: TraxError | None) -> None:
        appended = self._storage.appended
        stay = set()
        for pending in batch:
            if pending.last > appended:
                if not pending.waits:
                    stay.add(pending)  # its caller was told that it is kept in the process: the next call tries again
                    continue
                pending.error = refusal
            pending.done = True
        with self._mutex:
            settled = set(batch) - stay
            self._queue = [pending for pending in self._queue if pending not in settled]
            self._queued_bytes = sum(pending.nbytes for pending in self._queue)

    def _on_storage(self, call: Callable[[], None]) -> None:
        try:
            call()
        except TraxError as error:
            self.finish(error)
            self.check()

    def _raise(self, error: TraxError | None) -> None:
        if error is not None:
            raise error


def _sync_regularly(committer: weakref.ref[Committer], ended: threading.Event, interval_s: float) -> None:
    while not ended.wait(interval_s):
        live = committer()
        if live is None:
            return
        if live.durable_sequence < live.last_sequence:
            try:
                live.sync(mark=False)
            except HandleError:
                return  # the committer keeps it, and raises it at the next call
            except TraxError as error:
                logger.warning("the log could not be synced; the next attempt is in %s s: %s", interval_s, error)
        del live
