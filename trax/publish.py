"""Checkpoints on their way to the snapshot: values are written beside the log, then one publish makes them true.

Calls may overlap. Each has its place in the order in which they were made, and a value is only replaced by one of a
later call, whichever of the two is ready first.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from trax.codecs.base import Encoded
from trax.commit import Committer
from trax.errors import ClosedError, ConflictError, HandleError, TraxError
from trax.guard import CallGuard
from trax.storage.base import BlobReference, Commit, Storage, Stored

logger = logging.getLogger("trax")
T = TypeVar("T")


@dataclass(frozen=True)
class Change:
    """What a call does to one name.

    ``value`` is the new one, encoded, or as :meth:`Publisher.write` has written it, and ``cut`` the last sequence that
    it contains. None deletes the name, with everything that was logged before the commit.
    """

    value: Encoded | bytes | BlobReference | None
    cut: int = 0
    only_if_absent: bool = False


class Publisher:
    """Publishes changes. Any number of threads."""

    def __init__(self, storage: Storage, committer: Committer) -> None:
        self._storage = storage
        self._committer = committer
        self._guard = CallGuard()
        self._publishing = threading.Lock()
        self._ordering = threading.Lock()
        self._calls = 0
        self._running: list[threading.Lock] = []
        self._closed = False
        self._newest: dict[str, int] = {}

    def begin(self) -> tuple[int, int]:
        """The place of a call in the order of calls, and the last sequence before it: a later call has no lower one."""
        with self._ordering:
            self._calls += 1
            return self._calls, self._committer.last_sequence

    def while_paused(self, action: Callable[[], T]) -> T:
        """Do something; nothing is published, and so no file removed, meanwhile."""
        thread = self._guard.check()
        try:
            self._guard.threads.add(thread)
            with self._publishing:
                return action()
        finally:
            self._guard.threads.discard(thread)

    def close(self) -> None:
        """Wait for the calls that are in the middle of something; there will be no others."""
        self._guard.check()
        with self._ordering:
            self._closed = True
            running = [*self._running]
        for call in running:
            with call:
                pass

    def abandon(self) -> None:
        """In a forked child: there will be no calls. The threads that held the locks are not there."""
        self._publishing, self._ordering = threading.Lock(), threading.Lock()
        self._closed, self._running = True, []

    def publish(
        self, call: int, changes: Mapping[str, Change], ahead: Sequence[tuple[int, Commit]] = (), sequences: int = 1
    ) -> int:
        """Make the changes true, durably; the sequence of the last commit among them.

        ``ahead`` are records that become part of the log with them, each with its place among the new sequences.
        """
        return self._run(lambda: self._publish(call, changes, ahead, sequences))

    def write(self, values: Mapping[str, Encoded]) -> dict[str, bytes | BlobReference]:
        """Bring values to stable storage as they are now, for a call that publishes them later, or :meth:`give_up`."""

        def write() -> dict[str, bytes | BlobReference]:
            written: dict[str, bytes | BlobReference] = {}
            try:
                for name, encoded in values.items():
                    written[name] = self._storage.write_value(name, encoded)
            except BaseException:
                self._discard(written.values())
                raise
            return written

        return self._run(write)

    def give_up(self, changes: Iterable[Change]) -> None:
        """Remove what was written for changes that will not be published."""
        self._run(lambda: self._discard(change.value for change in changes))

    def _run(self, action: Callable[[], T]) -> T:
        """Do something that close() waits for."""
        thread = self._guard.check()
        running = threading.Lock()
        try:
            self._guard.threads.add(thread)
            # What close() waits for is a lock, because the end of a block gives it back even when it is interrupted.
            with running:
                self._enter(running)
                return action()
        finally:
            self._guard.threads.discard(thread)

    def _enter(self, running: threading.Lock) -> None:
        with self._ordering:
            if self._closed:
                self._committer.check()
                raise ClosedError("this handle is being closed. Open the store again.", reason="closed")
            self._running = [*(one for one in self._running if one.locked()), running]

    def _publish(
        self, call: int, changes: Mapping[str, Change], ahead: Sequence[tuple[int, Commit]], sequences: int
    ) -> int:
        written = {name: one.value for name, one in changes.items() if isinstance(one.value, bytes | BlobReference)}

        def commit(first: int) -> int:
            last = first + sequences - 1
            stored = self._stored(call, changes, written, first, last)
            self._storage.publish(stored, last, [(first + place, records) for place, records in ahead])
            return last

        try:
            self._committer.sync_through(max((change.cut for change in changes.values()), default=0))
            for name, change in changes.items():
                if isinstance(change.value, Encoded):
                    written[name] = self._storage.write_value(name, change.value)
            with self._publishing:
                last = self._committer.exclusively(sequences, commit)
                for name, change in changes.items():
                    if not change.only_if_absent:
                        self._newest[name] = max(call, self._newest.get(name, 0))
                self._compact()
        finally:
            self._discard(written.values())
        return last

    def _discard(self, values: Iterable[object]) -> None:
        """Remove what was written and did not become part of the store, which keeps what it may have published."""
        self._storage.discard(value for value in values if isinstance(value, BlobReference))

    def _stored(
        self,
        call: int,
        changes: Mapping[str, Change],
        written: Mapping[str, bytes | BlobReference],
        first: int,
        last: int,
    ) -> dict[str, Stored]:
        """What the snapshot is to hold of the names that are changed, unless a later call was faster."""
        stored: dict[str, Stored] = {}
        for name, change in changes.items():
            present = self._storage.names.get(name)
            if self._newest.get(name, 0) > call:
                continue
            if change.only_if_absent and present is not None and present.value is not None:
                continue
            cut = first - 1 if change.value is None else change.cut
            if change.only_if_absent and present is not None:
                cut = max(cut, present.cut)  # a deleted name: what was logged before the deletion stays deleted
            if present is not None and cut < present.cut:
                # What is stored contains more of the log, and that part of the log may be gone.
                text = (
                    f"{name!r} was checkpointed meanwhile, with more of the log than this value contains. Nothing of "
                    f"this call was stored: checkpoint a name from one place at a time."
                )
                raise ConflictError(text, sequence=present.cut, reason="a checkpoint that contains more")
            stored[name] = Stored(cut, last, written.get(name))
        return stored

    def _compact(self) -> None:
        """Tidy up behind a checkpoint, which is done and stays done whatever happens here."""
        try:
            self._storage.compact(self._committer.quietly)
        except HandleError as error:
            self._committer.finish(error)
        except TraxError as error:
            logger.warning("the log could not be compacted; the next checkpoint tries again: %s", error)
