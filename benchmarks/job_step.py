"""What a committed step of a job costs beside a bare ``log()`` of the same entry, with each sync policy.

    python -m benchmarks.job_step [DIRECTORY]

The step does no work of its own and has no output file. Both are timed in turns, and the best round of each counts:
what else the machine does only adds to a round. The aim is a ratio of at most 1.5.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time

import trax
from trax.commit import SyncPolicy

ROUNDS = 7
ENTRY = {"step": 12345, "energy": -1.25, "positions": [0.5] * 10}
POLICIES: tuple[tuple[SyncPolicy, int], ...] = (("always", 400), ("interval", 4000), ("os", 4000))


def bare_s(store: trax.Trax, steps: int) -> float:
    began_s = time.perf_counter()
    for _ in range(steps):
        store.log(state=ENTRY)
    return (time.perf_counter() - began_s) / steps


def step_s(job: trax.Job, steps: int, name: str) -> float:
    began_s = time.perf_counter()
    for _ in job.loop(range(steps), name=name):
        job.log(state=ENTRY)
    return (time.perf_counter() - began_s) / steps


def main() -> None:
    root = sys.argv[1] if len(sys.argv) > 1 else None
    print(f"{'sync':<10} {'generator':<10} {'bare log, us':>13} {'step, us':>10} {'ratio':>6}")
    for policy, steps in POLICIES:
        for kind in ("none", "PCG64", "random"):
            with (
                tempfile.TemporaryDirectory(dir=root) as directory,
                trax.Trax(os.path.join(directory, "bare.trax"), sync=policy) as store,
                trax.Job(os.path.join(directory, "job.trax"), sync=policy) as job,
            ):
                if kind != "none":
                    job.rng("moves", 1, kind=kind)
                bare, step = [], []
                for number in range(ROUNDS):
                    bare.append(bare_s(store, steps))
                    step.append(step_s(job, steps, f"loop {number}"))
            best, of_step = 1e6 * min(bare), 1e6 * min(step)
            print(f"{policy:<10} {kind:<10} {best:>13.1f} {of_step:>10.1f} {of_step / best:>6.2f}", flush=True)


if __name__ == "__main__":
    main()
