"""The failures that checkpoints of consumers have had elsewhere: one test for each."""

from __future__ import annotations

import errno
import random
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

import trax
from tests.consumer.toys import Database, MemoryStorage, Numbers, always_failing, statuses
from tests.helpers import kill
from trax.consumer import Checkpoint, LocalStorage, Status, Tracker
from trax.consumer.progress import Progress
from trax.errors import DiskFullError, DuplicateRecordError, StoreLockedError, UnsupportedValueError
from trax.testing.clock import ManualClock
from trax.testing.consumer_storage import IDS
from trax.testing.disks import crash_images
from trax.testing.faults import FaultyFileSystem, os_error
from trax.testing.recording import RecordingFileSystem


class Killed(BaseException):
    """The process dies here."""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store"


def open_checkpoint(path: Path, **options: Any) -> tuple[trax.Trax, Checkpoint]:
    store = trax.Trax(path, sync="os")
    return store, Checkpoint(store, "stream", **{"initial_pointer": 0, **options})


@pytest.mark.filterwarnings("ignore::trax.errors.TornTailWarning")
def test_a_crash_inside_process_leaves_a_record_that_is_processed_again(path: Path) -> None:
    store, checkpoint = open_checkpoint(path)

    def die(record: dict[str, Any]) -> None:
        if record["id"] == "r1":
            kill(store)
            raise Killed

    with pytest.raises((Killed, trax.errors.ClosedError)):
        Numbers(checkpoint, die).run()
    store, checkpoint = open_checkpoint(path)
    with store:
        tracker = checkpoint.tracker("r1")
        assert (tracker.status, tracker.attempts, tracker.lease) == (Status.PENDING, 1, None)
        assert "cut off" in tracker.errors[0].error
        consumer = Numbers(checkpoint)
        assert consumer.run() == "ended"
        assert consumer.processed == ["r1", "r2", "r3", "r4", "r5"]
        assert consumer.outcomes[0].attempts == 2


@pytest.mark.filterwarnings("ignore::trax.errors.TornTailWarning")
def test_a_record_that_kills_the_process_is_exhausted_in_the_end(path: Path) -> None:
    started: list[str] = []
    for _ in range(3):
        store, checkpoint = open_checkpoint(path)

        def die(record: dict[str, Any], store: trax.Trax = store) -> None:
            started.append(record["id"])
            if record["id"] == "r0":
                kill(store)
                raise Killed

        with pytest.raises((Killed, trax.errors.ClosedError)):
            Numbers(checkpoint, die).run()
    store, checkpoint = open_checkpoint(path)
    with store:
        consumer = Numbers(checkpoint, die)
        assert consumer.run() == "ended"
        assert started.count("r0") == 3
        assert consumer.dead == ["r0"]


@pytest.mark.filterwarnings("ignore::trax.errors.TornTailWarning")
def test_a_crash_while_a_batch_is_saved_leaves_all_of_it_or_nothing(path: Path, tmp_path: Path) -> None:
    with trax.Trax(path) as store:
        checkpoint = Checkpoint(store, "stream", initial_pointer=0)
        Numbers(checkpoint).process_batch()
    fs = RecordingFileSystem(path.parent)
    with trax.Trax(path, fs=fs) as store:
        checkpoint = Checkpoint(store, "stream")
        checkpoint.begin([(f"r{n}", {"text": "x" * 3000}) for n in range(3, 6)], 6)
        fs.note("saved")
    scratch, seen = tmp_path / "scratch", set()
    for number, (done, image) in enumerate(crash_images(fs.start, fs.operations, random.Random(0), 2)):
        where = scratch / str(number)
        where.mkdir(parents=True)
        image.lay_out(str(where))
        with trax.Trax(where / path.name) as store:
            checkpoint = Checkpoint(store, "stream")
            ids = [tracker.record_id for tracker in checkpoint.trackers()]
            if checkpoint.pointer == 3:
                assert ids == ["r0", "r1", "r2"] and checkpoint.finished
                assert [checkpoint.record(record_id)["n"] for record_id in ids] == [0, 1, 2]
                assert not any(operation.note for operation in fs.operations[:done])
            else:
                assert (checkpoint.pointer, ids) == (6, ["r3", "r4", "r5"])
                assert [checkpoint.record(record_id)["text"] for record_id in ids] == ["x" * 3000] * 3
            seen.add(checkpoint.pointer)
    assert seen == {3, 6}


