"""Statuses, trackers and checkpoints as the library's users know them.

A tracker is changed in memory by ``mark_as_…`` and saved by ``dump_as_…``. Where a :class:`BaseConsumer` does the work,
:mod:`trax.compat.unistream.storage` makes these calls for it.
"""

from __future__ import annotations

import dataclasses
import json
import traceback
import uuid
import weakref
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from enum import IntEnum
from pathlib import Path
from typing import Any, ClassVar, Self, TypeAlias, TypeVar

from trax.compat.unistream.records import BaseRecord
from trax.errors import CorruptionError, DuplicateRecordError, HandleError, TraxError
from trax.store import Trax

T_POINTER: TypeAlias = str | int
EPOCH_STR = datetime.fromtimestamp(0, UTC).isoformat()
R = TypeVar("R", bound=BaseRecord)
C = TypeVar("C", bound="SimpleCheckpoint")


class StatusEnum(IntEnum):
    """Trackers hold the numbers."""

    pending = 0
    in_progress = 10
    failed = 20
    exhausted = 30
    succeeded = 40
    ignored = 50


FINISHED = (StatusEnum.exhausted, StatusEnum.succeeded, StatusEnum.ignored)


@dataclasses.dataclass
class Tracker:
    """One record of a batch. Times are texts in ISO 8601.

    ``errors`` holds ``error`` and ``traceback`` of the last attempt, if that failed. ``more`` is what the library does
    not know and :class:`trax.consumer.Tracker` needs; a file of the library has none of it.
    """

    record_id: str
    status: int
    attempts: int
    create_time: str
    update_time: str
    lock: str | None = None
    lock_time: str = EPOCH_STR
    lock_expire_time: str = EPOCH_STR
    data: dict[str, Any] = dataclasses.field(default_factory=dict)
    errors: dict[str, Any] = dataclasses.field(default_factory=dict)
    more: dict[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def create_datetime(self) -> datetime:
        return datetime.fromisoformat(self.create_time)

    @property
    def update_datetime(self) -> datetime:
        return datetime.fromisoformat(self.update_time)

    @property
    def lock_datetime(self) -> datetime:
        return datetime.fromisoformat(self.lock_time)

    @property
    def lock_expire_datetime(self) -> datetime:
        return datetime.fromisoformat(self.lock_expire_time)

    def check(self) -> None:
        """ValueError or TypeError if a field holds what it can't."""
        StatusEnum(self.status)
        for time in (self.create_time, self.update_time, self.lock_time, self.lock_expire_time):
            datetime.fromisoformat(time)

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, plain: dict[str, Any]) -> Self:
        return cls(**plain)


