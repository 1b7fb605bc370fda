"""Medians, ratios and bars, from what the rounds brought."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from benchmarks.model import Bar, Case, Figure


class CaseResults:
    """The results of one case, as in the results file."""

    def __init__(self, case: Case, data: dict[str, Any]) -> None:
        self.case = case
        self.data = data

    def rounds(self, name: str, key: str) -> list[float]:
        outcome = self.data["contestants"].get(name, {})
        return [figures[key] for figures in outcome.get("rounds", ()) if key in figures]

    def median(self, name: str, key: str) -> float | None:
        found = self.rounds(name, key)
        return median(found) if found else None

    def ratio(self, name: str, others: Sequence[str], figure: Figure, to_figure: Figure | None = None) -> float | None:
        """The median of one to that of the best of others."""
        mine = self.median(name, figure.key)
        theirs = self.best(others, to_figure or figure)
        return None if mine is None or not theirs else mine / theirs

    def best(self, names: Sequence[str], figure: Figure) -> float | None:
        known = [value for name in names if (value := self.median(name, figure.key)) is not None]
        if not known:
            return None
        return max(known) if figure.higher_is_better else min(known)

    def of_role(self, *roles: str) -> list[str]:
        return [name for name, outcome in self.data["contestants"].items() if outcome["role"] in roles]

    def versus_role(self, name: str, role: str, figure: Figure) -> float | None:
        """The ratio to the limit, or to the best other one of a role."""
        return self.ratio(name, [other for other in self.of_role(role) if other != name], figure)


@dataclass(frozen=True)
class Verdict:
    """A bar, and what was reached."""

    bar: Bar
    value: float | None

    @property
    def word(self) -> str:
        if self.value is None:
            return "not run"
        if self.bar.at_least is None and self.bar.at_most is None:
            return "report"
        return "pass" if self.bar.passes(self.value) else "FAIL"


def verdicts(results: CaseResults) -> list[Verdict]:
    return [Verdict(bar, bar.value(results)) for bar in results.case.bars]
