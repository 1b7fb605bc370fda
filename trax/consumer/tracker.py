"""What is known of one record of a batch, and how it changes: values, and functions that make the next value.

.. code-block:: text

    pending ──claim──► in_progress ──succeed──► succeeded
       ▲                 │    │
       │    lease lapses │    │ fail
       ├─────────────────┤    ▼
       │                 │  failed ──claim──► in_progress         skip: any state that is not an end ──► ignored
       │                 ▼                                        retry: failed, exhausted, ignored ──► pending
       └── or, after the last attempt, exhausted ──claim, deliver──► exhausted, delivered

Invariants:

- ``attempts`` is raised by the change that begins an attempt, so a saved tracker never counts fewer than were begun.
- ``version`` is raised by one with each change: a storage can tell whether a change was made to what it holds.
- A time is an aware ``datetime`` in UTC. The plain form, which is what storages keep, holds nothing but what JSON
  knows, as far as ``data`` does too.
"""

from __future__ import annotations

import copy
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from typing import Any

MAX_FAILURES = 5
MAX_TEXT = 10_000


class Status(StrEnum):
    """How far a record has come. Three of them are ends: succeeded, ignored, and exhausted once it is delivered."""

    PENDING = "pending"
    IN_PROGRESS = "in_progress"
    FAILED = "failed"
    EXHAUSTED = "exhausted"
    SUCCEEDED = "succeeded"
    IGNORED = "ignored"


@dataclass(frozen=True)
class Lease:
    """Who works on a record (``holder``, for people; ``token``, for the comparison), and until when nobody else may."""

    holder: str
    token: str
    since: datetime
    until: datetime


