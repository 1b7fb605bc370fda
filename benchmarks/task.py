"""What a contestant is given in its process: a place, the sizes, a clock, and the duty to prove its result."""

from __future__ import annotations

import gc
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks import values
from benchmarks.model import WrongResultError


class Clock:
    """The time that a measured part took."""

    seconds = 0.0


class Task:
    """One run of one contestant."""

    def __init__(self, directory: Path, sizes: Mapping[str, int], share: float = 1.0) -> None:
        self.directory = directory
        self.sizes = sizes
        self.count = max(min(sizes.get("count", 0), 20), int(sizes.get("count", 0) * share))
        self.figures: dict[str, float] = {}
        self._memory: tuple[int, int] | None = None

    @contextmanager
    def measured(self) -> Iterator[Clock]:
        """Time what happens inside, and take the peak of this process's memory meanwhile."""
        clock = Clock()
        gc.collect()
        _reset_peak()
        before = _memory_bytes("VmRSS")
        start = time.perf_counter_ns()
        yield clock
        clock.seconds = (time.perf_counter_ns() - start) / 1e9
        peak = _memory_bytes("VmHWM")
        if before is not None and peak is not None:
            extra = max(peak - before, 0)
            if self._memory is not None:
                peak, extra = max(peak, self._memory[0]), max(extra, self._memory[1])
            self._memory = peak, extra
            self.figures["peak_bytes"], self.figures["extra_bytes"] = peak, extra

    def small(self) -> list[dict[str, Any]]:
        return values.small(self.count)

    def large(self) -> list[bytes]:
        return values.large(self.count)

    def check(self, found: Iterable[Any], expected: Iterable[Any]) -> None:
        """Compare every value, one by one."""
        place = -1
        others = iter(found)
        for place, value in enumerate(expected):
            other = next(others, _END)
            if other is _END or other != value:
                raise WrongResultError(f"record {place} is {_shown(other)}, and {_shown(value)} was written")
        if next(others, _END) is not _END:
            raise WrongResultError(f"there is more than the {place + 1} records that were written")

    def check_equal(self, found: object, expected: object, what: str) -> None:
        if found != expected:
            raise WrongResultError(f"{what}: found {_shown(found)} instead of {_shown(expected)}")


class _End:
    def __repr__(self) -> str:
        return "missing"


_END = _End()


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:80] + "…"


def _memory_bytes(key: str) -> int | None:
    """A line of /proc/self/status, if there is one: the peak of this very program, unlike ru_maxrss."""
    try:
        with open("/proc/self/status") as status:
            for line in status:
                if line.startswith(key):
                    return int(line.split()[1]) * 1024
    except FileNotFoundError:
        pass
    return None


def _reset_peak() -> None:
    """Begin anew with VmHWM; where the system has no such switch, the peak of the preparations stays in it."""
    try:
        with open("/proc/self/clear_refs", "w") as switch:
            switch.write("5")
    except OSError:
        pass
