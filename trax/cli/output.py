"""What the commands print: tables and messages, for a terminal of any width and for a pipe.

On a terminal lines are wrapped or cut to its width, and tables are drawn by rich where it is installed. In a pipe each
line is whole, and there is nothing but text. No colour is ever needed to understand the output.
"""

from __future__ import annotations

import io
import os
import re
import shutil
import sys
import textwrap
import unicodedata
from collections.abc import Sequence
from typing import Any, TextIO

from trax.errors import TraxError

_GAP = "  "
_RICH_GAP = 3


def prepare() -> None:
    """Let no text fail to be printed, whatever the terminal's encoding."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def width(stream: TextIO | None = None) -> int | None:
    """The columns of the terminal that a stream goes to; None when it goes elsewhere."""
    stream = stream or sys.stdout
    if not stream.isatty():
        return None
    try:
        columns = int(os.environ.get("COLUMNS", ""))
    except ValueError:
        columns = 0
    if columns > 0:
        return columns
    try:
        return os.get_terminal_size(stream.fileno()).columns or 80
    except OSError:
        return shutil.get_terminal_size().columns


def complain(text: str) -> None:
    """One message on stderr."""
    print(_wrapped(text, "trax: ", "  ", width(sys.stderr)), file=sys.stderr, flush=True)


def paragraph(text: str, first: str = "", later: str = "") -> None:
    """Some text, wrapped; ``first`` and ``later`` begin its lines."""
    print(_wrapped(text, first, later, width()))


def items(texts: Sequence[str]) -> None:
    """A list."""
    for text in texts:
        paragraph(text, "  - ", "    ")


def facts(pairs: Sequence[tuple[str, str]]) -> None:
    """Labels and what they say, the latter aligned."""
    indent = max(len(label) for label, _ in pairs) + len(_GAP)
    for label, text in pairs:
        paragraph(text, label.ljust(indent), " " * indent)


def table(headings: Sequence[str], rows: Sequence[Sequence[str]], *, right: frozenset[int] = frozenset()) -> None:
    """Rows under headings; the columns in ``right`` hold numbers. The first column gives way where there is no room."""
    columns = width()
    rich = _rich() if columns is not None else None
    if rich is None or columns is None:
        _plain_table(headings, rows, right, columns)
        return
    drawn = rich.table.Table(box=rich.box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for place, heading in enumerate(headings):
        justify = "right" if place in right else "left"
        drawn.add_column(rich.text.Text(heading), justify=justify, no_wrap=True, overflow="ellipsis")
    for row in _cut_first(rows, headings, columns, _RICH_GAP):
        drawn.add_row(*map(rich.text.Text, row))  # not str, which rich would read as markup
    rich.console.Console(width=columns, highlight=False).print(drawn)


def printable(text: str) -> str:
    """The text on one line, and without characters that a terminal would obey."""
    text = re.sub(r"\s*\n\s*", " ", text)
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)


def shown_name(name: str) -> str:
    """A name, quoted where it could be mistaken for something else."""
    return name if re.fullmatch(r"[^\s'\"=,\\]+", name) and name.isprintable() else printable(repr(name))


def cut(text: str, columns: int | None) -> str:
    """The text, ended with an ellipsis where it does not fit."""
    if columns is None or _columns_of(text) <= columns:
        return text
    used = 1
    for place, one in enumerate(text):
        used += _columns_of(one)
        if used > columns:
            return text[:place] + "…"
    return text


def _columns_of(text: str) -> int:
    """How wide a terminal shows it: East Asian characters take two columns, combining ones none."""
    if text.isascii():
        return len(text)
    wide = sum(unicodedata.east_asian_width(one) in "WF" for one in text)
    return len(text) + wide - sum(unicodedata.combining(one) > 0 for one in text)


def count(number: int, what: str, plural: str = "") -> str:
    """``1 record``, ``1,204 records``."""
    return f"{number:,} {what if number == 1 else plural or what + 's'}"


def problem_text(problem: TraxError, store: str) -> str:
    """Which file of the store, where in it, and what is wrong there."""
    where = os.path.relpath(problem.path, store) if problem.path else store
    if problem.offset is not None:
        where += f", byte {problem.offset:,}"
    behind = "" if problem.sequence is None else f" (behind sequence {problem.sequence:,})"
    return f"{where}: {problem.reason or problem}{behind}"


def _wrapped(text: str, first: str, later: str, columns: int | None) -> str:
    text = "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)
    if columns is None:
        return first + text
    # A path is never broken: it must be possible to copy it.
    return textwrap.fill(
        text,
        max(columns, 20),
        initial_indent=first,
        subsequent_indent=later,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _plain_table(
    headings: Sequence[str], rows: Sequence[Sequence[str]], right: frozenset[int], columns: int | None
) -> None:
    every = [list(headings), *_cut_first(rows, headings, columns, len(_GAP))]
    widths = [max(_columns_of(row[place]) for row in every) for place in range(len(headings))]
    for row in every:
        spaces = [" " * (size - _columns_of(cell)) for cell, size in zip(row, widths, strict=True)]
        cells = [
            space + cell if place in right else cell + space
            for place, (cell, space) in enumerate(zip(row, spaces, strict=True))
        ]
        print(_GAP.join(cells).rstrip())


def _cut_first(
    rows: Sequence[Sequence[str]], headings: Sequence[str], columns: int | None, gap: int
) -> list[list[str]]:
    """The rows, with their first cells cut so that all columns fit."""
    if columns is None or not rows:
        return [list(row) for row in rows]
    rest = sum(
        max(len(heading), *(len(row[place]) for row in rows)) + gap
        for place, heading in enumerate(headings)
        if place > 0
    )
    room = max(columns - rest, 8)
    return [[cut(row[0], room), *row[1:]] for row in rows]


def _rich() -> Any:
    """rich, where it is installed and the terminal can do more than print lines."""
    if os.environ.get("TERM", "") in ("", "dumb"):
        return None
    try:
        import rich
        import rich.box
        import rich.console
        import rich.table
        import rich.text
    except ImportError:
        return None
    return rich
