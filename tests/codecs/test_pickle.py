"""What is particular to pickle: whose error is whose, and buffers beside the pickle."""

from __future__ import annotations

import pickle
import threading
from typing import Any

import numpy as np
import pytest

from tests.codecs.strategies import MemorySource, identical, through_value
from trax.codecs import get_codec
from trax.codecs.limits import OUT_OF_BAND_BYTES
from trax.errors import CodecError, CorruptionError, InvalidArgumentError, UnsupportedValueError

CODEC = get_codec("pickle")


class Unwilling:
    def __reduce__(self) -> Any:
        raise TypeError("mine")


class Unreadable:
    def __reduce__(self) -> Any:
        return (Unreadable, (), {"x": 1})

    def __setstate__(self, state: Any) -> None:
        raise EOFError("mine")


@pytest.mark.parametrize("value", [lambda: 1, threading.Lock(), (x for x in "abc"), type("Gone", (), {})()])
def test_what_can_not_be_pickled_is_refused(value: Any) -> None:
    for encode in (CODEC.encode, CODEC.encode_value):
        with pytest.raises(UnsupportedValueError, match="state: pickle can't keep it") as caught:
            encode([value], "state")
        assert isinstance(caught.value.__cause__, (pickle.PicklingError, TypeError, AttributeError))
        assert caught.value.location == "state"


def test_the_callers_own_errors_pass_with_a_note() -> None:
    with pytest.raises(TypeError, match="mine") as caught:
        CODEC.encode(Unwilling(), "state")
    assert type(caught.value) is TypeError
    assert caught.value.__notes__ == ["raised while trax pickled state"]
    data = CODEC.encode(Unreadable(), "state")
    with pytest.raises(EOFError, match="mine") as caught_eof:
        CODEC.decode(data)
    assert caught_eof.value.__notes__ == ["raised while trax unpickled a value"]


@pytest.mark.parametrize(
    "data", [b"", b"\x80", b"\x80\x05", b"\x80\x63.", b"garbage", b"\x80\x05\x97.", b"\x80\x05h\x09."]
)
def test_undecodable_bytes_are_damage(data: bytes) -> None:
    with pytest.raises(CorruptionError):
        CODEC.decode(data)


@pytest.mark.parametrize("data", [b"cno_such_module\nX\n.", b"cbuiltins\nno_such_name\n."])
def test_a_class_that_is_not_there_is_named(data: bytes) -> None:
    with pytest.raises(CodecError, match="no_such"):
        CODEC.decode(data)


def test_large_arrays_lie_beside_the_pickle() -> None:
    array = np.arange(OUT_OF_BAND_BYTES, dtype="f8")
    value = {"a": array, "f": array.reshape(2, -1).T, "small": array[:3].copy(), "strided": array[::2]}
    encoded = CODEC.encode_value(value, "state")
    assert encoded.buffers[0].nbytes == array.nbytes
    assert np.shares_memory(np.frombuffer(next(encoded.buffers[0].chunks(1 << 30)), "f8"), array)
    back = through_value(CODEC, value)
    assert identical(value, back)
    assert back["a"].flags.writeable
    mapped = through_value(CODEC, value, mmap=True)
    assert identical(value, mapped)
    assert not mapped["a"].flags.writeable


def test_a_missing_buffer_is_damage() -> None:
    encoded = CODEC.encode_value(np.zeros(OUT_OF_BAND_BYTES), "state")
    source = MemorySource(encoded)
    source.stored = []
    with pytest.raises(CorruptionError, match="there is no buffer 0"):
        CODEC.decode_value(encoded.head, source)
    with pytest.raises(CorruptionError):
        CODEC.decode(encoded.head)


def test_many_pickles_by_their_lengths() -> None:
    data = [CODEC.encode(value, "state") for value in (1, "x", {2})]
    assert list(CODEC.decode_many(b"".join(data), [len(one) for one in data])) == [1, "x", {2}]
    with pytest.raises(CorruptionError, match="were to be"):
        CODEC.decode_many(b"".join(data), [1])


def test_an_unknown_codec_is_refused_with_the_known_ones() -> None:
    with pytest.raises(InvalidArgumentError, match="no codec 'yaml'; choose one of 'msgpack', 'json', 'pickle'"):
        get_codec("yaml")
    assert [get_codec(name).name for name in ("msgpack", "json", "pickle")] == ["msgpack", "json", "pickle"]
