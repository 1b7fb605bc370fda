"""The extended types: what msgpack and JSON have no notation for, in terms of what they have.

Each row of the table turns a value into a *plain* one and back: None, bool, int, float, str, bytes, list and dict,
with values of further rows among them. msgpack writes a row as the extension ``code`` around the packed plain value,
JSON as ``{"$tag": plain}``. Codes and tags stand in every store, so a row never changes and a code is never used again.
``docs/format.rst`` has the same table.

==== ====================== ===========================================================================================
code tag                    plain value
==== ====================== ===========================================================================================
1    tuple                  list of the items
2    set                    list of the items
3    frozenset              list of the items
4    bytearray              bytes
5    int                    bytes: two's complement, little-endian (integers beyond 64 bits; JSON: see ``json.py``)
6    complex                [real, imaginary]
7    range                  [start, stop, step]
8    deque                  [maximum length or None, list of the items]
9    OrderedDict            dict
10   defaultdict            [name of the factory or None, dict]
11   Counter                dict
16   datetime               [ISO 8601 without offset, fold, time zone or None]
17   date                   ISO 8601
18   time                   [ISO 8601 without offset, fold, time zone or None]
19   timedelta              [days, seconds, microseconds]
20   timezone               [offset as timedelta] or [offset, name]
21   ZoneInfo               key
24   Decimal                str
25   Fraction               [numerator, denominator]
26   UUID                   str, or [str, is_safe] where ``is_safe`` is known
27   Path                   [class name, str]
28   Random                 [version, the state's words as little-endian u32, gauss_next]
48   type                   [registered name, state]
49   blob                   buffer (``bytes`` out of band; only in checkpointed values)
50   buffer                 index into ``Encoded.buffers`` (only as the bytes of an array or a blob)
64   numpy.array            [dtype, shape, "C" or "F", bytes or buffer]
65   numpy.scalar           [dtype, bool, int, finite float, str or bytes]
66   numpy.dtype            dtype: see ``arrays.py``
67   numpy.SeedSequence     [entropy, spawn key, pool size, children spawned]
68   numpy.BitGenerator     [class name, state, seed sequence or None]
69   numpy.Generator        bit generator
70   numpy.RandomState      [bit generator, has_gauss, gauss]
==== ====================== ===========================================================================================

JSON alone has ``$float``, ``$bytes`` and ``$dict`` besides. Codes 64 to 95, and tags that begin with ``numpy.``, need
NumPy; it is loaded when a value of one of its types, or one of these codes, comes by.
"""

from __future__ import annotations

import collections
import datetime
import decimal
import fractions
import pathlib
import random
import uuid
import zoneinfo
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from trax.codecs import standard
from trax.codecs.buffers import MemoryBuffer
from trax.errors import DependencyError

#: Rows that the codecs handle themselves.
REGISTERED_CODE, REGISTERED_TAG = 48, "type"
BUFFER_CODE, BUFFER_TAG = 50, "buffer"

_NUMPY_CODES = range(64, 96)
_NUMPY_TAGS = "numpy."


@dataclass(frozen=True, slots=True)
class ExtendedType:
    """One row: what it is called on disk, which classes it keeps (these exactly, no subclasses), and how."""

    code: int
    tag: str
    classes: tuple[type, ...]
    encode: Callable[[Any], Any]
    decode: Callable[[Any], Any]


#: ``bytes`` of a checkpointed value that are large enough to lie beside its head; chosen by size, not by class.
BLOB = ExtendedType(49, "blob", (), lambda value: MemoryBuffer(memoryview(value)), standard.decode_blob)

_PATHS = tuple(getattr(pathlib, name) for name in standard.PATH_CLASSES)

