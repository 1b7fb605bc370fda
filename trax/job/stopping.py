"""Signals: they only say that the job is to end, after the step that it is in.

A handler sets a flag and calls the handler that was there before; the loop looks at the flag between two steps. A
second SIGINT interrupts at once, as it would without a job; the step that it interrupts is repeated.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterable
from types import FrameType
from typing import Any

SIGNALS = ("SIGTERM", "SIGINT", "SIGUSR1", "SIGUSR2", "SIGXCPU")
_FORWARDED_NOT = (signal.SIG_DFL, signal.SIG_IGN, signal.default_int_handler, None)


class Signals:
    """Watches for signals, from :meth:`watch` to :meth:`restore`; ``received`` is the first that came.

    Only the main thread can do that; elsewhere nothing is watched.
    """

    def __init__(self, names: Iterable[str | signal.Signals]) -> None:
        wanted = [getattr(signal, name, None) if isinstance(name, str) else name for name in names]
        self._wanted = [number for number in wanted if number is not None]
        self._before: dict[int, Any] = {}
        self.received: signal.Signals | None = None

    def watch(self) -> None:
        if threading.current_thread() is threading.main_thread():
            for number in self._wanted:
                self._before[number] = signal.signal(number, self._note)

    def restore(self) -> None:
        before, self._before = self._before, {}
        for number, handler in before.items():
            # One that was put there by somebody else meanwhile stays.
            if signal.getsignal(number) == self._note:
                signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        is_second = self.received is not None
        if not is_second:
            self.received = signal.Signals(number)
        before = self._before.get(number)
        if callable(before) and before not in _FORWARDED_NOT:
            before(number, frame)
        if is_second and number == signal.SIGINT:
            raise KeyboardInterrupt
