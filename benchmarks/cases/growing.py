"""B9 and B12: what a store costs when there is much in it."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path
from statistics import median

from benchmarks.model import FAST, Bar, Case, Contestant, Figure, no_more_than, versus
from benchmarks.task import Task
from benchmarks.values import fold, folded

# B9: one small name in a store that holds much else

CHECKPOINT = Figure("checkpoint", "checkpoint", "ms", higher_is_better=False)


def state_of(number: int) -> dict[str, object]:
    return {"step": number, "energy": -1.2345, "accepted": [number, number + 1]}


def fill_names(task: Task) -> None:
    import numpy as np

    import trax

    with trax.Trax(task.directory / "store") as store:
        store.checkpoint({f"name {number}": state_of(number) for number in range(task.sizes["names"])})
        store.checkpoint(array=np.random.default_rng(1).standard_normal(task.sizes["array_bytes"] // 8))


def checkpoint_small(task: Task, much: bool) -> None:
    import trax

    took = []
    with trax.Trax(task.directory / "store") as store:
        store.checkpoint(state=state_of(-1))
        with task.measured():
            for number in range(task.count):
                start = time.perf_counter()
                store.checkpoint(state=state_of(number))
                took.append(time.perf_counter() - start)
    task.figures["checkpoint"] = median(took) * 1000
    with trax.Trax(task.directory / "store", mode="r") as reader:
        task.check_equal(reader.recover("state"), state_of(task.count - 1), "the state")
        for number in range(task.sizes["names"] if much else 0):
            task.check_equal(reader.recover(f"name {number}"), state_of(number), f"name {number}")


B9 = Case(
    "B9",
    "checkpoint of one small name, in an empty store and in one that holds much",
    {
        "full": {"count": 200, "names": 1000, "array_bytes": 1 << 30},
        "quick": {"count": 50, "names": 1000, "array_bytes": 1 << 26},
        "tiny": {"count": 5, "names": 10, "array_bytes": 1 << 16},
    },
    [
        Contestant(
            "empty store",
            "trax",
            "checkpoint(state=…) with nothing else",
            partial(checkpoint_small, much=False),
            blocks=FAST,
        ),
        Contestant(
            "full store",
            "trax",
            "the same beside many small names and one array",
            partial(checkpoint_small, much=True),
            fill_names,
            ("numpy",),
            FAST,
        ),
    ],
    figures=[CHECKPOINT],
    bars=[versus("full store", "empty store", at_most=1.5, figure=CHECKPOINT)],
)

# B12: a log that grows

APPEND = Figure("append", "append", "µs a record", higher_is_better=False)
OPEN = Figure("open", "open", "ms", higher_is_better=False)
RECOVER = Figure("recover", "recover", "µs a record", higher_is_better=False)
RECORDS = Figure("records", "records", "")
LOG_BYTES = Figure("log_bytes", "bytes of log", "bytes", higher_is_better=False)
LEFT_BYTES = Figure("left_bytes", "bytes after a checkpoint", "bytes", higher_is_better=False)
SHARES = {"n / 1000": 0.001, "n / 100": 0.01, "n / 10": 0.1, "n": 1.0}


def grow(task: Task) -> None:
    """Append, close, open, recover, checkpoint; the values are made on the way, or they would fill the memory."""
    import trax

    path = task.directory / "store"
    with trax.Trax(path, sync="os", buffer_bytes=1 << 16) as store:
        store.recover("sample", create=lambda: 0)
        log = store.log
        with task.measured() as clock:
            for step in range(task.count):
                log(sample={"step": step, "energy": -1.2345, "tag": "abc"})
    task.figures["append"] = clock.seconds / task.count * 1e6
    task.figures["records"] = task.count
    task.figures["log_bytes"] = used_bytes(path)
    with task.measured() as clock:
        store = trax.Trax(path, sync="os")
    task.figures["open"] = clock.seconds * 1000
    with store:
        with task.measured() as clock:
            state = store.recover("sample", replay_log=fold)
        task.figures["recover"] = clock.seconds / task.count * 1e6
        task.check_equal(state, folded(task.count), "the folded state")
        store.checkpoint(sample=state)
        task.figures["left_bytes"] = used_bytes(path)
    with trax.Trax(path, mode="r") as reader:
        task.check_equal(reader.recover("sample", replay_log=fold), folded(task.count), "the checkpointed state")


def used_bytes(directory: Path) -> int:
    """What the files take on the disk, in whole blocks; what is preallocated is part of it."""
    return sum(path.stat().st_blocks * 512 for path in directory.rglob("*"))


def _growth(figure: Figure) -> Bar:
    return versus("n", "n / 10", at_most=1.2, figure=figure, text=f"{figure.title}, {figure.unit}: n to n / 10")


B12 = Case(
    "B12",
    "a log that grows",
    {"full": {"count": 10_000_000}, "quick": {"count": 300_000}, "tiny": {"count": 1_000}},
    [
        Contestant(name, "trax", f"{name} records, one name; close, open, recover", grow, blocks=FAST, share=share)
        for name, share in SHARES.items()
    ],
    figures=[APPEND, OPEN, RECOVER, RECORDS, LOG_BYTES, LEFT_BYTES],
    bars=[
        _growth(APPEND),
        _growth(RECOVER),
        versus("n", "n / 10", at_most=12, figure=OPEN, text="open, ms: n to n / 10, ten times the records"),
        no_more_than("n", LEFT_BYTES, 1 << 20),
    ],
)