def test_a_crash_after_the_last_success_processes_nothing_again(path: Path) -> None:
    store, checkpoint = open_checkpoint(path)

    class DiesAtTheEnd(Numbers):
        def on_record(self, record: Any, tracker: Tracker) -> None:
            if record["id"] == "r2":
                kill(store)
                raise Killed

    with pytest.raises(Killed):
        DiesAtTheEnd(checkpoint).run()
    store, checkpoint = open_checkpoint(path)
    with store:
        assert checkpoint.finished
        consumer = Numbers(checkpoint)
        assert consumer.run() == "ended"
        assert (consumer.processed, consumer.fetched) == (["r3", "r4", "r5"], [3])


def test_a_failing_save_of_the_success_is_no_failure_of_the_record(path: Path) -> None:
    fs = FaultyFileSystem(kinds=("create", "pwrite", "allocate"))
    store = trax.Trax(path, fs=fs)
    with store:
        checkpoint = Checkpoint(store, "stream", initial_pointer=0)

        def fill_the_disk(record: dict[str, Any]) -> None:
            if record["id"] == "r1" and not fs.failed:
                fs._nth, fs._fault, fs._once = fs.count, os_error(errno.ENOSPC), False

        consumer = Numbers(checkpoint, fill_the_disk)
        with pytest.raises(DiskFullError):
            consumer.run()
        tracker = checkpoint.tracker("r1")
        assert (tracker.status, tracker.attempts, tracker.errors) == (Status.IN_PROGRESS, 1, ())
        with pytest.raises(DiskFullError):
            consumer.run()
        fs._nth = -1
        assert consumer.run() == "ended"
        assert consumer.processed == ["r0", "r1", "r2", "r3", "r4", "r5"], "r1 once, though it was saved late"
    with trax.Trax(path) as store:
        assert Checkpoint(store, "stream").ended


def test_a_second_process_is_refused_and_told_who_holds_the_checkpoint(path: Path) -> None:
    with Checkpoint(path, "stream", initial_pointer=0), pytest.raises(StoreLockedError, match="pid") as caught:
        Checkpoint(path, "stream", initial_pointer=0)
    assert caught.value.owner["pid"] > 0


def test_two_consumers_of_a_shared_checkpoint_process_each_record_once() -> None:
    database, clock = Database(), ManualClock()
    first = Numbers(Checkpoint(MemoryStorage(database), initial_pointer=0, clock=clock))
    second = Numbers(Checkpoint(MemoryStorage(database), initial_pointer=0, clock=clock))

    def take_turns(record: dict[str, Any]) -> None:
        if record["id"] == "r1":
            second.checkpoint.refresh()
            held = second.checkpoint.claim("second")
            assert held is not None and held.record_id == "r2", "r1 is leased to the first"
            assert second.checkpoint.claim("another") is None
            second.checkpoint.succeed(held)
            second.checkpoint.let_go("second")

    first.todo = take_turns
    assert first.run() == "ended"
    assert first.processed == ["r0", "r1", "r3", "r4", "r5"]
    assert second.run() == "ended" and second.processed == []


def test_a_lease_keeps_others_away_until_it_runs_out_and_no_longer() -> None:
    database, clock = Database(), ManualClock()
    first = Checkpoint(MemoryStorage(database), initial_pointer=0, lease_s=60, clock=clock)
    first.begin([("a", 1)], None)
    lost = first.claim("first")
    assert lost is not None and lost.lease is not None
    assert lost.lease.until - lost.lease.since == timedelta(seconds=60), "seconds, and not days"
    second = Checkpoint(MemoryStorage(database), initial_pointer=0, lease_s=60, clock=clock)
    clock.advance(59)
    assert second.claim("second") is None
    assert second.tracker("a").status is Status.IN_PROGRESS
    clock.advance(1)
    assert second.tracker("a").status is Status.PENDING
    taken = second.claim("second")
    assert taken is not None and taken.attempts == 2
    assert first.succeed(lost) is None, "the lease was lost, and with it the right to say what became of the record"
    first.refresh()
    assert first.fail(lost, ValueError(), 0) is None, "also when it knows who has the record now"
    assert second.succeed(taken) is not None
    first.refresh()
    assert first.tracker("a").status is Status.SUCCEEDED and first.tracker("a").attempts == 2


@pytest.mark.parametrize("twice", [["a", "b", "a"], ["", ""]])
def test_an_id_that_a_batch_has_twice_is_an_error_before_anything_is_stored(path: Path, twice: list[str]) -> None:
    store, checkpoint = open_checkpoint(path)
    with store:

        class Repeats(Numbers):
            def fetch(self, pointer: int, limit: int) -> tuple[list[dict[str, Any]], int | None]:
                return [{"id": one} for one in twice], 3

        before = store.last_sequence
        consumer = Repeats(checkpoint)
        with pytest.raises(DuplicateRecordError, match="twice") as caught:
            consumer.process_batch()
        assert caught.value.record_id == twice[0]
        assert (store.last_sequence, checkpoint.pointer, consumer.processed) == (before, 0, [])


