"""A job on a layer, crashed at every one of its calls of the storage: none is left out, and none is chosen by dice.

The job runs once on a recording file system and notes how much was acknowledged and how much was issued. Then, for each
number of operations done:

- *killed*: what the operating system has at that moment;
- *power lost*: the extremes of what the disk may hold, and some states between them (``TRAX_SWEEP_SAMPLES``).

And for each operation, the job runs again and that operation fails: once, or with all that follow, which is what a
process looks like from outside that dies there.
"""

from __future__ import annotations

import os
import random
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from trax.errors import TraxError
from trax.testing.disks import cached_image, crash_images
from trax.testing.faults import FAULTS, FaultyFileSystem
from trax.testing.recording import RecordingFileSystem

SEED = os.environ.get("TRAX_SEED", "20261121")
SAMPLES = int(os.environ.get("TRAX_SWEEP_SAMPLES", "1"))


@dataclass
class Bounds:
    """How many steps of a job were acknowledged, and how many were begun; told to a recording at each change."""

    fs: RecordingFileSystem | None = None
    acknowledged: int = 0
    issued: int = 0

    @contextmanager
    def step(self) -> Iterator[int]:
        """Begin a step; it is acknowledged if the block does not raise."""
        self.issued += 1
        self._note()
        yield self.issued - 1
        self.acknowledged = self.issued
        self._note()

    def promise(self, acknowledged: int) -> None:
        self.acknowledged = acknowledged
        self._note()

    def _note(self) -> None:
        if self.fs is not None:
            self.fs.note((self.acknowledged, self.issued))


Job = Callable[[Path, RecordingFileSystem | FaultyFileSystem, Bounds], None]
"""Runs in a directory, on a file system."""
Judge = Callable[[Path, int, int], None]
"""Opens what is in a directory, with how much was acknowledged and issued."""


@contextmanager
def memory() -> Iterator[Path]:
    """A directory for crashes that are modelled: a real disk would only be slow."""
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as directory:
        yield Path(directory)


def crash_everywhere(job: Job, judge: Judge, prepare: Callable[[Path], None] | None = None) -> int:
    """Kill the job, and take the power from it, at every operation; how many distinct disks were judged."""
    print(f"TRAX_SEED={SEED}")
    dice = random.Random(SEED)
    with memory() as directory:
        run, crash = directory / "run", directory / "crash"
        run.mkdir()
        if prepare is not None:
            prepare(run)
        fs = RecordingFileSystem(run)
        job(run, fs, Bounds(fs))
        notes = [(0, 0)]
        for operation in fs.operations:
            notes.append(operation.note if operation.kind == "note" else notes[-1])
        killed = [(done, cached_image(fs.start, fs.operations[:done])) for done in range(len(fs.operations) + 1)]
        seen = set()
        for done, image in [*killed, *crash_images(fs.start, fs.operations, dice, SAMPLES)]:
            key = (image.key(), notes[done])
            if key in seen:
                continue
            seen.add(key)
            shutil.rmtree(crash, ignore_errors=True)
            crash.mkdir()
            image.lay_out(str(crash))
            try:
                judge(crash, *notes[done])
            except BaseException as error:
                error.add_note(f"after {done} of {len(fs.operations)}: {fs.operations[max(0, done - 3) : done]}")
                raise
    return len(seen)


def fail_everywhere(job: Job, judge: Judge, prepare: Callable[[Path], None] | None = None) -> int:
    """Let every operation fail, in every way, once or with all that follow; how many were tried.

    The job ends at the first error that a call raises; it must be an error of the tree, or the interrupt itself.
    """
    counting = FaultyFileSystem()
    tried = 0
    with memory() as directory:
        run = directory / "run"

        def attempt(fs: FaultyFileSystem) -> BaseException | None:
            shutil.rmtree(run, ignore_errors=True)
            run.mkdir()
            if prepare is not None:
                prepare(run)
            bounds = Bounds()
            error: BaseException | None = None
            try:
                job(run, fs, bounds)
            except (TraxError, KeyboardInterrupt, MemoryError) as raised:
                error = raised
            try:
                judge(run, bounds.acknowledged, bounds.issued)
            except BaseException as failure:
                failure.add_note(f"{fs.failed[:1]} failed; the job had seen {error!r}")
                raise
            return error

        assert attempt(counting) is None
        for nth in range(counting.count):
            for fault, once in (("EIO", True), ("EIO", False), ("ENOSPC", True), ("KeyboardInterrupt", True)):
                attempt(FaultyFileSystem(nth, FAULTS[fault], once=once))
                tried += 1
    return tried
