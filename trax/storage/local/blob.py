"""One large value in a file of its own: how it is laid out (``docs/format.rst``), and how it is written, once.

The buffers come first, each at a multiple of 64 bytes so that it can be mapped, and the large ones at one of 64 KiB,
since the page cache takes them in large pieces then. Next come the head, and an index with one CRC-32 a chunk of each
buffer; last a footer whose checksum seals all of it, and which the snapshot repeats.

A differential blob has only some of the chunks. Its index says of the others where they lie in earlier files, its
*bases*, and repeats their checksums: it can be read without the heads and the indexes of these.

What is written is what the checksum was computed of: each chunk is copied before both, so that a caller who changes an
array meanwhile may get a mixture of old and new elements, as with any unlocked sharing, but never a damaged store.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import cycle
from typing import NamedTuple, TypeVar

import msgpack

from trax.codecs.base import Buffer, Encoded
from trax.storage.base import BlobReference
from trax.storage.local import crc
from trax.storage.local.framing import FORMAT_VERSION
from trax.storage.local.fs import FileSystem, write_all

T = TypeVar("T")

MAGIC = b"traxblob"
HEADER = struct.Struct("<8sHH4x16sQ")
HEADER_BYTES = 64
FOOTER = struct.Struct("<QQIQQI4x")
CHECKSUM = struct.Struct("<I")
FOOTER_BYTES = FOOTER.size + CHECKSUM.size
assert FOOTER_BYTES == 48
_ALIGNMENT_BYTES = 64
_LARGE_BYTES = 1 << 20
_LARGE_ALIGNMENT_BYTES = 1 << 16
CHUNK_BYTES = 1 << 20
_WRITEBACK_BYTES = 1 << 23
_AHEAD = 2

MAX_BASES = 16
"""So many earlier files a blob may lean on."""


class StoredChunk(NamedTuple):
    """Where a chunk lies: in which file (0: the blob's own; from 1: its bases), at which offset; and its checksum."""

    file: int
    offset: int
    checksum: int


class Unchanged(NamedTuple):
    """What of a value need not be written: for each buffer the chunks, by their place in it, that lie in the bases."""

    bases: tuple[BlobReference, ...]
    chunks: Sequence[Mapping[int, StoredChunk]]


def write_blob(
    fs: FileSystem, fd: int, store_id: bytes, number: int, encoded: Encoded, unchanged: Unchanged | None = None
) -> BlobReference:
    """Write a value to a new, empty file, but for what is unchanged.

    It is on stable storage when this returns, its name in the directory isn't.
    """
    bases, known = unchanged or ((), [{}] * len(encoded.buffers))
    header = HEADER.pack(MAGIC, FORMAT_VERSION, 0, store_id, number).ljust(HEADER_BYTES, b"\0")
    offset = write_all(fs, fd, header, 0)
    index = []
    for buffer, elsewhere in zip(encoded.buffers, known, strict=True):
        start = offset + -offset % _alignment_bytes(buffer)
        written, end = _write_buffer(fs, fd, start, buffer, elsewhere, background=encoded.background)
        chunks = [chunk for _, chunk in sorted({**elsewhere, **written}.items())]
        checksums = struct.pack(f"<{len(chunks)}I", *(chunk.checksum for chunk in chunks))
        index.append((_runs(chunks) if elsewhere else start, buffer.nbytes, checksums))
        offset = end if written or not elsewhere else offset
    head_offset = offset
    index_offset = write_all(fs, fd, encoded.head, head_offset)
    packed_index: bytes = msgpack.packb(index)
    footer_offset = write_all(fs, fd, packed_index, index_offset)
    footer = FOOTER.pack(
        head_offset,
        len(encoded.head),
        crc.crc32(encoded.head),
        index_offset,
        len(packed_index),
        crc.crc32(packed_index),
    )
    checksum = crc.crc32(footer, crc.crc32(header))
    end = write_all(fs, fd, footer + CHECKSUM.pack(checksum), footer_offset)
    fs.fsync(fd)  # makes durable: the blob's contents, before a snapshot names it
    return BlobReference(number, end, checksum, bases)


def beside_the_data_bytes(encoded: Encoded) -> int:
    """So much does a blob take at most beside the bytes of the value: its frame, its index, what aligns buffers."""
    index_bytes = sum(64 + 24 * -(-buffer.nbytes // CHUNK_BYTES) for buffer in encoded.buffers)
    return 256 + index_bytes + sum(map(_alignment_bytes, encoded.buffers))


def _alignment_bytes(buffer: Buffer) -> int:
    """The buffer begins at a multiple of so many."""
    return _LARGE_ALIGNMENT_BYTES if buffer.nbytes >= _LARGE_BYTES else _ALIGNMENT_BYTES


def _write_buffer(
    fs: FileSystem, fd: int, offset: int, buffer: Buffer, elsewhere: Mapping[int, StoredChunk], *, background: bool
) -> tuple[dict[int, StoredChunk], int]:
    """Write the buffer, but for what is elsewhere, and begin its way to the disk early; the chunks, and their end."""
    written: dict[int, StoredChunk] = {}
    behind = offset
    # In the background one thread is enough, and leaves the other processor to those that go on meanwhile.
    ahead = buffer.nbytes > CHUNK_BYTES and not background
    for place, chunk, checksum in _ahead(_checked_chunks(buffer, elsewhere, background), wanted=ahead):
        written[place] = StoredChunk(0, offset, checksum)
        offset = write_all(fs, fd, chunk, offset)
        if offset - behind >= _WRITEBACK_BYTES:
            fs.start_writeback(fd, behind, offset - behind)
            behind = offset
    return written, offset


def _runs(chunks: Iterable[StoredChunk]) -> list[list[int]]:
    """Chunks as they stand in an index: ``[count, file, offset]`` for those that lie one behind the other."""
    runs: list[list[int]] = []
    for file, offset, _ in chunks:
        if runs and runs[-1][1:] == [file, offset - runs[-1][0] * CHUNK_BYTES]:
            runs[-1][0] += 1
        else:
            runs.append([1, file, offset])
    return runs


def _checked_chunks(
    buffer: Buffer, elsewhere: Mapping[int, StoredChunk], private: bool
) -> Iterator[tuple[int, memoryview, int]]:
    """The chunks of the buffer that are not elsewhere: the place of each, its bytes, and its checksum.

    They are copied, unless the buffer is ``private``. A chunk stays as it is until ``_AHEAD`` others were asked for.
    """
    size = min(CHUNK_BYTES, buffer.nbytes)
    views = cycle([memoryview(bytearray(size)) for _ in range(_AHEAD + 1)])
    for place, pieces in enumerate(in_chunks(buffer)):
        if place in elsewhere:
            continue
        if private and len(pieces) == 1:
            chunk = pieces[0]
        else:
            view, filled = next(views), 0
            for piece in pieces:
                view[filled : filled + len(piece)] = piece
                filled += len(piece)
            chunk = view[:filled]
        yield place, chunk, crc.crc32(chunk)


def in_chunks(buffer: Buffer) -> Iterator[list[memoryview]]:
    """The bytes of the buffer, where they lie, in chunks that are all full but the last, each in one piece or more."""
    pieces: list[memoryview] = []
    missing = CHUNK_BYTES
    for piece in buffer.chunks(CHUNK_BYTES):
        while len(piece):
            pieces.append(piece[:missing])
            piece = piece[missing:]
            missing -= len(pieces[-1])
            if not missing:
                yield pieces
                pieces, missing = [], CHUNK_BYTES
    if pieces:
        yield pieces


def _ahead(items: Iterator[T], *, wanted: bool) -> Iterator[T]:
    """The items; if ``wanted``, a thread makes the next ones while the caller works on the last."""
    if not wanted:
        yield from items
        return
    with ThreadPoolExecutor(1, "trax-checksum") as beside:
        upcoming: deque[Future[T | None]] = deque()
        try:
            upcoming.append(beside.submit(next, items, None))
        except RuntimeError:  # there are no new threads while the interpreter ends, and atexit functions may save
            yield from items
            return
        while (item := upcoming.popleft().result()) is not None:
            while len(upcoming) < _AHEAD:
                upcoming.append(beside.submit(next, items, None))
            yield item
