"""What a consumer does with records, time, order, hooks and effects."""

from __future__ import annotations

import logging
import math
import threading
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, ClassVar

import pytest

import trax
from tests.consumer.toys import Database, MemoryStorage, Numbers, always_failing, statuses
from tests.watching import within
from trax.consumer import Checkpoint, Consumer, Effect, Status, Summary, Tracker
from trax.errors import ExhaustedError, InvalidArgumentError, UnknownRecordError, UnsupportedValueError
from trax.testing.clock import ManualClock


@pytest.fixture
def store(tmp_path: Path) -> Any:
    with trax.Trax(tmp_path / "store", sync="os") as store:
        yield store


def new(store: trax.Trax, **options: Any) -> Checkpoint:
    return Checkpoint(store, "stream", **{"initial_pointer": 0, **options})


def test_the_stream_is_read_from_the_initial_pointer_to_its_end(store: trax.Trax) -> None:
    checkpoint = new(store, initial_pointer=2)
    consumer = Numbers(checkpoint)
    assert consumer.run() == "ended"
    assert consumer.processed == ["r2", "r3", "r4", "r5"]
    assert consumer.fetched == [2, 5]
    assert [summary.counts for summary in consumer.batches] == [{"succeeded": 3}, {"succeeded": 1}]
    assert checkpoint.unfinished() == [] and checkpoint.ended


def test_a_batch_at_a_time(store: trax.Trax) -> None:
    consumer = Numbers(new(store))
    first = consumer.process_batch()
    assert first is not None
    assert (first.sequence, first.start_pointer, first.next_pointer, first.counts) == (1, 0, 3, {"succeeded": 3})
    assert consumer.run(max_batches=1) == "ended"
    assert Numbers(consumer.checkpoint).run(max_batches=0) == "ended"


def test_run_counts_batches_with_records(store: trax.Trax) -> None:
    class Endless(Numbers):
        size, ends = 100, False

    consumer = Endless(new(store))
    assert consumer.run(max_batches=2) == "max_batches"
    assert len(consumer.processed) == 6


def test_where_nothing_is_new_it_waits_and_stores_nothing(store: trax.Trax) -> None:
    clock = ManualClock()
    checkpoint = new(store, clock=clock)
    polled: list[int] = []

    class Waiting(Numbers):
        ends = False

        def fetch(self, pointer: int, limit: int) -> tuple[list[dict[str, Any]], int | None]:
            if pointer == self.size:
                polled.append(store.last_sequence)
                if len(polled) == 3:
                    self.stop()
                else:
                    threading.Thread(target=pass_time).start()
            return super().fetch(pointer, limit)

    def pass_time() -> None:
        clock.until_waiting()
        clock.advance(5)

    assert Waiting(checkpoint, poll_s=5).run() == "stopped"
    assert len(polled) == 3 and len(set(polled)) == 1
    assert checkpoint.pointer == 6


def test_a_pointer_that_moves_without_records_is_stored(store: trax.Trax) -> None:
    class Gaps(Numbers):
        def fetch(self, pointer: int, limit: int) -> tuple[list[dict[str, Any]], int | None]:
            self.fetched.append(pointer)
            return ([], pointer + 1) if pointer < 3 else ([{"id": "last"}], None)

    consumer = Gaps(new(store), poll_s=0.001)
    assert (consumer.run(), consumer.processed, consumer.fetched) == ("ended", ["last"], [0, 1, 2, 3])


def test_a_pointer_that_fetch_or_its_caller_changes_skips_nothing(store: trax.Trax) -> None:
    """Offsets by partition, raised in place: the batch that could not be fetched or saved is fetched again."""
    given, failing = {"p0": 0}, ["fetch", "save"]
    checkpoint = new(store, initial_pointer=given)

    class Partitions(Numbers):
        def fetch(self, pointer: Any, limit: int) -> tuple[list[dict[str, Any]], Any]:
            records, following = super().fetch(pointer["p0"], limit)
            pointer["p0"] = self.size if following is None else following
            if failing[:1] == ["fetch"]:
                raise ConnectionError(failing.pop(0))
            if failing[:1] == ["save"]:
                records.append({"id": failing.pop(0), "n": object()})
            return records, pointer if following is not None else None

    consumer = Partitions(checkpoint)
    given["p0"] = 5
    with pytest.raises(ConnectionError):
        consumer.run()
    with pytest.raises(UnsupportedValueError):
        consumer.run()
    consumer.process_batch()
    checkpoint.pointer["p0"] = 5
    assert consumer.run() == "ended"
    assert consumer.processed == [f"r{n}" for n in range(6)]
    assert [(summary.start_pointer, summary.next_pointer) for summary in checkpoint.history()] == [
        ({"p0": 0}, {"p0": 3}),
        ({"p0": 3}, None),
    ]


