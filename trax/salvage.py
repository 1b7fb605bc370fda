"""What can be read of a damaged log, and where it must end.

A log ends before its first damage: names must not come back as of different points in time. What lies behind the damage
is only counted, so that whoever repairs the store knows what is lost. The caller holds the lock.

:func:`scan_named` reads the segments that a snapshot names. :func:`scan_found` reads those that are there, for a store
whose snapshot is lost: which of them belong together, they say themselves, by their sequences and their headers.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice

from trax.errors import CorruptionError, FormatError, TraxError
from trax.records import LogRecord, Wanted, frame_records
from trax.storage.base import Entries
from trax.storage.local.commit_point import missing_file
from trax.storage.local.framing import (
    EXPLICIT_SEQUENCES,
    FRAME_HEADER_BYTES,
    FRAME_MAGIC,
    MARK,
    SEGMENT_HEADER_BYTES,
    SegmentHeader,
    decode_frame_header,
    decode_segment_header,
    payload_is_whole,
)
from trax.storage.local.fs import FileSystem
from trax.storage.local.layout import Layout, segment_numbers
from trax.storage.local.payload import MalformedPayloadError
from trax.storage.local.refusal import asking, check_version
from trax.storage.local.snapshot import SegmentReference, Snapshot
from trax.storage.local.view import open_segment
from trax.storage.local.walk import Frame, Tail, Walk, judge, malformed

_READ_BYTES = 1 << 18
_SAID_MISSING = 100
_PATIENCE = 16


@dataclass
class Behind:
    """What can still be read behind the damage. ``complete``: whether ``last`` is known to be the last there was."""

    records: int = 0
    last: int = 0
    complete: bool = True
    unknown_bytes: int = 0
    sequences: dict[str, list[int]] = field(default_factory=dict)

    def add(self, frame: Frame) -> None:
        try:
            found, last = list(frame.entries()), frame.sequences[-1]
        except (MalformedPayloadError, IndexError):
            return
        self.last = max(self.last, last)
        self.records += frame.header.record_count
        for entries in found:
            self.sequences.setdefault(entries.name, []).extend(entries.sequences)


@dataclass
class Log:
    """A log as far as it is whole. ``damage`` None: to its end; otherwise to ``last``, its last whole record.

    ``later``: whether it names an epoch or a checkpoint that came after the snapshot which it was read for.
    """

    segments: list[SegmentReference] = field(default_factory=list)
    damage: TraxError | None = None
    last: int = 0
    latest_sequence: int = 0
    latest_epoch: int = 0
    later: bool = False
    records: int = 0
    holders: dict[str, set[int]] = field(default_factory=dict)
    behind: Behind = field(default_factory=Behind)

    def add(self, frame: Frame, entries: Sequence[Entries], number: int) -> None:
        self.records += frame.header.record_count
        for one in entries:
            self.holders.setdefault(one.name, set()).add(number)

    def saw(self, walk: Walk) -> None:
        self.latest_epoch = max(self.latest_epoch, walk.latest_epoch)
        self.latest_sequence = max(self.latest_sequence, walk.latest_sequence, walk.tail.sequence)


def scan_named(fs: FileSystem, layout: Layout, snapshot: Snapshot) -> Log:
    """The log that a snapshot names. FormatError and StorageError: it can't be judged here, or now."""
    log = Log()
    for place, reference in enumerate(snapshot.segments):
        try:
            fault = _scan_segment(fs, layout, snapshot, reference, log)
        except FormatError:
            raise
        except CorruptionError as error:  # nothing of it can be used
            fault = error, None
        if fault is None:
            log.segments.append(reference)
            continue
        log.damage, tail = fault
        if tail is not None:
            log.segments.append(reference.ending(tail))
        for later in snapshot.segments[place:]:
            _look_behind(fs, layout, snapshot.store_id, later, log)
        break
    return log


