"""What the tests of values share: a strict comparison, random values of every type, and buffers kept in memory."""

from __future__ import annotations

import collections
import datetime
import decimal
import enum
import math
import pathlib
import random
import struct
import uuid
import zoneinfo
from collections.abc import Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, NamedTuple

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as nps

import trax
from trax.codecs.base import BufferSource, Codec, Encoded
from trax.errors import CorruptionError


class MemorySource:
    """The buffers of an encoded value, as a store would give them back."""

    def __init__(self, encoded: Encoded) -> None:
        self.stored = [b"".join(buffer.chunks(1000)) for buffer in encoded.buffers]
        self.read: list[int] = []

    def nbytes(self, index: int) -> int:
        if index >= len(self.stored):
            raise CorruptionError(f"there is no buffer {index}")
        return len(self.stored[index])

    def readinto(self, index: int, target: memoryview) -> None:
        self.read.append(index)
        target[:] = self.stored[index]

    def map(self, index: int) -> memoryview:
        self.read.append(index)
        return memoryview(self.stored[index])


def through_entry(codec: Codec, value: Any) -> Any:
    return codec.decode(codec.encode(value, "state"))


def through_value(codec: Codec, value: Any, *, mmap: bool = False) -> Any:
    encoded = codec.encode_value(value, "state")
    source = MemorySource(encoded)
    protocol: BufferSource = source
    result = codec.decode_value(encoded.head, protocol, mmap=mmap)
    assert source.read == list(range(len(encoded.buffers))), "buffers are read once each, in order"
    return result


# Registered types


class Color(enum.Enum):
    RED = 1
    CRIMSON = 1  # noqa: PIE796  # an alias
    BLUE = "b"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Access(enum.Flag):
    READ = 1
    WRITE = 2


@dataclass
class Particle:
    position: Any
    mass: Any = 1.0


@dataclass(frozen=True, slots=True)
class Cell:
    row: Any
    column: Any


class Point(NamedTuple):
    x: Any
    y: Any = 0


for registered in (Color, Level, Access, Particle, Cell, Point):
    trax.register(registered, name=f"tests.{registered.__name__}")


# The comparison


def identical(one: Any, other: Any) -> bool:
    """Whether ``other`` is what ``one`` was: type for type, order for order, bit for bit."""
    if type(one) is not type(other):
        return False
    if isinstance(one, np.ndarray):
        return _identical_arrays(one, other)
    if isinstance(one, np.generic):
        return _identical_scalars(one, other)
    for cls, parts in _PARTS.items():
        if type(one) is cls:
            return _all_identical(parts(one), parts(other))
    if isinstance(one, dict):
        return _all_identical(list(one.items()), list(other.items()))
    if isinstance(one, set | frozenset):
        return len(one) == len(other) and all(any(identical(a, b) for b in other) for a in one)
    if is_dataclass(one):
        return all(identical(getattr(one, field.name), getattr(other, field.name)) for field in fields(one))
    if isinstance(one, list | tuple):
        return _all_identical(one, other)
    if isinstance(one, np.random.BitGenerator):
        return identical(one.state, other.state) and identical(one.seed_seq, other.seed_seq)
    if isinstance(one, np.dtype):
        return bool(_dtype_parts(one) == _dtype_parts(other))
    return bool(one == other)


def _all_identical(one: Sequence[Any], other: Sequence[Any]) -> bool:
    return len(one) == len(other) and all(map(identical, one, other))


def _identical_arrays(one: Any, other: Any) -> bool:
    return (
        identical(one.dtype, other.dtype)
        and one.shape == other.shape
        and (one.nbytes == 0 or _same_order(one.flags, other.flags))  # nothing has no order
        and _same_items(one, other)
    )


def _same_order(one: Any, other: Any) -> bool:
    """What is contiguous in no order comes back in C order."""
    if not one.forc:
        return bool(other.c_contiguous)
    return bool(one.c_contiguous == other.c_contiguous and one.f_contiguous == other.f_contiguous)


def _same_items(one: Any, other: Any) -> bool:
    if one.dtype.names is None:  # tobytes() of a struct may skip its padding
        return bool(one.tobytes() == other.tobytes())
    return all(_same_items(one[name], other[name]) for name in one.dtype.names)


def _identical_scalars(one: Any, other: Any) -> bool:
    if not identical(one.dtype, other.dtype):
        return False
    if isinstance(one, str | bytes):
        return bool(one == other)
    if one.dtype.char == "g":  # what follows are padding bytes, which mean nothing
        return bool(one.tobytes()[:10] == other.tobytes()[:10])
    if one.dtype.char == "G":
        return _identical_scalars(one.real, other.real) and _identical_scalars(one.imag, other.imag)
    return _same_items(one, other)


