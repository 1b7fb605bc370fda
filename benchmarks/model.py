"""What a benchmark is made of: cases, contestants, figures, bars."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from benchmarks.results import CaseResults
    from benchmarks.task import Task

Scale = Literal["full", "quick", "tiny"]
Role = Literal["limit", "trax", "peer", "file"]
"""What the machine allows; trax; another store; a bare file, which checks nothing and is shown for scale."""

FAST = ("isal", "msgspec")
"""The packages of the extra ``fast``: the contestant "trax" runs without them, "trax, fast" with them."""


class SkippedError(Exception):
    """The contestant can't take part, for the reason given."""


class WrongResultError(Exception):
    """What was read back is not what was written."""


@dataclass(frozen=True)
class Figure:
    """One number that every contestant of a case reports."""

    key: str
    title: str
    unit: str
    higher_is_better: bool = True


RATE = Figure("rate", "records/s", "records/s")


@dataclass(frozen=True)
class Contestant:
    """Someone who does the work of a case."""

    name: str
    role: Role
    does: str
    """What it does for each record, in one sentence."""
    run: Callable[[Task], None]
    prepare: Callable[[Task], None] | None = None
    """Run once, before the first round, in a process of its own; then all rounds share the directory."""
    needs: tuple[str, ...] = ()
    blocks: tuple[str, ...] = ()
    """Modules that it must not be able to import."""
    share: float = 1.0
    """Of the case's count of records: less for those that would take too long."""


@dataclass(frozen=True)
class Bar:
    """What trax has to reach: a value that is at least, or at most, so much."""

    text: str
    value: Callable[[CaseResults], float | None]
    at_least: float | None = None
    at_most: float | None = None
    stretch: float | None = None
    unit: str = "×"

    def passes(self, value: float) -> bool:
        return (self.at_least is None or value >= self.at_least) and (self.at_most is None or value <= self.at_most)


@dataclass(frozen=True)
class Case:
    """One question, asked of all contestants alike."""

    key: str
    title: str
    sizes: Mapping[Scale, Mapping[str, int]]
    contestants: Sequence[Contestant]
    figures: Sequence[Figure] = (RATE,)
    bars: Sequence[Bar] = ()
    tries: int = 1
    """In a full run each contestant has so many turns a round, and the best, by the first figure, counts."""


def versus(
    of: str,
    to: str | Sequence[str],
    *,
    at_least: float | None = None,
    at_most: float | None = None,
    stretch: float | None = None,
    figure: Figure = RATE,
    to_figure: Figure | None = None,
    text: str = "",
) -> Bar:
    """A bar on the ratio of two medians; of several ``to``, the best counts."""
    others = [to] if isinstance(to, str) else list(to)

    def value(results: CaseResults) -> float | None:
        return results.ratio(of, others, figure, to_figure or figure)

    best = others[0] if len(others) == 1 else f"the best of {', '.join(others)}"
    return Bar(text or f"{of} to {best}", value, at_least, at_most, stretch)


def no_more_than(of: str, figure: Figure, at_most: float, text: str = "") -> Bar:
    """A bar on one figure itself."""
    return Bar(
        text or f"{of}, {figure.title}",
        lambda results: results.median(of, figure.key),
        None,
        at_most,
        None,
        figure.unit,
    )