_STANDARD = (
    ExtendedType(1, "tuple", (tuple,), list, standard.decode_tuple),
    ExtendedType(2, "set", (set,), list, standard.decode_set),
    ExtendedType(3, "frozenset", (frozenset,), list, standard.decode_frozenset),
    ExtendedType(4, "bytearray", (bytearray,), bytes, standard.decode_bytearray),
    ExtendedType(5, "int", (int,), standard.encode_int, standard.decode_int),
    ExtendedType(6, "complex", (complex,), standard.encode_complex, standard.decode_complex),
    ExtendedType(7, "range", (range,), standard.encode_range, standard.decode_range),
    ExtendedType(8, "deque", (collections.deque,), standard.encode_deque, standard.decode_deque),
    ExtendedType(9, "OrderedDict", (collections.OrderedDict,), dict, standard.decode_ordered_dict),
    ExtendedType(10, "defaultdict", (collections.defaultdict,), standard.encode_default, standard.decode_default),
    ExtendedType(11, "Counter", (collections.Counter,), dict, standard.decode_counter),
    ExtendedType(16, "datetime", (datetime.datetime,), standard.encode_datetime, standard.decode_datetime),
    ExtendedType(17, "date", (datetime.date,), datetime.date.isoformat, datetime.date.fromisoformat),
    ExtendedType(18, "time", (datetime.time,), standard.encode_time, standard.decode_time),
    ExtendedType(19, "timedelta", (datetime.timedelta,), standard.encode_timedelta, standard.decode_timedelta),
    ExtendedType(20, "timezone", (datetime.timezone,), standard.encode_timezone, standard.decode_timezone),
    ExtendedType(21, "ZoneInfo", (zoneinfo.ZoneInfo,), standard.encode_zone, standard.decode_zone),
    ExtendedType(24, "Decimal", (decimal.Decimal,), str, standard.decode_decimal),
    ExtendedType(25, "Fraction", (fractions.Fraction,), standard.encode_fraction, standard.decode_fraction),
    ExtendedType(26, "UUID", (uuid.UUID,), standard.encode_uuid, standard.decode_uuid),
    ExtendedType(27, "Path", _PATHS, standard.encode_path, standard.decode_path),
    ExtendedType(28, "Random", (random.Random,), standard.encode_random, standard.decode_random),
    BLOB,
)

_by_class: dict[type, ExtendedType] = {}
_by_code: dict[int, ExtendedType] = {}
_by_tag: dict[str, ExtendedType] = {}


def by_class(cls: type) -> ExtendedType | None:
    """The row that keeps instances of exactly ``cls``."""
    found = _by_class.get(cls)
    if found is None and str(cls.__module__).partition(".")[0] == "numpy":
        _load_numpy()
        return _by_class.get(cls)
    return found


def by_code(code: int) -> ExtendedType | None:
    """The row of an msgpack extension. Raises DependencyError where it needs NumPy and there is none."""
    if code in _NUMPY_CODES:
        _load_numpy()
    return _by_code.get(code)


def by_tag(tag: str) -> ExtendedType | None:
    """The row of a JSON tag. Raises DependencyError where it needs NumPy and there is none."""
    if tag.startswith(_NUMPY_TAGS):
        _load_numpy()
    return _by_tag.get(tag)


def _add(rows: tuple[ExtendedType, ...]) -> None:
    for row in rows:
        for cls in row.classes:
            _by_class[cls] = row
        _by_tag[row.tag] = row
        _by_code[row.code] = row


def _load_numpy() -> None:
    if _NUMPY_CODES.start in _by_code:
        return
    try:
        from trax.codecs import arrays, generators
    except ImportError as error:
        raise DependencyError(
            "the value holds NumPy data, and NumPy can't be imported here; install it: pip install numpy",
            reason="NumPy is missing",
        ) from error
    _add(
        (  # code 64 last: to other threads, its presence says that all the rest is there
            ExtendedType(65, "numpy.scalar", arrays.SCALARS, arrays.encode_scalar, arrays.decode_scalar),
            ExtendedType(66, "numpy.dtype", arrays.DTYPES, arrays.encode_dtype, arrays.decode_dtype),
            ExtendedType(67, "numpy.SeedSequence", generators.SEEDS, generators.encode_seed, generators.decode_seed),
            ExtendedType(68, "numpy.BitGenerator", generators.BITS, generators.encode_bits, generators.decode_bits),
            ExtendedType(
                69, "numpy.Generator", generators.GENERATORS, generators.encode_generator, generators.decode_generator
            ),
            ExtendedType(
                70, "numpy.RandomState", generators.LEGACY, generators.encode_legacy, generators.decode_legacy
            ),
            ExtendedType(64, "numpy.array", arrays.ARRAYS, arrays.encode_array, arrays.decode_array),
        )
    )


_add(_STANDARD)