@dataclasses.dataclass
class BaseCheckPoint:
    """The state of a stream, in memory. A subclass says how it is saved: ``dump…`` and ``load…``.

    ``lock_expire`` is a number of seconds. ``stream_closed`` says that a ``next_pointer`` of None is the end of the
    stream; without it, None only says that the last batch was committed.
    """

    exclusive: ClassVar[bool] = False
    """Whether having loaded it proves that no other process works on it."""

    lock_expire: int
    max_attempts: int
    initial_pointer: T_POINTER
    start_pointer: T_POINTER
    next_pointer: T_POINTER | None
    batch_sequence: int
    batch: dict[str, Tracker]
    stream_closed: bool = dataclasses.field(default=False, kw_only=True)

    # What a subclass defines

    def dump(self) -> None:
        """Save all fields."""
        raise NotImplementedError

    @classmethod
    def load(cls, **options: Any) -> Self:
        """What was saved, or a new one."""
        raise NotImplementedError

    def dump_records(self, records: Iterable[BaseRecord]) -> None:
        """Save the records of the batch."""
        raise NotImplementedError

    def load_records(self, record_class: type[R], **options: Any) -> list[R]:
        """The records of the batch."""
        raise NotImplementedError

    def dump_as_in_progress(self, record: BaseRecord) -> None:
        """Save the tracker of the record; so the two below."""
        raise NotImplementedError

    def dump_as_failed_or_exhausted(self, record: BaseRecord) -> None:
        raise NotImplementedError

    def dump_as_succeeded(self, record: BaseRecord) -> None:
        raise NotImplementedError

    def dump_batch(self, records: Iterable[BaseRecord]) -> None:
        """Save all fields and the records of a new batch: the records first, because the fields say that they exist.

        A subclass that can save both at once does.
        """
        self.dump_records(records)
        self.dump()

    # Trackers

    def get_tracker(self, record: BaseRecord) -> Tracker:
        return self.batch[record.id]

    def is_record_locked(self, record: BaseRecord, lock: str | None = None, now: datetime | None = None) -> bool:
        """Whether somebody without this lock has to keep away from the record."""
        tracker = self.get_tracker(record)
        if tracker.lock is None or tracker.lock == lock:
            return False
        return (now or datetime.now(UTC)) < tracker.lock_expire_datetime

    def mark_as_in_progress(self, record: BaseRecord, now: datetime | None = None, expire: int | None = None) -> None:
        """An attempt begins, under a new lock, for ``expire`` seconds."""
        now = now or datetime.now(UTC)
        tracker = self._changed(record, StatusEnum.in_progress, now, uuid.uuid4().hex)
        tracker.attempts += 1
        tracker.lock_time = now.isoformat()
        seconds = self.lock_expire if expire is None else expire
        tracker.lock_expire_time = (now + timedelta(seconds=seconds)).isoformat()

    def mark_as_failed_or_exhausted(
        self, record: BaseRecord, e: Exception, now: datetime | None = None, max_attempts: int | None = None
    ) -> None:
        most = self.max_attempts if max_attempts is None else max_attempts
        status = StatusEnum.exhausted if self.get_tracker(record).attempts >= most else StatusEnum.failed
        tracker = self._changed(record, status, now)
        tracker.errors = {"error": repr(e), "traceback": "".join(traceback.format_exception(e, limit=10))}

    def mark_as_succeeded(self, record: BaseRecord, now: datetime | None = None, **options: Any) -> None:
        self._changed(record, StatusEnum.succeeded, now).errors = {}

    def _changed(
        self, record: BaseRecord, status: StatusEnum, now: datetime | None, lock: str | None = None
    ) -> Tracker:
        tracker = self.get_tracker(record)
        tracker.status, tracker.lock = int(status), lock
        tracker.update_time = (now or datetime.now(UTC)).isoformat()
        return tracker

    # Batches

    def is_ready_for_next_batch(self) -> bool:
        return all(tracker.status in FINISHED for tracker in self.batch.values())

    def update_for_new_batch(self, records: Iterable[BaseRecord], next_pointer: T_POINTER | None = None) -> None:
        """Pending trackers for new records, in memory. DuplicateRecordError for an id that comes twice."""
        now = datetime.now(UTC).isoformat()
        batch: dict[str, Tracker] = {}
        for record in records:
            if record.id in batch:
                text = f"the batch has the record id {record.id!r} twice; nothing was changed."
                raise DuplicateRecordError(text, reason="twice in a batch", record_id=record.id)
            batch[record.id] = Tracker(record.id, int(StatusEnum.pending), 0, now, now)
        self.batch = batch
        self.batch_sequence += 1
        if next_pointer is not None:
            self.next_pointer = next_pointer

    def get_not_succeeded_records(
        self, record_class: type[R], records: list[R] | None = None, **options: Any
    ) -> list[R]:
        """Those of the records, by default of the saved ones, that have not succeeded."""
        if records is None:
            records = self.load_records(record_class, **options)
        return [record for record in records if self.get_tracker(record).status != StatusEnum.succeeded]

    # The plain form

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, plain: dict[str, Any]) -> Self:
        batch = {record_id: Tracker.from_dict(tracker) for record_id, tracker in plain["batch"].items()}
        return cls(**{**plain, "batch": batch})