def _scan_segment(
    fs: FileSystem, layout: Layout, snapshot: Snapshot, reference: SegmentReference, log: Log
) -> tuple[CorruptionError, Tail | None] | None:
    """Read a segment; the damage, if there is any, with the tail of what is whole before it."""
    segment = open_segment(fs, layout, snapshot.store_id, reference, log.last)
    try:
        with asking("read", segment.path):
            size = fs.size(segment.fd)
            end = reference.sealed.offset if reference.sealed else size
            walk = Walk(fs, segment.fd, segment.path, reference.salt, segment.start, min(end, size), reference.proven)
            error = _walk_whole(walk, log, reference.number)
        log.saw(walk)
        if reference.sealed is None:
            log.later = walk.latest_epoch > snapshot.epoch or walk.published > snapshot.sequence
        if error is None and reference.sealed is not None and walk.tail != reference.sealed:
            error = _not_as_sealed(walk, end)
            if walk.tail.offset == end:
                return error, None  # whole, and another than the snapshot saw: none of it can be trusted
        log.last = walk.tail.sequence
        return None if error is None else (error, walk.tail if walk.tail != segment.start else None)
    finally:
        fs.close(segment.fd)


def _walk_whole(walk: Walk, log: Log, number: int) -> CorruptionError | None:
    """Walk to the end of what is whole; what is no torn tail is damage, and the walk's tail stands before it."""
    try:
        for frame in walk:
            try:
                entries = list(frame.entries())
            except MalformedPayloadError as error:
                raise malformed(error, walk.path, frame.header.first_sequence) from error
            log.add(frame, entries, number)
        judge(walk)
    except CorruptionError as error:
        return error
    return None


def _not_as_sealed(walk: Walk, end: int) -> CorruptionError:
    reason = walk.fault or f"up to byte {end:,} it holds other records than the snapshot says"
    text = f"{walk.path} is damaged at byte {walk.tail.offset:,}: {reason}."
    return CorruptionError(text, path=walk.path, offset=walk.tail.offset, sequence=walk.tail.sequence, reason=reason)


def _look_behind(fs: FileSystem, layout: Layout, store_id: bytes, reference: SegmentReference, log: Log) -> None:
    """Count what can still be read of a segment behind ``log.last``."""
    behind = log.behind
    path = layout.segment(reference.number)
    if reference.sealed is not None:
        behind.last = max(behind.last, reference.sealed.sequence)
    try:
        segment = open_segment(fs, layout, store_id, reference, 0)
    except CorruptionError:
        behind.complete &= reference.sealed is not None
        behind.unknown_bytes += 1 << 20 if reference.sealed is None else 0
        return
    try:
        with asking("read", path):
            end = fs.size(segment.fd)
            end = min(end, reference.sealed.offset) if reference.sealed else end
            last_byte = segment.start.offset
            for frame, offset in frames_behind(fs, segment.fd, reference.salt, segment.start.offset, end):
                last_byte = offset
                if frame.header.kind != MARK and frame.header.first_sequence > log.last:
                    behind.add(frame)
            if reference.sealed is None and end > last_byte:
                behind.complete = False
                behind.unknown_bytes += end - last_byte
            log.latest_sequence = max(
                log.latest_sequence, _latest_named(fs, segment.fd, reference.salt, segment.start.offset, end)
            )
    finally:
        fs.close(segment.fd)


def frames_behind(fs: FileSystem, fd: int, salt: bytes, offset: int, end: int) -> Iterator[tuple[Frame, int]]:
    """Every whole frame between two offsets, whatever stands between them, each with the offset behind it.

    A frame's checksum covers its segment's salt and its own offset, so a frame that is stored inside a value is none.
    It ends early where headers that are right stand before payloads that are not, again and again: no damage does that.
    """
    overlap = FRAME_HEADER_BYTES - 1
    patience = _Patience(_PATIENCE * (end - offset))
    while offset < end and patience.nbytes > 0:
        data = fs.pread(fd, min(_READ_BYTES, end - offset), offset)
        found = _first_frame(fs, fd, salt, data, offset, end, patience)
        if found is not None:
            yield found
            offset = found[1]
        elif len(data) <= overlap:
            return
        else:
            offset += len(data) - overlap


