"""Single safeguards that only a case made for them can tell from their absence."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

import trax
from tests.helpers import kill, reopen_and_check
from trax.errors import HandleError
from trax.storage.local import compaction
from trax.storage.local.fs import LocalFileSystem


class OneSyncFails(LocalFileSystem):
    """The ``nth`` fdatasync from now on fails; of which file that was."""

    nth = -1
    failed: str | None = None

    def fdatasync(self, fd: int) -> None:
        self.nth -= 1
        if self.nth == -1:
            status = self.identity_of(fd)
            self.failed = next(str(one) for one in self.root.glob("log.*") if self.identity(str(one)) == status)
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        super().fdatasync(fd)

    def __init__(self, root: Path) -> None:
        self.root = root


def test_a_segment_whose_sync_has_failed_is_never_synced_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second fsync may succeed without the pages that the first one has lost: the handle is finished, or the file."""
    monkeypatch.setattr(compaction, "LARGE_BYTES", 200)
    monkeypatch.setattr(compaction, "MANY_SEGMENTS", 2)
    finished = removed = 0
    while True:
        path = tmp_path / f"s{finished + removed}"
        fs = OneSyncFails(path)
        store = trax.Trax(path, fs=fs, keep=2)
        fs.nth = finished + removed
        error = work(store)
        fs.nth = -1
        if fs.failed is None:
            store.close()
            break
        if os.path.exists(fs.failed):
            assert error is not None, "it was not told"
            with pytest.raises(HandleError):
                store.log(a="behind what may be lost")
            finished += 1
        else:
            removed += 1
        kill(store)
        reopen_and_check(path).close()
    assert finished > 5 and removed > 3, "both kinds of files have come up"


def work(store: trax.Trax) -> Exception | None:
    try:
        store.checkpoint(a=[], b=[])
        for number in range(4):
            store.log(a=number)
            with store.batch() as batch:
                batch.log(a=number)
                batch.checkpoint(b=[number])
                batch.log(a=number)
            store.checkpoint(b=number)
        store.sync()
    except trax.TraxError as error:
        return error
    return None
