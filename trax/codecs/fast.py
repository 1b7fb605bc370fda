"""Decoding plain msgpack with msgspec, twice as fast, where the extra ``fast`` is installed.

It only reads: what is on disk never depends on what is installed, and what comes back does not either.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

ExtensionHook = Callable[[int, bytes], Any]


@cache
def plain_decoder(extended: ExtensionHook) -> Callable[[bytes], Any] | None:
    """Decodes one msgpack value, extensions by ``extended``; any exception means: try msgpack. None without msgspec.

    It is looked for at the first call, so that ``import trax`` imports nothing optional.
    """
    try:
        import msgspec
    except ImportError:
        return None
    decode: Callable[[bytes], Any] = msgspec.msgpack.Decoder(
        ext_hook=lambda code, data: extended(code, bytes(data))
    ).decode
    return decode
