"""What a committed step of a job costs beside a bare ``log()`` of the same entry, with each sync policy.

    python -m benchmarks.job_step [DIRECTORY]

The step does no work of its own and has no output file. Both take turns, a few milliseconds each, so that what else the
machine does falls on both; shown are the medians of the turns, and the median of the ratios of neighbouring turns. The
aim is a ratio of at most 1.5 for the step alone ("none"). The others also ask ``should_checkpoint()`` with the default
policy, or have a generator, whose state is looked at in each step, and here has not changed: that of ``random.Random``
can only be looked at as a whole, all 625 numbers of it.
"""

from __future__ import annotations

import gc
import os
import statistics
import sys
import tempfile
import time

import trax
from trax.commit import SyncPolicy

ENTRY = {"step": 12345, "energy": -1.25, "positions": [0.5] * 10}
POLICIES: tuple[tuple[SyncPolicy, int, int], ...] = (("always", 41, 50), ("interval", 101, 500), ("os", 101, 500))
"""Each with the number of turns, and of steps in a turn."""


def bare_s(store: trax.Trax, steps: int) -> float:
    began_s = time.perf_counter()
    for _ in range(steps):
        store.log(state=ENTRY)
    return (time.perf_counter() - began_s) / steps


def step_s(job: trax.Job, steps: int, name: str, *, asks: bool) -> float:
    began_s = time.perf_counter()
    for _ in job.loop(range(steps), name=name):
        job.log(state=ENTRY)
        if asks and job.should_checkpoint():
            raise AssertionError("it was to log alone")
    return (time.perf_counter() - began_s) / steps


def main() -> None:
    root = sys.argv[1] if len(sys.argv) > 1 else None
    print(f"{'sync':<10} {'beside it':<10} {'bare log, us':>13} {'step, us':>10} {'ratio':>6}")
    for policy, turns, steps in POLICIES:
        for kind in ("none", "asks", "PCG64", "random"):
            with (
                tempfile.TemporaryDirectory(dir=root) as directory,
                trax.Trax(os.path.join(directory, "bare.trax"), sync=policy) as store,
                trax.Job(os.path.join(directory, "job.trax"), sync=policy) as job,
            ):
                if kind not in ("none", "asks"):
                    job.rng("moves", 1, kind=kind)
                bare, step = [], []
                gc.collect()
                for turn in range(turns):
                    bare.append(bare_s(store, steps))
                    step.append(step_s(job, steps, f"loop {turn}", asks=kind == "asks"))
            ratio = statistics.median(one / other for one, other in zip(step, bare, strict=True))
            times = f"{1e6 * statistics.median(bare):>13.1f} {1e6 * statistics.median(step):>10.1f}"
            print(f"{policy:<10} {kind:<10} {times} {ratio:>6.2f}", flush=True)


if __name__ == "__main__":
    main()