@dataclasses.dataclass
class SimpleCheckpoint(BaseCheckPoint):
    """A checkpoint in a trax store, the directory ``<checkpoint_file>.trax``.

    Where that is new and ``checkpoint_file`` exists, the two JSON files of the library are taken over, and left as they
    are. What a method has saved is on stable storage when it returns. One process at a time: StoreLockedError.
    """

    exclusive: ClassVar[bool] = True

    checkpoint_file: str
    records_file: str

    @property
    def path_checkpoint(self) -> Path:
        return Path(self.checkpoint_file)

    @property
    def path_records(self) -> Path:
        return Path(self.records_file)

    @classmethod
    def load(  # type: ignore[override]  # which is how the library calls it
        cls,
        checkpoint_file: str,
        records_file: str,
        lock_expire: int = 900,
        max_attempts: int = 3,
        initial_pointer: T_POINTER = 0,
        start_pointer: T_POINTER | None = None,
        next_pointer: T_POINTER | None = None,
        batch_sequence: int = 0,
        batch: dict[str, Tracker] | None = None,
    ) -> Self:
        """What was saved, with the configuration that is given here; or a new one, which is saved at once.

        A new one starts at ``start_pointer``, or, without it, at ``initial_pointer``.
        """
        configuration: dict[str, Any] = {
            "lock_expire": lock_expire,
            "max_attempts": max_attempts,
            "initial_pointer": initial_pointer,
            "checkpoint_file": str(checkpoint_file),
            "records_file": str(records_file),
        }
        with _Home.loading(checkpoint_file) as home:
            plain = home.load()
            if plain is not None:
                saved = cls.from_dict({**plain, **configuration})
            elif Path(checkpoint_file).exists():
                saved = home.take_over(cls, configuration)
            else:
                saved = cls(
                    start_pointer=initial_pointer if start_pointer is None else start_pointer,
                    next_pointer=next_pointer,
                    batch_sequence=batch_sequence,
                    batch={} if batch is None else batch,
                    **configuration,
                )
                saved.dump()
            saved._home = home
            return saved

    def dump(self) -> None:
        self._store.checkpoint(checkpoint=self.to_dict())

    def dump_records(self, records: Iterable[BaseRecord]) -> None:
        self._store.checkpoint(records=[record.serialize() for record in records])

    def dump_batch(self, records: Iterable[BaseRecord]) -> None:
        self._store.checkpoint(checkpoint=self.to_dict(), records=[record.serialize() for record in records])

    def load_records(self, record_class: type[R], **options: Any) -> list[R]:
        texts = self._store.recover("records", create=list)
        return [record_class.deserialize(text) for text in texts]

    def dump_as_in_progress(self, record: BaseRecord) -> None:
        self._store.log(checkpoint=self.get_tracker(record).to_dict())

    dump_as_failed_or_exhausted = dump_as_succeeded = dump_as_in_progress

    @property
    def _store(self) -> Trax:
        self._home = _Home.of(self.checkpoint_file)
        return self._home.store


class _Home:
    """The store of a checkpoint file: one handle in a process, whoever asks for it, closed with the last of them."""

    _open: ClassVar[weakref.WeakValueDictionary[Path, _Home]] = weakref.WeakValueDictionary()

    def __init__(self, path: Path) -> None:
        self.store = Trax(path)
        self._path = path
        self._finalizer = weakref.finalize(self, self.store.close)

    @classmethod
    @contextmanager
    def loading(cls, checkpoint_file: str) -> Iterator[_Home]:
        """A home whose store can be used; let go of at once if the block raises and nobody else has it."""
        others = set(cls._open.values())
        home = cls.of(checkpoint_file)
        try:
            if home in others:
                home.store.sync()
        except HandleError:  # it has failed, and whoever still holds it can no more use it: begin where it has ended
            others.discard(home)
            home.close()
            home = cls.of(checkpoint_file)
        try:
            yield home
        except BaseException:
            if home not in others:
                home.close()
            raise

    def close(self) -> None:
        """Let go of the store; whoever asks next gets another home."""
        self._open.pop(self._path, None)
        with suppress(TraxError):  # what has failed was raised where it failed
            self._finalizer()

    @classmethod
    def of(cls, checkpoint_file: str) -> _Home:
        path = Path(f"{checkpoint_file}.trax").resolve()
        home = cls._open.get(path)
        if home is None:
            home = cls._open[path] = cls(path)
        return home

    def load(self) -> dict[str, Any] | None:
        if "checkpoint" not in self.store:
            return None
        plain: dict[str, Any] = self.store.recover("checkpoint", replay_log=_with_tracker)
        return plain

    def take_over(self, kind: type[C], configuration: dict[str, Any]) -> C:
        """Store, in one commit, what the library's two files hold, if it is a checkpoint."""
        path, records = Path(configuration["checkpoint_file"]), Path(configuration["records_file"])
        try:
            plain: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            found = kind.from_dict({**plain, **configuration})
            for tracker in found.batch.values():
                tracker.check()
            texts: list[str] = []
            if records.exists():
                with records.open(encoding="utf-8") as file:  # str.splitlines() knows more ends of lines
                    texts = [line.removesuffix("\n") for line in file]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            text = f"{path} holds no checkpoint; a crash may have cut it off: {error}. Restore it, or remove it."
            raise CorruptionError(text, path=path, reason="no checkpoint") from error
        self.store.checkpoint(checkpoint=plain, records=texts)
        return found


def _with_tracker(plain: dict[str, Any], tracker: dict[str, Any]) -> dict[str, Any]:
    if tracker["record_id"] in plain["batch"]:
        plain["batch"][tracker["record_id"]] = tracker
    return plain