def test_a_pointer_that_the_consumer_keeps_and_raises_before_it_reads_skips_nothing(store: trax.Trax) -> None:
    class Keeps(Numbers):
        offsets: ClassVar[dict[str, int]] = {}
        broken = False

        def fetch(self, pointer: Any, limit: int) -> tuple[list[dict[str, Any]], Any]:
            self.offsets["p0"] = pointer["p0"] + limit
            if self.broken:
                self.broken = False
                raise ConnectionError
            return super().fetch(pointer["p0"], limit)[0], self.offsets if self.offsets["p0"] < self.size else None

    consumer = Keeps(new(store, initial_pointer={"p0": 0}))
    consumer.process_batch()
    consumer.broken = True
    with pytest.raises(ConnectionError):
        consumer.run()
    assert consumer.run() == "ended"
    assert consumer.processed == [f"r{n}" for n in range(6)]


def test_what_is_done_to_the_data_of_a_tracker_is_done_to_a_copy(store: trax.Trax) -> None:
    checkpoint = new(store)
    checkpoint.begin([("a", 1)], None)
    pages = [1]
    checkpoint.note("a", {"pages": pages})
    pages.append(2)
    checkpoint.tracker("a").data["pages"].append(3)
    checkpoint.trackers()[0].data["pages"].append(4)
    assert checkpoint.tracker("a").data == {"pages": [1]}
    claimed = checkpoint.claim("worker")
    assert claimed is not None
    claimed.data["pages"].append(5)
    checkpoint.note("a", {"by": "test"})
    checkpoint.close()
    assert new(store).tracker("a").data == {"pages": [1], "by": "test"}


@pytest.mark.parametrize("given", [None, [{"id": "a"}, {"id": "b"}], ([{"id": "a"}],), "ab", ([{"id": "a"}], 1, 2)])
def test_what_fetch_returns_is_a_pair(store: trax.Trax, given: Any) -> None:
    class Returns(Numbers):
        def fetch(self, pointer: int, limit: int) -> Any:
            return given

    before = store.last_sequence
    with pytest.raises(InvalidArgumentError, match=r"fetch\(\) returns \(records, next_pointer\)"):
        Returns(new(store)).process_batch()
    assert store.last_sequence == before


@pytest.mark.parametrize("record", [{"n": 1}, 5, "text", {}])
def test_a_record_without_an_id_is_an_error_that_names_the_method(store: trax.Trax, record: Any) -> None:
    class Returns(Numbers):
        def fetch(self, pointer: int, limit: int) -> Any:
            return [record], 1

    before = store.last_sequence
    with pytest.raises(InvalidArgumentError, match=r"has no id.*record_id\(\)"):
        Returns(new(store)).process_batch()
    assert store.last_sequence == before


def test_records_are_found_by_their_item_or_attribute_or_as_the_user_says(store: trax.Trax) -> None:
    @trax.register(name="test_consumer.Thing")
    @dataclass
    class Thing:
        id: str

    class Things(Numbers):
        given: Any = ()

        def fetch(self, pointer: int, limit: int) -> tuple[Any, int | None]:
            return self.given, pointer + 1

        def process(self, record: Any) -> None:
            self.processed.append(record)

    class Pairs(Things):
        def record_id(self, record: Any) -> str:
            return f"{record[0]}"

    for kind, given in ((Things, [{"id": "a"}, Thing("b")]), (Pairs, [(1, "x"), (2, "y")])):
        consumer = kind(new(store))
        consumer.given = given
        consumer.process_batch()
        assert consumer.processed == given
        consumer.checkpoint.close()
    consumer = Things(new(store))
    consumer.given = [{"id": 7}]
    with pytest.raises(InvalidArgumentError, match="is a str, and 7 is of type int"):
        consumer.process_batch()


