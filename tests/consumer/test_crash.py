"""Killed at every call of the file system, and without power after every operation: nothing acknowledged is lost, no
record is skipped, nothing is wedged, and each attempt is counted."""

from __future__ import annotations

import itertools
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import trax
from tests.consumer.crashing import NoSync, judge, judge_the_end, new_job, open_checkpoint, run
from tests.counting import count
from tests.sweeping import memory
from trax.errors import HandleError, StorageError
from trax.testing.disks import crash_images
from trax.testing.faults import FAULTS, FaultyFileSystem
from trax.testing.recording import RecordingFileSystem

SEED = os.environ.get("TRAX_SEED", "20261121")
STRIDE = int(os.environ.get("TRAX_CONSUMER_STRIDE", "5"))
PROGRAM = Path(__file__).with_name("crashing.py")


@pytest.mark.parametrize(("workers", "stride"), [(1, 1), (3, STRIDE)])
def test_sigkill_at_every_call_of_the_file_system(tmp_path: Path, workers: int, stride: int) -> None:
    print(f"TRAX_SEED={SEED} TRAX_CONSUMER_STRIDE={STRIDE}")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    with memory() as directory:
        command = [sys.executable, "-W", "ignore", str(PROGRAM), *map(str, (directory, workers, SEED, stride))]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr[-5000:]
    count("consumers killed", int(done.stdout))


@pytest.mark.parametrize("fault", ["EIO", "ENOSPC", "KeyboardInterrupt"])
def test_any_call_of_the_file_system_may_fail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str) -> None:
    """What fails is no failure of a record. The same handles go on, or, if they can't, new ones."""
    print(f"TRAX_SEED={SEED} TRAX_CONSUMER_STRIDE={STRIDE}")
    monkeypatch.setattr(os, "fsync", lambda fd: None)
    monkeypatch.setattr(os, "fdatasync", lambda fd: None)
    tried = 0
    for nth in itertools.count(int(SEED, 36) % STRIDE, STRIDE):
        path, ledger = tmp_path / str(nth), []
        fs = FaultyFileSystem(nth, FAULTS[fault])
        ending = ""
        for _ in range(5):
            try:
                with trax.Trax(path, fs=fs) as store, open_checkpoint(store) as checkpoint:
                    while ending != "ended":
                        try:
                            ending = new_job(checkpoint, ledger.append).run()
                        except (StorageError, KeyboardInterrupt):
                            continue
            except (HandleError, StorageError, KeyboardInterrupt):
                continue
            break
        assert ending == "ended", f"{fs.failed} left it wedged"
        judge_the_end(path, ledger, 1)
        if not fs.failed:
            break
        tried += 1
    count(f"consumers and {fault}", tried)


def test_power_loss_after_every_operation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    print(f"TRAX_SEED={SEED} TRAX_CONSUMER_STRIDE={STRIDE}")
    dice = random.Random(SEED)
    path = tmp_path / "job" / "store"
    path.parent.mkdir()
    fs = RecordingFileSystem(path.parent)
    ledger: list[str] = []

    def write(line: str) -> None:
        ledger.append(line)
        fs.note(len(ledger))

    run(path, write, fs=fs)
    known = [0]
    for operation in fs.operations:
        known.append(operation.note if operation.kind == "note" else known[-1])
    monkeypatch.setattr(os, "fsync", lambda fd: None)
    monkeypatch.setattr(os, "fdatasync", lambda fd: None)
    tried, seen = 0, set()
    for number, (done, image) in enumerate(crash_images(fs.start, fs.operations, dice, 1)):
        if number % STRIDE != int(SEED, 36) % STRIDE or (key := (image.key(), known[done])) in seen:
            continue
        seen.add(key)
        tried += 1
        scratch = tmp_path / "scratch"
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir()
        image.lay_out(str(scratch))
        lines = ledger[: known[done]]
        try:
            judge(scratch / "store", lines, 1)
            run(scratch / "store", lines.append, fs=NoSync())
            judge_the_end(scratch / "store", lines, 1)
        except BaseException as error:
            error.add_note(f"after operation {done}: {fs.operations[max(0, done - 3) : done]}")
            raise
    count("consumers without power", tried)
