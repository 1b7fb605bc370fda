"""One log file: a writer appends to it, a walk reads it and judges where it ends.

Invariants:

- Bytes are written at an explicit offset, the writer's tail, and the tail moves in one assignment after they are: a
  write that failed or was interrupted is simply written again at the same place, or something else is.
- ``synced`` only moves after a completed fsync, to where the tail was before it began.
- A walk never passes over a bad frame. Whether that is a torn tail or corruption is decided by what lies behind it.
"""

from __future__ import annotations

import errno
import secrets
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from trax.errors import CorruptionError, FormatError
from trax.storage.base import Commit, Entries, Record
from trax.storage.local.framing import (
    EXPLICIT_SEQUENCES,
    FORMAT_VERSION,
    FRAME_HEADER_BYTES,
    FRAME_MAGIC,
    LINES,
    MARK,
    MAX_SEQUENCE,
    RECORDS,
    SEGMENT_HEADER_BYTES,
    FrameHeader,
    decode_frame_header,
    decode_segment_header,
    encode_frame,
    encode_segment_header,
    payload_is_whole,
)
from trax.storage.local.fs import FileSystem, write_all
from trax.storage.local.payload import (
    MalformedPayloadError,
    pack_lines,
    pack_sections,
    pack_sequences,
    split_sequences,
    unpack_lines,
    unpack_sections,
)

FRAME_RECORDS = 128
FRAME_BYTES = 1 << 16
_READ_BYTES = 1 << 18
_ALLOCATE_FIRST_BYTES = 1 << 18
_ALLOCATE_MOST_BYTES = 1 << 24


class Tail(NamedTuple):
    """Where a segment ends: the offset, the checksum that the next frame chains to, the last sequence before it."""

    offset: int
    chain: int
    sequence: int


class Frame(NamedTuple):
    """A whole frame, verified."""

    header: FrameHeader
    payload: bytes

    @property
    def sequences(self) -> Sequence[int]:
        return self._split()[0]

    def entries(self) -> Iterator[Entries]:
        """What each name has in this frame; MalformedPayloadError."""
        sequences, payload = self._split()
        return (unpack_lines if self.header.kind == LINES else unpack_sections)(payload, sequences)

    def _split(self) -> tuple[Sequence[int], bytes]:
        first, count = self.header.first_sequence, self.header.record_count
        if self.header.flags & EXPLICIT_SEQUENCES:
            return split_sequences(self.payload, count)
        return range(first, first + count), self.payload


@dataclass
class Summary:
    """What a segment holds of each name: the last sequence, and the bytes of its entries. Never less than is true."""

    last_sequence: dict[str, int] = field(default_factory=dict)
    nbytes: dict[str, int] = field(default_factory=dict)

    def add(self, name: str, sequence: int, nbytes: int) -> None:
        self.last_sequence[name] = sequence
        self.nbytes[name] = self.nbytes.get(name, 0) + nbytes

    def add_frame(self, frame: Frame) -> None:
        for entries in frame.entries():
            self.add(entries.name, entries.sequences[-1], len(entries.data))


class Manner(NamedTuple):
    """How a writer writes: the epoch that its frames name, JSON lines or sections, and whether to make room ahead."""

    epoch: int
    lines: bool
    preallocate: bool


