"""Signals: they only say that the job is to end, after the step that it is in.

A handler sets a flag and calls the handler that was there before; the loop looks at the flag between two steps. A
second SIGINT interrupts at once, as it would without a job; the step that it interrupts is repeated. A forked child
inherits the handlers: there SIGTERM does what it did before the job, and the others only set a flag that nobody reads.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterable
from types import FrameType
from typing import Any

from trax.errors import InvalidArgumentError

SIGNALS = ("SIGTERM", "SIGINT", "SIGUSR1", "SIGUSR2", "SIGXCPU")
_FORWARDED_NOT = (signal.SIG_DFL, signal.SIG_IGN, signal.default_int_handler)
_NEVER = ("SIGKILL", "SIGSTOP")


class Signals:
    """Watches for signals, from :meth:`watch` to :meth:`restore`; ``received`` is the first that came.

    Only the main thread can do that; elsewhere nothing is watched.
    """

    def __init__(self, names: Iterable[str | signal.Signals]) -> None:
        if isinstance(names, str) or not isinstance(names, Iterable):
            text = f"signals is a list of signals, such as {SIGNALS[:2]}, and not {names!r}."
            raise InvalidArgumentError(text, reason="signals")
        there = [name for name in names if name not in SIGNALS or hasattr(signal, name)]  # some systems lack some
        self._wanted = list(dict.fromkeys(map(_signal, there)))
        self._before: dict[int, Any] = {}
        self._process = os.getpid()
        self._is_over = False
        self.received: signal.Signals | None = None

    def watch(self) -> None:
        if threading.current_thread() is threading.main_thread():
            for number in self._wanted:
                self._before[number] = signal.signal(number, self._note)

    def restore(self) -> None:
        self._is_over = True
        for number in self._before:
            # One that was put there by somebody else meanwhile stays.
            if signal.getsignal(number) == self._note:
                signal.signal(number, self._handler_before(number))

    def _handler_before(self, number: int) -> Any:
        """What was there before; but for the handler of another job that was closed before this one."""
        handler = self._before.get(number)
        other = getattr(handler, "__self__", None)
        if isinstance(other, Signals) and other._is_over:
            return other._handler_before(number)
        return signal.SIG_DFL if handler is None else handler

    def _note(self, number: int, frame: FrameType | None) -> None:
        before = self._handler_before(number)
        if number == signal.SIGTERM and os.getpid() != self._process:
            # A forked child has inherited this handler, and it is how multiprocessing ends its workers.
            signal.signal(number, before)
            signal.raise_signal(number)
            return
        is_second = self.received is not None
        if not is_second:
            self.received = signal.Signals(number)
        if callable(before) and before not in _FORWARDED_NOT:
            before(number, frame)
        if is_second and number == signal.SIGINT:
            raise KeyboardInterrupt


def _signal(name: str | signal.Signals) -> signal.Signals:
    try:
        number = signal.Signals[name] if isinstance(name, str) else signal.Signals(name)
    except (KeyError, ValueError) as error:
        text = f"there is no signal {name!r}: signals= takes names such as {SIGNALS[0]!r}, or signal.Signals."
        raise InvalidArgumentError(text, reason="signals") from error
    if number.name in _NEVER:
        text = f"{number.name} can't be watched: the system lets no program handle it. Leave it out of signals=."
        raise InvalidArgumentError(text, reason="signals")
    return number
