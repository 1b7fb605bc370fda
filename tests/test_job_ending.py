"""When a job checkpoints, and how signals and deadlines end it."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path
from typing import Any

import pytest

import trax
from trax.errors import InvalidArgumentError
from trax.job import Policy, every, log_larger_than, on_signal, optimal
from trax.job.deadlines import deadline_from
from trax.job.meter import Meter
from trax.job.policies import Facts, Optimal
from trax.storage.local.fs import LocalFileSystem


class Clock:
    """Time that passes when the test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "job.trax"


def checkpoints(path: Path, policy: Policy, steps: int, clock: Clock, seconds_a_step: float = 1.0) -> list[int]:
    """The steps in which the policy asked for a checkpoint."""
    asked = []
    with trax.Job(path, checkpoint_when=policy, clock=clock) as job:
        for step in job.loop(range(steps)):
            clock.now += seconds_a_step
            job.log(state=bytes(100))
            if job.should_checkpoint():
                asked.append(step)
                job.checkpoint(state=b"")
        assert job.stats()["checkpoints"] == len(asked) and job.stats()["steps"] == steps
    return asked


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        (every(steps=3), [2, 5, 8]),
        (every(seconds=4), [3, 7]),
        (every(steps=3) | every(seconds=2), [1, 3, 5, 7, 9]),
        (every(steps=3) & every(seconds=5), [4, 9]),
        (every(steps=5, seconds=3), [2, 5, 8]),
        (on_signal(), []),
    ],
)
def test_policies_compose(path: Path, policy: Policy, expected: list[int]) -> None:
    assert checkpoints(path, policy, 10, Clock()) == expected


def test_a_policy_can_look_at_the_size_of_the_log(path: Path) -> None:
    asked = checkpoints(path, log_larger_than(1000), 30, Clock())
    gaps = [later - earlier for earlier, later in itertools.pairwise(asked)]
    assert asked and all(4 <= gap <= 10 for gap in gaps), asked


def test_the_best_interval_is_youngs_when_replaying_takes_as_long_as_the_work() -> None:
    policy = optimal(mtbf_s=10_000, recovery_s=1e9)
    assert isinstance(policy, Optimal)
    assert policy.interval_s(Facts(checkpoint_s=2.0)) == pytest.approx(200.0)
    assert policy.interval_s(Facts(checkpoint_s=2.0, replay_ratio=0.01)) == pytest.approx(2000.0)
    assert policy.interval_s(Facts()) == 60.0, "before anything is measured"


def test_the_interval_keeps_to_the_budgets() -> None:
    policy = optimal(mtbf_s=10_000, recovery_s=50, log_bytes=1000)
    assert isinstance(policy, Optimal)
    assert policy.interval_s(Facts(checkpoint_s=2.0)) == 50.0
    assert policy.is_due(Facts(steps=1, log_size=lambda: 1001, checkpoint_s=2.0))
    assert not policy.is_due(Facts(steps=1, log_size=lambda: 999, checkpoint_s=2.0))


@pytest.mark.parametrize("make", [lambda: every(), lambda: every(steps=0), lambda: optimal(mtbf_s=-1)])
def test_a_policy_without_meaning_is_refused(make: Any) -> None:
    with pytest.raises(InvalidArgumentError):
        make()


def test_a_deadline_ends_the_loop_in_time_and_the_next_start_goes_on(path: Path) -> None:
    clock = Clock()
    seen = []
    for _ in range(3):
        with trax.Job(path, clock=clock, deadline_s=40, checkpoint_when=every(steps=100)) as job:
            asked = []
            for step in job.loop(range(30)):
                clock.now += 3
                asked.append(job.should_checkpoint())
                seen.append(step)
            if job.is_ending:
                assert job.exit_status == 75 and list(job.loop(range(3), name="next")) == []
            else:
                assert job.exit_status == 0
    # The margin of three seconds (three times a second, before a checkpoint was measured), and the longest step's.
    assert seen == list(range(30)) and not any(asked[:-1])


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"SLURM_JOB_END_TIME": "1700000000"}, 1_700_000_000.0),
        ({"PBS_WALLTIME": "3600"}, 4600.0),
        ({"PBS_WALLTIME": "01:00:30"}, 4630.0),
        ({"PBS_WALLTIME": "unlimited"}, None),
        ({"PBS_WALLTIME": "1:-2"}, None),
        ({"SLURM_JOB_END_TIME": "soon"}, None),
        ({}, None),
    ],
)
def test_schedulers_say_when_they_will_end_a_job(environment: dict[str, str], expected: float | None) -> None:
    assert deadline_from(environment, Clock()) == expected


