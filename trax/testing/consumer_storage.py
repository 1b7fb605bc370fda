"""The tests that every :class:`trax.consumer.Storage` must pass, to be inherited.

.. code-block:: python

    class TestMyStorage(ConsumerStorageTests):
        def open_storage(self):
            return MyStorage(...)

Whatever runs tests by their names (``pytest``, or ``unittest`` with ``TestCase`` as a second base) finds them. Each
test needs a place of its own, in which nothing is stored; ``open_storage`` opens that place anew each time.
"""

from __future__ import annotations

import json
import threading
from abc import abstractmethod
from collections.abc import Callable, Mapping
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import Any

from trax.consumer import Batch, Failure, Lease, Status, Storage, Summary, Tracker
from trax.errors import ConflictError, InvalidArgumentError, TraxError, UnsupportedValueError

NOW = datetime(2020, 2, 29, 12, 30, 59, 123456, tzinfo=UTC)
IDS = (
    "plain",
    "with-hyphen",
    "with.dot",
    "a/b",
    "a:b",
    "#",
    "",
    " ",
    "name",
    "status",
    "size",
    "é\N{SNOWMAN}",
    "x" * 500,
)
"""Ids that need care in one database or another: punctuation, reserved words, emptiness, length."""


class ConsumerStorageTests:
    """Inherit, and say how to open the storage."""

    @abstractmethod
    def open_storage(self) -> Storage:
        """The storage, open, with what earlier ones of this test have left in the same place.

        If it is not ``exclusive``, others may be open at the same time.
        """

    def effect(self) -> Any:
        """An effect that the storage can make true; None if it refuses all of them."""
        return None

    def effects(self, storage: Storage) -> int:
        """How often :meth:`effect` was made true."""
        raise NotImplementedError("a storage that takes effects overrides effects()")

    # Nothing, and the first batch

    def test_where_nothing_is_stored_there_is_no_batch(self) -> None:
        with closing(self.open_storage()) as storage:
            assert storage.load() is None

    def test_a_batch_comes_back_with_its_records_and_no_trackers(self) -> None:
        batch = new_batch(1, "a", "b", ids=IDS)
        records = {record_id: {"id": record_id, "n": n} for n, record_id in enumerate(IDS)}
        with closing(self.open_storage()) as storage:
            storage.begin(batch, records)
            self._check(storage, batch, records, {})
        with closing(self.open_storage()) as storage:
            self._check(storage, batch, records, {})

    def test_pointers_may_be_anything_that_json_knows(self) -> None:
        for start, following in [(None, 0), (0, 2**60), ("", "Ã"), ({"shard": ["a", 1]}, [1, None]), (-1.5, None)]:
            with closing(self.open_storage()) as storage:
                stored = storage.load()
                sequence = 1 if stored is None else stored[0].sequence + 1
                storage.begin(new_batch(sequence, start, following), {})
            with closing(self.open_storage()) as storage:
                stored = storage.load()
                assert stored is not None
                assert json.dumps([stored[0].start_pointer, stored[0].next_pointer]) == json.dumps([start, following])

    def test_records_are_the_callers_own(self) -> None:
        with closing(self.open_storage()) as storage:
            batch = new_batch(1, 0, 1, ids=["r"])
            record = {"list": [1, 2]}
            storage.begin(batch, {"r": record})
            record["list"].append(3)
            storage.records(batch)["r"]["list"].append(4)
            assert storage.records(batch)["r"] == {"list": [1, 2]}

    def test_a_batch_may_be_large(self) -> None:
        ids = [f"record-{n}" for n in range(1000)]
        batch = new_batch(1, 0, 1000, ids=ids)
        records = {record_id: {"text": record_id * 100} for record_id in ids}
        with closing(self.open_storage()) as storage:
            storage.begin(batch, records)
        with closing(self.open_storage()) as storage:
            self._check(storage, batch, records, {})

    # The next batch

    def test_a_new_batch_replaces_all_of_the_one_before(self) -> None:
        with closing(self.open_storage()) as storage:
            first = new_batch(1, 0, 2, ids=["a", "b"])
            storage.begin(first, {"a": 1, "b": 2})
            storage.save(changed(first.new_tracker("a")))
            summary = Summary(1, 0, 2, NOW, NOW, {"succeeded": 2})
            second = new_batch(2, 2, 4, ids=["b", "c"], history=(summary,))
            storage.begin(second, {"b": 3, "c": 4})
            self._check(storage, second, {"b": 3, "c": 4}, {})
        with closing(self.open_storage()) as storage:
            self._check(storage, second, {"b": 3, "c": 4}, {})

    def test_a_batch_that_does_not_follow_the_stored_one_is_refused(self) -> None:
        batch = new_batch(1, 0, 1, ids=["a"])
        with closing(self.open_storage()) as storage:
            for sequence in (0, 2):
                self._refused(lambda: storage.begin(new_batch(sequence, 5, 6), {}))  # noqa: B023 (called at once)
            assert storage.load() is None
            storage.begin(batch, {"a": 1})
            for sequence in (0, 1, 3):
                self._refused(lambda: storage.begin(new_batch(sequence, 5, 6), {}))  # noqa: B023
        with closing(self.open_storage()) as storage:
            self._check(storage, batch, {"a": 1}, {})

    def test_a_record_that_can_not_be_kept_leaves_everything_as_it_was(self) -> None:
        batch = new_batch(1, 0, 1, ids=["a"])
        tracker = changed(batch.new_tracker("a"))
        with closing(self.open_storage()) as storage:
            storage.begin(batch, {"a": 1})
            storage.save(tracker)
            try:
                storage.begin(new_batch(2, 1, 2, ids=["b", "c"]), {"b": 1, "c": threading.Lock()})
            except UnsupportedValueError:
                pass
            else:
                raise AssertionError("begin() took a lock for a record, and can't have kept it")
            self._check(storage, batch, {"a": 1}, {"a": tracker})
        with closing(self.open_storage()) as storage:
            self._check(storage, batch, {"a": 1}, {"a": tracker})

    # Trackers

    def test_every_part_of_a_tracker_comes_back(self) -> None:
        batch = new_batch(1, 0, 1, ids=IDS)
        saved = {}
        with closing(self.open_storage()) as storage:
            storage.begin(batch, dict.fromkeys(IDS, 0))
            for record_id in IDS:
                for tracker in life_of(batch.new_tracker(record_id)):
                    storage.save(tracker)
                    saved[record_id] = tracker
                    self._check_tracker(storage, tracker)
        with closing(self.open_storage()) as storage:
            self._check(storage, batch, dict.fromkeys(IDS, 0), saved)

    def test_a_whole_batch_may_fail_with_long_tracebacks(self) -> None:
        ids = [f"record-{n}" for n in range(1000)]
        batch = new_batch(1, 0, 1000, ids=ids)
        failure = Failure(1, NOW, "ValueError: " + "é" * 900, "Traceback\n" * 900)
        saved = {record_id: batch.new_tracker(record_id).fail(failure, NOW, 1) for record_id in ids}
        with closing(self.open_storage()) as storage:
            storage.begin(batch, dict.fromkeys(ids, None))

            def work(record_ids: list[str]) -> None:
                for record_id in record_ids:
                    storage.save(saved[record_id])

            in_threads([lambda first=first: work(ids[first::20]) for first in range(20)])  # type: ignore[misc]
        with closing(self.open_storage()) as storage:
            self._check(storage, batch, dict.fromkeys(ids, None), saved)

    def test_a_change_of_what_is_not_stored_is_refused(self) -> None:
        batch = new_batch(1, 0, 1, ids=["a", "b"])
        first = changed(batch.new_tracker("a"))
        second = changed(first)
        with closing(self.open_storage()) as storage:
            self._refused(lambda: storage.save(first))
            storage.begin(batch, {"a": 1, "b": 2})
            self._refused(lambda: storage.save(second))
            storage.save(first)
            self._refused(lambda: storage.save(first))
            self._refused(lambda: storage.save(changed(second)))
            self._refused(lambda: storage.save(changed(new_batch(2, 0, 1, ids=["b"]).new_tracker("b"))))
        with closing(self.open_storage()) as storage:
            self._check(storage, batch, {"a": 1, "b": 2}, {"a": first})
            self._refused(lambda: storage.save(first))
            storage.save(second)
            next_batch = new_batch(2, 1, 2, ids=["a"])
            storage.begin(next_batch, {"a": 1})
            self._refused(lambda: storage.save(changed(second)))
            self._check(storage, next_batch, {"a": 1}, {})

    # Threads and processes

    def test_threads_may_save_at_the_same_time(self) -> None:
        ids = [f"r{n}" for n in range(8)]
        batch = new_batch(1, 0, 1, ids=ids)
        with closing(self.open_storage()) as storage:
            storage.begin(batch, dict.fromkeys(ids, 0))

            def work(record_id: str) -> None:
                for tracker in life_of(batch.new_tracker(record_id)):
                    storage.save(tracker)

            in_threads([lambda record_id=record_id: work(record_id) for record_id in ids])  # type: ignore[misc]
        saved = {record_id: life_of(batch.new_tracker(record_id))[-1] for record_id in ids}
        with closing(self.open_storage()) as storage:
            self._check(storage, batch, dict.fromkeys(ids, 0), saved)

    def test_of_two_that_save_the_same_version_one_is_refused(self) -> None:
        batch = new_batch(1, 0, 1, ids=["a"])
        with closing(self.open_storage()) as storage:
            others = [storage] * 4 if storage.exclusive else [self.open_storage() for _ in range(4)]
            storage.begin(batch, {"a": 1})
            for other in others:
                assert other.load() is not None
            refusals: list[ConflictError] = []

            def work(other: Storage, holder: str) -> None:
                try:
                    other.save(claimed(batch.new_tracker("a"), holder))
                except ConflictError as error:
                    refusals.append(error)

            in_threads([lambda n=n, other=other: work(other, f"worker {n}") for n, other in enumerate(others)])  # type: ignore[misc]
            assert len(refusals) == len(others) - 1, f"{len(others) - len(refusals)} of {len(others)} were first"
            for other in others:
                other.close()

    # Effects

    def test_an_effect_is_true_together_with_its_tracker_or_is_refused(self) -> None:
        batch = new_batch(1, 0, 1, ids=["a"])
        tracker = changed(batch.new_tracker("a"))
        effect = self.effect()
        with closing(self.open_storage()) as storage:
            storage.begin(batch, {"a": 1})
            if effect is None:
                self._refused(lambda: storage.save(tracker, {"total": 1}), UnsupportedValueError, InvalidArgumentError)
                self._check(storage, batch, {"a": 1}, {})
                return
            storage.save(tracker, effect)
            self._refused(lambda: storage.save(tracker, effect))
        with closing(self.open_storage()) as storage:
            self._check(storage, batch, {"a": 1}, {"a": tracker})
            assert self.effects(storage) == 1

    # How it is checked

    def _check(
        self, storage: Storage, batch: Batch, records: Mapping[str, Any], trackers: Mapping[str, Tracker]
    ) -> None:
        stored = storage.load()
        assert stored is not None, "the batch is gone"
        assert stored[0] == batch, f"stored is {stored[0]}, and not {batch}"
        # Compared before the assertion: pytest would draw up the differences of a thousand tracebacks, for minutes.
        same_trackers = dict(stored[1]) == dict(trackers)
        assert same_trackers, "other trackers than were saved"
        same_records = dict(storage.records(batch)) == dict(records)
        assert same_records, "other records than were given"

    def _check_tracker(self, storage: Storage, tracker: Tracker) -> None:
        stored = storage.load()
        assert stored is not None
        assert stored[1][tracker.record_id] == tracker

    def _refused(self, call: Callable[[], None], *errors: type[TraxError]) -> None:
        expected = errors or (ConflictError,)
        try:
            call()
        except expected:
            return
        raise AssertionError("it was not refused")


