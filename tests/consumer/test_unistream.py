"""Programs and files of the ``unistream`` library go on, and what went wrong there does not."""

from __future__ import annotations

import dataclasses
import gc
import json
from collections.abc import Iterable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar

import pytest

import trax
import trax.compat.unistream as unistream
from tests.counting import count
from tests.helpers import kill
from tests.sweeping import Bounds, crash_everywhere, fail_everywhere
from trax.compat.unistream import checkpoint as checkpoint_module
from trax.compat.unistream.checkpoint import _Home
from trax.errors import CorruptionError, DiskFullError, DuplicateRecordError, StoreLockedError

NOW = datetime(2024, 5, 1, tzinfo=UTC)
EPOCH = "1970-01-01T00:00:00+00:00"


@dataclasses.dataclass(frozen=True)
class Record(unistream.DataClassRecord):
    value: int = 0


@dataclasses.dataclass
class Consumer(unistream.SimpleConsumer):
    """``bad`` records fail; ``said`` is what was done."""

    bad: ClassVar[set[str]] = set()

    def __post_init__(self) -> None:
        self.said: list[str] = []

    def process_record(self, record: Record) -> None:
        self.said.append(record.id)
        if record.id in self.bad:
            raise LookupError(f"{record.id} is bad")

    def process_failed_record(self, record: Record) -> None:
        self.said.append(f"dead {record.id}")


@pytest.fixture
def place(tmp_path: Path) -> Path:
    write_source(tmp_path, 5)
    return tmp_path


def write_source(place: Path, count: int) -> None:
    lines = [Record(f"r{n}", NOW.isoformat(), n).serialize() + "\n" for n in range(count)]
    (place / "source.log").write_text("".join(lines))


def load(place: Path, **options: Any) -> unistream.SimpleCheckpoint:
    return unistream.SimpleCheckpoint.load(str(place / "checkpoint.json"), str(place / "records.json"), **options)


def new(place: Path, checkpoint: unistream.BaseCheckPoint, *bad: str, **options: Any) -> Consumer:
    kind = dataclasses.make_dataclass("Kind", [], bases=(Consumer,), namespace={"bad": set(bad)})
    given = {"limit": 3, "exp_backoff_min": 0, "exp_backoff_max": 0, "delay": 0.001, **options}
    consumer: Consumer = kind.new(Record, place / "source.log", place / "dlq.log", checkpoint, **given)
    return consumer


def statuses(checkpoint: unistream.BaseCheckPoint) -> dict[str, str]:
    return {key: unistream.StatusEnum(tracker.status).name for key, tracker in checkpoint.batch.items()}


# Programs


def test_a_program_goes_on_as_it_was_written(place: Path) -> None:
    checkpoint = load(place, max_attempts=2)
    consumer = new(place, checkpoint, "r1")
    consumer.process_batch()
    assert consumer.said == ["r0", "r1", "r2", "r1", "dead r1"]
    assert (checkpoint.start_pointer, checkpoint.next_pointer, checkpoint.batch_sequence) == (3, None, 1)
    assert statuses(checkpoint) == {"r0": "succeeded", "r1": "exhausted", "r2": "succeeded"}
    tracker = checkpoint.get_tracker(Record("r1"))
    assert tracker.attempts == 2 and tracker.lock is None
    assert "r1 is bad" in tracker.errors["error"] and "Traceback" in tracker.errors["traceback"]
    assert [record.id for record in checkpoint.get_not_succeeded_records(Record)] == ["r1"]
    consumer.process_batch()
    consumer.process_batch()
    assert consumer.said[5:] == ["r3", "r4"]
    assert load(place) == dataclasses.replace(checkpoint, max_attempts=3)


def test_a_new_object_in_the_same_process_goes_on_where_the_last_one_was(place: Path) -> None:
    said = []
    for _ in range(4):
        consumer = new(place, load(place))
        consumer.process_batch()
        said += consumer.said
    assert said == [f"r{n}" for n in range(5)]


def test_the_store_is_held_as_long_as_a_checkpoint_is(place: Path) -> None:
    checkpoint = load(place)
    with pytest.raises(StoreLockedError):
        trax.Trax(place / "checkpoint.json.trax")
    del checkpoint
    gc.collect()
    trax.Trax(place / "checkpoint.json.trax").close()


