"""Pending records, group commit and sync policies: what stands between many threads and one storage.

Three ways lead to the storage. With a buffer a record joins a run that is handed over whole. Without one it is handed
over in the call itself; with ``sync="always"`` only where no other thread has come meanwhile. Threads that meet there
queue their records, and whoever of them leads brings everything that is queued, with one fsync.

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
from threading import get_ident
from typing import Literal, TypeVar

from trax.errors import FinishedError, HandleError, StorageError, TraxError
from trax.guard import CallGuard
from trax.storage.base import MAX_SEQUENCE, Commit, Record, Storage

logger = logging.getLogger("trax")
T = TypeVar("T")

SyncPolicy = Literal["always", "interval", "os"]

_RUN_BYTES = 1 << 16  # a larger record is not worth holding back
_RECORD_BYTES = 64  # what a record takes beside its entries; so a run, which becomes one frame, has at most 1,024
_PATIENCE_S = 0.25
_RETURN_S = 50e-6  # what a thread that was let go takes to log its next record, when it does nothing else


class Pending:
    """Records that were given their sequences and whose fate is not yet known."""

    __slots__ = ("commit", "done", "error", "first", "leads", "nbytes", "turn")

    def __init__(self, first: int, commit: Sequence[Record], nbytes: int, turn: threading.Lock | None) -> None:
        self.first = first
        self.commit = commit
        self.nbytes = nbytes
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

    __slots__ = ("most_bytes", "records")

    def __init__(self, first: int, most_bytes: int) -> None:
        self.records: list[Record] = []
        self.most_bytes = most_bytes
        """What does not fit in begins another run."""
        super().__init__(first, self.records, 0, None)


_NO_RUN = Run(1, -1)  # nothing fits in


class Committer:
    """Brings records to a storage as the sync policy says. Any number of threads."""

    def __init__(
        self, storage: Storage, *, sync: SyncPolicy, sync_interval_s: float = 1.0, buffer_bytes: int = 0
    ) -> None:
        self._storage = storage
        self._always = sync == "always"
        self._buffer_bytes = buffer_bytes
        self._run_bytes = min(buffer_bytes, _RUN_BYTES)
        self._mutex = threading.Lock()
        self._io = threading.Lock()
        self._queue: list[Pending] = []
        self._run = _NO_RUN
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
        return self._last if run is _NO_RUN else run.last

    @property
    def durable_sequence(self) -> int:
        """Everything up to here is on stable storage."""
        return self._durable

    def log(self, record: Record, nbytes: int) -> int:
        """Add a record; it is as safe as the sync policy says when this returns its sequence."""
        thread = get_ident()
        inside = self._inside
        if thread in inside:
            self._guard.check()
        try:
            inside.add(thread)
            if self._run_bytes:
                nbytes += _RECORD_BYTES
                with self._mutex:
                    run = self._run
                    together = run.nbytes + nbytes
                    if together <= run.most_bytes:  # most records take this way, so what it does stands here
                        run.nbytes = together
                        records = run.records
                        records.append(record)  # the one step that counts: an interrupt comes before it or after it
                        return run.first + len(records) - 1
            return self._log((record,), nbytes)
        finally:
            inside.discard(thread)

    def log_together(self, commit: Commit, nbytes: int) -> int:
        """Add records that stay together; they are as safe as the sync policy says when this returns the last's."""
        thread = self._guard.check()
        try:
            self._inside.add(thread)
            return self._log(commit, nbytes + _RECORD_BYTES * len(commit))
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
            self._queue = []

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
        self._failure, self._queue, self._run, self._leading = error, [], _NO_RUN, False

    def _sync(self, *, mark: bool) -> None:
        self._raise(self._bring(sync=True))
        if mark:
            self._on_storage(self._storage.mark)

    # The ways of a record. The guard is held.

    def _log(self, commit: Commit, nbytes: int) -> int:
        if nbytes <= self._run_bytes:
            return self._hold_back(commit, nbytes)
        if self._run_bytes or (self._always and (self._company > 1 or self._io.locked())):
            return self._queue_up(commit, nbytes)
        with self._io:
            with self._mutex:
                first = None if self._queue else self._give_out(len(commit))
            if first is not None:
                self._raise(self._append(first, (commit,)))
                if self._always:
                    self._sync_appended()
                return first + len(commit) - 1
        return self._queue_up(commit, nbytes)  # a thread has come meanwhile, and leads

    def _hold_back(self, commit: Commit, nbytes: int) -> int:
        with self._mutex:
            held = sum(pending.nbytes for pending in self._queue)
        # Room is made before the records are queued: if that fails, the call has failed, and kept nothing of them.
        if held + nbytes > self._buffer_bytes:
            with self._io:
                self._raise(self._bring(sync=False))
                held = 0
        with self._mutex:
            run = self._run
            if run.nbytes + nbytes > run.most_bytes:
                run = self._begin_run(max(nbytes, min(self._run_bytes, self._buffer_bytes - held)))
            run.nbytes += nbytes
            run.records.extend(commit)  # the one step that counts
            return run.last

    def _give_out(self, count: int) -> int:
        """The first of so many new sequences. ``_mutex`` is held."""
        first = self._next(count)
        self._last += count
        return first

    def _next(self, count: int) -> int:
        """The first sequence that was not given out, if there are so many. ``_mutex`` is held."""
        if self._failure is not None:
            self.check()
        first = self._last + 1
        if first + count > MAX_SEQUENCE:
            raise StorageError("the store has given out its last sequence: begin a new one.", reason="no sequence left")
        return first

    def _begin_run(self, most_bytes: int) -> Run:
        self._end_run()
        # It takes its sequences one by one: last_sequence, which others ask without the lock, is never ahead of them.
        run = Run(self._next(most_bytes // _RECORD_BYTES), most_bytes)
        self._queue.append(run)
        self._run = run
        return run

    def _end_run(self) -> None:
        """What is queued next does not join the run. ``_mutex`` is held."""
        self._last, self._run = self.last_sequence, _NO_RUN

    def _queue_up(self, commit: Commit, nbytes: int) -> int:
        """Queue records and wait for their fate: one of the threads that wait brings what all of them have queued."""
        with self._mutex:
            self._end_run()
            leads = not self._leading
            pending = Pending(self._give_out(len(commit)), commit, nbytes, None if leads else _locked())
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
        if sync:
            self._sync_appended()
        if batch:
            self._settle(batch, refusal)
        return refusal

    def _sync_appended(self) -> None:
        appended = self._storage.appended
        if self._durable < appended:
            began = time.perf_counter()
            self._on_storage(self._storage.sync)
            self._sync_s = time.perf_counter() - began
            self._durable = max(self._durable, appended)

    def _append(self, first: int, commits: Sequence[Commit]) -> TraxError | None:
        try:
            self._storage.append(first, commits)
        except HandleError as error:
            self.finish(error)
            raise
        except TraxError as error:
            return error
        return None

    def _settle(self, batch: list[Pending], refusal: TraxError | None) -> None:
        appended = self._storage.appended
        stay: list[Pending] = []
        for pending in batch:
            if isinstance(pending, Run) and pending.last > appended:
                stay.append(pending)  # its callers were told that it is kept in the process: the next call tries it
            elif not pending.done:
                pending.error = refusal if pending.last > appended else None
                pending.done = True
        with self._mutex:
            self._queue[: len(batch)] = stay  # what was queued meanwhile is behind them
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
