"""A clock for tests of consumers: time passes when the test says so, and nobody waits for it."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta

from trax.consumer.clock import Clock


class ManualClock(Clock):
    """Stands still until :meth:`advance`. Any number of threads."""

    def __init__(self, now: datetime = datetime(2000, 1, 1, tzinfo=UTC)) -> None:
        self._now = now
        self._changed = threading.Condition()
        self._waiting: list[tuple[datetime, threading.Condition]] = []

    def now(self) -> datetime:
        with self._changed:
            return self._now

    def wait(self, condition: threading.Condition, seconds: float) -> None:
        with self._changed:
            waiting = (self._now + timedelta(seconds=seconds), condition)
            self._waiting.append(waiting)
            self._changed.notify_all()
        try:
            condition.wait()
        finally:
            with self._changed:
                self._waiting.remove(waiting)

    def advance(self, seconds: float) -> None:
        """Let time pass, and wake those whose time has come."""
        with self._changed:
            self._now += timedelta(seconds=seconds)
            due = [condition for until, condition in self._waiting if until <= self._now]
        for condition in due:
            with condition:
                condition.notify_all()

    def until_waiting(self, count: int = 1) -> None:
        """Return when so many threads wait for time to pass."""
        with self._changed:
            self._changed.wait_for(lambda: len(self._waiting) >= count)
