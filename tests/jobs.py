"""Small jobs for the tests of ``trax.testing``: each has a bug that only a crash shows, and a twin without it."""

from __future__ import annotations

import os
import random
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import trax

STEPS = 3
State = dict[str, Any]
Job = Callable[[str], Any]


def start() -> State:
    return {"step": 0, "sum": 0.0}


def add(state: State, amount: float) -> State:
    state["step"] += 1
    state["sum"] += amount
    return state


def opened(directory: str, **options: Any) -> trax.Trax:
    return trax.Trax(os.path.join(directory, "job.trax"), **options)


def good(directory: str) -> State:
    with opened(directory) as store:
        state: State = store.recover("state", start, add)
        while state["step"] < STEPS:
            amount = 0.1 * state["step"]
            store.log(state=amount)
            add(state, amount)
            if state["step"] % 2 == 0:
                store.checkpoint(state=state)
    return state


def forgets_the_generator(directory: str) -> State:
    generator = random.Random(7)
    with opened(directory) as store:
        state: State = store.recover("state", start, add)
        while state["step"] < STEPS:
            amount = generator.random()
            store.log(state=amount)
            add(state, amount)
    return state


def keeps_the_generator(directory: str) -> State:
    def follow(state: State, entry: tuple[float, random.Random]) -> State:
        amount, state["generator"] = entry
        return add(state, amount)

    with opened(directory) as store:
        state: State = store.recover("state", lambda: {**start(), "generator": random.Random(7)}, follow)
        while state["step"] < STEPS:
            amount = state["generator"].random()
            store.log(state=(amount, state["generator"]))
            add(state, amount)
    return state


def _write_rows(directory: str, *, log_first: bool) -> None:
    with opened(directory) as store, open(os.path.join(directory, "rows.txt"), "a") as rows:
        step = store.recover("step", lambda: 0)
        while step < STEPS:
            step += 1
            if log_first:
                store.log(step=step)
            print("row", step, file=rows, flush=True)
            if not log_first:
                store.log(step=step)


def writes_before_it_logs(directory: str) -> None:
    _write_rows(directory, log_first=False)


def logs_before_it_writes(directory: str) -> None:
    _write_rows(directory, log_first=True)


def rolls_its_file_back(directory: str) -> None:
    """The length of the file is a part of the state: what is behind it is written again."""
    with opened(directory) as store, open(os.path.join(directory, "rows.txt"), "ab") as rows:
        step, length = store.recover("step", lambda: (0, 0))
        rows.truncate(length)
        while step < STEPS:
            step += 1
            rows.write(b"row %d\n" % step)
            rows.flush()
            store.log(step=(step, rows.tell()))


def checkpoints_too_early(directory: str) -> State:
    """The checkpoint comes between the record and its effect, so it is taken to contain it and does not."""
    with opened(directory) as store:
        state: State = store.recover("state", start, add)
        while state["step"] < STEPS:
            amount = float(state["step"])
            store.log(state=amount)
            if state["step"] == 1:
                store.checkpoint(state=state)
            add(state, amount)
    return state


def replays_something_else(directory: str) -> State:
    def nearly_add(state: State, amount: float) -> State:
        return {"step": state["step"] + 1, "sum": state["sum"] + round(amount)}

    with opened(directory) as store:
        state: State = store.recover("state", start, nearly_add)
        while state["step"] < STEPS:
            amount = 0.5 + state["step"]
            store.log(state=amount)
            add(state, amount)
    return state


def changes_the_entry_after_logging_it(directory: str) -> list[list[int]]:
    def append(state: list[list[int]], entry: list[int]) -> list[list[int]]:
        return [*state, entry]

    with opened(directory) as store:
        state: list[list[int]] = store.recover("state", list, append)
        while len(state) < STEPS:
            entry = [len(state)]
            store.log(state=entry)
            state = append(state, entry)
            entry.append(-1)
    return state


def counts_what_it_does_not_save(directory: str) -> dict[str, int]:
    accepted = 0
    with opened(directory) as store:
        step = store.recover("step", lambda: 0)
        while step < STEPS:
            step += 1
            accepted += step % 2
            store.log(step=step)
    return {"step": step, "accepted": accepted}


