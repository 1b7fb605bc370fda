"""A large value in a file of its own, or in several: read, verified, compared. How it is laid out: ``blob.py``."""

from __future__ import annotations

import struct
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import msgpack

from trax.errors import CorruptionError, InvalidArgumentError
from trax.lengths import check_lengths
from trax.storage.base import BlobReference
from trax.storage.local import blob, crc
from trax.storage.local.blob import StoredChunk
from trax.storage.local.fs import FileSystem
from trax.storage.local.refusal import asking, check_version

_CHUNKS_FOR_TWO = 8  # a thread costs as much as a fraction of a chunk


class _Run(NamedTuple):
    """Chunks that lie one behind the other: the place of the first in its buffer, the file, and where they begin."""

    first: int
    file: int
    offset: int


class _Entry(NamedTuple):
    """Where a buffer is, and the checksum of each of its chunks."""

    runs: tuple[_Run, ...]
    nbytes: int
    checksums: tuple[int, ...]

    def chunk(self, place: int) -> StoredChunk:
        run = self.runs[bisect_right(self.runs, place, key=lambda run: run.first) - 1]
        return StoredChunk(run.file, run.offset + (place - run.first) * blob.CHUNK_BYTES, self.checksums[place])

    def chunk_bytes(self, place: int) -> int:
        return min(blob.CHUNK_BYTES, self.nbytes - place * blob.CHUNK_BYTES)

    def spans(self) -> Iterator[tuple[int, int, int]]:
        """Of each run the file, and where it begins and ends there."""
        ends = [*(run.first * blob.CHUNK_BYTES for run in self.runs[1:]), self.nbytes]
        for run, end in zip(self.runs, ends, strict=True):
            yield run.file, run.offset, run.offset + end - run.first * blob.CHUNK_BYTES


