"""Each storage passes the tests that every storage must pass, and those tests find one that does not."""

from __future__ import annotations

import importlib.util
import sqlite3
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

import trax
from tests.consumer.toys import Database, MemoryStorage
from trax.consumer import Batch, LocalStorage, Storage, Tracker, streams
from trax.errors import FormatError, InvalidArgumentError, InvalidNameError, StoreLockedError
from trax.testing.consumer_storage import ConsumerStorageTests, in_threads, new_batch

EXAMPLE = Path(__file__).parent.parent.parent / "examples" / "sqlite_storage.py"


@pytest.fixture
def place(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    request.instance.path = tmp_path / "place"
    request.instance.database = Database()


@pytest.mark.usefixtures("place")
class TestLocal(ConsumerStorageTests):
    path: Path
    codec = "msgpack"

    def open_storage(self) -> Storage:
        trax.Trax(self.path, codec=self.codec).close()
        return LocalStorage(self.path, "stream")

    def effect(self) -> Any:
        return {"total": 5}

    def effects(self, storage: Storage) -> int:
        assert isinstance(storage, LocalStorage)
        return [entry for _, entry in storage._store.entries("total")].count(5)


class TestLocalWithJson(TestLocal):
    codec = "json"


@pytest.mark.usefixtures("place")
class TestMemory(ConsumerStorageTests):
    database: Database

    def open_storage(self) -> Storage:
        return MemoryStorage(self.database)


@pytest.mark.usefixtures("place")
class TestSQLite(ConsumerStorageTests):
    path: Path

    def open_storage(self) -> Storage:
        spec = importlib.util.spec_from_file_location("sqlite_storage", EXAMPLE)
        assert spec is not None and spec.loader is not None
        example = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(example)
        with sqlite3.connect(self.path) as connection:
            connection.execute("CREATE TABLE IF NOT EXISTS amounts (amount INTEGER)")
        storage: Storage = example.SQLiteStorage(str(self.path), "stream")
        return storage

    def test_several_may_open_a_new_database_at_once(self, tmp_path: Path) -> None:
        for number in range(40):
            self.path = tmp_path / f"new {number}"
            in_threads([lambda: self.open_storage().close()] * 4)
            storage = self.open_storage()
            assert storage.load() is None
            storage.close()

    def effect(self) -> Any:
        return "INSERT INTO amounts VALUES (?)", (5,)

    def effects(self, storage: Storage) -> int:
        with sqlite3.connect(self.path) as connection:
            return int(connection.execute("SELECT count(*) FROM amounts WHERE amount = 5").fetchone()[0])


# The tests find what is wrong


class Forgets(MemoryStorage):
    """Loses trackers when it is closed, as one that keeps them in the process would."""

    def close(self) -> None:
        for key in [key for key in self._database.texts if " tracker " in key]:
            del self._database.texts[key]


class OverwritesChanges(MemoryStorage):
    def save(self, tracker: Tracker, effect: Any = None) -> None:
        self._put(f"tracker {tracker.batch} {tracker.record_id}", tracker.as_plain())


class OverwritesBatches(MemoryStorage):
    def begin(self, batch: Batch, records: Mapping[str, Any]) -> None:
        self._put("batch", {"sequence": batch.sequence - 1})
        super().begin(batch, records)


class KeepsOldRecords(MemoryStorage):
    def begin(self, batch: Batch, records: Mapping[str, Any]) -> None:
        super().begin(batch, records)
        self._put(f"records {batch.sequence}", {**(self._get(f"records {batch.sequence - 1}") or {}), **records})


class DropsLongErrors(MemoryStorage):
    def save(self, tracker: Tracker, effect: Any = None) -> None:
        super().save(tracker, effect)
        key = f"tracker {tracker.batch} {tracker.record_id}"
        plain = self._get(key)
        plain["errors"] = [failure for failure in plain["errors"] if len(failure["traceback"]) < 1000]
        self._put(key, plain)


class IgnoresEffects(MemoryStorage):
    def save(self, tracker: Tracker, effect: Any = None) -> None:
        super().save(tracker)


class SharesRecords(MemoryStorage):
    def records(self, batch: Batch) -> Mapping[str, Any]:
        if not hasattr(self, "shared"):
            self.shared = super().records(batch)
        return self.shared


@pytest.mark.parametrize(
    "wrong",
    [Forgets, OverwritesChanges, OverwritesBatches, KeepsOldRecords, DropsLongErrors, IgnoresEffects, SharesRecords],
)
def test_a_storage_that_does_not_keep_to_the_protocol_fails(wrong: type[MemoryStorage]) -> None:
    failed = []
    for name in [name for name in dir(ConsumerStorageTests) if name.startswith("test_")]:
        database = Database()

        class Suite(ConsumerStorageTests):
            def open_storage(self) -> Storage:
                return wrong(database)  # noqa: B023 (used at once)

        try:
            getattr(Suite(), name)()
        except (AssertionError, KeyError):
            failed.append(name)
    assert failed


# The local one in particular


def test_one_process_at_a_time_and_a_second_one_is_told_who_it_is(tmp_path: Path) -> None:
    storage = LocalStorage(tmp_path / "store", "orders")
    with pytest.raises(StoreLockedError, match="this very process"):
        LocalStorage(tmp_path / "store", "orders")
    storage.close()
    LocalStorage(tmp_path / "store", "orders").close()


def test_a_stream_is_opened_once_in_a_store_and_other_streams_beside_it(tmp_path: Path) -> None:
    with trax.Trax(tmp_path / "store") as store:
        first, other = LocalStorage(store, "orders"), LocalStorage(store, "invoices")
        with pytest.raises(InvalidArgumentError, match="open already"):
            LocalStorage(store, "orders")
        first.begin(new_batch(1, 0, 1, ids=["a"]), {"a": 1})
        other.begin(new_batch(1, 5, 6, ids=["a"]), {"a": 2})
        first.close()
        again = LocalStorage(store, "orders")
        assert again.load() == (new_batch(1, 0, 1, ids=["a"]), {})
        assert (again.records(new_batch(1, 0, 1)), other.records(new_batch(1, 5, 6))) == ({"a": 1}, {"a": 2})
        assert streams(store) == ["invoices", "orders"]


def test_a_reader_sees_what_a_live_consumer_has_saved(tmp_path: Path) -> None:
    with trax.Trax(tmp_path / "store") as store, trax.Trax(tmp_path / "store", mode="r") as reader:
        storage, looking = LocalStorage(store, "orders"), LocalStorage(reader, "orders")
        assert looking.load() is None and not looking.exclusive
        batch = new_batch(1, 0, 1, ids=["a"])
        storage.begin(batch, {"a": 1})
        storage.save(batch.new_tracker("a").skip(batch.created))
        assert looking.load() == storage.load()


def test_a_change_that_reached_the_log_after_the_next_batch_had_begun_is_none_of_its_records(tmp_path: Path) -> None:
    with trax.Trax(tmp_path / "store") as store:
        storage = LocalStorage(store, "orders")
        late = new_batch(1, 0, 1, ids=["a"]).new_tracker("a")
        storage.begin(new_batch(1, 0, 1, ids=["a"]), {"a": 1})
        batch = new_batch(2, 1, 2, ids=["a"])
        storage.begin(batch, {"a": 1})
        store.log({storage._status: late.skip(late.created).as_plain()})
        assert storage.load() == (batch, {})


def test_a_stream_whose_name_is_too_long_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidNameError):
        LocalStorage(tmp_path / "store", "x" * 250)
    assert not (tmp_path / "store").exists()


def test_what_a_newer_version_wrote_is_refused(tmp_path: Path) -> None:
    with trax.Trax(tmp_path / "store") as store:
        storage = LocalStorage(store, "orders")
        store.checkpoint({storage._status: {"form": 2, "news": []}})
        store.log({storage._status: {"news": 1}})
        with pytest.raises(FormatError, match="newer version"):
            storage.load()


def test_an_effect_never_reaches_what_belongs_to_the_layers(tmp_path: Path) -> None:
    with trax.Trax(tmp_path / "store") as store:
        storage = LocalStorage(store, "orders")
        batch = new_batch(1, 0, 1, ids=["a"])
        storage.begin(batch, {"a": 1})
        tracker = batch.new_tracker("a").skip(batch.created)
        for effect in ({"trax:consumer:status:orders": 1}, ["total"], {"total": object()}):
            with pytest.raises((InvalidArgumentError, trax.errors.UnsupportedValueError)):
                storage.save(tracker, effect)
        storage.save(tracker)
        assert storage.load() == (batch, {"a": tracker})