SCRIPT = """
import os, signal, sys, trax
def before(number, frame):
    os.write(1, b"old handler %d\\n" % number)  # print() may be in the middle of a call
if "forward" in sys.argv:
    signal.signal(signal.SIGTERM, before)
try:
    with trax.Job(sys.argv[1], checkpoint_when=trax.job.every(steps=1000)) as job:
        state = job.recover("state", lambda: 0, lambda state, entry: state + entry)
        for step in job.loop(range(6)):
            print("step", step, flush=True)
            sys.stdin.readline()
            job.log(state=1)
            state += 1
            if job.should_checkpoint():
                print("checkpoint", flush=True)
                job.checkpoint(state=state)
    print("ended", job.interrupted and job.interrupted.name, flush=True)
except KeyboardInterrupt:
    print("interrupted", flush=True)
    sys.exit(3)
sys.exit(job.exit_status)
"""


class Child:
    """The script in a process of its own, a line from it and a line to it at a time."""

    def __init__(self, path: Path, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", SCRIPT, str(path), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def expect(self, *lines: str) -> None:
        assert self.process.stdout is not None
        assert [self.process.stdout.readline().strip() for _ in lines] == list(lines)

    def go_on(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def end(self) -> int:
        self.process.communicate(timeout=6)
        return self.process.returncode


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGUSR1", "SIGUSR2", "SIGXCPU"])
def test_a_signal_ends_the_job_behind_its_step_and_it_can_be_started_again(path: Path, name: str) -> None:
    number = getattr(signal, name)
    child = Child(path)
    child.expect("step 0")
    child.go_on()
    child.expect("step 1")
    child.process.send_signal(number)
    child.go_on()
    child.expect("checkpoint", f"ended {name}")
    assert child.end() == 128 + number
    child = Child(path)
    for step in range(2, 6):
        child.expect(f"step {step}")
        child.go_on()
    child.expect("ended None")
    assert child.end() == 0
    with trax.Trax(path) as store:
        assert store.recover("state", replay_log=lambda state, entry: state + entry) == 6


def test_the_handler_that_was_there_before_is_called(path: Path) -> None:
    child = Child(path, "forward")
    child.expect("step 0")
    child.process.send_signal(signal.SIGTERM)
    child.expect("old handler 15")
    child.go_on()
    child.expect("checkpoint", "ended SIGTERM")
    assert child.end() == 128 + 15


def test_a_second_interrupt_interrupts_at_once_and_costs_only_the_step(path: Path) -> None:
    child = Child(path, "forward")
    child.expect("step 0")
    child.go_on()
    child.expect("step 1")
    child.process.send_signal(signal.SIGTERM)
    child.expect("old handler 15")
    child.process.send_signal(signal.SIGINT)
    child.expect("interrupted")
    assert child.end() == 3
    child = Child(path)
    child.expect("step 1")
    child.process.kill()
    child.end()


MD = """
import os, sys, trax
with trax.Job("md.trax", checkpoint_when=trax.job.every(steps=1000)) as job:
    state = job.recover("state", lambda: 0, lambda state, entry: state + entry)
    for step in job.loop(range(6)):
        print(os.getpid(), step, flush=True)
        sys.stdin.readline()
        job.log(state=1)
sys.exit(job.exit_status)
"""
STUB = '#!/bin/sh\necho "{name} $*" >>"$LOG"\n{then}\n'


def page_script(name: str) -> str:
    page = (Path(__file__).parent.parent / "docs/how-to/slurm.rst").read_text(encoding="utf-8")
    ((block),) = re.findall(rf":caption: {re.escape(name)}\n\n((?: {{3}}.*\n|\n)+)", page)
    return textwrap.dedent(block)


class Scheduler:
    """Runs a script of the page, with commands that note how they were called in place of the scheduler's."""

    def __init__(self, directory: Path, script: str) -> None:
        self.directory, self._script = directory, script
        (directory / "bin").mkdir()
        (directory / "md.py").write_text(MD)
        (directory / script).write_text(page_script(script))
        self._stub("srun", 'exec "$@"')
        self._stub("scontrol")
        self._stub("qsub")
        self._stub("python", f'exec {sys.executable} "$@"')

    def _stub(self, name: str, then: str = "") -> None:
        path = self.directory / "bin" / name
        path.write_text(STUB.format(name=name, then=then))
        path.chmod(0o755)

    def run(self, number: signal.Signals | None, **variables: str) -> tuple[list[int], list[str]]:
        """The steps that were begun until a signal in the second of them, and what was asked of the scheduler."""
        (self.directory / "log").unlink(missing_ok=True)
        search = f"{self.directory / 'bin'}{os.pathsep}{os.environ['PATH']}"
        paths = {"PATH": search, "LOG": str(self.directory / "log"), "PBS_O_WORKDIR": str(self.directory)}
        source = str(Path(trax.__file__).parent.parent)
        environment = {**os.environ, **paths, "PYTHONPATH": source, "SLURM_JOB_ID": "17", **variables}
        process = subprocess.Popen(
            ["bash", self._script],
            cwd=self.directory,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdin is not None and process.stdout is not None
        begun = []
        for line in process.stdout:
            pid, step = map(int, line.split())
            begun.append(step)
            if len(begun) == 2 and number is not None:
                os.kill(pid, number)
            with contextlib.suppress(BrokenPipeError):  # of a process that was killed
                process.stdin.write("\n")
                process.stdin.flush()
        process.communicate(timeout=6)
        asked = (self.directory / "log").read_text().splitlines()
        return begun, [line for line in asked if line.startswith(("scontrol", "qsub"))]


@pytest.mark.parametrize(
    ("script", "number", "again"),
    [("md.sh", signal.SIGUSR1, ["scontrol requeue 17"]), ("md.pbs", signal.SIGTERM, ["qsub md.pbs"])],
)
def test_the_scripts_of_the_page_queue_a_job_again_until_it_is_done(
    tmp_path: Path, script: str, number: signal.Signals, again: list[str]
) -> None:
    scheduler = Scheduler(tmp_path, script)
    assert scheduler.run(number) == ([0, 1], again)
    assert scheduler.run(number) == ([2, 3], again)
    assert scheduler.run(signal.SIGKILL) == ([4, 5], []), "and a job that has crashed is not queued again"
    assert scheduler.run(None) == ([5], [])
    assert scheduler.run(None) == ([], [])


def test_a_job_of_slurm_whose_time_is_over_is_queued_again_without_a_signal(tmp_path: Path) -> None:
    scheduler = Scheduler(tmp_path, "md.sh")
    now = int(time.time())
    assert scheduler.run(None, SLURM_JOB_END_TIME=str(now + 1)) == ([], ["scontrol requeue 17"])
    assert scheduler.run(None, SLURM_JOB_END_TIME=str(now + 3600)) == ([0, 1, 2, 3, 4, 5], [])


class HeldBlobs(LocalFileSystem):
    """Blobs that other threads than the main one write wait until they may."""

    def __init__(self) -> None:
        self.may_go_on = threading.Event()

    def create(self, path: str, mode: int | None = None) -> int:
        if "blobs" in path and threading.current_thread() is not threading.main_thread():
            assert self.may_go_on.wait(60)
        return super().create(path, mode)


def test_a_slow_checkpoint_is_one_of_the_last_hundred(path: Path) -> None:
    clock = Clock()
    with trax.Trax(path) as store:
        meter = Meter(every(steps=1), clock, store)

        def checkpoint(seconds: float) -> None:
            meter.begin_commit()
            clock.now += seconds
            meter.note_checkpoint()

        assert (meter.checkpoint_s, meter.slow_checkpoint_s) == (None, 1.0)
        for seconds in (2.0, 30.0, 4.0):
            checkpoint(seconds)
        assert (meter.checkpoint_s, meter.slow_checkpoint_s) == (12.0, 30.0)
        for _ in range(98):
            checkpoint(1.0)
        assert meter.slow_checkpoint_s == 30.0
        checkpoint(1.0)
        assert meter.slow_checkpoint_s == 4.0, "the other one is too long ago"


def test_near_the_deadline_a_checkpoint_in_the_background_is_counted_and_waited_for(path: Path) -> None:
    clock, fs = Clock(), HeldBlobs()
    asked = []
    with trax.Job(path, fs=fs, clock=clock, deadline_s=30, checkpoint_when=every(steps=100)) as job:
        state = job.recover("state", lambda: 0, lambda state, entry: state + entry)
        for step in job.loop(range(30)):
            clock.now += 1
            state += 1
            job.log(state=1)
            if step == 0:
                job.checkpoint(state=state)
            if step == 20:
                job.checkpoint_async(state=state, large=bytes(1 << 20))
            asked.append(job.should_checkpoint())
            if asked[-1]:
                fs.may_go_on.set()
                job.checkpoint(state=state)
        assert job.is_ending and job.stats()["checkpoints"] == 3, "it has waited for the one in the background"
    assert asked.count(True) == 1 and asked[-1]
    with trax.Trax(path) as store:
        assert store.recover("state") == len(asked) and store.recover("large") == bytes(1 << 20)
        assert [*store.entries("state")] == []


@pytest.mark.parametrize("in_background", [False, True])
def test_a_checkpoint_in_the_background_lets_the_end_begin_earlier(path: Path, in_background: bool) -> None:
    clock, fs = Clock(), HeldBlobs()
    with trax.Job(path, fs=fs, clock=clock, deadline_s=5) as job:
        assert not job.is_ending, "before one is measured, a checkpoint takes a second, and the margin is three of them"
        if in_background:
            job.checkpoint_async(large=bytes(1 << 20))
        assert job.is_ending == in_background
        clock.now += 1
        assert not job.is_ending, "it should be done by now"
        fs.may_go_on.set()


def test_a_job_that_has_ended_for_its_deadline_stays_so_when_a_checkpoint_turns_out_to_be_fast(path: Path) -> None:
    clock = Clock()
    with trax.Job(path, clock=clock, deadline_s=10) as job:
        for _ in job.loop(range(30), name="first"):
            clock.now += 1
        job.checkpoint(state=1)  # it takes no time, and three seconds were kept for it
        assert job.is_ending and job.exit_status == 75
        assert list(job.loop(range(3), name="second")) == [], "the first one has not come to its end"


def test_the_handlers_are_put_back(path: Path) -> None:
    before = signal.getsignal(signal.SIGTERM)
    with trax.Job(path):
        assert signal.getsignal(signal.SIGTERM) != before
    assert signal.getsignal(signal.SIGTERM) == before


def test_jobs_that_are_closed_in_any_order_put_the_handlers_back(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGTERM)
    one, other = trax.Job(tmp_path / "one.trax"), trax.Job(tmp_path / "other.trax")
    one.close()
    signal.raise_signal(signal.SIGTERM)
    assert (one.interrupted, other.interrupted) == (None, signal.SIGTERM)
    other.close()
    assert signal.getsignal(signal.SIGTERM) == before


@pytest.mark.parametrize("signals", [["SIGTREM"], "SIGTERM", ["SIGKILL"], [0], 15])
def test_signals_that_can_not_be_watched_are_refused(path: Path, signals: Any) -> None:
    with pytest.raises(InvalidArgumentError, match="signal"):
        trax.Job(path, signals=signals)
    trax.Job(path).close()  # it was let go of


@pytest.mark.parametrize(
    "options",
    [
        {"deadline_s": "01:00:00"},
        {"deadline_s": float("nan")},
        {"deadline_margin": -1},
        {"verify_every": -1},
        {"verify_every": 0.5},
        {"checkpoint_when": 600},
    ],
)
def test_options_without_meaning_are_refused(path: Path, options: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgumentError, match=f"{next(iter(options))} is"):
        trax.Job(path, **options)
    assert not path.exists()


def test_a_signal_that_is_named_twice_is_watched_once(path: Path) -> None:
    with trax.Job(path, signals=["SIGUSR1", signal.SIGUSR1]) as job:
        signal.raise_signal(signal.SIGUSR1)
        assert job.interrupted == signal.SIGUSR1


WORKER = """
import multiprocessing, sys, threading, trax
def work(connection):
    connection.send("ready")
    threading.Event().wait()
with trax.Job(sys.argv[1]) as job:
    for step in job.loop(range(2)):
        here, there = multiprocessing.Pipe()
        worker = multiprocessing.get_context("fork").Process(target=work, args=(there,))
        worker.start()
        here.recv()
        worker.terminate()  # as a pool does with its workers
        worker.join(float(sys.argv[2]))
        print(worker.exitcode)
        worker.kill()
"""


def test_a_worker_that_was_forked_in_a_step_can_be_ended(path: Path) -> None:
    command = [sys.executable, "-c", WORKER, str(path), "60"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=150, cwd=Path(__file__).parent.parent)
    assert done.stdout == "-15\n-15\n", done.stderr


def test_what_a_checkpoint_costs_includes_what_is_written_before_its_commit(path: Path) -> None:
    now = [100.0]

    class Slow(LocalFileSystem):
        def create(self, path: str, mode: int | None = None) -> int:
            if "blobs" in path:
                now[0] += 7.0
            return super().create(path, mode)

    with trax.Job(path, clock=lambda: now[0], fs=Slow(), deadline_s=10_000) as job:
        for _ in job.loop(range(3)):
            job.checkpoint(large=bytes(100_000))
        assert job._meter.checkpoint_s == 7.0