@dataclass
class SegmentWriter:
    """The active segment. One thread at a time."""

    fs: FileSystem
    fd: int
    path: str
    salt: bytes
    manner: Manner
    tail: Tail
    synced: int
    before: int
    """The last sequence before the segment's first record."""
    summary: Summary = field(default_factory=Summary)

    def __post_init__(self) -> None:
        self._room = self.fs.size(self.fd)
        self._marked: Tail | None = None
        self._preallocate = self.manner.preallocate
        self._pack = pack_lines if self.manner.lines else pack_sections

    def append(self, first_sequence: int, commits: Iterable[Commit]) -> None:
        """Write records of consecutive sequences behind the tail; after an error the tail is where it was."""
        parts: list[bytes] = []
        tail = self.tail
        for records in _frames(commits):
            payload, shares = self._pack(records)
            # The summary may say too much after an error, never too little: an entry that it doesn't know of would
            # be thrown away with its segment.
            for name, share in shares.items():
                self.summary.add(name, first_sequence + share.last_index, share.nbytes)
            tail = self._frame(parts, tail, payload, first_sequence, len(records))
            first_sequence += len(records)
        self._write(b"".join(parts), tail)

    def append_survivors(self, sequences: Sequence[int], records: Sequence[Record]) -> None:
        """Write records that keep the sequences they had elsewhere, with gaps between them, as one frame."""
        payload, shares = self._pack(records)
        for name, share in shares.items():
            self.summary.add(name, sequences[share.last_index], share.nbytes)
        parts: list[bytes] = []
        payload = pack_sequences(sequences) + payload
        tail = self._frame(parts, self.tail, payload, sequences[0], len(records), EXPLICIT_SEQUENCES)
        self._write(b"".join(parts), tail._replace(sequence=sequences[-1]))

    def append_again(self, frame: Frame) -> None:
        """Write a frame of another segment, with the sequences it has."""
        self.summary.add_frame(frame)
        parts: list[bytes] = []
        header = frame.header
        tail = self._frame(parts, self.tail, frame.payload, header.first_sequence, header.record_count, header.flags)
        self._write(b"".join(parts), tail._replace(sequence=frame.sequences[-1]))

    def mark(self, published: int = 0) -> None:
        """Say that everything so far is on stable storage, which it is; the mark itself is not, until a sync.

        It also names the last sequence that there was, in the log or as ``published`` in the snapshot: a snapshot that
        is older than a mark was put back from an older copy.
        """
        data, chain = self._encode(b"", MARK, 0, 0, max(self.tail.sequence, published), self.tail)
        self._write(data, Tail(self.tail.offset + len(data), chain, self.tail.sequence))
        self._marked = self.tail

    @property
    def ends_with_mark(self) -> bool:
        """Whether a mark is the last frame, and on stable storage itself."""
        return self._marked == self.tail and self.synced == self.tail.offset

    def sync(self) -> None:
        offset = self.tail.offset
        self.fs.fdatasync(self.fd)  # makes durable: every frame up to the tail, and the size when the file grew
        self.synced = max(self.synced, offset)

    def cut_back(self) -> None:
        """Remove what lies behind the tail: room that was never used, or what a failed write left."""
        self.fs.truncate(self.fd, self.tail.offset)
        self._room = self.tail.offset

    @property
    def empty(self) -> bool:
        """Whether there are no records in it."""
        return self.tail.sequence == self.before

    def _frame(
        self, parts: list[bytes], tail: Tail, payload: bytes, first_sequence: int, count: int, flags: int = 0
    ) -> Tail:
        data, chain = self._encode(payload, LINES if self.manner.lines else RECORDS, flags, count, first_sequence, tail)
        parts.append(data)
        return Tail(tail.offset + len(data), chain, first_sequence + count - 1)

    def _encode(
        self, payload: bytes, kind: bytes, flags: int, count: int, first_sequence: int, tail: Tail
    ) -> tuple[bytes, int]:
        return encode_frame(
            payload,
            kind=kind,
            flags=flags,
            record_count=count,
            first_sequence=first_sequence,
            synced=self.synced,
            chain=tail.chain,
            epoch=self.manner.epoch,
            salt=self.salt,
            offset=tail.offset,
        )

    def _write(self, data: bytes, tail: Tail) -> None:
        if self._preallocate and tail.offset > self._room:
            self._make_room(tail.offset)
        write_all(self.fs, self.fd, data, self.tail.offset)
        self.tail = tail

    def _make_room(self, needed: int) -> None:
        """Grow the file ahead of the writes: a size that changes costs a commit of the file system's journal a sync."""
        step = min(max(self._room, _ALLOCATE_FIRST_BYTES), _ALLOCATE_MOST_BYTES)
        try:
            self.fs.allocate(self.fd, self._room, max(needed - self._room, step))
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL):
                raise
            self._preallocate = False  # only speed is lost; whether there is room is for the write itself to find out
            return
        self._room += max(needed - self._room, step)


