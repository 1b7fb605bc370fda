"""Large runs of bytes: out by :class:`MemoryBuffer` or :class:`StridedBuffer`, back in by :class:`StoredBuffer`.

What lies in memory in one piece is never copied; what does not is gathered chunk by chunk.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

from trax.codecs.base import Buffer, BufferSource, Encoded

if TYPE_CHECKING:
    import numpy as np

_COPY_CHUNK_BYTES = 1 << 19


class MemoryBuffer:
    """Bytes that lie in memory in one piece: a one-dimensional C-contiguous view of format ``B``."""

    __slots__ = ("view",)

    def __init__(self, view: memoryview) -> None:
        self.view = view

    @property
    def nbytes(self) -> int:
        return self.view.nbytes

    def chunks(self, size_bytes: int) -> Iterator[memoryview]:
        for start in range(0, self.view.nbytes, size_bytes):
            yield self.view[start : start + size_bytes]

    def tobytes(self) -> bytes:
        return self.view.tobytes()


class StridedBuffer:
    """The items of a NumPy array that is contiguous in no order, in C order."""

    __slots__ = ("array",)

    def __init__(self, array: np.ndarray[Any, Any]) -> None:
        # As plain bytes the items of a struct are copied whole; NumPy would leave the gaps between fields to chance.
        self.array = array if array.dtype.names is None else array.view(f"V{array.itemsize}")

    @property
    def nbytes(self) -> int:
        return self.array.nbytes

    def chunks(self, size_bytes: int) -> Iterator[memoryview]:
        numpy = sys.modules["numpy"]
        items = max(1, size_bytes // self.array.itemsize)
        flags, operand = ["external_loop", "buffered"], [["readonly", "contig"]]
        for slab in numpy.nditer(self.array, flags, operand, order="C", buffersize=items):
            view = memoryview(slab.copy().view(numpy.uint8))  # a copy, since nditer fills the same slab again
            for start in range(0, view.nbytes, size_bytes):
                yield view[start : start + size_bytes]

    def tobytes(self) -> bytes:
        return self.array.tobytes(order="C")


class StoredBuffers:
    """The buffers of a value that is being decoded, each used once, in their order: a value is never larger than its
    file because it uses one of them again.
    """

    __slots__ = ("_mapped", "_source", "_taken")

    def __init__(self, source: BufferSource, mapped: bool) -> None:
        self._source = source
        self._mapped = mapped
        self._taken: list[StoredBuffer] = []

    def next(self, index: int) -> StoredBuffer | None:
        """The next one, if that is the one at ``index``."""
        if index != len(self._taken):
            return None
        self._taken.append(StoredBuffer(self._source, index, self._mapped))
        return self._taken[-1]

    def check_all_used(self) -> None:
        """ValueError for one that belongs to no array and no ``bytes``."""
        if any(not buffer.used for buffer in self._taken):
            raise ValueError("a buffer by itself")


def take(buffers: StoredBuffers | None, index: Any) -> StoredBuffer:
    """The buffer that a value refers to; ValueError where it can't be. ``buffers`` None: an entry has none."""
    buffer = buffers.next(index) if buffers is not None and type(index) is int else None
    if buffer is None:
        raise ValueError(f"buffer {index!r}, where it can't be")
    return buffer


class StoredBuffer:
    """A buffer of a value that is being decoded. It is read once, when the array or ``bytes`` it belongs to is made."""

    __slots__ = ("_index", "_source", "mapped", "used")

    def __init__(self, source: BufferSource, index: int, mapped: bool) -> None:
        self._source = source
        self._index = index
        self.mapped = mapped
        self.used = False

    @property
    def nbytes(self) -> int:
        return self._source.nbytes(self._index)

    def readinto(self, target: memoryview) -> None:
        self.used = True
        self._source.readinto(self._index, target)

    def map(self) -> memoryview:
        self.used = True
        return self._source.map(self._index)

    def tobytes(self) -> bytes:
        return filled_bytes(self.nbytes, self.readinto)


def filled_bytes(nbytes: int, fill: Callable[[memoryview], None]) -> bytes:
    """``nbytes`` bytes that ``fill`` writes in place: BytesIO hands out its own memory, where bytearray would copy."""
    stream = io.BytesIO(bytes(nbytes))
    with stream.getbuffer() as view:
        fill(view)
    return stream.getvalue()


def for_background(encoded: Encoded) -> Encoded:
    """A snapshot of ``encoded`` that the caller's arrays no longer reach; each buffer is copied once."""
    return Encoded(encoded.head, tuple(_copied(buffer) for buffer in encoded.buffers), background=True)


def _copied(buffer: Buffer) -> Buffer:
    if isinstance(buffer, MemoryBuffer) and type(buffer.view.obj) is bytes:
        return buffer  # nobody can change it
    target: Any
    bare: Callable[[memoryview], Any]
    if "numpy" in sys.modules:  # it lets other threads run while it copies
        import numpy

        target, bare = numpy.empty(buffer.nbytes, numpy.uint8), partial(numpy.frombuffer, dtype=numpy.uint8)
    else:
        target, bare = bytearray(buffer.nbytes), memoryview
    start = 0
    for chunk in buffer.chunks(_COPY_CHUNK_BYTES):
        target[start : start + chunk.nbytes] = bare(chunk)
        start += chunk.nbytes
    return MemoryBuffer(memoryview(target))
