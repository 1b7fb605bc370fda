"""A process killed with SIGKILL again and again loses nothing that was acknowledged, and shows no half of the rest."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import pytest

import trax
from tests.counting import count
from tests.killing import THREADS, commit_of, fold

KILLS = int(os.environ.get("TRAX_KILLS", "12"))
SEED = os.environ.get("TRAX_SEED", "20261121")
WORKER = Path(__file__).with_name("killing.py")


def ledger_of(path: Path) -> tuple[list[int], list[int]]:
    """What was issued and what was acknowledged; the ledger's own last line may be torn."""
    lines = path.read_bytes().split(b"\n")[:-1]
    return [int(line[1:]) for line in lines if line[:1] == b"+"], [int(line[1:]) for line in lines if line[:1] == b"="]


def check(store_path: Path, ledger: Path) -> int:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", trax.errors.TornTailWarning)
        store = trax.Trax(store_path)
    recovered = 0
    with store:
        assert store.verify().problems == []
        common = [entry for _, entry in store.entries("both")]
        for thread in range(THREADS):
            state = store.recover(f"own{thread}", list, fold)
            issued, acknowledged = ledger_of(ledger / str(thread)) if (ledger / str(thread)).exists() else ([], [])
            assert state == list(range(len(state))), "each once, in order, without gaps"
            assert commit_of(len(state))[0] == len(state), "half of a batch"
            assert set(acknowledged) <= set(state) <= set(issued)
            # A record with two names is whole or absent: "both" is never checkpointed, so it has every one of them.
            assert [number for owner, number in common if owner == thread] == state
            recovered += len(state)
    return recovered


@pytest.mark.parametrize("sync", ["always", "interval", "os"])
def test_sigkill_loses_nothing_acknowledged_and_shows_no_half_record(tmp_path: Path, sync: str) -> None:
    seed = f"{SEED}-{sync}"
    print(f"TRAX_SEED={SEED}")
    dice = random.Random(seed)
    ledger = tmp_path / "ledger"
    ledger.mkdir()
    recovered = 0
    for kill in range(KILLS):
        command = [
            sys.executable,
            "-W",
            "ignore",
            str(WORKER),
            str(tmp_path / "store"),
            str(ledger),
            sync,
            str(1 + kill % 3),
        ]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as worker:
            assert worker.stdout is not None
            if dice.random() < 0.8:
                assert worker.stdout.readline() == b"ready\n"
                time.sleep(dice.uniform(0, 0.15))
            else:
                time.sleep(dice.uniform(0, 0.25))  # while it is still opening
            worker.send_signal(signal.SIGKILL)
        assert worker.returncode == -signal.SIGKILL, "it ended by itself: see its traceback"
        if kill % 4 == 3 or kill == KILLS - 1:
            now = check(tmp_path / "store", ledger)
            assert now >= recovered
            recovered = now
    assert recovered > 0
    count("SIGKILL", KILLS)
