"""Where the files of a store lie, and which names in its directory are ours. Files are named by numbers only."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable

# Just as a number is written: two names never mean the same file.
_SEGMENT = re.compile(r"log\.(\d{8}|[1-9]\d{8,18})", re.ASCII)
_SNAPSHOT_NEW = re.compile(r"snapshot\.new\.[0-9a-f]{8}")
_NUMBER = re.compile(r"(\d{8}|[1-9]\d{8,18})", re.ASCII)

MAX_NUMBER = 10**19 - 1
"""The highest number of a segment, a blob, or a generation. There is room for the next one in 64 bits."""


class Layout:
    """The paths of one store; ``path`` is absolute, so that a later chdir changes nothing."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.path.abspath(os.fspath(path))
        self.lock = os.path.join(self.path, "lock")
        self.owner = os.path.join(self.path, "owner")
        self.snapshot = os.path.join(self.path, "snapshot")
        # Of this writer alone: where locks lie, another may be writing its next snapshot at the same time.
        self.snapshot_new = os.path.join(self.path, f"snapshot.new.{os.urandom(4).hex()}")
        self.blobs = os.path.join(self.path, "blobs")
        self.kept = os.path.join(self.path, "kept")
        self.removed = os.path.join(self.path, "removed")
        self.fixed = (self.lock, self.owner, self.snapshot, self.blobs, self.kept, self.removed)

    @property
    def parent(self) -> str:
        return os.path.dirname(self.path)

    def segment(self, number: int) -> str:
        return os.path.join(self.path, f"log.{number:08}")

    def blob(self, number: int) -> str:
        return os.path.join(self.blobs, f"{number:08}")

    def kept_snapshot(self, generation: int) -> str:
        return os.path.join(self.kept, f"{generation:08}")

    def ours(self, entry: str) -> bool:
        """Whether a store of ours has an entry of that name in its directory."""
        ours = (_SEGMENT, _SNAPSHOT_NEW)
        return entry in map(os.path.basename, self.fixed) or any(pattern.fullmatch(entry) for pattern in ours)

    def unfinished_snapshots(self, entries: Iterable[str]) -> list[str]:
        """The paths of snapshots that were being written and never took the place of the current one."""
        return [os.path.join(self.path, entry) for entry in entries if _SNAPSHOT_NEW.fullmatch(entry)]


def segment_numbers(entries: Iterable[str]) -> set[int]:
    """The numbers of the segments among the names in a store's directory."""
    return {int(match[1]) for match in map(_SEGMENT.fullmatch, entries) if match}


def file_numbers(entries: Iterable[str]) -> set[int]:
    """The numbers that are names in the directories of blobs and of kept snapshots."""
    return {int(match[1]) for match in map(_NUMBER.fullmatch, entries) if match}
