"""NumPy arrays, scalars and dtypes, exactly: the functions behind their rows in :mod:`trax.codecs.table`.

An array is its dtype, its shape, its order and its bytes. The bytes are not copied on the way out; on the way back they
are read once into new memory, which the array owns and the caller may write to, or not at all with ``mmap``.

A dtype is one of

- a string, NumPy's ``dtype.str``; where that string would give another C type of the same size (``longlong`` where
  ``int64`` is ``long``), the byte order and the type's character;
- ``["array", dtype, shape]``, a subarray;
- ``["struct", names, dtypes, offsets, titles, itemsize, aligned, record]``; a title may be None.

Nothing is allocated before the length of the bytes was compared with what dtype and shape ask for. Refused are dtypes
whose items lie elsewhere (objects, variable-width strings), dtypes with metadata, and types of other packages.
"""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np

from trax.codecs.buffers import MemoryBuffer, StoredBuffer, StridedBuffer
from trax.codecs.standard import expect
from trax.errors import CorruptionError, UnsupportedValueError

Array = np.ndarray[Any, np.dtype[Any]]

ARRAYS: tuple[type, ...] = (np.ndarray,)
SCALARS: tuple[type, ...] = tuple({*np.sctypeDict.values(), np.record} - {np.object_})
DTYPES: tuple[type, ...] = tuple(
    {type(np.dtype(code)) for code in np.typecodes["All"]} | {getattr(np.dtypes, "StringDType", np.dtype)}
)

_DTYPE_STRING = re.compile(r"[<>|](?:[biufcmMSUV]\d+(?:\[(?:[1-9]\d*)?[A-Za-z]+\])?|[lLqQgGpPnN])", re.ASCII)
_MAX_DTYPE_DEPTH = 32

#: Scalars of these kinds are kept as numbers, so that JSON shows them; others, NaN and infinities as their bytes.
_NATIVE_KINDS: dict[str, type] = {"b": bool, "i": int, "u": int, "f": float}


# Arrays


def encode_array(array: Array) -> Any:
    fortran = array.flags.f_contiguous and not array.flags.c_contiguous
    return [encode_dtype(array.dtype), list(array.shape), "F" if fortran else "C", _buffer(array)]


def decode_array(plain: Any) -> Array:
    encoded_dtype, encoded_shape, order, content = plain
    dtype = decode_dtype(encoded_dtype)
    if dtype.subdtype is not None:
        raise ValueError("an array of a subarray's dtype")  # NumPy makes it part of the shape
    shape = _shape(encoded_shape)
    if order not in ("C", "F"):
        raise ValueError(f"unknown order {order!r}")
    present = len(content) if type(content) is bytes else expect(StoredBuffer, content).nbytes
    expected = dtype.itemsize * math.prod(shape)
    if present != expected:
        raise CorruptionError(
            f"an array of dtype {dtype} and shape {shape} takes {expected} bytes, but {present} are there",
            reason="an array's length does not fit its shape",
        )
    if type(content) is StoredBuffer and content.mapped:
        return np.ndarray(shape, dtype, buffer=content.map(), order=order)
    array: Array = np.ndarray(shape, dtype, order=order)  # np.empty would make the items of S0 and U0 one wide
    if present:
        _fill(_as_bytes(array).data, content)
    return array


def _buffer(array: Array) -> MemoryBuffer | StridedBuffer:
    if array.nbytes == 0:
        return MemoryBuffer(memoryview(b""))
    if array.flags.forc:
        return MemoryBuffer(_as_bytes(array).data)
    return StridedBuffer(array)


def _as_bytes(array: Array) -> Array:
    """The memory of a contiguous array as u8: datetime64 and most structured dtypes export no buffer of their own."""
    flat = (array if array.flags.c_contiguous else array.T).reshape(-1)
    return flat.view(np.uint8)


def _fill(target: memoryview, content: bytes | StoredBuffer) -> None:
    if isinstance(content, StoredBuffer):
        content.readinto(target)
    else:
        target[:] = content


def _shape(encoded: Any) -> tuple[int, ...]:
    return tuple(expect(int, length) for length in expect(list, encoded))


# Scalars


def encode_scalar(scalar: Any) -> Any:
    return [encode_dtype(scalar.dtype), _scalar_content(scalar)]


def _scalar_content(scalar: Any) -> Any:
    kind = scalar.dtype.kind
    if kind == "U":
        return str.__str__(scalar)  # the bytes of these two would lose trailing zeros
    if kind == "S":
        return bytes(memoryview(scalar))
    if kind == "b":
        return bool(scalar)
    if kind in "iu":
        return int(scalar)
    if kind == "f" and scalar.dtype.itemsize <= 8 and np.isfinite(scalar):
        return float(scalar)
    return scalar.tobytes()