def _dtype_parts(dtype: Any) -> Any:
    inner: Any = None
    if dtype.subdtype is not None:
        inner = _dtype_parts(dtype.subdtype[0]), dtype.subdtype[1]
    elif dtype.fields is not None:
        inner = {name: (_dtype_parts(field[0]), *field[1:]) for name, field in dtype.fields.items()}
    return dtype.str, dtype.char, dtype.type, dtype.itemsize, dtype.names, dtype.isalignedstruct, inner


def _bits(value: float) -> bytes:
    return struct.pack("<d", value)


#: The parts of a value that ``==`` would not compare, or not exactly.
_PARTS: dict[type, Any] = {
    float: lambda value: [_bits(value)],
    complex: lambda value: [_bits(value.real), _bits(value.imag)],
    datetime.datetime: lambda value: [value.replace(tzinfo=None).isoformat(), value.fold, value.tzinfo],
    datetime.time: lambda value: [value.replace(tzinfo=None).isoformat(), value.fold, value.tzinfo],
    datetime.timezone: lambda value: [*value.__getinitargs__()],
    zoneinfo.ZoneInfo: lambda value: [value.key],
    decimal.Decimal: lambda value: [*value.as_tuple()],
    uuid.UUID: lambda value: [value.int, value.is_safe],
    range: lambda value: [value.start, value.stop, value.step],
    collections.deque: lambda value: [value.maxlen, *value],
    collections.defaultdict: lambda value: [value.default_factory is None, str(value.default_factory), dict(value)],
    random.Random: lambda value: [*value.getstate()],
    np.random.SeedSequence: lambda value: [value.state, value.generate_state(4)],
    np.random.Generator: lambda value: [value.bit_generator],
    np.random.RandomState: lambda value: [value._bit_generator, value.get_state(legacy=False)],
}


# Random values


def _random_generator(words: int) -> random.Random:
    generator = random.Random(words)
    if words % 2:
        generator.gauss(0, 1)
    return generator


def _numpy_generators() -> st.SearchStrategy[Any]:
    bits = st.sampled_from(["PCG64", "PCG64DXSM", "MT19937", "Philox", "SFC64"])
    made = st.builds(lambda name, seed: getattr(np.random, name)(seed), bits, st.integers(0, 2**200))
    generators = made.map(np.random.Generator)
    legacy = st.one_of(made, st.integers(0, 2**32 - 1)).map(np.random.RandomState)
    return st.one_of(made, generators.map(_advanced), legacy.map(_advanced))


def _advanced(generator: Any) -> Any:
    generator.standard_normal()
    if isinstance(generator, np.random.Generator):
        generator.integers(0, 9, dtype=np.uint32)  # leaves half of a 64-bit word behind
        generator.spawn(2)
    return generator


_zones = st.one_of(
    st.none(),
    st.just(datetime.UTC),
    st.sampled_from(["Europe/Berlin", "America/New_York", "UTC"]).map(zoneinfo.ZoneInfo),
    st.builds(datetime.timezone, st.timedeltas(datetime.timedelta(hours=-23), datetime.timedelta(hours=23))),
    st.builds(datetime.timezone, st.timedeltas(datetime.timedelta(hours=-23), datetime.timedelta(hours=23)), st.text()),
)
_floats = st.binary(min_size=8, max_size=8).map(lambda bits: float(struct.unpack("<d", bits)[0]))
_strings = st.text(st.characters(exclude_categories=()), max_size=8)  # lone surrogates included
_integers = st.one_of(st.integers(), st.integers(-(2**70), 2**70), st.just(1 << 10_000))
_decimals = st.one_of(
    st.decimals(), st.sampled_from(["sNaN", "-NaN12", "-0E-9", "1E+999999", "-Infinity"]).map(decimal.Decimal)
)

hashable_scalars: st.SearchStrategy[Any] = st.one_of(
    *(st.none(), st.booleans(), _integers, _floats, _strings, st.binary(max_size=20)),
    st.builds(complex, _floats, _floats),
    st.builds(
        lambda moment, fold, zone: moment.replace(fold=fold, tzinfo=zone), st.datetimes(), st.integers(0, 1), _zones
    ),
    st.builds(lambda time, fold, zone: time.replace(fold=fold, tzinfo=zone), st.times(), st.integers(0, 1), _zones),
    *(st.dates(), st.timedeltas(), st.fractions(), st.uuids(), st.just(uuid.uuid1())),
    _zones,
    st.sampled_from([*Color, *Level, Access.READ, Access.READ | Access.WRITE, Access(0)]),
    st.builds(range, st.integers(), st.integers(), st.integers(1)),
    st.text(st.characters(exclude_characters="\0"), max_size=8).map(pathlib.PurePosixPath),
    st.text(st.characters(exclude_characters="\0"), max_size=8).map(pathlib.Path),
    st.text(st.characters(exclude_characters="\0"), max_size=8).map(pathlib.PureWindowsPath),
)