def _latest_named(fs: FileSystem, fd: int, salt: bytes, offset: int, end: int) -> int:
    """The highest sequence that any whole header between two offsets names, be it a mark's, or its payload damaged."""
    latest = 0
    overlap = FRAME_HEADER_BYTES - 1
    while offset < end:
        data = fs.pread(fd, min(_READ_BYTES, end - offset), offset)
        at = data.find(FRAME_MAGIC)
        while at >= 0:
            header = decode_frame_header(data, at, salt, offset + at)
            if header is not None:
                latest = max(latest, header.first_sequence + max(header.record_count, 1) - 1)
            at = data.find(FRAME_MAGIC, at + 1)
        if len(data) <= overlap:
            break
        offset += len(data) - overlap
    return latest


@dataclass
class _Patience:
    """How many bytes of payloads that are not whole are still worth reading."""

    nbytes: int


def _first_frame(
    fs: FileSystem, fd: int, salt: bytes, data: bytes, offset: int, end: int, patience: _Patience
) -> tuple[Frame, int] | None:
    at = data.find(FRAME_MAGIC)
    while at >= 0 and patience.nbytes > 0:
        header = decode_frame_header(data, at, salt, offset + at)
        start = offset + at + FRAME_HEADER_BYTES
        if header is not None and header.payload_bytes <= end - start:
            payload = fs.pread(fd, header.payload_bytes, start)
            if payload_is_whole(header, payload):
                return Frame(header, payload), start + header.payload_bytes
            patience.nbytes -= len(payload)
        at = data.find(FRAME_MAGIC, at + 1)
    return None


# Without a snapshot that says what belongs to the log


@dataclass
class FoundSegment:
    """A segment that says itself what it is. ``copy``: it holds what another one held, with gaps."""

    header: SegmentHeader
    path: str
    tail: Tail
    fault: CorruptionError | None = None
    torn: bool = False
    copy: bool = False
    first: int = 0
    records: int = 0
    names: set[str] = field(default_factory=set)
    last_wanted: int = 0
    epoch: int = 0
    latest: int = 0
    behind: Behind = field(default_factory=Behind)

    @property
    def last(self) -> int:
        return self.tail.sequence


@dataclass
class FoundLog(Log):
    """A log that was put together of the segments that are there."""

    found: list[FoundSegment] = field(default_factory=list)
    missing: list[int] = field(default_factory=list)

    def records_of(self, fs: FileSystem) -> Iterator[LogRecord]:
        """The records in the order of their sequences, each once: a copy's only where the original is gone."""
        streams = [self._stream(fs, segment) for segment in sorted(self.found, key=lambda one: one.copy)]
        last = 0
        for record in heapq.merge(*streams, key=lambda one: one.sequence):
            if last < record.sequence <= self.last:
                last = record.sequence
                yield record

    def _stream(self, fs: FileSystem, segment: FoundSegment) -> Iterator[LogRecord]:
        everything = Wanted(None, {}, 0)
        fd = fs.open(segment.path)
        try:
            with asking("read", segment.path):
                start = Tail(SEGMENT_HEADER_BYTES, segment.header.checksum, 0)
                for frame in Walk(fs, fd, segment.path, segment.header.salt, start, segment.tail.offset):
                    for record in frame_records(frame, segment.path, everything):
                        if record.sequence <= segment.last_wanted:
                            yield record
        finally:
            fs.close(fd)


