"""What the worker in ``tests/working.py`` was told, and whether the store holds it.

What counts is what was told before a crash began. ext4 and XFS let an fsync that is under way while they are shut down
return as if it had succeeded, though what it was to write is lost; with a power loss nobody would be left to hear of
it. A commit that begins after the crash must not be acknowledged at all.
"""

from __future__ import annotations

import math
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

import trax
from tests.working import THREADS, ballast, fold


class Crash(NamedTuple):
    """How far the ledger of a thread had come, in bytes, when a crash began, and when it had happened."""

    began: float = math.inf
    happened: float = math.inf


@dataclass
class Told:
    """What one thread was told in one round: see ``tests/working.py``."""

    commits: list[tuple[int, int]] = field(default_factory=list)
    returned: dict[int, int] = field(default_factory=dict)
    durable: int = -1
    durable_sequence: int = 0
    ballast: int = 0
    errors: Counter[str] = field(default_factory=Counter)


NO_CRASH = Crash()


def read_ledger(ledger: Path, crash: Crash = NO_CRASH) -> Told:
    told = Told()
    end, before, too_late = 0, "", False
    for line in ledger.read_text().splitlines(keepends=True) if ledger.exists() else []:
        start, end = end, end + len(line)
        kind, *words = line.split()
        if kind == "+":
            told.commits.append((int(words[0]), int(words[1])))
            too_late = start >= crash.happened
        elif kind == "-":
            assert told.commits.pop() == (int(words[0]), int(words[1]))
        elif kind == "=":
            told.returned[int(words[1])] = int(words[0])
        elif kind == "?":
            told.errors[words[0]] += 1
        elif kind == "!" and (end <= crash.began or (before == "=" and too_late)):
            told.durable = max(told.durable, int(words[0]))
        elif kind == "~" and end <= crash.began:
            told.durable_sequence = max(told.durable_sequence, int(words[0]))
        elif kind == "#" and end <= crash.began:
            told.ballast = max(told.ballast, int(words[0]))
        before = kind
    return told


@dataclass
class Judge:
    """Knows what a store must hold: what was there after the last round, and what was told since."""

    store: Path
    codec: str
    counts: list[int] = field(default_factory=lambda: [0] * THREADS)
    ballasts: list[int] = field(default_factory=lambda: [0] * THREADS)
    reopened: list[int] = field(default_factory=list)

    @property
    def store_exists(self) -> bool:
        return (self.store / "snapshot").exists()

    def judge(self, told: Sequence[Told] | None = None, mode: Literal["a", "r+", "r"] = "a") -> None:
        """Open the store and compare. ``told`` is by thread; None: nothing happened since the last time."""
        told = told or [Told()] * THREADS
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", trax.errors.TornTailWarning)
            store = trax.Trax(self.store, mode=mode, codec=self.codec)
        with store:
            problems = store.verify().problems
            assert problems == [], problems
            self._judge_log(store, told)
            self._judge_values(store, told)
            if "reopened" in store or self.reopened:
                found = store.recover("reopened", None, fold)
                assert found == self.reopened, f"{self.reopened} was logged between the crashes, and {found} is there"

    def use(self, number: int) -> None:
        """The store takes more, and has it when it is opened again."""
        with trax.Trax(self.store, codec=self.codec) as store:
            store.recover("reopened", list, fold)
            store.log(reopened=number)
        self.reopened.append(number)
        self.judge(None, "r+")

    def _judge_log(self, store: trax.Trax, told: Sequence[Told]) -> None:
        log = list(store.entries("both"))
        sequences = [sequence for sequence, _ in log]
        assert sequences == sorted(set(sequences))
        at = dict(log)
        reach = max([0, *sequences[-1:], *(one.durable_sequence for one in told)])
        for thread, one in enumerate(told):
            numbers = [number for _, (owner, number) in log if owner == thread]
            count = len(numbers)
            assert numbers == list(range(count)), "each once, in order, without gaps"
            issued = max([self.counts[thread] - 1, *(last for _, last in one.commits)])
            assert count >= self.counts[thread], f"{self.counts[thread]} were there before, and now {count}"
            assert count <= issued + 1, f"{issued} was the last that thread {thread} logged, and {count - 1} is there"
            assert one.durable < count, f"{one.durable} of thread {thread} was durable, and {count - 1} is the last"
            assert not any(first < count <= last for first, last in one.commits), "half of a commit"
            for sequence, last in one.returned.items():
                # What was durable is there, and what is lost is the end of the log, for all threads alike.
                assert sequence > reach or at.get(sequence) == [thread, last], f"{sequence}: {at.get(sequence)}, {last}"
            self.counts[thread] = count

    def _judge_values(self, store: trax.Trax, told: Sequence[Told]) -> None:
        for thread, count in enumerate(self.counts):
            whole = list(range(count))
            own = f"own{thread}"
            state = store.recover(own, None, fold) if own in store else []
            assert state == whole, "what was checkpointed and what was logged since are the log"
            name = f"ballast{thread}"
            value = store.recover(name) if name in store else ballast(0)
            assert value == ballast(value["number"]), f"{name} is not whole"
            least = max(self.ballasts[thread], told[thread].ballast)
            assert least <= value["number"] <= count, f"{name}: {least} <= {value['number']} <= {count}"
            self.ballasts[thread] = value["number"]
            for point in store.snapshots():
                if own in point.names:
                    then = store.recover(own, None, fold, at=point.sequence)
                    assert then == whole[: len(then)]
