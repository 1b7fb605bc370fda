"""The extra ``fast`` changes neither a byte on disk nor a type that comes back."""

from __future__ import annotations

import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import trax
from tests.codecs.strategies import identical, values
from trax.codecs import fast, get_codec, msgpack
from trax.storage.local import crc

codec = get_codec("msgpack")


@settings(max_examples=400)
@given(entries=st.lists(values, min_size=1, max_size=4))
def test_both_decoders_give_the_same(entries: list[Any]) -> None:
    pytest.importorskip("msgspec")
    encoded = [codec.encode(entry, "state") for entry in entries]
    array = b"\xdd" + len(encoded).to_bytes(4, "big") + b"".join(encoded)
    quick = fast.plain_decoder(msgpack._extended)
    assert quick is not None
    slow = msgpack._decode(msgpack._Reader(), array)
    assert identical(entries, slow)
    try:
        decoded = quick(array)
    except Exception:
        # Then msgpack decides; but what msgspec refuses must be rare, or it would gain nothing.
        assert not all(isinstance(entry, str | int | float | bytes | bool | None) for entry in entries) or any(
            "\ud800" <= character <= "\udfff" for character in str(entries)
        )
    else:
        assert identical(entries, decoded)
    assert identical(entries, list(codec.decode_many(b"".join(encoded), [len(data) for data in encoded])))


def test_what_msgspec_does_not_take_comes_back_all_the_same() -> None:
    entries = ["\ud800", {("a", 1): {2, 3}}, [b"x", bytearray(b"y")], {1: 2, None: 3, b"k": 4.0}]
    encoded = [codec.encode(entry, "state") for entry in entries]
    assert identical(entries, list(codec.decode_many(b"".join(encoded), [len(data) for data in encoded])))


@given(data=st.binary(max_size=5000), start=st.integers(0, 2**32 - 1))
def test_both_checksums_are_the_same(data: bytes, start: int) -> None:
    isal_zlib = pytest.importorskip("isal.isal_zlib")
    assert isal_zlib.crc32(data) == zlib.crc32(data)
    assert isal_zlib.crc32(memoryview(data), start) == zlib.crc32(data, start)


def test_a_store_opens_without_the_extra_as_with_it(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with trax.Trax(tmp_path / "with") as store:
        store.checkpoint(state=[])
        for number in range(300):
            store.log(state={"number": number, "of": (1, number)})
    monkeypatch.setattr(crc, "crc32", zlib.crc32)
    monkeypatch.setattr(msgpack, "plain_decoder", lambda extended: None)
    with trax.Trax(tmp_path / "with") as store:
        assert [entry["of"] for _, entry in store.entries("state")] == [(1, number) for number in range(300)]
        assert crc.crc32 is zlib.crc32


@pytest.mark.parametrize("mode", ["r", "a"])
def test_whoever_opens_a_store_computes_checksums_with_isal(tmp_path: Path, mode: str) -> None:
    pytest.importorskip("isal.isal_zlib")
    trax.Trax(tmp_path / "store").close()
    script = "import sys, trax; trax.Trax(sys.argv[1], mode=sys.argv[2]); print('isal.isal_zlib' in sys.modules)"
    command = [sys.executable, "-c", script, str(tmp_path / "store"), mode]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    assert run.stdout == "True\n"


def test_importing_trax_imports_nothing_optional() -> None:
    script = "import sys, trax; print([name for name in ('msgspec', 'isal', 'numpy', 'rich') if name in sys.modules])"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout == "[]\n"
