"""What checkpoints and crashes cost a job together: at the best interval, at Young's, and at fixed ones.

    python -m benchmarks.checkpoint_interval [PICTURE.svg]

A job works, checkpoints each time it has worked for an interval, which takes it C seconds, and fails at random, on
average every M seconds. What it has done is in the log; after a failure it has to replay what it did since the last
checkpoint, R seconds for each second of work, and may fail in that as well. The overhead is the time that it takes
beyond its work. Nothing here is measured: times are drawn at random, from a fixed seed, and added up.
"""

from __future__ import annotations

import math
import random
import sys
from collections.abc import Callable
from pathlib import Path

FAILURES = 20_000
COSTS_S = (1.0, 10.0, 100.0)
FAILURE_INTERVALS_S = (3600.0, 86_400.0, 604_800.0)
RATIOS = (1.0, 0.3, 0.1, 0.03, 0.01, 0.003)

Rule = Callable[[float, float, float], float]
"""The interval for a cost of a checkpoint, a mean time between failures, and a ratio of replay to work."""


def best(cost_s: float, failure_interval_s: float, ratio: float) -> float:
    """That of ``trax.job.optimal``, within its budgets."""
    return math.sqrt(2 * cost_s * failure_interval_s / ratio)


def young(cost_s: float, failure_interval_s: float, ratio: float) -> float:
    """For a job without a log, which has to compute all of it again."""
    return best(cost_s, failure_interval_s, 1.0)


RULES: dict[str, Rule] = {
    "sqrt(2 C M / R)": best,
    "Young: sqrt(2 C M)": young,
    "each minute": lambda *_: 60.0,
    "each 10 minutes": lambda *_: 600.0,
    "each hour": lambda *_: 3600.0,
}


def expected_overhead(interval_s: float, cost_s: float, failure_interval_s: float, ratio: float) -> float:
    """To first order, as long as failures are rare beside checkpoints."""
    return cost_s / interval_s + ratio * interval_s / (2 * failure_interval_s)


def overhead(
    interval_s: float, cost_s: float, failure_interval_s: float, ratio: float, failures: int = FAILURES, seed: int = 1
) -> float:
    """Of a job that lives through so many failures: the time that it took for a second of work, less that second."""
    dice = random.Random(f"{seed} {interval_s} {cost_s} {failure_interval_s} {ratio}")
    elapsed_s = work_s = since_s = 0.0
    recovering = False
    for _ in range(failures):
        left_s = dice.expovariate(1 / failure_interval_s)
        elapsed_s += left_s
        if recovering:
            left_s -= ratio * since_s
            if left_s < 0:
                continue  # the recovery begins again
        done_s, since_s = _work_for(left_s, since_s, interval_s, cost_s)
        work_s += done_s
        recovering = True
    return elapsed_s / work_s - 1 if work_s else math.inf


def _work_for(left_s: float, since_s: float, interval_s: float, cost_s: float) -> tuple[float, float]:
    """The work that gets done until a failure, and how much of it, and of what was before, no checkpoint contains."""
    first_s = interval_s - since_s
    if left_s < first_s + cost_s:
        done_s = min(left_s, first_s)
        return done_s, since_s + done_s
    cycles, left_s = divmod(left_s - first_s - cost_s, interval_s + cost_s)
    since_s = min(left_s, interval_s)
    return first_s + cycles * interval_s + since_s, since_s


def draw(path: Path, results: dict[tuple[float, float, float, str], float]) -> None:
    import matplotlib as mpl

    mpl.use("svg")
    from matplotlib import pyplot

    colours = dict(zip(RULES, ("#c8102e", "#4a4a4a", "#5b8db8", "#8ab17d", "#c9a227"), strict=True))
    # The same numbers give the same bytes; text stays text.
    with mpl.rc_context({"svg.hashsalt": "trax", "svg.fonttype": "none", "font.family": "sans-serif", "font.size": 9}):
        picture, rows = pyplot.subplots(
            len(COSTS_S), len(FAILURE_INTERVALS_S), figsize=(8.5, 7.5), sharex=True, sharey=True, layout="constrained"
        )
        for axes_row, cost_s in zip(rows, COSTS_S, strict=True):
            for axes, failure_interval_s in zip(axes_row, FAILURE_INTERVALS_S, strict=True):
                for name, colour in colours.items():
                    percents = [100 * results[cost_s, failure_interval_s, ratio, name] for ratio in RATIOS]
                    width = 2.5 if name == next(iter(RULES)) else 1.2
                    axes.plot(RATIOS, percents, color=colour, linewidth=width, marker=".", label=name)
                axes.set(xscale="log", yscale="log", ylim=(0.008, 300))
                axes.minorticks_off()
                axes.xaxis.set_major_formatter("{x:g}")
                axes.yaxis.set_major_formatter("{x:g}")
                axes.set_title(f"C = {cost_s:g} s, M = {failure_interval_s / 3600:g} h", fontsize=9)
                axes.grid(color="#e5e5e5", linewidth=0.6)
                axes.spines[["top", "right"]].set_visible(False)
        for axes in rows[-1]:
            axes.set_xlabel("R: replaying a second's work, s")
        for axes in rows[:, 0]:
            axes.set_ylabel("overhead, %")
        picture.legend(*rows[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=5, frameon=False)
        picture.savefig(path, metadata={"Date": None})


def main() -> None:
    print(f"{'C, s':>6} {'M, h':>6} {'R':>6}  " + "".join(f"{name:>20}" for name in RULES) + "   (overhead, %)")
    results = {}
    for cost_s in COSTS_S:
        for failure_interval_s in FAILURE_INTERVALS_S:
            for ratio in RATIOS:
                case = cost_s, failure_interval_s, ratio
                for name, rule in RULES.items():
                    results[*case, name] = overhead(rule(*case), *case)
                row = "".join(f"{100 * results[*case, name]:>20.2f}" for name in RULES)
                print(f"{cost_s:>6g} {failure_interval_s / 3600:>6g} {ratio:>6g}  {row}")
    if len(sys.argv) > 1:
        draw(Path(sys.argv[1]), results)


if __name__ == "__main__":
    main()
