"""One writer at a time.

A real lock of the operating system on the file ``lock``, which ends with the process and is never stolen. Where the
file system has none, a file ``owner`` takes its place: it stays behind when its process dies, so it may be taken over
only from an owner that is provably gone. What both can't exclude, the store's epoch does: a writer that was replaced
finds out before it acknowledges anything.
"""

from __future__ import annotations

import errno
import os
import warnings
from contextlib import suppress
from typing import NamedTuple, Protocol

from trax.errors import LockWarning, StoreLockedError, TraxError
from trax.storage.local.fs import FileSystem, write_all, write_file
from trax.storage.local.owner import Owner, decode_owner, describe, encode_owner, is_gone, this_process
from trax.storage.local.refusal import asking

_NO_LOCKS = (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK)
_NO_LINKS = (errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP, errno.EMLINK)
_OWNER_BYTES = 4096


class Lockable(Protocol):
    """What has one writer at a time: its path, and those of the two files that say who that is."""

    @property
    def path(self) -> str: ...
    @property
    def lock(self) -> str: ...
    @property
    def owner(self) -> str: ...


class Words(NamedTuple):
    """How messages speak of what is locked."""

    what: str = "the store"
    to_read: str = "open it with mode='r'"
    to_free: str = "'trax unlock' frees the store"


_OF_A_STORE = Words()


class WriterLock:
    """Held from construction to ``release``; StoreLockedError says who holds it."""

    _fd: int | None = None
    real = True

    def __init__(self, fs: FileSystem, layout: Lockable, words: Words = _OF_A_STORE) -> None:
        self._fs, self._layout, self._words = fs, layout, words
        self._owner = this_process()
        with asking("lock", layout.lock):
            self._take()

    def release(self) -> None:
        """Let the next writer in."""
        with asking("unlock", self._layout.lock):
            if self._fd is not None:
                try:
                    self._fs.unlock(self._fd)  # closing alone would leave it to a child that has the descriptor, too
                finally:
                    self._fs.close(self._fd)
                    self._fd = None
            elif not self.real and read_owner_file(self._fs, self._layout) == self._owner:
                self._fs.unlink(self._layout.owner)  # unless another has taken over meanwhile: then it is its file
        self.real = True

    def __del__(self) -> None:
        # An interrupt may take the lock out of every hand between its taking and the first ``try`` that knows of it. A
        # descriptor is closed then; an owner file would keep this process out of its own store until it ends.
        if self._fd is None and not self.real and self._owner["pid"] == os.getpid():
            with suppress(TraxError):
                self.release()

    def abandon(self) -> None:
        """In a forked child: drop the descriptor. Unlocking it would unlock the parent, whose lock it is."""
        if self._fd is not None:
            self._fs.close(self._fd)
        self._fd, self.real = None, True

    def _take(self) -> None:
        while True:
            fd = _open_or_create(self._fs, self._layout.lock)
            try:
                held = self._fs.lock(fd)
                if held and self._fs.identity_of(fd) != self._fs.identity(self._layout.lock):
                    raise FileNotFoundError(errno.ENOENT, "the lock file was replaced while it was being locked")
                if held:
                    self._fs.truncate(fd, 0)
                    write_all(self._fs, fd, encode_owner(self._owner), 0)
                    self._fd = fd
                    return
                owner = decode_owner(self._fs.pread(fd, _OWNER_BYTES, 0))
            except FileNotFoundError:
                continue
            except OSError as error:
                if error.errno not in _NO_LOCKS:
                    raise
                self._take_owner_file()
                return
            finally:
                if self._fd is None:
                    self._fs.close(fd)
            raise self._locked(owner, "The lock ends with that process.")

    def _take_owner_file(self) -> None:
        text = (
            f"the file system of {self._layout.path} has no locks: the file {os.path.basename(self._layout.owner)!r} "
            f"keeps other writers out instead. It stays behind when its process is killed; {self._words.to_free}."
        )
        warnings.warn(LockWarning(text), stacklevel=2)
        self.real = False
        try:
            try:
                self._create_owner_file()
            except FileExistsError:
                self._take_over()
        except BaseException:
            with suppress(OSError):
                self.release()
            raise

    def _create_owner_file(self) -> None:
        """FileExistsError if there is one, of somebody else."""
        # Under another name first: nothing that comes in between, no crash and no lost answer of a server, may leave a
        # file that does not say whose it is, for nobody could tell that its owner is gone.
        written = f"{self._layout.owner}.{int(self._owner['handle'], 16)}"
        try:
            # Makes durable too: who the owner is, for whoever finds the file after a power loss.
            self._fs.close(write_file(self._fs, written, encode_owner(self._owner)))
            self._fs.link(written, self._layout.owner)
        except FileExistsError:
            if read_owner_file(self._fs, self._layout) != self._owner:  # a server may say it of what it has just done
                raise
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            self._create_owner_file_at_once()
        finally:
            with suppress(OSError):
                self._fs.unlink(written)

    def _create_owner_file_at_once(self) -> None:
        """Where a file has one name only."""
        fd = self._fs.create(self._layout.owner)
        try:
            write_all(self._fs, fd, encode_owner(self._owner), 0)
            self._fs.fsync(fd)  # makes durable: who the owner is
        except BaseException:
            with suppress(OSError):
                self._fs.unlink(self._layout.owner)  # it may say of nobody that he is the owner
            raise
        finally:
            self._fs.close(fd)

    def _take_over(self) -> None:
        found = read_owner_file(self._fs, self._layout)
        hint = f"If you know that it has ended, {self._words.to_free}."
        if not is_gone(found):
            raise self._locked(found, hint)
        aside = f"{self._layout.owner}.{os.getpid()}"
        self._fs.rename(self._layout.owner, aside)
        moved = read_owner(self._fs, aside)
        self._fs.unlink(aside)
        try:
            # Another process may have judged the same file and been faster: then it was its file that we moved. It
            # finds that out by the epoch; we do not go on either.
            if moved != found:
                raise self._locked(moved, "Both tried to take over from a writer that is gone: try again.")
            self._create_owner_file()
        except FileExistsError:
            raise self._locked(read_owner_file(self._fs, self._layout), hint) from None

    def _locked(self, owner: Owner, hint: str) -> StoreLockedError:
        what, to_read, _ = self._words
        text = f"{what} {self._layout.path} is in use by {describe(owner)}. {hint} To read it meanwhile, {to_read}."
        return StoreLockedError(text, path=self._layout.path, reason="locked", owner=owner)


def read_owner_file(fs: FileSystem, layout: Lockable) -> Owner:
    """Who the owner file names; empty when there is none."""
    return read_owner(fs, layout.owner)


def read_lock_file(fs: FileSystem, layout: Lockable) -> Owner:
    """Who took the lock last; whether it still holds it, only trying to take it tells."""
    return read_owner(fs, layout.lock)


def read_owner(fs: FileSystem, path: str) -> Owner:
    try:
        fd = fs.open(path)
    except FileNotFoundError:
        return {}
    try:
        return decode_owner(fs.pread(fd, _OWNER_BYTES, 0))
    finally:
        fs.close(fd)


def _open_or_create(fs: FileSystem, path: str) -> int:
    while True:
        try:
            return fs.open(path, write=True)
        except FileNotFoundError:
            with suppress(FileExistsError):
                return fs.create(path)
