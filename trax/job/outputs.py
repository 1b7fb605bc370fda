"""Output files that roll back with the state of their job.

What is written is held in memory, handed to the operating system in large pieces, and becomes part of the job's state
with the step that wrote it: the step's commit names the file's length and the checksum of all that lies before it. When
the job is started again, the file must still begin with what the last commit names; what follows is cut off.

A commit must not outlive the bytes that it names. With ``sync="always"`` the file is synced before the commit.
Otherwise neither is synced by then, and a power loss may take either; so the bytes are a part of the commit as well,
and are put back from the log into a file that has lost them. A step that writes much has its file synced instead, and
so has each checkpoint, behind which the log begins anew.

The checksum (CRC-32) is carried on, so that the cost of a commit is that of what was appended. It finds accidents, not
forgeries.
"""

from __future__ import annotations

import io
import logging
import os
from collections.abc import Iterable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from trax.errors import ClosedError, ForkedError, InvalidArgumentError, OutputFileError
from trax.job.state import Position
from trax.storage.local import crc
from trax.storage.local.fs import FileSystem, write_all
from trax.storage.local.refusal import asking

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

logger = logging.getLogger("trax")
_HELD_BYTES = 1 << 20
_LOGGED_BYTES = 1 << 20
_CHUNK_BYTES = 1 << 20


class AppendedFile:
    """A file that only grows, but for a rollback. One thread at a time.

    While ``is_repeating`` is set, what is appended is left out: the job does again what it did before the loop that it
    is about to resume, and the file has it.
    """

    def __init__(self, fs: FileSystem, path: str) -> None:
        self._fs, self.path = fs, path
        self._process = os.getpid()
        self.is_repeating = False
        self._held = bytearray()
        self._checksum = 0
        self._is_synced = False
        self.length = 0
        """Of the file, with what is held."""
        self._written = 0
        self._named = 0
        """The length that the last commit names."""
        kind = fs.kind(path)
        if kind not in ("file", "absent"):
            raise InvalidArgumentError(f"{path} is no file: an output file is a regular one.", path=path, reason=kind)
        with asking("create" if kind == "absent" else "open", path):
            self._fd = fs.create(path) if kind == "absent" else fs.open(path, write=True)

    def begin(self) -> Position:
        """A file that the job did not know: what it holds stays. Its position, which is on stable storage."""
        with asking("sync", self.path):
            size = self._fs.size(self._fd)
            self._checksum = self._checksum_of(0, size, 0)
            self._fs.fsync(self._fd)  # makes durable: what the file held before, which the commit is about to name
            # Makes durable: the file's name, or a power loss leaves a commit that names a file that is not there.
            self._fs.fsync_directory(os.path.dirname(self.path))
        self.length = self._written = self._named = size
        return [size, self._checksum, 0]

    def roll_back(self, positions: Iterable[Position]) -> None:
        """Bring the file back to the last of the positions that it had; OutputFileError, and nothing changed, if it
        does not hold what was synced of it.
        """
        length = checksum = 0
        lost: list[tuple[int, bytes]] = []
        with asking("read", self.path):
            size = self._fs.size(self._fd)
            for end, expected, _, *logged in positions:
                if logged:
                    if self._read(length, end) != logged[0]:
                        lost.append((length, logged[0]))
                else:
                    # It was synced by then, with all before it.
                    if size < end:
                        raise self._changed(f"it should hold at least {end:,} bytes, and has {size:,}")
                    if lost or self._checksum_of(length, end, checksum) != expected:
                        raise self._changed(f"its first {end:,} bytes are not the ones that the job has written")
                length, checksum = end, expected
        self._put_back(lost)
        with asking("cut back", self.path):
            if size > length:
                self._fs.truncate(self._fd, length)
        self.length = self._written = self._named = length
        self._checksum = checksum

    def append(self, data: ReadableBuffer) -> int:
        """Write at the end; returns the number of bytes. If it raises, nothing was appended."""
        if self._fd < 0:
            text = f"the job that writes {self.path} was closed. Write to it before, within the job."
            raise ClosedError(text, path=self.path, reason="closed")
        if len(self._held) >= _HELD_BYTES:
            self.flush()
        with memoryview(data) as view:
            nbytes = view.nbytes
            if not self.is_repeating:
                self._held += view.cast("B") if view.contiguous else view.tobytes()
                self.length += nbytes
        return nbytes

    def bring(self, *, sync: bool) -> Position | None:
        """Hand over what was appended, before the commit that names it. What the commit has to say; None: nothing."""
        appended = self.length - self._named
        if sync or appended > _LOGGED_BYTES:
            self.sync()
        if not appended:
            return None
        self.flush()
        logged = [] if self._is_synced else [self._read(self._named, self.length)]
        self._named = self.length
        return [self.length, self._checksum, 1, *logged]

    def flush(self) -> None:
        """Hand what is held to the operating system."""
        if not self._held:
            return
        if os.getpid() != self._process:
            text = f"{self.path} is written by the job of the process that this one was forked from: use another."
            raise ForkedError(text, path=self.path, reason="forked")
        with asking("write", self.path):
            size = self._fs.size(self._fd)
            if size != self._written:
                raise self._changed(f"the job has written {self._written:,} bytes, and it has {size:,}")
            try:
                with memoryview(self._held) as data:
                    write_all(self._fs, self._fd, data, self._written)
            except OSError:
                with suppress(OSError):  # the first error is the one that matters
                    self._fs.truncate(self._fd, self._written)  # so that it can be repeated
                raise
        self._checksum = crc.crc32(self._held, self._checksum)
        self._written += len(self._held)
        self._held.clear()
        self._is_synced = False

    def sync(self) -> None:
        """All that was appended is on stable storage when this returns."""
        self.flush()
        if not self._is_synced:
            with asking("sync", self.path):
                self._fs.fsync(self._fd)  # makes durable: contents and length, before the commit that names them
            self._is_synced = True

    def close(self) -> None:
        fd, self._fd = self._fd, -1
        self._held.clear()
        if fd >= 0:
            self._fs.close(fd)

    def _put_back(self, lost: list[tuple[int, bytes]]) -> None:
        """Write what a power loss has taken, as the log has it."""
        if lost:
            nbytes = sum(len(data) for _, data in lost)
            logger.warning("%s had lost %s bytes of the last steps, put back from the log", self.path, f"{nbytes:,}")
        with asking("write", self.path):
            for offset, data in lost:
                write_all(self._fs, self._fd, data, offset)

    def _read(self, start: int, end: int) -> bytes:
        """What the file has there; less at its end."""
        parts = []
        while start < end and (data := self._fs.pread(self._fd, min(_CHUNK_BYTES, end - start), start)):
            parts.append(data)
            start += len(data)
        return b"".join(parts)

    def _checksum_of(self, start: int, end: int, checksum: int) -> int:
        """The checksum up to ``end``, carried on from the one up to ``start``."""
        while start < end:
            data = self._read(start, min(start + _CHUNK_BYTES, end))
            if not data:
                raise self._changed(f"it became shorter than {end:,} bytes while it was read")
            checksum = crc.crc32(data, checksum)
            start += len(data)
        return checksum

    def _changed(self, how: str) -> OutputFileError:
        text = (
            f"{self.path} was changed by something else than the job: {how}. Nothing was written. Put back the file as "
            f"the job left it; or begin a new job, in another store, to append to what is there now."
        )
        return OutputFileError(text, path=self.path, reason="changed")


