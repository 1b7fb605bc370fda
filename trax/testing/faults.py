"""A file system that fails when it is told to: one chosen operation, or all from it on.

Any other file system can lie beneath, such as one that records: what a failed call left unsynced can then be lost, too.
"""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable
from typing import Any

from trax.storage.local.fs import FileSystem, LocalFileSystem

OPERATIONS = (
    "open",
    "create",
    "size",
    "pread",
    "preadinto",
    "pwrite",
    "allocate",
    "truncate",
    "fsync",
    "fdatasync",
    "start_writeback",
    "map",
    "rename",
    "link",
    "unlink",
    "mkdir",
    "rmdir",
    "fsync_directory",
    "listdir",
    "kind",
    "mode",
    "identity",
    "identity_of",
    "lock",
    "unlock",
)
"""Every operation that the operating system may refuse. ``close`` is none: it lets go of the file in any case."""

Fault = Callable[[], BaseException]
"""Makes the error to raise."""

Short = Callable[[int], int]
"""How many bytes a write takes of those that it is given."""


def os_error(number: int) -> Fault:
    """An ``OSError`` of that errno."""
    return lambda: OSError(number, os.strerror(number))


class FaultyFileSystem(LocalFileSystem):
    """Fails at operation number ``nth`` (counted from 0), ``once`` or from then on. Without a fault it only counts.

    ``fault`` makes the error; with ``after`` it is raised when the operation has been done: as an interrupt that comes
    while a system call returns, or a server whose answer is lost. ``short`` is no error: a write takes only a part of
    its bytes; with a ``fault`` besides, it is the next operation that fails. ``kinds`` limits what is counted, and
    fails. ``inner`` is what does the operations.
    """

    def __init__(
        self,
        nth: int = -1,
        fault: Fault | None = None,
        *,
        once: bool = True,
        after: bool = False,
        short: Short | None = None,
        kinds: tuple[str, ...] = OPERATIONS,
        inner: FileSystem | None = None,
    ) -> None:
        self.count = 0
        self.failed: list[str] = []
        self._nth, self._fault, self._once, self._after, self._short = nth, fault, once, after, short
        self._counting = threading.Lock()
        self._inner = inner or LocalFileSystem()
        for kind in (*OPERATIONS, "close", "is_locked"):
            method = getattr(self._inner, kind)
            setattr(self, kind, self._counted(kind, method) if kind in kinds else method)

    def fail_at(self, nth: int, fault: Fault | None = None) -> None:
        """Fail at another operation than before, or with another error."""
        self._nth, self._fault = nth, fault or self._fault

    def heal(self) -> None:
        """From now on nothing fails."""
        self._nth = -1

    def _counted(self, kind: str, method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **keywords: Any) -> Any:
            with self._counting:
                number = self.count
                self.count += 1
            if self._nth >= 0 and self._is_short(number) and kind == "pwrite":
                self.failed.append(kind)
                fd, data, offset = arguments
                assert self._short is not None
                return method(fd, data[: self._short(len(data))], offset)
            if self._fault is None or not self._is_due(number):
                return method(*arguments, **keywords)
            self.failed.append(kind)
            error = self._fault()
            if self._after:
                result = method(*arguments, **keywords)
                if kind in ("open", "create") and isinstance(error, OSError):
                    self._inner.close(result)  # with an error comes no descriptor; an interrupt leaves one behind
            try:
                raise error
            finally:
                del error  # or this frame and the error would hold each other, and with them all that was called

        return call

    def _is_short(self, number: int) -> bool:
        if self._short is None:
            return False
        return number == self._nth or (self._fault is None and not self._once and number > self._nth)

    def _is_due(self, number: int) -> bool:
        first = self._nth if self._short is None else self._nth + 1
        return self._nth >= 0 and (number == first or (not self._once and number > first))


FAULTS: dict[str, Fault] = {
    "EIO": os_error(errno.EIO),
    "ENOSPC": os_error(errno.ENOSPC),
    "EDQUOT": os_error(errno.EDQUOT),
    "EINTR": os_error(errno.EINTR),
    "KeyboardInterrupt": KeyboardInterrupt,
    "MemoryError": MemoryError,
}
"""What an operation may fail with, by name."""

SHORT_WRITES: dict[str, Short] = {
    "all but one byte": lambda nbytes: max(1, nbytes - 1),
    "half": lambda nbytes: (nbytes + 1) // 2,
    "one byte": lambda nbytes: 1,
    "nothing": lambda nbytes: 0,
}
"""How much a write takes, by name."""
