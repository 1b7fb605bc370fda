"""What is logged: the same records for everybody."""

from __future__ import annotations

import random
from typing import Any

LARGE_BYTES = 1024


def small(count: int) -> list[dict[str, Any]]:
    """What a job logs at each step: 26 to 30 bytes of msgpack."""
    return [{"step": step, "energy": -1.2345, "tag": "abc"} for step in range(count)]


def large(count: int) -> list[bytes]:
    """1 KiB each, of bytes that don't compress."""
    generator = random.Random(1)
    return [generator.randbytes(LARGE_BYTES) for _ in range(count)]


def fold(state: int, entry: dict[str, Any]) -> int:
    """What a replay does with each entry, in Python."""
    return state + int(entry["step"])


def folded(count: int) -> int:
    return count * (count - 1) // 2
