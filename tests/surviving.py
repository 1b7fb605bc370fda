"""Crash a file system, or fill it, under ``tests/working.py`` again and again, and judge what is left of the store.

Run as a program, in a mount namespace of its own (see ``tests/mounting.py``):
``python -m tests.surviving crash|fill DIRECTORY KIND ROUNDS SEED``. The last line that it prints is a JSON object: how
often it has done what. Status 77: this machine can't do it, and the last line says why.
"""

from __future__ import annotations

import json
import random
import shutil
import signal
import subprocess
import sys
import time
import warnings
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import trax
from tests.judging import NO_CRASH, Crash, Judge, Told, read_ledger
from tests.mounting import Disk, NotHereError
from tests.working import THREADS

ROUNDS_A_STORE = 4
NOT_HERE = 77
_END_S = 60.0
"""A worker whose file system is gone must have ended by then."""


@dataclass
class Trial:
    """Rounds on one disk, on a store that is replaced by a new one now and then."""

    disk: Disk
    ledgers: Path
    seed: str
    dice: random.Random
    tried: Counter[str] = field(default_factory=Counter)

    def crash(self, rounds: int) -> None:
        """Each time in the middle of the work; now and then while the store is being opened."""
        ways = {"file system shut down": self.disk.shut_down, "disk lost": self.disk.lose}
        for number in range(rounds):
            if number % ROUNDS_A_STORE == 0:
                judge = self._new_store(number)
            way = [*ways][number % len(ways)]
            with self._worker(judge, number, padding_bytes=20_000) as worker:
                self._wait_a_moment(worker, number)
                self.disk.write_some(self.dice)
                began = self._ledger_bytes(number)
                try:
                    ways[way](self.dice)
                except NotHereError as missing:
                    print(missing)
                    del ways[way]
                    (way,) = ways
                    ways[way](self.dice)
                happened = self._ledger_bytes(number)
                self._await_end(worker, number)
            self.disk.mount_again()
            told = self._told(number, [Crash(*both) for both in zip(began, happened, strict=True)])
            # By reading alone, if there is a store: the next worker is to find it as the crash has left it.
            judge.judge(told, "r" if judge.store_exists else "a")
            if self.dice.random() < 0.5 or (number + 1) % ROUNDS_A_STORE == 0 or number + 1 == rounds:
                judge.judge(told)
                judge.use(number)
            self.tried[f"{way} ({self.disk.kind})"] += 1

    def fill(self, rounds: int) -> None:
        """Nearly to the end, so that the worker finds it full at some place or other; then make room again."""
        for number in range(rounds):
            if number % ROUNDS_A_STORE == 0:
                judge = self._new_store(number)
            self.disk.fill(self.dice.randint(0, 4 << 20))
            with self._worker(judge, number, padding_bytes=100_000) as worker:
                errors = self._await_end(worker, number)
            assert any("ENOSPC" in error for error in errors), errors
            assert all("ENOSPC" in error or "FinishedError" in error for error in errors), errors
            if self.dice.random() < 0.5:
                self.disk.lose(self.dice)
                self.disk.mount_again()
            told = self._told(number)
            if judge.store_exists:
                judge.judge(told, "r")  # reading needs no room
            self._open_while_full(judge)
            self.disk.empty()
            judge.judge(told)
            judge.use(number)
            self.tried[f"file system full ({self.disk.kind})"] += 1

    def _new_store(self, number: int) -> Judge:
        for old in self.disk.path.glob("store*"):
            shutil.rmtree(old)
        return Judge(self.disk.path / f"store{number}", self.dice.choice(["msgpack", "json"]))

    def _worker(self, judge: Judge, number: int, *, padding_bytes: int) -> subprocess.Popen[str]:
        sync = ["always", "interval", "os"][number % 3]
        options = {"sync": sync, "keep": self.dice.randint(1, 3), "codec": judge.codec, "sync_interval_s": 0.02}
        if sync != "always":
            options["buffer_bytes"] = self.dice.choice([0, 4096])
        ledger = self.ledgers / str(number)
        ledger.mkdir()
        how = {
            "store": str(judge.store),
            "options": options,
            "ledger": str(ledger),
            "seed": f"{self.seed}-{number}",
            "padding_bytes": padding_bytes,
        }
        print(f"round {number}: {options}", flush=True)
        command = [sys.executable, "-W", "ignore", "-X", "faulthandler", "-m", "tests.working", json.dumps(how)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    def _ledger(self, number: int) -> list[Path]:
        return [self.ledgers / str(number) / str(thread) for thread in range(THREADS)]

    def _ledger_bytes(self, number: int) -> list[int]:
        return [file.stat().st_size if file.exists() else 0 for file in self._ledger(number)]

    def _told(self, number: int, crashes: list[Crash] | None = None) -> list[Told]:
        return [*map(read_ledger, self._ledger(number), crashes or [NO_CRASH] * THREADS)]

    def _open_while_full(self, judge: Judge) -> None:
        with warnings.catch_warnings(action="ignore"):
            try:
                trax.Trax(judge.store, codec=judge.codec).close()
            except trax.errors.DiskFullError as error:
                print(f"  opened while it was full: {error}")

    def _wait_a_moment(self, worker: subprocess.Popen[str], number: int) -> None:
        assert worker.stdout is not None
        assert worker.stdout.readline() == "opening\n"
        if number % 5 == 4:
            time.sleep(self.dice.uniform(0, 0.05))
        else:
            said = worker.stdout.readline()
            assert said == "ready\n", said
            time.sleep(self.dice.uniform(0, 0.3))

    def _await_end(self, worker: subprocess.Popen[str], number: int) -> Counter[str]:
        """What a worker ended with: errors of trax and nothing else."""
        try:
            said, _ = worker.communicate(timeout=_END_S)
        except subprocess.TimeoutExpired:
            worker.send_signal(signal.SIGABRT)  # faulthandler shows where every thread is
            raise
        assert worker.returncode == 0, f"it ended with {worker.returncode}: see its traceback"
        errors = sum((told.errors for told in self._told(number)), Counter[str]())
        errors.update(line.split()[0] for line in said.splitlines() if line not in ("opening", "ready"))
        assert errors, "it ended without an error"
        print(f"  ended with {dict(errors)}", flush=True)
        return errors


def main(what: str, directory: Path, kind: str, rounds: int, seed: str) -> int:
    try:
        disk = Disk(directory, kind)
    except NotHereError as missing:
        print(missing)
        return NOT_HERE
    ledgers = directory / "ledgers"
    ledgers.mkdir()
    trial = Trial(disk, ledgers, seed, random.Random(f"{seed}-{what}-{kind}"))
    {"crash": trial.crash, "fill": trial.fill}[what](rounds)
    print(json.dumps(trial.tried))
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1], Path(sys.argv[2]), sys.argv[3], int(sys.argv[4]), sys.argv[5]))
