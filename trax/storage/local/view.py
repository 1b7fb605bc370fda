"""The read path: one generation of a store, held open, so that what is removed meanwhile stays readable."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import NamedTuple, TypeVar

from trax.codecs.base import BufferSource
from trax.errors import CorruptionError, MissingFileError, UnreachableError
from trax.storage.base import BlobReference, Entries, SnapshotInfo, Stored
from trax.storage.local.blob_reader import BlobReader, NoBuffers
from trax.storage.local.commit_point import load_snapshot, missing_file
from trax.storage.local.fs import FileSystem
from trax.storage.local.layout import Layout
from trax.storage.local.payload import MalformedPayloadError
from trax.storage.local.refusal import asking, refused
from trax.storage.local.snapshot import KeptReference, SegmentReference, Snapshot
from trax.storage.local.walk import Frame, Tail, Walk, judge, malformed, read_segment_header

T = TypeVar("T")


class OpenSegment(NamedTuple):
    """A segment that a view holds open, and the tail from which its frames are walked."""

    reference: SegmentReference
    path: str
    fd: int
    start: Tail


class LocalView:
    """See :class:`trax.storage.base.View`.

    ``active_end`` is where the writer's tail stands; None beside a live writer.
    """

    def __init__(
        self, fs: FileSystem, layout: Layout, log: Snapshot, values: Snapshot, wanted: Collection[str], end: int | None
    ) -> None:
        self._fs, self._layout, self._store_id = fs, layout, log.store_id
        self._active_end = end
        self.names: Mapping[str, Stored] = values.names
        self._segments: list[OpenSegment] = []
        self._blobs: dict[int, int] = {}
        try:
            sequence = 0
            for reference in log.segments:
                self._segments.append(open_segment(fs, layout, self._store_id, reference, sequence))
                sequence = reference.sealed.sequence if reference.sealed else sequence
            for name in wanted:
                self._open_blob(self.names.get(name))
        except BaseException:
            self.close()
            raise

    def entries(self, after: Mapping[str, int], until: int) -> Iterator[Entries]:
        lowest, highest = min(after.values(), default=0), max(after.values(), default=0)
        for segment in self._segments:
            if segment.reference.sealed is not None and segment.reference.sealed.sequence <= lowest:
                continue
            for frame in self.frames(segment):
                if frame.header.first_sequence > until:
                    return
                # Most frames are wanted whole: then the entries of each name need not be looked at.
                whole = highest < frame.header.first_sequence and frame.sequences[-1] <= until
                yield from self._entries_of(frame, segment.path, after, until, whole=whole)

    def frames(self, segment: OpenSegment) -> Iterator[Frame]:
        """The frames of one segment, up to where it is sealed, or to where its writer is."""
        return segment_frames(self._fs, segment, self._active_end)

    def value(self, stored: Stored) -> tuple[bytes, BufferSource]:
        if isinstance(stored.value, bytes):
            return stored.value, NoBuffers(self._layout.snapshot)
        assert stored.value is not None, "a deleted name has no value"
        reader = self.blob(stored.value)
        return reader.head, reader

    def blob(self, reference: BlobReference) -> BlobReader:
        """A blob of one of the names that the view was opened for."""
        fds = [self._blobs[file.number] for file in reference.files]
        return _reader(self._fs, self._layout, self._store_id, reference, fds)

    @property
    def segments(self) -> list[OpenSegment]:
        return self._segments

    def close(self) -> None:
        while self._segments:
            self._fs.close(self._segments.pop().fd)
        while self._blobs:
            self._fs.close(self._blobs.popitem()[1])

    def __enter__(self) -> LocalView:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _entries_of(
        self, frame: Frame, path: str, after: Mapping[str, int], until: int, *, whole: bool
    ) -> Iterator[Entries]:
        try:
            for entries in frame.entries(after):
                if whole:
                    yield entries
                elif entries.sequences[-1] > after[entries.name]:
                    wanted = entries.within(after[entries.name], until)
                    if wanted.sequences:
                        yield wanted
        except MalformedPayloadError as error:
            raise malformed(error, path, frame.header.first_sequence) from error

    def _open_blob(self, stored: Stored | None) -> None:
        if stored is not None and isinstance(stored.value, BlobReference):
            for file in stored.value.files:
                if file.number not in self._blobs:
                    self._blobs[file.number] = _open_named(self._fs, self._layout.blob(file.number))


def open_segment(
    fs: FileSystem, layout: Layout, store_id: bytes, reference: SegmentReference, sequence: int
) -> OpenSegment:
    """Open a segment that a snapshot names; ``sequence`` is the last one before it."""
    path = layout.segment(reference.number)
    fd = _open_named(fs, path)
    try:
        with asking("read", path):
            start = read_segment_header(fs, fd, path, store_id, reference.number, reference.salt)
            return OpenSegment(reference, path, fd, start._replace(sequence=sequence))
    except BaseException:
        fs.close(fd)
        raise


def segment_frames(fs: FileSystem, segment: OpenSegment, active_end: int | None) -> Iterator[Frame]:
    """The frames of a segment, verified.

    A sealed one must end just where the snapshot says. The active one must reach ``active_end``, where its writer is;
    None: whoever writes it is another, and its torn tail is the end for now.
    """
    end = segment.reference.sealed
    if end is None and active_end is None:
        yield from _growing_frames(fs, segment)
        return
    offset = active_end if end is None else end.offset
    assert offset is not None, "one of the two ends is given"
    with asking("read", segment.path):
        walk_end = min(offset, fs.size(segment.fd))  # no length is relied on that the file can't hold
    walk = Walk(fs, segment.fd, segment.path, segment.reference.salt, segment.start, walk_end)
    yield from _walked(walk)
    if walk.tail.offset != offset or end not in (None, walk.tail):
        raise _sealed_damage(walk, offset)


def _growing_frames(fs: FileSystem, segment: OpenSegment) -> Iterator[Frame]:
    seen = segment.start.sequence
    failed: Tail | None = None
    while True:
        with asking("read", segment.path):
            end = fs.size(segment.fd)
        reference = segment.reference
        walk = Walk(fs, segment.fd, segment.path, reference.salt, segment.start, end, reference.proven)
        for frame in _walked(walk):
            if frame.sequences[-1] > seen:
                seen = frame.sequences[-1]
                yield frame
        try:
            with asking("read", segment.path):
                judge(walk)
            return
        except CorruptionError:
            # A page that was read before the writer filled it, or a mark before it was replaced, looks like damage
            # once. It is damage if a second look, from the beginning, comes no further.
            if walk.tail == failed:
                raise
            failed = walk.tail


def _walked(walk: Walk) -> Iterator[Frame]:
    with asking("read", walk.path):
        yield from walk


def load_kept(fs: FileSystem, layout: Layout, store_id: bytes, reference: KeptReference) -> Snapshot:
    """Read and verify an older snapshot that the current one names."""
    path = layout.kept_snapshot(reference.generation)
    with asking("read", path):
        try:
            kept = load_snapshot(fs, path)
        except FileNotFoundError as error:
            raise missing_file(path) from error
    if (kept.store_id, kept.generation) != (store_id, reference.generation):
        text = f"{path} is damaged: it is another snapshot than the one that was kept there. Nothing was changed."
        raise CorruptionError(text, path=path, offset=0, reason="another snapshot")
    return kept


def check_blob(fs: FileSystem, layout: Layout, store_id: bytes, reference: BlobReference) -> None:
    """Read all of a value; the error says what is wrong with it."""
    with open_blob(fs, layout, store_id, reference) as reader, asking("read", layout.blob(reference.number)):
        reader.check()


@contextmanager
def open_blob(fs: FileSystem, layout: Layout, store_id: bytes, reference: BlobReference) -> Iterator[BlobReader]:
    """A blob that is read outside of a view, with all that it leans on."""
    fds: list[int] = []
    try:
        for file in reference.files:
            fds.append(_open_named(fs, layout.blob(file.number)))
        yield _reader(fs, layout, store_id, reference, fds)
    finally:
        while fds:
            fs.close(fds.pop())


def _reader(
    fs: FileSystem, layout: Layout, store_id: bytes, reference: BlobReference, fds: Sequence[int]
) -> BlobReader:
    paths = [layout.blob(file.number) for file in reference.files]
    with asking("read", paths[0]):
        return BlobReader(fs, fds[0], paths[0], store_id, reference, [*zip(fds[1:], paths[1:], strict=True)])


def snapshot_for(fs: FileSystem, layout: Layout, snapshot: Snapshot, at: int | None) -> Snapshot:
    """The newest snapshot that is not above ``at``."""
    if at is None or snapshot.sequence <= at:
        return snapshot
    reachable = [reference for reference in snapshot.kept if reference.sequence <= at]
    if not reachable:
        oldest = min((reference.sequence for reference in snapshot.kept), default=snapshot.sequence)
        text = (
            f"sequence {at} is out of reach: the oldest snapshot kept in {layout.path} is of sequence {oldest}. "
            f"Open the store with a larger keep= to reach back further from then on."
        )
        raise UnreachableError(text, path=layout.path, sequence=at, reason="out of reach", oldest=oldest)
    return load_kept(fs, layout, snapshot.store_id, reachable[-1])


def snapshot_infos(fs: FileSystem, layout: Layout, snapshot: Snapshot) -> list[SnapshotInfo]:
    """What ``at=`` can reach, oldest first."""
    every = [*(load_kept(fs, layout, snapshot.store_id, reference) for reference in snapshot.kept), snapshot]
    return [SnapshotInfo(one.sequence, one.created, stored_names(one.names)) for one in every]


def stored_names(names: Mapping[str, Stored]) -> tuple[str, ...]:
    return tuple(sorted(name for name, stored in names.items() if stored.value is not None))


def of_latest(state: Callable[[], tuple[Snapshot, int]], make: Callable[[Snapshot, int], T]) -> T:
    """Something made of the newest state; when a file vanished because the store moved on, of the one after it."""
    while True:
        snapshot, end = state()
        try:
            return make(snapshot, end)
        except MissingFileError:
            if state()[0].generation == snapshot.generation:
                raise


def _open_named(fs: FileSystem, path: str) -> int:
    try:
        return fs.open(path)
    except FileNotFoundError as error:
        raise missing_file(path) from error
    except OSError as error:
        raise refused(error, "open", path) from error


def _sealed_damage(walk: Walk, end: int) -> CorruptionError:
    reason = walk.fault or f"up to byte {end:,} it holds other records than the snapshot says"
    text = (
        f"{walk.path} is damaged at byte {walk.tail.offset:,}, behind sequence {walk.tail.sequence}: {reason}. Nothing "
        f"was changed. Restore the store from a copy, or see what 'trax repair' can save."
    )
    return CorruptionError(text, path=walk.path, offset=walk.tail.offset, sequence=walk.tail.sequence, reason=reason)
