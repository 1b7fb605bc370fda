"""The step that a job is in, its commit, and what has kept one from being committed.

A step is one commit. As long as it is a single record, that is all there is; a second record or a checkpoint makes a
batch of it. After a step that did not come to its end nothing is committed any more: what is in memory is ahead of the
store.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trax.batch import Batch
from trax.errors import ClosedError, StepError
from trax.job.state import STATE, Entry, JobState, fold
from trax.layers import LayerStore


class Step:
    """What was logged and checkpointed so far."""

    __slots__ = ("_batch", "_nbytes", "_record", "_store")

    def __init__(self, store: LayerStore) -> None:
        self._store = store
        self._record: dict[str, bytes] | None = None
        self._nbytes = 0
        self._batch: Batch | None = None

    def log(self, mapping: Mapping[str, Any] | None, entries: dict[str, Any]) -> None:
        if self._record is None:
            self._record, self._nbytes = self._store.encode_record(mapping, entries)
        else:
            self._as_batch().log(mapping, **entries)

    def checkpoint(self, mapping: Mapping[str, Any] | None, values: dict[str, Any]) -> None:
        self._as_batch().checkpoint(mapping, **values)

    @property
    def has_checkpoint(self) -> bool:
        return self._batch is not None and bool(self._batch.changes)

    def has_checkpointed(self, name: str) -> bool:
        return self._batch is not None and name in self._batch.changes

    def encodings(self, name: str) -> list[bytes]:
        """The encoded entries of a name, in the order in which they were logged."""
        return self._as_batch().encodings(name)

    def commit(self, entry: Entry, state: JobState) -> int:
        """Make all of it one commit, with the job's own entry; ``state`` contains that, for a checkpoint.

        Returns the bytes that were logged.
        """
        store = self._store
        if self.has_checkpoint:
            with self._as_batch() as batch:
                batch.checkpoint({STATE: state})  # or the log could not be truncated
            return 0
        encoding = store.encode(entry, STATE)
        if self._batch is None:
            record = {} if self._record is None else self._record
            record[STATE] = encoding
            nbytes = self._nbytes + len(encoding)
            store.log_encoded(record, nbytes)
            return nbytes
        with self._batch as batch:
            batch.join(STATE, encoding)
        return sum(len(encoding) for record in batch.commit_of_records for encoding in record.values())

    def _as_batch(self) -> Batch:
        if self._batch is None:
            self._batch = self._store.batch()
            for name, encoding in (self._record or {}).items():
                self._batch.join(name, encoding)
            self._record = {}
        return self._batch


class Steps:
    """One step after the other. ``state`` is as of the last commit."""

    def __init__(self, store: LayerStore, state: JobState) -> None:
        self.store, self.state = store, state
        self.step: Step | None = None
        self.loop: str | None = None
        """The loop whose step is open."""
        self.is_closed = False
        self._failure: BaseException | None = None
        self._is_known = False
        """Whether the user has learned of the failure."""

    def check(self) -> None:
        """The error that any call on the job gets now."""
        if self.is_closed:
            text = f"the job in {self.store.path} was closed. Open it again with trax.Job(…)."
            raise ClosedError(text, path=self.store.path, reason="closed")
        if self._failure is not None:
            self._is_known = True
            if isinstance(self._failure, StepError):
                raise self._failure
            raise StepError(self._not_committed(), path=self.store.path, reason="failed") from self._failure

    def begin(self, loop: str) -> None:
        self.step, self.loop = Step(self.store), loop

    def commit(self, entry: Entry) -> int:
        """Commit the step that is open; the bytes that were logged."""
        assert self.step is not None
        fold(self.state, entry)
        nbytes = self.step.commit(entry, self.state)
        self.step = self.loop = None
        return nbytes

    def note(self, changes: dict[str, Any]) -> None:
        """Commit something that is true whatever becomes of the present step."""
        entry = [None, 0, changes]
        self.store.log({STATE: entry})
        self.store.sync()
        fold(self.state, entry)

    @property
    def has_failed(self) -> bool:
        return self._failure is not None

    def fail(self, error: BaseException, *, is_known: bool = False) -> None:
        """Nothing more is committed: what is in memory is ahead of the store."""
        self._failure = self._failure or error
        self._is_known = self._is_known or is_known
        self.step = None

    def leave(self, reason: str) -> None:
        """The step that is open won't come to its end."""
        self.fail(StepError(self._not_committed(), path=self.store.path, reason=reason))

    def know(self) -> None:
        """The user has learned that something has failed."""
        self._is_known = True

    def raise_unknown(self) -> None:
        """Raise what kept a step from being committed, unless the user has learned of it."""
        if self._failure is not None and not self._is_known:
            raise self._failure

    def _not_committed(self) -> str:
        return (
            f"a step of the loop {self.loop!r} did not come to its end, so it is not committed, and the state in "
            f"memory is ahead of {self.store.path}. Open the job again: it repeats the step on the state before it."
        )
