"""Values to msgpack and back: plain ones at the speed of C, all others as extensions (:mod:`trax.codecs.table`).

Invariants:

- What the C packer would change without a word (bytearray and memoryview become bytes; ExtType and Timestamp pass for
  extensions) never reaches it bare: :func:`_shield` looks at every type first.
- Buffers are numbered in the order in which decoding meets them, so a file of them is read from front to back.
- A packer is used by one thread at a time and for one value at a time. One that raised is thrown away.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgpack

from trax.codecs import limits, registry, table
from trax.codecs.base import Buffer, BufferSource, Encoded
from trax.codecs.buffers import MemoryBuffer, StoredBuffers, StridedBuffer, take
from trax.codecs.refusal import located, refusal
from trax.codecs.standard import UNDECODABLE
from trax.errors import CorruptionError, TraxError, UnsupportedValueError
from trax.lengths import check_lengths

_TRAPS = frozenset({list, dict, bytearray, memoryview, msgpack.ExtType, msgpack.Timestamp})
_TRAPS_AND_BYTES = _TRAPS | {bytes}

_KEPT_PACKER_BYTES = 1 << 20  # a packer never gives back the memory of its largest value

# unpackb takes 40 KiB of the C stack, so that levels beyond these use Unpacker, which is slower but lives on the heap.
_DEPTH_ON_STACK = 8


class MsgpackCodec:
    """Exact msgpack. Any thread may call any method at any time, a registered function's own calls included."""

    name = "msgpack"

    def __init__(self) -> None:
        self._idle: list[_Writer] = []  # list.pop and list.append are atomic

    def encode(self, value: Any, name: str) -> bytes:
        try:
            writer = self._idle.pop()
        except IndexError:
            writer = _Writer()
        try:
            data: bytes = writer.packer.pack(_shield(value, _TRAPS))
        except Exception as error:
            return limits.checked_entry(_second_try(error, value, name, None), name)
        if len(data) < _KEPT_PACKER_BYTES:
            self._idle.append(writer)
            return data
        return limits.checked_entry(data, name)

    def encode_value(self, value: Any, name: str) -> Encoded:
        buffers: list[Buffer] = []
        try:
            head = _Writer(buffers).pack(value)
        except Exception as error:
            buffers.clear()
            head = _second_try(error, value, name, buffers)
        return Encoded(head, tuple(buffers))

    def decode(self, data: bytes) -> Any:
        return _decode(_Reader(), data)

    def decode_many(self, data: bytes, lengths: Sequence[int]) -> list[Any]:
        # All of them as one array: a single call into C, where an Unpacker would take one for each value.
        if sum(lengths) != len(data):
            raise CorruptionError(f"{len(data)} bytes where {sum(lengths)} were to be", reason="lengths do not add up")
        values: list[Any] = _decode(_Reader(), b"\xdd" + len(lengths).to_bytes(4, "big") + data)
        return values

    def decode_value(self, head: bytes, source: BufferSource, *, mmap: bool = False) -> Any:
        buffers = StoredBuffers(source, mmap)
        return _decode(_Reader(buffers), head)


# To bytes


def _second_try(error: Exception, value: Any, name: str, buffers: list[Buffer] | None) -> bytes:
    """What to do about ``error``: pack again, if lone surrogates were all that was wrong, or raise the fitting one.

    Surrogates are so rare, and the packer so much faster without an error handler, that trying twice pays.
    """
    if isinstance(error, UnicodeEncodeError) and not registry.raised_by_caller(error):
        try:
            return _Writer(buffers, "surrogatepass").pack(value)
        except Exception as second:
            error = second
    if registry.raised_by_caller(error):
        raise error
    if isinstance(error, UnsupportedValueError):
        raise located(error, value, name) from error.__cause__
    if isinstance(error, RecursionError):
        raise limits.too_deep(name) from None
    if isinstance(error, ValueError | OverflowError) and not isinstance(error, TraxError):
        raise limits.entry_too_large(name) if buffers is None else limits.head_too_large(name) from error
    raise error


