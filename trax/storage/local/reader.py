"""A store that is read beside its writer: no lock, no repair, no change."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping

from trax.codecs.base import CODECS
from trax.errors import CodecError
from trax.storage.base import SnapshotInfo, Stored
from trax.storage.local.commit_point import load_snapshot
from trax.storage.local.compaction import Floors
from trax.storage.local.creation import survey
from trax.storage.local.fs import FileSystem, default_file_system
from trax.storage.local.layout import Layout
from trax.storage.local.refusal import asking
from trax.storage.local.snapshot import Snapshot
from trax.storage.local.view import LocalView, load_kept, of_latest, snapshot_for, snapshot_infos


class LocalReader:
    """A store that is read beside its writer: no lock, no repair, no change. Every view is of the newest state."""

    def __init__(self, path: str | os.PathLike[str], *, codec: str | None = None, fs: FileSystem | None = None) -> None:
        self._fs = fs or default_file_system()
        self._layout = Layout(path)
        with asking("look at", self._layout.path):
            survey(self._fs, self._layout, create=False)
        self.codec = self._load().codec
        check_codec(codec, self.codec, self._layout.path)

    @property
    def names(self) -> Mapping[str, Stored]:
        return self._load().names

    def view(self, names: Collection[str] = (), at: int | None = None) -> LocalView:
        def make(snapshot: Snapshot, end: int) -> LocalView:
            values = snapshot_for(self._fs, self._layout, snapshot, at)
            return LocalView(self._fs, self._layout, snapshot, values, names, None)

        return of_latest(lambda: (self._load(), 0), make)

    def lowest_cut(self, name: str) -> int:
        def lowest(snapshot: Snapshot, _: int) -> int:
            kept = (load_kept(self._fs, self._layout, snapshot.store_id, one).names for one in snapshot.kept)
            return Floors(snapshot.names, kept)[name]

        return of_latest(lambda: (self._load(), 0), lowest)

    def snapshots(self) -> list[SnapshotInfo]:
        return of_latest(lambda: (self._load(), 0), lambda now, _: snapshot_infos(self._fs, self._layout, now))

    def stats(self) -> dict[str, object]:
        with self.view() as view:
            active = view.segments[-1]
            return figures(self._layout, self._load(), self._fs.size(active.fd))

    def _load(self) -> Snapshot:
        with asking("read", self._layout.snapshot):
            return load_snapshot(self._fs, self._layout.snapshot)


def figures(layout: Layout, snapshot: Snapshot, active_bytes: int) -> dict[str, object]:
    sealed = [one.sealed.offset for one in snapshot.segments if one.sealed is not None]
    return {
        "path": layout.path,
        "store_id": snapshot.store_id.hex(),
        "codec": snapshot.codec,
        "keep": snapshot.keep,
        "generation": snapshot.generation,
        "epoch": snapshot.epoch,
        "checkpoint_sequence": snapshot.sequence,
        "segments": len(snapshot.segments),
        "log_bytes": sum(sealed) + active_bytes,
        "blobs": len(snapshot.blob_files),
        "blob_bytes": sum(reference.nbytes for reference in snapshot.blob_files),
        "kept_snapshots": len(snapshot.kept),
    }


def check_codec(asked: str | None, stored: str, path: str) -> None:
    """CodecError when the store's codec is another than the one asked for, or must be asked for by name."""
    if stored not in CODECS:
        text = (
            f"{path} has the codec {stored!r}, and this trax knows {', '.join(map(repr, CODECS))}. Install a newer one."
        )
        raise CodecError(text, path=path, reason="unknown codec")
    if asked is not None and asked != stored:
        text = (
            f"{path} was created with codec={stored!r}, and {asked!r} was asked for. Leave codec out, or name its own."
        )
        raise CodecError(text, path=path, reason="another codec")
    if stored == "pickle" and asked is None:
        text = (
            f"{path} holds pickles, and unpickling runs whatever code its files contain. If you trust everyone who "
            f"could write to it, open it with codec='pickle'."
        )
        raise CodecError(text, path=path, reason="pickle must be asked for")
