"""The only caller of the operating system's file functions.

Everything that a crash, a full disk or a bad sector can do to a store happens behind the methods of
:class:`FileSystem`; tests put another one in its place. Offsets and lengths are bytes, paths are ``str``. Every method
raises the plain ``OSError`` of the operating system: what it means is decided by the callers.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import stat
import sys
from typing import Protocol

from filelock import lock_descriptor, unlock_descriptor

if sys.platform == "win32":  # pragma: no cover
    raise ImportError("trax has not been tested on Windows; use it under WSL, on Linux or on macOS")


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


class LocalFileSystem:
    """The real one."""

    def open(self, path: str, *, write: bool = False) -> int:
        """A descriptor of an existing file; it is not inherited by programs that are started.

        A pipe, a device or a directory in its place is an error, and no reason to wait.
        """
        flags = os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        fd = os.open(path, flags | (os.O_RDWR if write else os.O_RDONLY))
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            raise OSError(errno.EINVAL, "it is not a regular file")
        return fd

    def create(self, path: str, mode: int | None = None) -> int:
        """A descriptor of a new file; one that exists is an error. ``mode`` overrides the umask."""
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
        if mode is not None:
            try:
                os.fchmod(fd, mode)
            except BaseException:
                os.close(fd)
                raise
        return fd

    def close(self, fd: int) -> None:
        os.close(fd)

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
        os.unlink(path)

    def mkdir(self, path: str, mode: int | None = None) -> None:
        """Make a directory. ``mode`` overrides the umask."""
        os.mkdir(path)
        if mode is not None:
            os.chmod(path, mode)

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
