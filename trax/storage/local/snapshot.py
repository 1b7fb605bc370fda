"""The commit point: one file that says what the store is, replaced whole. Layout: ``docs/format.rst``.

Whatever is not named here, directly or through a kept snapshot, does not belong to the store. Nothing read from the
file is trusted before its checksum was right, and nothing in it is a path: files are named by numbers.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, NamedTuple, TypeVar

import msgpack

from trax.errors import CorruptionError
from trax.lengths import check_lengths
from trax.storage.base import MAX_SEQUENCE, BlobReference, Stored
from trax.storage.local import crc
from trax.storage.local.blob import MAX_BASES
from trax.storage.local.framing import FORMAT_VERSION, MAX_EPOCH
from trax.storage.local.layout import MAX_NUMBER
from trax.storage.local.payload import check_name
from trax.storage.local.refusal import check_version
from trax.storage.local.walk import Tail

_T = TypeVar("_T")

_MAGIC = b"traxsnap"
_HEADER = struct.Struct("<8sHHIQI")
_CHECKSUM = struct.Struct("<I")
_HEADER_BYTES = _HEADER.size + _CHECKSUM.size
assert _HEADER_BYTES == 32
_ROOM = 1 << 40


class SegmentReference(NamedTuple):
    """A segment of the log. ``sealed`` is where it ends for good; None for the active one, the last of the list.

    ``proven`` is of the active one: how far it was on stable storage when the snapshot was published. None: its header.
    """

    number: int
    salt: bytes
    sealed: Tail | None
    proven: Tail | None = None

    def ending(self, tail: Tail) -> SegmentReference:
        """The same segment, sealed."""
        return SegmentReference(self.number, self.salt, tail)


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
    names: dict[str, Stored] = field(default_factory=dict)

    def changed(self, changes: Mapping[str, Stored | None], **fields: Any) -> Snapshot:
        """Another one, with other ``fields``, and of some names something else, or (None) nothing at all.

        What each commit wants to know of all names is derived from what this snapshot knows, so that a commit costs
        what it changes: there may be many names.
        """
        stored = {name: one for name, one in changes.items() if one is not None}
        gone = changes.keys() - stored.keys()
        new = replace(self, names=_updated(self.names, stored, gone), **fields)
        new.__dict__["packed"] = _updated(self.packed, _pack_names(stored), gone)
        new.__dict__["_blobs"] = _updated(self._blobs, _blobs_by_name(stored), changes.keys())
        new.__dict__["deleted"] = self.deleted - changes.keys() | _deleted(stored)
        return new

    def forget(self) -> None:
        """Give back the memory of what only the next commit asks for: there was one, and this snapshot is kept."""
        self.__dict__.pop("packed", None)

    @cached_property
    def packed(self) -> dict[str, bytes]:
        """Each name, and what is stored of it, as they stand in the file."""
        return _pack_names(self.names)

    @cached_property
    def _blobs(self) -> dict[str, BlobReference]:
        return _blobs_by_name(self.names)

    @property
    def blobs(self) -> frozenset[BlobReference]:
        """The values that are blobs."""
        return frozenset(self._blobs.values())

    @cached_property
    def deleted(self) -> frozenset[str]:
        """The names that were deleted, and stay on as markers."""
        return _deleted(self.names)

    @cached_property
    def blob_files(self) -> frozenset[BlobReference]:
        """The files that these lie in."""
        return frozenset(file for blob in self.blobs for file in blob.files)


def _updated(old: dict[str, _T], changes: Mapping[str, _T], gone: Collection[str]) -> dict[str, _T]:
    """``old`` with ``changes``, and without those that are ``gone`` and not among them."""
    new = {**old, **changes}
    for name in gone:
        if name not in changes:
            new.pop(name, None)
    return new


def _pack_names(names: Mapping[str, Stored]) -> dict[str, bytes]:
    pack = msgpack.Packer().pack
    return {name: pack(name) + pack(_packable(stored)) for name, stored in names.items()}


def _packable(stored: Stored) -> Any:
    """What is stored of a name; of a blob its bases only where there are some."""
    cut, sequence, value = stored
    if not isinstance(value, BlobReference):
        return stored
    bases = [base[:3] for base in value.bases]
    return cut, sequence, (*value[:3], bases) if bases else value[:3]


def _blobs_by_name(names: Mapping[str, Stored]) -> dict[str, BlobReference]:
    return {name: one.value for name, one in names.items() if isinstance(one.value, BlobReference)}


def _deleted(names: Mapping[str, Stored]) -> frozenset[str]:
    return frozenset(name for name, one in names.items() if one.value is None)


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
    segments = [segment if segment.proven else segment[:3] for segment in snapshot.segments]
    packer = msgpack.Packer()
    parts = [
        packer.pack_array_header(4),
        packer.pack(head),
        packer.pack(segments),
        packer.pack(snapshot.kept),
        packer.pack_map_header(len(snapshot.names)),
        *snapshot.packed.values(),
    ]
    body = b"".join(parts)
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
        raise _damaged(path, f"its contents make no sense ({error}), though their checksum is right") from error


def check_room(snapshot: Snapshot, path: str) -> None:
    """CorruptionError if there is no room for the numbers that writing gives out, which no store ever comes near to."""
    numbers = (snapshot.generation, snapshot.last_segment, snapshot.last_blob)
    if snapshot.epoch >= MAX_EPOCH or snapshot.sequence > MAX_SEQUENCE - _ROOM or max(numbers) > MAX_NUMBER - _ROOM:
        raise _damaged(path, "its numbers are so high that there is no room for the next ones")


def _decode_body(body: bytes) -> Snapshot:
    check_lengths(body)
    head, segments, kept, names = _expect(list, msgpack.unpackb(body, strict_map_key=True))
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
        tuple(_segment(*_expect(list, fields)) for fields in _expect(list, segments)),
        tuple(_kept(*_expect(list, fields)) for fields in _expect(list, kept)),
        {name: _stored(*_expect(list, fields)) for name, fields in _expect(dict, names).items()},
    )
    _check(snapshot)
    return snapshot


def _check(snapshot: Snapshot) -> None:
    """What is true of every snapshot that was ever published; ValueError."""
    sealed = [segment.sealed is not None for segment in snapshot.segments]
    if len(snapshot.store_id) != 16 or snapshot.keep < 1 or sealed != [True] * (len(sealed) - 1) + [False]:
        raise ValueError("the fields do not fit together")
    if not all(map(math.isfinite, (snapshot.created, *(one.created for one in snapshot.kept)))):
        raise ValueError("a time that is no number")
    numbers = (snapshot.generation, snapshot.last_segment, snapshot.last_blob)
    if snapshot.epoch > MAX_EPOCH or snapshot.sequence > MAX_SEQUENCE or max(numbers) > MAX_NUMBER:
        raise ValueError("a number that is too large")
    _check_numbers("segments", [one.number for one in snapshot.segments], snapshot.last_segment)
    blobs = [one.value for one in snapshot.names.values() if isinstance(one.value, BlobReference)]
    _check_numbers("blobs", [file.number for blob in blobs for file in blob.files], snapshot.last_blob)
    _check_numbers("kept snapshots", [one.generation for one in snapshot.kept], snapshot.generation - 1)
    for name in snapshot.names:
        check_name(_expect(str, name))


def _check_numbers(what: str, numbers: list[int], last: int) -> None:
    if len({*numbers}) < len(numbers) or min(numbers, default=1) < 1 or max(numbers, default=0) > last:
        raise ValueError(f"the numbers of the {what}")


def _segment(number: Any, salt: Any, sealed: Any, proven: Any = None) -> SegmentReference:
    if len(_expect(bytes, salt)) != 8:
        raise ValueError("a salt has 8 bytes")
    if sealed is not None and proven is not None:
        raise ValueError("only the active segment is proven in part")
    return SegmentReference(_number(number), salt, _tail(sealed), _tail(proven))


def _kept(generation: Any, sequence: Any, created: Any) -> KeptReference:
    return KeptReference(_number(generation), _number(sequence), _expect(float, created))


def _tail(value: Any) -> Tail | None:
    return None if value is None else Tail(*map(_number, _expect(list, value)))


def _stored(cut: Any, sequence: Any, value: Any) -> Stored:
    if isinstance(value, list):
        value = _blob(*value)
    elif value is not None:
        _expect(bytes, value)
    return Stored(_number(cut), _number(sequence), value)


def _blob(number: Any, nbytes: Any, checksum: Any, bases: Any = None) -> BlobReference:
    own = _blob_file(number, nbytes, checksum)
    if bases is None:
        return own
    earlier = tuple(_blob_file(*_expect(list, base)) for base in _expect(list, bases))
    numbers = [base.number for base in (*earlier, own)]
    if not 0 < len(earlier) <= MAX_BASES or numbers != sorted({*numbers}):
        raise ValueError("the bases of a blob")
    return own._replace(bases=earlier)


def _blob_file(number: Any, nbytes: Any, checksum: Any) -> BlobReference:
    return BlobReference(_number(number), _number(nbytes), _number(checksum))


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
