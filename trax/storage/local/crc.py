"""CRC-32, the one of zlib: computed by isal, several times as fast, where the extra ``fast`` is installed.

Both compute the same number, so a store never tells which it was.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Any


def _first(data: Any, value: int = 0) -> int:
    """Look for isal at the first checksum, so that ``import trax`` imports nothing optional."""
    global crc32
    crc32 = _fastest()
    return crc32(data, value)


crc32: Callable[..., int] = _first
"""``crc32(data, value=0)``. Call it through the module: the first call replaces it."""


def _fastest() -> Callable[[Any, int], int]:
    try:
        from isal import isal_zlib
    except ImportError:
        return zlib.crc32
    found: Callable[[Any, int], int] = isal_zlib.crc32
    return found
