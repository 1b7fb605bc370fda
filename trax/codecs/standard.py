"""The standard library's extended types: the functions behind the rows of :mod:`trax.codecs.table`.

``encode_…`` meets only instances of the exact class. ``decode_…`` meets whatever a damaged file may hold: it may raise
any error of :data:`UNDECODABLE`, which the codec reports as corruption, and it allocates no more than a small multiple
of what it was given.
"""

from __future__ import annotations

import collections
import datetime
import decimal
import fractions
import pathlib
import random
import struct
import uuid
import zoneinfo
from typing import Any, TypeVar

from trax.codecs.buffers import StoredBuffer
from trax.errors import CodecError, UnsupportedValueError

PATH_CLASSES = ("PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath")

#: What Python's own constructors raise over something that was never written.
UNDECODABLE = (ValueError, TypeError, LookupError, ArithmeticError, AttributeError, struct.error)

_FACTORIES: dict[str, Any] = {
    cls.__name__: cls
    for cls in (
        *(bool, int, float, complex, str, bytes, bytearray, list, tuple, dict, set, frozenset),
        *(collections.deque, collections.OrderedDict, collections.Counter, decimal.Decimal, fractions.Fraction),
    )
}
_FACTORY_NAMES = {cls: name for name, cls in _FACTORIES.items()}

_MAX_FRACTION_BITS = 1 << 20  # reducing a fraction takes the square of its length

_RANDOM_VERSION = 3
_RANDOM_STATE = struct.Struct("<625I")

T = TypeVar("T")


def expect(cls: type[T], value: Any) -> T:
    """``value``, if it is exactly a ``cls``: most constructors would take more than was ever written."""
    if type(value) is not cls:
        raise TypeError(f"{cls.__name__} expected, not {type(value).__name__}")
    return value


def decode_blob(plain: Any) -> bytes:
    return expect(StoredBuffer, plain).tobytes()


# Containers


def decode_tuple(plain: Any) -> tuple[Any, ...]:
    return tuple(expect(list, plain))


def decode_set(plain: Any) -> set[Any]:
    return set(expect(list, plain))


def decode_frozenset(plain: Any) -> frozenset[Any]:
    return frozenset(expect(list, plain))


def decode_bytearray(plain: Any) -> bytearray:
    return bytearray(expect(bytes, plain))


def encode_deque(value: collections.deque[Any]) -> Any:
    return [value.maxlen, list(value)]


def decode_deque(plain: Any) -> collections.deque[Any]:
    maxlen, items = plain
    return collections.deque(expect(list, items), maxlen)


def decode_ordered_dict(plain: Any) -> collections.OrderedDict[Any, Any]:
    return collections.OrderedDict(expect(dict, plain))


def decode_counter(plain: Any) -> collections.Counter[Any]:
    return collections.Counter(expect(dict, plain))


def encode_default(value: collections.defaultdict[Any, Any]) -> Any:
    factory = value.default_factory
    if factory is None:
        return [None, dict(value)]
    try:
        return [_FACTORY_NAMES[factory], dict(value)]
    except (KeyError, TypeError):
        raise UnsupportedValueError(
            f"a defaultdict with the factory {factory!r} can't be kept exactly; use a plain factory such as list, dict"
            " or int, or keep dict(value)",
            reason="the factory is code",
        ) from None


def decode_default(plain: Any) -> collections.defaultdict[Any, Any]:
    name, items = plain
    return collections.defaultdict(None if name is None else _FACTORIES[name], expect(dict, items))


# Numbers


def encode_int(value: int) -> bytes:
    return value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)


def decode_int(plain: Any) -> int:
    return int.from_bytes(expect(bytes, plain), "little", signed=True)


def encode_complex(value: complex) -> Any:
    return [value.real, value.imag]


def decode_complex(plain: Any) -> complex:
    real, imaginary = plain
    return complex(expect(float, real), expect(float, imaginary))


def encode_range(value: range) -> Any:
    return [value.start, value.stop, value.step]


def decode_range(plain: Any) -> range:
    start, stop, step = (expect(int, item) for item in plain)
    return range(start, stop, step)


def decode_decimal(plain: Any) -> decimal.Decimal:
    return decimal.Decimal(expect(str, plain))


def encode_fraction(value: fractions.Fraction) -> Any:
    if max(value.numerator.bit_length(), value.denominator.bit_length()) > _MAX_FRACTION_BITS:
        raise UnsupportedValueError(
            f"a Fraction of integers of more than {_MAX_FRACTION_BITS:,} bits can't be kept; keep the two integers",
            reason="fraction too large",
        )
    return [value.numerator, value.denominator]


