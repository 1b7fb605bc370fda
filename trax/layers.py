"""What the layers share: a store whose names may begin with ``trax:``.

A layer is a module on top of :class:`trax.Trax` and calls what anybody can call. Two things only are left to layers:
names that begin with ``trax:``, so that a layer can live beside the names of a program, and a new store in a directory
that still holds the files of an earlier library.
"""

from __future__ import annotations

from trax.codecs import get_codec
from trax.codecs.base import Codec
from trax.names import check_name
from trax.store import Trax


class LayerStore(Trax):
    """A store that takes reserved names too. ``_beside`` matches the files that a new one may be made among."""

    @property
    def codec(self) -> Codec:
        """What turns the values of this store into bytes, and back."""
        return get_codec(self._storage.codec)

    def check_open(self, *, writable: bool = False) -> None:
        """The error that any other call would raise on a handle that is closed, or, if asked for, read-only."""
        if writable:
            self._for_writing()
        self._check_open()

    @staticmethod
    def _check_name(name: object) -> str:
        return check_name(name, reserved=True)
