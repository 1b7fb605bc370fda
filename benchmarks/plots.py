"""One picture for each case, as SVG: bars from the medians with the range of the rounds, or lines where a log grows."""

from __future__ import annotations

from pathlib import Path

from benchmarks.model import Figure
from benchmarks.results import CaseResults
from benchmarks.text import number

COLOURS = {"limit": "#4a4a4a", "trax": "#c8102e", "peer": "#5b8db8", "file": "#c2c2c2"}
LEGEND = {"limit": "limit", "trax": "trax", "peer": "other libraries", "file": "bare files, nothing is checked"}
INK = "#222222"
WIDTH_INCHES = 8.0


def draw(results: CaseResults, path: Path) -> None:
    import matplotlib as mpl

    mpl.use("svg")
    # The same run gives the same bytes; text stays text.
    with mpl.rc_context(
        {
            "svg.hashsalt": "trax",
            "svg.fonttype": "none",
            "font.family": "sans-serif",
            "font.size": 10,
            "text.color": INK,
            "axes.labelcolor": INK,
            "axes.edgecolor": "#999999",
            "axes.spines.top": False,
            "axes.spines.right": False,
        }
    ):
        if results.case.key == "B12":
            _draw_growth(results, path)
        else:
            _draw_bars(results, path)


def _draw_bars(results: CaseResults, path: Path) -> None:
    from matplotlib import pyplot
    from matplotlib.patches import Patch
    from matplotlib.ticker import MaxNLocator

    figure = results.case.figures[0]
    names = [name for name in results.data["contestants"] if results.rounds(name, figure.key)]
    # The best on top; a limit is the best by its nature, and comes first even if it happens not to be.
    names.sort(key=lambda name: _rank(results, name, figure), reverse=True)
    roles = [results.data["contestants"][name]["role"] for name in names]
    middles = [results.median(name, figure.key) or 0.0 for name in names]
    ranges = [results.rounds(name, figure.key) for name in names]
    errors = [
        [middle - min(found) for middle, found in zip(middles, ranges, strict=True)],
        [max(found) - middle for middle, found in zip(middles, ranges, strict=True)],
    ]
    picture, axes = pyplot.subplots(figsize=(WIDTH_INCHES, 1 + 0.3 * len(names)), layout="constrained")
    axes.barh(
        names,
        middles,
        xerr=errors,
        color=[COLOURS[role] for role in roles],
        ecolor="#00000066",
        error_kw={"elinewidth": 1, "capsize": 2},
        height=0.7,
    )
    farthest = max(middle + error for middle, error in zip(middles, errors[1], strict=True))
    for place, (middle, error) in enumerate(zip(middles, errors[1], strict=True)):
        axes.text(middle + error + farthest * 0.012, place, number(middle), va="center", fontsize=9)
    axes.set_xlim(0, farthest * 1.12)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.xaxis.set_major_locator(MaxNLocator(6))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.10g}")
    axes.tick_params(axis="y", length=0)
    better = "more is better" if figure.higher_is_better else "less is better"
    axes.set_xlabel(f"{figure.title}{_unit(figure)}; {better}")
    shown = [role for role in COLOURS if role in roles]
    if len(shown) > 1:
        picture.legend(
            handles=[Patch(color=COLOURS[role], label=LEGEND[role]) for role in shown],
            loc="outside upper right",  # inside it could lie over a figure
            ncols=len(shown),
            frameon=False,
            fontsize=9,
        )
    _save(picture, path)


def _rank(results: CaseResults, name: str, figure: Figure) -> tuple[bool, float]:
    value = results.median(name, figure.key) or 0.0
    is_limit = results.data["contestants"][name]["role"] == "limit"
    return is_limit, value if figure.higher_is_better else -value


def _unit(figure: Figure) -> str:
    return f", {figure.unit}" if figure.unit and figure.unit != figure.title else ""


def _draw_growth(results: CaseResults, path: Path) -> None:
    """The time for each record, and the time to open, over the length of the log."""
    from matplotlib import pyplot
    from matplotlib.ticker import LogLocator, NullFormatter

    names = list(results.data["contestants"])
    found = [(results.median(name, "records"), name) for name in names]
    by_length = sorted((records, name) for records, name in found if records)
    lengths = [records for records, _ in by_length]
    picture, (left, right) = pyplot.subplots(1, 2, figsize=(WIDTH_INCHES, 3.2), layout="constrained")
    for figure, colour in zip(("append", "recover"), (COLOURS["trax"], COLOURS["peer"]), strict=True):
        left.plot(lengths, [results.median(name, figure) for _, name in by_length], "o-", color=colour, label=figure)
    left.set_xscale("log")
    left.set_ylim(bottom=0)
    left.set_ylabel("µs a record")
    left.legend(frameon=False)
    opening = [results.median(name, "open") for _, name in by_length]
    right.plot(lengths, opening, "o-", color=COLOURS["trax"], label="open")
    right.set_xscale("log")
    right.set_yscale("log")
    right.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    right.yaxis.set_major_formatter(lambda value, _: f"{value:,.10g}")
    right.yaxis.set_minor_formatter(NullFormatter())
    right.set_ylabel("open, ms")
    for axes in (left, right):
        axes.set_xlabel("records in the log")
        axes.grid(color="#dddddd", linewidth=0.7)
    _save(picture, path)


def _save(picture: object, path: Path) -> None:
    from matplotlib import pyplot
    from matplotlib.figure import Figure as Picture

    assert isinstance(picture, Picture)
    picture.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None, facecolor="white", dpi=110)
    pyplot.close(picture)
