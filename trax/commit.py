"""Pending records, group commit and sync policies: what stands between many threads and one storage.

Three ways lead to the storage, and a committer goes one of them. ``sync="always"``: a record is queued, and whoever of
the waiting threads leads brings everything that is queued with one fsync. Otherwise a record is handed over in the call
itself, or, with a buffer, joins a run that is handed over whole.

Invariants:

- A record gets its sequence when it is queued, under ``_mutex``, or when it is handed over, under ``_io``, and records
  reach the storage in that order, under ``_io``.
- A queued record stays queued until its fate is known. An interrupt anywhere leaves it there, and the next call brings
  it: the storage says how far it has come, so nothing is appended twice.
- While records are queued and ``_leading`` is true, one thread is on its way to bring them; each of the others sleeps
  on a lock of its own. Should an interrupt take that thread, the others find out after ``_PATIENCE_S``.
- A signal handler that calls the handle in the middle of a call of its own thread gets an error, not a deadlock.
- A sequence that was given out is never given out again, even if its record failed.
- After a failed sync the outcome is unknown, for every waiting thread alike: the committer is finished.
"""

from __future__ import annotations

import copy
import logging
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Sequence
from typing import Literal, TypeVar

from trax.errors import FinishedError, HandleError, StorageError, TraxError
from trax.guard import CallGuard
from trax.storage.base import MAX_SEQUENCE, Commit, Record, Storage

logger = logging.getLogger("trax")
T = TypeVar("T")

SyncPolicy = Literal["always", "interval", "os"]

_RUN_RECORDS = 1024  # a run becomes one frame, and with many names each has to have enough entries in it
_RUN_ENTRY_BYTES = 1 << 16  # a larger record is not worth holding back
_SEQUENCES_OF_A_RUN = _RUN_RECORDS + _RUN_ENTRY_BYTES  # more than that are never in one
_PATIENCE_S = 0.25
_RETURN_S = 50e-6  # what a thread that was let go takes to log its next record, when it does nothing else


class Pending:
    """Records that were given their sequences and whose fate is not yet known."""

    __slots__ = ("commit", "done", "error", "first", "leads", "turn")

    def __init__(self, first: int, commit: Sequence[Record], turn: threading.Lock | None) -> None:
        self.first = first
        self.commit = commit
        self.turn = turn
        """Locked while its thread sleeps; None if nobody sleeps on it."""
        self.leads = False
        """Whether its thread was woken to bring what is queued."""
        self.done = False
        self.error: TraxError | None = None

    @property
    def last(self) -> int:
        return self.first + len(self.commit) - 1

    def wake(self) -> None:
        """End the sleep of its thread. ``_mutex`` is held."""
        turn, self.turn = self.turn, None
        if turn is not None:
            turn.release()


class Run(Pending):
    """Records whose callers have returned; it grows until it is brought, and is tried again when that is refused."""

    __slots__ = ("records",)

    def __init__(self, first: int) -> None:
        self.records: list[Record] = []
        super().__init__(first, self.records, None)


