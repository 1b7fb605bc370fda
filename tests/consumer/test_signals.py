"""Ctrl-C and SIGTERM, sent to real processes: they end a run between two records."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.consumer.toys import statuses
from trax.consumer import Checkpoint, Status

PROGRAM = """
import os, select, signal, sys
from trax.consumer import Checkpoint, Consumer

class Waits(Consumer):
    def fetch(self, pointer, limit):
        if pointer == 3:
            print("polling", flush=True)
        until = min(pointer + limit, 3)
        return [{"id": f"r{n}"} for n in range(pointer, until)], until

    def process(self, record):
        os.write(1, f"{record['id']}\\n".encode())
        while not select.select([0], [], [], 0.05)[0]:
            pass  # a signal that comes just before a read would not be heard until that ends
        os.read(0, 1)

    def stop(self):
        super().stop()
        if self.workers > 1:  # the others go on until the main thread has heard the signal
            os.write(1, b"stopping\\n")

before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
with Checkpoint(sys.argv[1], "stream", initial_pointer=0) as checkpoint:
    print(Waits(checkpoint, workers=int(sys.argv[2]), poll_s=1000).run(), flush=True)
assert before == (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT))
"""


class Child:
    def __init__(self, path: Path, workers: int = 1) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(path), str(workers)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )

    def says(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().rstrip()

    def go_on(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def end(self) -> tuple[str, str, int]:
        out, err = self.process.communicate(timeout=60)
        return out, err, self.process.returncode


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_run_when_the_record_has_ended(tmp_path: Path, number: int) -> None:
    child = Child(tmp_path / "store")
    assert child.says() == "r0"
    child.go_on()
    assert child.says() == "r1"
    child.process.send_signal(number)
    child.go_on()
    assert child.end() == ("stopped\n", "", 0)
    with Checkpoint(tmp_path / "store", "stream") as checkpoint:
        assert statuses(checkpoint) == {"r0": "succeeded", "r1": "succeeded", "r2": "pending"}
        assert checkpoint.tracker("r2").attempts == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_wait_for_new_records(tmp_path: Path, number: int) -> None:
    child = Child(tmp_path / "store")
    for record in ("r0", "r1", "r2"):
        assert child.says() == record
        child.go_on()
    assert child.says() == "polling"
    child.process.send_signal(number)
    assert child.end() == ("stopped\n", "", 0)


def test_a_signal_ends_several_workers_when_their_records_have_ended(tmp_path: Path) -> None:
    child = Child(tmp_path / "store", workers=2)
    assert {child.says(), child.says()} == {"r0", "r1"}
    child.process.send_signal(signal.SIGTERM)
    assert child.says() == "stopping"
    child.go_on()
    child.go_on()
    assert child.end() == ("stopped\n", "", 0)
    with Checkpoint(tmp_path / "store", "stream") as checkpoint:
        assert statuses(checkpoint) == {"r0": "succeeded", "r1": "succeeded", "r2": "pending"}


def test_a_second_ctrl_c_interrupts_the_record_which_is_pending_again(tmp_path: Path) -> None:
    child = Child(tmp_path / "store")
    assert child.says() == "r0"
    child.process.send_signal(signal.SIGINT)
    while child.process.poll() is None:  # the second must not come before the first was handled
        child.process.send_signal(signal.SIGINT)
        try:
            child.process.wait(0.2)
        except subprocess.TimeoutExpired:
            continue
    _, err, code = child.end()
    assert "KeyboardInterrupt" in err and code in (1, -signal.SIGINT)
    with Checkpoint(tmp_path / "store", "stream") as checkpoint:
        tracker = checkpoint.tracker("r0")
        assert (tracker.status, tracker.attempts) == (Status.PENDING, 1)


def test_a_second_ctrl_c_stops_the_other_workers_too(tmp_path: Path) -> None:
    child = Child(tmp_path / "store", workers=2)
    assert {child.says(), child.says()} == {"r0", "r1"}
    while child.process.poll() is None:
        child.process.send_signal(signal.SIGINT)
        try:
            child.process.wait(0.2)
        except subprocess.TimeoutExpired:
            continue
    out, err, _ = child.end()
    assert out == "stopping\n" and "KeyboardInterrupt" in err
    with Checkpoint(tmp_path / "store", "stream") as checkpoint:
        assert [tracker.attempts for tracker in checkpoint.trackers()] == [1, 1, 0]


def test_a_second_sigterm_ends_the_process_and_the_store_opens(tmp_path: Path) -> None:
    child = Child(tmp_path / "store")
    assert child.says() == "r0"
    while child.process.poll() is None:
        child.process.send_signal(signal.SIGTERM)
        try:
            child.process.wait(0.2)
        except subprocess.TimeoutExpired:
            continue
    assert child.end()[2] == -signal.SIGTERM
    with Checkpoint(tmp_path / "store", "stream") as checkpoint:
        assert (checkpoint.tracker("r0").status, checkpoint.tracker("r0").attempts) == (Status.PENDING, 1)
