"""Power loss at every operation, in every legal state of the disk or in random ones: nothing durable is lost.

Small fixed jobs are tried in every state that the disk may be left in, and random larger ones in a sample. What opens
a store after a crash is recorded and crashed as well.
"""

from __future__ import annotations

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
from tests.workloads import WORKLOADS, Workload, create, record
from trax.errors import MissingFileError
from trax.inspection import verify_store
from trax.repair import Repair
from trax.testing.disks import crash_images
from trax.testing.recording import RecordingFileSystem

SEED = os.environ.get("TRAX_SEED", "20261121")
RUNS = int(os.environ.get("TRAX_CRASH_RUNS", "1"))
LIMIT = int(os.environ.get("TRAX_CRASH_LIMIT", "80"))
DEEP = float(os.environ.get("TRAX_CRASH_DEEP", "0.01"))
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
    search = Search(memory / "crash", dice, samples=LIMIT // 2, limit=LIMIT, deep=DEEP, settled=settled, seen=SEEN)
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
        search.after_a_kill(job.run(5), "store", Model().demand, share=0.08)
    count("power loss after a kill", search.tried)
    assert search.tried > 20 * RUNS


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
    expected = {name: list(entries) for name, entries in contents(store).items()}
    crashed = memory / "crash" / "store"
    tried = set()
    for done, image in crash_images(
        fs.start, fs.operations, random.Random(SEED), LIMIT // 2, limit=LIMIT, settled={"store/lock"}
    ):
        finished = any(operation.note == "done" for operation in fs.operations[:done])
        if (key := hash((image.key(), finished))) in tried:
            continue
        tried.add(key)
        shutil.rmtree(memory / "crash", ignore_errors=True)
        (memory / "crash").mkdir()
        image.lay_out(memory / "crash")
        found = [str(problem).replace(str(crashed), str(store)) for problem in verify_store(crashed).problems]
        if found:
            assert found == problems and not finished, done
            with Repair(crashed) as again:
                assert again.carry_out().ok
        assert contents(crashed) == expected, done
    count("power loss in a repair", len(tried))


def contents(path: Path) -> dict[str, list[tuple[int, object]]]:
    with warnings.catch_warnings(action="ignore"), trax.Trax(path) as store:
        assert store.verify().problems == []
        return {name: [(0, store.recover(name)), *store.entries(name)] for name in store.names()}


@pytest.mark.parametrize("sync", ["always", "os"])
def test_every_state_inside_a_copy_leaves_the_store_and_no_half_of_a_copy(memory: Path, sync: str) -> None:
    job = saved_and_logged(memory, sync)
    fs = RecordingFileSystem(job.path.parent)
    last = len(job.model.states) - 1
    with without_chance("copy"), trax.Trax(job.path, sync=sync, fs=fs) as store:
        begins = len(fs.operations)
        store.copy_to(job.path.with_name("copy"))
        fs.note("done")
    tried = set()
    ends = 1 + next(n for n, operation in enumerate(fs.operations) if operation.note == "done")
    for done, image in crash_images(
        fs.start,
        fs.operations[:ends],
        random.Random(SEED),
        LIMIT // 2,
        limit=LIMIT,
        after=begins,
        settled={"store/lock"},
    ):
        if (key := hash((image.key(), done == ends))) in tried:
            continue
        tried.add(key)
        shutil.rmtree(memory / "crash", ignore_errors=True)
        (memory / "crash").mkdir()
        image.lay_out(memory / "crash")
        judge(memory / "crash" / "store", job.model, last, last)
        if done == ends:
            judge(memory / "crash" / "copy", job.model, last, last)
            continue
        try:
            found = contents(memory / "crash" / "copy")
        except MissingFileError:
            continue  # its snapshot comes last
        if found:
            judge(memory / "crash" / "copy", job.model, last, last)
    count("power loss in a copy", len(tried))
