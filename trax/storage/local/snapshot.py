"""The commit point: one file that says what the store is, replaced whole. Layout: ``docs/format.rst``.

Whatever is not named here, directly or through a kept snapshot, does not belong to the store. Nothing read from the
file is trusted before its checksum was right, and nothing in it is a path: files are named by numbers.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple, TypeVar

import msgpack

from trax.errors import CorruptionError
from trax.storage.base import BlobReference, Stored
from trax.storage.local import crc
from trax.storage.local.framing import FORMAT_VERSION
from trax.storage.local.refusal import check_version
from trax.storage.local.walk import Tail

_T = TypeVar("_T")

_MAGIC = b"traxsnap"
_HEADER = struct.Struct("<8sHHIQI")
_CHECKSUM = struct.Struct("<I")
_HEADER_BYTES = _HEADER.size + _CHECKSUM.size
assert _HEADER_BYTES == 32


class SegmentReference(NamedTuple):
    """A segment of the log. ``sealed`` is where it ends for good; None for the active one, the last of the list."""

    number: int
    salt: bytes
    sealed: Tail | None


class KeptReference(NamedTuple):
    """An older snapshot that is kept: the generation that names its file, and what it reaches back to."""

    generation: int
    sequence: int
    created: float


@dataclass(frozen=True)
class Snapshot:
    """One generation of a store."""

    store_id: bytes
    codec: str
    keep: int
    generation: int = 0
    epoch: int = 0
    sequence: int = 0
    created: float = 0.0
    last_segment: int = 0
    last_blob: int = 0
    """The highest numbers that segments and blobs have had: none is used again."""
    segments: tuple[SegmentReference, ...] = ()
    kept: tuple[KeptReference, ...] = ()
    names: Mapping[str, Stored] = field(default_factory=dict)

    @cached_property
    def blobs(self) -> frozenset[BlobReference]:
        return frozenset(stored.value for stored in self.names.values() if isinstance(stored.value, BlobReference))


def encode_snapshot(snapshot: Snapshot) -> bytes:
    head = (
        snapshot.store_id,
        snapshot.codec,
        snapshot.keep,
        snapshot.generation,
        snapshot.epoch,
        snapshot.sequence,
        snapshot.created,
        snapshot.last_segment,
        snapshot.last_blob,
    )
    body: bytes = msgpack.packb((head, snapshot.segments, snapshot.kept, dict(snapshot.names)))
    header = _HEADER.pack(_MAGIC, FORMAT_VERSION, 0, 0, len(body), crc.crc32(body))
    return header + _CHECKSUM.pack(crc.crc32(header)) + body


def decode_snapshot(data: bytes, path: str) -> Snapshot:
    """The snapshot; CorruptionError when the bytes are not one, FormatError when a newer trax wrote them."""
    if len(data) < _HEADER_BYTES:
        raise _damaged(path, "it is cut off")
    magic, version, _, _, body_bytes, body_checksum = _HEADER.unpack_from(data)
    if magic != _MAGIC:
        raise _damaged(path, "it does not begin like a snapshot")
    if crc.crc32(data[: _HEADER.size]) != _CHECKSUM.unpack_from(data, _HEADER.size)[0]:
        raise _damaged(path, "its header does not match its checksum")
    check_version(version, path)
    body = data[_HEADER_BYTES:]
    if len(body) != body_bytes or crc.crc32(body) != body_checksum:
        raise _damaged(path, "its contents do not match their checksum")
    try:
        return _decode_body(body)
    except (ValueError, TypeError, msgpack.UnpackException) as error:
        raise _damaged(path, "its contents make no sense, though their checksum is right") from error


def _decode_body(body: bytes) -> Snapshot:
    head, segments, kept, names = msgpack.unpackb(body, strict_map_key=True)
    store_id, codec, keep, generation, epoch, sequence, created, last_segment, last_blob = head
    snapshot = Snapshot(
        _expect(bytes, store_id),
        _expect(str, codec),
        _number(keep),
        _number(generation),
        _number(epoch),
        _number(sequence),
        _expect(float, created),
        _number(last_segment),
        _number(last_blob),
        tuple(_segment(*fields) for fields in segments),
        tuple(KeptReference(_number(g), _number(s), _expect(float, c)) for g, s, c in kept),
        {_expect(str, name): _stored(*fields) for name, fields in names.items()},
    )
    sealed = [segment.sealed is not None for segment in snapshot.segments]
    if len(store_id) != 16 or keep < 1 or sealed != [True] * (len(sealed) - 1) + [False]:
        raise ValueError("the fields do not fit together")
    return snapshot


def _segment(number: Any, salt: Any, sealed: Any) -> SegmentReference:
    if len(_expect(bytes, salt)) != 8:
        raise ValueError("a salt has 8 bytes")
    return SegmentReference(_number(number), salt, None if sealed is None else Tail(*map(_number, sealed)))


def _stored(cut: Any, sequence: Any, value: Any) -> Stored:
    if isinstance(value, list):
        value = BlobReference(*map(_number, value))
    elif value is not None:
        _expect(bytes, value)
    return Stored(_number(cut), _number(sequence), value)


def _number(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise ValueError(f"{value!r} is not a number of this format")
    return value


def _expect(kind: type[_T], value: Any) -> _T:
    if type(value) is not kind:
        raise ValueError(f"{value!r} is not of type {kind.__name__}")
    return value


def _damaged(path: str, reason: str) -> CorruptionError:
    text = (
        f"{path} is damaged: {reason}. Nothing was changed. Restore the store from a copy, or see what "
        f"'trax repair' can save."
    )
    return CorruptionError(text, path=path, offset=0, reason=reason)
