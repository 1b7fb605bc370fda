"""The snapshot as a file: read, replaced, and asked whether it is still ours.

``replace`` is the only way in which a store changes from one state to the next. Until its rename nothing has happened;
from the rename on nobody can know whether it will be found after a power loss, until the directory is synced.
"""

from __future__ import annotations

from contextlib import suppress

from trax.errors import FencedError, FinishedError, MissingFileError
from trax.storage.local.fs import FileSystem, write_file
from trax.storage.local.layout import Layout
from trax.storage.local.refusal import asking
from trax.storage.local.snapshot import Snapshot, decode_snapshot, encode_snapshot


class CommitPoint:
    """The current snapshot of a store that is held for writing."""

    def __init__(self, fs: FileSystem, layout: Layout, snapshot: Snapshot, *, identity_is_proof: bool) -> None:
        self._fs, self._layout = fs, layout
        self._identity_is_proof = identity_is_proof
        self._fd: int | None = None
        self._identity: tuple[int, int] | None = None
        self.snapshot = snapshot
        self.unsettled = False
        """Whether a rename was begun and its caller has not yet taken over the state that it brought."""
        with asking("look at", layout.snapshot):
            self.mode = fs.mode(layout.snapshot) if fs.kind(layout.snapshot) == "file" else None

    def replace(self, snapshot: Snapshot) -> None:
        """Make ``snapshot`` the state of the store.

        StorageError: nothing happened. FinishedError: it may have happened, and only opening the store again tells.
        """
        fd, identity = self._write_new(snapshot)
        spare: int | None = fd
        self.unsettled = True
        try:
            self._fs.rename(self._layout.snapshot_new, self._layout.snapshot)
            spare, self._fd, self._identity = self._fd, fd, identity
            self.snapshot = snapshot
            # Makes durable: that the name "snapshot" leads to the new file. Until then a power loss brings the old
            # one back, so nothing that the old one names may be removed and nothing acknowledged.
            self._fs.fsync_directory(self._layout.path)
            self.check_owner()
        except OSError as error:  # an interrupt goes on as it is; check_settled() says the rest
            raise self._finished(str(error)) from error
        finally:
            if spare is not None:
                self._fs.close(spare)

    def check_settled(self) -> None:
        """FinishedError when a replacement was begun and nobody knows how it ended."""
        if self.unsettled:
            raise self._finished("it was interrupted")

    def _finished(self, reason: str) -> FinishedError:
        text = (
            f"replacing {self._layout.snapshot} was begun and did not end: {reason}. Whether the new state will be "
            f"found is unknown, so this handle does nothing more. Open the store again: it holds either state whole."
        )
        return FinishedError(text, path=self._layout.snapshot, reason=reason)

    def is_ours(self) -> bool:
        """Whether no other writer has published since we did."""
        with asking("look at", self._layout.snapshot):
            return self._is_ours()

    def check_owner(self) -> None:
        """FencedError when another writer has published since we did."""
        if not self.is_ours():
            text = (
                f"another writer has taken over {self._layout.path}. What this handle has not acknowledged may not be "
                f"in the store; open it again to go on."
            )
            raise FencedError(text, path=self._layout.path, reason="another writer's epoch")

    def close(self) -> None:
        if self._fd is not None:
            self._fs.close(self._fd)
            self._fd = None

    def _is_ours(self) -> bool:
        assert self._fd is not None, "a writer publishes its epoch before anything else"
        try:
            if self._identity_is_proof:
                # An inode that is held open can't be given to another file.
                return self._fs.identity(self._layout.snapshot) == self._identity
            return load_snapshot(self._fs, self._layout.snapshot).epoch == self.snapshot.epoch
        except FileNotFoundError:
            return False

    def _write_new(self, snapshot: Snapshot) -> tuple[int, tuple[int, int]]:
        """The descriptor of the new file, and which file it is."""
        path = self._layout.snapshot_new
        with asking("write", path):
            fd = write_file(self._fs, path, encode_snapshot(snapshot), self.mode)
            try:
                if self._fd is not None:
                    self.check_owner()
                if self.mode is None:
                    self.mode = self._fs.mode(path)
                return fd, self._fs.identity_of(fd)
            except BaseException:
                self._fs.close(fd)
                with suppress(OSError):  # a file of that name is overwritten by the next attempt
                    self._fs.unlink(path)
                raise


def load_snapshot(fs: FileSystem, path: str) -> Snapshot:
    """Read and verify a snapshot; FileNotFoundError when there is none."""
    fd = fs.open(path)
    try:
        with asking("read", path):
            return decode_snapshot(fs.pread(fd, fs.size(fd), 0), path)
    finally:
        fs.close(fd)


def missing_file(path: str) -> MissingFileError:
    text = (
        f"{path} is gone, and the store needs it. Nothing was changed. Restore the store from a copy, or see what "
        f"'trax repair' can save."
    )
    return MissingFileError(text, path=path, reason="a file is missing")
