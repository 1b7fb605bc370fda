"""Records to the payload of a frame and back: pure functions, and no codec. Layout: ``docs/format.rst``.

Two layouts. *Sections* gather the entries of one name, so that a reader decodes only the names that it wants, and all
entries of one frame in one go. *Lines* hold one JSON object a record, for ``grep`` and for eyes.
"""

from __future__ import annotations

import json
import struct
from array import array
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

from trax.storage.base import Entries, Record

_SECTION = struct.Struct("<BB2xII")
assert _SECTION.size == 12
_IN_EVERY_RECORD = 1  # section flag: no list of indices, the name is in each record of the frame
_RECORD_COUNT_BYTES = 4
_MAX_NAME_BYTES = 255  # the length of a name is a u8


class MalformedPayloadError(ValueError):
    """The checksum was right, and the payload is not what this version of the format lays out."""


class Share(NamedTuple):
    """What one name has in a payload: the index of its last record, and the bytes of its entries."""

    last_index: int
    nbytes: int


def pack_sections(records: Sequence[Record]) -> tuple[bytes, dict[str, Share]]:
    """The payload, and what each name has in it."""
    columns: dict[str, tuple[list[int], list[bytes]]] = {}
    for index, record in enumerate(records):
        for name, encoding in record.items():
            if name in columns:
                indices, encodings = columns[name]
                indices.append(index)
                encodings.append(encoding)
            else:
                columns[name] = ([index], [encoding])
    parts: list[bytes] = []
    shares: dict[str, Share] = {}
    for name, (indices, encodings) in columns.items():
        data = b"".join(encodings)
        shares[name] = Share(indices[-1], len(data))
        parts += _pack_section(name, indices if len(indices) < len(records) else None, encodings, data)
    return b"".join(parts), shares


def _pack_section(name: str, indices: list[int] | None, encodings: list[bytes], data: bytes) -> tuple[bytes, ...]:
    encoded_name = name.encode()
    flags = _IN_EVERY_RECORD if indices is None else 0
    header = _SECTION.pack(len(encoded_name), flags, len(encodings), len(data))
    return header, encoded_name, _u32s(indices or ()), _u32s([*map(len, encodings)]), data


def _u32s(numbers: Sequence[int]) -> bytes:
    return struct.pack(f"<{len(numbers)}I", *numbers)


def unpack_sections(payload: bytes, sequences: Sequence[int]) -> Iterator[Entries]:
    """The entries of each name; ``sequences`` are those of the frame's records."""
    position = 0
    names: set[str] = set()
    while position < len(payload):
        if position + _SECTION.size > len(payload):
            raise MalformedPayloadError("a section's header is cut off")
        name_bytes, flags, count, data_bytes = _SECTION.unpack_from(payload, position)
        position += _SECTION.size
        table_bytes = _RECORD_COUNT_BYTES * count * (1 if flags & _IN_EVERY_RECORD else 2)
        end = position + name_bytes + table_bytes + data_bytes
        if end > len(payload) or not 0 < count <= len(sequences):
            raise MalformedPayloadError("a section is longer than its frame")
        name = check_name(_decode_name(payload[position : position + name_bytes]))
        position += name_bytes
        own: Sequence[int] = sequences
        if not flags & _IN_EVERY_RECORD:
            own = _pick(sequences, struct.unpack_from(f"<{count}I", payload, position))
            position += _RECORD_COUNT_BYTES * count
        lengths = struct.unpack_from(f"<{count}I", payload, position)
        position += _RECORD_COUNT_BYTES * count
        if sum(lengths) != data_bytes or len(own) != count:
            raise MalformedPayloadError("a section's lengths do not add up")
        if name in names:
            raise MalformedPayloadError("two sections of one name")
        names.add(name)
        yield Entries(name, own, payload[position:end], lengths)
        position = end


