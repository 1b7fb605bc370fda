"""A value that can't be kept exactly is refused, with the place where it lies and what to do instead."""

from __future__ import annotations

import collections
import dataclasses
import datetime
import enum
import functools
import io
import math
import random
import threading
import zoneinfo
from typing import Any, NamedTuple

import msgpack
import numpy as np
import pytest

from tests.codecs.strategies import Particle
from trax.codecs import Codec, get_codec
from trax.codecs import limits as trax_limits
from trax.errors import UnsupportedValueError, ValueTooLargeError

exact = pytest.mark.parametrize("codec", [get_codec("msgpack"), get_codec("json")], ids=lambda codec: codec.name)


class Plain:
    pass


class Weekday(enum.IntEnum):
    MONDAY = 1


@dataclasses.dataclass
class Unregistered:
    x: int = 1


class Pair(NamedTuple):
    x: int = 1


class Label(str):
    __slots__ = ()


class Eastern(datetime.tzinfo):
    def utcoffset(self, moment: datetime.datetime | None) -> datetime.timedelta:
        return datetime.timedelta(hours=-5)

    dst = tzname = utcoffset  # type: ignore[assignment]


class Seeded(random.Random):
    pass


class Quantity(np.ndarray[Any, Any]):
    pass


def foreign(package: str, name: str) -> Any:
    """An instance of a class that says it comes from ``package``, which need not be installed."""
    return type(name, (), {"__module__": f"{package}.core"})()


MODULE = __name__
REFUSED = {
    "object": (Plain(), f"register it: trax.register({MODULE}.Plain, encode=…, decode=…)"),
    "enum": (Weekday.MONDAY, f"register it: trax.register({MODULE}.Weekday)"),
    "dataclass": (Unregistered(), f"register it: trax.register({MODULE}.Unregistered)"),
    "named tuple": (Pair(), f"register it: trax.register({MODULE}.Pair)"),
    "subclass": (Label("x"), "it is a subclass of str: keep str(value), or register it"),
    "memoryview": (memoryview(b"x"), "keep bytes(view)"),
    "ExtType": (msgpack.ExtType(1, b"\x90"), "msgpack.ext.ExtType can't be kept exactly"),
    "Timestamp": (msgpack.Timestamp(1, 2), "Timestamp can't be kept exactly"),
    "function": (math.sin, "code is not kept"),
    "lambda": (lambda: 1, "code is not kept"),
    "class": (dict, "code is not kept"),
    "module": (math, "code is not kept"),
    "partial": (functools.partial(int), "code is not kept"),
    "generator": ((x for x in "abc"), "keep list(…) of what it yields"),
    "iterator": (iter([]), "keep list(…) of what it yields"),
    "file": (io.StringIO(), "keep its name and its position"),
    "lock": (threading.Lock(), "it belongs to this process"),
    "thread": (threading.Thread(), "it belongs to this process"),
    "time zone": (datetime.datetime(2020, 1, 1, tzinfo=Eastern()), "use datetime.timezone or zoneinfo.ZoneInfo"),
    "factory": (collections.defaultdict(lambda: 1), "use a plain factory"),
    "random": (Seeded(), "Seeded can't be kept exactly"),
    "system random": (random.SystemRandom(), "SystemRandom can't be kept exactly"),
    "pandas": (foreign("pandas", "DataFrame"), "to_dict('list')"),
    "torch": (foreign("torch", "Tensor"), "value.detach().cpu().numpy()"),
    "object array": (np.array([None]), "its items lie outside the array"),
    "object field": (np.zeros(1, [("a", "i4"), ("b", "O")]), "its items lie outside the array"),
    "metadata": (np.zeros(1, np.dtype("i4", metadata={"unit": "m"})), "it carries metadata ({'unit': 'm'})"),
    "inner metadata": (np.zeros(1, [("a", np.dtype("i4", metadata={"u": 1}))]), "it carries metadata"),
    "title": (np.dtype([((7, "a"), "i4")]), "the title 7 is not a str"),
    "object dtype": (np.dtype(object), "its items lie outside the array"),
    "masked": (np.ma.array([1], mask=[True]), "keep value.data and value.mask"),
    "recarray": (np.zeros(1, [("a", "i4")]).view(np.recarray), "keep value.view(numpy.ndarray)"),
    "matrix": (np.array([[1]]).view(np.matrix), "keep numpy.asarray(value)"),
    "array subclass": (np.zeros(1).view(Quantity), "keep numpy.asarray(value), or register it"),
    "seed pool": (np.random.SeedSequence(1, pool_size=2000), "a pool of 2000 words"),
}


