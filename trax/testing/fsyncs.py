"""A file system whose fsyncs fail as those of real systems do: once, and what was to be synced is gone for good.

After "fsyncgate" (PostgreSQL, 2018) and Rebello et al., "Can Applications Recover from fsync Failures?" (ATC 2020). The
error is reported to whoever asks first. The pages are marked clean, so every later fsync succeeds without them. What a
program then reads differs from system to system:

``"kept"``      what it has written, though the disk doesn't have it (ext4, XFS)
``"zeros"``     what was on the disk before; where there was nothing, zeros: the file keeps its new length
``"reverted"``  what was on the disk before: contents, length, and for a directory its names (Btrfs)
"""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Collection
from typing import Literal, get_args

from trax.storage.local.fs import LocalFileSystem
from trax.testing.disks import lost_by_a_failed_fsync
from trax.testing.faults import Fault
from trax.testing.recording import Image, Operation, RecordingFileSystem

Manner = Literal["kept", "zeros", "reverted"]
MANNERS: tuple[Manner, ...] = get_args(Manner)


class ForgetfulFileSystem(RecordingFileSystem):
    """Records, and fails with ``fault`` at those fsyncs whose numbers, counted from 0, are in ``failing``.

    What is recorded says what is lost: :func:`trax.testing.disks.crash_images` gives the disks of a later power loss.
    What can be read below ``root`` is what the operating system would show.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        failing: Collection[int],
        fault: Fault,
        manner: Manner,
        dice: random.Random,
    ) -> None:
        super().__init__(root)
        self.count = 0
        self.failed: list[str] = []
        self._failing, self._fault, self._manner, self._dice = failing, fault, manner, dice

    def fail_next(self, after: int = 0) -> None:
        """The next fsync fails, or one that comes so many later."""
        self._failing = (self.count + after,)

    def heal(self) -> None:
        """From now on nothing fails."""
        self._failing = ()

    def fsync(self, fd: int) -> None:
        with self._guard:
            if fd in self._open and self._is_due():
                self._lose_content(fd)
            super().fsync(fd)

    def fdatasync(self, fd: int) -> None:
        with self._guard:
            if self._is_due():
                self._lose_content(fd)
            super().fdatasync(fd)

    def fsync_directory(self, path: str) -> None:
        with self._guard:
            if self._is_due():
                self._lose_names(self._relative(path))
            super().fsync_directory(path)

    def _is_due(self) -> bool:
        number = self.count
        self.count += 1
        return number in self._failing

    def _lose_content(self, fd: int) -> None:
        lost, _ = lost_by_a_failed_fsync(self.start, self.operations, self._dice, self._open[fd], "")
        if self._manner == "zeros":
            nbytes = LocalFileSystem.size(self, fd)
            lost = Operation("lost", file=lost.file, data=lost.data[:nbytes].ljust(nbytes, b"\0"))
        if self._manner != "kept":
            names = [path for path, number in self._names.items() if number == self._open[fd]]
            # By its name, if it still has one: the descriptor may be for reading only.
            with open(os.path.join(self.root, names[0]) if names else os.dup(fd), "r+b") as file:
                file.truncate(0)
                file.write(lost.data)
        self._fail(lost)

    def _lose_names(self, directory: str) -> None:
        if directory.split(os.sep)[0] == os.pardir:  # what lies above the root counts as synced
            self.failed.append(directory)
            raise self._fault()
        lost, disk = lost_by_a_failed_fsync(self.start, self.operations, self._dice, -1, directory)
        if self._manner == "reverted":
            self._revert_names(directory, disk)
        self._fail(lost)

    def _revert_names(self, directory: str, disk: Image) -> None:
        """Make the names in a directory those that the disk has. A file keeps what was written to it since."""
        content = {self._names[path]: self._read(path) for path in self._names if os.path.dirname(path) == directory}
        for path in [path for path in self._names if os.path.dirname(path) == directory]:
            if self._names[path] != disk.names.get(path):
                os.unlink(os.path.join(self.root, path))
                del self._names[path]
        for path, file in disk.names.items():
            if os.path.dirname(path) == directory and path not in self._names:
                with open(os.path.join(self.root, path), "wb") as handle:
                    handle.write(content.get(file, disk.contents[file]))
                self._names[path] = file
        for entry in os.scandir(os.path.join(self.root, directory)):
            path = self._relative(entry.path)
            if entry.is_dir() and path not in disk.directories:
                shutil.rmtree(entry.path)
                self._names = {name: file for name, file in self._names.items() if not name.startswith(f"{path}/")}

    def _read(self, path: str) -> bytes:
        with open(os.path.join(self.root, path), "rb") as handle:
            return handle.read()

    def _fail(self, lost: Operation) -> None:
        self._record(lost)
        self.failed.append(f"{lost.path or lost.file}")
        raise self._fault()
