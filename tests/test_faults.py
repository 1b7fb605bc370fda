"""Every operation of the file system fails once, or from then on: a typed error, nothing lost, an openable store."""

from __future__ import annotations

import random
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import trax
from tests.counting import count
from tests.crashing import Job, judge
from tests.helpers import kill
from trax.storage.local import compaction
from trax.testing.faults import FAULTS, FaultyFileSystem
from trax.testing.recording import RecordingFileSystem


class FaultyJob(Job):
    """A job on a file system that fails. It ends at the first error that a call raises."""

    def attempt(self, fs: FaultyFileSystem, calls: int, *, go_on: bool) -> BaseException | None:
        """Run; the error that ended it. With ``go_on``, an error that left the handle usable is passed over."""
        first: BaseException | None = None
        store: trax.Trax | None = None
        self.notes: list[tuple[int, int]] = []
        try:
            store = self._open(fs)  # type: ignore[arg-type]
            for _ in range(calls):
                before = {name: list(values) for name, values in self.state.items()}
                commits = len(self.model.states)
                try:
                    store = self._call(self, store)  # type: ignore[arg-type]
                except trax.errors.HandleError:
                    raise
                except (trax.TraxError, KeyboardInterrupt, MemoryError) as error:
                    first = first or error
                    if not go_on or not isinstance(error, trax.TraxError):
                        raise
                    # The call has failed and the handle is usable: it must not have had any effect. (But what recover
                    # created was stored before reading it back failed.)
                    if any(name in store for name in self.state.keys() - before.keys()):
                        continue
                    self.state = before
                    del self.model.states[commits:], self.model.sequences[commits - 1 :]
            store.close()
            self.model.durable = len(self.model.states) - 1
        except (trax.TraxError, KeyboardInterrupt, MemoryError) as error:
            first = first or error
        finally:
            if store is not None:
                try:
                    store.close()
                except (trax.TraxError, KeyboardInterrupt, MemoryError) as error:
                    first = first or error
                if store._closed is None:
                    kill(store)  # no call of close() came to its end: only that of the process will
        return first

    def note(self, note: tuple[int, int]) -> None:
        self.notes.append(note)

    def _open(self, fs: object) -> trax.Trax:
        return super()._open(fs if isinstance(fs, FaultyFileSystem) else self.fs)  # type: ignore[arg-type]

    fs: FaultyFileSystem


@pytest.fixture
def scratch(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setattr(compaction, "LARGE_BYTES", 200)
    monkeypatch.setattr(compaction, "MANY_SEGMENTS", 2)
    memory = "/dev/shm" if Path("/dev/shm").is_dir() else None
    with tempfile.TemporaryDirectory(dir=memory) as directory:
        yield Path(directory)


def run(
    scratch: Path, fs: FaultyFileSystem, seed: str, sync: str, *, go_on: bool
) -> tuple[FaultyJob, BaseException | None]:
    shutil.rmtree(scratch / "s", ignore_errors=True)
    job = FaultyJob(scratch / "s", random.Random(seed), sync, 2)
    job.fs = fs
    return job, job.attempt(fs, 12, go_on=go_on)


@pytest.mark.parametrize("sync", ["always", "os"])
@pytest.mark.parametrize("fault", [*FAULTS, "short write"])
@pytest.mark.parametrize("once", [True, False])
def test_any_operation_may_fail(scratch: Path, fault: str, once: bool, sync: str) -> None:
    if fault == "short write" and not once:
        pytest.skip("writes that take half of the bytes for ever still end")
    seed = f"{fault}-{sync}"
    counting = FaultyFileSystem()
    job, error = run(scratch, counting, seed, sync, go_on=True)
    assert error is None
    judge(scratch / "s", job.model, job.model.durable, len(job.model.states) - 1)
    reached = 0
    for nth in range(counting.count):
        fs = FaultyFileSystem(nth, FAULTS.get(fault), once=once, short_write=fault == "short write")
        job, error = run(scratch, fs, seed, sync, go_on=once)
        reached += bool(fs.failed)
        if fault == "short write":
            assert error is None
        try:
            judge(scratch / "s", job.model, job.model.durable, len(job.model.states) - 1)
        except BaseException as failure:
            failure.add_note(f"operation {nth} ({fs.failed[:1]}) failed with {fault}; the job had seen {error!r}")
            raise
    assert reached > 50 or fault == "short write"
    count("failing operations", counting.count)


def test_what_a_failed_call_recorded_can_be_played(tmp_path: Path) -> None:
    fs = RecordingFileSystem(tmp_path)
    with trax.Trax(tmp_path / "s", fs=fs) as store:
        store.log(a=1)
    kinds = {operation.kind for operation in fs.operations}
    assert {"create", "write", "fsync", "rename", "mkdir", "fsync_directory"} <= kinds
