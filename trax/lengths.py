"""What the lengths inside msgpack claim is there, before anything is made of it.

A list is given room for as many items as its header says. Each claim by itself is bounded by the length of the data,
since msgpack and msgspec refuse others, but lists lie inside one another: a few kilobytes of headers could ask for
gigabytes. A first walk that makes nothing costs a sixth of the decoding, and is left out where it can be.
"""

from __future__ import annotations

import msgpack

_HARMLESS_BYTES = 1024  # what so few bytes can claim, all headers together, are 3 MB
_HARMLESS_ITEMS = 1 << 18  # 2 MiB
_LONG_LISTS = ((b"\xdc", 2), (b"\xdd", 4))  # others claim 15 items at most; a dict grows with its items
_FEW_HEADERS = 8  # to look at more of them one by one takes longer than the walk


def check_lengths(data: bytes) -> None:
    """Raise what msgpack raises for data that end too early, if they are long enough for that to matter."""
    if len(data) <= _HARMLESS_BYTES or _claim_little(data):
        return
    unpacker = msgpack.Unpacker(max_buffer_size=len(data))
    unpacker.feed(data)
    unpacker.skip()


def _claim_little(data: bytes) -> bool:
    """Whether all that looks like the header of a long list, and would not be refused, claims few items together."""
    seen = claimed = 0
    for header, length_bytes in _LONG_LISTS:
        position = data.find(header)
        while position >= 0:
            position += 1
            items = int.from_bytes(data[position : position + length_bytes], "big")
            claimed += items if items <= len(data) else 0
            seen += 1
            if seen > _FEW_HEADERS or claimed > _HARMLESS_ITEMS:
                return False
            position = data.find(header, position)
    return True
