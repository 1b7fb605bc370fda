"""Power loss at every operation, in every legal state of the disk or in random ones: nothing durable is lost.

Small fixed jobs are tried in every state that the disk may be left in, and random larger ones in a sample. What opens
a store after a crash is recorded and crashed as well.
"""

from __future__ import annotations

import io
import os
import random
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import trax
from tests.counting import count
from tests.crashing import MEMORY, Job, Model, Search, judge, make_small, without_chance
from tests.workloads import (
    WORKLOADS,
    Workload,
    batch_with_checkpoint,
    checkpoint_and_log,
    close_and_reopen,
    create,
    record,
    rotate_kept,
)
from trax import interchange
from trax.errors import MissingFileError
from trax.inspection import verify_store
from trax.repair import Repair
from trax.storage.local import directory
from trax.testing.disks import crash_images, moments
from trax.testing.recording import RecordingFileSystem

SEED = os.environ.get("TRAX_SEED", "20261121")
RUNS = int(os.environ.get("TRAX_CRASH_RUNS", "1"))
LIMIT = int(os.environ.get("TRAX_CRASH_LIMIT", "50"))
DEEP = int(os.environ.get("TRAX_CRASH_DEEP", "1"))
KILLED = (checkpoint_and_log, batch_with_checkpoint, rotate_kept, close_and_reopen)
SEEN: set[int] = set()
"""States of the disk with what was asked of them: one that comes up again is neither tried nor counted again."""


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    make_small(monkeypatch)
    print(f"TRAX_SEED={SEED}")


@pytest.fixture
def memory() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir=MEMORY) as directory:
        yield Path(directory)


