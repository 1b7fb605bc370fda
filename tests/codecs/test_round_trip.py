"""What comes back equals what went in, type for type and bit for bit."""

from __future__ import annotations

import collections
import pathlib
import random
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings

from tests.codecs.strategies import Particle, identical, through_entry, through_value, values
from trax.codecs import Codec, get_codec
from trax.codecs.limits import MAX_DEPTH, OUT_OF_BAND_BYTES

exact = pytest.mark.parametrize("codec", [get_codec("msgpack"), get_codec("json")], ids=lambda codec: codec.name)
every = pytest.mark.parametrize(
    "codec", [get_codec("msgpack"), get_codec("json"), get_codec("pickle")], ids=lambda codec: codec.name
)


@exact
@settings(max_examples=400)
@given(value=values)
def test_an_entry_comes_back_as_it_was(codec: Codec, value: Any) -> None:
    assert identical(value, through_entry(codec, value))


@exact
@settings(max_examples=200)
@given(value=values)
def test_a_checkpointed_value_comes_back_as_it_was(codec: Codec, value: Any) -> None:
    assert identical(value, through_value(codec, value))


@exact
@settings(max_examples=50)
@given(one=values, two=values, three=values)
def test_many_entries_come_back_at_once(codec: Codec, one: Any, two: Any, three: Any) -> None:
    encoded = [codec.encode(value, "state") for value in (one, two, three)]
    decoded = codec.decode_many(b"".join(encoded), [len(data) for data in encoded])
    assert identical([one, two, three], list(decoded))


LARGE = OUT_OF_BAND_BYTES


@every
@pytest.mark.parametrize("mmap", [False, True])
def test_large_parts_anywhere_come_back_in_order(codec: Codec, mmap: bool) -> None:
    value = {
        "array": np.arange(LARGE, dtype=">i4"),
        "bytes": b"x" * LARGE,
        "inner": [
            np.asfortranarray(np.arange(LARGE, dtype="f8").reshape(2, -1)),
            (bytearray(LARGE), {"b": b"y" * LARGE}),
        ],
        "strided": np.arange(LARGE, dtype="c16")[::3],
        "typed": Particle(np.arange(LARGE).view("M8[s]"), b"z" * LARGE),
    }
    assert identical(value, through_value(codec, value, mmap=mmap))
    assert identical(value, through_entry(codec, value))


@every
def test_nothing_is_shared_with_the_caller(codec: Codec) -> None:
    value = {"a": [1], "array": np.zeros(3)}
    back = through_entry(codec, value)
    value["a"].append(2)  # type: ignore[attr-defined]
    value["array"][0] = 1  # type: ignore[index]
    assert identical({"a": [1], "array": np.zeros(3)}, back)


@every
def test_random_streams_go_on_where_they_were(codec: Codec) -> None:
    plain, numpy, legacy = random.Random(1), np.random.default_rng(2), np.random.RandomState(3)
    for generator in (plain, numpy, legacy):
        assert generator.random() >= 0
    legacy.standard_normal()  # keeps the second of a pair for the next call
    plain.gauss(0, 1)
    plain_back, numpy_back, legacy_back = through_entry(codec, [plain, numpy, legacy])
    assert [plain.gauss(0, 1), plain.random()] == [plain_back.gauss(0, 1), plain_back.random()]
    assert identical(numpy.normal(size=9), numpy_back.normal(size=9))
    assert identical(numpy.spawn(2)[1].random(), numpy_back.spawn(2)[1].random())
    assert identical(legacy.standard_normal(9), legacy_back.standard_normal(9))


def nested(depth: int, wrap: Any) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = wrap(value)
    return value


WRAPS = [lambda value: [value], lambda value: {"a": value}, lambda value: (value,), lambda value: {1: value}, Particle]


@exact
@pytest.mark.parametrize("wrap", WRAPS, ids=["list", "dict", "tuple", "dict of ints", "dataclass"])
def test_what_is_accepted_can_be_read_at_any_depth(codec: Codec, wrap: Any) -> None:
    value = nested(MAX_DEPTH - 2, wrap)
    assert identical(through_entry(codec, value), value)
    with pytest.raises(TypeError, match="state: nested too deeply or contains itself"):
        codec.encode(nested(MAX_DEPTH + 2, wrap), "state")


@every
def test_a_value_that_contains_itself_is_refused(codec: Codec) -> None:
    loop: list[Any] = []
    loop.append((loop,))
    if codec.name == "pickle":
        loop.clear()
        for _ in range(100_000):
            loop = [loop]
    for encode in (codec.encode, codec.encode_value):
        with pytest.raises(TypeError, match="nested too deeply or contains itself") as caught:
            encode(loop, "state")
        assert caught.value.location == "state"  # type: ignore[attr-defined]


def test_an_ordered_dict_is_no_dict() -> None:  # the comparison itself must be able to fail
    pairs: list[tuple[Any, Any]] = [
        (collections.OrderedDict(), {}),
        (True, 1),
        (0.0, -0.0),
        ({1: 2, 3: 4}, {3: 4, 1: 2}),
        (np.zeros(2, "<i4"), np.zeros(2, ">i4")),
        (np.zeros((2, 2)), np.asfortranarray(np.zeros((2, 2)))),
        (np.longlong(1), np.int64(1)),
        (pathlib.PurePosixPath("a"), pathlib.Path("a")),
        (random.Random(1), random.Random(2)),
        (collections.deque([1], 1), collections.deque([1], 2)),
    ]
    for one, other in pairs:
        assert identical(one, one)
        assert not identical(one, other)
