"""The cases, in their order."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.cases import arrays, growing, importing, logging, recovering
from benchmarks.model import Case

CASES: Sequence[Case] = [
    *logging.CASES,
    *recovering.CASES,
    arrays.B7,
    arrays.B8,
    growing.B9,
    arrays.B10,
    arrays.B11,
    growing.B12,
    importing.B13,
]


def find_case(key: str) -> Case:
    return next(case for case in CASES if case.key == key)


def choose(words: Sequence[str]) -> list[Case]:
    """Those that are named, B4 for all of B4-8, B4-32; all of them without a name."""
    unknown = [word for word in words if not any(_is_meant(word, case) for case in CASES)]
    if unknown:
        raise ValueError(f"no such case: {', '.join(unknown)}; there are {', '.join(case.key for case in CASES)}")
    return [case for case in CASES if not words or any(_is_meant(word, case) for word in words)]


def _is_meant(word: str, case: Case) -> bool:
    return case.key == word or case.key.startswith(word + "-")