def decode_fraction(plain: Any) -> fractions.Fraction:
    numerator, denominator = (expect(int, item) for item in plain)
    if max(numerator.bit_length(), denominator.bit_length()) > _MAX_FRACTION_BITS:
        raise ValueError("a fraction that is too large")
    return fractions.Fraction(numerator, denominator)


def encode_random(value: random.Random) -> Any:
    version, words, gauss_next = value.getstate()
    return [version, _RANDOM_STATE.pack(*words), gauss_next]


def decode_random(plain: Any) -> random.Random:
    version, words, gauss_next = plain
    if version != _RANDOM_VERSION or type(gauss_next) not in (float, type(None)):
        raise ValueError("not a state of random.Random")
    value = random.Random(0)
    value.setstate((version, _RANDOM_STATE.unpack(words), gauss_next))
    return value


# Time


def encode_datetime(value: datetime.datetime) -> Any:
    return [value.replace(tzinfo=None).isoformat(), value.fold, _kept_zone(value.tzinfo)]


def decode_datetime(plain: Any) -> datetime.datetime:
    text, fold, zone = plain
    return datetime.datetime.fromisoformat(text).replace(fold=fold, tzinfo=zone)


def encode_time(value: datetime.time) -> Any:
    return [value.replace(tzinfo=None).isoformat(), value.fold, _kept_zone(value.tzinfo)]


def decode_time(plain: Any) -> datetime.time:
    text, fold, zone = plain
    return datetime.time.fromisoformat(text).replace(fold=fold, tzinfo=zone)


def _kept_zone(zone: datetime.tzinfo | None) -> datetime.tzinfo | None:
    if zone is None or type(zone) in (datetime.timezone, zoneinfo.ZoneInfo):
        return zone
    raise UnsupportedValueError(
        f"a time zone of type {type(zone).__module__}.{type(zone).__qualname__} can't be kept exactly; use"
        " datetime.timezone or zoneinfo.ZoneInfo",
        reason="foreign time zone",
    )


def encode_timedelta(value: datetime.timedelta) -> Any:
    return [value.days, value.seconds, value.microseconds]


def decode_timedelta(plain: Any) -> datetime.timedelta:
    days, seconds, microseconds = (expect(int, item) for item in plain)
    return datetime.timedelta(days, seconds, microseconds)


def encode_timezone(value: datetime.timezone) -> Any:
    return list(value.__getinitargs__())  # type: ignore[attr-defined]  # tells a given name from a derived one


def decode_timezone(plain: Any) -> datetime.timezone:
    return datetime.timezone(*expect(list, plain))


def encode_zone(value: zoneinfo.ZoneInfo) -> Any:
    if value.key is None:
        raise UnsupportedValueError(
            "a ZoneInfo that was read from a file without a key can't be kept exactly; use ZoneInfo(key)",
            reason="time zone without a key",
        )
    return value.key


def decode_zone(plain: Any) -> zoneinfo.ZoneInfo:
    try:
        return zoneinfo.ZoneInfo(expect(str, plain))
    except zoneinfo.ZoneInfoNotFoundError as error:
        raise CodecError(
            f"the time zone {plain!r} is not known on this machine; install the package tzdata", reason="no time zone"
        ) from error
    except OSError as error:  # it names a directory, or is too long for a name
        raise CodecError(
            f"the time zone {plain[:99]!r} can't be read on this machine: {error.strerror}", reason="no time zone"
        ) from error


# Names and places


def encode_uuid(value: uuid.UUID) -> Any:
    safe = value.is_safe
    return str(value) if safe is uuid.SafeUUID.unknown else [str(value), safe.value]


def decode_uuid(plain: Any) -> uuid.UUID:
    if type(plain) is list:
        text, safe = plain
        return uuid.UUID(expect(str, text), is_safe=uuid.SafeUUID(safe))
    return uuid.UUID(expect(str, plain))


def encode_path(value: pathlib.PurePath) -> Any:
    return [type(value).__name__, str(value)]


def decode_path(plain: Any) -> pathlib.PurePath:
    name, text = plain
    if name not in PATH_CLASSES:
        raise ValueError(f"unknown class of paths {name!r}")
    try:
        path: pathlib.PurePath = getattr(pathlib, name)(expect(str, text))
    except NotImplementedError as error:
        raise CodecError(
            f"a {name} ({text!r}) can't be made on this operating system; keep a pure path where stores move between"
            " systems",
            reason="path of another system",
        ) from error
    return path
