"""Arrays: what is copied and what is not, what comes back, and what a damaged description can't do."""

from __future__ import annotations

import math
import random
import sys
import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.codecs.strategies import (
    ARRANGEMENTS,
    HAND_MADE_DTYPES,
    MemorySource,
    array_of,
    arrays,
    dtypes,
    identical,
    through_entry,
    through_value,
)
from trax.codecs import Codec, Encoded, for_background, get_codec
from trax.codecs.arrays import decode_array, decode_dtype, encode_dtype
from trax.codecs.buffers import MemoryBuffer, StridedBuffer
from trax.codecs.limits import OUT_OF_BAND_BYTES
from trax.errors import CorruptionError, UnsupportedValueError

MEBIBYTE = 1 << 20

exact = pytest.mark.parametrize("codec", [get_codec("msgpack"), get_codec("json")], ids=lambda codec: codec.name)
every = pytest.mark.parametrize(
    "codec", [get_codec("msgpack"), get_codec("json"), get_codec("pickle")], ids=lambda codec: codec.name
)


def peak_bytes(work: Callable[[], Any]) -> tuple[int, Any]:
    """How much memory ``work`` takes at its highest, beyond what was there before; and its result."""
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        result = work()
        return tracemalloc.get_traced_memory()[1] - before, result
    finally:
        tracemalloc.stop()