@dataclass(frozen=True)
class Failure:
    """What became of an attempt: the error in one line, and its traceback; both shortened where they are very long."""

    attempt: int
    at: datetime
    error: str
    traceback: str = ""

    @classmethod
    def of(cls, error: BaseException, attempt: int, at: datetime) -> Failure:
        line = traceback.format_exception_only(error)[-1].strip()  # str(error) may itself raise
        return cls(
            attempt, at, _text(line, MAX_TEXT // 10), _text("".join(traceback.format_exception(error)), MAX_TEXT)
        )


@dataclass(frozen=True)
class Tracker:
    """One record of a batch.

    ``due``: not before then comes the next attempt, or delivery. ``deliveries`` counts the attempts to hand an
    exhausted record to ``dead_letter``, and ``delivered`` says when that succeeded. ``data`` belongs to the user.
    ``errors`` are the last failures, oldest first, at most five.
    """

    record_id: str
    batch: int
    created: datetime
    updated: datetime
    status: Status = Status.PENDING
    attempts: int = 0
    due: datetime | None = None
    lease: Lease | None = None
    deliveries: int = 0
    delivered: datetime | None = None
    data: Mapping[str, Any] = field(default_factory=dict)
    errors: tuple[Failure, ...] = ()
    version: int = 0

    @property
    def ended(self) -> bool:
        """Whether nothing remains to be done of the record."""
        if self.status is Status.EXHAUSTED:
            return self.delivered is not None
        return self.status in (Status.SUCCEEDED, Status.IGNORED)

    def copied(self) -> Tracker:
        """The same, with data of its own."""
        return replace(self, data=copy.deepcopy(self.data)) if self.data else self

    def is_held_by(self, token: str | None) -> bool:
        return self.lease is not None and self.lease.token == token

    # The way of a record

    def claim(self, lease: Lease) -> Tracker:
        """The next attempt begins, or, of an exhausted record, the next delivery."""
        if self.status is Status.EXHAUSTED:
            return self._next(lease.since, deliveries=self.deliveries + 1, lease=lease, due=None)
        return self._next(lease.since, status=Status.IN_PROGRESS, attempts=self.attempts + 1, lease=lease, due=None)

    def renew(self, now: datetime, until: datetime) -> Tracker:
        assert self.lease is not None
        return self._next(now, lease=replace(self.lease, until=until))

    def succeed(self, now: datetime) -> Tracker:
        return self._next(now, status=Status.SUCCEEDED, lease=None)

    def fail(self, failure: Failure, due: datetime, max_attempts: int) -> Tracker:
        """The attempt, or the delivery, has failed; the next one is ``due``, if there is one."""
        errors = _latest(self.errors, failure)
        if self.status is Status.EXHAUSTED:
            return self._next(failure.at, lease=None, due=due, errors=errors)
        if self.attempts >= max_attempts:
            return self._next(failure.at, status=Status.EXHAUSTED, lease=None, errors=errors)
        return self._next(failure.at, status=Status.FAILED, lease=None, due=due, errors=errors)

    def release(self, now: datetime) -> Tracker:
        """The attempt, or the delivery, was broken off."""
        return self.lapse()._next(now)

    def deliver(self, now: datetime) -> Tracker:
        """``dead_letter`` has taken the exhausted record."""
        return self._next(now, delivered=now, lease=None)

    def skip(self, now: datetime) -> Tracker:
        return self._next(now, status=Status.IGNORED, lease=None, due=None)

    def retry(self, now: datetime) -> Tracker:
        """From the beginning: with all attempts, and with its errors, which say why."""
        return self._next(now, status=Status.PENDING, attempts=0, deliveries=0, delivered=None, lease=None, due=None)

    def note(self, now: datetime, data: Mapping[str, Any]) -> Tracker:
        return self._next(now, data={**self.data, **data})

    def _next(self, now: datetime, **changes: Any) -> Tracker:
        return replace(self, version=self.version + 1, updated=now, **changes)

    # What time and configuration make of it; no change, and saved only with the next one

    def lapse(self) -> Tracker:
        """As it is once its holder is gone. The attempt that was cut off stays counted."""
        if self.lease is None:
            return self
        text = f"cut off: {self.lease.holder}, who held the record since {self.lease.since}, did not bring it to an end"
        errors = _latest(self.errors, Failure(self.attempts, self.updated, text))
        status = Status.PENDING if self.status is Status.IN_PROGRESS else self.status
        return replace(self, status=status, lease=None, errors=errors)

    def within(self, max_attempts: int) -> Tracker:
        """As it is when no more than so many attempts are allowed."""
        if self.status in (Status.PENDING, Status.FAILED) and self.attempts >= max_attempts:
            return replace(self, status=Status.EXHAUSTED, due=None)
        return self

    # The plain form

    def as_plain(self) -> dict[str, Any]:
        plain = {**vars(self), "status": str(self.status), "data": dict(self.data)}
        plain |= {name: _plain(plain[name]) for name in ("created", "updated", "due", "delivered")}
        plain["lease"] = None if self.lease is None else _plain_fields(self.lease)
        plain["errors"] = [_plain_fields(failure) for failure in self.errors]
        return plain

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> Tracker:
        fields = {**plain, "status": Status(plain["status"])}
        fields |= {name: _time(plain[name]) for name in ("created", "updated", "due", "delivered")}
        if plain["lease"] is not None:
            lease = plain["lease"]
            fields["lease"] = Lease(**{**lease, "since": _time(lease["since"]), "until": _time(lease["until"])})
        fields["errors"] = tuple(Failure(**{**failure, "at": _time(failure["at"])}) for failure in plain["errors"])
        return cls(**fields)


def _latest(errors: tuple[Failure, ...], failure: Failure) -> tuple[Failure, ...]:
    return (*errors, failure)[-MAX_FAILURES:]


def _text(text: str, size: int) -> str:
    """The text, made such that every storage can keep it: of bounded length, and without what is no Unicode."""
    text = text.encode("utf-8", "backslashreplace").decode()
    return text if len(text) <= size else f"{text[: size // 2]}\n…\n{text[-size // 2 :]}"


def _plain(value: Any) -> Any:
    return value.isoformat() if isinstance(value, datetime) else value


def _plain_fields(value: Lease | Failure) -> dict[str, Any]:
    return {name: _plain(item) for name, item in vars(value).items()}


def _time(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)
