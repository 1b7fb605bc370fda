"""Reading a log file: a walk over its frames, and what it means where it ends.

A walk never passes over a bad frame. Whether that is a torn tail, as a crash leaves it, or corruption is decided by
what lies behind it: see ``docs/format.rst``, "A bad frame".
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence
from typing import NamedTuple

from trax.errors import CorruptionError, FormatError
from trax.storage.base import MAX_SEQUENCE, Entries
from trax.storage.local.framing import (
    EXPLICIT_SEQUENCES,
    FRAME_HEADER_BYTES,
    FRAME_MAGIC,
    LINES,
    MARK,
    RECORDS,
    SEGMENT_HEADER_BYTES,
    WRITER_CLOSED,
    FrameHeader,
    decode_frame_header,
    decode_segment_header,
    payload_is_whole,
)
from trax.storage.local.fs import FileSystem
from trax.storage.local.payload import (
    MalformedPayloadError,
    shares_of_sections,
    split_sequences,
    unpack_lines,
    unpack_sections,
)
from trax.storage.local.refusal import check_version

_READ_BYTES = 1 << 18


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

    def entries(self, wanted: Container[str] | None = None) -> Iterator[Entries]:
        """What each name, or each of the ``wanted`` ones, has in this frame; MalformedPayloadError."""
        sequences, payload = self._split()
        return (unpack_lines if self.header.kind == LINES else unpack_sections)(payload, sequences, wanted)

    def shares(self) -> Iterator[tuple[str, int, int]]:
        """Of each name the last sequence, and the bytes of its entries; MalformedPayloadError."""
        sequences, payload = self._split()
        if self.header.kind == LINES:
            for entries in unpack_lines(payload, sequences):
                yield entries.name, entries.sequences[-1], len(entries.data)
        else:
            for name, last_index, nbytes in shares_of_sections(payload, len(sequences)):
                yield name, sequences[last_index], nbytes

    def _split(self) -> tuple[Sequence[int], bytes]:
        first, count = self.header.first_sequence, self.header.record_count
        if self.header.flags & EXPLICIT_SEQUENCES:
            return split_sequences(self.payload, count)
        return range(first, first + count), self.payload


class Walk:
    """The frames of a segment from a tail on, verified one by one.

    Iterate to the end, then ask: ``tail`` is where the last whole frame ends, ``fault`` says why the walk ended before
    ``end`` (None: it did not, or nothing but zeros followed), ``proven`` is how far the frames themselves say that the
    segment was synced, ``closed`` whether the last of them is the mark of a writer that let go, ``marks`` how many
    marks there are, ``published`` the highest sequence of a snapshot that they name, ``latest_sequence`` and
    ``latest_epoch`` the highest of any frame. ``promised`` is what the snapshot says of an active segment: a tail that
    the walk must come by; None when it has.
    """

    def __init__(
        self, fs: FileSystem, fd: int, path: str, salt: bytes, tail: Tail, end: int, promised: Tail | None = None
    ) -> None:
        self.fs, self.fd, self.path, self.salt, self.end = fs, fd, path, salt, end
        self.tail = tail
        self.promised = promised
        self.proven = tail.offset
        self.closed = False
        self.before_mark = tail
        self.marks = 0
        self.published = 0
        self.latest_sequence = 0
        self.latest_epoch = 0
        self.fault: str | None = None
        self._base = 0
        self._buffer = b""

    def look_again(self, end: int) -> None:
        """Let the next iteration go on behind the last records: a writer puts other frames in the place of a mark."""
        if self.marks and self.tail.offset == self.before_mark.offset + FRAME_HEADER_BYTES:
            self.tail = self.before_mark
        self.end, self.fault, self.closed = end, None, False
        self._base, self._buffer = 0, b""

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
            if self.tail == self.promised:
                self.promised, self.proven = None, max(self.proven, self.tail.offset)

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
        if header.kind != MARK and header.record_count == 0:
            raise malformed(MalformedPayloadError("a frame of no records"), self.path, header.first_sequence)
        end = self.tail.offset + FRAME_HEADER_BYTES + header.payload_bytes
        # A claim about bytes that lie behind the frame itself is nothing that a writer says.
        self.proven = max(self.proven, min(header.synced, self.tail.offset))
        self.latest_epoch = max(self.latest_epoch, header.epoch)
        self.latest_sequence = max(self.latest_sequence, header.first_sequence)
        self.closed = header.kind == MARK and bool(header.flags & WRITER_CLOSED)
        if header.kind == MARK:
            self.marks += 1
            if header.first_sequence > self.tail.sequence:  # so it names what a snapshot held
                self.published = max(self.published, header.first_sequence)
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
        sequences = frame.sequences
        if sequences[0] != frame.header.first_sequence or sequences[-1] == MAX_SEQUENCE:
            raise MalformedPayloadError("the list of sequences does not fit its frame")
        return sequences[-1]
    except MalformedPayloadError as error:
        raise malformed(error, path, frame.header.first_sequence) from error


def malformed(error: Exception, path: str, sequence: int) -> CorruptionError:
    """A frame whose checksums are right and whose payload makes no sense."""
    text = f"{path} is damaged at sequence {sequence}: {error}, though its checksum is right."
    return CorruptionError(text, path=path, sequence=sequence, reason=str(error))


def judge(walk: Walk) -> str | None:
    """What a finished walk over the active segment found behind the last whole frame.

    None: nothing. A text: a torn tail, as a crash leaves it. CorruptionError: what no crash leaves.
    """
    if walk.promised is not None:
        reason = walk.fault or "the file is shorter than it was, or holds other records"
        witness = f"the snapshot says that the segment was on stable storage up to byte {walk.promised.offset:,}"
    elif walk.fault is None:
        return None
    elif (claim := find_later_claim(walk)) is None:
        return walk.fault
    else:
        reason = walk.fault
        witness = f"a whole frame at byte {claim:,} says that these bytes had been on stable storage"
    text = (
        f"{walk.path} is damaged at byte {walk.tail.offset:,}, behind sequence {walk.tail.sequence}: {reason}, and "
        f"{witness}. Nothing was changed. Restore the store from a copy, or see what 'trax repair' can save."
    )
    raise CorruptionError(text, path=walk.path, offset=walk.tail.offset, sequence=walk.tail.sequence, reason=reason)


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


def read_segment_header(fs: FileSystem, fd: int, path: str, store_id: bytes, number: int, salt: bytes) -> Tail:
    """The tail of the segment while it was empty; CorruptionError when it is not the one that the snapshot names."""
    data = fs.pread(fd, SEGMENT_HEADER_BYTES, 0)
    header = decode_segment_header(data)
    if header is not None:
        check_version(header.version, path)
    if header is None:
        reason = "it does not begin like a segment of the log"
    elif (header.store_id, header.number, header.salt) != (store_id, number, salt):
        reason = "it belongs to another store, or to an older state of this one"
    else:
        return Tail(SEGMENT_HEADER_BYTES, header.checksum, 0)
    text = (
        f"{path} is damaged: {reason}. Nothing was changed. Restore the store from a copy, or see what 'trax repair' "
        f"can save."
    )
    raise CorruptionError(text, path=path, offset=0, reason=reason)
