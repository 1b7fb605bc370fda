"""What a codec is: values to bytes and back, exactly, or not at all.

A codec never touches a file. An *entry* becomes one ``bytes`` that stands for itself. A *checkpointed value* becomes an
:class:`Encoded`: a ``head``, and beside it the large arrays as buffers that are written from where they lie.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

CODECS = {"msgpack": "MsgpackCodec", "json": "JsonCodec", "pickle": "PickleCodec"}
"""The codecs by name, and the class of each in the module of that name."""


class Buffer(Protocol):
    """A large run of bytes that is written from where it lies."""

    @property
    def nbytes(self) -> int:
        """How many bytes ``chunks`` yields in all."""

    def chunks(self, size_bytes: int) -> Iterator[memoryview]:
        """The bytes in order, as C-contiguous views of at most ``size_bytes`` bytes each (format ``B``)."""


class BufferSource(Protocol):
    """Where a decoder finds the buffers again, by their place in ``Encoded.buffers``. Each is verified when read."""

    def nbytes(self, index: int) -> int:
        """The length of buffer ``index``; an index that does not exist is a CorruptionError."""

    def readinto(self, index: int, target: memoryview) -> None:
        """Fill ``target``, a writable view of exactly ``nbytes(index)`` bytes."""

    def map(self, index: int) -> memoryview:
        """A read-only view of the mapped file; it stays valid as long as it is referred to."""


@dataclass(frozen=True)
class Encoded:
    """An encoded value that is to be checkpointed."""

    head: bytes
    buffers: tuple[Buffer, ...] = ()
    background: bool = False
    """Nobody waits for it, and nobody else can change what the buffers hold."""

    @property
    def nbytes(self) -> int:
        return len(self.head) + sum(buffer.nbytes for buffer in self.buffers)


class Codec(Protocol):
    """Values to bytes and back. One codec object serves many threads."""

    name: str

    def encode(self, value: Any, name: str) -> bytes:
        """One log entry. ``name`` begins the path in an error: ``state['model'][3]``.

        Raises UnsupportedValueError, ValueTooLargeError.
        """

    def decode(self, data: bytes) -> Any:
        """The value that ``encode`` was given, as an object of its own."""

    def decode_many(self, data: bytes, lengths: Sequence[int]) -> list[Any]:
        """The values of several encodings that lie in ``data`` one behind the other; ``lengths`` in bytes."""

    def encode_value(self, value: Any, name: str) -> Encoded:
        """One checkpointed value. The buffers refer to the caller's arrays, not to copies of them."""

    def decode_value(self, head: bytes, source: BufferSource, *, mmap: bool = False) -> Any:
        """The value that ``encode_value`` was given; with ``mmap`` its large arrays are read-only views of the file."""