def decode_scalar(plain: Any) -> Any:
    encoded_dtype, content = plain
    dtype = decode_dtype(encoded_dtype)
    if dtype.kind == "U":
        return np.str_(expect(str, content))
    if dtype.kind == "S":
        return np.bytes_(expect(bytes, content))
    if type(content) is not bytes:
        return dtype.type(expect(_NATIVE_KINDS[dtype.kind], content))
    return decode_array([encoded_dtype, [], "C", content])[()]


# Dtypes


def encode_dtype(dtype: np.dtype[Any]) -> Any:
    if dtype.isnative and dtype.metadata is None and (known := _NUMBERS.get(type(dtype))):
        return known
    encoded = _encode_dtype(dtype, 0)
    if not _is_same(decode_dtype(encoded), dtype):
        raise _refused(dtype, "view the array as a dtype that NumPy itself ships, and keep the dtype's name beside it")
    return encoded


def _encode_dtype(dtype: np.dtype[Any], depth: int) -> Any:
    if dtype.metadata:
        raise _refused(dtype, f"it carries metadata ({dict(dtype.metadata)}); keep that beside it")
    if dtype.hasobject or dtype.kind in "OT":
        raise _refused(dtype, "its items lie outside the array; use a fixed-width dtype, or keep array.tolist()")
    if depth > _MAX_DTYPE_DEPTH:
        raise _refused(dtype, f"it is nested deeper than {_MAX_DTYPE_DEPTH} levels")
    if dtype.subdtype is not None:
        base, shape = dtype.subdtype
        return ["array", _encode_dtype(base, depth + 1), list(shape)]
    if dtype.names is not None:
        return _encode_struct(dtype, depth)
    return dtype.str if np.dtype(dtype.str).char == dtype.char else dtype.str[0] + dtype.char


_NUMBERS = {
    type(dtype): _encode_dtype(dtype, 0)
    for dtype in map(np.dtype, ["?", *np.typecodes["AllInteger"], *np.typecodes["AllFloat"]])
}


def _encode_struct(dtype: np.dtype[Any], depth: int) -> Any:
    names = list(dtype.names or ())
    fields = [dtype.fields[name] for name in names] if dtype.fields else []
    titles = [field[2] if len(field) > 2 else None for field in fields]
    for title in titles:
        if type(title) not in (str, type(None)):
            raise _refused(dtype, f"the title {title!r} is not a str")
    formats = [_encode_dtype(field[0], depth + 1) for field in fields]
    offsets = [field[1] for field in fields]
    return [
        *("struct", names, formats, offsets, titles),
        *(dtype.itemsize, dtype.isalignedstruct, dtype.type is np.record),
    ]


def decode_dtype(plain: Any) -> np.dtype[Any]:
    return _decode_dtype(plain, 0)


def _decode_dtype(plain: Any, depth: int) -> np.dtype[Any]:
    if depth > _MAX_DTYPE_DEPTH + 1:
        raise ValueError("dtype nested too deeply")
    if type(plain) is str:
        if not _DTYPE_STRING.fullmatch(plain):  # NumPy's own parser would also take objects and lists of fields
            raise ValueError(f"unknown dtype {plain!r}")
        return np.dtype(plain)
    kind, *rest = expect(list, plain)
    if kind == "array":
        base, shape = rest
        return np.dtype((_decode_dtype(base, depth + 1), _shape(shape)))
    if kind != "struct":
        raise ValueError(f"unknown dtype {kind!r}")
    return _decode_struct(rest, depth)


def _decode_struct(rest: list[Any], depth: int) -> np.dtype[Any]:
    names, formats, offsets, titles, itemsize, aligned, record = rest
    fields: dict[str, Any] = {
        "names": [expect(str, name) for name in names],
        "formats": [_decode_dtype(item, depth + 1) for item in formats],
        "offsets": [expect(int, offset) for offset in offsets],
        "itemsize": expect(int, itemsize),
    }
    if any(title is not None for title in titles):
        fields["titles"] = [None if title is None else expect(str, title) for title in titles]
    dtype: np.dtype[Any] = np.dtype(fields, align=expect(bool, aligned))  # type: ignore[call-overload]
    return np.dtype((np.record, dtype)) if expect(bool, record) else dtype


def _is_same(one: np.dtype[Any], other: np.dtype[Any]) -> bool:
    return (
        one == other
        and one.type is other.type
        and one.char == other.char
        and one.isalignedstruct == other.isalignedstruct
    )


def _refused(dtype: np.dtype[Any], advice: str) -> UnsupportedValueError:
    return UnsupportedValueError(f"the NumPy dtype {dtype} can't be kept exactly; {advice}", reason="dtype")
