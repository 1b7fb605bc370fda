"""Values to one line of JSON each and back, exactly, for logs that ``grep`` and eyes can read.

None, bool, int, finite float, str, list, and dict whose keys are str that do not begin with ``$``, are what they are in
JSON. Everything else is an object with one key that begins with ``$``:

- ``{"$tag": plain}``, the rows of :mod:`trax.codecs.table`; ``{"$type": [name, state]}``, a registered type;
- ``{"$dict": [[key, value], …]}``, any other dict;
- ``{"$float": "7ff8000000000001"}``, the bits of a NaN or an infinity;
- ``{"$bytes": base64}``; ``{"$int": hexadecimal}``, integers of more than 2048 bits;
- ``{"$buffer": index}``, the bytes of a large array or ``bytes`` (only in checkpointed values).

The text is UTF-8, with lone surrogates as the three bytes that UTF-8 would give them.
"""

from __future__ import annotations

import base64
import json
import math
import re
import struct
from collections.abc import Callable, Sequence
from typing import Any

from trax.codecs import limits, registry, table
from trax.codecs.base import Buffer, BufferSource, Encoded
from trax.codecs.buffers import MemoryBuffer, StoredBuffers, StridedBuffer, take
from trax.codecs.refusal import located, refusal
from trax.codecs.standard import UNDECODABLE
from trax.errors import CorruptionError, TraxError, UnsupportedValueError

# Python may be set to convert no more than 640 digits between int and str; 2048 bits are 617.
_NATIVE_INT_BITS = 2048

_TEXT = json.JSONEncoder(ensure_ascii=False, allow_nan=False, check_circular=False)
_STRING = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL)

# A level of the value takes at most five of the text: {"$type": ["name", {"$dict": [[key, value]]}]}.
_MAX_LEVELS = 5 * limits.MAX_DEPTH + 5

_DOUBLE = struct.Struct(">d")


class JsonCodec:
    """Exact JSON, one line for each value. Any thread may call any method at any time."""

    name = "json"

    def encode(self, value: Any, name: str) -> bytes:
        return limits.checked_entry(_encode(value, name, None), name)

    def encode_value(self, value: Any, name: str) -> Encoded:
        buffers: list[Buffer] = []
        return Encoded(_encode(value, name, buffers), tuple(buffers))

    def decode(self, data: bytes) -> Any:
        return _decode(data, None)

    def decode_many(self, data: bytes, lengths: Sequence[int]) -> list[Any]:
        if sum(lengths) != len(data):
            raise CorruptionError(f"{len(data)} bytes where {sum(lengths)} were to be", reason="lengths do not add up")
        values, start = [], 0
        for length in lengths:
            values.append(self.decode(data[start : start + length]))
            start += length
        return values

    def decode_value(self, head: bytes, source: BufferSource, *, mmap: bool = False) -> Any:
        return _decode(head, StoredBuffers(source, mmap))


# To text


def _encode(value: Any, name: str, buffers: list[Buffer] | None) -> bytes:
    try:
        return _TEXT.encode(_Writer(buffers).notation(value, 0)).encode("utf-8", "surrogatepass")
    except UnsupportedValueError as error:
        raise located(error, value, name) from error.__cause__
    except RecursionError as error:
        if registry.raised_by_caller(error):
            raise
        raise limits.too_deep(name) from None


