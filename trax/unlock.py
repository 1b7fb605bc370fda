"""Freeing a store whose owner file was left behind, where the file system has no locks."""

from __future__ import annotations

import os

from trax.errors import StorageError
from trax.inspection import find_writer
from trax.storage.local.creation import survey
from trax.storage.local.fs import FileSystem
from trax.storage.local.layout import Layout
from trax.storage.local.lock import read_owner
from trax.storage.local.owner import describe, is_gone, is_running
from trax.storage.local.refusal import asking


class OwnerFile:
    """The owner file of a store. ``description`` says whose it is; a lock of the operating system has none."""

    def __init__(self, fs: FileSystem, layout: Layout) -> None:
        survey(fs, layout, create=False)
        self._fs, self._layout = fs, layout
        self.store = layout.path
        writer = find_writer(fs, layout)
        self._owner = writer.owner
        self.may_be_removed = writer.guard == "owner file" and not is_running(writer.owner)
        self.description = self._describe_file() if writer.guard == "owner file" else self._describe_lock(writer.held)

    def remove(self) -> None:
        """Remove it, if it is still the one that was described; durable when this returns."""
        aside = f"{self._layout.owner}.{os.getpid()}"
        with asking("unlock", self.store):
            self._fs.rename(self._layout.owner, aside)
            if read_owner(self._fs, aside) != self._owner:
                self._put_back(aside)
            self._fs.unlink(aside)
            self._fs.fsync_directory(self.store)  # makes durable: that it is gone; after a power loss it would be back

    def _put_back(self, aside: str) -> None:
        """A writer was faster: it has taken the store over, and its owner file is what we moved."""
        try:
            self._fs.link(aside, self._layout.owner)
        except FileExistsError:
            pass  # and yet another one: the first will find out by the store's epoch
        self._fs.unlink(aside)
        text = f"another writer has taken over {self.store} meanwhile: nothing was unlocked."
        raise StorageError(text, path=self._layout.owner, reason="taken over")

    def _describe_file(self) -> str:
        who = describe(self._owner)
        file = f"{self._layout.owner} names {who}"
        if is_running(self._owner):
            return f"{file}, which is running. End it first; nothing was unlocked."
        if is_gone(self._owner):
            return f"{file}, which has ended: the next writer takes the store over without being asked."
        return (
            f"{file}. Whether that process has ended can't be told from here: make sure that it has. Two writers at a "
            f"time can lose what one of them has logged."
        )

    def _describe_lock(self, held: bool | None) -> str:
        start = f"{self.store} is guarded by a lock of the operating system, which ends with its process:"
        if held is False:
            return f"{start} nobody holds it, and there is nothing to unlock."
        who = describe(self._owner)
        if held is None:
            return f"{start} there is nothing to unlock. Whether {who} still holds it can't be told."
        return f"{start} there is nothing to unlock. It is held by {who}."