# Failures


def test_a_failing_record_is_retried_after_the_backoff_and_others_do_not_wait_for_it(store: trax.Trax) -> None:
    clock = ManualClock()
    checkpoint = new(store, clock=clock, max_attempts=3)
    started: list[tuple[str, float]] = []
    begin = clock.now()

    def flaky(record: dict[str, Any]) -> None:
        started.append((record["id"], (clock.now() - begin).total_seconds()))
        if record["id"] == "r0" and len([one for one, _ in started if one == "r0"]) < 3:
            raise ValueError("not yet")

    class Patient(Numbers):
        def backoff(self, attempt: int) -> float:
            return 60.0 * attempt

        def on_record(self, record: Any, tracker: Tracker) -> None:
            clock.advance(70 if record["id"] == "r2" else 0)
            if tracker.attempts == 2 and tracker.due is not None:
                assert tracker.due - tracker.updated == timedelta(seconds=120)
                clock.advance(120)

    Patient(checkpoint, flaky).process_batch()
    assert started == [("r0", 0), ("r1", 0), ("r2", 0), ("r0", 70), ("r0", 190)]
    tracker = checkpoint.tracker("r0")
    assert (tracker.status, tracker.attempts) == (Status.SUCCEEDED, 3)
    assert [(failure.attempt, failure.error) for failure in tracker.errors] == [
        (1, "ValueError: not yet"),
        (2, "ValueError: not yet"),
    ]
    assert 'raise ValueError("not yet")' in tracker.errors[0].traceback


def test_a_note_does_not_bring_a_retry_forward(store: trax.Trax) -> None:
    clock = ManualClock()
    checkpoint = new(store, clock=clock)
    checkpoint.begin([("a", 1)], None)
    checkpoint.note("a", {"seen": True})
    claimed = checkpoint.claim("worker")
    assert claimed is not None
    checkpoint.fail(claimed, ValueError(), 60)
    checkpoint.let_go("worker")
    assert checkpoint.claim("worker") is None
    checkpoint.note("a", {"seen": "twice"})
    assert checkpoint.claim("worker") is None
    checkpoint.note("a", {"seen": "and again"})
    clock.advance(60)
    assert checkpoint._progress.reserve("one") == "a" and checkpoint._progress.reserve("another") is None
    checkpoint.let_go("one")
    claimed = checkpoint.claim("worker")
    assert claimed is not None and claimed.attempts == 2


def test_a_batch_begins_when_the_one_before_has_ended(store: trax.Trax) -> None:
    checkpoint = new(store)
    checkpoint.begin([("a", 1)], 1)
    with pytest.raises(InvalidArgumentError, match="1 records of the present batch have not ended"):
        checkpoint.begin([("b", 2)], 2)
    checkpoint.skip("a")
    assert checkpoint.begin([("b", 2)], 2)
    claimed = checkpoint.claim("worker")
    assert claimed is not None and claimed.record_id == "b" and checkpoint.record("b") == 2
    with pytest.raises(InvalidArgumentError, match="was not claimed"):
        checkpoint.succeed(checkpoint.tracker("b").release(claimed.created))
    assert checkpoint.succeed(claimed, {"own": 1}) is not None
    assert checkpoint.ended is False and checkpoint.finished


def test_a_waiting_worker_goes_on_when_the_time_has_come(store: trax.Trax) -> None:
    clock = ManualClock()

    class Slow(Numbers):
        size = 1

        def backoff(self, attempt: int) -> float:
            if attempt == 1:
                threading.Thread(target=pass_time).start()
            return 0.1

    def pass_time() -> None:
        clock.until_waiting(2)  # the worker, and the thread that renews leases
        clock.advance(0.1)

    consumer = Slow(new(store, clock=clock, max_attempts=2), always_failing("r0"))
    assert (consumer.run(), consumer.processed, consumer.dead) == ("ended", ["r0", "r0"], ["r0"])