class _Writer:
    """Packs values, one at a time; large arrays and bytes go to ``buffers``, where there is such a list."""

    def __init__(self, buffers: list[Buffer] | None = None, unicode_errors: str | None = None) -> None:
        self._buffers = buffers
        self._traps = _TRAPS if buffers is None else _TRAPS_AND_BYTES
        self._unicode_errors = unicode_errors
        self._depth = 0
        self.packer = self._new_packer(64 * 1024)

    def pack(self, value: Any) -> bytes:
        """A packer can't pack while it packs, so what lies inside an extension has one of its own; they are cheap."""
        packed: bytes = self._new_packer(1024).pack(_shield(value, self._traps))
        return packed

    def _new_packer(self, size_bytes: int) -> msgpack.Packer:
        return msgpack.Packer(
            default=self._extended,
            use_bin_type=True,
            strict_types=True,
            unicode_errors=self._unicode_errors,
            buf_size=size_bytes,
        )

    def _extended(self, value: Any) -> Any:
        """What the packer is to write for a value that it does not know."""
        kind = type(value)
        if kind is _Shielded:
            value = value.value
            kind = type(value)
        if kind is bytes:
            row: table.ExtendedType | None = table.BLOB
        elif kind is MemoryBuffer or kind is StridedBuffer:
            return self._buffer(value)
        else:
            row = table.by_class(kind)
        if row is not None:
            return msgpack.ExtType(row.code, self._inner(row.encode(value)))
        registration = registry.by_class(kind)
        if registration is None:
            raise refusal(value)
        return msgpack.ExtType(table.REGISTERED_CODE, self._inner([registration.name, registration.encode(value)]))

    def _inner(self, plain: Any) -> bytes:
        if self._depth >= limits.MAX_DEPTH:
            raise RecursionError
        self._depth += 1
        packed = self.pack(plain)
        self._depth -= 1
        return packed

    def _buffer(self, buffer: MemoryBuffer | StridedBuffer) -> Any:
        if self._buffers is None or buffer.nbytes < limits.OUT_OF_BAND_BYTES:
            return buffer.tobytes()
        self._buffers.append(buffer)
        return msgpack.ExtType(table.BUFFER_CODE, msgpack.packb(len(self._buffers) - 1))


class _Shielded:
    """Makes the packer ask for a value that it would take for something else."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value


def _shield(value: Any, traps: frozenset[type], depth: int = 0) -> Any:
    """``value``, with everything shielded that the packer would change; itself, where there is no such thing.

    It looks into lists and dicts only: what lies in other types passes here when they are packed. The loop over a dict
    takes less time than the two passes in C that it replaces.
    """
    kind = type(value)
    if kind is dict:
        for key, item in value.items():
            if type(key) is not str or type(item) in traps:
                break
        else:
            return value
        if depth >= limits.MAX_DEPTH:
            raise RecursionError
        deeper = depth + 1
        return {_shield(key, traps): _shield(item, traps, deeper) for key, item in value.items()}
    if kind is list:
        if traps.isdisjoint(map(type, value)):
            return value
        if depth >= limits.MAX_DEPTH:
            raise RecursionError
        deeper = depth + 1
        return [_shield(item, traps, deeper) for item in value]
    if kind not in traps or (kind is bytes and len(value) < limits.OUT_OF_BAND_BYTES):
        return value
    return _Shielded(value)


# From bytes


def _decode(reader: _Reader, data: bytes) -> Any:
    try:
        value = reader.unpack(data)
        if reader.buffers is not None:
            reader.buffers.check_all_used()
        return value
    except TraxError:
        raise
    except (*UNDECODABLE, msgpack.UnpackException) as error:
        if registry.raised_by_caller(error):
            raise
        raise CorruptionError(
            f"the bytes are no msgpack that trax wrote: {error or type(error).__name__}", reason="undecodable msgpack"
        ) from error


class _Reader:
    """Unpacks one value."""

    __slots__ = ("_depth", "buffers")

    def __init__(self, buffers: StoredBuffers | None = None) -> None:
        self.buffers = buffers
        self._depth = 0

    def unpack(self, data: bytes) -> Any:
        # The options stand here twice, since passing them on as a dict would cost as much as unpacking a small entry.
        check_lengths(data)
        hook, errors = self._extended, "surrogatepass"
        if self._depth < _DEPTH_ON_STACK:
            return msgpack.unpackb(
                data, raw=False, use_list=True, strict_map_key=False, unicode_errors=errors, ext_hook=hook
            )
        unpacker = msgpack.Unpacker(
            max_buffer_size=len(data),
            raw=False,
            use_list=True,
            strict_map_key=False,
            unicode_errors=errors,
            ext_hook=hook,
        )
        unpacker.feed(data)
        value = unpacker.unpack()
        if unpacker.tell() != len(data):
            raise ValueError("bytes behind the value")
        return value

    def _extended(self, code: int, data: bytes) -> Any:
        if self._depth > limits.MAX_DEPTH:
            raise ValueError("nested too deeply")
        self._depth += 1
        plain = self.unpack(data)
        self._depth -= 1
        if code == table.REGISTERED_CODE:
            name, state = plain
            return registry.by_name(name).decode(state)
        if code == table.BUFFER_CODE:
            return take(self.buffers, plain)
        row = table.by_code(code)
        if row is None:
            raise ValueError(f"unknown extension code {code}")
        return row.decode(plain)
