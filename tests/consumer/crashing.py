"""A job whose every step is written down outside the store, the judge of what a crash leaves of it, and the killer.

Run as a program, ``python crashing.py DIRECTORY WORKERS SEED STRIDE``: for each call of the file system that the job
makes, a child is killed with SIGKILL at that call, a second one is killed somewhere while it goes on, and a third one
judges what they have left, and brings the job to its end. Children are forked, so that each takes milliseconds. With
one worker the calls are always the same, and of those between which nothing has changed, on the disk or in the ledger,
one is enough.
"""

from __future__ import annotations

import itertools
import os
import random
import shutil
import signal
import sys
import traceback
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import trax
from trax.consumer import Checkpoint, Consumer, Effect, Status, Tracker
from trax.storage.local.fs import FileSystem, LocalFileSystem
from trax.testing.faults import FaultyFileSystem

SIZE, LIMIT, MAX_ATTEMPTS = 7, 3, 6
Write = Callable[[str], None]


class Job(Consumer):
    """``r1`` is never processed, and its dead letter not at once; ``r4`` succeeds when it is tried again."""

    write: Write

    def fetch(self, pointer: int, limit: int) -> tuple[list[dict[str, Any]], int | None]:
        until = min(pointer + limit, SIZE)
        return [{"id": f"r{n}", "n": n} for n in range(pointer, until)], None if until == SIZE else until

    def process(self, record: dict[str, Any]) -> Effect:
        attempts = self.checkpoint.tracker(record["id"]).attempts
        self.write(f"started {record['id']} {attempts}")
        if record["n"] == 1 or (record["n"] == 4 and attempts == 1):
            raise ValueError("as it is meant to be")
        return Effect(done=record["id"])

    def dead_letter(self, record: dict[str, Any], tracker: Tracker) -> None:
        self.write(f"dead {record['id']} {tracker.deliveries}")
        if tracker.deliveries == 1:
            raise ConnectionError("not at once")

    def backoff(self, attempt: int) -> float:
        return 0

    def on_record(self, record: Any, tracker: Tracker) -> None:
        self.write(f"acknowledged {tracker.batch} {tracker.record_id} {tracker.version} {tracker.status}")


def run(path: Path, write: Write, workers: int = 1, fs: FileSystem | None = None) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", trax.TraxWarning)
        store = trax.Trax(path, fs=fs)
    with store, open_checkpoint(store) as checkpoint:
        assert new_job(checkpoint, write, workers).run() == "ended"


def open_checkpoint(store: trax.Trax) -> Checkpoint:
    return Checkpoint(store, "stream", initial_pointer=0, max_attempts=MAX_ATTEMPTS)


def new_job(checkpoint: Checkpoint, write: Write, workers: int = 1) -> Job:
    job = Job(checkpoint, limit=LIMIT, workers=workers)
    job.write = write
    return job


