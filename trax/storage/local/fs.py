"""The only caller of the operating system's file functions.

Everything that a crash, a full disk or a bad sector can do to a store happens behind the methods of
:class:`FileSystem`; tests put another one in its place. Offsets and lengths are bytes, paths are ``str``. Every method
raises the plain ``OSError`` of the operating system: what it means is decided by the callers.
"""

from __future__ import annotations

import errno
import fcntl
import io
import mmap
import os
import stat
import sys
import threading
from collections.abc import Iterable
from contextlib import suppress
from typing import Any, Protocol

from filelock import lock_descriptor, unlock_descriptor

if sys.platform == "win32":  # pragma: no cover
    raise ImportError("trax has not been tested on Windows; use it under WSL, on Linux or on macOS")

_LARGE_BYTES = 1 << 23


class FileSystem(Protocol):
    """What a store asks of the operating system."""

    def open(self, path: str, *, write: bool = False) -> int: ...
    def create(self, path: str, mode: int | None = None) -> int: ...
    def close(self, fd: int) -> None: ...
    def size(self, fd: int) -> int: ...
    def pread(self, fd: int, nbytes: int, offset: int) -> bytes: ...
    def preadinto(self, fd: int, target: memoryview, offset: int) -> int: ...
    def pwrite(self, fd: int, data: bytes | memoryview, offset: int) -> int: ...
    def allocate(self, fd: int, offset: int, nbytes: int) -> None: ...
    def truncate(self, fd: int, nbytes: int) -> None: ...
    def fsync(self, fd: int) -> None: ...
    def fdatasync(self, fd: int) -> None: ...
    def start_writeback(self, fd: int, offset: int, nbytes: int) -> None: ...
    def map(self, fd: int, nbytes: int) -> memoryview: ...
    def rename(self, source: str, target: str) -> None: ...
    def link(self, source: str, target: str) -> None: ...
    def unlink(self, path: str) -> None: ...
    def mkdir(self, path: str, mode: int | None = None) -> None: ...
    def rmdir(self, path: str) -> None: ...
    def fsync_directory(self, path: str) -> None: ...
    def listdir(self, path: str) -> list[str]: ...
    def kind(self, path: str) -> str: ...
    def is_link(self, path: str) -> bool: ...
    def mode(self, path: str) -> int: ...
    def identity(self, path: str) -> tuple[int, int]: ...
    def identity_of(self, fd: int) -> tuple[int, int]: ...
    def lock(self, fd: int) -> bool: ...
    def unlock(self, fd: int) -> None: ...
    def is_locked(self, fd: int) -> bool: ...


class Descriptor(int):
    """The number of an open file, which is closed when nobody holds the number any more, if it was not before.

    An interrupt may come when a system call has returned and its result has not yet been assigned, where no ``try``
    knows of it. A plain number would then stay open, and a lock on it held, until the process ends.
    """

    _file: io.FileIO

    @classmethod
    def open(cls, path: str, flags: int) -> Descriptor:
        opened: Iterable[Any] = map(os.open, (path,), (flags | os.O_CLOEXEC,), (0o666,))
        try:
            # Unpacking the map opens the file, and the call takes charge of it: one step for the interpreter, which
            # looks for interrupts only behind it.
            file = io.FileIO(*opened)
        except IsADirectoryError as error:
            if isinstance(error.filename, int):  # opened, and not taken
                os.close(error.filename)
            raise
        fd = cls(file.fileno())
        fd._file = file
        return fd

    def close(self) -> None:
        self._file.close()


class _Removal(threading.Thread):
    """Closes a descriptor of a file that was removed: if it is the last, the system frees the file's pages one by one.

    For 256 MB that took 45 to 80 ms, a quarter of the time of a save.
    """

    def __init__(self, fd: Descriptor) -> None:
        super().__init__(name="trax-removal")
        self._fd = fd

    def run(self) -> None:
        self._fd.close()


def wait_for_removals() -> bool:
    """Wait until all that this process has removed is freed; whether there was anything to wait for."""
    removals = [thread for thread in threading.enumerate() if isinstance(thread, _Removal)]
    for removal in removals:
        removal.join()
    return bool(removals)


