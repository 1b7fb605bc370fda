"""A file system that fails when it is told to: one chosen operation, or all from it on."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from typing import Any

from trax.storage.local.fs import LocalFileSystem

OPERATIONS = (
    "open",
    "create",
    "pread",
    "preadinto",
    "pwrite",
    "allocate",
    "truncate",
    "fsync",
    "fdatasync",
    "rename",
    "unlink",
    "mkdir",
    "fsync_directory",
    "listdir",
    "size",
)

Fault = Callable[[], BaseException]
"""Makes the error to raise."""


def os_error(number: int) -> Fault:
    """An ``OSError`` of that errno."""
    return lambda: OSError(number, os.strerror(number))


class FaultyFileSystem(LocalFileSystem):
    """Fails at operation number ``nth`` (counted from 0), ``once`` or from then on. Without ``fault`` it only counts.

    ``kinds`` limits what is counted, and fails. A short write is no error: with ``short_write`` the operation, if it is
    a write, takes only half of the bytes.
    """

    def __init__(
        self,
        nth: int = -1,
        fault: Fault | None = None,
        *,
        once: bool = True,
        kinds: tuple[str, ...] = OPERATIONS,
        short_write: bool = False,
    ) -> None:
        self.count = 0
        self.failed: list[str] = []
        self._nth, self._fault, self._once, self._short_write = nth, fault, once, short_write
        for kind in kinds:
            setattr(self, kind, self._counted(kind, getattr(LocalFileSystem, kind)))

    def _counted(self, kind: str, method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **keywords: Any) -> Any:
            number = self.count
            self.count += 1
            due = number == self._nth or (not self._once and number > self._nth >= 0)
            if due and self._fault is not None:
                self.failed.append(kind)
                raise self._fault()
            if due and self._short_write and kind == "pwrite":
                self.failed.append(kind)
                fd, data, offset = arguments
                return method(self, fd, data[: (len(data) + 1) // 2], offset)
            return method(self, *arguments, **keywords)

        return call


FAULTS: dict[str, Fault] = {
    "EIO": os_error(errno.EIO),
    "ENOSPC": os_error(errno.ENOSPC),
    "EDQUOT": os_error(errno.EDQUOT),
    "EINTR": os_error(errno.EINTR),
    "KeyboardInterrupt": KeyboardInterrupt,
    "MemoryError": MemoryError,
}
"""What an operation may fail with, by name."""