def _entry(place: Any, nbytes: Any, packed: Any) -> _Entry:
    if type(nbytes) is not int or type(packed) is not bytes or nbytes < 0:
        raise ValueError("an entry that is none")
    count, rest = divmod(len(packed), blob.CHECKSUM.size)
    if rest or count != -(-nbytes // blob.CHUNK_BYTES):
        raise ValueError("another number of checksums than chunks")
    runs = [*_decode_runs(place, count)] if type(place) is list else [_Run(0, 0, place)]
    if any(type(number) is not int or number < 0 for run in runs for number in run):
        raise ValueError("an entry that is none")
    return _Entry(tuple(runs), nbytes, struct.unpack(f"<{count}I", packed))


def _decode_runs(runs: list[Any], count: int) -> Iterator[_Run]:
    first = 0
    for chunks, file, offset in runs:
        if type(chunks) is not int or chunks < 1:
            raise ValueError("a run of no chunks")
        yield _Run(first, file, offset)
        first += chunks
    if first != count or not runs:
        raise ValueError("another number of chunks in the runs than checksums")


class _File(NamedTuple):
    """A file that is open for reading."""

    fd: int
    path: str
    reference: BlobReference


class BlobReader:
    """A blob that is read: a :class:`trax.codecs.base.BufferSource`. Every byte is verified before it is handed on.

    ``bases`` are the descriptors and paths of those that the reference names.
    """

    def __init__(
        self,
        fs: FileSystem,
        fd: int,
        path: str,
        store_id: bytes,
        reference: BlobReference,
        bases: Sequence[tuple[int, str]] = (),
    ) -> None:
        self._fs, self._store_id = fs, store_id
        opened = zip([(fd, path), *bases], reference.files, strict=True)
        self._files = [_File(fd, path, file) for (fd, path), file in opened]
        self._head, self._index = self._open()
        self._mapped: memoryview | None = None

    @property
    def head(self) -> bytes:
        return self._head

    def nbytes(self, index: int) -> int:
        return self._entry(index).nbytes

    def readinto(self, index: int, target: memoryview) -> None:
        entry = self._entry(index)
        assert len(target) == entry.nbytes, "the codec allocates what nbytes() says"

        def read(place: int) -> None:
            start = place * blob.CHUNK_BYTES
            self._read_chunk(target[start : start + blob.CHUNK_BYTES], entry.chunk(place))

        _for_each(len(entry.checksums), read)

    def map(self, index: int) -> memoryview:
        entry = self._entry(index)
        own = self._files[0]
        offset = entry.runs[0].offset
        if len(entry.runs) > 1 or entry.runs[0].file:
            text = (
                f"{own.path} holds what a differential checkpoint has written of a value, and the rest lies in earlier "
                f"files: it can't be mapped. Recover it without mmap=True, or checkpoint it once through a handle that "
                f"was opened without differential=True."
            )
            raise InvalidArgumentError(text, path=own.path, reason="a differential checkpoint")
        if self._mapped is None:
            with asking("map", own.path):
                self._mapped = self._fs.map(own.fd, self._fs.size(own.fd))
        view = self._mapped[offset : offset + entry.nbytes]

        def check(place: int) -> None:
            start = place * blob.CHUNK_BYTES
            if crc.crc32(view[start : start + blob.CHUNK_BYTES]) != entry.checksums[place]:
                raise _damaged(own.path, offset + start, "a part of its data does not match its checksum")

        _for_each(len(entry.checksums), check)
        return view

    def check(self) -> None:
        """Read all of the value; CorruptionError names the first bad place."""
        part = memoryview(bytearray(blob.CHUNK_BYTES))
        for entry in self._index:
            for place in range(len(entry.checksums)):
                self._read_chunk(part[: entry.chunk_bytes(place)], entry.chunk(place))

    # What the next blob of the same value may lean on

    @property
    def files(self) -> tuple[BlobReference, ...]:
        """The files that the value lies in, as :class:`StoredChunk` counts them."""
        return tuple(file.reference for file in self._files)

    def chunks(self, index: int) -> Iterator[tuple[StoredChunk, int]]:
        """The chunks of a buffer, and how long each is; none of one that it does not have."""
        if index >= len(self._index):
            return
        entry = self._index[index]
        for place in range(len(entry.checksums)):
            yield entry.chunk(place), entry.chunk_bytes(place)

    def read_unverified(self, chunk: StoredChunk, target: memoryview) -> bool:
        """Fill ``target`` with a chunk as it lies in its file; whether it could be read."""
        try:
            return self._fs.preadinto(self._files[chunk.file].fd, target, chunk.offset) == len(target)
        except OSError:
            return False

    def sync(self, base: BlobReference) -> None:
        """Bring one of the files to stable storage; this handle may not have written it."""
        file = next(file for file in self._files if file.reference == base)
        with asking("sync", file.path):
            self._fs.fsync(file.fd)  # makes durable: a base, which a plain copy of the store may have left in memory

    # How it is done

    def _read_chunk(self, target: memoryview, chunk: StoredChunk) -> None:
        file = self._files[chunk.file]
        with asking("read", file.path):
            have = self._fs.preadinto(file.fd, target, chunk.offset)
        if have != len(target) or crc.crc32(target) != chunk.checksum:
            raise _damaged(file.path, chunk.offset, "a part of its data does not match its checksum")

    def _open(self) -> tuple[bytes, list[_Entry]]:
        own, *bases = self._files
        footer = self._sealed_footer(own)
        for base in bases:
            self._sealed_footer(base)
        footer_offset = own.reference.nbytes - blob.FOOTER_BYTES
        head_offset, head_bytes, head_checksum, index_offset, index_bytes, index_checksum = blob.FOOTER.unpack_from(
            footer
        )
        head = self._part(head_offset, head_bytes, head_checksum, footer_offset)
        index = self._part(index_offset, index_bytes, index_checksum, footer_offset)
        return head, self._decode_index(index, head_offset)

    def _sealed_footer(self, file: _File) -> bytes:
        """The footer of a file that is the one which the snapshot names."""
        fd, path, reference = file
        size = self._fs.size(fd)
        if size != reference.nbytes:
            reason = f"it has {size:,} bytes instead of {reference.nbytes:,}"
            raise _damaged(path, min(size, reference.nbytes), reason)
        header = self._fs.pread(fd, blob.HEADER_BYTES, 0)
        footer_offset = reference.nbytes - blob.FOOTER_BYTES
        footer = self._fs.pread(fd, blob.FOOTER_BYTES, footer_offset) if footer_offset >= blob.HEADER_BYTES else b""
        seal = crc.crc32(footer[: blob.FOOTER.size], crc.crc32(header))
        if len(footer) != blob.FOOTER_BYTES or seal != reference.checksum:
            raise _damaged(path, max(footer_offset, 0), "its seal is not the one that the snapshot names")
        magic, version, _, *owner = blob.HEADER.unpack_from(header)
        if magic == blob.MAGIC:
            check_version(version, path)
        if magic != blob.MAGIC or owner != [self._store_id, reference.number]:
            raise _damaged(path, 0, "it belongs to another store or to another value")
        return footer

    def _decode_index(self, data: bytes, end: int) -> list[_Entry]:
        """Where the buffers are: in this file one behind the other, between the header and ``end``."""
        try:
            check_lengths(data)
            index = [_entry(*fields) for fields in msgpack.unpackb(data)]
            spans = [span for entry in index for span in entry.spans()]
            starts = [start for file, start, _ in spans if not file]
            ends = [stop for file, _, stop in spans if not file]
            if any(before > after for before, after in zip([blob.HEADER_BYTES, *ends], [*starts, end], strict=True)):
                raise ValueError("buffers that lie over one another")
            self._check_bases([span for span in spans if span[0]])
        except (ValueError, TypeError, msgpack.UnpackException) as error:
            path = self._files[0].path
            raise _damaged(path, end, f"its index makes no sense ({error}), though its checksum is right") from error
        return index

    def _check_bases(self, spans: list[tuple[int, int, int]]) -> None:
        """ValueError unless each base is leant on, and has what is to lie there."""
        if {file for file, _, _ in spans} != {*range(1, len(self._files))}:
            raise ValueError("other bases than the snapshot names")
        for file, start, stop in spans:
            if start < blob.HEADER_BYTES or stop > self._files[file].reference.nbytes - blob.FOOTER_BYTES:
                raise ValueError("a run that its file does not hold")

    def _part(self, offset: int, nbytes: int, checksum: int, end: int) -> bytes:
        fd, path, _ = self._files[0]
        if offset + nbytes > end:
            raise _damaged(path, offset, "its footer names bytes that it does not have")
        data = self._fs.pread(fd, nbytes, offset)
        if crc.crc32(data) != checksum:
            raise _damaged(path, offset, "a part of it does not match its checksum")
        return data

    def _entry(self, index: int) -> _Entry:
        if not 0 <= index < len(self._index):
            reason = f"its head asks for buffer {index}, and it has {len(self._index)}"
            raise _damaged(self._files[0].path, 0, reason)
        return self._index[index]


def _for_each(count: int, check: Callable[[int], None]) -> None:
    """``check`` every chunk, and raise what the first bad one raised; where there are many, a thread takes one half.

    Neither reading nor a checksum needs the interpreter, and one processor alone does not keep the memory busy.
    """

    def check_from(first: int, end: int) -> None:
        for place in range(first, end):
            check(place)

    if count < _CHUNKS_FOR_TWO:
        check_from(0, count)
        return
    with ThreadPoolExecutor(1, "trax-verify") as beside:
        try:
            second = beside.submit(check_from, count // 2, count)
        except RuntimeError:  # there are no new threads while the interpreter ends, and atexit functions may read
            check_from(0, count)
            return
        check_from(0, count // 2)
        second.result()


def _damaged(path: str, offset: int, reason: str) -> CorruptionError:
    text = (
        f"{path} is damaged at byte {offset:,}: {reason}. Nothing was changed. Restore the store from a copy, or see "
        f"what 'trax repair' can save."
    )
    return CorruptionError(text, path=path, offset=offset, reason=reason)


class NoBuffers:
    """The source of a value that stands in the snapshot itself and has no buffers."""

    def __init__(self, path: str) -> None:
        self._path = path

    def nbytes(self, index: int) -> int:
        text = f"{self._path} is damaged: a value refers to a buffer that a snapshot can't hold."
        raise CorruptionError(text, path=self._path, reason="a buffer that is not there")

    def readinto(self, index: int, target: memoryview) -> None:
        self.nbytes(index)

    def map(self, index: int) -> memoryview:
        raise AssertionError(f"the codec asks nbytes({index}) first")
