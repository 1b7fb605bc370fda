"""KeyboardInterrupt and MemoryError at any step of trax's code: wherever the interpreter may raise them.

Afterwards the same handle works, or raises errors of trax's tree; the store opens; nothing acknowledged is lost;
nothing hangs, and no lock outlives ``close()``. The searches take their effort from ``TRAX_FAULT_STRIDE``, as in
``tests/test_faults.py``.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

import trax
from tests.counting import count
from tests.faulty import FaultyJob, LocklessFileSystem, Scenario, Sweep, noted
from tests.helpers import GatedFileSystem, reopen_and_check
from tests.interrupting import Place, Steps
from tests.watching import within
from trax.testing.faults import FAULTS, FaultyFileSystem
from trax.testing.fsyncs import ForgetfulFileSystem

SEED = os.environ.get("TRAX_SEED", "20261121")
STRIDE = int(os.environ.get("TRAX_FAULT_STRIDE", "200"))
ERRORS = {"KeyboardInterrupt": KeyboardInterrupt, "MemoryError": MemoryError}

# The call with the exclamation mark is interrupted.
CALLS = {
    "creation": Scenario("!open checkpoint log close"),
    "open": Scenario("!open log checkpoint close", "open fill large log close"),
    "open after a kill": Scenario("!open log checkpoint close", "open fill log log kill"),
    "open after a tear": Scenario("!open log checkpoint close", "open fill log log kill tear", keep=2),
    "open, without locks": Scenario("!open log close", "open fill log close", file_system=LocklessFileSystem),
    "log": Scenario("open !log log checkpoint close", "open fill log close"),
    "log as lines": Scenario("open !log log checkpoint close", "open fill log close", codec="json"),
    "log, lazily": Scenario("open log !log log sync close", "open fill log close", sync="os"),
    "batch": Scenario("open !batch log checkpoint close", "open fill log close"),
    "batch with checkpoints": Scenario("open !mixed log checkpoint close", "open fill log close"),
    "checkpoint": Scenario("open log !checkpoint log checkpoint close", "open fill log close"),
    "checkpoint that syncs a mark": Scenario("open !checkpoint log checkpoint close", "open fill log close"),
    "large checkpoint": Scenario("open log !large log checkpoint close", "open fill large log close", keep=2),
    "compaction": Scenario(
        "open log checkpoint log !checkpoint log checkpoint close", "open fill rare log checkpoint log rare close"
    ),
    "checkpoint_async": Scenario("open log !flight log landed checkpoint close", "open fill log close"),
    "second checkpoint_async": Scenario("open flight log !flight log landed close", "open fill log close"),
    "sync": Scenario("open log !sync sync log checkpoint close", "open fill log close", sync="os"),
    "sync of what is synced": Scenario("open log !sync sync log checkpoint close", "open fill log close"),
    "delete": Scenario("open !delete log checkpoint close", "open fill large log close"),
    "recover that creates": Scenario("open !create log checkpoint close", "open checkpoint log close"),
    "recover": Scenario("open log !recover log checkpoint close", "open fill large log checkpoint log close", keep=2),
    "mapped recover": Scenario("open log !map log checkpoint close", "open fill large log checkpoint log close"),
    "names, stats, verify": Scenario(
        "open log !names log checkpoint close", "open fill large log checkpoint log close"
    ),
    "copy_to": Scenario("open log !copy copy log checkpoint close", "open fill large log checkpoint log close", keep=2),
    "close": Scenario("open log !close open log checkpoint close", "open fill log close"),
    "close, lazily": Scenario("open log log !close open log checkpoint close", "open fill log close", sync="os"),
    "close with a checkpoint in flight": Scenario("open flight log !close open log close", "open fill log close"),
    "close, without locks": Scenario(
        "open log !close open log close", "open fill log close", file_system=LocklessFileSystem
    ),
    "end of a with block": Scenario("open log !leave open log checkpoint close", "open fill log close"),
}


class InterruptedJob(FaultyJob):
    """Interrupted at one step of the marked call; ``where`` begins to trace."""

    steps: Steps
    where: str

    def step(self, step: str) -> None:
        with getattr(self.steps, self.where)() if step.startswith("!") else nullcontext():
            super().step(step.lstrip("!"))

    def heal(self) -> None:
        self.healed = True

    @property
    def failed(self) -> list[str]:
        return self.steps.fired


def interrupted(search: Sweep, steps: Steps, where: str = "here") -> Steps:
    """Play the scenario, interrupted at one step; judge what the next process finds, and what after a power loss."""
    recording = search.lay_out_the_template()
    search.job = type("Interrupted", (InterruptedJob,), {"steps": steps, "where": where})
    job = search.play(recording, recording, go_on=True)
    with noted(job):
        for stage in [*[one for one in job.stages if one.failed][:2], job.stages[-1]]:
            search.lose_power(job, stage, stage.last)
    return steps


def sweep(what: str, places: Sequence[Place], case: Callable[[Place], object], *more: object, every: int = 1) -> None:
    """Try every STRIDE-th step; ``every``: fewer by that factor."""
    stride = STRIDE * every
    print(f"TRAX_SEED={SEED}")
    assert places, "there is nothing to interrupt"
    tried = 0
    for nth in range(random.Random(f"{SEED}-{what}-{more}").randrange(stride), len(places), stride):
        try:
            within(lambda nth=nth: case(places[nth]))  # type: ignore[misc]
        except BaseException as error:
            place = f"{places[nth].code.co_qualname}, {places[nth].offset}, {places[nth].before}"
            error.add_note(f"TRAX_SEED={SEED}, {what!r}: interrupted at step {nth} of {len(places)}: {place} {more}")
            raise
        tried += 1
    if tried:
        count("interrupts", tried)


@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("call", CALLS)
def test_a_call_may_be_interrupted_at_any_step(scratch: Path, call: str, error: str) -> None:
    search = Sweep(scratch, CALLS[call], SEED)
    places = interrupted(search, Steps()).places
    sweep(call, places, lambda place: interrupted(search, Steps(place, ERRORS[error])), error)


@pytest.mark.parametrize("call", ["flight", "flight log flight landed"])
def test_memory_may_be_exhausted_at_any_step_of_a_checkpoint_in_the_background(scratch: Path, call: str) -> None:
    """Its thread begins with the first of them, and makes all of them."""
    scenario = Scenario(f"open log !{call} log landed log checkpoint close", "open fill large log close", keep=2)
    search = Sweep(scratch, scenario, SEED)
    places = interrupted(search, Steps(), "in_new_threads").places
    sweep(call, places, lambda place: interrupted(search, Steps(place, MemoryError), "in_new_threads"))


@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("call", ["log", "sync", "checkpoint", "close", "large", "mixed"])
def test_no_interrupt_hides_that_an_fsync_has_failed(scratch: Path, call: str, error: str) -> None:
    """It comes while the failure is on its way to whoever has to know of it."""
    scenario = Scenario(f"open log !{call} log sync checkpoint close", "open fill log close", sync="os")
    search = Sweep(scratch, scenario, SEED)

    def case(place: Place | None, of: int) -> list[Place]:
        search.lay_out_the_template()
        fs = ForgetfulFileSystem(search.root, (), FAULTS["EIO"], "kept", random.Random(SEED))
        steps = Steps(place, ERRORS[error], counting=lambda: bool(fs.failed))

        class Job(InterruptedJob):
            def step(self, step: str) -> None:
                if step.startswith("!"):
                    fs.fail_next(of)
                super().step(step)

            @property
            def failed(self) -> list[str]:
                return [*fs.failed, *steps.fired]

        Job.steps, Job.where = steps, "here"
        search.job = Job
        job = search.play(fs, fs, go_on=True, lossy=True)
        with noted(job):
            for stage in job.stages[2:]:
                search.lose_power(job, stage, stage.last)
        return steps.places

    for of in range(5):
        if places := case(None, of):
            sweep(f"{call}, whose fsync {of} fails", places, lambda place, of=of: case(place, of), error)  # type: ignore[misc]


@pytest.fixture
def gated() -> Iterator[GatedFileSystem]:
    fs = GatedFileSystem()
    yield fs
    fs.gate.set()


@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("full", [False, True], ids=["", "and the disk is full"])
def test_a_leader_that_is_interrupted_leaves_nobody_waiting(
    scratch: Path, gated: GatedFileSystem, error: str, full: bool
) -> None:
    def case(place: Place | None) -> list[Place]:
        path = scratch / f"{len(list(scratch.iterdir()))}"
        store = trax.Trax(path, fs=(fs := FaultyFileSystem(kinds=("pwrite",), inner=gated)))
        steps = Steps(place, ERRORS[error])
        outcomes: dict[int, object] = {}

        def log(number: int) -> None:
            try:
                with steps.here() if number == 1 else nullcontext():
                    store.log(a=number)
                outcomes[number] = "acknowledged"
            except (trax.TraxError, KeyboardInterrupt, MemoryError) as failure:
                outcomes[number] = failure

        threads = [threading.Thread(target=log, args=(number,), daemon=True) for number in range(4)]
        gated.close_gate()
        threads[0].start()
        assert gated.waiting.wait(60)
        for thread in threads[1:]:
            thread.start()
        committer = store._writer.committer  # type: ignore[union-attr]
        while len(committer._queue) < (3 if threads[1].is_alive() else 2):
            threads[2].join(0.001)  # the three are in one group, behind what is being synced
        if full:
            fs.fail_at(fs.count, FAULTS["ENOSPC"])
        gated.gate.set()
        for thread in threads:
            thread.join(60)
            assert not thread.is_alive(), "it waits for ever"
        store.log(a="after")
        store.close()
        with reopen_and_check(path) as again:
            found = [entry for _, entry in again.entries("a")]
        assert found[-1] == "after" and len(set(found)) == len(found)
        for number, outcome in outcomes.items():
            if outcome == "acknowledged":
                assert number in found
            elif isinstance(outcome, trax.TraxError):
                assert number not in found, "what was refused comes later"
                assert full
        assert outcomes[0] == "acknowledged"
        return steps.places

    sweep("the leader of a group", case(None), case, error, full, every=4)  # the others wait until they miss it


@pytest.fixture
def ctrl_c() -> Iterator[Callable[[], None]]:
    """Sends the main thread what Ctrl-C sends, as soon as it waits for something."""
    main = threading.main_thread()
    if threading.current_thread() is not main:
        pytest.skip("signal handlers run in the main thread")

    def send() -> None:
        assert main.ident is not None
        before, place = None, (None, 0)
        while before != place or place[0] not in (trax.commit.__file__, trax.publish.__file__, threading.__file__):
            threading.Event().wait(0.02)
            frame = sys._current_frames()[main.ident]
            before, place = place, (frame.f_code.co_filename, frame.f_lasti)
        signal.pthread_kill(main.ident, signal.SIGINT)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield threading.Thread(target=send, daemon=True).start
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("waits", ["log", "checkpoint", "sync", "result", "close"])
def test_ctrl_c_ends_the_wait_for_another_thread(
    tmp_path: Path, gated: GatedFileSystem, ctrl_c: Callable[[], None], waits: str
) -> None:
    store = trax.Trax(tmp_path / "s", fs=gated)
    store.checkpoint(a=[])
    store.log(a=0)
    calls: dict[str, Callable[[], Any]] = {
        "log": lambda: store.log(a=2),
        "checkpoint": lambda: store.checkpoint(b="b"),
        "sync": store.sync,
        "result": lambda: future.result(60),
        "close": store.close,
    }
    gated.close_gate()
    future = store.checkpoint_async(b="c")
    assert gated.waiting.wait(60)
    ctrl_c()
    with pytest.raises(KeyboardInterrupt):
        calls[waits]()
        raise AssertionError("it has not waited")
    gated.gate.set()
    future.result(60)
    if waits != "close":
        store.log(a="after")
    store.close()
    with reopen_and_check(tmp_path / "s") as again:
        entries = [entry for _, entry in again.entries("a")]
        assert set(entries) - {2} == ({0, "after"} if waits != "close" else {0})
        assert again.recover("b") == "c", "what had not begun was not done"
