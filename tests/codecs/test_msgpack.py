"""What is particular to msgpack: the traps of its packer, threads, re-entrancy, surrogates, many entries at once."""

from __future__ import annotations

import concurrent.futures
import subprocess
import sys
import threading
from typing import Any

import msgpack
import numpy as np
import pytest

import trax
from tests.codecs.strategies import identical, through_entry, through_value
from trax.codecs import msgpack as trax_msgpack
from trax.codecs import registry
from trax.codecs.limits import MAX_DEPTH
from trax.codecs.msgpack import MsgpackCodec
from trax.errors import CorruptionError, UnsupportedValueError


@pytest.fixture
def codec() -> MsgpackCodec:
    return MsgpackCodec()


def test_plain_values_are_plain_msgpack(codec: MsgpackCodec) -> None:
    entry = {"step": 1, "energy": -1.5, "tag": "abc", "list": [None, True, b"x"], 5: {}}
    assert codec.encode(entry, "state") == msgpack.packb(entry)


@pytest.mark.parametrize(
    "value",
    [
        bytearray(b"x"),
        [bytearray(b"x")],
        {"a": bytearray(b"x")},
        {1: bytearray(b"x")},
        {"a": {"b": [[bytearray(b"x")]]}},
        (bytearray(b"x"),),
        {"a": ({"b": bytearray(b"x")},)},
    ],
    ids=repr,
)
def test_a_bytearray_is_never_taken_for_bytes(codec: MsgpackCodec, value: Any) -> None:
    assert identical(through_entry(codec, value), value)
    assert identical(through_value(codec, value), value)


@pytest.mark.parametrize(
    "trap", [memoryview(b"x"), msgpack.ExtType(1, b"\x90"), msgpack.Timestamp(1)], ids=lambda trap: type(trap).__name__
)
def test_what_the_packer_would_change_is_refused_everywhere(codec: MsgpackCodec, trap: Any) -> None:
    for value in (
        trap,
        [trap],
        {"a": trap},
        {trap: 1},
        {1: {trap: 1}},
        (trap,),
        {trap},
        {"a": ([trap],)},
        {(trap,): 1},
    ):
        with pytest.raises(UnsupportedValueError):
            codec.encode(value, "state")
        with pytest.raises(UnsupportedValueError):
            codec.encode_value(value, "state")


def test_lone_surrogates_anywhere(codec: MsgpackCodec) -> None:
    large = [b"x" * 100_000, np.arange(100_000)]  # written again, with the rest, and not twice
    value = {"large": large, "\udcff": ["a\ud800", ("\udfff", {"b": "\ud800\udc00"})]}
    assert identical(through_entry(codec, value), value)
    assert identical(through_value(codec, value), value)
    assert len(codec.encode_value(value, "state").buffers) == 2


def test_an_error_leaves_nothing_behind(codec: MsgpackCodec) -> None:
    good = {"a": [1, (2, 3)]}
    expected = codec.encode(good, "state")
    for _ in range(3):
        with pytest.raises(UnsupportedValueError):
            codec.encode({"half": [1, 2, (3, object())]}, "state")
        assert codec.encode(good, "state") == expected


