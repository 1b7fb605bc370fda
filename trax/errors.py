"""Every error and warning that trax raises of its own: one tree under :class:`TraxError`.

Each error is also the built-in that fits it, carries what it knows as attributes, can be pickled, and says in its
message what happened, to which file, and what the caller can do.
"""

from __future__ import annotations

import os
from typing import Any


class TraxError(Exception):
    """The root of the tree.

    Attributes: ``message``; ``path`` (the file or directory concerned), ``offset`` (bytes from the beginning of that
    file), ``sequence`` (of the record concerned) and ``reason`` (one short clause), each None where it has no meaning.
    Subclasses may add more; all are keyword arguments.
    """

    path: str | None
    offset: int | None
    sequence: int | None
    reason: str | None

    def __init__(
        self,
        message: str,
        *,
        path: str | os.PathLike[str] | None = None,
        offset: int | None = None,
        sequence: int | None = None,
        reason: str | None = None,
        **details: Any,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.path = None if path is None else os.fspath(path)
        self.offset = offset
        self.sequence = sequence
        self.reason = reason
        self._details = details
        for key, value in details.items():
            setattr(self, key, value)

    def __str__(self) -> str:  # KeyError would show the repr, OSError the errno
        return self.message

    def __reduce__(self) -> tuple[Any, ...]:
        keywords = {"path": self.path, "offset": self.offset, "sequence": self.sequence, "reason": self.reason}
        return _rebuild, (type(self), self.message, keywords | self._details)


def _rebuild(cls: type[TraxError], message: str, keywords: dict[str, Any]) -> TraxError:
    return cls(message, **keywords)


# What the caller asked for


class InvalidArgumentError(TraxError, ValueError):
    """An argument has no meaning here."""


class InvalidNameError(InvalidArgumentError):
    """A name is not a ``str`` of 1 to 255 UTF-8 bytes, or is reserved."""


class UnsupportedValueError(TraxError, TypeError):
    """A value can't be kept exactly. ``location`` is the path inside it, such as ``state['model'][3]``."""

    location: str


class ValueTooLargeError(TraxError, ValueError):
    """A value is larger than the place it was meant for."""


class RegistrationError(TraxError, ValueError):
    """A type can't be registered as asked."""


class NameNotStoredError(TraxError, KeyError):
    """The store holds no value of that name. ``name`` is the name."""

    name: str


class UnreachableError(TraxError, LookupError):
    """No kept snapshot reaches back that far. ``oldest`` is the oldest sequence that ``at=`` can reach."""

    oldest: int


class ReplayError(TraxError, TypeError):
    """``replay_log`` returned None for a state and an entry that were not None: most likely a forgotten ``return``."""


class ReadOnlyError(TraxError, PermissionError):
    """The handle was opened with ``mode="r"``, or the directory does not let us write."""


# What became of the handle


class HandleError(TraxError):
    """The handle can't be used; the store may be."""


class ClosedError(HandleError, ValueError):
    """The handle was closed."""


class ForkedError(HandleError, RuntimeError):
    """The handle belongs to the parent of this process."""


class FencedError(HandleError, RuntimeError):
    """Another writer has taken over the store."""


class FinishedError(HandleError, OSError):
    """An earlier failure left the handle unable to go on; ``__cause__`` is that failure."""


class ConflictError(TraxError, RuntimeError):
    """Another call was first: what it stored is newer, or contains more of the log. Nothing of this call was stored."""


class ReentrantCallError(TraxError, RuntimeError):
    """A signal handler called the handle whose call it had interrupted. Nothing of the inner call was done."""


# What became of a record of a stream


class DuplicateRecordError(InvalidArgumentError):
    """A batch has an id twice. ``record_id`` is the id; nothing of the batch was stored."""

    record_id: str


class UnknownRecordError(TraxError, KeyError):
    """The present batch has no such record. ``record_id`` is the id."""

    record_id: str


class ExhaustedError(TraxError, RuntimeError):
    """A record failed at its last attempt, and its stream keeps the order. ``record_id`` is the id."""

    record_id: str


# What the machine answered


class StorageError(TraxError, OSError):
    """The operating system refused. ``errno`` is its reason; ``__cause__`` the original error."""

    def __init__(self, message: str, *, errno: int | None = None, **keywords: Any) -> None:
        super().__init__(message, errno=errno, **keywords)


class DiskFullError(StorageError):
    """No space (ENOSPC) or quota (EDQUOT) is left."""


class StoreLockedError(TraxError, BlockingIOError):
    """Another writer holds the store. ``owner`` says who: a dict of host, boot, pid, started, job."""

    owner: dict[str, Any]


class StoreNotFoundError(TraxError, FileNotFoundError):
    """There is no store at that path."""


class NotAStoreError(TraxError, NotADirectoryError):
    """What is at that path is something else."""


class DependencyError(TraxError, ImportError):
    """An optional package is missing."""


# What the files hold


class CorruptionError(TraxError, ValueError):
    """A file of the store holds what no crash leaves there. Nothing was changed."""


class MissingFileError(CorruptionError, FileNotFoundError):
    """A file that the snapshot names is gone. Nothing was changed."""


class FormatError(TraxError, ValueError):
    """The store was written by a version of trax that this one can't read."""


class CodecError(TraxError, ValueError):
    """The store's codec, or a type it holds, is not the one that was asked for or registered."""


class OvertakenError(TraxError, RuntimeError):
    """The log was truncated past the place where a follower stood. ``oldest`` is where it can go on."""

    oldest: int


# What the layers refuse


class StreamError(TraxError, KeyError):
    """A stream of events is not open for writing. ``stream`` is its name."""

    stream: str


class RewindError(TraxError, ValueError):
    """A position is before the one that is stored. ``stored`` is the stored record number."""

    stored: int


class LoopError(TraxError, RuntimeError):
    """A loop of a job can't be begun, or resumed, as asked."""


class StepError(TraxError, RuntimeError):
    """A step of a job was left by an exception, which is the ``__cause__`` where it is known: it is not committed."""


class OutputFileError(TraxError, OSError):
    """An output file of a job is missing, or is not as the job left it. Nothing was changed."""


class ChangedError(TraxError, ValueError):
    """A job was started with another configuration, or another ``replay_log``, than it began with."""


class VerificationError(TraxError, ValueError):
    """What the store would give back is not the live state. ``sequence`` is the last record that was replayed."""


class TraxWarning(UserWarning):
    """The root of the warnings."""


class TornTailWarning(TraxWarning):
    """What a crash left behind the last whole frame was not used; it is named, and left where it is."""


class LockWarning(TraxWarning):
    """The file system has no locks, so an owner file guards the store."""
