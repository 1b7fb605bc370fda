"""Interrupts at a chosen step of trax's code: where, and how, the interpreter itself raises them.

An exception that a trace function raised could appear anywhere, such as between the end of a ``with`` block and the
release of its lock, where no signal handler runs. So the trace function only asks for it, as another thread can with
``PyThreadState_SetAsyncExc``, and the interpreter raises it where it next looks: at the beginning of a function, behind
a call, at the end of a loop's body.
"""

from __future__ import annotations

import ctypes
import dis
import os
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import CodeType, FrameType
from typing import Any, NamedTuple

import trax

PACKAGE = os.path.dirname(trax.__file__) + os.sep
# What the operating system is asked for, and interrupted in, is the matter of tests/test_faults.py; and what a
# recording misses because it is interrupted says nothing about a store.
EXCLUDED = (os.path.join(PACKAGE, "testing"), os.path.join(PACKAGE, "storage", "local", "fs.py"))

_raise_in = ctypes.pythonapi.PyThreadState_SetAsyncExc
_raise_in.argtypes = [ctypes.c_ulong, ctypes.py_object]


class Place(NamedTuple):
    """A step: an instruction, and how often it has been executed before."""

    code: CodeType
    offset: int
    before: int


class Steps:
    """Interrupts a traced thread at ``place`` with ``error``; without a place, collects all that there are.

    A step is an instruction behind which the interpreter looks for interrupts. Of those that are reached in the same
    way, by the same calls, only the first is collected. While ``counting`` says no, none is a step.
    """

    def __init__(
        self,
        place: Place | None = None,
        error: type[BaseException] = KeyboardInterrupt,
        *,
        counting: Callable[[], bool] = lambda: True,
    ) -> None:
        self.places: list[Place] = []
        self.fired: list[str] = []
        self._place, self._error, self._counting = place, error, counting
        self._executed: Counter[tuple[CodeType, int]] = Counter()
        self._ways: set[int] = set()

    @contextmanager
    def here(self) -> Iterator[None]:
        """Trace this thread in the block. An interrupt that is on its way at its end arrives in it."""
        sys.settrace(self.trace)
        try:
            yield
            for _ in range(3):
                pass
        finally:
            sys.settrace(None)

    @contextmanager
    def in_new_threads(self) -> Iterator[None]:
        """Trace the threads that are begun in the block."""
        threading.settrace(self.trace)
        try:
            yield
        finally:
            threading.settrace(None)  # type: ignore[arg-type]

    def trace(self, frame: FrameType, event: str, argument: Any) -> Any:
        """The trace function of a thread."""
        code = frame.f_code
        if not code.co_filename.startswith(PACKAGE) or code.co_filename.startswith(EXCLUDED) or self.fired:
            return None
        if self._place is not None and self._place.code is not code:
            return None
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        return self._step

    def _step(self, frame: FrameType, event: str, argument: Any) -> Any:
        code, offset = frame.f_code, frame.f_lasti
        if event != "opcode" or self.fired or offset not in _checks(code) or not self._counting():
            return self._step
        place = Place(code, offset, self._executed[code, offset])
        self._executed[code, offset] += 1
        if self._place is None:
            if self._is_new(frame):
                self.places.append(place)
            return self._step
        if place != self._place:
            return self._step
        self.fired.append(f"{code.co_qualname}, line {frame.f_lineno}")
        arguments = (threading.get_ident(),), (self._error,)
        sys.settrace(None)
        # Unpacking the map is one step: nothing between it and the end of this function looks for interrupts.
        [*map(_raise_in, *arguments)]
        return None

    def _is_new(self, frame: FrameType) -> bool:
        way = 0
        caller: FrameType | None = frame
        while caller is not None and caller.f_code.co_filename.startswith(PACKAGE):
            way = hash((way, caller.f_code, caller.f_lasti))
            caller = caller.f_back
        new = way not in self._ways
        self._ways.add(way)
        return new


_offsets: dict[CodeType, frozenset[int]] = {}


def _checks(code: CodeType) -> frozenset[int]:
    """The offsets of the instructions behind which the interpreter looks for interrupts."""
    if code not in _offsets:
        _offsets[code] = frozenset(
            one.offset
            for one in dis.get_instructions(code)
            if one.opname.startswith("CALL") or "BACKWARD" in one.opname or one.opname == "RESUME"
        )
    return _offsets[code]
