"""CRC-32, the one of zlib: computed by isal, several times as fast, where the extra ``fast`` is installed.

Both compute the same number, so a store never tells which it was.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Any

crc32: Callable[..., int] = zlib.crc32
"""``crc32(data, value=0)``. Call it through the module: ``use_fastest`` replaces it."""


def use_fastest() -> None:
    """Look for isal; called when a store is opened, so that ``import trax`` imports nothing optional."""
    global crc32
    if crc32 is zlib.crc32:
        crc32 = _fastest()


def _fastest() -> Callable[[Any, int], int]:
    try:
        from isal import isal_zlib
    except ImportError:
        return zlib.crc32
    found: Callable[[Any, int], int] = isal_zlib.crc32
    return found
