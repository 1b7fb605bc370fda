"""What of a value is as it was stored last, so that a checkpoint can lean on the files of the one before.

Each chunk is compared with the bytes of the stored one, read from its file: no hash can take one value for another, no
memory is held between two checkpoints, and a chunk that was damaged on the disk is written anew: it differs, or, where
damage has made of it just what the array holds now, its checksum does. Hashes kept in memory would save the reading;
but one that is as safe takes longer than ``memcmp`` and a read from the page cache, and the first checkpoint of a
process would have none. The file is read, not mapped: a bad sector is an error then, and not the end of the process.

A value is written whole where little would be gained: if more than half of it has changed, which is known when half of
it was compared; if its files would be more than twice as long as the value itself; or if they would be more than 17.
"""

from __future__ import annotations

from typing import Any

from trax.codecs.base import Buffer, Encoded
from trax.storage.local import crc
from trax.storage.local.blob import MAX_BASES, StoredChunk, Unchanged, beside_the_data_bytes, in_chunks
from trax.storage.local.blob_reader import BlobReader

_MOST_TIMES_THE_VALUE = 2


def unchanged(previous: BlobReader, encoded: Encoded) -> Unchanged | None:
    """What need not be written again; None where the value is to be written whole.

    An array may have grown, or shrunk: what counts is that a chunk has the bytes of the one at the same place.
    """
    found: list[dict[int, StoredChunk]] = []
    may_change_bytes = encoded.nbytes // 2 - len(encoded.head)  # the head is always written
    written_bytes = len(encoded.head) + beside_the_data_bytes(encoded)
    if may_change_bytes < 0:
        return None
    for index, buffer in enumerate(encoded.buffers):
        chunks, changed_bytes = _unchanged_chunks(previous, index, buffer, may_change_bytes)
        found.append(chunks)
        may_change_bytes -= changed_bytes
        written_bytes += changed_bytes
        if may_change_bytes < 0:
            return None
    leant_on = {chunk.file for chunks in found for chunk in chunks.values()}
    files = sorted(leant_on, key=lambda file: previous.files[file].number)
    bases = tuple(previous.files[file] for file in files)
    stored_bytes = sum(base.nbytes for base in bases) + written_bytes
    if not 0 < len(bases) <= MAX_BASES or stored_bytes > _MOST_TIMES_THE_VALUE * encoded.nbytes:
        return None
    new = {file: place for place, file in enumerate(files, start=1)}
    renumbered = [{place: chunk._replace(file=new[chunk.file]) for place, chunk in chunks.items()} for chunks in found]
    return Unchanged(bases, renumbered)


def _unchanged_chunks(
    previous: BlobReader, index: int, buffer: Buffer, may_change_bytes: int
) -> tuple[dict[int, StoredChunk], int]:
    """The chunks of the buffer that are as they were, by their place, and how many bytes are not.

    It ends early when more have changed than may.
    """
    found: dict[int, StoredChunk] = {}
    unchanged_bytes = changed_bytes = 0
    stored = bytearray()
    for place, (pieces, (chunk, nbytes)) in enumerate(zip(in_chunks(buffer), previous.chunks(index), strict=False)):
        if len(stored) != nbytes:
            stored = bytearray(nbytes)
        given: Any = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        # A bytearray on the left is compared by memcmp, with any bytes; two memoryviews would be item by item.
        # The checksum is looked at last, in the copy: damage may have made of the file just what the array holds now.
        same = previous.read_unverified(chunk, memoryview(stored)) and stored == given
        if same and crc.crc32(stored) == chunk.checksum:
            found[place] = chunk
            unchanged_bytes += nbytes
            continue
        changed_bytes += len(given)
        if changed_bytes > may_change_bytes:
            break
    return found, buffer.nbytes - unchanged_bytes
