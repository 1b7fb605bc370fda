"""Power loss at every operation of a random job, in a random legal state of the disk: nothing durable is lost."""

from __future__ import annotations

import os
import random
import tempfile
from pathlib import Path

import pytest

from tests.counting import count
from tests.crashing import Job, crash_after_a_kill, crash_everywhere
from trax.storage.local import compaction

SEED = os.environ.get("TRAX_SEED", "20261121")
RUNS = int(os.environ.get("TRAX_CRASH_RUNS", "4"))


@pytest.fixture(autouse=True)
def _compact_early(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small jobs must reach the compaction of the log too."""
    monkeypatch.setattr(compaction, "LARGE_BYTES", 200)
    monkeypatch.setattr(compaction, "MANY_SEGMENTS", 2)


@pytest.mark.parametrize("sync", ["always", "os"])
@pytest.mark.parametrize("keep", [1, 2])
@pytest.mark.parametrize("codec", ["msgpack", "json"])
def test_power_loss_anywhere_leaves_a_state_that_the_store_had(sync: str, keep: int, codec: str) -> None:
    print(f"TRAX_SEED={SEED}")
    memory = (
        "/dev/shm" if os.path.isdir("/dev/shm") else None
    )  # the crashes are modelled: a real disk would only be slow
    seen: set[int] = set()
    tried = nested = 0
    for run in range(RUNS):
        dice = random.Random(f"{SEED}-{sync}-{keep}-{codec}-{run}")
        with tempfile.TemporaryDirectory(dir=memory) as directory:
            (Path(directory) / "run").mkdir()
            job = Job(Path(directory) / "run" / "store", dice, sync, keep, codec)
            states, deeper = crash_everywhere(job, 8, 2, Path(directory) / "crash", seen, deep=0.05)
            tried, nested = tried + states, nested + deeper
    count("power loss", tried)
    count("power loss in the recovery", nested)
    assert tried > 50 * RUNS and nested > 0


@pytest.mark.parametrize("sync", ["always", "os"])
def test_power_loss_after_a_kill_takes_nothing_that_the_next_process_saw(sync: str) -> None:
    print(f"TRAX_SEED={SEED}")
    memory = "/dev/shm" if os.path.isdir("/dev/shm") else None
    seen: set[int] = set()
    tried = 0
    for run in range(RUNS):
        dice = random.Random(f"{SEED}-{sync}-{run}")
        with tempfile.TemporaryDirectory(dir=memory) as directory:
            (Path(directory) / "run").mkdir()
            job = Job(Path(directory) / "run" / "store", dice, sync, 1 + run % 2)
            tried += crash_after_a_kill(job, 5, 1, Path(directory) / "crash", seen, share=0.08)
    count("power loss after a kill", tried)
    assert tried > 20 * RUNS
