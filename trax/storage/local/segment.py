"""One log file that is appended to.

Invariants:

- Bytes are written at an explicit offset, the writer's tail, and the tail moves in one assignment after they are: a
  write that failed or was interrupted is simply written again at the same place, or something else is.
- ``synced`` only moves after a completed fsync, to where the tail was before it began.
- After a failed fsync nothing is written or synced any more: the next one would succeed without the bytes that the
  failed one has lost.
- ``summary`` never says less than is true: a segment may be removed on its word.
"""

from __future__ import annotations

import errno
import secrets
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import NamedTuple

from trax.errors import FinishedError
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
        for name, sequence, nbytes in frame.shares():
            self.add(name, sequence, nbytes)


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
    sync_failed: bool = False

    def __post_init__(self) -> None:
        self._room = self.fs.size(self.fd)
        self._mark = self.tail, self.tail
        self._preallocate = self.manner.preallocate
        self._kind = LINES if self.manner.lines else RECORDS
        self._pack = pack_lines if self.manner.lines else pack_sections

    def append(self, first_sequence: int, commits: Sequence[Commit]) -> None:
        """Write records of consecutive sequences behind the tail; after an error the tail is where it was."""
        tail = self.tail
        frames: list[bytes] = []
        for records in commits if len(commits) == 1 else _frames(commits):
            payload, shares = self._pack(records)
            # The summary may say too much after an error, never too little: an entry that it doesn't know of would be
            # thrown away with its segment.
            for name, last_index, nbytes in shares:
                self.summary.add(name, first_sequence + last_index, nbytes)
            frame, tail = self._frame(payload, first_sequence, len(records), 0, tail)
            frames.append(frame)
            first_sequence += len(records)
        self._write(b"".join(frames), tail)

    def append_survivors(self, sequences: Sequence[int], records: Sequence[Record]) -> None:
        """Write records that keep the sequences they had elsewhere, with gaps between them, as one frame."""
        payload, shares = self._pack(records)
        for name, last_index, nbytes in shares:
            self.summary.add(name, sequences[last_index], nbytes)
        payload = pack_sequences(sequences) + payload
        data, tail = self._frame(payload, sequences[0], len(records), EXPLICIT_SEQUENCES, self.tail)
        self._write(data, tail._replace(sequence=sequences[-1]))

    def append_again(self, frame: Frame) -> None:
        """Write a frame of another segment, with the sequences it has."""
        self.summary.add_frame(frame)
        header = frame.header
        data, tail = self._frame(frame.payload, header.first_sequence, header.record_count, header.flags, self.tail)
        self._write(data, tail._replace(sequence=frame.sequences[-1]))

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
        sequence = max(start.sequence, published)
        data, chain = encode_frame(
            b"", self.salt, start.offset, MARK, flags, 0, sequence, self.synced, start.chain, self.manner.epoch
        )
        end = Tail(start.offset + len(data), chain, start.sequence)
        self._mark = start, end  # it means nothing before the tail is there, and must be known as soon as it is
        self._write(data, end)

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
        self._check_synced_so_far()
        offset = self.tail.offset
        try:
            self.fs.fdatasync(self.fd)  # makes durable: every frame up to the tail, and the size when the file grew
        except OSError:
            # The very next step of the interpreter: no interrupt can come between and let the failure be forgotten.
            self.sync_failed = True
            raise
        self.synced = max(self.synced, offset)

    def cut_back(self) -> None:
        """Remove what lies behind the tail: room that was never used, or what a failed write left."""
        self.fs.truncate(self.fd, self.tail.offset)
        self._room = self.tail.offset

    @property
    def empty(self) -> bool:
        """Whether there are no records in it."""
        return self.tail.sequence == self.before

    def _frame(self, payload: bytes, first_sequence: int, count: int, flags: int, tail: Tail) -> tuple[bytes, Tail]:
        """The bytes that come next behind ``tail``, and the tail behind them."""
        offset, chain, _ = tail
        data, chain = encode_frame(
            payload, self.salt, offset, self._kind, flags, count, first_sequence, self.synced, chain, self.manner.epoch
        )
        return data, Tail(offset + len(data), chain, first_sequence + count - 1)

    def _check_synced_so_far(self) -> None:
        if self.sync_failed:
            text = (
                f"an fsync of {self.path} has failed, so what the disk holds of it is unknown, and nothing more is "
                f"written to it. Open the store again: it writes anew what it can't prove to be there."
            )
            raise FinishedError(text, path=self.path, reason="a failed fsync")

    def _write(self, data: bytes, tail: Tail) -> None:
        if self.sync_failed:
            self._check_synced_so_far()
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


def _frames(commits: Sequence[Commit]) -> Iterator[Sequence[Record]]:
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
