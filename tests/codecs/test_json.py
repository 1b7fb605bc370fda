"""What is particular to JSON: one readable line, escapes, numbers that JSON has no notation for."""

from __future__ import annotations

import json
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given

from tests.codecs.strategies import Point, identical, through_entry, values
from trax.codecs import get_codec
from trax.errors import CorruptionError

CODEC = get_codec("json")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (
            {"step": 1, "energy": -1.5, "ok": True, "none": None},
            '{"step": 1, "energy": -1.5, "ok": true, "none": null}',
        ),
        ("Grüße\n", '"Grüße\\n"'),
        ((1, [2]), '{"$tuple": [1, [2]]}'),
        (2**70, "1180591620717411303424"),
        (1 << 2048, '{"$int": "0x1' + "0" * 512 + '"}'),
        (float("nan"), '{"$float": "7ff8000000000000"}'),
        (-float("inf"), '{"$float": "fff0000000000000"}'),
        (b"abc", '{"$bytes": "YWJj"}'),
        ({1: 2}, '{"$dict": [[1, 2]]}'),
        ({"$tuple": [1]}, '{"$dict": [["$tuple", [1]]]}'),
        ({"$a": 1, "b": {}}, '{"$dict": [["$a", 1], ["b", {}]]}'),
        (np.float64(0.1), '{"$numpy.scalar": ["<f8", 0.1]}'),
        (Point(1, (2,)), '{"$type": ["tests.Point", {"x": 1, "y": {"$tuple": [2]}}]}'),
    ],
)
def test_the_text(value: Any, text: str) -> None:
    assert CODEC.encode(value, "state").decode() == text
    assert identical(CODEC.decode(text.encode()), value)


@given(value=values)
def test_it_is_one_line_of_json(value: Any) -> None:
    text = CODEC.encode(value, "state")
    assert b"\n" not in text
    assert b"\r" not in text
    json.loads(text.decode("utf-8", "surrogatepass"))


def test_a_low_limit_of_digits_does_not_matter() -> None:
    before = sys.get_int_max_str_digits()
    sys.set_int_max_str_digits(640)
    try:
        for value in (10**616, (1 << 2048) - 1, 1 << 2048, -(1 << 2049), 10**5000, -(10**5000)):
            assert through_entry(CODEC, {"x": [value]}) == {"x": [value]}
    finally:
        sys.set_int_max_str_digits(before)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b"\xff",
        b"NaN",
        b"[Infinity]",
        b"1 2",
        b'{"$unknown": 1}',
        b'{"$tuple": 1}',
        b'{"$tuple": [], "x": 1}',
        b'{"x": 1, "$tuple": []}',
        b'{"$tuple": [], "$set": []}',
        b'{"$set": [[]]}',
        b'{"$dict": [1]}',
        b'{"$dict": [[[], 1]]}',
        b'{"$float": "7f"}',
        b'{"$float": 1}',
        b'{"$bytes": "a"}',
        b'{"$bytes": "YW Jj"}',
        b'{"$int": "x"}',
        b'{"$buffer": 0}',
        b'{"$type": []}',
        b'{"$blob": 1}',
        b'{"$": 1}',
        b'{"$numpy.unknown": 1}',
        b'{"$Fraction": [1, 0]}',
        b'{"$Decimal": "x"}',
        b'{"$range": [0, 1, 0]}',
        b'{"$datetime": ["2020-01-01T00:00:00", 2, null]}',
        b'{"$ZoneInfo": "../../etc/passwd"}',
        b'{"$Path": ["Popen", "x"]}',
        b'{"$Path": ["Path", "x"]}',
        b'{"$defaultdict": ["eval", {}]}',
        b'{"$Random": [3, {"$bytes": ""}, null]}',
        b'{"$numpy.BitGenerator": ["eval", {}, null]}',
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b"9" * 5000,
    ],
    ids=lambda text: text[:40].decode("latin-1"),
)
def test_undecodable_text_is_damage(text: bytes) -> None:
    with pytest.raises(CorruptionError):
        CODEC.decode(text)


def test_a_stack_that_is_used_up_is_no_damage() -> None:
    data = CODEC.encode([[[[[[["brackets [[[["]]]]]]], "state")

    def descend() -> None:
        CODEC.decode(data)
        descend()

    with pytest.raises(RecursionError):
        descend()


def test_many_lines_by_their_lengths() -> None:
    lines = [CODEC.encode(value, "state") for value in (1, "ü", (2, 3))]
    assert list(CODEC.decode_many(b"".join(lines), [len(line) for line in lines])) == [1, "ü", (2, 3)]
    with pytest.raises(CorruptionError, match="were to be"):
        CODEC.decode_many(b"".join(lines), [1])
    with pytest.raises(CorruptionError):
        CODEC.decode_many(b"12", [0, 2])
