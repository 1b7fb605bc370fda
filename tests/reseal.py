"""Stores whose author lies: a store is taken apart, changed, and written again with checksums that are right.

Damage is found by the checksums. What stands behind them (lengths, counts, offsets, numbers, names) can only be tried
by somebody who makes the checksums anew. This module knows nothing of ``trax``: it follows ``docs/format.rst``.
"""

from __future__ import annotations

import copy
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from zlib import crc32

import msgpack

Body = list[Any]
"""The body of a snapshot: ``[head, segments, kept, names]``."""

_SNAPSHOT = struct.Struct("<8sHHIQI")
_SEGMENT = struct.Struct("<8sHH16sQ8s")
_FRAME = struct.Struct("<4sB3sIIQQIII")
_BLOB = struct.Struct("<8sHH4s16sQ24s")
_FOOTER = struct.Struct("<QQIQQI4s")


@dataclass
class Snapshot:
    """A snapshot; ``header`` overrides fields of the header by name."""

    body: Body
    header: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def parse(cls, data: bytes) -> Snapshot:
        return cls(msgpack.unpackb(data[32:], strict_map_key=False))

    def pack(self) -> bytes:
        raw = self.header.get("body")
        body: bytes = msgpack.packb(self.body) if raw is None else raw
        header = {"magic": b"traxsnap", "version": 1, "reserved": 0, "body_bytes": len(body), "checksum": crc32(body)}
        header |= {key: value for key, value in self.header.items() if key != "body"}
        packed = _SNAPSHOT.pack(
            header["magic"], header["version"], header["reserved"], 0, header["body_bytes"], header["checksum"]
        )
        return packed + struct.pack("<I", crc32(packed)) + body


@dataclass
class Frame:
    """A frame; ``payload_bytes``, ``chain`` and ``payload_checksum`` are right where they are None."""

    kind: bytes
    flags: int
    reserved: bytes
    record_count: int
    payload_bytes: int | None
    first_sequence: int
    synced: int
    chain: int | None
    epoch: int
    payload_checksum: int | None
    payload: bytes

    @classmethod
    def parse(cls, data: bytes, offset: int) -> Frame:
        kind, flags, reserved, count, nbytes, first, synced, _, epoch, _ = _FRAME.unpack_from(data, offset)
        payload = data[offset + 48 : offset + 48 + nbytes]
        return cls(kind, flags, reserved, count, None, first, synced, None, epoch, None, payload)

    def pack(self, salt: bytes, offset: int, chain: int) -> tuple[bytes, int]:
        """The frame as it stands at ``offset``, and its header's checksum."""
        header = _FRAME.pack(
            self.kind,
            self.flags,
            self.reserved,
            self.record_count,
            len(self.payload) if self.payload_bytes is None else self.payload_bytes,
            self.first_sequence,
            self.synced,
            chain if self.chain is None else self.chain,
            self.epoch,
            crc32(self.payload) if self.payload_checksum is None else self.payload_checksum,
        )
        checksum = crc32(salt + struct.pack("<Q", offset) + header)
        return header + struct.pack("<I", checksum) + self.payload, checksum


@dataclass
class Segment:
    """A segment: its header, its frames, what lies behind them, and behind which of them it is sealed."""

    version: int
    store_id: bytes
    number: int
    salt: bytes
    frames: list[Frame]
    rest: bytes = b""
    sealed_frames: int | None = None

    @classmethod
    def parse(cls, data: bytes, sealed: list[int] | None) -> Segment:
        _, version, _, store_id, number, salt = _SEGMENT.unpack_from(data)
        segment = cls(version, store_id, number, salt, [])
        offset = 48
        while data[offset : offset + 3] == b"trx" and len(data) >= offset + 48:
            if sealed is not None and offset == sealed[0]:
                segment.sealed_frames = len(segment.frames)
            frame = Frame.parse(data, offset)
            if crc32(frame.payload) != _FRAME.unpack_from(data, offset)[-1]:
                break
            segment.frames.append(frame)
            offset += 48 + len(frame.payload)
        if sealed is not None and offset == sealed[0]:
            segment.sealed_frames = len(segment.frames)
        segment.rest = data[offset:]
        return segment

    def pack(self) -> tuple[bytes, list[int] | None]:
        """The file, and what the snapshot says of its end if it is sealed."""
        header = _SEGMENT.pack(b"traxlog\n", self.version, 0, self.store_id, self.number, self.salt)
        chain = crc32(header)
        data = header + struct.pack("<I", chain)
        sequence = 0
        sealed = None
        for place in range(len(self.frames) + 1):
            if place == self.sealed_frames:
                sealed = [len(data), chain, sequence]
            if place < len(self.frames):
                frame = self.frames[place]
                packed, chain = frame.pack(self.salt, len(data), chain)
                data += packed
                if frame.kind != b"trxM":
                    sequence = _last_sequence(frame)
        return data + self.rest, sealed


def _last_sequence(frame: Frame) -> int:
    if frame.flags & 1 and frame.record_count and len(frame.payload) >= 8 * frame.record_count:
        return int(struct.unpack_from("<Q", frame.payload, 8 * (frame.record_count - 1))[0])
    return (frame.first_sequence + frame.record_count - 1) % 2**64


