"""The page ``docs/benchmarks.rst``: tables and pictures of one run, between the lines that people wrote.

Each generated part stands between two comments, ``.. begin B1`` and ``.. end B1``; whatever is outside stays as it is.
The pictures, and the results themselves, go into the directory beside the page that has its name.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.cases import find_case
from benchmarks.model import Scale
from benchmarks.plots import draw
from benchmarks.results import CaseResults, Verdict, verdicts
from benchmarks.text import bar_rows, left_out, required, rows, with_unit

PART = re.compile(r"^\.\. begin (?P<key>\S+)\n.*?^\.\. end (?P=key)$", re.MULTILINE | re.DOTALL)
SCALES: Mapping[Scale, str] = {
    "full": "the full run",
    "quick": "a quick run, much smaller than the full one, whose figures vary",
    "tiny": "a run that only shows that the program works, and whose figures mean nothing",
}


def write_page(data: dict[str, Any], page: Path) -> None:
    """Replace the generated parts. A page shows one run, so the run must have all the cases that the page has."""
    text = page.read_text(encoding="utf-8")
    wanted = {match["key"] for match in PART.finditer(text)} - {"run", "bars"}
    if missing := sorted(wanted - data["cases"].keys()):
        raise SystemExit(f"{page} also shows {', '.join(missing)}, which this run has not: run all cases for a page")
    if unshown := sorted(data["cases"].keys() - wanted):
        raise SystemExit(f"{page} has no place for {', '.join(unshown)}: add the lines '.. begin' and '.. end'")
    results = {key: CaseResults(find_case(key), case) for key, case in data["cases"].items()}
    pictures = page.with_suffix("")
    pictures.mkdir(exist_ok=True)
    for key, case in results.items():
        draw(case, pictures / f"{key}.svg")
    parts = {"run": run_part(data), "bars": bars_part(results)}
    parts |= {key: case_part(case, f"{pictures.name}/{key}.svg") for key, case in results.items()}
    page.write_text(PART.sub(lambda match: _part(match["key"], parts), text), encoding="utf-8")


def _part(key: str, parts: Mapping[str, str]) -> str:
    return f".. begin {key}\n\n{parts[key]}\n\n.. end {key}"


def run_part(data: dict[str, Any]) -> str:
    """When, where, with what, and the command that repeats it."""
    scale = SCALES[data["scale"]]
    rounds = "one round" if data["rounds"] == 1 else f"{data['rounds']} rounds"
    lines = [f"This is {scale}. It took {rounds} of ::", "", f"    {data['command']}", ""]
    return "\n".join([*lines, *simple_table([["", "what it ran on"], *map(list, data["machine"].items())])])


def bars_part(results: Mapping[str, CaseResults]) -> str:
    """How many bars are reached, and which are not."""
    words: dict[str, list[str]] = {"pass": [], "FAIL": [], "not run": []}
    for key, case in results.items():
        for verdict in verdicts(case):
            words.setdefault(verdict.word, []).append(_one_line(key, verdict))
    judged = [*words["pass"], *words["FAIL"]]
    lines = [f"{len(words['pass'])} of {len(judged)} bars are reached."]
    for word, title in (("FAIL", "Not reached:"), ("not run", "Not run:")):
        if words[word]:
            lines += ["", title, "", *(f"- {escaped(text)}" for text in words[word])]
    return "\n".join(lines)


def _one_line(key: str, verdict: Verdict) -> str:
    bar = verdict.bar
    reached = "" if verdict.value is None else f"; reached: {with_unit(verdict.value, bar.unit)}"
    wanted = required(bar)
    return f"{key}: {bar.text}{': ' if wanted else ''}{wanted}{reached}"


def case_part(results: CaseResults, picture: str) -> str:
    """A picture, the table, the bars, and what each contestant does."""
    case = results.case
    sizes = ", ".join(f"{name.replace('_', ' ')} {value:,}" for name, value in results.data["sizes"].items())
    tries = results.data["tries"]
    best = "" if tries == 1 else f" Of each contestant's {tries} turns a round the best counts."
    lines = [f".. image:: {picture}", f"   :alt: {case.title}", "", f"Sizes: {sizes}.{best}", ""]
    lines += simple_table(_emphasised(results))
    if case.bars:
        lines += ["", *simple_table([["bar", "required", "reached", "verdict"], *bar_rows(results)])]
    lines.append("")
    for name, outcome in results.data["contestants"].items():
        lines += [escaped(name), f"    {escaped(outcome['does'])}"]
    if absent := left_out(results):
        lines += ["", f"Left out: {escaped('; '.join(absent))}."]
    return "\n".join(lines)


def _emphasised(results: CaseResults) -> list[list[str]]:
    """The table, with trax in bold and the limit in italics."""
    header, *body = rows(results)
    marks = {"trax": "**", "limit": "*"}
    for row in body:
        mark = marks.get(results.data["contestants"][row[0]]["role"], "")
        row[0] = f"{mark}{escaped(row[0])}{mark}"
    return [header, *body]


def simple_table(table: list[list[str]]) -> list[str]:
    """As reStructuredText. An empty cell in the first column would continue the row above: it gets a backslash."""
    cells = [[cell or "\\" for cell in row] for row in table]
    widths = [max(len(row[column]) for row in cells) for column in range(len(cells[0]))]
    ruler = "  ".join("=" * width for width in widths)
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]
    return [ruler, lines[0], ruler, *lines[1:], ruler]


def escaped(text: str) -> str:
    """Without what reStructuredText would take for markup."""
    return re.sub(r"([\\*`|])|_(?=\W|$)", lambda match: "\\" + match[0], text)