@exact
@pytest.mark.parametrize("kind", REFUSED)
def test_it_is_refused_with_advice(codec: Codec, kind: str) -> None:
    value, advice = REFUSED[kind]
    for encode in (codec.encode, codec.encode_value):
        with pytest.raises(UnsupportedValueError) as caught:
            encode({"model": [0, 1, 2, value]}, "state")
        assert str(caught.value).startswith("state['model'][3]: ")
        assert advice in str(caught.value)
        assert caught.value.location == "state['model'][3]"


@exact
@pytest.mark.skipif(not hasattr(np.dtypes, "StringDType"), reason="NumPy has variable-width strings from 2.0 on")
def test_arrays_of_variable_width_strings_are_refused(codec: Codec) -> None:
    with pytest.raises(UnsupportedValueError, match="its items lie outside the array"):
        codec.encode(np.array(["a"], np.dtypes.StringDType()), "state")


@exact
def test_memory_maps_are_refused(codec: Codec, tmp_path: Any) -> None:
    mapped = np.memmap(tmp_path / "array", "u1", "w+", shape=(3,))
    with pytest.raises(UnsupportedValueError, match=r"keep numpy\.asarray\(value\)"):
        codec.encode(mapped, "state")


@exact
def test_a_zone_from_a_file_is_refused(codec: Codec) -> None:
    name = next(path for path in zoneinfo.TZPATH)
    with open(f"{name}/UTC", "rb") as file:
        zone = zoneinfo.ZoneInfo.from_file(file)
    with pytest.raises(UnsupportedValueError, match="without a key"):
        codec.encode(zone, "state")


LOCATED: list[tuple[Any, str]] = [
    (Plain(), "state"),
    ({"a": Plain()}, "state['a']"),
    ({("a", 1): Plain()}, "state[('a', 1)]"),
    ({Plain: 1}, "state[<class"),
    ([[], [1, (2, Plain())]], "state[1][1][1]"),
    (collections.deque([1, Plain()], 5), "state[1]"),
    (collections.OrderedDict(a=[Plain()]), "state['a'][0]"),
    (collections.defaultdict(list, {"a": [Plain()]}), "state['a'][0]"),
    ({"a": {1, Weekday}}, "state['a']{…}"),
    (Particle([1], {"m": Plain()}), "state.mass['m']"),
    ([Particle(Particle(Plain()))], "state[0].position.position"),
    ({"tags": [memoryview(b"")]}, "state['tags'][0]"),
]


@exact
@pytest.mark.parametrize(("value", "location"), LOCATED, ids=[location for _, location in LOCATED])
def test_the_place_is_named(codec: Codec, value: Any, location: str) -> None:
    with pytest.raises(UnsupportedValueError) as caught:
        codec.encode(value, "state")
    assert caught.value.location.startswith(location)
    assert str(caught.value).startswith(f"{location}")


@exact
def test_a_local_class_is_called_by_its_name(codec: Codec) -> None:
    @dataclasses.dataclass
    class Local:
        x: int

    with pytest.raises(UnsupportedValueError, match=r"trax\.register\(Local\)"):
        codec.encode(Local(1), "state")


@pytest.mark.parametrize("codec", [get_codec("msgpack"), get_codec("json"), get_codec("pickle")])
def test_an_entry_that_is_too_large_is_refused(codec: Codec, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trax_limits, "MAX_ENTRY_BYTES", 2_000_000)
    with pytest.raises(ValueTooLargeError, match="state: a log entry takes at most"):
        codec.encode(b"x" * 2_000_001, "state")
    codec.encode_value(b"x" * 2_000_001, "state")


def test_what_msgpack_has_no_length_for_is_refused() -> None:
    huge = bytes(1 << 32)  # never touched, so it takes no memory
    with pytest.raises(ValueTooLargeError, match="checkpoint a value of this size instead of logging it"):
        get_codec("msgpack").encode([huge], "state")