def appends_when_it_is_done(directory: str) -> None:
    good(directory)
    with open(os.path.join(directory, "summary.txt"), "a") as file:
        file.write("done\n")


def writes_a_file_in_place(directory: str) -> str:
    path = os.path.join(directory, "settings.txt")
    if not os.path.exists(path):
        file = open(path, "w")  # noqa: SIM115
        file.write("steps = 3")
        file.close()
    with open(path) as file:
        settings = file.read()
    good(directory)
    return settings


def replaces_a_file(directory: str) -> str:
    path = os.path.join(directory, "settings.txt")
    if not os.path.exists(path):
        with open(path + ".new", "w") as file:
            file.write("steps = 3")
        os.replace(path + ".new", path)
    settings = Path(path).read_text()
    good(directory)
    return settings


def _acknowledges(directory: str, sync: str) -> None:
    """A file says how far the store is. Whoever reads it may throw away what came before."""
    with opened(directory, sync=sync) as store:
        step = store.recover("step", lambda: 0)
        acknowledged = Path(directory, "acknowledged")
        if acknowledged.exists():
            assert int(acknowledged.read_text()) <= step, "what was acknowledged is not in the store"
        while True:
            acknowledged.with_suffix(".new").write_text(str(step))
            acknowledged.with_suffix(".new").replace(acknowledged)
            if step == STEPS:
                break
            step += 1
            store.log(step=step)


def acknowledges_what_is_not_synced(directory: str) -> None:
    _acknowledges(directory, "os")


def acknowledges_what_is_synced(directory: str) -> None:
    _acknowledges(directory, "always")


def resumes_only_once(directory: str) -> State:
    marker = Path(directory, "resuming")
    if Path(directory, "job.trax").exists():
        marker.touch(exist_ok=False)
    state = good(directory)
    marker.unlink(missing_ok=True)
    return state


def is_not_repeatable(directory: str) -> State:
    with opened(directory) as store:
        return dict(store.recover("state", lambda: {"seed": os.urandom(8)}))


def hangs_when_resumed(directory: str) -> None:
    with opened(directory) as store:
        if "a" in store:
            print("waiting for something that never comes", flush=True)
            threading.Event().wait()
        store.checkpoint(a=1)


def fails_when_resumed(directory: str) -> None:
    with opened(directory) as store:
        if "a" in store:
            print("about to fail", flush=True)
            raise LookupError("the results of the last run")
        store.checkpoint(a=1)


def only_writes_results(directory: str) -> None:
    """A name that the job itself never recovers; the log of it is what others read."""
    with opened(directory) as store:
        step = store.recover("step", lambda: 0)
        while step < STEPS:
            step += 1
            store.log(results=step * step)
            store.log(step=step)


def writes_results_with_the_step(directory: str) -> None:
    with opened(directory) as store:
        step = store.recover("step", lambda: 0)
        while step < STEPS:
            step += 1
            store.log(results=step * step, step=step)


def uses_everything(directory: str) -> list[int]:
    """Batches, background checkpoints, a second store, a copy, a name that is deleted, handles that stay open."""
    aside = trax.Trax(os.path.join(directory, "aside", "other.trax"), sync="os", buffer_bytes=1000)
    aside.recover("count", lambda: 0)
    store = opened(directory, keep=2)
    numbers: list[int] = store.recover("numbers", list, lambda state, entry: [*state, entry])
    while len(numbers) < STEPS:
        number = len(numbers)
        with store.batch() as batch:
            batch.log(numbers=number)
            batch.checkpoint(temporary=number)
        numbers.append(number)
        aside.log(count=number)
        if number == 1:
            store.checkpoint_async(numbers=numbers).result()
    aside.checkpoint(count=len(numbers))
    if "temporary" in store:
        store.delete("temporary")
    shutil.rmtree(os.path.join(directory, "copy"), ignore_errors=True)
    store.copy_to(os.path.join(directory, "copy"))
    return numbers