def test_a_record_that_can_not_be_kept_is_an_error_before_anything_is_stored(path: Path) -> None:
    store, checkpoint = open_checkpoint(path)
    with store:
        Numbers(checkpoint).process_batch()
        before = store.last_sequence
        with pytest.raises(UnsupportedValueError, match=r"\['r4'\]\['what'\]"):
            checkpoint.begin([("r3", 1), ("r4", {"what": object()})], 6)
        assert (store.last_sequence, checkpoint.pointer) == (before, 3)
        assert Numbers(checkpoint).run() == "ended"


def test_attempts_are_counted_across_restarts(path: Path) -> None:
    started: list[str] = []

    class Stops(Numbers):
        def process(self, record: dict[str, Any]) -> Any:
            started.append(record["id"])
            if started.count(record["id"]) == 2:
                self.stop()
            raise ValueError("bad")

    Stops.size, endings = 1, []
    for _ in range(3):
        store, checkpoint = open_checkpoint(path, max_attempts=3)
        with store:
            consumer = Stops(checkpoint)
            endings.append(consumer.run())
            assert checkpoint.tracker("r0").attempts == min(3, len(started))
    assert (endings, started) == (["stopped", "ended", "ended"], ["r0"] * 3)


def test_a_dead_letter_that_can_not_be_delivered_is_tried_until_it_can_also_after_restarts(path: Path) -> None:
    calls: list[int] = []

    class Unreachable(Numbers):
        size = 2
        reachable_after = 5

        def dead_letter(self, record: dict[str, Any], tracker: Tracker) -> None:
            calls.append(tracker.deliveries)
            if len(calls) < self.reachable_after:
                if len(calls) % 2 == 0:
                    self.stop()
                raise ConnectionError("the queue is down")
            super().dead_letter(record, tracker)

    endings, delivered = [], []
    for _ in range(4):
        store, checkpoint = open_checkpoint(path, max_attempts=2)
        with store:
            consumer = Unreachable(checkpoint, always_failing("r0"))
            endings.append(consumer.run())
            delivered += consumer.dead
            tracker = checkpoint.tracker("r0")
            assert (tracker.status, tracker.ended) == (Status.EXHAUSTED, len(calls) == 5)
            if not tracker.ended:
                assert "ConnectionError: the queue is down" in tracker.errors[-1].error
    assert (endings, calls, delivered) == (["stopped", "stopped", "ended", "ended"], [1, 2, 3, 4, 5], ["r0"])


def test_the_end_of_the_stream_is_remembered(path: Path) -> None:
    for restart in range(3):
        store, checkpoint = open_checkpoint(path)
        with store:
            consumer = Numbers(checkpoint)
            assert consumer.run() == "ended"
            assert checkpoint.ended and consumer.process_batch() is None
            assert len(consumer.processed) == (6 if restart == 0 else 0)
            assert consumer.fetched == ([0, 3] if restart == 0 else [])


def test_a_stream_that_ends_without_records_has_ended_too(path: Path) -> None:
    class Nothing(Numbers):
        size = 0

    for fetched in ([0], []):
        store, checkpoint = open_checkpoint(path)
        with store:
            consumer = Nothing(checkpoint)
            assert (consumer.run(), consumer.fetched, checkpoint.ended) == ("ended", fetched, True)


def test_the_configuration_is_the_callers_and_not_that_of_an_earlier_run(path: Path) -> None:
    store, checkpoint = open_checkpoint(path, max_attempts=5, lease_s=60)
    with store:
        consumer = Numbers(checkpoint, always_failing("r0", "r1"))
        consumer.on_record = lambda record, tracker: consumer.stop() if tracker.attempts == 3 else None  # type: ignore[method-assign]
        assert consumer.run() == "stopped"
        assert checkpoint.tracker("r0").status is Status.FAILED
    store, checkpoint = open_checkpoint(path, initial_pointer=7, max_attempts=2, lease_s=5)
    with store:
        assert checkpoint.tracker("r0").status is Status.EXHAUSTED, "three attempts were made, two are allowed now"
        assert checkpoint.pointer == 3, "the initial pointer is only for the beginning"
        consumer = Numbers(checkpoint)
        assert consumer.run() == "ended"
        assert consumer.dead[0] == "r0"
        assert consumer.processed[-3:] == ["r3", "r4", "r5"]


