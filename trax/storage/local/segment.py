"""One log file that is appended to.

Invariants:

- Bytes are written at an explicit offset, the writer's tail, and the tail moves in one assignment after they are: a
  write that failed or was interrupted is simply written again at the same place, or something else is.
- ``synced`` only moves after a completed fsync, to where the tail was before it began.
- ``summary`` never says less than is true: a segment may be removed on its word.
"""

from __future__ import annotations

import errno
import secrets
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import NamedTuple

from trax.storage.base import Commit, Record
from trax.storage.local.framing import (
    EXPLICIT_SEQUENCES,
    LINES,
    MARK,
    RECORDS,
    SEGMENT_HEADER_BYTES,
    WRITER_CLOSED,
    encode_frame,
    encode_segment_header,
)
from trax.storage.local.fs import FileSystem, write_all
from trax.storage.local.payload import pack_lines, pack_sections, pack_sequences
from trax.storage.local.walk import Frame, Tail, read_segment_header

FRAME_RECORDS = 128
FRAME_BYTES = 1 << 16
_ALLOCATE_FIRST_BYTES = 1 << 18
_ALLOCATE_MOST_BYTES = 1 << 24


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
        self._mark = self.tail, self.tail
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

    def mark(self, published: int = 0, *, closing: bool = False) -> None:
        """Say that everything so far is on stable storage, which it must be; the mark itself is not, until a sync.

        It also names the last sequence that there was, in the log or as ``published`` in the snapshot: a snapshot that
        is older than a mark was put back from an older copy. A mark that is the last frame is replaced, not followed.
        """
        start = self._before_mark
        assert self.synced >= start.offset, "a mark must not say what is not so"
        self.synced, self.tail = start.offset, start
        flags = WRITER_CLOSED if closing else 0
        self._preallocate = self._preallocate and not closing
        data, chain = self._encode(b"", MARK, flags, 0, max(start.sequence, published), start)
        self._write(data, Tail(start.offset + len(data), chain, start.sequence))
        self._mark = start, self.tail

    @property
    def provable(self) -> bool:
        """Whether all records are on stable storage, so that a mark may say so."""
        return self.synced >= self._before_mark.offset

    @property
    def proven(self) -> Tail | None:
        """Where the last record ends, if all of them are on stable storage; None if there is nothing but the header."""
        tail = self._before_mark
        return tail if SEGMENT_HEADER_BYTES < tail.offset <= self.synced else None

    @property
    def _before_mark(self) -> Tail:
        """The tail, or where the mark begins that is the last frame."""
        start, end = self._mark
        return start if end == self.tail else self.tail

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
        with suppress(OSError):  # the next opening sweeps it
            fs.unlink(path)
        raise
