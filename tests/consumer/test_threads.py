"""Several workers, several consumers, several processes: each record comes to exactly one end."""

from __future__ import annotations

import contextlib
import os
import random
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

import trax
from tests.consumer.toys import Database, MemoryStorage, Numbers
from tests.helpers import in_forked_child
from trax.consumer import Checkpoint, Effect, Status, Tracker, local
from trax.errors import ForkedError
from trax.testing.consumer_storage import in_threads

SEED = os.environ.get("TRAX_SEED", "20261121")
EXAMPLES = Path(__file__).parent.parent.parent / "examples"


class Flaky(Numbers):
    """Fails at random, and writes down what it was told about each record."""

    size = 200

    def __init__(self, checkpoint: Checkpoint, seed: str, **options: Any) -> None:
        super().__init__(checkpoint, **{"limit": 50, **options})
        self.dice = random.Random(seed)
        self.inside: Counter[str] = Counter()

    def process(self, record: dict[str, Any]) -> Any:
        self.inside[record["id"]] += 1
        assert self.inside[record["id"]] == 1, "two threads are in the same record"
        self.processed.append(record["id"])
        fails = self.dice.random() < 0.4
        self.inside[record["id"]] -= 1
        if fails:
            raise ValueError("at random")
        return None if self.checkpoint.shared else Effect(done=record["id"])


def test_eight_workers_bring_each_record_to_one_end(tmp_path: Path) -> None:
    print(f"TRAX_SEED={SEED}")
    with trax.Trax(tmp_path / "store", sync="os") as store:
        consumer = Flaky(Checkpoint(store, "stream", initial_pointer=0), SEED, workers=8)
        assert consumer.run() == "ended"
        done = Counter(entry for _, entry in store.entries("done"))
    ended = [tracker for tracker in consumer.outcomes if tracker.ended]
    ids = sorted(f"r{n}" for n in range(Flaky.size))
    assert sorted(tracker.record_id for tracker in ended) == ids, "each once"
    succeeded = {tracker.record_id for tracker in ended if tracker.status is Status.SUCCEEDED}
    assert done == Counter(succeeded), "the effect once, and only of what has succeeded"
    assert sorted(consumer.dead) == sorted(set(ids) - succeeded) and consumer.dead
    attempts = {tracker.record_id: tracker.attempts for tracker in ended}
    assert Counter(consumer.processed) == attempts
    assert max(attempts.values()) == 3


def test_the_threads_are_as_many_as_asked_for_and_the_caller_is_one_of_them(tmp_path: Path) -> None:
    names: set[str] = set()
    together = threading.Barrier(4)

    def process(record: dict[str, Any]) -> None:
        names.add(threading.current_thread().name)
        together.wait(60)

    with trax.Trax(tmp_path / "store", sync="os") as store:
        consumer = Numbers(Checkpoint(store, "stream", initial_pointer=0), process, limit=4, workers=4)
        consumer.size = 4
        assert consumer.run() == "ended"
    assert names == {"MainThread", "trax-worker-1", "trax-worker-2", "trax-worker-3"}
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("trax-")]


def test_an_error_of_one_worker_stops_the_others_between_records_and_is_raised(tmp_path: Path) -> None:
    class Hook(Numbers):
        size = 40

        def on_record(self, record: Any, tracker: Tracker) -> None:
            if record["id"] == "r5":
                raise RuntimeError("the metrics are down")

    with trax.Trax(tmp_path / "store", sync="os") as store:
        checkpoint = Checkpoint(store, "stream", initial_pointer=0)
        consumer = Hook(checkpoint, limit=40, workers=4)
        with pytest.raises(RuntimeError, match="metrics"):
            consumer.run()
        assert not any(tracker.lease for tracker in checkpoint.trackers()), "nobody is in the middle of a record"
        assert consumer.run() == "ended"
        assert sorted(consumer.processed) == sorted(f"r{n}" for n in range(40))


def test_consumers_that_share_a_storage_share_the_work() -> None:
    print(f"TRAX_SEED={SEED}")
    database = Database()
    consumers = [
        Flaky(Checkpoint(MemoryStorage(database), initial_pointer=0), f"{SEED} {n}", workers=2, poll_s=0.01)
        for n in range(3)
    ]
    endings: list[str] = []
    in_threads([lambda consumer=consumer: endings.append(consumer.run()) for consumer in consumers])  # type: ignore[misc]
    assert endings == ["ended"] * 3
    ended = [tracker for consumer in consumers for tracker in consumer.outcomes if tracker.ended]
    assert sorted(tracker.record_id for tracker in ended) == sorted(f"r{n}" for n in range(Flaky.size))
    assert {tracker.status for tracker in ended} == {Status.SUCCEEDED, Status.EXHAUSTED}
    attempts = Counter(record_id for consumer in consumers for record_id in consumer.processed)
    assert attempts == {tracker.record_id: tracker.attempts for tracker in ended}
    for consumer in consumers:
        consumer.checkpoint.refresh()
        assert consumer.checkpoint.trackers() == consumers[0].checkpoint.trackers()


WORKER = """
import sqlite3, sys
from sqlite_storage import SQLiteStorage
from trax.consumer import Checkpoint, Consumer, Effect

class Rows(Consumer):
    def fetch(self, pointer, limit):
        until = min(pointer + limit, 60)
        return [{"id": f"r{n}"} for n in range(pointer, until)], until if until < 60 else None

    def process(self, record):
        return Effect(("INSERT INTO done VALUES (?, ?)", (record["id"], sys.argv[2])))

sys.stdin.readline()
print(Rows(Checkpoint(SQLiteStorage(sys.argv[1], "rows"), initial_pointer=0), limit=20, poll_s=0.05).run())
"""


def test_processes_that_share_a_database_process_each_record_once(tmp_path: Path) -> None:
    import sqlite3

    path = tmp_path / "database"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE done (id TEXT, worker TEXT)")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(EXAMPLES), *filter(None, sys.path)])}
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, str(path), str(n)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        for n in range(3)
    ]
    for worker in workers:
        assert worker.stdin is not None
        worker.stdin.write("\n")
        worker.stdin.flush()
    assert [worker.communicate(timeout=60)[0] for worker in workers] == ["ended\n"] * 3
    with sqlite3.connect(path) as connection:
        done = connection.execute("SELECT id, worker FROM done").fetchall()
    assert sorted(record_id for record_id, _ in done) == sorted(f"r{n}" for n in range(60))


def test_a_forked_child_is_refused_though_other_threads_were_in_the_middle_of_a_change(tmp_path: Path) -> None:
    """A child that ``process`` has forked, when other workers held what its calls would wait for."""
    with trax.Trax(tmp_path / "store", sync="os") as store:
        checkpoint = Checkpoint(store, "stream", initial_pointer=0)
        checkpoint.begin([("a", 1), ("b", 2)], None)
        claimed = checkpoint.claim("worker")
        assert claimed is not None
        progress = checkpoint._progress

        def child() -> None:
            assert checkpoint.tracker("a").status is Status.IN_PROGRESS
            for call in (
                lambda: checkpoint.note("a", {}),
                lambda: checkpoint.succeed(claimed),
                lambda: checkpoint.claim("child"),
                lambda: Checkpoint(store, "other"),
            ):
                with pytest.raises(ForkedError):
                    call()
            checkpoint.close()

        for held in (progress.monitor, local._opening):
            in_forked_child(child, held)
        progress._changing.add("a")  # another thread saves a change of it
        in_forked_child(child, contextlib.nullcontext())
        progress._changing.clear()
        assert checkpoint.succeed(claimed) is not None
