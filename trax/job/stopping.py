"""Signals and deadlines: both only say that the job is to end, after the step that it is in.

A handler sets a flag and calls the handler that was there before; the loop looks at the flag between two steps. A
second SIGINT interrupts at once, as it would without a job; the step that it interrupts is repeated.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from types import FrameType
from typing import Any

Clock = Callable[[], float]
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


def deadline_from(environment: Mapping[str, str], clock: Clock = time.time) -> float | None:
    """When the scheduler will end this job, in seconds since the epoch; None where it does not say so.

    SLURM gives that very time in SLURM_JOB_END_TIME (sbatch(1), "Output environment variables"). PBS gives the seconds
    that were asked for, in PBS_WALLTIME, as TORQUE's qsub(1) has it; they are counted from now, so open the job early
    in the script, or give ``deadline_s``.
    """
    if (end := _number(environment.get("SLURM_JOB_END_TIME"))) is not None:
        return end
    if (walltime := _number(environment.get("PBS_WALLTIME"))) is not None:
        return clock() + walltime
    return None


def deadline_after(seconds: float | None, clock: Clock = time.time) -> float | None:
    """``seconds`` from now; None: what the scheduler says."""
    return deadline_from(os.environ, clock) if seconds is None else clock() + seconds


def _number(text: str | None) -> float | None:
    try:
        number = float(text or "")
    except ValueError:
        return None
    return number if number > 0 else None