class Committer:
    """Brings records to a storage as the sync policy says. Any number of threads."""

    def __init__(
        self, storage: Storage, *, sync: SyncPolicy, sync_interval_s: float = 1.0, buffer_bytes: int = 0
    ) -> None:
        self._storage = storage
        self._always = sync == "always"
        self._buffer_bytes = buffer_bytes
        self._bytes_for_a_run = min(buffer_bytes, _RUN_ENTRY_BYTES)
        self._mutex = threading.Lock()
        self._io = threading.Lock()
        self._queue: list[Pending] = []
        self._queued_bytes = 0
        self._run: Run | None = None
        self._leading = False
        self._gathering: Pending | None = None
        self._company = 1
        """How many threads were waiting for the last sync, or for the one after it."""
        self._sync_s = 0.0
        """How long the last sync took."""
        self._guard = CallGuard()
        self._inside = self._guard.threads
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
        run = self._run
        return self._last if run is None else run.last

    @property
    def durable_sequence(self) -> int:
        """Everything up to here is on stable storage."""
        return self._durable

    def log(self, commit: Commit, nbytes: int) -> int:
        """Add records; they are as safe as the sync policy says when this returns the sequence of the last."""
        thread = threading.get_ident()
        if thread in self._inside:
            self._guard.check()
        try:
            self._inside.add(thread)
            if nbytes < self._bytes_for_a_run:
                # Room is made before the record is queued: if that fails, the call has failed, and kept nothing of it.
                if self._queued_bytes + nbytes > self._buffer_bytes:
                    self._make_room()
                with self._mutex:
                    run = self._run
                    if run is None or len(run.records) >= _RUN_RECORDS:
                        run = self._begin_run()
                    records = run.records
                    self._queued_bytes += nbytes
                    records.extend(commit)  # the one step that counts: an interrupt comes before it or after it
                    return run.first + len(records) - 1
            if self._always or self._bytes_for_a_run:
                return self._queue_up(commit)
            with self._io:
                return self._hand_over(commit)
        finally:
            self._inside.discard(thread)

    def flush(self) -> None:
        """Hand everything that is queued to the operating system."""

        def do() -> None:
            self._raise(self._bring(sync=self._always))
            # An interrupted publish may have become the state of the store: what is read here would be the one before.
            self._on_storage(self._storage.check)

        self.quietly(do)

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
                self._end_run()
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
            self._end_run()
            for pending in self._queue:
                pending.error, pending.done = error, True
                pending.wake()
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

    def abandon(self, error: HandleError) -> None:
        """In a forked child: refuse everything with ``error``. The threads that held the locks are not there."""
        self._mutex, self._io = threading.Lock(), threading.Lock()
        self._failure, self._queue, self._run, self._leading = error, [], None, False

    def _sync(self, *, mark: bool) -> None:
        self._raise(self._bring(sync=True))
        if mark:
            self._on_storage(self._storage.mark)

    # The ways of a record. The guard is held.

    def _hand_over(self, commit: Commit) -> int:
        """Append records in the call itself. ``_io`` is held."""
        first = self._give_out(len(commit))
        self._raise(self._append(first, (commit,)))
        return self._last

    def _give_out(self, count: int) -> int:
        """The first of so many new sequences. ``_mutex`` is held; where records are handed over, ``_io`` is."""
        if self._failure is not None:
            self.check()
        first = self._last + 1
        if first + count > MAX_SEQUENCE:
            raise StorageError("the store has given out its last sequence: begin a new one.", reason="no sequence left")
        self._last += count
        return first

    def _make_room(self) -> None:
        with self._io:
            self._raise(self._bring(sync=False))

    def _begin_run(self) -> Run:
        self._end_run()
        run = Run(self._give_out(_SEQUENCES_OF_A_RUN))
        self._last -= _SEQUENCES_OF_A_RUN  # it takes them one by one
        self._queue.append(run)
        self._run = run
        return run

    def _end_run(self) -> None:
        """What is queued next does not join the run. ``_mutex`` is held."""
        self._last, self._run = self.last_sequence, None

    def _queue_up(self, commit: Commit) -> int:
        """Queue records and wait for their fate: one of the threads that wait brings what all of them have queued."""
        with self._mutex:
            self._end_run()
            leads = not self._leading
            pending = Pending(self._give_out(len(commit)), commit, None if leads else _locked())
            turn = pending.turn
            self._queue.append(pending)
            self._leading = True
            if self._gathering is not None and len(self._queue) >= self._company:
                self._gathering.wake()
        try:
            # Nobody has come to wake it: an interrupt has taken the thread that leads, so this one takes its place.
            if turn is not None and not turn.acquire(timeout=_PATIENCE_S):
                leads = True
            if not pending.done:
                self._gather(pending)
                with self._io:
                    if not pending.done:
                        self._bring(sync=self._always)
        finally:
            if leads or pending.leads:
                self._pass_on()
        if pending.error is not None:
            raise copy.copy(pending.error) from pending.error
        return pending.last

    def _gather(self, leader: Pending) -> None:
        """Wait for the threads that the last sync has let go, if that is short beside a sync that they could share.

        Without it they would form two groups, of which one waits while the other syncs.
        """
        longest_s = self._company * _RETURN_S
        if not self._always or self._company == 1 or longest_s > self._sync_s / 2:
            return
        with self._mutex:
            if len(self._queue) >= self._company:
                return
            leader.turn = turn = _locked()
            self._gathering = leader
        turn.acquire(timeout=longest_s)
        self._gathering = None

    def _pass_on(self) -> None:
        """Let the first of those that sleep bring what is queued now; if none does, the next call leads."""
        with self._mutex:
            heir = next((pending for pending in self._queue if pending.turn is not None), None)
            self._leading = heir is not None
            if heir is not None:
                heir.leads = True
                heir.wake()

    # To the storage. ``_io`` is held.

    def _bring(self, *, sync: bool, below: int | None = None) -> TraxError | None:
        """Append what is queued, and sync. The error, if records of this call were refused."""
        with self._mutex:
            self.check()
            self._end_run()
            batch = [pending for pending in self._queue if below is None or pending.first < below]
        refusal: TraxError | None = None
        appended = self._storage.appended
        for first, commits in _consecutive(one for one in batch if one.last > appended and not one.done):
            refusal = self._append(first, commits)
            if refusal is not None:
                break
        appended = self._storage.appended
        if sync and self._durable < appended:
            began = time.perf_counter()
            self._on_storage(self._storage.sync)
            self._sync_s = time.perf_counter() - began
            self._durable = max(self._durable, appended)
        if batch:
            self._settle(batch, appended, refusal)
        return refusal

    def _append(self, first: int, commits: Sequence[Commit]) -> TraxError | None:
        try:
            self._storage.append(first, commits)
        except HandleError as error:
            self.finish(error)
            raise
        except TraxError as error:
            return error
        return None

    def _settle(self, batch: list[Pending], appended: int, refusal: TraxError | None) -> None:
        stay: list[Pending] = []
        for pending in batch:
            if isinstance(pending, Run) and pending.last > appended:
                stay.append(pending)  # its callers were told that it is kept in the process: the next call tries it
            elif not pending.done:
                pending.error = refusal if pending.last > appended else None
                pending.done = True
        with self._mutex:
            self._queue[: len(batch)] = stay  # what was queued meanwhile is behind them
            self._queued_bytes = sum(_nbytes(pending.commit) for pending in self._queue)
            self._company = len(batch) + len(self._queue) - len(stay)
            for pending in batch:
                pending.wake()

    def _on_storage(self, call: Callable[[], None]) -> None:
        try:
            call()
        except TraxError as error:
            self.finish(error)
            self.check()

    def _raise(self, error: TraxError | None) -> None:
        if error is not None:
            raise error


def _locked() -> threading.Lock:
    lock = threading.Lock()
    lock.acquire()
    return lock


def _consecutive(batch: Iterable[Pending]) -> list[tuple[int, list[Commit]]]:
    """What has no gap between its sequences, together: a failed call leaves one."""
    together: list[tuple[int, list[Commit]]] = []
    following = 0
    for pending in batch:
        if pending.first != following:
            together.append((pending.first, []))
        together[-1][1].append(pending.commit)
        following = pending.last + 1
    return together


def _nbytes(commit: Commit) -> int:
    return sum(len(encoding) for record in commit for encoding in record.values())


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
            except (TraxError, MemoryError) as error:
                logger.warning("the log could not be synced; the next attempt is in %s s: %r", interval_s, error)
        del live
