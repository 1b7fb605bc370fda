"""Damaged bytes: whatever they are, decoding gives a value or an error of trax, and takes little memory."""

from __future__ import annotations

import random
import tracemalloc
import warnings
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.codecs.strategies import MemorySource, values
from tests.codecs.test_golden import GOLDEN
from trax.codecs import Codec, get_codec
from trax.errors import TraxError

exact = pytest.mark.parametrize("codec", [get_codec("msgpack"), get_codec("json")], ids=lambda codec: codec.name)

MEBIBYTE = 1 << 20
SEED = 20261121


def damaged(data: bytes, generator: random.Random) -> bytes:
    """``data`` with a few bytes changed, taken out, put in, or repeated."""
    changed = bytearray(data)
    for _ in range(generator.choice([1, 1, 1, 2, 5])):
        place = generator.randrange(len(changed) + 1)
        how = generator.randrange(4)
        if how == 0 and changed:
            changed[place % len(changed)] = generator.randrange(256)
        elif how == 1:
            del changed[place : place + generator.randrange(1, 9)]
        elif how == 2:
            changed[place:place] = generator.randbytes(generator.randrange(1, 5))
        else:
            changed[place:place] = changed[place : place + generator.randrange(1, 20)]
    return bytes(changed)


def decodes_or_refuses(codec: Codec, data: bytes) -> None:
    try:
        codec.decode(data)
    except TraxError:
        pass


@exact
@pytest.mark.parametrize("kind", GOLDEN)
def test_a_damaged_value_is_refused_or_another_value(codec: Codec, kind: str) -> None:
    data = codec.encode(GOLDEN[kind][0], "state")
    generator = random.Random(f"{SEED} {codec.name} {kind}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # NumPy's, over odd dtypes
        tracemalloc.start()
        try:
            for attempt in range(400):
                hurt = damaged(data, generator)
                try:
                    decodes_or_refuses(codec, hurt)
                except BaseException as error:
                    error.add_note(f"attempt {attempt}: {hurt!r}")
                    raise
            assert tracemalloc.get_traced_memory()[1] < MEBIBYTE + 100 * len(data)
        finally:
            tracemalloc.stop()


@exact
@settings(max_examples=300)
@given(value=values, seed=st.integers(0, 2**32))
def test_any_damaged_value_is_refused_or_another_value(codec: Codec, value: Any, seed: int) -> None:
    data = codec.encode(value, "state")
    generator = random.Random(seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(10):
            decodes_or_refuses(codec, damaged(data, generator))


@exact
@settings(max_examples=500)
@given(data=st.binary(max_size=60))
def test_any_bytes_are_refused_or_a_value(codec: Codec, data: bytes) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        decodes_or_refuses(codec, data)


@exact
@pytest.mark.parametrize("mmap", [False, True])
def test_a_damaged_head_is_refused_or_another_value(codec: Codec, mmap: bool) -> None:
    encoded = codec.encode_value([np.zeros(4096), b"x" * 20_000, np.zeros((64, 64)).T, (1, {2})], "state")
    generator = random.Random(f"{SEED} {codec.name}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(2000):
            head = damaged(encoded.head, generator)
            try:
                codec.decode_value(head, MemorySource(encoded), mmap=mmap)
            except TraxError:
                pass
