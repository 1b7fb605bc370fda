"""What the lengths inside msgpack claim is there, before anything is made of it.

A list is given room for as many items as its header says. Each claim by itself is bounded by the length of the data,
but lists lie inside one another: a few kilobytes of headers could ask for gigabytes. A first walk that makes nothing
costs a sixth of the decoding.
"""

from __future__ import annotations

import msgpack

_HARMLESS_BYTES = 1024  # what so few bytes can claim, all headers together, are 3 MB
_LONG_ARRAY_HEADERS = (b"\xdc", b"\xdd")  # those of other lists claim 15 items at most; a dict grows with its items


def check_lengths(data: bytes) -> None:
    """Raise what msgpack raises for data that end too early, if they are long enough for that to matter."""
    if len(data) <= _HARMLESS_BYTES or not any(header in data for header in _LONG_ARRAY_HEADERS):
        return
    unpacker = msgpack.Unpacker(max_buffer_size=len(data))
    unpacker.feed(data)
    unpacker.skip()
