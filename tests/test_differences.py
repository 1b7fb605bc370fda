"""``first_difference``: what a store keeps has none, everything else has one, and it is where the two part."""

from __future__ import annotations

import collections
import datetime
import enum
import math
import random
import struct
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import PurePosixPath
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings

from trax.codecs import get_codec
from trax.testing import first_difference
from trax.testing.differences import difference, located

np = pytest.importorskip("numpy")

from tests.codecs.strategies import Cell, Particle, identical, through_value, values  # noqa: E402


class Pair(NamedTuple):
    one: Any
    other: Any


class Shade(enum.Enum):
    LIGHT = 1
    DARK = 2


@dataclass
class Leaf:
    weight: float
    names: list[str] = field(default_factory=list)


class Plain:
    def __init__(self, **attributes: Any) -> None:
        self.__dict__.update(attributes)


class Slotted:
    __slots__ = ("x", "y")

    def __init__(self, **attributes: Any) -> None:
        for name, value in attributes.items():
            setattr(self, name, value)


class Marked(dict[str, int]):
    mark = 0


def nan(payload: int) -> float:
    return float(struct.unpack("<d", struct.pack("<Q", 0x7FF8 << 48 | payload))[0])


def generator(seed: int) -> Any:
    return np.random.Generator(np.random.PCG64(seed))


def marked(mark: int) -> Marked:
    value = Marked(a=1)
    value.mark = mark
    return value


def in_itself() -> list[Any]:
    value: list[Any] = [1]
    value.append(value)
    return value


record = np.dtype([("x", "i2"), ("y", "f4")], align=True)
with_title = Plain(a=[1, {"b": (2, 3)}])

CASES = [
    (1, True, "value: int 1 and bool True"),
    (0.0, -0.0, "value: 0.0 and -0.0"),
    (math.nan, nan(1), "value: nan (7ff8000000000000) and nan (7ff8000000000001)"),
    (complex(0, 0.0), complex(0, -0.0), "value: 0j and -0j"),
    ([1, [2, 3]], [1, [2, 4]], "value[1][1]: 3 and 4"),
    ([1, 2], (1, 2), "value: list [1, 2] and tuple (1, 2)"),
    ([1, 2], [1], "value[1]: 2 and nothing (of 2 and 1 items)"),
    ([1, 2], [0, 1, 2], "value[0]: 1 and 0 (of 2 and 3 items)"),
    ({"a": 1}, {"b": 1}, "value['a']: 1 and nothing"),
    ({"a": 1}, {"a": 1, "b": 2}, "value['b']: nothing and 2"),
    ({"a": 1, "b": 2}, {"b": 2, "a": 1}, "value: the key 'a' and the key 'b' in the same place"),
    ({1: "x"}, {True: "x"}, "value: the key 1 and the key True in the same place"),
    ({"a": {"b": 1}}, {"a": {"b": 2}}, "value['a']['b']: 1 and 2"),
    ({1, 2}, {1, 3}, "value: has 2 and lacks 2"),
    ({1}, {1, 3}, "value: lacks 3 and has 3"),
    ({1}, {1.0}, "value: has 1 and lacks 1"),
    (collections.deque([1], 3), collections.deque([1], 4), "value.maxlen: 3 and 4"),
    (collections.deque([1]), collections.deque([2]), "value[0]: 1 and 2"),
    (
        collections.defaultdict(int),
        collections.defaultdict(list),
        "value.default_factory: <class 'int'> and <class 'list'>",
    ),
    (collections.Counter("ab"), collections.Counter("abb"), "value['b']: 1 and 2"),
    ("short", "shirt", "value: 'short' and 'shirt'"),
    ("x" * 99 + "ab", "x" * 99 + "ac", "value: …'xxxxxxxxxab'… and …'xxxxxxxxxac'… (from character 90 on)"),
    (b"x" * 99, b"x" * 98, "value: …b'xxxxxxxxxxx'… and …b'xxxxxxxxxx'… (from byte 88 on)"),
    (Fraction(1, 3), Fraction(2, 3), "value: Fraction(1, 3) and Fraction(2, 3)"),
    (PurePosixPath("a"), PurePosixPath("b"), "value: PurePosixPath('a') and PurePosixPath('b')"),
    (Shade.LIGHT, Shade.DARK, "value: <Shade.LIGHT: 1> and <Shade.DARK: 2>"),
    (Pair(1, [2]), Pair(1, [3]), "value.other[0]: 2 and 3"),
    (Leaf(1.0, ["a"]), Leaf(1.0, ["b"]), "value.names[0]: 'a' and 'b'"),
    (Particle(1, 2.0), Particle(1, 3.0), "value.mass: 2.0 and 3.0"),
    (Cell(1, [2]), Cell(1, [3]), "value.column[0]: 2 and 3"),
    (Plain(a=1), Plain(a=2), "value.a: 1 and 2"),
    (Plain(a=1), Plain(b=2), "value.a: 1 and nothing"),
    (Slotted(x=1, y=2), Slotted(x=1, y=3), "value.y: 2 and 3"),
    (marked(1), marked(2), "value.mark: 1 and 2"),
    (int, float, "value: <class 'int'> and <class 'float'>"),
    (1 << 20_000, 1 << 20_001, "value: an int of 20,001 bits and an int of 20,002 bits"),
    (in_itself(), [1, [1, 1]], "value[1][1]: list [1, [1, [1, [...]]]] and int 1"),
    (np.zeros(3), np.zeros(3, "f4"), "value.dtype: float64 and float32"),
    (np.zeros(3), np.zeros((3, 1)), "value.shape: (3,) and (3, 1)"),
    (np.zeros((2, 2)), np.zeros((2, 2), order="F"), "value: an array in C order and an array in F order"),
    (np.arange(4.0), np.array([0, 1, 5, 6.0]), "value[2]: 2.0 and 5.0 (2 of 4 elements differ)"),
    (np.zeros((2, 2)), -np.zeros((2, 2)), "value[0, 0]: 0.0 and -0.0 (4 of 4 elements differ)"),
    (np.array(1), np.array(2), "value[]: 1 and 2"),
    (np.array([(1, 2.0)], record), np.array([(1, 3.0)], record), "value['y'][0]: 2.0 and 3.0"),
    (np.array(["ab"]), np.array(["ac"]), "value[0]: 'ab' and 'ac'"),
    (np.array([1, [2]], object), np.array([1, [3]], object), "value[1][0]: 2 and 3"),
    (np.array("2020", "M8[D]"), np.array("2021", "M8[D]"), "value[]: "),
    (np.float64(1), np.float64(2), "value: 1.0 and 2.0"),
    (np.float64(1), 1.0, "value: float64 "),
    (np.str_("a"), np.str_("b"), "value: 'a' and 'b'"),
    (np.dtype("f4"), np.dtype(">f4"), "value: float32 and >f4"),
    (generator(1), generator(2), "value.bit_generator.state['state']['state']: "),
    (np.random.RandomState(1), np.random.RandomState(2), "value.get_state(legacy=False)['state']['key'][0]: 1 and 2"),
    (np.random.SeedSequence(1), np.random.SeedSequence(2), "value.state['entropy']: 1 and 2"),
    (random.Random(1), random.Random(2), "value.getstate()[1][1]: "),
    (np.ma.masked_array([1, 2], [0, 1]), np.ma.masked_array([1, 2], [0, 0]), "value.mask[1]: True and False"),
    (
        datetime.datetime(2020, 1, 1, fold=0),
        datetime.datetime(2020, 1, 1, fold=1),
        "value: datetime.datetime(2020, 1, 1, 0, 0) and datetime.datetime(2020, 1, 1, 0, 0, fold=1)",
    ),
]


