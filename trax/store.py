"""``Trax``: a snapshot, and a log of what changed since, in one directory.

The way of a record: ``log`` encodes it, :mod:`trax.commit` queues it and brings it to the storage, the storage frames
it and writes it to a segment. The way of a checkpoint: ``checkpoint`` encodes it, :mod:`trax.publish` has the storage
write it beside the log and then replace the snapshot. The way back is ``recover``: a view of the storage, decoded,
folded.
"""

from __future__ import annotations

import copy
import os
import re
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any, Literal

from trax.batch import Batch
from trax.codecs import get_codec
from trax.codecs.buffers import for_background
from trax.commit import SyncPolicy
from trax.encoding import Encoder
from trax.errors import (
    ClosedError,
    ForkedError,
    HandleError,
    InvalidArgumentError,
    NameNotStoredError,
    OvertakenError,
    ReadOnlyError,
    ReentrantCallError,
    TraxError,
)
from trax.inspection import Verification, verify_store
from trax.names import check_name
from trax.options import check_options
from trax.publish import Change
from trax.replay import Fold, ReplayLog, decode_stored, decoded, last_wins
from trax.storage.base import SnapshotInfo, View
from trax.storage.local.directory import LocalStorage
from trax.storage.local.fs import FileSystem
from trax.storage.local.reader import LocalReader
from trax.writer import Writer, close_dropped

Create = Callable[[], Any]
_MAX_SEQUENCE = 2**64 - 1


