"""What is refused, in words that help: by the operating system (``OSError``), or for the format that a file has."""

from __future__ import annotations

import errno
from types import TracebackType

from trax.errors import CorruptionError, DiskFullError, FormatError, ReadOnlyError, StorageError, TraxError
from trax.storage.local.framing import FORMAT_VERSION

_FULL = (errno.ENOSPC, errno.EDQUOT)
_DENIED = (errno.EACCES, errno.EPERM, errno.EROFS)


def refused(error: OSError, doing: str, path: str) -> TraxError:
    """The error to raise for ``error``, which happened while ``doing`` something to ``path``."""
    reason = error.strerror or str(error)
    if error.errno == errno.ELOOP:
        reason = "it is a symbolic link, and what belongs to a store must not lie elsewhere"
    message = f"could not {doing} {path}: {reason}"
    if error.errno in _FULL:
        text = f"{message}. Nothing acknowledged is lost; free some space and repeat the call."
        return DiskFullError(text, path=path, reason=reason, errno=error.errno)
    if error.errno in _DENIED:
        text = f"{message}. Check who owns the directory and whether the file system is mounted read-only."
        return ReadOnlyError(text, path=path, reason=reason, errno=error.errno)
    if error.errno == errno.EMFILE:
        text = f"{message}. Each name of a large value takes a descriptor, or several: ask for fewer names at once, or "
        text += "raise the limit (ulimit -n)."
        return StorageError(text, path=path, reason=reason, errno=error.errno)
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


def check_version(version: int, path: str) -> None:
    """FormatError for a version of the format that this trax does not read.

    The caller has checked the header's checksum: a damaged version is damage, and not the work of a newer trax.
    """
    if version > FORMAT_VERSION:
        text = f"{path} has format {version}; this trax reads formats up to {FORMAT_VERSION}. Install a newer trax."
        raise FormatError(text, path=path, reason=f"format {version}")
    if version < 1:
        text = f"{path} is damaged: it has format {version}, and there is none of that number. Nothing was changed."
        raise CorruptionError(text, path=path, offset=0, reason=f"format {version}")