def judge(path: Path, ledger: list[str], crashes: int) -> None:
    """What a crash has left: nothing that was acknowledged is missing, and no attempt that was started."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", trax.TraxWarning)
        store = trax.Trax(path)
    started = Counter(words[1] for words in map(str.split, ledger) if words[0] == "started")
    acknowledged: dict[tuple[int, str], tuple[int, str]] = {}
    for words in map(str.split, ledger):
        if words[0] == "acknowledged":
            acknowledged[int(words[1]), words[2]] = int(words[3]), words[4]
    with store, open_checkpoint(store) as checkpoint:
        assert store.verify().problems == []
        done = Counter(entry for _, entry in store.entries("done"))
        summary = checkpoint.summary()
        batch = 0 if summary is None else summary.sequence
        assert batch >= max([0, *(number for number, _ in acknowledged)]), "an acknowledged batch is gone"
        for tracker in checkpoint.trackers():
            version, status = acknowledged.get((batch, tracker.record_id), (0, ""))
            assert tracker.version >= version, f"{tracker} is older than {version}"
            if status == "succeeded":
                assert tracker.status is Status.SUCCEEDED
            extra = tracker.attempts - started[tracker.record_id]
            assert 0 <= extra <= crashes, f"{tracker.attempts} attempts, {started[tracker.record_id]} started"
            assert done[tracker.record_id] == (tracker.status is Status.SUCCEEDED), "the effect, and not the success"
            assert tracker.lease is None and tracker.status is not Status.IN_PROGRESS, "nobody holds it any more"
        for (number, record_id), (_, status) in acknowledged.items():
            assert number == batch or status != "succeeded" or done[record_id] == 1, f"{record_id} is gone"


def judge_the_end(path: Path, ledger: list[str], crashes: int) -> None:
    """When the job has come to its end: every record has too, and no more was done than the crashes explain."""
    judge(path, ledger, crashes)
    started = Counter(words[1] for words in map(str.split, ledger) if words[0] == "started")
    with trax.Trax(path) as store, open_checkpoint(store) as checkpoint:
        assert checkpoint.ended
        assert [summary.sequence for summary in checkpoint.history()] == [1, 2, 3]
        assert [summary.counts for summary in checkpoint.history()] == [
            {"succeeded": 2, "exhausted": 1},
            {"succeeded": 3},
            {"succeeded": 1},
        ]
        done = Counter(entry for _, entry in store.entries("done"))
        assert done == Counter(f"r{n}" for n in range(SIZE) if n != 1), "each effect exactly once"
    for n in range(SIZE):
        least, most = {1: (MAX_ATTEMPTS - crashes, MAX_ATTEMPTS), 4: (1, 2 + crashes)}.get(n, (1, 1 + crashes))
        assert least <= started[f"r{n}"] <= most, f"r{n} was started {started[f'r{n}']} times"
    assert [line for line in ledger if line.startswith("dead r1")][-1] != "dead r1 1", "the dead letter was delivered"


class NoSync(LocalFileSystem):
    """For those who judge what is in the page cache, or what was laid out: nothing has to survive them."""

    def fsync(self, fd: int) -> None: ...
    def fdatasync(self, fd: int) -> None: ...
    def fsync_directory(self, path: str) -> None: ...


# The killer


def kill_everywhere(directory: Path, workers: int, seed: str, stride: int) -> int:
    """Kill the job at each of its calls, or at every so many; how often it was killed."""
    os.fsync = os.fdatasync = lambda fd: None  # type: ignore[assignment]  # SIGKILL takes nothing from the page cache
    dice = random.Random(seed)
    skipped = unchanging(directory / "unkilled") if workers == 1 else set()
    tried = 0
    for nth in itertools.count(step=stride):
        if nth in skipped:
            continue
        place = Place(directory / str(nth), workers)
        killed = in_child(lambda: place.work(FaultyFileSystem(nth, die)))  # noqa: B023 (called at once)
        if not killed:
            in_child(lambda: judge_the_end(place.path, place.ledger(), 0))  # noqa: B023
            return tried
        tried += 1
        crashes = 1 + in_child(lambda: place.work(FaultyFileSystem(dice.randrange(200), die)))  # noqa: B023
        assert not in_child(lambda: place.end(crashes))  # noqa: B023
        shutil.rmtree(directory / str(nth))
    raise AssertionError


HARMLESS = {"open", "pread", "preadinto", "listdir", "size", "fsync", "fdatasync", "fsync_directory"}
"""What changes nothing that survives a SIGKILL."""


def unchanging(directory: Path) -> set[int]:
    """The calls behind which everything is as it was before them: killed at the next one, the job leaves the same."""
    directory.mkdir(parents=True)
    ledger: list[str] = []
    calls: list[tuple[str, int]] = []

    class Watched(FaultyFileSystem):
        def _counted(self, kind: str, method: Callable[..., Any]) -> Callable[..., Any]:
            counted = super()._counted(kind, method)

            def call(*arguments: Any, **keywords: Any) -> Any:
                calls.append((kind, len(ledger)))
                return counted(*arguments, **keywords)

            return call

    run(directory / "store", ledger.append, fs=Watched())
    following = itertools.pairwise(calls)
    return {n for n, ((kind, lines), (_, then)) in enumerate(following) if kind in HARMLESS and lines == then}


class Place:
    """A directory with a store, and the ledger beside it, to which a line is one write, as SIGKILL requires."""

    def __init__(self, directory: Path, workers: int) -> None:
        directory.mkdir(parents=True)
        self.path = directory / "store"
        self._lines = directory / "ledger"
        self._workers = workers

    def work(self, fs: FileSystem) -> None:
        fd = os.open(self._lines, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        run(self.path, lambda line: (os.write(fd, f"{line}\n".encode()), None)[1], self._workers, fs)

    def end(self, crashes: int) -> None:
        judge(self.path, self.ledger(), crashes)
        self.work(LocalFileSystem())
        judge_the_end(self.path, self.ledger(), crashes)

    def ledger(self) -> list[str]:
        return self._lines.read_text().splitlines() if self._lines.exists() else []


def in_child(action: Callable[[], None]) -> bool:
    """Do it in a forked process; whether that was killed. Any other end but a good one is an error."""
    pid = os.fork()
    if pid == 0:
        try:
            action()
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            sys.stderr.flush()
            os._exit(1)
    _, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return True
    assert os.WEXITSTATUS(status) == 0, "a child has failed: see its traceback"
    return False


def die() -> NoReturn:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


if __name__ == "__main__":
    print(kill_everywhere(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3], int(sys.argv[4])))