@pytest.mark.parametrize("given", [None, "1", math.inf, math.nan, 1e20])
def test_a_backoff_that_is_no_time_is_an_error_that_names_it(store: trax.Trax, given: Any) -> None:
    class Never(Numbers):
        def backoff(self, attempt: int) -> float:
            return given  # type: ignore[no-any-return]

    checkpoint = new(store)
    with pytest.raises(InvalidArgumentError, match=r"backoff\(\)") as caught:
        Never(checkpoint, always_failing("r0")).run()
    assert "r0 is bad" in str(caught.value.__cause__)
    assert checkpoint.tracker("r0").attempts == 1
    assert Numbers(checkpoint).run() == "ended"


def test_process_does_not_run_its_own_consumer(store: trax.Trax) -> None:
    checkpoint = new(store, max_attempts=1)

    def inner(record: dict[str, Any]) -> None:
        consumer.run() if record["n"] % 2 else consumer.process_batch()

    consumer = Numbers(checkpoint, inner, workers=2)
    within(lambda: consumer.run() and None)
    assert consumer.dead and sorted(consumer.dead) == [f"r{n}" for n in range(6)]
    assert "ReentrantCallError: " in checkpoint.tracker("r5").errors[0].error
    consumer.todo = None
    checkpoint.retry("r5")
    assert consumer.run() == "ended" and checkpoint.tracker("r5").status is Status.SUCCEEDED


def test_the_default_backoff_doubles_up_to_a_minute_with_jitter(store: trax.Trax) -> None:
    consumer = Numbers(new(store))
    for attempt, longest in [(1, 1), (2, 2), (3, 4), (6, 32), (7, 60), (1000, 60)]:
        drawn = {Consumer.backoff(consumer, attempt) for _ in range(50)}
        assert len(drawn) > 10
        assert longest / 2 <= min(drawn) <= max(drawn) <= longest


def test_the_default_dead_letter_is_a_line_in_the_log(store: trax.Trax, caplog: pytest.LogCaptureFixture) -> None:
    class Plain(Numbers):
        dead_letter = Consumer.dead_letter

    with caplog.at_level(logging.ERROR, "trax"):
        Plain(new(store, max_attempts=2), always_failing("r1")).run()
    assert [record.getMessage() for record in caplog.records] == [
        "the record 'r1' is exhausted after 2 attempts: ValueError: r1 is bad"
    ]


def test_dead_letter_gets_the_record_and_its_errors(store: trax.Trax) -> None:
    got: list[tuple[Any, Tracker]] = []

    class Keeps(Numbers):
        def dead_letter(self, record: dict[str, Any], tracker: Tracker) -> None:
            got.append((record, tracker))

    Keeps(new(store, max_attempts=2), always_failing("r1")).run()
    ((record, tracker),) = got
    assert record == {"id": "r1", "n": 1}
    assert [failure.error for failure in tracker.errors] == ["ValueError: r1 is bad"] * 2
    assert tracker.status is Status.EXHAUSTED and tracker.delivered is None


def test_an_interrupt_inside_process_puts_the_record_back_and_is_raised(store: trax.Trax) -> None:
    checkpoint = new(store)

    def interrupted(record: dict[str, Any]) -> None:
        if record["id"] == "r1" and checkpoint.tracker("r1").attempts == 1:
            raise KeyboardInterrupt

    consumer = Numbers(checkpoint, interrupted)
    with pytest.raises(KeyboardInterrupt):
        consumer.run()
    tracker = checkpoint.tracker("r1")
    assert (tracker.status, tracker.attempts, tracker.lease) == (Status.PENDING, 1, None)
    assert consumer.run() == "ended"
    assert consumer.processed == ["r0", "r1", "r1", "r2", "r3", "r4", "r5"]


def test_what_fetch_and_the_hooks_raise_reaches_the_caller_and_nothing_is_lost(store: trax.Trax) -> None:
    class Faulty(Numbers):
        faults: ClassVar = ["fetch", "record", "batch"]

        def fail(self, where: str) -> None:
            if self.faults[:1] == [where]:
                del self.faults[0]
                raise RuntimeError(where)

        def fetch(self, pointer: int, limit: int) -> tuple[list[dict[str, Any]], int | None]:
            self.fail("fetch")
            return super().fetch(pointer, limit)

        def on_record(self, record: Any, tracker: Tracker) -> None:
            self.fail("record")

        def on_batch(self, summary: Summary) -> None:
            self.fail("batch")

    consumer = Faulty(new(store))
    for where in list(Faulty.faults):
        with pytest.raises(RuntimeError, match=where):
            consumer.run()
    assert consumer.run() == "ended"
    assert consumer.processed == [f"r{n}" for n in range(6)]


