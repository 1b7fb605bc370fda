"""What a job refuses to go on with, what it verifies, and what it shows."""

from __future__ import annotations

import concurrent.futures
import errno
import sys
import threading
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import trax
from trax.errors import ChangedError, DiskFullError, VerificationError
from trax.job.fingerprints import fingerprint
from trax.storage.local.fs import LocalFileSystem

START = "def outer():\n    def fold(state, entry):\n        return state + entry * {factor}\n    return fold\n"


def folding(factor: int, lines_before: int = 0) -> Callable[[int, int], int]:
    space: dict[str, Any] = {"__name__": "somewhere"}
    exec("\n" * lines_before + START.format(factor=factor), space)
    made: Callable[[int, int], int] = space["outer"]()
    return made


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "job.trax"


def test_another_configuration_is_refused_and_named(path: Path) -> None:
    with trax.Job(path, config={"mass": 1.0, "steps": [1, 2]}):
        pass
    with trax.Job(path, config={"mass": 1.0, "steps": [1, 2]}):
        pass
    with pytest.raises(ChangedError, match=r"config\['steps'\]\[1\]: 2 and 3"):
        trax.Job(path, config={"mass": 1.0, "steps": [1, 3]})
    with pytest.raises(ChangedError):
        trax.Job(path)
    with trax.Job(path, config={"mass": 2.0}, upgrade=True):
        pass
    with trax.Job(path, config={"mass": 2.0}):
        pass


def test_another_replay_function_is_refused_but_not_one_that_has_moved(path: Path) -> None:
    with trax.Job(path) as job:
        job.recover("a", lambda: 1, folding(2))
        assert job.recover("a", lambda: 1, folding(2, lines_before=30)) == 1
    with trax.Job(path) as job, pytest.raises(ChangedError, match="another code"):
        job.recover("a", lambda: 1, folding(3))
    with trax.Job(path, upgrade=True) as job:
        job.recover("a", lambda: 1, folding(3))
    with trax.Job(path) as job:
        job.recover("a", lambda: 1, folding(3))


def test_a_fingerprint_sees_names_constants_and_what_is_inside() -> None:
    functions = [
        lambda state, entry: state + entry,
        lambda state, entry: state - entry,
        lambda state, entry: state + entry + 1,
        lambda state, entry: state + entry + 1.0,
        lambda state, entry: state.add(entry),
        lambda state, entry: state.sub(entry),
        lambda state, entry: [part + 1 for part in entry],
        lambda state, entry: [part + 2 for part in entry],
    ]
    digests = [fingerprint(function)[2] for function in functions]
    assert len(set(digests)) == len(functions)


@pytest.mark.parametrize("forgets", [False, True])
def test_a_state_that_replaying_does_not_give_stops_the_job_and_its_step(path: Path, forgets: bool) -> None:
    def add(state: list[int], entry: int) -> list[int]:
        state[0] += entry
        return state

    def work() -> list[int]:
        with trax.Job(path, verify_every=3, checkpoint_when=trax.job.every(steps=1000)) as job:
            state: list[int] = job.recover("state", lambda: [0], add)
            asked = []
            for step in job.loop(range(8)):
                state[0] += 1
                job.log(state=1)
                if forgets and step == 4:
                    state[0] += 1
                if job.should_checkpoint():
                    asked.append(step)
                    job.checkpoint(state=state)
        return asked

    if not forgets:
        assert work() == [2, 5]
        return
    with pytest.raises(VerificationError, match=r"state\[0\]: 6 and 7"):
        work()
    with trax.Trax(path) as store:
        assert store.recover("state", replay_log=add) == [5], "the step is not there, what was before it is"


class Terminal:
    def isatty(self) -> bool:
        return True


def test_a_terminal_shows_the_progress_with_the_right_totals(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bars = []

    class Bar:
        def __init__(self, **options: Any) -> None:
            self.options, self.count, self.closed = options, 0, False
            bars.append(self)

        def update(self) -> None:
            self.count += 1

        def close(self) -> None:
            self.closed = True

    monkeypatch.setitem(sys.modules, "tqdm", types.SimpleNamespace(tqdm=Bar))
    with trax.Job(path) as job:
        list(job.loop(range(3)))
    assert bars == [], "standard error is no terminal"
    monkeypatch.setattr(sys, "stderr", Terminal())
    with trax.Job(path) as job:
        list(job.loop(range(8), desc="moves"))
    (bar,) = bars
    assert (bar.options["desc"], bar.options["total"], bar.options["initial"]) == ("moves", 8, 3)
    assert bar.count == 5 and bar.closed
    monkeypatch.setitem(sys.modules, "tqdm", None)
    with trax.Job(path) as job:
        assert list(job.loop(range(9))) == [8], "without tqdm it runs as well"


class SlowBlobs(LocalFileSystem):
    """Holds up, or fails, the writing of blobs by other threads than the main one, when told to."""

    def __init__(self) -> None:
        self.fails = False
        self.may_go_on = threading.Event()
        self.may_go_on.set()
        self.at_once = self.most_at_once = 0

    def create(self, path: str, mode: int | None = None) -> int:
        if "blobs" in path and threading.current_thread() is not threading.main_thread():
            if self.fails:
                raise OSError(errno.ENOSPC, "No space left on device")
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
            assert self.may_go_on.wait(60)
            self.at_once -= 1
        return super().create(path, mode)


LARGE = bytes(1 << 20)


def plus(state: int, entry: int) -> int:
    return state + entry


def test_checkpoints_in_the_background_come_one_after_the_other_while_steps_go_on(path: Path) -> None:
    fs = SlowBlobs()
    with trax.Job(path, fs=fs, checkpoint_when=trax.job.every(steps=1)) as job:
        state = job.recover("state", lambda: 0, plus)
        asked = []
        for step in job.loop(range(6)):
            job.log(state=1)
            state += 1
            asked.append(job.should_checkpoint())
            if asked[-1]:
                fs.may_go_on.clear()
                job.checkpoint_async(state=state, large=LARGE)
            if step == 3:
                fs.may_go_on.set()
                job._background.wait()
        fs.may_go_on.set()
        assert asked == [True, False, False, False, True, False], "none while one is on its way"
    assert fs.most_at_once == 1
    with trax.Trax(path) as store:
        assert store.recover("state", replay_log=plus) == 6
        assert len(list(store.entries("state"))) == 1, "the last step's; all before is in the checkpoint"


def test_a_failure_in_the_background_surfaces_at_a_later_step_and_the_last_good_one_stays(path: Path) -> None:
    fs = SlowBlobs()
    with pytest.raises(DiskFullError):
        with trax.Job(path, fs=fs) as job:
            state = job.recover("state", lambda: 0, plus)
            for step in job.loop(range(6)):
                job.log(state=1)
                state += 1
                if step == 1:
                    job.checkpoint(state=state)
                if step == 2:
                    fs.fails = True
                    job.checkpoint_async(state=state, large=LARGE)
                if step == 4:
                    concurrent.futures.wait([job._background.future])
    with trax.Job(path) as job:
        state = job.recover("state", replay_log=plus)
        left = list(job.loop(range(6)))
        assert state == 6 - len(left) and state >= 3