def _frames(commits: Iterable[Commit]) -> Iterator[list[Record]]:
    """Whole commits, gathered to frames of a size that is read back fast."""
    records: list[Record] = []
    nbytes = 0
    for commit in commits:
        records.extend(commit)
        nbytes += sum(len(encoding) for record in commit for encoding in record.values())
        if len(records) >= FRAME_RECORDS or nbytes >= FRAME_BYTES:
            yield records
            records, nbytes = [], 0
    if records:
        yield records


class Walk:
    """The frames of a segment from a tail on, verified one by one.

    Iterate to the end, then ask: ``tail`` is where the last whole frame ends, ``fault`` says why the walk ended before
    ``end`` (None: it did not, or nothing but zeros followed), ``proven`` is how far the frames themselves say that the
    segment was synced, ``marked`` whether the last of them was a mark, ``latest_sequence`` and ``latest_epoch`` the
    highest that they name.
    """

    def __init__(self, fs: FileSystem, fd: int, path: str, salt: bytes, tail: Tail, end: int) -> None:
        self.fs, self.fd, self.path, self.salt, self.end = fs, fd, path, salt, end
        self.tail = tail
        self.proven = tail.offset
        self.marked = False
        self.before_mark = tail
        self.latest_sequence = 0
        self.latest_epoch = 0
        self.fault: str | None = None
        self._base = 0
        self._buffer = b""

    def __iter__(self) -> Iterator[Frame]:
        while self.tail.offset < self.end:
            header = self._header()
            if header is None:
                return
            payload = self._read(self.tail.offset + FRAME_HEADER_BYTES, header.payload_bytes)
            if not payload_is_whole(header, payload):
                self.fault = "the frame's payload does not match its checksum"
                return
            frame = Frame(header, payload)
            yield from self._pass(frame)

    def _header(self) -> FrameHeader | None:
        offset = self.tail.offset
        data = self._read(offset, FRAME_HEADER_BYTES)
        header = decode_frame_header(data, 0, self.salt, offset)
        if header is None:
            if data.strip(b"\0") or not self._only_zeros(offset):
                self.fault = "there is no whole frame header"
        elif header.kind not in (RECORDS, LINES, MARK):
            text = (
                f"{self.path} holds a frame of kind {header.kind!r} at byte {offset}; a newer version of trax wrote it."
            )
            raise FormatError(text, path=self.path, offset=offset, reason="unknown kind of frame")
        elif header.chain != self.tail.chain:
            self.fault = "the frame does not follow the one before it"
        elif header.payload_bytes > self.end - offset - FRAME_HEADER_BYTES:
            self.fault = "the frame is longer than the file"
        elif (
            header.kind != MARK and not self.tail.sequence < header.first_sequence <= MAX_SEQUENCE - header.record_count
        ):
            self.fault = "the frame's sequence is not above the one before it"
        else:
            return header
        return None

    def _pass(self, frame: Frame) -> Iterator[Frame]:
        header = frame.header
        end = self.tail.offset + FRAME_HEADER_BYTES + header.payload_bytes
        # A claim about bytes that lie behind the frame itself is nothing that a writer says.
        self.proven = max(self.proven, min(header.synced, self.tail.offset))
        self.latest_epoch = max(self.latest_epoch, header.epoch)
        self.latest_sequence = max(self.latest_sequence, header.first_sequence)
        self.marked = header.kind == MARK
        if self.marked:
            self.before_mark = self.tail
            self.proven = self.tail.offset
            self.tail = Tail(end, header.checksum, self.tail.sequence)
            return
        if header.flags & EXPLICIT_SEQUENCES:
            last = _explicit_last(frame, self.path)
        else:
            last = header.first_sequence + header.record_count - 1
        yield frame
        self.tail = Tail(end, header.checksum, last)

    def _read(self, offset: int, nbytes: int) -> bytes:
        nbytes = min(nbytes, self.end - offset)
        start = offset - self._base
        if start < 0 or start + nbytes > len(self._buffer):
            self._buffer = self.fs.pread(self.fd, min(max(nbytes, _READ_BYTES), self.end - offset), offset)
            self._base, start = offset, 0
        return self._buffer[start : start + nbytes]

    def _only_zeros(self, offset: int) -> bool:
        while offset < self.end and (data := self.fs.pread(self.fd, min(_READ_BYTES, self.end - offset), offset)):
            if data.strip(b"\0"):
                return False
            offset += len(data)
        return True