@pytest.mark.parametrize(("sync", "codec"), [("always", "msgpack"), ("os", "json")])
@pytest.mark.parametrize("calls", WORKLOADS, ids=lambda calls: calls.__name__)
def test_every_state_that_a_power_loss_may_leave_is_one_that_the_store_had(
    memory: Path, calls: Callable[[Workload], None], sync: str, codec: str
) -> None:
    _, fs = record(calls, memory / "run", sync, codec)
    dice = random.Random(f"{SEED}-{calls.__name__}-{sync}")
    # What is lost of the file "lock" multiplies every other state by seven, and nobody reads it: once is enough.
    settled = () if calls is create else ("store/lock",)
    states = sum(min(outcomes.count, LIMIT) for _, outcomes in moments(fs.start, fs.operations, settled=settled))
    search = Search(memory / "crash", dice, LIMIT // 2, LIMIT, deep=DEEP / states, settled=settled, seen=SEEN)
    search.everywhere(fs, "store", Model().demand)
    kind = "power loss, fixed jobs" if search.sampled_moments else "power loss, every state of fixed jobs"
    count(kind, search.tried)
    if search.nested:
        count("power loss in the recovery", search.nested)
    print(f"{search.sampled_moments} moments with more than {LIMIT} states")


@pytest.mark.parametrize("sync", ["always", "os"])
@pytest.mark.parametrize("keep", [1, 2])
@pytest.mark.parametrize("codec", ["msgpack", "json"])
def test_power_loss_anywhere_leaves_a_state_that_the_store_had(memory: Path, sync: str, keep: int, codec: str) -> None:
    search = Search(memory / "crash", random.Random(), samples=2, deep=0.05)
    for run in range(RUNS):
        search.dice = random.Random(f"{SEED}-{sync}-{keep}-{codec}-{run}")
        (memory / f"run{run}").mkdir()
        job = Job(memory / f"run{run}" / "store", search.dice, sync, keep, codec)
        search.everywhere(job.run(8), "store", Model().demand)
    count("power loss", search.tried)
    count("power loss in the recovery", search.nested)
    assert search.tried > 50 * RUNS


@pytest.mark.parametrize("sync", ["always", "os"])
def test_power_loss_after_a_kill_takes_nothing_that_the_next_process_saw(memory: Path, sync: str) -> None:
    search = Search(memory / "crash", random.Random(), samples=1)
    for run in range(RUNS):
        search.dice = random.Random(f"{SEED}-{sync}-{run}")
        (memory / f"run{run}").mkdir()
        job = Job(memory / f"run{run}" / "store", search.dice, sync, 1 + run % 2)
        search.after_a_kill(job.run(5), "store", Model().demand, kills=6)
    count("power loss after a kill", search.tried)
    assert search.tried > 20 * RUNS


@pytest.mark.parametrize(("sync", "codec"), [("always", "msgpack"), ("os", "json")])
@pytest.mark.parametrize("calls", KILLED, ids=lambda calls: calls.__name__)
def test_every_state_after_a_kill_at_any_operation_holds_what_the_next_process_saw(
    memory: Path, calls: Callable[[Workload], None], sync: str, codec: str
) -> None:
    _, fs = record(calls, memory / "run", sync, codec)
    dice = random.Random(f"{SEED}-{calls.__name__}-{sync}-kill")
    search = Search(memory / "crash", dice, LIMIT // 2, LIMIT, settled=("store/lock",), seen=SEEN)
    search.after_a_kill(fs, "store", Model().demand, kills=max(1, DEEP))
    count("power loss after a kill", search.tried)


def saved_and_logged(memory: Path, sync: str = "always") -> Workload:
    """A store with a segment that is sealed, an active one, a blob and a kept snapshot; closed."""
    (memory / "run").mkdir()
    job = Workload(memory / "run" / "store", random.Random(0), sync, 2)

    def calls(job: Workload) -> None:
        job.checkpoint("a", "b", nbytes=100)
        job.log("a", "b")
        job.checkpoint("b", nbytes=100)
        job.log("a")

    job.play(calls)
    return job


def damage(path: Path, offset: int) -> None:
    data = bytearray(path.read_bytes())
    data[offset] ^= 1
    path.write_bytes(data)


def distinct(
    memory: Path, fs: RecordingFileSystem, *, after: int = 0, settled: tuple[str, ...] = ("store/lock",)
) -> Iterator[tuple[int, bool, Path]]:
    """Each state of the disk, laid out, with the number of operations done and whether "done" was noted by then."""
    dice, tried = random.Random(SEED), set()
    for done, image in crash_images(
        fs.start, fs.operations, dice, LIMIT // 2, limit=LIMIT, after=after, settled=settled
    ):
        finished = any(operation.note == "done" for operation in fs.operations[:done])
        if (key := hash((image.key(), finished))) not in tried:
            tried.add(key)
            shutil.rmtree(memory / "crash", ignore_errors=True)
            (memory / "crash").mkdir()
            image.lay_out(memory / "crash")
            yield done, finished, memory / "crash"


@pytest.mark.parametrize("what", ["log.00000001", "snapshot", "blobs/00000002", "kept/00000002"])
def test_every_state_inside_a_repair_is_the_damaged_store_or_the_repaired_one(memory: Path, what: str) -> None:
    store = saved_and_logged(memory).path
    damage(store / what, 150 if what.startswith("log") else 60)
    problems = [str(problem) for problem in verify_store(store).problems]
    assert problems
    fs = RecordingFileSystem(store.parent)
    with without_chance("repair"), Repair(store, fs=fs) as repair:
        assert repair.carry_out().ok
        fs.note("done")
    expected = contents(store)
    tried = 0
    for done, finished, crash in distinct(memory, fs):
        found = [str(one).replace(str(crash), str(store.parent)) for one in verify_store(crash / "store").problems]
        if found:
            assert found == problems and not finished, done
            with Repair(crash / "store") as again:
                assert again.carry_out().ok
        assert contents(crash / "store") == expected, done
        tried += 1
    count("power loss in a repair", tried)


def contents(path: Path) -> dict[str, list[tuple[int, object]]]:
    with warnings.catch_warnings(action="ignore"), trax.Trax(path) as store:
        assert store.verify().problems == []
        return {name: [(0, store.recover(name)), *store.entries(name)] for name in store.names()}


@pytest.mark.parametrize("sync", ["always", "os"])
def test_every_state_inside_a_copy_leaves_the_store_and_no_half_of_a_copy(memory: Path, sync: str) -> None:
    job = saved_and_logged(memory, sync)
    fs = RecordingFileSystem(job.path.parent)
    with without_chance("copy"), trax.Trax(job.path, sync=sync, fs=fs) as store:  # type: ignore[arg-type]
        begins = len(fs.operations)
        store.copy_to(job.path.with_name("copy"))
        fs.note("done")
    last = len(job.model.states) - 1
    tried = 0
    for _, finished, crash in distinct(memory, fs, after=begins):
        judge(crash / "store", job.model, last, last)
        tried += 1
        try:
            # Its snapshot comes last. Before that it is missing, or, beside nothing else, a place for a new store.
            if not finished and not contents(crash / "copy"):
                continue
        except MissingFileError:
            assert not finished
            continue
        judge(crash / "copy", job.model, last, last)
    count("power loss in a copy", tried)


def test_every_state_inside_an_import_is_no_store_or_all_of_it(memory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = saved_and_logged(memory)
    exported = io.BytesIO()
    interchange.export_store(job.path, exported)
    expected = {name: entries[1:] for name, entries in contents(job.path).items()}
    (memory / "import").mkdir()
    fs = RecordingFileSystem(memory / "import")
    with monkeypatch.context() as patch, without_chance("import"):
        patch.setattr(interchange, "LocalFileSystem", lambda: fs)
        patch.setattr(directory, "default_file_system", lambda: fs)
        interchange.import_store(io.BytesIO(exported.getvalue()), memory / "import" / "store")
        fs.note("done")
    tried = 0
    lock = next(operation.path for operation in fs.operations if operation.path.endswith("/lock"))
    for _, finished, crash in distinct(memory, fs, settled=(lock, "store/lock")):
        tried += 1
        if finished or (crash / "store").exists():
            assert {name: entries[1:] for name, entries in contents(crash / "store").items()} == expected
    count("power loss in an import", tried)