def _decode_name(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise MalformedPayloadError("a name is not UTF-8") from error


def check_name(name: str) -> str:
    """The name, if a store can have it; MalformedPayloadError."""
    try:
        nbytes = len(name.encode())
    except UnicodeEncodeError as error:
        raise MalformedPayloadError("a name is not UTF-8") from error
    if not 1 <= nbytes <= _MAX_NAME_BYTES:
        raise MalformedPayloadError(f"a name of {nbytes} bytes")
    return name


def _pick(sequences: Sequence[int], indices: Sequence[int]) -> Sequence[int]:
    if indices[-1] >= len(sequences) or any(a >= b for a, b in pairwise(indices)):
        raise MalformedPayloadError("a section names records that its frame does not have")
    return [sequences[index] for index in indices]


def pack_lines(records: Sequence[Record]) -> tuple[bytes, dict[str, Share]]:
    """The payload as JSON lines; the entries must be JSON texts without a line break."""
    shares: dict[str, Share] = {}
    lines = []
    for index, record in enumerate(records):
        for name, encoding in record.items():
            before = shares.get(name)
            shares[name] = Share(index, len(encoding) + (before.nbytes if before else 0))
        members = (json.dumps(name, ensure_ascii=False).encode() + b": " + text for name, text in record.items())
        lines.append(b"{" + b", ".join(members) + b"}\n")
    return b"".join(lines), shares


def unpack_lines(payload: bytes, sequences: Sequence[int]) -> Iterator[Entries]:
    """The entries of each name; ``sequences`` are those of the frame's records."""
    try:
        *lines, rest = payload.decode("utf-8", "surrogatepass").split("\n")
    except UnicodeDecodeError as error:
        raise MalformedPayloadError("the lines are not UTF-8") from error
    if rest or len(lines) != len(sequences):
        raise MalformedPayloadError("the number of lines is not that of the records")
    columns: dict[str, tuple[list[int], list[bytes]]] = {}
    for sequence, line in zip(sequences, lines, strict=True):
        for name, text in _members(line):
            own, texts = columns.setdefault(check_name(name), ([], []))
            if own and own[-1] == sequence:
                raise MalformedPayloadError("a line has a name twice")
            own.append(sequence)
            texts.append(text.encode("utf-8", "surrogatepass"))
    for name, (own, texts) in columns.items():
        yield Entries(name, own, b"".join(texts), [*map(len, texts)])


def _members(line: str) -> Iterator[tuple[str, str]]:
    """The names of a JSON object with the text of each value, which is cut out, not understood."""
    decoder = json.JSONDecoder()
    position = 0
    try:
        while position == 0 or line[position] != "}":
            position = _behind(", " if position else "{", line, position)
            name, position = decoder.raw_decode(line, position)
            start = _behind(": ", line, position)
            _, position = decoder.raw_decode(line, start)
            if type(name) is not str:
                raise ValueError("a name is expected")
            yield name, line[start:position]
        if len(line) > position + 1:
            raise ValueError("nothing is expected behind the object")
    except (ValueError, IndexError, RecursionError) as error:
        raise MalformedPayloadError("a line is not a JSON object") from error


def _behind(sign: str, line: str, position: int) -> int:
    if not line.startswith(sign, position):
        raise ValueError(f"{sign!r} is expected at character {position}")
    return position + len(sign)


def pack_sequences(sequences: Sequence[int]) -> bytes:
    """The sequences of records that do not follow each other without gaps."""
    return struct.pack(f"<{len(sequences)}Q", *sequences)


def split_sequences(payload: bytes, count: int) -> tuple[Sequence[int], bytes]:
    """The explicit sequences at the head of a payload, and the rest of it."""
    nbytes = 8 * count
    if count == 0 or len(payload) < nbytes:
        raise MalformedPayloadError("the list of sequences is cut off")
    sequences = array("Q", struct.unpack_from(f"<{count}Q", payload))
    if any(a >= b for a, b in pairwise(sequences)):
        raise MalformedPayloadError("the sequences do not rise")
    return sequences, payload[nbytes:]
