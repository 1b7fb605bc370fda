"""Numbers and tables as text, for the terminal and for the page."""

from __future__ import annotations

from benchmarks.model import Bar
from benchmarks.results import CaseResults, verdicts

HEADER_AFTER_FIGURES = ["spread", "× limit", "× best peer", "peak MiB", "extra MiB"]


def number(value: float | None, digits: int = 3) -> str:
    """So many significant digits, and thousands separated."""
    if value is None:
        return "–"
    if value == 0:
        return "0"
    if abs(value) >= 10 ** (digits - 1):
        return f"{float(f'{value:.{digits}g}'):,.0f}"
    return f"{value:.{digits}g}"


def rows(results: CaseResults) -> list[list[str]]:
    """The table of a case: its header, and a row for each contestant that took part."""
    figures = results.case.figures
    first = figures[0]
    table = [["contestant", *(figure.title for figure in figures), *HEADER_AFTER_FIGURES]]
    for name in results.data["contestants"]:
        every = results.rounds(name, first.key)
        if not every:
            continue
        middle = results.median(name, first.key) or 1
        table.append(
            [
                name,
                *(number(results.median(name, figure.key)) for figure in figures),
                f"±{(max(every) - min(every)) / 2 / middle:.0%}",
                number(results.versus_role(name, "limit", first)),
                number(results.versus_role(name, "peer", first)),
                number(_mebibytes(results.median(name, "peak_bytes"))),
                number(_mebibytes(results.median(name, "extra_bytes"))),
            ]
        )
    return table


def _mebibytes(value: float | None) -> float | None:
    return None if value is None else value / 2**20


def left_out(results: CaseResults) -> list[str]:
    """Who did not take part, and why."""
    return [
        f"{name}: {outcome.get('error') or outcome['skipped']}"
        for name, outcome in results.data["contestants"].items()
        if "error" in outcome or "skipped" in outcome
    ]


def bar_rows(results: CaseResults) -> list[list[str]]:
    return [
        [verdict.bar.text, required(verdict.bar), with_unit(verdict.value, verdict.bar.unit), verdict.word]
        for verdict in verdicts(results)
    ]


def required(bar: Bar) -> str:
    text = f"≥ {with_unit(bar.at_least, bar.unit)}" if bar.at_least is not None else ""
    if bar.at_most is not None:
        text += f"≤ {with_unit(bar.at_most, bar.unit)}"
    if bar.stretch is not None:
        text += f" ({with_unit(bar.stretch, bar.unit)})"
    return text


def with_unit(value: float | None, unit: str) -> str:
    if value is not None and unit == "bytes":
        value, unit = value / 2**20, "MiB"
    return number(value) if value is None or not unit else f"{number(value)} {unit}"


def aligned(table: list[list[str]]) -> str:
    """A table for the terminal."""
    widths = [max(len(row[column]) for row in table) for column in range(len(table[0]))]
    lines = []
    for row in table:
        cells = [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def report(results: CaseResults) -> str:
    """What the terminal shows of a case."""
    case = results.case
    parts = [f"{case.key}: {case.title}", aligned(rows(results))]
    if case.bars:
        parts.append(aligned([["bar", "required", "reached", ""], *bar_rows(results)]))
    return "\n".join(parts) + "\n"