def scan_found(fs: FileSystem, layout: Layout, base: Snapshot) -> FoundLog:
    """The log behind ``base``, an older snapshot that is whole, as the segments beside it say.

    A segment ends where the next one begins: a writer that found a torn tail has written what was before it again.
    """
    log = FoundLog()
    with asking("list", layout.path):
        numbers = sorted(segment_numbers(fs.listdir(layout.path)))
    named = {reference.number: reference for reference in base.segments}
    known: dict[int, FoundSegment | CorruptionError] = {}
    for number in [*(number for number in named if number in numbers), *(one for one in numbers if one not in named)]:
        found = find_segment(fs, layout, base.store_id, number, newest=number == numbers[-1] and number not in named)
        if number in named and isinstance(found, FoundSegment):
            found = _checked(found, named[number])
        if found is not None:
            known[number] = found
    segments = [one for one in known.values() if isinstance(one, FoundSegment)]
    copies = [one for one in segments if one.copy and one.header.number not in named]
    log.latest_epoch = max((one.epoch for one in segments), default=0)
    log.latest_sequence = max((one.latest for one in segments), default=0)
    log.missing = [*islice(_gaps(named, numbers), _SAID_MISSING)]
    active = base.segments[-1].number
    if not copies and active not in known:
        # Records behind the base would have kept it here: what follows it is not all that there was.
        known[active] = missing_file(layout.segment(active))
    order = sorted(known, key=lambda number: (number not in named, [*named, number].index(number), number))
    _join([known[number] for number in order if known[number] not in copies], log)
    for copy in copies:
        copy.last_wanted = copy.last
        log.last = max(log.last, copy.last)  # what is copied comes before all that is not
    log.found += copies
    for number in known.keys() - named.keys():
        _end_at_copy(known[number], base, log)
    log.records = sum(one.records for one in log.found)
    return log


def _gaps(named: Iterable[int], numbers: Sequence[int]) -> Iterator[int]:
    """The numbers that are named, or follow those up to the highest one that is there, and are not there; in order."""
    there = set(numbers)
    yield from sorted({*named} - there)
    last = max(named)
    for number in sorted(number for number in there if number > last):
        yield from range(last + 1, number)  # lazily: the name of a file may be any number
        last = number


def _checked(found: FoundSegment, reference: SegmentReference) -> FoundSegment | CorruptionError:
    """The segment as the snapshot names it, or why it is not."""
    if found.header.salt != reference.salt:
        reason = "it belongs to an older state of this store"
        return CorruptionError(f"{found.path}: {reason}.", path=found.path, offset=0, reason=reason)
    if reference.sealed is None and (reference.proven is None or found.tail.offset >= reference.proven.offset):
        return found
    if reference.sealed is not None and found.tail.offset >= reference.sealed.offset:
        found.tail, found.fault, found.torn = reference.sealed, None, False  # what lies behind its end was left there
    elif found.fault is None:
        reason = "it is cut off"
        text = f"{found.path} is damaged at byte {found.tail.offset:,}: {reason}."
        found.fault = CorruptionError(
            text, path=found.path, offset=found.tail.offset, sequence=found.last, reason=reason
        )
    return found


def _end_at_copy(one: FoundSegment | CorruptionError, base: Snapshot, log: FoundLog) -> None:
    """End the log before what a damaged copy held, or a damaged segment that may have been one.

    A copy that a crash left unfinished does not matter: its originals are all there.
    """
    if not log.missing or (isinstance(one, FoundSegment) and one.fault is None and not (one.copy and one.torn)):
        return
    if isinstance(one, FoundSegment) and one.records:
        if one.copy:
            log.damage, log.last = log.damage or one.fault or _torn(one), min(log.last, one.last)
        return
    # What it held may have come before all that is left of what follows the first segment that is missing.
    before = [ref.sealed.sequence for ref in base.segments if ref.number < log.missing[0] and ref.sealed]
    before += [found.last for found in log.found if not found.copy and found.header.number < log.missing[0]]
    log.damage = log.damage or (one if isinstance(one, CorruptionError) else one.fault)
    log.last = min(log.last, max(before, default=0))