class _Writer:
    """Turns a value into what the json module writes without loss."""

    def __init__(self, buffers: list[Buffer] | None) -> None:
        self._buffers = buffers

    def notation(self, value: Any, depth: int) -> Any:
        kind = type(value)
        if value is None or kind is str or kind is bool:
            return value
        if kind is int:
            return value if value.bit_length() <= _NATIVE_INT_BITS else {"$int": hex(value)}
        if kind is float:
            return value if math.isfinite(value) else {"$float": _DOUBLE.pack(value).hex()}
        if kind is MemoryBuffer or kind is StridedBuffer:
            return self._buffer(value)
        if kind is bytes and (self._buffers is None or len(value) < limits.OUT_OF_BAND_BYTES):
            return {"$bytes": base64.b64encode(value).decode("ascii")}
        if depth >= limits.MAX_DEPTH:
            raise RecursionError
        if kind is list or kind is dict:
            return self._contents(value, depth + 1)
        return self._extended(value, depth + 1)

    def _contents(self, value: Any, depth: int) -> Any:
        """``value``, if it is a list or dict with its items at ``depth``: a plain value is no level of its own."""
        if type(value) is list:
            return [self.notation(item, depth) for item in value]
        if type(value) is not dict:
            return self.notation(value, depth)
        if all(type(key) is str and not key.startswith("$") for key in value):
            return {key: self.notation(item, depth) for key, item in value.items()}
        return {"$dict": [[self.notation(key, depth), self.notation(item, depth)] for key, item in value.items()]}

    def _extended(self, value: Any, depth: int) -> Any:
        row = table.BLOB if type(value) is bytes else table.by_class(type(value))
        if row is not None:
            return {f"${row.tag}": self._contents(row.encode(value), depth)}
        registration = registry.by_class(type(value))
        if registration is None:
            raise refusal(value)
        state = self._contents(registration.encode(value), depth)
        return {f"${table.REGISTERED_TAG}": [registration.name, state]}

    def _buffer(self, buffer: MemoryBuffer | StridedBuffer) -> Any:
        if self._buffers is None or buffer.nbytes < limits.OUT_OF_BAND_BYTES:
            return self.notation(buffer.tobytes(), 0)
        self._buffers.append(buffer)
        return {f"${table.BUFFER_TAG}": len(self._buffers) - 1}


# From text


def _decode(data: bytes, buffers: StoredBuffers | None) -> Any:
    try:
        text = str(data, "utf-8", "surrogatepass")
        value = json.loads(text, object_hook=_Reader(buffers).value, parse_constant=_refuse_constant)
        if buffers is not None:
            buffers.check_all_used()
        return value
    except TraxError:
        raise
    except RecursionError as error:
        if registry.raised_by_caller(error) or _levels(data) <= _MAX_LEVELS:
            raise  # the text may be sound, and the caller's own stack nearly used up
        raise CorruptionError("the bytes are JSON nested deeper than trax writes", reason="undecodable JSON") from None
    except UNDECODABLE as error:
        if registry.raised_by_caller(error):
            raise
        raise CorruptionError(
            f"the bytes are no JSON that trax wrote: {error or type(error).__name__}", reason="undecodable JSON"
        ) from error


def _levels(data: bytes) -> int:
    """How deep arrays and objects lie inside one another."""
    level = deepest = 0
    for bracket in re.findall(rb"[][{}]", _STRING.sub(b"", data)):
        level += 1 if bracket in b"[{" else -1
        deepest = max(deepest, level)
    return deepest


def _refuse_constant(text: str) -> Any:
    raise ValueError(f"{text} is no JSON")


class _Reader:
    """Turns the objects of one text back into values, the inner ones first."""

    def __init__(self, buffers: StoredBuffers | None) -> None:
        self._buffers = buffers

    def value(self, found: dict[str, Any]) -> Any:
        tags = [key for key in found if key.startswith("$")]
        if not tags:
            return found
        if len(found) != 1:
            raise ValueError(f"an object with {tags[0]!r} among its keys has {len(found)} of them")
        tag, plain = found.popitem()
        return self._tagged(tag[1:], plain)

    def _tagged(self, tag: str, plain: Any) -> Any:
        if tag == table.REGISTERED_TAG:
            name, state = plain
            return registry.by_name(name).decode(state)
        if tag == table.BUFFER_TAG:
            return take(self._buffers, plain)
        if tag in _NOTATIONS:
            return _NOTATIONS[tag](plain)
        row = table.by_tag(tag)
        if row is None:
            raise ValueError(f"unknown tag {tag!r}")
        return row.decode(plain)


_NOTATIONS: dict[str, Callable[[Any], Any]] = {
    "dict": dict,
    "int": lambda plain: int(plain, 16),
    "float": lambda plain: _DOUBLE.unpack(bytes.fromhex(plain))[0],
    "bytes": lambda plain: base64.b64decode(plain, validate=True),
}
