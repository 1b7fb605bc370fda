"""What users hold; apart from the keeper, so that a handle that is dropped can still be shut down."""

from __future__ import annotations

import os
import warnings
import weakref
from datetime import datetime
from types import TracebackType

from trax.errors import InvalidArgumentError
from trax.positions.file import PositionsFile
from trax.positions.keeper import Clock, Keeper
from trax.positions.states import EventLogState, checked
from trax.storage.local.fs import FileSystem

MIN_INTERVAL_S = 1.0


class Positions:
    """How far each event log has been read, persisted in the background.

    ``file``
        The YAML file. If there is none, it is created (0600), and so are the directories above it (0750).
    ``max_updates``, ``interval_s``
        A flush follows after so many updates, or when the oldest update that is not in the file is so old, whichever is
        first. An interval of less than a second is raised to one. A crash can take the updates of one such window, and
        nothing older.

    Any number of threads may use one handle; one process at a time may hold a file. After a fork the handle belongs to
    the parent. Shut it down, or use it in a ``with`` statement.
    """

    def __init__(
        self,
        file: str | os.PathLike[str],
        max_updates: int = 100,
        interval_s: float = 5.0,
        *,
        fs: FileSystem | None = None,
        clock: Clock | None = None,
    ) -> None:
        if isinstance(max_updates, bool) or not isinstance(max_updates, int) or max_updates < 1:
            raise InvalidArgumentError(f"max_updates is 1 or more, not {max_updates!r}.", reason="max_updates")
        if not isinstance(interval_s, (int, float)) or interval_s != interval_s:
            raise InvalidArgumentError(f"interval_s is a number of seconds, not {interval_s!r}.", reason="interval_s")
        self.max_updates = max_updates
        self.interval_s = max(float(interval_s), MIN_INTERVAL_S)
        held = PositionsFile(file, fs)
        try:
            self.path = held.path
            self._keeper = Keeper(held, self.max_updates, self.interval_s, clock or Clock())
        except BaseException:
            held.close()
            raise
        self._finalizer = weakref.finalize(self, _shut_down_dropped, self._keeper, self.path)
        _handles.add(self)

    def persist(
        self,
        name: str,
        record_number: int,
        timestamp: datetime,
        bookmark: str = "",
        *,
        allow_rewind: bool = False,
    ) -> None:
        """Note how far the event log ``name`` has been read. The file has it after the next flush.

        ``record_number`` is an unsigned number of 64 bits, ``timestamp`` an aware datetime. Raises InvalidArgumentError
        for other values; RewindError if the number is lower than the stored one, unless ``allow_rewind`` says that this
        is meant (an event log that was cleared begins at 1 again); ClosedError after ``shutdown()``. What an earlier
        flush raised is raised here too: the update is then held in memory all the same.
        """
        state = checked(EventLogState(name, record_number, timestamp, bookmark))
        self._keeper.persist(state, allow_rewind=allow_rewind)

    def states(self) -> dict[str, EventLogState]:
        """The state of each event log by name, as last persisted; a copy."""
        return self._keeper.states()

    def flush(self) -> None:
        """Everything persisted before is on stable storage when this returns.

        Raises StorageError or DiskFullError if it is not, and, once, what an earlier flush in the background raised.
        """
        self._keeper.flush()

    def shutdown(self) -> None:
        """Flush, and let go of the file; blocks until both are done. Another call is harmless.

        If the last flush fails, it is raised; nothing is lost or let go of, and the call can be repeated.
        """
        try:
            self._keeper.shutdown()
        finally:
            if self._keeper.released:
                self._finalizer.detach()

    def __enter__(self) -> Positions:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.shutdown()

    def __repr__(self) -> str:
        return f"<trax.positions.Positions {self.path!r}>"

    def _after_fork_in_child(self) -> None:
        self._finalizer.detach()
        self._keeper.abandon()


def _shut_down_dropped(keeper: Keeper, path: str) -> None:
    text = f"the positions in {path} were dropped without shutdown(); they have been flushed, and are closed now"
    warnings.warn(ResourceWarning(text), stacklevel=2)
    keeper.shutdown_dropped()


_handles: weakref.WeakSet[Positions] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for handle in list(_handles):
        handle._after_fork_in_child()


os.register_at_fork(after_in_child=_after_fork_in_child)
