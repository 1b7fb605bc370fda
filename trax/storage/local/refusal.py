"""What the operating system refuses, in words that help: ``OSError`` to the tree of :mod:`trax.errors`."""

from __future__ import annotations

import errno
import os
from types import TracebackType

from trax.errors import DiskFullError, ReadOnlyError, StorageError, TraxError

_FULL = (errno.ENOSPC, errno.EDQUOT)
_DENIED = (errno.EACCES, errno.EPERM, errno.EROFS)


def refused(error: OSError, doing: str, path: str) -> TraxError:
    """The error to raise for ``error``, which happened while ``doing`` something to ``path``."""
    reason = os.strerror(error.errno) if error.errno is not None else str(error)
    message = f"could not {doing} {path}: {reason}"
    if error.errno in _FULL:
        text = f"{message}. Nothing acknowledged is lost; free some space and repeat the call."
        return DiskFullError(text, path=path, reason=reason, errno=error.errno)
    if error.errno in _DENIED:
        text = f"{message}. Check who owns the directory and whether the file system is mounted read-only."
        return ReadOnlyError(text, path=path, reason=reason, errno=error.errno)
    return StorageError(f"{message}. Nothing acknowledged is lost.", path=path, reason=reason, errno=error.errno)


class asking:  # noqa: N801 (it reads as a clause: with asking("sync", path))
    """Turn what the system refuses inside the block into an error that says what it was asked for."""

    # A class, because a generator with @contextmanager takes as long as encoding five records.
    __slots__ = ("_doing", "_path")

    def __init__(self, doing: str, path: str) -> None:
        self._doing, self._path = doing, path

    def __enter__(self) -> None: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if isinstance(error, OSError) and not isinstance(error, TraxError):
            raise refused(error, self._doing, self._path) from error