def test_checkpoints_can_be_used_without_a_consumer(place: Path) -> None:
    checkpoint = unistream.SimpleCheckpoint(
        lock_expire=60,
        max_attempts=2,
        initial_pointer=0,
        start_pointer=0,
        next_pointer=None,
        batch_sequence=0,
        batch={},
        checkpoint_file=str(place / "own.json"),
        records_file=str(place / "own.records.json"),
    )
    records = [Record("a"), Record("b"), Record("c")]
    assert checkpoint.is_ready_for_next_batch() and checkpoint.load_records(Record) == []
    checkpoint.update_for_new_batch(records, next_pointer=3)
    assert not checkpoint.is_ready_for_next_batch()
    checkpoint.dump_records(records)
    checkpoint.dump()
    for record in records:
        checkpoint.mark_as_in_progress(record)
        checkpoint.dump_as_in_progress(record)
    for _ in range(2):
        checkpoint.mark_as_failed_or_exhausted(records[0], ValueError("no"))
        checkpoint.dump_as_failed_or_exhausted(records[0])
        assert statuses(checkpoint)["a"] == ("failed" if _ == 0 else "exhausted")
        checkpoint.get_tracker(records[0]).attempts += 1
    checkpoint.mark_as_succeeded(records[1])
    checkpoint.dump_as_succeeded(records[1])
    again = unistream.SimpleCheckpoint.load(str(place / "own.json"), str(place / "own.records.json"))
    assert statuses(again) == {"a": "exhausted", "b": "succeeded", "c": "in_progress"}
    assert again.get_not_succeeded_records(Record) == [records[0], records[2]]
    assert again.batch["b"] == checkpoint.batch["b"] and again.load_records(Record) == records
    assert unistream.SimpleCheckpoint.from_dict(checkpoint.to_dict()) == checkpoint


def test_a_lock_is_for_seconds(place: Path) -> None:
    checkpoint = load(place, lock_expire=60)
    record = Record("a")
    checkpoint.update_for_new_batch([record])
    assert not checkpoint.is_record_locked(record)
    checkpoint.mark_as_in_progress(record, now=NOW)
    tracker = checkpoint.get_tracker(record)
    assert tracker.lock_expire_datetime - tracker.lock_datetime == timedelta(seconds=60)
    assert checkpoint.is_record_locked(record, now=NOW + timedelta(seconds=59))
    assert not checkpoint.is_record_locked(record, lock=tracker.lock, now=NOW)
    assert not checkpoint.is_record_locked(record, lock="other", now=NOW + timedelta(seconds=60))
    assert tracker.create_datetime.tzinfo is not None and tracker.update_datetime == NOW


def test_the_end_of_the_stream_is_said_and_remembered(place: Path) -> None:
    class Ends(Consumer):
        def get_records(self, limit: int | None = None) -> tuple[list[Any], unistream.T_POINTER | None]:
            records, following = super().get_records(limit)
            return records, following if len(records) == 3 else None

    for expected in (["r0", "r1", "r2", "r3", "r4"], [], []):
        consumer = Ends.new(Record, place / "source.log", place / "dlq.log", load(place), limit=3)
        with pytest.raises(unistream.StreamIsClosedError):
            consumer.run()
        with pytest.raises(unistream.StreamIsClosedError):
            consumer.process_batch()
        assert consumer.said == expected


def test_without_skipping_errors_the_records_own_exception_ends_the_run(place: Path) -> None:
    consumer = new(place, load(place, max_attempts=2), "r1", skip_error=False)
    for _ in range(2):
        with pytest.raises(LookupError, match="r1 is bad"):
            consumer.run()
    assert consumer.said == ["r0", "r1", "r1", "dead r1"]
    consumer.machinery.checkpoint.skip("r1")
    consumer.process_batch()
    assert consumer.said[4:] == ["r2"]
    assert statuses(consumer.checkpoint)["r1"] == "ignored"


def test_waits_grow_as_configured(place: Path) -> None:
    consumer = new(
        place, load(place), exp_backoff_multiplier=2, exp_backoff_base=3, exp_backoff_min=5, exp_backoff_max=50
    )
    assert [consumer.machinery.backoff(attempt) for attempt in (1, 2, 3, 4, 5000)] == [5, 6, 18, 50, 50]


