"""File systems to crash: each in a file on a loop device, which lies on another file system that can be crashed too.

Two ways to crash. *Shut down*: the file system is told to stop at once, as it does when it finds itself damaged; what
it has not written stays unwritten. *Disk lost*: the file system beneath is, so that the loop device fails, and what it
was not told to flush is gone, as from a disk that loses power with its write cache.

The mounts are made in a mount namespace of their own, and a loop device ends with its mount: when the last process of
the namespace ends, however it does, the kernel takes all of it away. Run this only in such a namespace.
"""

from __future__ import annotations

import errno
import fcntl
import os
import random
import struct
import subprocess
import time
from collections.abc import Iterable
from pathlib import Path

_MEGABYTE = 1 << 20
SIZES = {"ext4": 48 * _MEGABYTE, "xfs": 300 * _MEGABYTE, "btrfs": 128 * _MEGABYTE}
"""Bytes. XFS and btrfs take no smaller ones."""
_ROOM_BENEATH = 100 * _MEGABYTE
_MKFS = {
    "ext4": ("mkfs.ext4", "-q", "-F"),
    "xfs": ("mkfs.xfs", "-q", "-f"),
    "btrfs": ("mkfs.btrfs", "-q", "-f"),
}
_SHUTDOWN = 2 << 30 | struct.calcsize("I") << 16 | ord("X") << 8 | 125  # _IOR('X', 125, __u32)
_FLUSH_JOURNAL, _FLUSH_NOTHING = 1, 2
_UNMOUNT_S = 20.0


class NotHereError(Exception):
    """This machine can't do it; the message says what is missing."""


class Disk:
    """A file system of a kind, mounted at ``path``, and what lies beneath it."""

    def __init__(self, directory: Path, kind: str) -> None:
        self.kind = kind
        self.path = directory / "mounted"
        self._image_beneath = directory / "beneath.image"
        self._beneath = directory / "beneath"
        self._image = self._beneath / "image"
        self.path.mkdir()
        self._beneath.mkdir()
        try:
            _make("ext4", self._image_beneath, SIZES[kind] + _ROOM_BENEATH)
            _mount(self._image_beneath, self._beneath)
            _make(kind, self._image, SIZES[kind])
            _mount(self._image, self.path)
        except (OSError, subprocess.CalledProcessError) as error:
            reason = f"{error} {getattr(error, 'stderr', '')}".strip().replace("\n", " ")
            raise NotHereError(f"{kind} can't be made and mounted here: {reason}") from error

    def write_some(self, dice: random.Random) -> None:
        """Let parts of it reach the disk, as the kernel may at any time; a crash then loses what lies around them."""
        _begin_to_write((file for file in self.path.rglob("*") if file.is_file()), dice)
        _begin_to_write([self._image], dice)

    def shut_down(self, dice: random.Random) -> None:
        """Crash the file system. NotHereError if it can't be told to."""
        try:
            _shut_down(self.path, dice.choice([_FLUSH_JOURNAL, _FLUSH_NOTHING]))
        except OSError as error:
            if error.errno not in (errno.ENOTTY, errno.EOPNOTSUPP):
                raise
            raise NotHereError(f"{self.kind} of this kernel can't be shut down: {error}") from error

    def lose(self, _dice: random.Random) -> None:
        """Crash the disk beneath it."""
        _shut_down(self._beneath, _FLUSH_NOTHING)

    def mount_again(self) -> None:
        """After a crash; nobody may have anything open there. The file systems recover."""
        _unmount(self.path)
        _unmount(self._beneath)
        _mount(self._image_beneath, self._beneath)
        _mount(self._image, self.path)

    def fill(self, free_bytes: int) -> None:
        """Leave little room."""
        with open(self.path / "filling", "wb") as file:
            nbytes = 0
            for step in (16 * _MEGABYTE, _MEGABYTE, 1 << 14):
                while _has_room(file.fileno(), nbytes, step):
                    nbytes += step
            file.truncate(max(nbytes - free_bytes, 0))
            os.fsync(file.fileno())

    def empty(self) -> None:
        """Make room again."""
        (self.path / "filling").unlink()
        _run("sync", "--file-system", str(self.path))


def _has_room(fd: int, offset: int, nbytes: int) -> bool:
    try:
        os.posix_fallocate(fd, offset, nbytes)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        return False
    return True


def _begin_to_write(files: Iterable[Path], dice: random.Random) -> None:
    for file in files:
        if dice.random() < 0.5:
            continue
        try:
            with open(file, "rb") as opened:
                size = 1 + os.fstat(opened.fileno()).st_size
                offset = dice.randrange(size)
                os.posix_fadvise(opened.fileno(), offset, dice.randrange(size), os.POSIX_FADV_DONTNEED)
        except FileNotFoundError:  # the store is in use
            pass


def _shut_down(path: Path, flags: int) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        fcntl.ioctl(fd, _SHUTDOWN, struct.pack("I", flags))
    finally:
        os.close(fd)


def _make(kind: str, image: Path, nbytes: int) -> None:
    with open(image, "xb") as file:
        file.truncate(nbytes)
    _run(*_MKFS[kind], str(image))


def _mount(image: Path, path: Path) -> None:
    _run("mount", "-o", "loop", str(image), str(path))


def _unmount(path: Path) -> None:
    """The kernel may hold on to it for a moment after the last user has ended."""
    deadline = time.monotonic() + _UNMOUNT_S
    while True:
        try:
            return _run("umount", str(path))
        except subprocess.CalledProcessError as error:
            if "busy" not in error.stderr or time.monotonic() > deadline:
                raise
            time.sleep(0.01)


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise subprocess.CalledProcessError(done.returncode, command, done.stdout, done.stderr)