# Order


def test_in_order_the_stream_stops_at_an_exhausted_record_until_it_is_decided_about(store: trax.Trax) -> None:
    checkpoint = new(store, max_attempts=2)
    consumer = Numbers(checkpoint, always_failing("r1", "r2", "r4"), ordered=True)
    for _ in range(2):
        with pytest.raises(ExhaustedError, match="keeps its order") as caught:
            consumer.run()
        assert caught.value.record_id == "r1"
    assert (consumer.processed, consumer.dead) == (["r0", "r1", "r1"], ["r1"])
    checkpoint.skip("r1")
    with pytest.raises(ExhaustedError) as caught:
        consumer.run()
    assert caught.value.record_id == "r2"
    assert consumer.fetched == [0], "also behind the last of a batch"
    consumer.todo = always_failing("r4")
    checkpoint.retry("r2")
    with pytest.raises(ExhaustedError) as caught:
        consumer.run()
    assert caught.value.record_id == "r4"
    checkpoint.retry("r4")
    consumer.todo = None
    assert consumer.run() == "ended"
    assert consumer.processed == ["r0", "r1", "r1", "r2", "r2", "r2", "r3", "r4", "r4", "r4", "r5"]


def test_in_order_a_record_waits_for_the_retries_of_the_one_before(store: trax.Trax) -> None:
    consumer = Numbers(new(store), ordered=True)
    consumer.todo = lambda record: 1 / (len(consumer.processed) - 1)
    consumer.run()
    assert consumer.processed == ["r0", "r0", "r1", "r2", "r3", "r4", "r5"]


def test_options_that_make_no_sense_are_refused(store: trax.Trax) -> None:
    checkpoint = new(store)
    wrong: list[dict[str, Any]] = [{"ordered": True, "workers": 2}]
    wrong += [{name: value} for name in ("limit", "workers") for value in (0, 1.5, "2", True, None)]
    wrong += [{"poll_s": value} for value in (0, -1, "1", None, True, math.nan, math.inf, timedelta(1))]
    for options in wrong:
        with pytest.raises(InvalidArgumentError, match="workers" if len(options) > 1 else next(iter(options))):
            Numbers(checkpoint, **options)
    wrong = [{"max_attempts": value} for value in (0, -1, 1.5, "3", True, None)]
    wrong += [{"lease_s": value} for value in (0, "1", math.nan, math.inf, 1e12, timedelta(seconds=900))]
    wrong += [{"history_batches": value} for value in (-1, 0.5, None)]
    for options in wrong:
        with pytest.raises(InvalidArgumentError, match=next(iter(options))):
            Checkpoint(store, "other", **options)
    for where in (None, 5, ["path"]):
        with pytest.raises(InvalidArgumentError, match="path, a Trax, or a Storage"):
            Checkpoint(where, "other")  # type: ignore[arg-type]
    for stream in (None, 5, b"other"):
        with pytest.raises(InvalidArgumentError, match="a stream is named by a str"):
            Checkpoint(store, stream)  # type: ignore[arg-type]
    Checkpoint(store, "other").close()
    with pytest.raises(TypeError, match="abstract"):
        Consumer(checkpoint)  # type: ignore[abstract]


# What the user decides


def test_skip_and_retry(store: trax.Trax) -> None:
    checkpoint = new(store, max_attempts=1)
    consumer = Numbers(checkpoint, lambda record: consumer.stop() if record["id"] == "r0" else None)
    assert consumer.run() == "stopped"
    assert [tracker.record_id for tracker in checkpoint.unfinished()] == ["r1", "r2"]
    checkpoint.skip("r1")
    checkpoint.skip("r1")
    consumer.todo = always_failing("r2")
    assert consumer.run(max_batches=1) == "max_batches"
    assert statuses(checkpoint) == {"r0": "succeeded", "r1": "ignored", "r2": "exhausted"}
    assert (consumer.processed, consumer.dead) == (["r0", "r2"], ["r2"])
    checkpoint.retry("r1")
    tracker = checkpoint.retry("r2")
    assert (tracker.attempts, tracker.delivered, len(tracker.errors)) == (0, None, 1)
    consumer.todo = None
    assert consumer.run() == "ended"
    assert consumer.processed == ["r0", "r2", "r1", "r2", "r3", "r4", "r5"]
    for call in (checkpoint.skip, checkpoint.retry):
        with pytest.raises(InvalidArgumentError, match="it is succeeded"):
            call("r5")
        with pytest.raises(UnknownRecordError, match="no record 'r0'"):
            call("r0")


