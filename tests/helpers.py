"""What many tests end with."""

from __future__ import annotations

import os
from typing import Any

import trax


def reopen_and_check(path: str | os.PathLike[str], **options: Any) -> trax.Trax:
    """The store, opened again, after every byte of it was read and found right."""
    store = trax.Trax(path, **options)
    found = store.verify()
    assert found.problems == [], found.problems
    return store


def kill(store: trax.Trax) -> None:
    """Leave the store as SIGKILL would, without the death: nothing is flushed, synced or marked."""
    assert store._writer is not None
    store._finalizer.detach()
    store._closed = trax.errors.ClosedError("killed")
    writer, closed = store._writer, store._closed

    def die() -> None:
        writer.committer.finish(closed)
        writer.storage.abandon()

    writer.committer.quietly(die)  # the thread that syncs now and then dies too