def _join(originals: Sequence[FoundSegment | CorruptionError], log: FoundLog) -> None:
    """Put the segments behind each other, up to the first damage."""
    for place, segment in enumerate(originals):
        later = [one for one in originals[place + 1 :] if isinstance(one, FoundSegment)]
        damage = segment if isinstance(segment, CorruptionError) else _join_one(segment, later, log)
        if damage is None:
            continue
        log.damage = log.damage or damage
        log.behind.complete = False
        for one in [segment, *later]:
            if isinstance(one, FoundSegment):
                log.behind.records += one.behind.records + (one.records if one is not segment else 0)
                log.behind.last = max(log.behind.last, one.behind.last, one.last)
        return


def _join_one(segment: FoundSegment, later: Sequence[FoundSegment], log: FoundLog) -> CorruptionError | None:
    following = min((one.first for one in later if one.first > segment.first), default=None)
    segment.last_wanted = segment.last if following is None else min(segment.last, following - 1)
    log.found.append(segment)
    log.last = max(log.last, segment.last_wanted)
    if segment.fault is None and segment.torn and following is not None and following > segment.last + 1:
        # Without the gap, the next writer went on where this one ended. With it, nobody knows what was between.
        return _torn(segment)
    return segment.fault


def find_segment(
    fs: FileSystem, layout: Layout, store_id: bytes | None, number: int, *, newest: bool = False
) -> FoundSegment | CorruptionError | None:
    """What a segment's file holds; None when it is not one of this store, or the newest and not yet begun."""
    path = layout.segment(number)
    with asking("read", path):
        fd = fs.open(path)
        try:
            data = fs.pread(fd, SEGMENT_HEADER_BYTES, 0)
            header = decode_segment_header(data)
            if header is None:
                if newest and (len(data) < SEGMENT_HEADER_BYTES or not data.strip(b"\0")):
                    return None  # a crash came while it was made
                text = f"{path} is damaged at byte 0: it does not begin like a segment of the log."
                return CorruptionError(text, path=path, offset=0, reason="it does not begin like a segment of the log")
            check_version(header.version, path)
            if header.number != number or store_id not in (None, header.store_id):
                return None
            return _walk_found(fs, fd, path, header)
        finally:
            fs.close(fd)


def _walk_found(fs: FileSystem, fd: int, path: str, header: SegmentHeader) -> FoundSegment:
    start = Tail(SEGMENT_HEADER_BYTES, header.checksum, 0)
    walk = Walk(fs, fd, path, header.salt, start, fs.size(fd))
    found = FoundSegment(header, path, start)
    seen = Log()
    try:
        for frame in walk:
            try:
                seen.add(frame, list(frame.entries()), header.number)
            except MalformedPayloadError as error:
                raise malformed(error, path, frame.header.first_sequence) from error
            found.copy |= bool(frame.header.flags & EXPLICIT_SEQUENCES)
            found.first = found.first or frame.header.first_sequence
            found.records += frame.header.record_count
        found.torn = judge(walk) is not None
    except CorruptionError as error:
        found.fault = error
    found.names = set(seen.holders)
    found.tail = walk.tail
    found.epoch = walk.latest_epoch
    found.latest = max(walk.latest_sequence, walk.tail.sequence)
    if found.fault is not None:
        for frame, _ in frames_behind(fs, fd, header.salt, walk.tail.offset, walk.end):
            if frame.header.kind != MARK:
                found.behind.add(frame)
        named = _latest_named(fs, fd, header.salt, walk.tail.offset, walk.end)
        found.latest = max(found.latest, found.behind.last, named)
    return found


def _torn(segment: FoundSegment) -> CorruptionError:
    offset, sequence = segment.tail.offset, segment.last
    reason = "it ends in the middle of a record, and the next segment does not go on from there"
    text = f"{segment.path} is damaged at byte {offset:,}, behind sequence {sequence}: {reason}."
    return CorruptionError(text, path=segment.path, offset=offset, sequence=sequence, reason=reason)
