"""The options of checkpoints and consumers, checked before anything is opened."""

from __future__ import annotations

import threading

from trax.errors import InvalidArgumentError


def check_count(what: str, value: object, least: int) -> None:
    """InvalidArgumentError unless it is a whole number from ``least`` on."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise InvalidArgumentError(f"{what} is a whole number, {least} or more, not {value!r}.", reason=what)


def check_seconds(what: str, value: object) -> None:
    """InvalidArgumentError unless it is a time that somebody can wait for: above 0, and not for ever."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= threading.TIMEOUT_MAX:
        text = f"{what} is a number of seconds, above 0 and below {threading.TIMEOUT_MAX:.1e}, not {value!r}."
        raise InvalidArgumentError(text, reason=what)