def new_batch(sequence: int, start: Any, following: Any, *, ids: Any = (), history: tuple[Summary, ...] = ()) -> Batch:
    return Batch(sequence, start, following, NOW, tuple(ids), history)


def changed(tracker: Tracker) -> Tracker:
    """The tracker after some change."""
    return tracker.note(NOW, {"changes": tracker.version + 1})


def claimed(tracker: Tracker, holder: str) -> Tracker:
    return tracker.claim(Lease(holder, f"token of {holder}", NOW, NOW + timedelta(seconds=900)))


def life_of(tracker: Tracker) -> list[Tracker]:
    """A tracker after each change of a life that goes through every state."""
    failure = Failure(1, NOW, "ValueError: no", 'Traceback "quoted" \\ \n\t é')
    later = NOW + timedelta(days=1)
    life = [claimed(tracker, "somebody")]
    life.append(life[-1].renew(later, later))
    life.append(life[-1].fail(failure, later, 2))
    life.append(claimed(life[-1], "another"))
    life.append(life[-1].fail(failure, later, 2))
    life.append(claimed(life[-1], "a third"))
    life.append(life[-1].deliver(later))
    life.append(life[-1].retry(later))
    life.append(life[-1].skip(later))
    life.append(life[-1].note(later, {"a": [1, {"b": None}], "é": 1.5, "true": True}))
    assert {one.status for one in life} == set(Status) - {Status.SUCCEEDED}
    return [*life, life[-1].succeed(later)]


def in_threads(calls: list[Callable[[], None]]) -> None:
    """Make the calls at the same time; raise what one of them has raised."""
    errors: list[BaseException] = []
    start = threading.Barrier(len(calls))

    def run(call: Callable[[], None]) -> None:
        try:
            start.wait()
            call()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=[call]) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
