"""What a job refuses to go on with, what it verifies, and what it shows."""

from __future__ import annotations

import argparse
import concurrent.futures
import errno
import functools
import os
import re
import subprocess
import sys
import threading
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import trax
from trax.errors import ChangedError, DiskFullError, InvalidArgumentError, UnsupportedValueError, VerificationError
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


def test_a_configuration_that_can_not_be_kept_is_named_as_one(path: Path) -> None:
    with pytest.raises(UnsupportedValueError, match=r"^config\['options'\]"):
        trax.Job(path, config={"options": argparse.Namespace(width=1)})
    trax.Job(path, config={"options": {"width": 1}}).close()


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


def test_a_fingerprint_does_not_see_docstrings_but_what_is_done_with_the_same_text() -> None:
    def digest(docstring: str, body: str) -> bytes:
        space: dict[str, Any] = {"__name__": "somewhere"}
        exec(f"def fold(state, entry):\n    {docstring!r}\n    return {body}", space)
        made: bytes = fingerprint(space["fold"])[2]
        return made

    assert digest("one", "state + entry") == digest("other", "state + entry")
    digests = [digest("one", "state + 'one'"), digest("other", "state + 'other'"), digest("one", "state + 'other'")]
    assert len(set(digests)) == 3


HELPED = """
SCALE = {scale}
names = {{}}
def helper(entry, factor={default}):
    return nested(entry) * factor
def nested(entry):
    return entry + {constant}
def again(entry):
    return again(entry) if entry else 0
def outer(closed):
    def fold(state, entry):
        return state + closed * helper(entry) * SCALE + again(0)
    return fold
fold = outer({closed})
"""


def helped(**parts: Any) -> Callable[..., Any]:
    space: dict[str, Any] = {"__name__": "somewhere"}
    exec(HELPED.format(**{"scale": 1, "default": 2, "constant": 3, "closed": 4} | parts), space)
    made: Callable[..., Any] = space["fold"]
    return made


def test_a_fingerprint_follows_helpers_defaults_constants_and_what_is_closed_over() -> None:
    assert fingerprint(helped()) == fingerprint(helped())
    functions = [helped(), *(helped(**{part: 9}) for part in ("scale", "default", "constant", "closed"))]
    digests = [fingerprint(function)[2] for function in functions]
    assert len(set(digests)) == len(functions)
    partials = [functools.partial(helped(), number) for number in range(3)]
    assert len({fingerprint(function)[2] for function in partials}) == 3


