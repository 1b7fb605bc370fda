"""A store that belongs to a layer.

A layer is a module on top of :class:`trax.Trax` and calls what anybody can call, with names of its own
(:class:`trax.names.LayerName`), so that it can live beside the names of a program. What only a layer's own store can do
stands here: begin in a directory that still holds the files of an earlier library.
"""

from __future__ import annotations

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