def test_a_line_that_is_still_being_written_waits(place: Path) -> None:
    source = place / "source.log"
    whole = source.read_text() + Record("r5").serialize() + "\n"
    source.write_text(whole[:-10])
    consumer = new(place, load(place))
    for _ in range(3):
        consumer.process_batch()
    assert consumer.said == [f"r{n}" for n in range(5)] and consumer.checkpoint.start_pointer == 5
    source.write_text(whole[:-1])
    consumer.process_batch()
    source.write_text(whole)
    consumer.process_batch()
    assert consumer.said[5:] == ["r5"]
    source.unlink()
    consumer.process_batch()


def test_an_id_that_comes_twice_is_an_error(place: Path) -> None:
    with pytest.raises(DuplicateRecordError):
        load(place).update_for_new_batch([Record("a"), Record("a")])
    with (place / "source.log").open("a") as file:
        file.write((Record("r3").serialize() + "\n") * 2)
    consumer = new(place, load(place), limit=100)
    with pytest.raises(DuplicateRecordError):
        consumer.process_batch()
    assert consumer.said == [] and load(place).batch_sequence == 0


def test_a_consumer_without_a_method_says_which(place: Path) -> None:
    @dataclasses.dataclass
    class Forgets(unistream.SimpleConsumer):
        pass

    with pytest.raises(NotImplementedError, match="process_record"):
        Forgets.new(Record, place / "source.log", place / "dlq.log", load(place)).process_batch()


# Files


def tracker(record_id: str, status: int, attempts: int, **fields: Any) -> dict[str, Any]:
    """As the library writes it: with a lock of 900 days."""
    times = {"create_time": NOW.isoformat(), "update_time": NOW.isoformat()}
    locks = {"lock": None, "lock_time": EPOCH, "lock_expire_time": EPOCH}
    if status == 10:
        until = (NOW + timedelta(days=900)).isoformat()
        locks = {"lock": "574ca9bc08e04544950f6d43fcdf7412", "lock_time": NOW.isoformat(), "lock_expire_time": until}
    return {
        "record_id": record_id,
        "status": status,
        "attempts": attempts,
        **times,
        **locks,
        "data": {},
        "errors": {},
        **fields,
    }


def write_files(
    place: Path, trackers: list[dict[str, Any]], start: int, following: int | None, records: list[str]
) -> None:
    checkpoint = {
        "lock_expire": 900,
        "max_attempts": 2,
        "initial_pointer": 0,
        "start_pointer": start,
        "next_pointer": following,
        "batch_sequence": 1,
        "batch": {one["record_id"]: one for one in trackers},
        "checkpoint_file": str(place / "checkpoint.json"),
        "records_file": str(place / "records.json"),
    }
    (place / "checkpoint.json").write_text(json.dumps(checkpoint, indent=4))
    (place / "records.json").write_text("\n".join(Record(one).serialize() for one in records))


IDS = ["r0", "r1", "r2"]
ERRORS = {"error": "ValueError('bad')", "traceback": "Traceback\nValueError: bad\n"}


@pytest.mark.parametrize(
    ("trackers", "start", "following", "records", "said"),
    [
        pytest.param(
            [tracker("r0", 40, 1), tracker("r1", 10, 1), tracker("r2", 0, 0)], 0, 3, IDS, ["r1", "r2", "r3", "r4"],
            id="crashed inside process_record",
        ),
        pytest.param(
            [tracker("r0", 40, 1), tracker("r1", 20, 1, errors=ERRORS), tracker("r2", 40, 1)], 0, 3, IDS,
            ["r1", "r3", "r4"], id="one attempt had failed",
        ),
        pytest.param(
            [tracker("r0", 40, 1), tracker("r1", 30, 2, errors=ERRORS), tracker("r2", 0, 0)], 0, 3, IDS,
            ["r2", "dead r1", "r3", "r4"], id="the dead letter may not have been delivered",
        ),
        pytest.param(
            [tracker("r0", 40, 1), tracker("r1", 40, 1), tracker("r2", 40, 1)], 0, 3, IDS, ["r3", "r4"],
            id="crashed before the commit",
        ),
        pytest.param(
            [tracker("r0", 40, 1), tracker("r1", 30, 2, errors=ERRORS), tracker("r2", 40, 1)], 3, None, IDS,
            ["r3", "r4"], id="committed",
        ),
        pytest.param(
            [tracker("r0", 0, 0), tracker("r1", 0, 0), tracker("r2", 0, 0)], 0, 3, ["x0", "x1", "x2"],
            ["r0", "r1", "r2", "r3", "r4"], id="crashed before the records were saved",
        ),
    ],
)  # fmt: skip
def test_files_of_the_library_are_taken_over(
    place: Path, trackers: list[dict[str, Any]], start: int, following: int | None, records: list[str], said: list[str]
) -> None:
    write_files(place, trackers, start, following, records)
    before = {path.name: path.read_bytes() for path in place.glob("*.json")}
    checkpoint = load(place, max_attempts=3, lock_expire=60)
    assert (checkpoint.max_attempts, checkpoint.lock_expire, checkpoint.batch_sequence) == (3, 60, 1)
    consumer = new(place, checkpoint)
    for _ in range(2):
        consumer.process_batch()
    assert sorted(consumer.said) == sorted(said)
    assert checkpoint.start_pointer == 5
    assert {path.name: path.read_bytes() for path in place.glob("*.json")} == before
    del consumer, checkpoint
    (place / "checkpoint.json").unlink()
    assert load(place).start_pointer == 5, "from now on the store counts"


