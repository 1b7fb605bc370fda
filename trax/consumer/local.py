"""The first storage: a :class:`trax.Trax`, two names of it for each stream.

.. code-block:: text

    trax:consumer:status:<stream>     value: the batch             entries: trackers, each as it is after a change
    trax:consumer:records:<stream>    value: {record id: record}   no entries

A new batch is one checkpoint of both names: the rename of one snapshot makes the batch, its records and its next
pointer true, and lets go of the trackers of the batch before. Each change of a tracker is one log entry; an effect
stands in the same record. The store's lock keeps a second process out.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Mapping
from typing import Any

from trax.consumer.storage import Batch
from trax.consumer.tracker import Tracker
from trax.errors import ConflictError, FormatError, InvalidArgumentError, ReadOnlyError
from trax.names import layer_name
from trax.store import Trax

_LAYER = "consumer"
_STATUS = "status:"
_RECORDS = "records:"
_FORM = 1

_open_streams: weakref.WeakKeyDictionary[Trax, set[str]] = weakref.WeakKeyDictionary()
_opening = threading.Lock()


class LocalStorage:
    """One stream of a store. Given a path, it opens the store, and closes it in the end; a handle stays the caller's.

    A stream can be opened once in each store: InvalidArgumentError; a store once: StoreLockedError, which says by whom
    it is held. With a handle of ``mode="r"`` it can only be looked at.
    """

    def __init__(self, where: str | os.PathLike[str] | Trax, stream: str) -> None:
        if not isinstance(stream, str):
            text = f"a stream is named by a str, and {stream!r} is of type {type(stream).__name__}."
            raise InvalidArgumentError(text, reason="not a str")
        self._status = layer_name(_LAYER, _STATUS + stream)
        self._records = layer_name(_LAYER, _RECORDS + stream)
        self._stream = stream
        self._store = where if isinstance(where, Trax) else Trax(where)
        self._opened = self._store is not where
        self._mutex = threading.Lock()
        self._sure = True
        self._sequence = 0
        self._versions: dict[str, int] = {}
        self.exclusive = _is_writable(self._store)
        if self.exclusive:
            with _opening:
                streams = _open_streams.setdefault(self._store, set())
                if stream in streams:
                    text = f"the stream {stream!r} of {self._store.path} is open already; close its other checkpoint."
                    raise InvalidArgumentError(text, path=self._store.path, reason="already open")
                streams.add(stream)

    def load(self) -> tuple[Batch, Mapping[str, Tracker]] | None:
        if self._status not in self._store:
            return None
        state = self._store.recover(self._status, replay_log=_fold)
        if state["form"] != _FORM:
            text = f"a newer version of trax wrote the stream {self._stream!r} of {self._store.path}: install that one."
            raise FormatError(text, path=self._store.path, reason="form")
        batch = Batch.from_plain(state["batch"])
        trackers = {record_id: Tracker.from_plain(plain) for record_id, plain in state["trackers"].items()}
        self._learn(batch, trackers)
        return batch, trackers

    def begin(self, batch: Batch, records: Mapping[str, Any]) -> None:
        self._be_sure()
        if batch.sequence != self._sequence + 1:
            raise _conflict(f"batch {batch.sequence} does not follow batch {self._sequence}", self._store)
        status = {"form": _FORM, "batch": batch.as_plain(), "trackers": {}}
        self._sure = False  # until this has succeeded
        self._store.checkpoint({self._status: status, self._records: dict(records)})
        self._sequence, self._versions, self._sure = batch.sequence, {}, True

    def records(self, batch: Batch) -> Mapping[str, Any]:
        records: Mapping[str, Any] = self._store.recover(self._records)
        return records

    def save(self, tracker: Tracker, effect: Any = None) -> None:
        self._be_sure()
        try:
            self._take_turn(tracker)
            self._store.log({**_entries(effect), self._status: tracker.as_plain()})
        except ConflictError:
            raise
        except BaseException:
            # After an interrupt the change may be there or not. The next call looks: it could be made twice.
            self._sure = False
            self._versions.pop(tracker.record_id, None)
            raise

    def close(self) -> None:
        with _opening:
            _open_streams.get(self._store, set()).discard(self._stream)
        if self._opened:
            self._store.close()

    def _learn(self, batch: Batch, trackers: Mapping[str, Tracker]) -> None:
        with self._mutex:
            if batch.sequence != self._sequence:
                self._sequence, self._versions = batch.sequence, {}
            for record_id, tracker in trackers.items():  # a change that is being saved is ahead of what is stored
                self._versions[record_id] = max(tracker.version, self._versions.get(record_id, 0))

    def _take_turn(self, tracker: Tracker) -> None:
        with self._mutex:
            stored = self._versions.get(tracker.record_id, 0)
            if (tracker.batch, tracker.version) != (self._sequence, stored + 1):
                what = f"version {tracker.version} of {tracker.record_id!r} in batch {tracker.batch}"
                raise _conflict(f"{what} does not follow version {stored} in batch {self._sequence}", self._store)
            self._versions[tracker.record_id] = tracker.version

    def _be_sure(self) -> None:
        if not self._sure:
            self._sure = True  # before it looks: what fails meanwhile is a reason to look again
            try:
                self.load()
            except BaseException:
                self._sure = False
                raise


def _after_fork_in_child() -> None:
    global _opening
    _opening = threading.Lock()  # another thread of the parent may have held it


os.register_at_fork(after_in_child=_after_fork_in_child)


def streams(store: Trax) -> list[str]:
    """The streams whose checkpoints a store holds, sorted."""
    prefix = layer_name(_LAYER, _STATUS)
    return [name.removeprefix(prefix) for name in store.names() if name.startswith(prefix)]


def _fold(state: dict[str, Any], plain: dict[str, Any]) -> dict[str, Any]:
    if state["form"] == _FORM and plain["batch"] == state["batch"]["sequence"]:
        state["trackers"][plain["record_id"]] = plain
    return state


def _entries(effect: Any) -> Mapping[str, Any]:
    if effect is None:
        return {}
    if not isinstance(effect, Mapping):
        text = f"an effect on a trax store is a mapping of names to entries, not {type(effect).__name__}."
        raise InvalidArgumentError(text, reason="not a mapping")
    return effect


def _is_writable(store: Trax) -> bool:
    try:
        return store.last_sequence >= 0
    except ReadOnlyError:
        return False


def _conflict(what: str, store: Trax) -> ConflictError:
    text = f"{what}: another call was first. Nothing of this call was stored in {store.path}."
    return ConflictError(text, path=store.path, reason="another call was first")