HAND_MADE_DTYPES = [
    np.dtype("longlong"),
    np.dtype("ulonglong"),
    np.dtype("longdouble"),
    np.dtype("clongdouble"),
    np.dtype("m8"),
    np.dtype(">M8[25ns]"),
    np.dtype("V0"),
    np.dtype("V7"),
    np.dtype("S0"),
    np.dtype("U0"),
    np.dtype([]),
    np.dtype([("text", "S0"), ("x", "i1")]),
    np.dtype([(("a title", "a"), "<i4"), ("b", ">f8", (2, 3))]),
    np.dtype({"names": ["x", "y"], "formats": ["i2", "f4"], "offsets": [9, 1], "itemsize": 20}),
    np.dtype({"names": ["x", "y"], "formats": ["i4", "i2"], "offsets": [0, 2]}),
    np.dtype([("a", "i1"), ("b", [("c", "f8"), ("d", "U3")])], align=True),
    np.dtype((np.record, [("a", "i8")])),
]

dtypes: st.SearchStrategy[Any] = st.one_of(
    st.sampled_from(HAND_MADE_DTYPES),
    nps.scalar_dtypes(),
    nps.nested_dtypes(max_itemsize=100),
)


ARRANGEMENTS: dict[str, Any] = {
    "C": lambda array: array,
    "F": np.asfortranarray,
    "transposed": lambda array: array.T,
    "reversed": lambda array: array[::-1] if array.ndim else array,
    "every other": lambda array: array[..., ::2] if array.ndim else array,
    "read-only": lambda array: np.ndarray(array.shape, array.dtype, bytes(array.nbytes)),
}


def array_of(dtype: Any, shape: tuple[int, ...], generator: random.Random) -> Any:
    """An array whose memory, the gaps between the fields of a struct included, is random."""
    length = dtype.itemsize * math.prod(shape)
    return np.ndarray(shape, dtype, buffer=bytearray(generator.randbytes(length)))


@st.composite
def arrays(draw: st.DrawFn, max_side: int = 4) -> Any:
    dtype = draw(dtypes.map(lambda dtype: dtype.base))
    shape = draw(nps.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=max_side))
    arrange = draw(st.sampled_from(list(ARRANGEMENTS.values())))
    return arrange(array_of(dtype, shape, draw(st.randoms(use_true_random=False))))


def _has_an_item(array: Any) -> bool:
    return bool(array.size > 0 and array.dtype.kind != "U")  # random bytes are no text


def _first_item(array: Any) -> Any:
    return array.ravel()[0]


numpy_scalars: st.SearchStrategy[Any] = st.one_of(
    arrays(max_side=2).filter(_has_an_item).map(_first_item),
    _strings.map(np.str_),
    st.binary(max_size=9).map(np.bytes_),
    st.sampled_from([np.float64(0.1), np.float32("nan"), np.int8(-1), np.bool_(True), np.longlong(3)]),
)

leaves: st.SearchStrategy[Any] = st.one_of(
    hashable_scalars,
    _decimals,
    st.binary(max_size=20).map(bytearray),
    st.integers(0, 2**64).map(_random_generator),
    arrays(),
    dtypes,
    numpy_scalars,
    _numpy_generators(),
)


def _hashable_containers(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.one_of(
        st.lists(inner, max_size=3).map(tuple),
        st.frozensets(inner, max_size=3),
        st.builds(Point, inner, inner),
        st.builds(Cell, inner, inner),
    )


# Deferred, since Hypothesis would otherwise write out all that they consist of, again and again.
hashables: st.SearchStrategy[Any] = st.deferred(
    lambda: st.recursive(hashable_scalars, _hashable_containers, max_leaves=4)
)

_factories = st.sampled_from([None, list, dict, set, int, float, str, tuple, bool, bytes, collections.Counter])


def _containers(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    lists = st.lists(inner, max_size=4)
    dicts = st.one_of(st.dictionaries(_strings, inner, max_size=4), st.dictionaries(hashables, inner, max_size=3))
    return st.one_of(
        *(lists, dicts, lists.map(tuple)),
        st.builds(lambda items, extra: collections.deque(items, len(items) + extra), lists, st.integers(0, 2)),
        lists.map(collections.deque),
        dicts.map(collections.OrderedDict),
        dicts.map(collections.Counter),
        st.builds(collections.defaultdict, _factories, dicts),
        st.sets(hashables, max_size=4),
        st.builds(Particle, inner, inner),
        st.builds(Point, inner, inner),
        st.dictionaries(st.sampled_from(["$", "$tuple", "$dict", "plain"]), inner),
    )


values: st.SearchStrategy[Any] = st.deferred(lambda: st.recursive(leaves, _containers, max_leaves=8))
