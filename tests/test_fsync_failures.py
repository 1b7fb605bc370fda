"""An fsync fails, and the next one succeeds without the data: nothing that was acknowledged may rely on it.

What was to be synced is gone (see ``trax/testing/fsyncs.py``), the process goes on with its handle or opens the store
again on the same machine, logs more, and then the power fails. The searches take their effort from
``TRAX_FAULT_STRIDE``, as in ``tests/test_faults.py``.
"""

from __future__ import annotations

import errno
import os
import random
import threading
from pathlib import Path

import pytest

import trax
from tests.counting import count
from tests.crashing import fold, lay_out
from tests.faulty import SCENARIOS, Sweep, noted
from tests.helpers import reopen_and_check
from tests.watching import within
from trax.errors import FinishedError, StorageError
from trax.testing.disks import crash_images
from trax.testing.faults import FAULTS, os_error
from trax.testing.fsyncs import MANNERS, ForgetfulFileSystem, Manner

SEED = os.environ.get("TRAX_SEED", "20261121")
STRIDE = max(1, int(os.environ.get("TRAX_FAULT_STRIDE", "200")) // 4)
EIO = os_error(errno.EIO)

WITHOUT_FSYNCS = ("recovery",)


@pytest.mark.parametrize("manner", MANNERS)
@pytest.mark.parametrize("scenario", [one for one in SCENARIOS if one not in (*WITHOUT_FSYNCS, "no locks")])
def test_no_fsync_that_fails_costs_what_was_acknowledged(scratch: Path, scenario: str, manner: Manner) -> None:
    print(f"TRAX_SEED={SEED}")
    search = Sweep(scratch, SCENARIOS[scenario], SEED)
    cases = [(nth, again) for nth in range(lose_fsyncs(search, (), manner, "EIO").count) for again in (False, True)]
    tried = 0
    for nth, again in cases[random.Random(f"{SEED}-{scenario}-{manner}").randrange(STRIDE) :: STRIDE]:
        dice = random.Random(f"{SEED}-{nth}-{again}")
        failing = (nth, nth + dice.randint(1, 8)) if again else (nth,)
        fault = dice.choice(["EIO", "ENOSPC"])
        try:
            within(lambda failing=failing, fault=fault: lose_fsyncs(search, failing, manner, fault))  # type: ignore[misc]
        except BaseException as error:
            error.add_note(f"TRAX_SEED={SEED}, {scenario!r}: fsyncs {failing} fail, {manner}")
            raise
        tried += 1
    if tried:
        count("failing fsyncs", tried)


def lose_fsyncs(search: Sweep, failing: tuple[int, ...], manner: Manner, fault: str) -> ForgetfulFileSystem:
    """Play the scenario on a disk that forgets, going on as far as it can; then lose power in the middle and behind."""
    dice = random.Random(f"{SEED}-{failing}-{manner}")
    search.lay_out_the_template()
    fs = ForgetfulFileSystem(search.root, failing, FAULTS[fault], manner, dice)
    job = search.play(fs, fs, go_on=True, lossy=True)
    with noted(job):
        assert len(fs.failed) == len(failing) or (failing and failing[-1] >= fs.count)
        failed = False
        for stage in job.stages:
            failed = failed or stage.failed
            for done in {stage.last, dice.randint(stage.first, stage.last)} if failed else ():
                search.lose_power(job, stage, done)
    return fs


@pytest.mark.parametrize("manner", MANNERS)
@pytest.mark.parametrize("fault", ["EIO", "ENOSPC"])
@pytest.mark.parametrize("sync", ["always", "os"])
def test_a_handle_whose_fsync_failed_writes_and_syncs_nothing_more(
    scratch: Path, sync: str, fault: str, manner: Manner
) -> None:
    (scratch / "run").mkdir()
    fs = ForgetfulFileSystem(scratch / "run", (), FAULTS[fault], manner, random.Random(SEED))
    store = trax.Trax(scratch / "run" / "s", sync=sync, fs=fs)  # type: ignore[arg-type]
    store.checkpoint(a=[])
    store.log(a=1)
    store.sync()
    durable = store.durable_sequence
    fs.fail_next()
    with pytest.raises(FinishedError):
        store.log(a=2)
        store.sync()
    done = len(fs.operations)
    for call in (lambda: store.log(a=3), store.sync, lambda: store.checkpoint(a=[3]), lambda: store.recover("a")):
        with pytest.raises(FinishedError):
            call()
    assert store.durable_sequence == durable == 2
    store.close()
    assert [one.kind for one in fs.operations[done:]] == []
    with trax.Trax(scratch / "run" / "s", fs=fs) as again:
        state = again.recover("a", None, fold)
        assert state in ([1], [1, 2])
        again.log(a=4)
        logged = len(fs.operations)
        for _, image in crash_images(fs.start, fs.operations[:logged], random.Random(SEED), 8, after=logged):
            lay_out(image, scratch / "crash")
            with reopen_and_check(scratch / "crash" / "s") as after:
                assert after.recover("a", None, fold) == [*state, 4]


@pytest.mark.parametrize("manner", MANNERS)
def test_a_checkpoint_whose_sync_of_the_mark_failed_ends_the_handle(scratch: Path, manner: Manner) -> None:
    """The mark behind the last records was not synced yet. What is logged behind it later would stand behind a hole."""
    (scratch / "run").mkdir()
    with trax.Trax(scratch / "run" / "s") as store:
        store.checkpoint(a=[])
        store.log(a=1)
    fs = ForgetfulFileSystem(scratch / "run", (), EIO, manner, random.Random(SEED))
    store = trax.Trax(scratch / "run" / "s", fs=fs)
    fs.fail_next()
    for call in (lambda: store.checkpoint(a=[1]), lambda: store.log(a=2), lambda: store.checkpoint(a=[1, 2])):
        with pytest.raises(FinishedError, match="could not sync"):
            call()
    assert len(fs.failed) == 1, "it was not tried again"
    store.close()
    with trax.Trax(scratch / "run" / "s", fs=fs) as store:
        store.log(a=2)
        done = len(fs.operations)
    for _, image in crash_images(fs.start, fs.operations[:done], random.Random(SEED), 8, after=done):
        lay_out(image, scratch / "crash")
        with reopen_and_check(scratch / "crash" / "s") as after:
            assert after.recover("a", None, fold) == [1, 2]


@pytest.mark.parametrize("manner", MANNERS)
def test_a_store_whose_creation_failed_is_created_anew_with_all_its_directories(scratch: Path, manner: Manner) -> None:
    """The second attempt must not find the directory of the first, whose name no fsync will bring to the disk."""
    (scratch / "run").mkdir()
    path = scratch / "run" / "a" / "b" / "s"
    counting = ForgetfulFileSystem(scratch / "run", (), EIO, manner, random.Random(SEED))
    trax.Trax(path, fs=counting).close()
    tried = 0
    for nth in range(counting.count):
        lay_out(counting.start, scratch / "run")
        fs = ForgetfulFileSystem(scratch / "run", (nth,), EIO, manner, random.Random(SEED))
        try:
            trax.Trax(path, fs=fs).close()
        except trax.TraxError:
            tried += 1
        with trax.Trax(path, fs=fs) as store:
            store.checkpoint(a="x" * 5000)
            done = len(fs.operations)
        for _, image in crash_images(fs.start, fs.operations[:done], random.Random(SEED), 2, after=done):
            lay_out(image, scratch / "crash")
            with reopen_and_check(scratch / "crash" / "a" / "b" / "s") as after:
                assert after.recover("a") == "x" * 5000
    assert tried > 10


@pytest.mark.parametrize("manner", MANNERS)
def test_the_name_of_a_blob_does_not_rely_on_a_sync_that_another_threads_failure_has_emptied(
    scratch: Path, manner: Manner
) -> None:
    """Both threads have made a blob. The fsync of one fails, and loses both names; that of the other succeeds."""
    (scratch / "run").mkdir()

    class Ordered(ForgetfulFileSystem):
        def fsync(self, fd: int) -> None:
            if threading.current_thread().name == "second" and not made.is_set():
                made.set()
                assert failed.wait(60)
            super().fsync(fd)

        def fsync_directory(self, path: str) -> None:
            if path.endswith("blobs") and not failed.is_set():
                self.fail_next()
            super().fsync_directory(path)

    made, failed = threading.Event(), threading.Event()
    fs = Ordered(scratch / "run", (), EIO, manner, random.Random(SEED))
    store = trax.Trax(scratch / "run" / "s", fs=fs)
    store.checkpoint(a="a", b="b")
    outcomes: list[object] = []

    def checkpoint() -> None:
        try:
            outcomes.append(store.checkpoint(b="b" * 5000))
        except trax.TraxError as error:
            outcomes.append(error)

    second = threading.Thread(target=checkpoint, name="second", daemon=True)
    second.start()
    assert made.wait(60)
    with pytest.raises(StorageError, match="could not write"):
        store.checkpoint(a="a" * 5000)
    failed.set()
    second.join(60)
    done = len(fs.operations)
    for _, image in crash_images(fs.start, fs.operations[:done], random.Random(SEED), 8, after=done):
        lay_out(image, scratch / "crash")
        with reopen_and_check(scratch / "crash" / "s") as after:
            assert after.recover("b") == ("b" * 5000 if isinstance(outcomes[0], int) else "b")
    store.close()