def test_ids_may_be_any_text(path: Path) -> None:
    store, checkpoint = open_checkpoint(path)
    with store:

        class Anything(Numbers):
            def fetch(self, pointer: int, limit: int) -> tuple[list[dict[str, Any]], int | None]:
                return [{"id": record_id} for record_id in IDS], None

        assert Anything(checkpoint, always_failing("with-hyphen", "with.dot", "status")).run() == "ended"
        expected = dict.fromkeys(IDS, "succeeded") | dict.fromkeys(["with-hyphen", "with.dot", "status"], "exhausted")
    store, checkpoint = open_checkpoint(path)
    with store:
        assert statuses(checkpoint) == expected


def test_a_thousand_records_of_a_batch_may_fail(path: Path) -> None:
    class Large(Numbers):
        size = 1000

    def fail(record: dict[str, Any]) -> None:
        raise ValueError("long " * 500)

    store, checkpoint = open_checkpoint(path, max_attempts=2)
    with store:
        consumer = Large(checkpoint, fail, limit=1000, workers=4)
        assert consumer.run() == "ended"
        assert len(consumer.processed) == 2000 and len(consumer.dead) == 1000
    store, checkpoint = open_checkpoint(path)
    with store:
        assert checkpoint.ended and set(statuses(checkpoint).values()) == {"exhausted"}
        assert all(len(tracker.errors) == 2 for tracker in checkpoint.trackers())


def test_what_an_attempt_does_to_its_record_the_next_one_does_not_see(path: Path) -> None:
    seen: list[dict[str, Any]] = []

    def spoil(record: dict[str, Any]) -> None:
        seen.append(dict(record))
        record.clear()
        raise ValueError

    store, checkpoint = open_checkpoint(path)
    with store:
        Numbers(checkpoint, spoil).run(max_batches=1)
    assert sorted(seen, key=lambda record: record["n"]) == [{"id": f"r{n}", "n": n} for n in range(3) for _ in range(3)]


def test_an_error_with_a_text_that_no_file_can_hold_is_only_a_failed_attempt(path: Path) -> None:
    class Broken(Exception):  # noqa: N818
        def __str__(self) -> str:
            raise RuntimeError("no text")

    def fail(record: dict[str, Any]) -> None:
        raise Broken if record["n"] == 0 else ValueError("\udcff" + "x" * 100_000)

    store, checkpoint = open_checkpoint(path, max_attempts=1)
    with store:
        assert Numbers(checkpoint, fail).run() == "ended"
        assert set(statuses(checkpoint).values()) == {"exhausted"}
        (failure,) = checkpoint.tracker("r3").errors
        assert "\\udcff" in failure.error and len(failure.error) < 2000 and len(failure.traceback) < 12_000


def test_records_that_can_not_be_read_cost_no_attempt(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, checkpoint = open_checkpoint(path, max_attempts=1)
    with store:
        with monkeypatch.context() as patch:
            patch.setattr(LocalStorage, "records", lambda storage, batch: {}["a type is not registered"])
            for _ in range(3):
                with pytest.raises(KeyError):
                    Numbers(checkpoint).run()
        assert [tracker.attempts for tracker in checkpoint.trackers()] == [0, 0, 0]
        consumer = Numbers(checkpoint)
        assert consumer.run() == "ended" and not consumer.dead


@pytest.mark.parametrize("kind", [KeyboardInterrupt, MemoryError])
def test_an_interrupt_between_a_save_and_the_note_of_it_loses_and_repeats_nothing(
    path: Path, kind: type[BaseException]
) -> None:
    store, checkpoint = open_checkpoint(path)
    with store:
        put, calls, interrupted = Progress._put, 0, 0

        def interrupt(progress: Progress, tracker: Tracker) -> None:
            nonlocal calls, interrupted
            calls += 1
            if calls % 3 == 2:
                interrupted += 1
                raise kind
            put(progress, tracker)

        consumer = Numbers(checkpoint, always_failing("r1"))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Progress, "_put", interrupt)
            ending = ""
            for _ in range(50):
                try:
                    ending = consumer.run()
                    break
                except kind:
                    continue
        assert ending == "ended" and interrupted > 5
        assert set(consumer.processed) == {f"r{n}" for n in range(6)} and set(consumer.dead) == {"r1"}
        for tracker in checkpoint.trackers():
            assert tracker.attempts >= consumer.processed.count(tracker.record_id)
            assert consumer.processed.count(tracker.record_id) <= 2
