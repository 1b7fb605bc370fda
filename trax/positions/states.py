"""What is known of an event log: how far it has been read. What a file can't keep exactly is refused beforehand.

Go writes nanoseconds, and ``datetime`` has microseconds: the rest is kept in a field of its own, so that a state that
was read and not updated is written again exactly as it was.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from trax.errors import InvalidArgumentError

MAX_RECORD_NUMBER = 2**64 - 1

_RFC_3339 = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(Z|[+-]\d\d:\d\d)", re.ASCII)
_MINUTE = timedelta(minutes=1)


@dataclass(frozen=True)
class EventLogState:
    """The last record of an event log that was read.

    ``timestamp`` is an aware datetime. ``nanosecond`` is what it has below its microseconds, 0 to 999: that of a state
    which another program has written, and 0 for what :meth:`Positions.persist` was given.
    """

    name: str
    record_number: int
    timestamp: datetime
    bookmark: str = ""
    nanosecond: int = 0


@dataclass(frozen=True)
class PersistedState:
    """What a file holds: when it was written, and the states by name."""

    update_time: datetime
    states: dict[str, EventLogState]


def checked(state: EventLogState) -> EventLogState:
    """``state`` itself; InvalidArgumentError if a file can't keep it exactly."""
    for what, text in (("name", state.name), ("bookmark", state.bookmark)):
        if not isinstance(text, str) or not _is_utf8(text):
            raise _refused(what, "a str that can be written as UTF-8", text)
    number = state.record_number
    if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number <= MAX_RECORD_NUMBER:
        raise _refused("record_number", f"an int between 0 and {MAX_RECORD_NUMBER}", number)
    if not isinstance(state.timestamp, datetime) or state.timestamp.utcoffset() is None:
        raise _refused("timestamp", "an aware datetime, such as datetime.now(timezone.utc)", state.timestamp)
    try:
        format_time(state.timestamp)
    except OverflowError as error:
        raise _refused("timestamp", "a time between the years 1 and 9999 in UTC", state.timestamp) from error
    return state


def format_time(time: datetime, nanosecond: int = 0) -> str:
    """RFC 3339, with as many digits of the second as there are, as Go writes it."""
    offset = time.utcoffset() or timedelta()
    if offset % _MINUTE:  # RFC 3339 has no seconds there: the same instant in UTC
        time, offset = time.astimezone(UTC), timedelta()
    date = f"{time.year:04}-{time.month:02}-{time.day:02}T{time.hour:02}:{time.minute:02}:{time.second:02}"
    fraction = f".{time.microsecond:06}{nanosecond:03}".rstrip("0").rstrip(".")
    hours, minutes = divmod(abs(offset) // _MINUTE, 60)
    zone = f"{'-' if offset < timedelta() else '+'}{hours:02}:{minutes:02}" if offset else "Z"
    return date + fraction + zone


def parse_time(text: str) -> tuple[datetime, int]:
    """The time, and what it has below its microseconds; ValueError if this is not RFC 3339."""
    match = _RFC_3339.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is not a time such as 2024-01-31T12:00:00.5Z")
    date, fraction, zone = match.groups()
    digits = (fraction or "").ljust(9, "0")
    time = datetime.fromisoformat(date + zone).replace(microsecond=int(digits[:6]))
    return time, int(digits[6:])


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _refused(what: str, wanted: str, value: object) -> InvalidArgumentError:
    return InvalidArgumentError(f"the {what} of an event log is {wanted}, not {value!r}.", reason=what)