def test_records_of_the_library_end_where_their_lines_do_and_nowhere_else(place: Path) -> None:
    """Unicode knows more ends of lines than a file does, and a serialized record may hold them."""
    ids = ["a\u2028b", "c\x85d", "e\x0bf\x1c", "g"]
    write_files(place, [tracker(one, 0, 0) for one in ids], 0, 4, [])
    records = [Record(one, NOW.isoformat()) for one in ids]
    lines = [json.dumps(dataclasses.asdict(record), ensure_ascii=False) for record in records]
    (place / "records.json").write_text("\n".join(line.replace("\\u000b", "\x0b") for line in lines), encoding="utf-8")
    assert load(place)._store.recover("records") == (place / "records.json").read_text(encoding="utf-8").split("\n")


FIELDS = {"initial_pointer": 0, "start_pointer": 0, "next_pointer": 3, "batch_sequence": 1}
INCOMPLETE = [
    json.dumps({**FIELDS, **fields})
    for fields in (
        {},
        {"batch": {"r0": {}}},
        {"batch": {"r0": 1}},
        {"batch": {"r0": tracker("r0", 99, 0)}},
        {"batch": {"r0": {**tracker("r0", 0, 0), "create_time": "yesterday"}}},
        {"batch": {"r0": {**tracker("r0", 0, 0), "other": 1}}},
        {"batch": {}, "other": 1},
    )
] + ['{"batch": {}}']


@pytest.mark.parametrize("contents", ["", "{", "[]", "{}", '{"batch": []}', "null", *INCOMPLETE])
def test_a_file_that_holds_no_checkpoint_is_an_error_and_no_fresh_start(place: Path, contents: str) -> None:
    (place / "checkpoint.json").write_text(contents)
    errors = []
    for _ in range(2):
        with pytest.raises(CorruptionError, match="holds no checkpoint") as caught:
            load(place)
        errors.append(caught.value)  # which keeps alive whatever was in hand
    (place / "checkpoint.json").unlink()
    assert load(place).batch_sequence == 0


def test_a_batch_that_was_begun_and_whose_records_are_gone_is_an_error(place: Path) -> None:
    write_files(place, [tracker("r0", 40, 1), tracker("r1", 0, 0)], 0, 2, ["r0"])
    with pytest.raises(CorruptionError, match="'r1'"):
        new(place, load(place)).process_batch()


# Crashes