def test_what_is_being_worked_on_can_not_be_decided_about(store: trax.Trax) -> None:
    checkpoint = new(store)
    refused: list[str] = []

    def decide(record: dict[str, Any]) -> None:
        for call in (checkpoint.skip, checkpoint.retry):
            with pytest.raises(InvalidArgumentError, match="held by pid"):
                call(record["id"])
            refused.append(record["id"])

    Numbers(checkpoint, decide).process_batch()
    assert refused == ["r0", "r0", "r1", "r1", "r2", "r2"]
    assert set(statuses(checkpoint).values()) == {"succeeded"}


def test_notes_are_kept_with_the_record(store: trax.Trax, tmp_path: Path) -> None:
    checkpoint = new(store)

    def note(record: dict[str, Any]) -> None:
        pages = checkpoint.tracker(record["id"]).data.get("pages", 0)
        checkpoint.note(record["id"], {"pages": pages + 1, "by": "test"})
        if pages < 1:
            raise ValueError

    Numbers(checkpoint, note).process_batch()
    checkpoint.close()
    checkpoint = new(store)
    assert checkpoint.tracker("r2").data == {"pages": 2, "by": "test"}


def test_history_goes_back_as_far_as_it_was_told(store: trax.Trax) -> None:
    class Long(Numbers):
        size = 30

    checkpoint = new(store, history_batches=3)
    assert checkpoint.history() == [] and checkpoint.summary() is None
    Long(checkpoint, always_failing("r28")).run()
    history = checkpoint.history()
    assert [summary.sequence for summary in history] == [7, 8, 9, 10]
    assert [summary.start_pointer for summary in history] == [18, 21, 24, 27]
    assert history[-1] == checkpoint.summary()
    assert (history[-1].next_pointer, history[-1].counts) == (None, {"succeeded": 2, "exhausted": 1})
    assert all(summary.created <= summary.updated and summary.created.tzinfo is not None for summary in history)
    checkpoint.close()
    assert new(store).history() == history
    other = Checkpoint(store, "other", initial_pointer=0, history_batches=0)
    Long(other).run()
    assert [summary.sequence for summary in other.history()] == [10]


def test_stop_from_outside_takes_effect_between_two_records(store: trax.Trax) -> None:
    checkpoint = new(store)
    consumer = Numbers(checkpoint)
    consumer.stop()
    assert consumer.run() == "stopped" and consumer.fetched == [], "a stop that comes before the run counts"
    consumer.todo = lambda record: consumer.stop() if record["id"] == "r1" else None
    assert consumer.process_batch() is None
    assert (consumer.processed, statuses(checkpoint)["r1"]) == (["r0", "r1"], "succeeded")
    assert consumer.run() == "ended"
    assert consumer.processed == [f"r{n}" for n in range(6)]


# Leases


def test_leases_are_renewed_off_the_workers_thread_while_it_works() -> None:
    database, clock = Database(), ManualClock()
    renewed = threading.Event()

    class Tells(MemoryStorage):
        def save(self, tracker: Tracker, effect: Any = None) -> None:
            super().save(tracker, effect)
            if (tracker.record_id, tracker.version) == ("r0", 2):
                assert threading.current_thread() is not worker
                renewed.set()

    worker = threading.current_thread()
    checkpoint = Checkpoint(Tells(database), initial_pointer=0, lease_s=90, clock=clock)
    other = Checkpoint(MemoryStorage(database), initial_pointer=0, clock=clock)

    def long(record: dict[str, Any]) -> None:
        if record["id"] == "r0":
            clock.until_waiting()
            clock.advance(30)
            assert renewed.wait(60)
            clock.advance(85)
            other.refresh()
            tracker = other.tracker("r0")
            assert tracker.status is Status.IN_PROGRESS and tracker.lease is not None
            assert tracker.lease.until - tracker.lease.since == timedelta(seconds=120)
            assert other.claim("other") is not None and other.tracker("r1").status is Status.IN_PROGRESS
            other.release(other.tracker("r1"))

    consumer = Numbers(checkpoint, long)
    assert consumer.run() == "ended"
    assert [tracker.attempts for tracker in consumer.outcomes[:3]] == [1, 2, 1]