def _explicit_last(frame: Frame, path: str) -> int:
    try:
        return frame.sequences[-1]
    except (MalformedPayloadError, IndexError) as error:
        raise malformed(error, path, frame.header.first_sequence) from error


def malformed(error: Exception, path: str, sequence: int) -> CorruptionError:
    """A frame whose checksums are right and whose payload makes no sense."""
    text = f"{path} is damaged at sequence {sequence}: {error}, though its checksum is right."
    return CorruptionError(text, path=path, sequence=sequence, reason=str(error))


def find_later_claim(walk: Walk) -> int | None:
    """Where a valid frame behind the fault says that the bytes at the fault had been synced; None when none does.

    Such a frame was written after a completed fsync of what is bad now, so no crash explains it.
    """
    offset = walk.tail.offset + 1
    overlap = FRAME_HEADER_BYTES - 1
    while offset < walk.end:
        data = walk.fs.pread(walk.fd, min(_READ_BYTES, walk.end - offset), offset)
        at = data.find(FRAME_MAGIC)
        while at >= 0:
            header = decode_frame_header(data, at, walk.salt, offset + at)
            if header is not None and header.synced > walk.tail.offset:
                return offset + at
            at = data.find(FRAME_MAGIC, at + 1)
        if len(data) <= overlap:
            return None
        offset += len(data) - overlap
    return None


def judge(walk: Walk) -> str | None:
    """What a finished walk over the active segment found behind the last whole frame.

    None: nothing. A text: a torn tail, as a crash leaves it. CorruptionError: what no crash leaves.
    """
    if walk.fault is None:
        return None
    claim = find_later_claim(walk)
    if claim is None:
        return walk.fault
    text = (
        f"{walk.path} is damaged at byte {walk.tail.offset:,}, behind sequence {walk.tail.sequence}: {walk.fault}, and a "
        f"whole frame at byte {claim:,} says that these bytes had been on stable storage. Nothing was changed. Restore "
        f"the store from a copy, or see what 'trax repair' can save."
    )
    raise CorruptionError(text, path=walk.path, offset=walk.tail.offset, sequence=walk.tail.sequence, reason=walk.fault)


def create_segment(
    fs: FileSystem, path: str, store_id: bytes, number: int, *, mode: int | None, manner: Manner, sequence: int
) -> SegmentWriter:
    """A new, empty segment. Its header is on stable storage when this returns; its name in the directory isn't."""
    salt = secrets.token_bytes(8)
    header = encode_segment_header(store_id, number, salt)
    fd = fs.create(path, mode)
    try:
        write_all(fs, fd, header, 0)
        fs.fsync(fd)  # makes durable: the header, so that a snapshot may name the segment
        tail = read_segment_header(fs, fd, path, store_id, number, salt)
        return SegmentWriter(fs, fd, path, salt, manner, tail._replace(sequence=sequence), tail.offset, sequence)
    except BaseException:
        fs.close(fd)
        raise


def read_segment_header(fs: FileSystem, fd: int, path: str, store_id: bytes, number: int, salt: bytes) -> Tail:
    """The tail of the segment while it was empty; CorruptionError when it is not the one that the snapshot names."""
    data = fs.pread(fd, SEGMENT_HEADER_BYTES, 0)
    header = decode_segment_header(data)
    if header is None:
        reason = "it does not begin like a segment of the log"
    elif header.version > FORMAT_VERSION:
        text = f"{path} was written by a newer version of trax. Install that version."
        raise FormatError(text, path=path, reason=f"format {header.version}")
    elif (header.store_id, header.number, header.salt) != (store_id, number, salt):
        reason = "it belongs to another store, or to an older state of this one"
    else:
        return Tail(SEGMENT_HEADER_BYTES, header.checksum, 0)
    text = (
        f"{path} is damaged: {reason}. Nothing was changed. Restore the store from a copy, or see what 'trax repair' "
        f"can save."
    )
    raise CorruptionError(text, path=path, offset=0, reason=reason)