@pytest.mark.parametrize(("one", "other", "told"), CASES, ids=lambda value: value if isinstance(value, str) else "")
def test_the_place_and_both_sides_are_told(one: Any, other: Any, told: str) -> None:
    found = first_difference(one, other)
    assert found is not None
    assert found.startswith(told)
    assert first_difference(other, one) is not None
    assert first_difference(one, one) is None


def test_the_same_is_no_difference() -> None:
    for one, other in (
        ([nan(5), {"a": -0.0}], [nan(5), {"a": -0.0}]),
        ({nan(5)}, {nan(5)}),
        (Plain(a=[1]), Plain(a=[1])),
        (in_itself(), in_itself()),
        (np.arange(6).reshape(2, 3)[:, ::2], np.array([[0, 2], [3, 5]])),
        (generator(3), generator(3)),
        (len, len),
    ):
        assert first_difference(one, other) is None


@pytest.mark.skipif(np.finfo(np.longdouble).nmant != 63, reason="a long double has no padding here")
def test_padding_is_not_compared() -> None:
    one, other = np.ones(3, "longdouble"), np.ones(3, "longdouble")
    other.view("u1")[10::16] = 7
    assert first_difference(one, other) is None
    other.view("u1")[9] = 7
    assert first_difference(one, other) is not None
    padded = np.dtype([("x", "i1"), ("y", "i4")], align=True)
    one, other = np.zeros(2, padded), np.zeros(2, padded)
    other.view("u1")[1] = 7
    assert first_difference(one, other) is None


def test_a_place_can_be_found_again() -> None:
    found = difference(Plain(a=[1, {"b": (2, 3)}]), with_title)
    assert found is None
    found = difference({"x": Plain(a=[1, {"b": (2, 4)}])}, {"x": with_title})
    assert found is not None and found.place("state") == "state['x'].a[1]['b'][1]"
    assert located({"x": with_title}, found.path) == (True, 3)
    assert located({"x": Plain(a=[])}, found.path) == (False, None)


@settings(max_examples=150, suppress_health_check=list(HealthCheck))
@given(values)
def test_what_a_codec_keeps_comes_back_without_a_difference(value: Any) -> None:
    assert first_difference(value, through_value(get_codec("msgpack"), value)) is None


@settings(max_examples=150, suppress_health_check=list(HealthCheck))
@given(values, values)
def test_it_agrees_with_the_comparison_of_the_tests_of_the_codecs(one: Any, other: Any) -> None:
    """Which was written apart from it."""
    codec = get_codec("msgpack")
    one, other = through_value(codec, one), through_value(codec, other)  # an array without an order gets one
    same = identical(one, other)
    assert (first_difference(one, other) is None) == same
    assert (first_difference(other, one) is None) == same
