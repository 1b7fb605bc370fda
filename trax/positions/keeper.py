"""The states in memory, and the thread that brings them to the file.

Invariants:

- ``_unflushed`` counts the updates that were accepted and are not on stable storage; the one that would make it pass
  ``max_updates`` does not return before it is. So a crash takes no more of them, however slow the disk is.
- ``_due`` is when the next flush must begin; None while nothing waits for one. It is set by the first update since the
  last flush began, so nothing waits for longer than ``interval_s`` and one write.
- An update is in memory before anything is raised that does not concern the update itself: a disk that fails for a
  while costs no position.
- A failure in the background is kept until a caller has seen it.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from time import monotonic

from trax.errors import ClosedError, ForkedError, HandleError, RewindError
from trax.guard import CallGuard
from trax.positions.file import PositionsFile
from trax.positions.states import EventLogState, PersistedState


class Clock:
    """Where the keeper has the time from, and how its thread waits."""

    def now(self) -> datetime:
        """The time of day."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Seconds; never goes back."""
        return monotonic()

    def wait(self, condition: threading.Condition, timeout_s: float | None) -> None:
        """Wait until notified, or for so long."""
        condition.wait(timeout_s if timeout_s is None else min(timeout_s, threading.TIMEOUT_MAX))


class Keeper:
    """Keeps states, and the file at most ``max_updates`` and ``interval_s`` behind them. Any number of threads."""

    def __init__(self, file: PositionsFile, max_updates: int, interval_s: float, clock: Clock) -> None:
        self._file, self._clock = file, clock
        self._max_updates, self._interval_s = max_updates, interval_s
        self._guard = CallGuard()
        self._condition = threading.Condition()
        self._writing = threading.Lock()
        self._unflushed = 0
        self._due: float | None = None
        self._failure: BaseException | None = None
        self._ended: HandleError | None = None
        self.released = False
        """Whether the file was let go of."""
        if file.persisted is None:
            file.replace(PersistedState(clock.now(), {}))  # what would be refused later is refused now
            self._states: dict[str, EventLogState] = {}
        else:
            self._states = dict(file.persisted.states)
        self._thread = threading.Thread(target=self._flush_when_due, name="trax-positions", daemon=True)
        self._thread.start()

    def persist(self, state: EventLogState, *, allow_rewind: bool) -> None:
        """Take an update. What it raises about the disk does not undo that."""
        self._guarded(lambda: self._persist(state, allow_rewind=allow_rewind))

    def flush(self) -> None:
        """All updates accepted so far are on stable storage when this returns."""
        self._guarded(self._flush)

    def shutdown(self) -> None:
        """Accept no more updates, flush, let go of the file. If the flush fails, the call can be repeated."""
        self._guarded(self._shutdown)

    def shutdown_dropped(self) -> None:
        """The same when nobody is left to call it. The garbage collector may notice that in the keeper's own thread."""
        if threading.current_thread() is self._thread:
            threading.Thread(target=self.shutdown, name="trax-positions").start()
        else:
            self.shutdown()

    def abandon(self) -> None:
        """In a forked child, where only the thread that forked goes on: leave everything to the parent."""
        text = (
            f"the positions in {self._file.path} were opened by the parent process, which goes on using them. The "
            f"child can read them with trax.positions.read()."
        )
        self._ended = ForkedError(text, path=self._file.path, reason="forked")
        self.released = True
        self._guard = CallGuard()
        self._condition = threading.Condition()  # another thread of the parent may have held it
        self._file.abandon()

    def states(self) -> dict[str, EventLogState]:
        """A copy of the states in memory."""
        with self._condition:
            return dict(self._states)

    def _persist(self, state: EventLogState, *, allow_rewind: bool) -> None:
        with self._condition:
            self._check_open()
            stored = self._states.get(state.name)
            if stored is not None and state.record_number < stored.record_number and not allow_rewind:
                raise self._rewound(state, stored)
            self._states[state.name] = state
            self._unflushed += 1
            if self._due is None:
                self._due = self._clock.monotonic() + self._interval_s
            if self._unflushed == self._max_updates:
                self._due = self._clock.monotonic()
            self._condition.notify_all()
            ahead = self._unflushed > self._max_updates
        if ahead:  # of the thread, or of a disk that fails: whoever is waits for the disk
            self._write(beyond=self._max_updates)
        self._raise_failure("the update is held in memory, and goes to the file with the next flush that succeeds")

    def _flush(self) -> None:
        if self.released:
            self._check_open()
        self._write()
        self._raise_failure("it was tried again, and all updates are on stable storage now")

    def _shutdown(self) -> None:
        with self._condition:
            if self.released:
                return
            if self._ended is None:
                text = f"the positions in {self._file.path} were shut down. Open the file again with Positions()."
                self._ended = ClosedError(text, path=self._file.path, reason="shut down")
            self._condition.notify_all()
        self._thread.join()
        self._write()
        with self._writing:
            if not self.released:
                self._file.close()
                self.released = True
        self._raise_failure("it was tried again, and all updates are on stable storage now")

    def _write(self, beyond: int = 0) -> None:
        """Bring the states to the file, if more than ``beyond`` updates are not there."""
        with self._writing:
            try:
                with self._condition:
                    states, unflushed = dict(self._states), self._unflushed
                    if unflushed <= beyond:
                        return
                    self._due = None
                self._file.replace(PersistedState(self._clock.now(), states))
            except BaseException:
                with self._condition:
                    self._due = self._clock.monotonic() + self._interval_s  # when it is tried again
                    self._failure = None  # whoever sees this one need not see that one
                    self._condition.notify_all()
                raise
            with self._condition:
                self._unflushed -= unflushed
                if self._unflushed >= self._max_updates:  # came meanwhile, from threads that waited for this write
                    self._due = self._clock.monotonic()
                    self._condition.notify_all()

    def _flush_when_due(self) -> None:
        while self._wait_until_due():
            try:
                self._write()
            except BaseException as error:  # whatever it is, a caller has to see it
                with self._condition:
                    self._failure = error

    def _wait_until_due(self) -> bool:
        """Whether there is something to flush; False when it is time to end."""
        with self._condition:
            while self._ended is None:
                now = self._clock.monotonic()
                if self._due is not None and self._due <= now:
                    return True
                self._clock.wait(self._condition, None if self._due is None else self._due - now)
            return False

    def _raise_failure(self, what_now: str) -> None:
        with self._condition:
            failure, self._failure = self._failure, None
        if failure is not None:
            failure.add_note(f"trax: raised by a flush in the background; {what_now}")
            raise failure

    def _guarded(self, call: Callable[[], None]) -> None:
        """Refuse a signal handler that comes in the middle of another call: it would wait for itself."""
        thread = self._guard.check()
        try:
            self._guard.threads.add(thread)
            call()
        finally:
            self._guard.threads.discard(thread)

    def _check_open(self) -> None:
        if self._ended is not None:
            raise copy.copy(self._ended)

    def _rewound(self, state: EventLogState, stored: EventLogState) -> RewindError:
        text = (
            f"the position of {state.name!r} is record {stored.record_number} in {self._file.path}, and "
            f"{state.record_number} is before it. If the event log was cleared, say allow_rewind=True."
        )
        return RewindError(text, path=self._file.path, reason="an older position", stored=stored.record_number)
