"""What a handle needs for writing; apart from the handle, so that a dropped handle can still be closed."""

from __future__ import annotations

import warnings

from trax.commit import Committer, SyncPolicy
from trax.errors import ClosedError, HandleError
from trax.publish import Publisher
from trax.storage.local.directory import LocalStorage


class Writer:
    """What a handle needs for writing; apart from the handle, so that a dropped handle can still be closed."""

    def __init__(self, storage: LocalStorage, sync: SyncPolicy, sync_interval_s: float, buffer_bytes: int) -> None:
        self.storage = storage
        self.committer = Committer(storage, sync=sync, sync_interval_s=sync_interval_s, buffer_bytes=buffer_bytes)
        self.publisher = Publisher(storage, self.committer)

    def close(self, error: HandleError) -> None:
        """Let go of the store; every later call gets ``error``. After an interrupt this can be repeated."""
        self.publisher.close()
        self.committer.close(error, self.storage.close)

    def abandon(self, error: HandleError) -> None:
        """In a forked child: what the caller may be in the middle of ends with ``error``."""
        self.committer.abandon(error)
        self.publisher.abandon()
        self.storage.abandon()


def close_dropped(writer: Writer, path: str) -> None:
    """Close what a handle that was dropped has left open, and say so."""
    text = f"the handle of {path} was dropped without close(); what it had logged has been synced, and it is closed now"
    warnings.warn(ResourceWarning(text), stacklevel=2)
    writer.close(ClosedError(text, path=path, reason="dropped"))
