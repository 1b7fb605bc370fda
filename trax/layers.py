"""A store that belongs to a layer.

A layer is a module on top of :class:`trax.Trax` and calls what anybody can call, with names of its own
(:class:`trax.names.LayerName`), so that it can live beside the names of a program. What only a layer's own store can do
stands here: begin in a directory that still holds the files of an earlier library, and make a record in two parts, of
which the program gives one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trax.codecs import get_codec
from trax.codecs.base import Codec
from trax.store import Trax


class LayerStore(Trax):
    """A store of a layer. ``_beside`` matches the files that a new one may be made among."""

    @property
    def codec(self) -> Codec:
        """What turns the values of this store into bytes, and back."""
        return get_codec(self._storage.codec)

    def check_open(self, *, writable: bool = False) -> None:
        """The error that any other call would raise on a handle that is closed, or, if asked for, read-only."""
        if writable:
            self._for_writing()
        self._check_open()

    def encode(self, entry: Any, name: str) -> bytes:
        """One entry, as :meth:`log_encoded` takes it."""
        return self._codec.encode(entry, name)

    def encode_record(self, mapping: Mapping[str, Any] | None, entries: dict[str, Any]) -> tuple[dict[str, bytes], int]:
        """What ``log()`` would make of its arguments, as a dict of the caller's own, and the bytes of the entries."""
        self._for_writing()
        return self._encoder.record(mapping, entries)

    def log_encoded(self, record: Mapping[str, bytes], nbytes: int) -> int:
        """Log a record of checked names and encoded entries, which have so many bytes; as ``log()``."""
        self._encoder.check_bytes("record", nbytes)
        return self._for_writing().committer.log(record, nbytes)