def layouts(size: int = 8 * MEBIBYTE) -> dict[str, Any]:
    flat = np.arange(size // 8, dtype="f8")
    square = flat.reshape(64, -1)
    return {
        "C": square,
        "F": square.T,
        "datetime64": flat.view("M8[us]"),
        "struct": flat.view([("a", "i4"), ("b", "f4")]),
        "strided": np.arange(size // 4, dtype="f8")[::2],
        "reversed": square[::-1, ::-1],
        "permuted": flat.reshape(16, 64, -1).transpose(1, 0, 2),
        "strided struct": np.arange(size // 4, dtype="f8").view([("a", "i4"), ("b", "f4")])[::2],
        "field": np.zeros(size // 8, [("a", "f8"), ("b", "f8")])["b"],
        "broadcast": np.broadcast_to(flat[:64], (size // 512, 64)),
        "bytes": b"x" * size,
    }


@exact
@pytest.mark.parametrize("layout", layouts(MEBIBYTE))
def test_a_large_value_is_written_without_a_copy(codec: Codec, layout: str) -> None:
    value = layouts()[layout]
    written = memoryview(value).tobytes() if type(value) is bytes else value.tobytes("A" if layout == "F" else "C")

    def encode_and_stream() -> Encoded:
        encoded = codec.encode_value({"x": value}, "state")
        start = 0
        for buffer in encoded.buffers:
            for chunk in buffer.chunks(65536):
                assert chunk.nbytes <= 65536
                assert chunk == memoryview(written)[start : start + chunk.nbytes]
                start += chunk.nbytes
        assert start == len(written)
        return encoded

    peak, encoded = peak_bytes(encode_and_stream)
    assert peak < 0.1 * len(written)
    assert [buffer.nbytes for buffer in encoded.buffers] == [len(written)]
    assert encoded.nbytes == len(encoded.head) + len(written)


@exact
@pytest.mark.parametrize("layout", ["C", "F", "struct", "strided", "bytes"])
def test_a_large_value_is_read_with_one_copy(codec: Codec, layout: str) -> None:
    value = layouts()[layout]
    encoded = codec.encode_value(value, "state")
    source = MemorySource(encoded)
    peak, back = peak_bytes(lambda: codec.decode_value(encoded.head, source))
    assert peak < 1.1 * encoded.nbytes
    assert identical(value, back)
    if type(back) is np.ndarray:
        assert back.flags.owndata
        assert back.flags.writeable


@exact
@pytest.mark.parametrize("layout", ["C", "F", "datetime64", "struct", "strided"])
def test_a_mapped_array_is_a_read_only_view(codec: Codec, layout: str) -> None:
    value = layouts()[layout]
    encoded = codec.encode_value(value, "state")
    source = MemorySource(encoded)
    peak, back = peak_bytes(lambda: codec.decode_value(encoded.head, source, mmap=True))
    assert peak < 0.1 * encoded.nbytes
    assert identical(value, back)
    assert not back.flags.writeable
    assert np.shares_memory(back, np.frombuffer(source.stored[0], "u1"))


@exact
def test_only_large_arrays_and_bytes_leave_the_head(codec: Codec) -> None:
    limit = OUT_OF_BAND_BYTES
    parts = [np.zeros(limit, "u1"), np.zeros(limit - 1, "u1"), b"x" * limit, b"x" * (limit - 1), np.zeros((limit, 0))]
    encoded = codec.encode_value(parts, "state")
    assert [buffer.nbytes for buffer in encoded.buffers] == [limit, limit]


@exact
def test_a_decoded_small_array_is_the_callers_own(codec: Codec) -> None:
    back = through_entry(codec, np.arange(3))
    assert back.flags.owndata
    assert back.flags.writeable


@every
def test_copied_buffers_do_not_follow_the_array(codec: Codec) -> None:
    array = np.zeros(2 * OUT_OF_BAND_BYTES)
    value = [array, array.reshape(64, -1).T, array[::2]]
    expected = through_value(codec, value)
    copied = for_background(codec.encode_value(value, "state"))
    array[:] = 1
    assert identical(codec.decode_value(copied.head, MemorySource(copied)), expected)


def test_buffers_are_copied_without_numpy_too(monkeypatch: pytest.MonkeyPatch) -> None:
    data = bytearray(np.arange(1 << 20, dtype="u4").tobytes())
    expected = bytes(data)
    monkeypatch.delitem(sys.modules, "numpy")
    (buffer,) = for_background(Encoded(b"", (MemoryBuffer(memoryview(data)),))).buffers
    data[:] = bytes(len(data))
    assert b"".join(buffer.chunks(1000)) == expected


@pytest.mark.parametrize("layout", ["C", "F", "struct", "strided", "bytes"])
def test_buffers_are_copied_once(layout: str) -> None:
    encoded = get_codec("msgpack").encode_value(layouts()[layout], "state")
    peak, _ = peak_bytes(lambda: for_background(encoded))
    limit_bytes = 0.1 * encoded.nbytes if layout == "bytes" else 1.2 * encoded.nbytes
    assert peak < limit_bytes


@settings(max_examples=200)
@given(array=arrays(), size=st.integers(1, 40))
def test_chunks_of_any_size_are_the_bytes(array: Any, size: int) -> None:
    if array.nbytes == 0:
        return
    buffer: Any = StridedBuffer(array)
    chunks = [bytes(chunk) for chunk in buffer.chunks(size)]
    assert max(map(len, chunks)) <= size
    items = array.view(f"V{array.itemsize}").tobytes()  # the gaps of a struct included
    assert b"".join(chunks) == items == buffer.tobytes()
    assert b"".join(MemoryBuffer(memoryview(items)).chunks(size)) == items


@exact
@pytest.mark.parametrize("arrangement", ARRANGEMENTS)
@pytest.mark.parametrize("dtype", HAND_MADE_DTYPES, ids=str)
def test_odd_dtypes_come_back_in_any_arrangement(codec: Codec, dtype: Any, arrangement: str) -> None:
    for shape in ((), (0,), (5,), (3, 4), (2, 0, 3), (20, 30, 10)):
        array = ARRANGEMENTS[arrangement](array_of(dtype, shape, random.Random(1)))
        assert identical(array, through_entry(codec, array))
        assert identical(array, through_value(codec, array))
        assert identical(array, through_value(codec, array, mmap=True))


def test_the_gaps_of_a_strided_struct_are_not_left_to_chance() -> None:
    dtype = np.dtype({"names": ["x", "y"], "formats": ["i2", "f4"], "offsets": [9, 1], "itemsize": 20})
    array = array_of(dtype, (50,), random.Random(1))[::2]
    encoded = get_codec("msgpack").encode(array, "state")
    assert array.view("V20").tobytes() in encoded
    assert b"".join(StridedBuffer(array).chunks(60)) == array.view("V20").tobytes()


class Subclass(np.void):  # type: ignore[misc]
    pass


def test_a_dtype_whose_items_are_of_another_class_is_refused() -> None:
    for array in (np.zeros(1, np.dtype((Subclass, [("a", "i4")]))), np.zeros(1, np.dtype((Subclass, 8)))):
        with pytest.raises(UnsupportedValueError, match="a dtype that NumPy itself ships"):
            get_codec("msgpack").encode(array, "state")


def test_a_seed_can_not_be_made_to_mix_for_ever() -> None:
    with pytest.raises(CorruptionError, match="not a seed sequence"):
        get_codec("json").decode(b'{"$numpy.SeedSequence": [1, [], 2000, 0]}')


@settings(max_examples=300)
@given(dtype=dtypes)
def test_dtypes_come_back(dtype: Any) -> None:
    assert identical(decode_dtype(encode_dtype(dtype)), dtype)


def test_every_scalar_type_of_numpy_is_kept_or_refused_by_name() -> None:
    codec = get_codec("msgpack")
    for code in np.typecodes["All"]:
        if code == "O":
            continue
        scalar = np.zeros(1, code)[0]
        assert identical(through_entry(codec, scalar), scalar), code
        assert identical(through_entry(codec, np.zeros(2, code)), np.zeros(2, code)), code


HOSTILE_ARRAYS: list[Any] = [
    ["<f8", [2**40], "C", b""],
    ["<f8", [2**63, 2**63], "C", b""],
    ["<f8", [2**32, 2**32], "C", b""],  # 2**67 bytes: nothing in 64 bits
    ["<f8", [-1], "C", b""],
    ["<f8", [-1, -1], "C", bytes(8)],
    ["<f8", [True], "C", bytes(8)],
    ["<f8", [1.0], "C", bytes(8)],
    ["<f8", 1, "C", bytes(8)],
    ["<f8", [1] * 100, "C", bytes(8)],
    ["<f8", [1], "K", bytes(8)],
    ["<f8", [1], "C", bytes(7)],
    ["<f8", [1], "C", "12345678"],
    ["<f8", [1], "C", None],
    ["|O", [1], "C", bytes(8)],
    ["O", [1], "C", bytes(8)],
    ["f8,f8", [1], "C", bytes(16)],
    ["<f3", [1], "C", bytes(3)],
    ["|S99999999999", [1], "C", b""],
    ["|V2147483647", [1], "C", b""],
    ["<M8[x]", [1], "C", bytes(8)],
    [["array", "<f8", [2**40]], [1], "C", b""],
    [["array", "<f8", [2**20, 2**20]], [], "C", b""],
    [["struct", ["a"], ["|O"], [0], [None], 8, False, False], [1], "C", bytes(8)],
    [["struct", ["a"], ["<f8"], [-8], [None], 8, False, False], [1], "C", bytes(8)],
    [["struct", ["a"], ["<f8"], [4], [None], 8, False, False], [1], "C", bytes(8)],
    [["struct", ["a", "a"], ["<f8", "<f8"], [0, 0], [None] * 2, 8, False, False], [1], "C", bytes(8)],
    [["struct", ["a"], ["<f8"], [0], [None], 2**62, False, False], [1], "C", bytes(8)],
    [["struct", ["a"], ["<f8"], [0], [], 8, False, False], [1], "C", bytes(8)][:3],
    [["something"], [1], "C", bytes(8)],
    [[], [1], "C", bytes(8)],
    None,
]


@pytest.mark.parametrize("plain", HOSTILE_ARRAYS, ids=lambda plain: str(plain)[:60])
def test_a_damaged_description_is_found_before_memory_is_taken(plain: Any) -> None:
    def decode() -> None:
        with pytest.raises((CorruptionError, ValueError, TypeError, LookupError)):
            decode_array(plain)

    peak, _ = peak_bytes(decode)
    assert peak < MEBIBYTE


def test_deep_dtypes_are_damage() -> None:
    deep: Any = "<f8"
    for _ in range(100):
        deep = ["array", deep, [1]]
    with pytest.raises(ValueError, match="nested too deeply"):
        decode_dtype(deep)


@exact
def test_a_buffer_of_another_length_is_damage(codec: Codec) -> None:
    encoded = codec.encode_value(np.zeros((100, 100)), "state")
    for length in (0, 79_999, 80_001, 80_008):
        source = MemorySource(encoded)
        source.stored = [bytes(length)]
        for mmap in (False, True):
            with pytest.raises(CorruptionError, match=rf"takes 80000 bytes, but {length} are there"):
                codec.decode_value(encoded.head, source, mmap=mmap)
    source.stored = []
    with pytest.raises(CorruptionError, match="there is no buffer 0"):
        codec.decode_value(encoded.head, source)


@pytest.mark.parametrize("position", [-1, 625, 2**31 - 1])
def test_a_generator_can_not_be_made_to_read_beyond_its_state(position: int) -> None:
    codec = get_codec("json")
    text = codec.encode(np.random.MT19937(1), "state")
    assert b'"pos": 623' in text
    with pytest.raises(CorruptionError, match=f"position {position}"):
        codec.decode(text.replace(b'"pos": 623', b'"pos": %d' % position))
    text = codec.encode(np.random.Philox(1), "state")
    assert b'"buffer_pos": 4' in text
    with pytest.raises(CorruptionError, match=f"position {position}"):
        codec.decode(text.replace(b'"buffer_pos": 4', b'"buffer_pos": %d' % position))


@pytest.mark.slow
@pytest.mark.parametrize("mmap", [False, True])
def test_above_four_gibibytes(mmap: bool) -> None:
    codec = get_codec("msgpack")
    array = np.zeros(2**32 + 16, "u1")
    array[-1] = 7
    encoded = codec.encode_value(array, "state")
    assert encoded.buffers[0].nbytes == math.prod(array.shape)

    class Source(MemorySource):
        def __init__(self) -> None:
            self.read = []

        def nbytes(self, index: int) -> int:
            return array.nbytes

        def readinto(self, index: int, target: memoryview) -> None:
            target[-1:] = array[-1:].data

        def map(self, index: int) -> memoryview:
            return array.data

    back = codec.decode_value(encoded.head, Source(), mmap=mmap)
    assert back.shape == array.shape
    assert back[-1] == 7
