"""Making a damaged store one that opens again: explicit, never automatic, and said in full before it is done.

What is lost is decided by these rules:

- The log ends before its first damage. A name whose checkpointed value already contains the log up to there or further
  keeps it; of the others nothing comes back that is younger than the damage.
- Where the snapshot or a blob of it is damaged, the newest kept snapshot that is whole takes its place, for all names,
  and the log is folded on top of it. Where none is, a damaged snapshot can't be repaired, and a name whose blob is
  damaged is dropped: its entries are hidden too, since folding them onto a newly created value would give a state that
  the program never had.
- Going back (``at=``) reaches over no hole: snapshots on the far side of one are dropped.

Nothing is thrown away: every file that is replaced, cut or left out is first given a second name under ``removed/``. A
crash at any point leaves the damaged store or the repaired one, since one rename of the snapshot separates the two.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from itertools import takewhile
from types import TracebackType

from trax.errors import CorruptionError, FormatError, MissingFileError, TraxError
from trax.inspection import Verification, verify_store
from trax.records import LogRecord
from trax.salvage import FoundLog, FoundSegment, Log, find_segment, scan_found, scan_named
from trax.storage.base import BlobReference, Stored
from trax.storage.local.commit_point import CommitPoint, load_snapshot, missing_file
from trax.storage.local.fs import FileSystem, LocalFileSystem, write_all
from trax.storage.local.layout import Layout, file_numbers, segment_numbers
from trax.storage.local.lock import WriterLock
from trax.storage.local.opening import check_is_latest, survey
from trax.storage.local.refusal import asking
from trax.storage.local.segment import FRAME_BYTES, FRAME_RECORDS, Manner, SegmentWriter, create_segment
from trax.storage.local.snapshot import KeptReference, SegmentReference, Snapshot
from trax.storage.local.view import check_blob, load_kept, stored_names

_SHOWN = 20
_NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EXDEV, errno.EACCES)


class Repair:
    """A repair of the store at a path, planned when it is constructed and done by :meth:`carry_out`.

    It holds the store's lock until it is closed; StoreLockedError says who else does. ``problems`` is what is wrong,
    empty when there is nothing to repair; ``possible`` is whether it can be repaired; ``lost``, ``stays`` and ``notes``
    say in words what that will mean.
    """

    def __init__(self, path: str | os.PathLike[str], *, fs: FileSystem | None = None) -> None:
        self._fs = fs or LocalFileSystem()
        self._layout = Layout(path)
        self.path = self._layout.path
        self.problems: list[TraxError] = []
        self.lost: list[str] = []
        self.stays: list[str] = []
        self.notes: list[str] = []
        self.possible = True
        self._check_is_store()
        self._lock = WriterLock(self._fs, self._layout)
        try:
            self._plan()
        except BaseException:
            self._lock.release()
            raise

    def close(self) -> None:
        """Let go of the store."""
        self._lock.release()

    def __enter__(self) -> Repair:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