def test_a_failing_renewal_ends_the_run_with_its_error() -> None:
    clock = ManualClock()
    tried = threading.Event()

    class Breaks(MemoryStorage):
        def save(self, tracker: Tracker, effect: Any = None) -> None:
            if tracker.record_id == "r1" and tracker.version == 2 and not tried.is_set():
                tried.set()
                raise OSError("the database is gone")
            super().save(tracker, effect)

    def long(record: dict[str, Any]) -> None:
        if record["id"] == "r1":
            clock.until_waiting()
            clock.advance(30)
            assert tried.wait(60)

    consumer = Numbers(Checkpoint(Breaks(Database()), initial_pointer=0, lease_s=90, clock=clock), long)
    with pytest.raises(OSError, match="the database is gone"):
        consumer.run()
    assert consumer.processed == ["r0", "r1"]
    assert consumer.run() == "ended"
    assert consumer.processed == [f"r{n}" for n in range(6)]


# Effects


def test_an_effect_is_a_record_of_the_same_commit(store: trax.Trax) -> None:
    checkpoint = new(store)
    consumer = Numbers(checkpoint, lambda record: Effect(total=record["n"], ids=record["id"]))
    consumer.run()
    assert store.recover("total", create=lambda: 0, replay_log=lambda total, n: total + n) == 15
    effects = [sequence for sequence, _ in store.entries("total")]
    assert [sequence for sequence, _ in store.entries("ids")] == effects
    with_status = [
        one.sequence for one in _records(store) if any(name.startswith("trax:consumer") for name in one.entries)
    ]
    assert set(effects[3:]) <= set(with_status)


def _records(store: trax.Trax) -> list[Any]:
    from trax.records import Follower, Wanted
    from trax.storage.local.fs import LocalFileSystem
    from trax.storage.local.layout import Layout

    follower = Follower(LocalFileSystem(), Layout(store.path), Wanted(None, {}, 0), 0, lambda *_: None)
    try:
        return list(follower.poll())
    finally:
        follower.close()


@pytest.mark.parametrize("effect", [Effect(total=object()), Effect({"trax:consumer:x": 1}), Effect(["total"])])
def test_an_effect_that_can_not_be_made_true_is_a_failed_attempt(store: trax.Trax, effect: Effect) -> None:
    checkpoint = new(store, max_attempts=2)
    consumer = Numbers(checkpoint, lambda record: effect if record["id"] == "r1" else {"not": "an effect"})
    assert consumer.run() == "ended"
    assert (consumer.dead, consumer.processed.count("r1")) == (["r1"], 2)
    assert [tracker.status for tracker in consumer.outcomes[:1]] == [Status.SUCCEEDED]
    assert "trax.errors." in consumer.outcomes[-4].errors[-1].error


def test_effects_are_given_as_log_takes_them() -> None:
    assert Effect({"two words": 1}, total=2).what == {"two words": 1, "total": 2}
    assert Effect(("INSERT", ())).what == ("INSERT", ())
    assert Effect().what is None


# Reading beside


def test_a_checkpoint_can_be_looked_at_while_a_consumer_works(store: trax.Trax) -> None:
    looked: list[dict[str, str]] = []

    def look(record: dict[str, Any]) -> None:
        with trax.Trax(store.path, mode="r") as reader:
            looking = Checkpoint(reader, "stream")
            looked.append(statuses(looking))
            with pytest.raises(trax.errors.ReadOnlyError):
                looking.note("r1", {})
            looking.close()

    Numbers(new(store), look).process_batch()
    assert looked == [
        {"r0": "in_progress", "r1": "pending", "r2": "pending"},
        {"r0": "succeeded", "r1": "in_progress", "r2": "pending"},
        {"r0": "succeeded", "r1": "succeeded", "r2": "in_progress"},
    ]