def _space_was_freed(error: OSError) -> bool:
    """Whether there was no space, and removals that were under way have freed some since."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT) and wait_for_removals()


class LocalFileSystem:
    """The real one."""

    def open(self, path: str, *, write: bool = False) -> int:
        """A descriptor of an existing file; it is not inherited by programs that are started.

        A pipe, a device or a directory in its place is an error, and no reason to wait.
        """
        fd = Descriptor.open(path, (os.O_RDWR if write else os.O_RDONLY) | os.O_NOFOLLOW | os.O_NONBLOCK)
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            fd.close()
            raise OSError(errno.EINVAL, "it is not a regular file")
        return fd

    def create(self, path: str, mode: int | None = None) -> int:
        """A descriptor of a new file; one that exists is an error. ``mode`` overrides the umask."""
        fd = Descriptor.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW)
        if mode is not None:
            try:
                os.fchmod(fd, mode)
            except BaseException:
                fd.close()
                raise
        return fd

    def close(self, fd: int) -> None:
        """Let go of the file, which the system does in any case.

        What it reports besides is no answer to anything: whatever was to be kept has been synced before.
        """
        assert isinstance(fd, Descriptor), "a descriptor of this file system"
        try:
            fd.close()
        except OSError as error:
            if error.errno not in (errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.EINTR):
                raise

    def size(self, fd: int) -> int:
        return os.fstat(fd).st_size

    def pread(self, fd: int, nbytes: int, offset: int) -> bytes:
        """Up to ``nbytes`` bytes; fewer only at the end of the file."""
        data = os.pread(fd, nbytes, offset)
        if not data or len(data) == nbytes:
            return data
        parts = [data]
        have = len(data)
        while have < nbytes and (data := os.pread(fd, nbytes - have, offset + have)):
            parts.append(data)
            have += len(data)
        return b"".join(parts)

    def preadinto(self, fd: int, target: memoryview, offset: int) -> int:
        """Fill ``target``; the number of bytes read is smaller only at the end of the file."""
        have = 0
        while have < len(target) and (count := os.preadv(fd, [target[have:]], offset + have)):
            have += count
        return have

    def pwrite(self, fd: int, data: bytes | memoryview, offset: int) -> int:
        """Write some of ``data``; the number of bytes written may be smaller than its length."""
        try:
            return os.pwrite(fd, data, offset)
        except OSError as error:
            if not _space_was_freed(error):
                raise
            return os.pwrite(fd, data, offset)

    def allocate(self, fd: int, offset: int, nbytes: int) -> None:
        """Make room, reading as zeros, so that later writes need not change the file's size."""
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(fd, offset, nbytes)
        else:  # pragma: no cover (macOS)
            raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

    def truncate(self, fd: int, nbytes: int) -> None:
        os.ftruncate(fd, nbytes)

    def fsync(self, fd: int) -> None:
        """Contents and size are on stable storage when this returns."""
        if sys.platform == "darwin":  # pragma: no cover (fsync there stops at the drive's cache)
            fcntl.fcntl(fd, fcntl.F_FULLFSYNC)
        else:
            os.fsync(fd)

    def fdatasync(self, fd: int) -> None:
        """The same, but for times of the file that nobody needs for reading it."""
        if sys.platform == "darwin":  # pragma: no cover
            fcntl.fcntl(fd, fcntl.F_FULLFSYNC)
        else:
            os.fdatasync(fd)

    def start_writeback(self, fd: int, offset: int, nbytes: int) -> None:
        """Advice: begin to write these bytes to the disk. It promises nothing; the fsync that follows does."""
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(fd, offset, nbytes, os.POSIX_FADV_DONTNEED)

    def map(self, fd: int, nbytes: int) -> memoryview:
        """The first ``nbytes`` bytes, read-only, mapped."""
        return memoryview(mmap.mmap(fd, nbytes, access=mmap.ACCESS_READ))

    def rename(self, source: str, target: str) -> None:
        os.rename(source, target)

    def link(self, source: str, target: str) -> None:
        """A second name for a file."""
        os.link(source, target, follow_symlinks=False)

    def unlink(self, path: str) -> None:
        """Remove a name. What a large file takes is freed a little later; a write that finds no space waits for it."""
        held: Descriptor | None = None
        if os.lstat(path).st_size >= _LARGE_BYTES:
            with suppress(OSError):
                held = Descriptor.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            os.unlink(path)
        finally:
            if held is not None:
                removal = _Removal(held)
                try:
                    removal.start()
                except RuntimeError:  # there are no new threads while the interpreter ends
                    removal.run()

    def mkdir(self, path: str, mode: int | None = None) -> None:
        """Make a directory. ``mode`` overrides the umask."""
        os.mkdir(path)
        if mode is not None:
            os.chmod(path, mode)

    def rmdir(self, path: str) -> None:
        """Remove a directory that is empty."""
        os.rmdir(path)

    def fsync_directory(self, path: str) -> None:
        """The names in the directory (creations, renames, removals) are on stable storage when this returns."""
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            self.fsync(fd)
        finally:
            os.close(fd)

    def listdir(self, path: str) -> list[str]:
        return sorted(os.listdir(path))

    def kind(self, path: str) -> str:
        """``"file"``, ``"directory"``, ``"absent"`` or ``"other"``; a link to a directory is one."""
        try:
            mode = os.stat(path).st_mode
        except FileNotFoundError:
            return "absent"
        if stat.S_ISDIR(mode):
            return "directory"
        return "file" if stat.S_ISREG(mode) else "other"

    def is_link(self, path: str) -> bool:
        return os.path.islink(path)

    def mode(self, path: str) -> int:
        """The permission bits of a file."""
        return stat.S_IMODE(os.stat(path).st_mode)

    def identity(self, path: str) -> tuple[int, int]:
        """Which file a path leads to: device and inode. It proves something only while that file is held open."""
        status = os.stat(path)
        return status.st_dev, status.st_ino

    def identity_of(self, fd: int) -> tuple[int, int]:
        status = os.fstat(fd)
        return status.st_dev, status.st_ino

    def lock(self, fd: int) -> bool:
        """Whether the exclusive lock was free; it then belongs to the descriptor until it is unlocked or closed."""
        return lock_descriptor(fd, blocking=False)

    def unlock(self, fd: int) -> None:
        unlock_descriptor(fd)

    def is_locked(self, fd: int) -> bool:
        """Whether another descriptor holds the exclusive lock. It asks with a shared lock, held for an instant."""
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        fcntl.flock(fd, fcntl.LOCK_UN)
        return False