class BinaryOutput(io.RawIOBase):
    """What ``job.open(path, "ab")`` returns: bytes are appended, and become part of the job with the step."""

    mode = "ab"

    def __init__(self, file: AppendedFile) -> None:
        self._file = file
        self.name = file.path

    def writable(self) -> bool:
        return True

    def write(self, data: ReadableBuffer, /) -> int:
        _check_not_closed(self)
        return self._file.append(data)

    def tell(self) -> int:
        """The length of the file, with all that was written."""
        return self._file.length

    def flush(self) -> None:
        """Hand what was written to the operating system; it is the job's with the commit of the step."""
        if not self.closed:
            self._file.flush()


class TextOutput(io.TextIOBase):
    """What ``job.open(path, "a")`` returns: text is appended in UTF-8, newlines as they are."""

    mode = "a"

    def __init__(self, file: AppendedFile) -> None:
        self._file = file
        self.name = file.path

    @property
    def encoding(self) -> str:  # type: ignore[override]  # typeshed has an attribute here
        return "utf-8"

    def writable(self) -> bool:
        return True

    def write(self, text: str, /) -> int:
        _check_not_closed(self)
        self._file.append(text.encode())
        return len(text)

    def writelines(self, lines: Iterable[str], /) -> None:  # type: ignore[override]  # typeshed wants bytes as well
        self.write("".join(lines))

    def tell(self) -> int:
        """The length of the file in bytes, with all that was written."""
        return self._file.length

    def flush(self) -> None:
        """Hand what was written to the operating system; it is the job's with the commit of the step."""
        if not self.closed:
            self._file.flush()


_ADVICE = {
    ".h5": "HDF5 changes its file in the middle: keep arrays in the store, job.checkpoint(name=array), or write "
    "a file of its own for each step, and log its name",
    ".npy": "a .npy file is written whole: keep the array in the store, job.checkpoint(name=array), or append its rows "
    'with mode "ab" and array.tobytes()',
    ".npz": "a .npz file is written whole: keep the arrays in the store, job.checkpoint(name=array)",
}
_ADVICE |= {".hdf5": _ADVICE[".h5"], ".hdf": _ADVICE[".h5"], ".nc": _ADVICE[".h5"]}


def check_appends(path: str, mode: Any) -> None:
    """InvalidArgumentError for what can't be rolled back by cutting it off."""
    if advice := _ADVICE.get(os.path.splitext(path)[1].lower()):
        text = f"{path} can't be rolled back: {advice}."
        raise InvalidArgumentError(text, path=path, reason="not append-only")
    if mode not in ("a", "ab"):
        text = (
            f'job.open() appends: its mode is "a" or "ab", and not {mode!r}. What a job writes anew each time it can '
            f"write with open(), after the loop; what it has to read and change belongs into the store."
        )
        raise InvalidArgumentError(text, path=path, reason="mode")


def _check_not_closed(file: io.IOBase) -> None:
    if file.closed:
        raise ValueError("I/O operation on closed file")  # as every file of Python says it