class Trax:
    """A store: the state of a program, saved now and then, and what changed in between.

    ``path``
        The directory. ``mode="a"`` creates it, and the directories above it, if it is not there.
    ``mode``
        ``"a"`` opens or creates; ``"r+"`` opens what must exist; ``"r"`` reads beside a live writer: it takes no lock,
        repairs nothing, changes nothing, and each call sees the newest state.
    ``sync``
        When ``log()`` returns. ``"always"``: the record is on stable storage; threads share one fsync. ``"interval"``:
        the operating system has it, so it survives the death of the process, and a thread syncs every
        ``sync_interval_s`` seconds. ``"os"``: the same, and only ``checkpoint()``, ``sync()`` and ``close()`` sync.
    ``codec``
        ``"msgpack"`` (for a new store), ``"json"`` (the log can be read with the eyes) or ``"pickle"``. The store keeps
        it; another one is a CodecError. Unpickling runs the code that a pickle names: ``codec="pickle"`` must be asked
        for at every opening, and is for stores that nobody else can write to.
    ``keep``
        How many snapshots the store holds, the current one included, with the log between them; 1 for a new store.
        The store keeps the number; None leaves it as it is.
    ``buffer_bytes``
        With ``sync="interval"`` or ``"os"``: hold up to so many bytes of records in the process, where SIGKILL takes
        them, for the highest rate. A record counts for its entries and 64 bytes. 0: none.
    ``differential``
        True: a checkpoint of a value with large arrays writes only those MiB of them that have changed since the last
        checkpoint of the name, and leans on the files of that one for the rest. The files of a value never take more
        than twice its bytes: it is written whole where they would, or where more than half has changed. A value that
        lies in several files can't be mapped (``mmap``). The store does not keep this option: a handle without it
        writes whole values, and every handle reads both.

    Any number of threads may use one handle; one handle at a time may write to a store. After a fork the handle belongs
    to the parent. Close it, or use it in a ``with`` statement: a handle that is dropped is closed with a
    ResourceWarning.
    """

    _beside: re.Pattern[str] | None = None
    """Files that may lie in the directory of a new store; see :mod:`trax.layers`."""

    def __init__(
        self,
        path: str | os.PathLike[str] = ".trax",
        *,
        mode: Literal["a", "r+", "r"] = "a",
        sync: SyncPolicy = "always",
        codec: str | None = None,
        keep: int | None = None,
        sync_interval_s: float = 1.0,
        buffer_bytes: int = 0,
        differential: bool = False,
        fs: FileSystem | None = None,
    ) -> None:
        check_options(mode, sync, codec, keep, sync_interval_s, buffer_bytes, differential)
        self.path = os.path.abspath(os.fspath(path))
        self._closed: HandleError | None = None
        self._creating = threading.RLock()
        self._background_failure: Exception | None = None
        self._closing = False
        self._writer: Writer | None = None
        self._storage: LocalStorage | LocalReader
        if mode == "r":
            self._storage = LocalReader(path, codec=codec, fs=fs)
        else:
            storage = LocalStorage(
                path,
                must_exist=mode == "r+",
                codec=codec,
                keep=keep,
                preallocate=sync == "always",
                beside=self._beside,
                differential=differential,
                fs=fs,
            )
            self._storage = storage
            try:
                self._writer = Writer(storage, sync, sync_interval_s, buffer_bytes)
            except BaseException:
                storage.close()
                raise
            self._background = ThreadPoolExecutor(1, "trax-checkpoint")
            self._finalizer = weakref.finalize(self, close_dropped, self._writer, self.path)
        self._codec = get_codec(self._storage.codec)
        self._encoder = Encoder(self._codec, self.path)
        _handles.add(self)

    # Saving

    def checkpoint(self, mapping: Mapping[str, Any] | None = None, /, **values: Any) -> int:
        """Save the values of some names, all or none; on stable storage when it returns the commit's sequence.

        A value contains what was logged before this call began, and what was logged of its name up to then leaves the
        log; entries of other names stay. Any string can be a name: those that are not identifiers go through
        ``mapping``. Large NumPy arrays are written from where they lie, so no other thread should change them
        meanwhile.

        Raises UnsupportedValueError and ValueTooLargeError before anything is written; DiskFullError and StorageError
        with the last good snapshot in place.
        """
        writer = self._for_writing()
        call, cut = writer.publisher.begin()
        encoded = self._encoder.values(mapping, values)
        return writer.publisher.publish(call, {name: Change(value, cut) for name, value in encoded.items()})

    def checkpoint_at(self, sequence: int, mapping: Mapping[str, Any]) -> int:
        """Save values that contain what was logged up to ``sequence``, and nothing after.

        For a state that another thread folded from the log while this one goes on logging.
        """
        writer = self._for_writing()
        call, last = writer.publisher.begin()
        encoded = self._encoder.values(mapping, {})
        if not 0 <= sequence <= last:
            text = f"checkpoint_at() takes a sequence between 0 and the last one, {last}, and got {sequence}."
            raise InvalidArgumentError(text, sequence=sequence, reason="no such sequence")
        for name in encoded:
            stored = self._storage.names.get(name)
            if stored is not None and stored.cut > sequence:
                text = (
                    f"what is stored of {name!r} contains the log up to sequence {stored.cut}; a value as of "
                    f"{sequence} would take that back."
                )
                raise InvalidArgumentError(text, path=self.path, sequence=sequence, reason="older than what is stored")
        return writer.publisher.publish(call, {name: Change(value, sequence) for name, value in encoded.items()})

    def checkpoint_async(self, mapping: Mapping[str, Any] | None = None, /, **values: Any) -> Future[int]:
        """The same as :meth:`checkpoint`, written in the background while ``log()`` goes on.

        The values are encoded, and large arrays copied, before this returns. The future's result is the sequence, on
        stable storage. A failure is raised by the future and by the next call on the store; the last good snapshot
        stays. If calls overlap, the later one wins for each name.
        """
        writer = self._for_writing()
        call, cut = writer.publisher.begin()
        encoded = self._encoder.values(mapping, values)
        changes = {name: Change(for_background(value), cut) for name, value in encoded.items()}
        try:
            future = self._background.submit(writer.publisher.publish, call, changes)
        except RuntimeError as error:
            if not self._closing:
                raise
            text = f"this handle of {self.path} is being closed. Open the store again."
            raise ClosedError(text, path=self.path, reason="closed") from error
        # The handle stays until then, lest the thread that saves for it closes it on the way. And no longer: the future
        # keeps its callbacks.
        kept = [self]
        future.add_done_callback(lambda done: kept.pop()._note_failure(done))
        return future

    def log(self, mapping: Mapping[str, Any] | None = None, /, **entries: Any) -> int:
        """Add one record, ``{name: entry, …}``, atomically; returns its sequence when it is as safe as ``sync`` says.

        The entries are encoded before the call returns, so the caller may go on changing them. Raises
        UnsupportedValueError and ValueTooLargeError before anything is written; after a DiskFullError or StorageError
        the record is not in the store, and the call can be repeated.
        """
        writer = self._writer
        if writer is None or self._closed is not None or self._background_failure is not None:
            writer = self._for_writing()  # says what is wrong
        record, nbytes = self._encoder.record(mapping, entries)
        return writer.committer.log(record, nbytes)

    def batch(self) -> Batch:
        """``with store.batch() as b:`` makes what is done with ``b.log`` and ``b.checkpoint`` one atomic commit."""
        return Batch(self._encoder, self._for_writing().publisher, self._commit_batch)

    def delete(self, *names: str) -> int:
        """Remove names, their values and all that was logged of them; durable when it returns the commit's sequence."""
        writer = self._for_writing()
        call, _ = writer.publisher.begin()
        if not names:
            raise InvalidArgumentError("delete() was given no name.", reason="empty")
        for name in names:
            if check_name(name) not in self and next(self.entries(name), None) is None:
                raise self._not_stored(name)
        return writer.publisher.publish(call, {name: Change(None) for name in names})

    def sync(self) -> None:
        """Everything logged before this call is on stable storage when it returns."""
        self._for_writing().committer.sync()

    # Getting it back

    def recover(
        self,
        name: str,
        create: Create | None = None,
        replay_log: ReplayLog = last_wins,
        *,
        at: int | None = None,
        mmap: bool = False,
    ) -> Any:
        """The state of ``name``: its checkpointed value, and every entry logged since folded into it.

        ``create()`` makes the first value where none is stored; it is stored, durably, before anything is returned.
        ``replay_log(state, entry)`` returns the state after an entry (by default the entry itself); it may change the
        state in place, which is the caller's own. ``at`` gives the state as of that sequence, back to the oldest of
        :meth:`snapshots`. With ``mmap`` the large arrays of the checkpointed value are read-only views of the file; a
        value that a checkpoint with ``differential`` has spread over several files is an InvalidArgumentError then.

        Raises NameNotStoredError (a KeyError), UnreachableError, ReplayError; what the callbacks raise, with a note
        that names the record; CorruptionError, with file, offset and sequence, for what no crash leaves behind.
        """
        return self.recover_many([name], create, replay_log, at=at, mmap=mmap)[name]

    def recover_many(
        self,
        names: Iterable[str],
        create: Create | Mapping[str, Create] | None = None,
        replay_log: ReplayLog | Mapping[str, ReplayLog] = last_wins,
        *,
        at: int | None = None,
        mmap: bool = False,
    ) -> dict[str, Any]:
        """Several names in one pass over the log. ``create`` and ``replay_log`` may be given by name."""
        wanted = [check_name(name) for name in dict.fromkeys(names)]
        self._check_open()
        if at is not None and create is not None:
            text = "create= makes a value that is stored from now on, and at= asks for the past: give one of them."
            raise InvalidArgumentError(text, reason="create with at")
        creators = create if isinstance(create, Mapping) else dict.fromkeys(wanted, create)
        replays = replay_log if isinstance(replay_log, Mapping) else dict.fromkeys(wanted, replay_log)
        if self._writer is not None and at is None:
            self._create_absent({name: creators.get(name) for name in wanted})
        with self._view(wanted, at) as view:
            folds: dict[str, Fold] = {}
            after: dict[str, int] = {}
            for name in wanted:
                stored = view.names.get(name)
                if stored is None or stored.value is None:
                    raise self._not_stored(name, at)
                state = decode_stored(self._codec, view, name, stored, self.path, mmap=mmap)
                folds[name] = Fold(name, state, replays.get(name, last_wins), self._codec, self.path)
                after[name] = stored.cut
            for entries in view.entries(after, _MAX_SEQUENCE if at is None else at):
                folds[entries.name].add(entries)
        for fold in folds.values():
            fold.finish()
        return {name: fold.state for name, fold in folds.items()}

    def entries(self, name: str, *, after: int | None = None) -> Iterator[tuple[int, Any]]:
        """``(sequence, entry)`` of what was logged of a name and is not part of its checkpointed value, lazily.

        With ``after``, what was logged behind that sequence, as far back as the kept snapshots reach; OvertakenError
        when some of that has left the log.
        """
        check_name(name)
        self._check_open()
        return self._entries(name, after)

    def names(self) -> list[str]:
        """The names that have a value, sorted."""
        self._check_open()
        return sorted(name for name, stored in self._storage.names.items() if stored.value is not None)

    def __contains__(self, name: object) -> bool:
        self._check_open()
        stored = self._storage.names.get(name) if isinstance(name, str) else None
        return stored is not None and stored.value is not None

    def snapshots(self) -> list[SnapshotInfo]:
        """The snapshots that ``recover(at=…)`` can start from, oldest first.

        Every sequence behind the first is reachable.
        """
        self._check_open()
        return self._storage.snapshots()

    # About the store

    @property
    def durable_sequence(self) -> int:
        """Everything up to this sequence is on stable storage."""
        return self._for_writing().committer.durable_sequence

    @property
    def last_sequence(self) -> int:
        """The last sequence that was given out."""
        return self._for_writing().committer.last_sequence

    def stats(self) -> dict[str, object]:
        """Figures about the store, by name; sizes are bytes."""
        self._check_open()
        stats = self._storage.stats()
        if self._writer is not None:
            committer = self._writer.committer
            stats |= {"last_sequence": committer.last_sequence, "durable_sequence": committer.durable_sequence}
        return stats | {"names": len(self.names())}

    def verify(self) -> Verification:
        """Read every byte of the store and check it; changes nothing. What is wrong is in the result's ``problems``."""
        if self._writer is None:
            self._check_open()
            return verify_store(self.path)
        self._for_writing().committer.flush()
        return self._writer.publisher.while_paused(lambda: verify_store(self.path))

    def copy_to(self, path: str | os.PathLike[str]) -> None:
        """Copy the store, as it is now, to a directory that is new or empty; durable when it returns.

        Other threads may go on logging; their checkpoints wait.
        """
        writer = self._for_writing()
        writer.committer.sync()
        writer.publisher.while_paused(lambda: writer.storage.copy_to(path))

    # The end

    def close(self) -> None:
        """Wait for background checkpoints, sync, and let go of the store. A second call does nothing.

        Raises what a background checkpoint or the last sync raised; the store is let go of all the same.
        """
        if self._closed is not None:
            return
        text = f"this handle of {self.path} was closed. Open the store again with trax.Trax()."
        error = ClosedError(text, path=self.path, reason="closed")
        if self._writer is not None:
            self._closing = True
            self._background.shutdown()
            try:
                self._writer.close(error)
            except ReentrantCallError:
                raise
            except TraxError:
                self._forget(error)
                raise
        self._forget(error)
        self._raise_background_failure()

    def _forget(self, error: HandleError) -> None:
        """The last step of closing: until then an interrupted call can be repeated."""
        if self._writer is not None:
            self._finalizer.detach()
        self._closed = error

    def __enter__(self) -> Trax:
        self._check_open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "" if self._closed is None else " (closed)"
        return f"<trax.Trax {self.path!r}{state}>"

    # How it is done

    def _for_writing(self) -> Writer:
        if self._closed is not None:
            raise copy.copy(self._closed)
        if self._writer is None:
            text = f"{self.path} was opened with mode='r', which changes nothing. Open it with mode='a' or 'r+'."
            raise ReadOnlyError(text, path=self.path, reason="mode='r'")
        if self._background_failure is not None:
            self._raise_background_failure()
        return self._writer

    def _check_open(self) -> None:
        if self._closed is not None:
            raise copy.copy(self._closed)
        self._raise_background_failure()

    def _commit_batch(self, batch: Batch) -> int:
        writer = self._for_writing()
        records = batch.commit_of_records
        nbytes = sum(len(encoding) for record in records for encoding in record.values())
        self._encoder.check_bytes("batch", nbytes)
        if not batch.changes:
            return writer.committer.log_together(records, nbytes)
        call, _ = writer.publisher.begin()
        return writer.publisher.publish(call, batch.changes, batch.ahead, batch.size)

    def _create_absent(self, creators: Mapping[str, Create | None]) -> None:
        """Store a first value for each name that has none and whose creator is given."""
        writer = self._for_writing()
        with self._creating:
            absent = {name: make for name, make in creators.items() if make is not None and name not in self}
            if not absent:
                return
            call, _ = writer.publisher.begin()
            encoded = {name: self._codec.encode_value(make(), name) for name, make in absent.items()}
            changes = {name: Change(value, only_if_absent=True) for name, value in encoded.items()}
            writer.publisher.publish(call, changes)

    def _view(self, names: Iterable[str], at: int | None) -> View:
        if self._writer is not None:
            self._writer.committer.flush()
        return self._storage.view([*names], at)

    def _entries(self, name: str, after: int | None) -> Iterator[tuple[int, Any]]:
        with self._view((), None) as view:
            stored = view.names.get(name)
            cut = 0 if stored is None else stored.cut
            if after is not None and after < cut:
                self._check_not_overtaken(name, after, cut)
            start = cut if after is None else after
            yield from decoded(self._codec, view.entries({name: start}, _MAX_SEQUENCE), self.path)

    def _check_not_overtaken(self, name: str, after: int, cut: int) -> None:
        oldest = min(self._storage.lowest_cut(name), cut)
        if after < oldest:
            text = (
                f"the entries of {name!r} behind sequence {after} have left the log, up to {oldest}: a checkpoint "
                f"contains them. recover({name!r}) gives the state; go on from there."
            )
            raise OvertakenError(text, path=self.path, sequence=after, reason="overtaken", oldest=oldest)

    def _not_stored(self, name: str, at: int | None = None) -> NameNotStoredError:
        when = "" if at is None else f" as of sequence {at}"
        hint = "Look at names()." if self._writer is None else "Give recover() a create= that makes the first one."
        text = f"{self.path} holds no value of {name!r}{when}. {hint}"
        return NameNotStoredError(text, path=self.path, sequence=at, reason="not stored", name=name)

    def _note_failure(self, future: Future[int]) -> None:
        error = None if future.cancelled() else future.exception()
        if isinstance(error, Exception):
            self._background_failure = error

    def _raise_background_failure(self) -> None:
        failure, self._background_failure = self._background_failure, None
        if failure is not None:
            failure.add_note("trax: raised by an earlier checkpoint_async(); the last good snapshot is in place")
            raise failure

    def _after_fork_in_child(self) -> None:
        text = (
            f"this handle of {self.path} was opened by the parent process, which goes on using it. Open the store in "
            f"the child with mode='r', or close it in the parent first."
        )
        self._closed = ForkedError(text, path=self.path, reason="forked")
        if self._writer is not None:
            self._finalizer.detach()
            self._writer.abandon(self._closed)


_handles: weakref.WeakSet[Trax] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for handle in list(_handles):
        handle._after_fork_in_child()


os.register_at_fork(after_in_child=_after_fork_in_child)