_default: FileSystem = LocalFileSystem()


def default_file_system() -> FileSystem:
    """What a store stands on that is given no file system: the real one, as long as nobody has put another there."""
    return _default


def set_default_file_system(fs: FileSystem) -> FileSystem:
    """Put ``fs`` under every store that this process opens from now on; returns what was there.

    For :mod:`trax.testing` alone, which runs a job as it is, in a process of its own, on a file system that crashes.
    """
    global _default
    before, _default = _default, fs
    return before


def write_all(fs: FileSystem, fd: int, data: bytes | memoryview, offset: int) -> int:
    """Write all of ``data``, however often the system takes only a part of it; returns the offset behind it."""
    written = fs.pwrite(fd, data, offset)
    if written < len(data):
        view = memoryview(data)
        while written < len(data):
            step = fs.pwrite(fd, view[written:], offset + written)
            if step == 0:  # POSIX lets a write of bytes return 0; going on would never end
                raise OSError(errno.EIO, "the system accepted no bytes")
            written += step
    return offset + written


def write_file(fs: FileSystem, path: str, data: bytes, mode: int | None = None) -> int:
    """A new file in place of any other of that name; its contents are on stable storage when this returns.

    Returns its descriptor. Its name is durable when the directory is synced. If this fails, there is no such file.
    """
    with suppress(FileNotFoundError):
        fs.unlink(path)  # left by a call that failed
    fd = fs.create(path, mode)
    try:
        write_all(fs, fd, data, 0)
        fs.fsync(fd)  # makes durable: the file's contents, before any name that matters leads to it
    except BaseException:
        fs.close(fd)
        with suppress(OSError):  # a file of that name gives way to the next attempt
            fs.unlink(path)
        raise
    return fd


def make_directory(fs: FileSystem, path: str, mode: int | None = None) -> None:
    """Create a directory if there is none; its name is on stable storage when this returns."""
    made = True
    try:
        fs.mkdir(path, mode)
    except FileExistsError:
        made = False
    try:
        # Makes durable: the directory's name, or a power loss takes all that is in it. Synced even if it existed: a
        # crash may have come between another attempt's mkdir and its fsync.
        fs.fsync_directory(os.path.dirname(path))
    except OSError:
        if made:  # or the next attempt would find the name, and its fsync succeed without it
            with suppress(OSError):
                fs.rmdir(path)
        raise


def make_missing_directories(fs: FileSystem, path: str, mode: int | None = None) -> None:
    """Create a directory and those above it, where there are none; their names are on stable storage afterwards."""
    missing: list[str] = []
    while fs.kind(path) == "absent":
        missing.append(path)
        path = os.path.dirname(path)
    with suppress(PermissionError):  # of a directory that is not ours to read, and so not ours to have written to
        # Makes durable: the name of the last one that exists. An attempt that was killed may just have made it.
        fs.fsync_directory(os.path.dirname(path))
    for path in reversed(missing):
        make_directory(fs, path, mode)