def test_killed_at_any_save_it_goes_on_and_counts_every_attempt(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Killed(BaseException):
        pass

    saves = 0
    kill_at = 0

    def counted(method: Any, *, before: bool) -> Any:
        def call(store: trax.Trax, *arguments: Any, **keywords: Any) -> Any:
            nonlocal saves
            saves += 1
            if saves == kill_at and before:
                kill(store)
                raise Killed
            result = method(store, *arguments, **keywords)
            if saves == kill_at:
                kill(store)
                raise Killed
            return result

        return call

    log, checkpoint = trax.Trax.log, trax.Trax.checkpoint
    tried = 0
    for before in (True, False):
        monkeypatch.setattr(trax.Trax, "log", counted(log, before=before))
        monkeypatch.setattr(trax.Trax, "checkpoint", counted(checkpoint, before=before))
        for kill_at in range(1, 100):
            where = place / f"{before} {kill_at}"
            where.mkdir()
            write_source(where, 5)
            saves, said, killed = 0, [], False
            while True:
                consumer = None
                try:
                    consumer = new(where, load(where, max_attempts=3), "r1")
                    while consumer.checkpoint.start_pointer != 5:
                        consumer.process_batch()
                except (Killed, trax.errors.ClosedError):
                    killed = True
                    continue
                finally:
                    said += [] if consumer is None else consumer.said
                    _Home._open.clear()
                break
            assert set(said) == {"r0", "r1", "r2", "r3", "r4", "dead r1"}
            assert len(said) <= 3 + 2 + 3 + 1 + 1
            assert 2 <= said.count("r1") <= 3, "three attempts are counted, of which a crash may have taken one"
            tried += killed
            if not killed:
                break
    assert tried > 25


BATCH = [tracker("r0", 40, 1), tracker("r1", 10, 1), tracker("r2", 0, 0)]


def library_files(path: Path) -> None:
    write_files(path, BATCH, 0, 3, IDS)


def use(path: Path, fs: Any, bounds: Bounds) -> None:
    """Takes the library's files over, and saves what becomes of a record: one commit each."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoint_module, "Trax", lambda path: trax.Trax(path, fs=fs))
        checkpoint = None
        try:
            with bounds.step():
                checkpoint = load(path)
            records = checkpoint.load_records(Record)
            with bounds.step():
                checkpoint.mark_as_succeeded(records[1])
                checkpoint.dump_as_succeeded(records[1])
            fresh = [Record("r3"), Record("r4")]
            checkpoint.start_pointer = 3
            with bounds.step():
                checkpoint.update_for_new_batch(fresh, 5)
                checkpoint.dump_batch(fresh)
        finally:
            leave()


def judge(path: Path, acknowledged: int, issued: int) -> None:
    checkpoint = load(path)
    try:
        ids = [record.id for record in checkpoint.load_records(Record)]
        assert ids == list(checkpoint.batch), "the batch and its records are one commit"
        steps = 3 if ids == ["r3", "r4"] else 2 if statuses(checkpoint)["r1"] == "succeeded" else 1
        assert acknowledged <= steps <= max(1, issued)  # the take-over happens again, if it has to
        assert (checkpoint.start_pointer, checkpoint.next_pointer) == ((3, 5) if steps == 3 else (0, 3))
        assert json.loads((path / "checkpoint.json").read_text())["batch"]["r1"] == BATCH[1]
        consumer = new(path, checkpoint)
        write_source(path, 5)
        while checkpoint.start_pointer != 5:
            consumer.process_batch()
        assert consumer.said == [["r1", "r2", "r3", "r4"], ["r2", "r3", "r4"], ["r3", "r4"]][steps - 1]
    finally:
        leave()


def leave() -> None:
    """Let go of the store, or leave it as a killed process does if its file system does not let it."""
    for home in list(_Home._open.values()):
        for _ in range(2):
            with suppress(trax.TraxError, KeyboardInterrupt):
                home.store.close()
        if home.store._closed is None:
            kill(home.store)
        home.close()


@pytest.mark.filterwarnings("ignore::trax.TraxWarning")
def test_crash_at_every_storage_call_loses_no_change_and_separates_nothing() -> None:
    count("unistream: crash", crash_everywhere(use, judge, library_files))


@pytest.mark.filterwarnings("ignore::trax.TraxWarning", "ignore::ResourceWarning")
def test_every_storage_call_may_fail() -> None:
    count("unistream: failing operations", fail_everywhere(use, judge, library_files))


def test_after_a_failed_handle_a_new_load_goes_on_though_the_old_checkpoint_is_still_there(place: Path) -> None:
    old = load(place)
    record = Record("r0")
    old.update_for_new_batch([record], 1)
    old.dump_batch([record])
    assert old._store._writer is not None
    old._store._writer.committer.finish(trax.errors.StorageError("the disk is gone"))
    with pytest.raises(trax.errors.FinishedError):
        old.dump()
    again = load(place)
    assert again == old
    for checkpoint in (again, old):
        checkpoint.dump()


def test_a_save_that_fails_is_no_failure_of_the_record(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    consumer = new(place, load(place))
    full = True

    def fail(checkpoint: unistream.SimpleCheckpoint, record: Record) -> None:
        if full:
            raise DiskFullError("full")
        checkpoint.dump_as_in_progress(record)

    monkeypatch.setattr(unistream.SimpleCheckpoint, "dump_as_succeeded", fail)
    with pytest.raises(DiskFullError):
        consumer.process_batch()
    assert statuses(consumer.checkpoint) == {"r0": "in_progress", "r1": "pending", "r2": "pending"}
    full = False
    consumer.process_batch()
    assert consumer.said == ["r0", "r1", "r2"]


# Checkpoint classes of the user's own


@dataclasses.dataclass
class JSONCheckpoint(unistream.BaseCheckPoint):
    """In two files, each written at once: as users of the library write them for their databases."""

    directory: str

    @classmethod
    def load(cls, directory: Path, **options: Any) -> JSONCheckpoint:  # type: ignore[override]
        if (directory / "status").exists():
            return cls.from_dict({**json.loads((directory / "status").read_text()), **options})
        fields = {"initial_pointer": 0, "start_pointer": 0, "next_pointer": None, "batch_sequence": 0, "batch": {}}
        return cls(**{"lock_expire": 900, "max_attempts": 3, **fields, **options}, directory=str(directory))

    def dump(self) -> None:
        Path(self.directory, "status").write_text(json.dumps(self.to_dict()))

    def dump_records(self, records: Iterable[unistream.BaseRecord]) -> None:
        Path(self.directory, "records").write_text(json.dumps([record.serialize() for record in records]))

    def load_records(self, record_class: Any, **options: Any) -> list[Any]:
        path = Path(self.directory, "records")
        return [record_class.deserialize(text) for text in json.loads(path.read_text())] if path.exists() else []

    def dump_as_in_progress(self, record: unistream.BaseRecord) -> None:
        assert record.id in self.batch and record.create_at
        self.dump()

    dump_as_failed_or_exhausted = dump_as_succeeded = dump_as_in_progress


def test_a_checkpoint_class_of_the_users_own_goes_on_working(place: Path) -> None:
    said = []
    for _ in range(3):
        consumer = new(place, JSONCheckpoint.load(place, max_attempts=2), "r1")
        consumer.process_batch()
        said += consumer.said
    assert said == ["r0", "r1", "r2", "r1", "dead r1", "r3", "r4"]
    assert JSONCheckpoint.load(place).start_pointer == 5


@pytest.mark.parametrize("broken", ["dump", "dump_records"])
def test_a_crash_between_its_two_files_skips_nothing(place: Path, monkeypatch: pytest.MonkeyPatch, broken: str) -> None:
    for number in range(2):
        consumer = new(place, JSONCheckpoint.load(place))
        with monkeypatch.context() as patch:
            patch.setattr(JSONCheckpoint, broken, lambda *arguments: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                consumer.process_batch()
        assert consumer.checkpoint.batch_sequence == number
        consumer = new(place, JSONCheckpoint.load(place))
        consumer.process_batch()
        assert consumer.said == [["r0", "r1", "r2"], ["r3", "r4"]][number]


def test_a_lock_of_another_process_is_respected_for_as_many_seconds_as_are_configured(place: Path) -> None:
    checkpoint = JSONCheckpoint.load(place, lock_expire=60)
    records = [Record("r0"), Record("r1")]
    checkpoint.update_for_new_batch(records, next_pointer=2)
    checkpoint.dump_batch(records)
    checkpoint.mark_as_in_progress(records[0])
    checkpoint.dump_as_in_progress(records[0])
    core = new(place, JSONCheckpoint.load(place, lock_expire=60)).machinery.checkpoint
    held = core.tracker("r0")
    assert held.status == "in_progress" and held.lease is not None
    claimed = core.claim("other")
    assert claimed is not None and claimed.record_id == "r1"
    assert core.claim("another") is None
    locked, until = datetime.now(UTC) - timedelta(seconds=120), datetime.now(UTC) + timedelta(days=60)
    locks = {"lock_time": locked.isoformat(), "lock_expire_time": until.isoformat()}
    checkpoint.batch["r0"] = unistream.Tracker.from_dict({**tracker("r0", 10, 1), **locks})
    checkpoint.dump()
    core = new(place, JSONCheckpoint.load(place, lock_expire=60)).machinery.checkpoint
    assert core.tracker("r0").status == "pending", "a lock that the library saved, of 60 days, is one of 60 seconds"