@dataclass
class Blob:
    """A blob: its parts, which are laid out one behind the other; ``footer`` overrides fields by name."""

    version: int
    store_id: bytes
    number: int
    middle: bytes
    """The buffers, with what lies between them."""
    head: bytes
    index: Any
    """A list of ``[offset or runs, nbytes, checksums]``, or the bytes to write in its place."""
    footer: dict[str, int] = field(default_factory=dict)

    @classmethod
    def parse(cls, data: bytes) -> Blob:
        _, version, _, _, store_id, number, _ = _BLOB.unpack_from(data)
        at, nbytes, _, index_at, index_bytes, _, _ = _FOOTER.unpack_from(data, len(data) - 48)
        index = msgpack.unpackb(data[index_at : index_at + index_bytes])
        return cls(version, store_id, number, data[64:at], data[at : at + nbytes], index)

    def pack(self) -> tuple[bytes, int]:
        """The file, and its seal."""
        header = _BLOB.pack(b"traxblob", self.version, 0, bytes(4), self.store_id, self.number, bytes(24))
        index: bytes = self.index if isinstance(self.index, bytes) else msgpack.packb(self.index)
        head_at = 64 + len(self.middle)
        fields: dict[str, int] = {
            "head_offset": head_at,
            "head_bytes": len(self.head),
            "head_checksum": crc32(self.head),
            "index_offset": head_at + len(self.head),
            "index_bytes": len(index),
            "index_checksum": crc32(index),
            **self.footer,
        }
        footer = _FOOTER.pack(*fields.values(), bytes(4))
        seal = crc32(footer, crc32(header))
        return header + self.middle + self.head + index + footer + struct.pack("<I", seal), seal

    def checksums(self, offset: int, nbytes: int) -> bytes:
        """What the index says of a buffer that begins at ``offset`` of the file."""
        data = self.middle[max(0, offset - 64) : max(0, offset - 64 + nbytes)]
        return b"".join(struct.pack("<I", crc32(data[at : at + 2**20])) for at in range(0, len(data), 2**20))


@dataclass
class Store:
    """A store in parts. ``write`` makes every checksum, length and place anew that nobody has overridden."""

    snapshot: Snapshot
    kept: dict[str, Snapshot]
    segments: dict[str, Segment]
    blobs: dict[str, Blob]
    others: dict[str, bytes]

    @classmethod
    def load(cls, path: Path) -> Store:
        snapshot = Snapshot.parse((path / "snapshot").read_bytes())
        sealed = {number: end for number, _, end, *_ in snapshot.body[1]}
        store = cls(snapshot, {}, {}, {}, {})
        for file in sorted(one for one in path.rglob("*") if one.is_file()):
            name, data = str(file.relative_to(path)), file.read_bytes()
            if len(data) < 48:
                store.others[name] = data
            elif name.startswith("kept/"):
                store.kept[name] = Snapshot.parse(data)
            elif name.startswith("blobs/"):
                store.blobs[name] = Blob.parse(data)
            elif name.startswith("log."):
                store.segments[name] = Segment.parse(data, sealed.get(int(name[4:])))
            elif name != "snapshot":
                store.others[name] = data
        return store

    def copy(self) -> Store:
        return copy.deepcopy(self)

    def files(self, change: Callable[[Body], None] = lambda body: None) -> dict[str, bytes]:
        """Every file; ``change`` is what is done to the snapshot's body when all that it names is written."""
        files = dict(self.others)
        ends: dict[int, list[int] | None] = {}
        for name, segment in self.segments.items():
            files[name], ends[int(name[4:])] = segment.pack()
        seals: dict[int, tuple[int, int]] = {}
        for name, blob in self.blobs.items():
            files[name], seal = blob.pack()
            seals[int(name[6:])] = len(files[name]), seal
        for name, kept in self.kept.items():
            _seal_blobs(kept.body, seals)
            files[name] = kept.pack()
        _seal_blobs(self.snapshot.body, seals)
        for reference in self.snapshot.body[1]:
            if reference[2] is not None and ends.get(reference[0]) is not None:
                reference[2] = ends[reference[0]]
        change(self.snapshot.body)
        files["snapshot"] = self.snapshot.pack()
        return files


def _seal_blobs(body: Body, seals: dict[int, tuple[int, int]]) -> None:
    for stored in body[3].values():
        if isinstance(stored[2], list):
            _, _, _, *bases = stored[2]
            for blob in [stored[2], *(bases[0] if bases and isinstance(bases[0], list) else ())]:
                if isinstance(blob, list) and blob and blob[0] in seals:
                    blob[1:3] = seals[blob[0]]


def file_of(path: Path, kind: str) -> Path:
    """The snapshot, the newest segment (``log``), or a blob of a store."""
    if kind == "snapshot":
        return path / "snapshot"
    return max(path.glob("log.*")) if kind == "log" else next((path / "blobs").iterdir())


def set_version(path: Path, kind: str, version: int) -> None:
    """Give one file of a store another version of the format, with every checksum right."""
    store = Store.load(path)
    name = str(file_of(path, kind).relative_to(path))
    if kind == "snapshot":
        store.snapshot.header["version"] = version
    elif kind == "log":
        store.segments[name].version = version
    else:
        store.blobs[name].version = version
    for one, data in store.files().items():
        (path / one).write_bytes(data)