def test_an_interrupt_leaves_nothing_behind(codec: MsgpackCodec, monkeypatch: pytest.MonkeyPatch) -> None:
    class Interrupting:
        pass

    def interrupt(_: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(registry, "_by_class", {})
    monkeypatch.setattr(registry, "_by_name", {})
    trax.register(Interrupting, encode=interrupt, decode=interrupt)
    codec.encode(1, "state")
    with pytest.raises(KeyboardInterrupt):
        codec.encode([1, 2, Interrupting()], "state")
    assert codec.decode(codec.encode([3], "state")) == [3]


def test_a_registered_function_may_call_the_codec(codec: MsgpackCodec, monkeypatch: pytest.MonkeyPatch) -> None:
    class Nested:
        def __init__(self, value: Any) -> None:
            self.value = value

    monkeypatch.setattr(registry, "_by_class", {})
    monkeypatch.setattr(registry, "_by_name", {})
    trax.register(
        Nested,
        encode=lambda nested: codec.encode(nested.value, "inner"),
        decode=lambda state: Nested(codec.decode(state)),
    )
    back = through_entry(codec, ["before", Nested({"x": Nested((1, 2))}), "after"])
    assert (back[0], back[1].value["x"].value, back[2]) == ("before", (1, 2), "after")


def test_threads_share_one_codec(codec: MsgpackCodec) -> None:
    start = threading.Barrier(8)

    def work(number: int) -> None:
        start.wait()
        for i in range(300):
            value = {
                "n": number,
                "i": i,
                "t": (number, [i, bytearray(b"x" * i)]),
                "a": np.full(i, number),
                "s": "\ud800",
            }
            assert identical(through_entry(codec, value), value)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            list(pool.map(work, range(8)))
    finally:
        sys.setswitchinterval(interval)


def test_a_large_entry_does_not_keep_its_memory(codec: MsgpackCodec) -> None:
    codec.encode(b"x" * 10_000_000, "state")
    assert codec._idle == []
    codec.encode(b"x", "state")
    assert len(codec._idle) == 1


def test_many_entries_must_be_as_many_as_said(codec: MsgpackCodec) -> None:
    data = codec.encode([1], "state") + codec.encode({"a": (2, 3)}, "state")
    assert codec.decode_many(data, [2, len(data) - 2]) == [[1], {"a": (2, 3)}]
    assert codec.decode_many(b"", []) == []
    for wrong, lengths in (
        (data, [len(data)]),
        (data, [1, 1]),
        (data, [1, 1, len(data) - 2]),
        (data[:-1], [2, len(data) - 2]),
        (b"", [0]),
    ):
        with pytest.raises(CorruptionError):
            codec.decode_many(wrong, lengths)


def test_the_deepest_value_fits_on_a_small_stack(codec: MsgpackCodec) -> None:
    value: Any = 1
    for _ in range(MAX_DEPTH):
        value = (value,)
    before = threading.stack_size(1 << 20)
    try:
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            assert pool.submit(through_entry, codec, value).result() == value
    finally:
        threading.stack_size(before)


def test_bytes_behind_an_inner_value_are_damage(codec: MsgpackCodec) -> None:
    for depth in range(1, 20):
        data = b"\x01\x02"
        for _ in range(depth):
            data = msgpack.packb(msgpack.ExtType(1, b"\x91" + data))
        with pytest.raises(CorruptionError):
            codec.decode(data)


def test_deeper_bytes_than_were_ever_written_are_damage(codec: MsgpackCodec) -> None:
    data = b"\x01"
    for _ in range(MAX_DEPTH + 5):
        data = msgpack.packb(msgpack.ExtType(1, b"\x91" + data))
    for damaged in (data, b"\x91" * 100_000, b"\x91" * 100_000 + b"\x01"):
        with pytest.raises(CorruptionError):
            codec.decode(damaged)


@pytest.mark.parametrize(
    "damaged",
    [
        *(b"", b"\xc1", b"\x01\x02", b"\x92\x01", b"\xa2\xff\xff", b"\xdd\xff\xff\xff\xff", b"\x81\x90\x01"),
        msgpack.packb(msgpack.ExtType(127, b"\x01")),
        msgpack.packb(msgpack.ExtType(1, b"\x01")),
        msgpack.packb(msgpack.ExtType(1, b"\x90\x90")),
        msgpack.packb(msgpack.ExtType(49, b"\x00")),
        msgpack.packb(msgpack.ExtType(50, b"\x00")),
        msgpack.packb({msgpack.ExtType(2, b"\x90"): 1}),
    ],
)
def test_undecodable_bytes_are_damage(codec: MsgpackCodec, damaged: bytes) -> None:
    with pytest.raises(CorruptionError):
        codec.decode(damaged)


def test_the_check_of_types_is_needed() -> None:
    """Should msgpack ever stop taking a bytearray for bytes, the check in front of it can go."""
    assert msgpack.packb(bytearray(b"x"), strict_types=True) == msgpack.packb(b"x")
    assert bytearray in trax_msgpack._TRAPS


def test_the_pure_python_packer_does_the_same() -> None:
    code = (
        "import msgpack, trax.codecs.msgpack as m; assert 'fallback' in msgpack.Packer.__module__;"
        "v = {'a': (1, [2**70, bytearray(b'x'), {1.5, None}]), (1, 2): 'x\\ud800', 'b': b'y' * 20000};"
        "c = m.MsgpackCodec(); assert c.decode(c.encode(v, 'v')) == v; print(c.encode((1, bytearray(b'x')), 'v').hex())"
    )
    environment = {"MSGPACK_PUREPYTHON": "1", "PYTHONPATH": ":".join(path for path in sys.path if path)}
    result = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == MsgpackCodec().encode((1, bytearray(b"x")), "v").hex()


def test_numpy_is_not_imported_for_plain_values() -> None:
    code = (
        "import sys, trax.codecs as c; m = c.get_codec('msgpack'); m.decode(m.encode({'a': (1, {2})}, 'v'));"
        "assert not {'numpy', 'pickle', 'trax.codecs.json'} & set(sys.modules), sys.modules.keys()"
    )
    environment = {"PYTHONPATH": ":".join(path for path in sys.path if path)}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)


def test_an_array_without_numpy_says_what_to_install() -> None:
    array = MsgpackCodec().encode(np.arange(3), "v").hex()
    code = (
        "import sys; sys.modules['numpy'] = None\n"
        "import trax.codecs as c, trax.errors as e\n"
        "m = c.get_codec('msgpack'); assert m.decode(m.encode((1, {2}), 'v')) == (1, {2})\n"
        f"try: m.decode(bytes.fromhex('{array}'))\n"
        "except e.DependencyError as error: print(error)"
    )
    environment = {"PYTHONPATH": ":".join(path for path in sys.path if path)}
    result = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert "pip install numpy" in result.stdout