def test_a_fingerprint_is_the_same_in_every_process(tmp_path: Path) -> None:
    (tmp_path / "folding.py").write_text(
        "WORDS = frozenset({'a', 'b', 'c', 'd'})\n"
        "class Adder:\n    def __call__(self, state, entry):\n        return state + (entry in {'x', 'y', 'z'})\n"
        "def fold(state, entry):\n    return Adder()(state, entry)\n"
    )
    script = (
        "import folding, functools; from trax.job.fingerprints import fingerprint; "
        "print([fingerprint(f)[2].hex() for f in (folding.fold, folding.Adder(), functools.partial(folding.fold, 1))])"
    )
    paths = os.pathsep.join([str(tmp_path), str(Path(trax.__file__).parent.parent)])
    printed = {
        subprocess.run(
            [sys.executable, "-c", script],
            env={**os.environ, "PYTHONPATH": paths, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2", "3")
    }
    assert len(printed) == 1


def key_in(error: pytest.ExceptionInfo[ChangedError]) -> str:
    return re.findall(r"upgrade=\{'([^']+)'", str(error.value))[0]


def test_an_upgrade_makes_the_new_configuration_of_the_old_one(path: Path) -> None:
    def add_pressure(config: dict[str, float]) -> dict[str, float]:
        return {**config, "pressure": 1.0}

    with trax.Job(path, config={"mass": 1.0}):
        pass
    new = {"mass": 1.0, "pressure": 1.0}
    with pytest.raises(ChangedError, match="another configuration") as caught:
        trax.Job(path, config=new)
    key = key_in(caught)
    with pytest.raises(ChangedError, match=r"makes another configuration.*config\['pressure'\]: 1.0 and 2.0"):
        trax.Job(path, config={**new, "pressure": 2.0}, upgrade={key: add_pressure})
    with trax.Job(path, config=new, upgrade={key: add_pressure}):
        pass
    for upgrade in (False, {key: add_pressure}):
        with trax.Job(path, config=new, upgrade=upgrade):
            pass
    with pytest.raises(InvalidArgumentError, match="fingerprints"):
        trax.Job(path, config=new, upgrade="yes")  # type: ignore[arg-type]


def test_an_upgrade_folds_what_was_logged_before_with_the_function_of_then(path: Path) -> None:
    def work(job: trax.Job, factor: int, fail: bool) -> int:
        state: int = job.recover("a", lambda: 0, folding(factor))
        for step in job.loop(range(6)):
            job.log(a=1)
            state += factor
            if fail and step == 3:
                raise ZeroDivisionError
        return state

    with pytest.raises(ZeroDivisionError), trax.Job(path) as job:
        work(job, 1, fail=True)
    with trax.Job(path) as job, pytest.raises(ChangedError, match="another code") as caught:
        work(job, 100, fail=False)
    with trax.Job(path, upgrade={key_in(caught): folding(1)}) as job:
        assert job.recover("a", lambda: 0, folding(100)) == 3
    with trax.Job(path) as job:
        assert work(job, 100, fail=False) == 303
        assert job.recover("a", lambda: 0, folding(100)) == 303


class FullDisk(LocalFileSystem):
    """Has no room for a snapshot, when told so."""

    is_full = False

    def create(self, path: str, mode: int | None = None) -> int:
        if self.is_full and os.path.basename(path).startswith("snapshot"):
            raise OSError(errno.ENOSPC, "No space left on device")
        return super().create(path, mode)


def test_an_upgrade_that_could_not_be_stored_is_none(path: Path) -> None:
    fs = FullDisk()
    with trax.Job(path) as job:
        job.recover("a", lambda: 0, folding(1))
        job.log(a=1)
    with trax.Job(path, fs=fs) as job:
        with pytest.raises(ChangedError) as caught:
            job.recover("a", lambda: 0, folding(100))
    with trax.Job(path, fs=fs, upgrade={key_in(caught): folding(1)}) as job:
        fs.is_full = True
        with pytest.raises(DiskFullError):
            job.recover("a", lambda: 0, folding(100))
        fs.is_full = False
        assert job.recover("a", lambda: 0, folding(100)) == 1


def add_first(state: list[int], entry: int) -> list[int]:
    state[0] += entry
    return state


def verified(
    path: Path, *, forgets_at: int = -1, wrong_at: int = -1, in_background: bool = False, **options: Any
) -> list[int]:
    """The steps in which a checkpoint was asked for. Record 7 is that of step 4."""
    options = {"verify_every": 3, "checkpoint_when": trax.job.every(steps=1000)} | options
    with trax.Job(path, **options) as job:
        state: list[int] = job.recover("state", lambda: [0, 5], add_first)
        asked = []
        for step in job.loop(range(8)):
            state[0] += 1
            job.log(state=2 if step == wrong_at else 1)
            if step == forgets_at:
                state[1] += 1
            job._background.wait()
            if job.should_checkpoint():
                asked.append(step)
                (job.checkpoint_async if in_background else job.checkpoint)(state=state)
    return asked


@pytest.mark.parametrize("in_background", [False, True])
def test_verified_checkpoints_are_asked_for_every_so_many_steps(path: Path, in_background: bool) -> None:
    assert verified(path, in_background=in_background) == [2, 5]


@pytest.mark.parametrize("in_background", [False, True])
def test_a_state_that_replaying_does_not_give_stops_the_job_and_its_step(path: Path, in_background: bool) -> None:
    with pytest.raises(VerificationError, match=r"state\[0\]: 7 and 6 .*The first record that changes it is") as caught:
        verified(path, wrong_at=4, in_background=in_background)
    with trax.Trax(path) as store:
        sequences = [sequence for sequence, _ in store.entries("state")]
        assert len(sequences) == 2 and caught.value.sequence == sequences[0], "of step 3; 4 is the wrong one"
        assert store.recover("state", replay_log=add_first) == [6, 5], "step 5 is not there, what was before it is"


def test_with_a_verification_in_each_step_the_record_is_the_wrong_one(path: Path) -> None:
    with pytest.raises(VerificationError, match="is of this step") as caught:
        verified(path, wrong_at=4, verify_every=1)
    with trax.Trax(path) as store:
        assert caught.value.sequence == store.last_sequence + 1
        assert store.recover("state", replay_log=add_first) == [4, 5]


def test_a_change_that_no_record_makes_is_said_to_be_one(path: Path) -> None:
    with pytest.raises(VerificationError, match=r"state\[1\]: 5 and 6 .*No record that would be replayed") as caught:
        verified(path, forgets_at=4)
    assert caught.value.sequence is None


def test_a_verification_can_be_asked_only_to_warn(path: Path) -> None:
    with pytest.warns(trax.errors.TraxWarning, match="not the live state"):
        assert verified(path, forgets_at=4, verify_stops=False) == [2, 5]
    with trax.Trax(path) as store:
        assert store.recover("state", replay_log=add_first) == [8, 6], "the checkpoint was made"


def test_a_state_can_be_verified_behind_a_checkpoint_of_the_same_step(path: Path) -> None:
    with trax.Job(path, verify_every=1) as job:
        state = job.recover("state", lambda: [0, 5], add_first)
        for _ in job.loop(range(2)):
            for _ in range(2):
                state[0] += 1
                job.log(state=1)
                job.checkpoint({"state": state, "another": 1})
            job.verify(state=state)


def test_a_state_can_be_verified_without_a_checkpoint(path: Path) -> None:
    with trax.Job(path) as job:
        state = job.recover("state", lambda: [0, 5], add_first)
        for _ in job.loop(range(3)):
            state[0] += 1
            job.log(state=1)
            job.verify(state=state)
        job.verify(state=state)
        with pytest.raises(VerificationError):
            job.verify(state=[3, 6])
        with pytest.raises(InvalidArgumentError, match="has not recovered it"):
            job.verify(other=1)
    assert len([*trax.Trax(path, mode="r").entries("state")]) == 3


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


def test_a_checkpoint_in_the_background_waits_for_the_one_before(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fs = SlowBlobs()
    with trax.Job(path, fs=fs, checkpoint_when=trax.job.every(steps=1)) as job:
        wait, begin, begun = job._background.wait, job.store.checkpoint_async, []

        def waiting() -> None:
            fs.may_go_on.set()
            wait()

        def beginning(values: dict[str, Any]) -> concurrent.futures.Future[int]:
            assert all(future.done() for future in begun)
            fs.may_go_on.clear()
            begun.append(begin(values))
            return begun[-1]

        monkeypatch.setattr(job._background, "wait", waiting)
        monkeypatch.setattr(job.store, "checkpoint_async", beginning)
        for _ in job.loop(range(3)):
            job.checkpoint_async(large=LARGE)
        fs.may_go_on.set()
    assert len(begun) == 3


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
