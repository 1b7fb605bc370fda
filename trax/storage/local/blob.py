"""One large value in a file of its own, written once and never changed. Layout: ``docs/format.rst``.

The buffers come first, each at a multiple of 64 bytes so that it can be mapped; then the head; then an index with one
CRC-32 a chunk of each buffer; last a footer whose checksum seals all of it, and which the snapshot repeats.

What is written is what the checksum was computed of: each chunk is copied before both, so that a caller who changes an
array meanwhile may get a mixture of old and new elements, as with any unlocked sharing, but never a damaged store.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle
from typing import Any, NamedTuple, TypeVar

import msgpack

from trax.codecs.base import Buffer, Encoded
from trax.errors import CorruptionError
from trax.lengths import check_lengths
from trax.storage.base import BlobReference
from trax.storage.local import crc
from trax.storage.local.framing import FORMAT_VERSION
from trax.storage.local.fs import FileSystem, write_all
from trax.storage.local.refusal import asking, check_version

T = TypeVar("T")

_MAGIC = b"traxblob"
_HEADER = struct.Struct("<8sHH4x16sQ")
_HEADER_BYTES = 64
_FOOTER = struct.Struct("<QQIQQI4x")
_CHECKSUM = struct.Struct("<I")
_FOOTER_BYTES = _FOOTER.size + _CHECKSUM.size
assert _FOOTER_BYTES == 48
_ALIGNMENT_BYTES = 64
_CHUNK_BYTES = 1 << 20
_WRITEBACK_BYTES = 1 << 23
_CHUNKS_FOR_TWO = 8  # a thread costs as much as a fraction of a chunk


def write_blob(fs: FileSystem, fd: int, store_id: bytes, number: int, encoded: Encoded) -> BlobReference:
    """Write a value to a new, empty file.

    It is on stable storage when this returns, its name in the directory isn't.
    """
    header = _HEADER.pack(_MAGIC, FORMAT_VERSION, 0, store_id, number).ljust(_HEADER_BYTES, b"\0")
    offset = write_all(fs, fd, header, 0)
    index = []
    for buffer in encoded.buffers:
        offset += -offset % _ALIGNMENT_BYTES
        checksums = _write_buffer(fs, fd, offset, buffer)
        index.append((offset, buffer.nbytes, checksums))
        offset += buffer.nbytes
    head_offset = offset
    index_offset = write_all(fs, fd, encoded.head, head_offset)
    packed_index: bytes = msgpack.packb(index)
    footer_offset = write_all(fs, fd, packed_index, index_offset)
    footer = _FOOTER.pack(
        head_offset,
        len(encoded.head),
        crc.crc32(encoded.head),
        index_offset,
        len(packed_index),
        crc.crc32(packed_index),
    )
    checksum = crc.crc32(footer, crc.crc32(header))
    end = write_all(fs, fd, footer + _CHECKSUM.pack(checksum), footer_offset)
    fs.fsync(fd)  # makes durable: the blob's contents, before a snapshot names it
    return BlobReference(number, end, checksum)


def _write_buffer(fs: FileSystem, fd: int, offset: int, buffer: Buffer) -> bytes:
    """Write the buffer, and begin its way to the disk early; one checksum a chunk of _CHUNK_BYTES."""
    checksums = []
    behind = offset
    for chunk, checksum in _one_ahead(_checked_chunks(buffer), wanted=buffer.nbytes > _CHUNK_BYTES):
        checksums.append(checksum)
        offset = write_all(fs, fd, chunk, offset)
        if offset - behind >= _WRITEBACK_BYTES:
            fs.start_writeback(fd, behind, offset - behind)
            behind = offset
    return struct.pack(f"<{len(checksums)}I", *checksums)


def _checked_chunks(buffer: Buffer) -> Iterator[tuple[memoryview, int]]:
    """The bytes of the buffer, copied, in chunks that are all full but the last, each with its checksum.

    A chunk stays as it is until the one after the next is asked for.
    """
    size = min(_CHUNK_BYTES, buffer.nbytes)
    views = cycle([memoryview(bytearray(size)), memoryview(bytearray(size))])
    view, filled = next(views), 0
    for piece in buffer.chunks(_CHUNK_BYTES):
        while len(piece):
            step = min(len(piece), size - filled)
            view[filled : filled + step] = piece[:step]
            piece = piece[step:]
            filled += step
            if filled == size:
                yield view, crc.crc32(view)
                view, filled = next(views), 0
    if filled:
        yield view[:filled], crc.crc32(view[:filled])


def _one_ahead(items: Iterator[T], *, wanted: bool) -> Iterator[T]:
    """The items; if ``wanted``, a thread makes the next one while the caller works on the last."""
    if not wanted:
        yield from items
        return
    with ThreadPoolExecutor(1, "trax-checksum") as beside:
        try:
            upcoming = beside.submit(next, items, None)
        except RuntimeError:  # there are no new threads while the interpreter ends, and atexit functions may save
            yield from items
            return
        while (item := upcoming.result()) is not None:
            upcoming = beside.submit(next, items, None)
            yield item


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
        except RuntimeError:  # as in _one_ahead
            check_from(0, count)
            return
        check_from(0, count // 2)
        second.result()


class _Entry(NamedTuple):
    """Where a buffer is, and the checksum of each of its chunks."""

    offset: int
    nbytes: int
    checksums: tuple[int, ...]


def _entry(offset: Any, nbytes: Any, packed: Any) -> _Entry:
    if type(offset) is not int or type(nbytes) is not int or type(packed) is not bytes or min(offset, nbytes) < 0:
        raise ValueError("an entry that is none")
    count, rest = divmod(len(packed), _CHECKSUM.size)
    if rest or count != -(-nbytes // _CHUNK_BYTES):
        raise ValueError("another number of checksums than chunks")
    return _Entry(offset, nbytes, struct.unpack(f"<{count}I", packed))


class BlobReader:
    """A blob that is read: a :class:`trax.codecs.base.BufferSource`. Every byte is verified before it is handed on."""

    def __init__(self, fs: FileSystem, fd: int, path: str, store_id: bytes, reference: BlobReference) -> None:
        self._fs, self._fd, self._path = fs, fd, path
        size = fs.size(fd)
        if size != reference.nbytes:
            raise self._damaged(min(size, reference.nbytes), f"it has {size:,} bytes instead of {reference.nbytes:,}")
        self._head, self._index = self._open(store_id, reference)
        self._mapped: memoryview | None = None

    @property
    def head(self) -> bytes:
        return self._head

    def nbytes(self, index: int) -> int:
        return self._entry(index)[1]

    def readinto(self, index: int, target: memoryview) -> None:
        offset, nbytes, checksums = self._entry(index)
        assert len(target) == nbytes, "the codec allocates what nbytes() says"

        def read(place: int) -> None:
            start = place * _CHUNK_BYTES
            self._read_chunk(target[start : start + _CHUNK_BYTES], offset + start, checksums[place])

        _for_each(len(checksums), read)

    def map(self, index: int) -> memoryview:
        offset, nbytes, checksums = self._entry(index)
        if self._mapped is None:
            with asking("map", self._path):
                self._mapped = self._fs.map(self._fd, self._fs.size(self._fd))
        view = self._mapped[offset : offset + nbytes]

        def check(place: int) -> None:
            start = place * _CHUNK_BYTES
            if crc.crc32(view[start : start + _CHUNK_BYTES]) != checksums[place]:
                raise self._damaged(offset + start, "a part of its data does not match its checksum")

        _for_each(len(checksums), check)
        return view

    def check(self) -> None:
        """Read all of it; CorruptionError names the first bad place."""
        part = memoryview(bytearray(_CHUNK_BYTES))
        for offset, nbytes, checksums in map(self._entry, range(len(self._index))):
            for place, checksum in enumerate(checksums):
                at = offset + place * _CHUNK_BYTES
                self._read_chunk(part[: min(_CHUNK_BYTES, offset + nbytes - at)], at, checksum)

    def _read_chunk(self, target: memoryview, offset: int, checksum: int) -> None:
        with asking("read", self._path):
            have = self._fs.preadinto(self._fd, target, offset)
        if have != len(target) or crc.crc32(target) != checksum:
            raise self._damaged(offset, "a part of its data does not match its checksum")

    def _open(self, store_id: bytes, reference: BlobReference) -> tuple[bytes, list[_Entry]]:
        header = self._fs.pread(self._fd, _HEADER_BYTES, 0)
        footer_offset = reference.nbytes - _FOOTER_BYTES
        footer = self._fs.pread(self._fd, _FOOTER_BYTES, footer_offset) if footer_offset >= _HEADER_BYTES else b""
        if len(footer) != _FOOTER_BYTES or crc.crc32(footer[: _FOOTER.size], crc.crc32(header)) != reference.checksum:
            raise self._damaged(max(footer_offset, 0), "its seal is not the one that the snapshot names")
        magic, version, _, *owner = _HEADER.unpack_from(header)
        if magic == _MAGIC:
            check_version(version, self._path)
        if magic != _MAGIC or owner != [store_id, reference.number]:
            raise self._damaged(0, "it belongs to another store or to another value")
        head_offset, head_bytes, head_checksum, index_offset, index_bytes, index_checksum = _FOOTER.unpack_from(footer)
        head = self._part(head_offset, head_bytes, head_checksum, footer_offset)
        index = self._part(index_offset, index_bytes, index_checksum, footer_offset)
        return head, self._decode_index(index, head_offset)

    def _decode_index(self, data: bytes, end: int) -> list[_Entry]:
        """Where the buffers are: one behind the other, between the header and ``end``."""
        try:
            check_lengths(data)
            index = [_entry(*fields) for fields in msgpack.unpackb(data)]
            starts = [entry.offset for entry in index]
            ends = [entry.offset + entry.nbytes for entry in index]
            if any(before > after for before, after in zip([_HEADER_BYTES, *ends], [*starts, end], strict=True)):
                raise ValueError("buffers that lie over one another")
        except (ValueError, TypeError, msgpack.UnpackException) as error:
            raise self._damaged(end, f"its index makes no sense ({error}), though its checksum is right") from error
        return index

    def _part(self, offset: int, nbytes: int, checksum: int, end: int) -> bytes:
        if offset + nbytes > end:
            raise self._damaged(offset, "its footer names bytes that it does not have")
        data = self._fs.pread(self._fd, nbytes, offset)
        if crc.crc32(data) != checksum:
            raise self._damaged(offset, "a part of it does not match its checksum")
        return data

    def _entry(self, index: int) -> _Entry:
        if not 0 <= index < len(self._index):
            raise self._damaged(0, f"its head asks for buffer {index}, and it has {len(self._index)}")
        return self._index[index]

    def _damaged(self, offset: int, reason: str) -> CorruptionError:
        text = (
            f"{self._path} is damaged at byte {offset:,}: {reason}. Nothing was changed. Restore the store from a "
            f"copy, or see what 'trax repair' can save."
        )
        return CorruptionError(text, path=self._path, offset=offset, reason=reason)


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
