"""The headers of segments and frames: bytes to tuples and back, nothing else. Layout: ``docs/format.rst``.

Invariants:

- A frame's header checksum also covers the segment's salt and the frame's own offset, so that a frame of an older use
  of the same blocks, of another segment, or stored inside a value does not pass.
- A frame's ``chain`` is the header checksum of the frame before it (of the segment's header, for the first), so that a
  frame that is valid in itself still can't follow the wrong one.
- No length is trusted before the checksum that covers it was right.
"""

from __future__ import annotations

import struct
from typing import NamedTuple
from zlib import crc32

FORMAT_VERSION = 1

SEGMENT_MAGIC = b"traxlog\n"
_SEGMENT = struct.Struct("<8sHH16sQ8s")
_CHECKSUM = struct.Struct("<I")
SEGMENT_HEADER_BYTES = _SEGMENT.size + _CHECKSUM.size
assert SEGMENT_HEADER_BYTES == 48

FRAME_MAGIC = b"trx"
RECORDS = b"trxR"
"""Records whose payload is laid out in sections, one a name."""
LINES = b"trxJ"
"""Records whose payload is JSON lines, one a record."""
MARK = b"trxM"
"""No records: everything before this frame in its segment is on stable storage."""

EXPLICIT_SEQUENCES = 1
"""Flag: the payload begins with the sequence of each record, because there are gaps between them."""

WRITER_CLOSED = 2
"""Flag of a mark: the writer let go of the store behind it. Only then may the next one go on in the same segment."""

_FRAME = struct.Struct("<8sQ4sB3xIIQQIII")
_FRAME_COVERED_BYTES = 16  # salt and offset: covered by the checksum, not written
FRAME_HEADER_BYTES = _FRAME.size - _FRAME_COVERED_BYTES + _CHECKSUM.size
assert FRAME_HEADER_BYTES == 48

MAX_EPOCH = 2**32 - 1


class SegmentHeader(NamedTuple):
    """What the first bytes of a segment say."""

    version: int
    store_id: bytes
    number: int
    salt: bytes
    checksum: int


class FrameHeader(NamedTuple):
    """What the first bytes of a frame say."""

    kind: bytes
    flags: int
    record_count: int
    payload_bytes: int
    first_sequence: int
    synced: int
    """So many bytes of this segment were on stable storage when the frame was written; from completed syncs only."""
    chain: int
    epoch: int
    payload_checksum: int
    checksum: int


def encode_segment_header(store_id: bytes, number: int, salt: bytes) -> bytes:
    covered = _SEGMENT.pack(SEGMENT_MAGIC, FORMAT_VERSION, 0, store_id, number, salt)
    return covered + _CHECKSUM.pack(crc32(covered))


def decode_segment_header(data: bytes) -> SegmentHeader | None:
    """The header, or None when these bytes are not one. The caller looks at its version: ``refusal.check_version``."""
    if len(data) < SEGMENT_HEADER_BYTES:
        return None
    magic, version, _, store_id, number, salt = _SEGMENT.unpack_from(data)
    (checksum,) = _CHECKSUM.unpack_from(data, _SEGMENT.size)
    if magic != SEGMENT_MAGIC or crc32(data[: _SEGMENT.size]) != checksum:
        return None
    return SegmentHeader(version, store_id, number, salt, checksum)


def encode_frame(
    payload: bytes,
    *,
    kind: bytes,
    flags: int,
    record_count: int,
    first_sequence: int,
    synced: int,
    chain: int,
    epoch: int,
    salt: bytes,
    offset: int,
) -> tuple[bytes, int]:
    """The frame that stands at ``offset``, and its header checksum, which the next frame's ``chain`` repeats."""
    covered = _FRAME.pack(
        salt, offset, kind, flags, record_count, len(payload), first_sequence, synced, chain, epoch, crc32(payload)
    )
    checksum = crc32(covered)
    return covered[_FRAME_COVERED_BYTES:] + _CHECKSUM.pack(checksum) + payload, checksum


def decode_frame_header(data: bytes, start: int, salt: bytes, offset: int) -> FrameHeader | None:
    """The header at ``data[start:]``, which stands at ``offset`` of its segment; None when it is not one."""
    covered = data[start : start + FRAME_HEADER_BYTES - _CHECKSUM.size]
    if len(covered) + _FRAME_COVERED_BYTES != _FRAME.size or len(data) < start + FRAME_HEADER_BYTES:
        return None
    (checksum,) = _CHECKSUM.unpack_from(data, start + FRAME_HEADER_BYTES - _CHECKSUM.size)
    covered = salt + offset.to_bytes(8, "little") + covered
    if crc32(covered) != checksum:
        return None
    return FrameHeader._make((*_FRAME.unpack(covered)[2:], checksum))


def payload_is_whole(header: FrameHeader, payload: bytes) -> bool:
    """Whether these are the bytes that the header was written for."""
    return len(payload) == header.payload_bytes and crc32(payload) == header.payload_checksum
