"""The places where a job can be cut off, counted as it comes by, and what its own code is doing there."""

from __future__ import annotations

import functools
import linecache
import os
import sys
import sysconfig
import threading
from collections.abc import Callable
from dataclasses import dataclass
from types import FrameType
from typing import Any

import trax

_TRAX = os.path.dirname(os.path.abspath(trax.__file__)) + os.sep
_INTERACTIVE = ("<doctest ", "<stdin>", "<ipython-input")


@dataclass(frozen=True)
class Point:
    """A place where a job was cut off: its number among those that the run came by, what it is, and the job's line."""

    number: int
    what: str
    where: str


class CrashPoints:
    """Counts the points that a run comes by, and calls ``end`` at number ``at``; from any thread."""

    def __init__(self, at: int, end: Callable[[Point], None], job_file: str | None) -> None:
        self.count = 0
        self._at, self._end, self._job_file = at, end, job_file
        self._lock = threading.Lock()

    def reach(self, what: str) -> None:
        with self._lock:
            self.count += 1
            number = self.count
        if number == self._at:  # not under the lock: what ends the process may wait for other threads
            self._end(Point(number, what, self._whereabouts()))

    def count_lines(self) -> None:
        """From now on, count each line of the job's own code too, as a debugger would see it."""

        def at_line(frame: FrameType, event: str, argument: Any) -> Any:
            if event == "line":
                self.reach("just before a line of the job")
            return at_line

        def at_call(frame: FrameType, event: str, argument: Any) -> Any:
            return at_line if self._is_own(frame) else None

        threading.settrace(at_call)
        sys.settrace(at_call)

    def _is_own(self, frame: FrameType) -> bool:
        name = frame.f_code.co_filename
        return name == self._job_file or is_own_code(name)

    def _whereabouts(self) -> str:
        frame: FrameType | None = sys._getframe(1)
        while frame is not None and not self._is_own(frame):
            if frame.f_globals.get("__name__") == "trax.testing.runs":
                frame = None  # what follows is the parent's, as it was when it forked
                break
            frame = frame.f_back
        if frame is None:
            if threading.current_thread() is threading.main_thread():
                return ""
            return f"in the thread {threading.current_thread().name!r}"
        name, line = frame.f_code.co_filename, frame.f_lineno
        source = linecache.getline(name, line, frame.f_globals).strip()
        return f"{_short(name)}, line {line}, in {frame.f_code.co_name}" + (f": {source}" if source else "")


@functools.cache
def is_own_code(name: str) -> bool:
    """Whether a file is neither of trax nor of the standard library nor of an installed package."""
    if name.startswith("<"):
        return name.startswith(_INTERACTIVE)
    path = os.path.abspath(name)
    paths = sysconfig.get_paths()
    installed = {os.path.abspath(paths[key]) + os.sep for key in ("stdlib", "platstdlib", "purelib", "platlib")}
    return not path.startswith((_TRAX, *installed))


def file_of(job: Callable[..., Any]) -> str | None:
    """The file that a job's code stands in, be it installed or not."""
    while isinstance(job, functools.partial):
        job = job.func
    function = getattr(job, "__func__", job)
    if not hasattr(function, "__code__"):
        function = type(function).__call__
    code = getattr(function, "__code__", None)
    return None if code is None else str(code.co_filename)


def _short(name: str) -> str:
    if name.startswith("<"):
        return name
    relative = os.path.relpath(name)
    return name if relative.startswith(os.pardir) else relative
