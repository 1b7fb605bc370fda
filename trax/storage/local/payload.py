"""Records to the payload of a frame and back: pure functions, and no codec. Layout: ``docs/format.rst``.

Two layouts. *Sections* gather the entries of one name, so that a reader decodes only the names that it wants, and all
entries of one frame in one go. *Lines* hold one JSON object a record, for ``grep`` and for eyes.
"""

from __future__ import annotations

import json
import struct
from array import array
from collections.abc import Container, Iterator, Sequence
from functools import lru_cache
from itertools import islice, pairwise
from operator import ge
from typing import overload

from trax.storage.base import Entries, Record

_SECTION = struct.Struct("<BB2xII")
_U32 = struct.Struct("<I")
assert _SECTION.size == 12
_IN_EVERY_RECORD = 1  # section flag: no list of indices, the name is in each record of the frame
_MAX_NAME_BYTES = 255  # the length of a name is a u8


class MalformedPayloadError(ValueError):
    """The checksum was right, and the payload is not what this version of the format lays out."""


Share = tuple[str, int, int]
"""What a name has in a payload: the name, the index of its last record, and the bytes of its entries."""


def pack_sections(records: Sequence[Record]) -> tuple[bytes, list[Share]]:
    """The payload, and what each name has in it."""
    parts: list[bytes] = []
    shares: list[Share] = []
    if len(records) == 1:
        for name, data in records[0].items():
            nbytes = len(data)
            header, encoded_name = _section_of_one(name)
            parts += header.pack(len(encoded_name), _IN_EVERY_RECORD, 1, nbytes, encoded_name, nbytes), data
            shares.append((name, 0, nbytes))
        return b"".join(parts), shares
    same = _columns_of_same_names(records)
    if same is not None:
        for name, encodings in zip(records[0], same, strict=True):
            shares.append(_pack_section(parts, name, None, encodings, len(records) - 1))
    else:
        columns: dict[str, tuple[list[int], list[bytes]]] = {}
        for index, record in enumerate(records):
            for name, encoding in record.items():
                indices, encodings = columns.setdefault(name, ([], []))
                indices.append(index)
                encodings.append(encoding)
        for name, (indices, encodings) in columns.items():
            listed = indices if len(indices) < len(records) else None
            shares.append(_pack_section(parts, name, listed, encodings, indices[-1]))
    return b"".join(parts), shares


@lru_cache(maxsize=1024)
def _section_of_one(name: str) -> tuple[struct.Struct, bytes]:
    """What stands before the data in a section with one entry: its header, the name, and the table of one length."""
    encoded_name = name.encode()
    return struct.Struct(f"{_SECTION.format}{len(encoded_name)}sI"), encoded_name


def _columns_of_same_names(records: Sequence[Record]) -> list[list[bytes]] | None:
    """The entries of each name, if every record has the names of the first: most logs are like that."""
    first = records[0]
    if sum(map(len, records)) != len(first) * len(records):
        return None
    try:
        return [[record[name] for record in records] for name in first]
    except KeyError:
        return None


def _pack_section(
    parts: list[bytes], name: str, indices: list[int] | None, encodings: list[bytes], last_index: int
) -> Share:
    data = b"".join(encodings)
    encoded_name = name.encode()
    flags = _IN_EVERY_RECORD if indices is None else 0
    parts.append(_SECTION.pack(len(encoded_name), flags, len(encodings), len(data)))
    parts.append(encoded_name)
    if indices is not None:
        parts.append(_u32s(indices))
    parts.append(_u32s([*map(len, encodings)]))
    parts.append(data)
    return name, last_index, len(data)


def _u32s(numbers: Sequence[int]) -> bytes:
    return struct.pack(f"<{len(numbers)}I", *numbers)


def unpack_sections(
    payload: bytes, sequences: Sequence[int], wanted: Container[str] | None = None
) -> Iterator[Entries]:
    """The entries of each name, or of the ``wanted`` ones; ``sequences`` are those of the frame's records."""
    for name, count, in_every, table, start, end in _sections(payload, len(sequences)):
        if wanted is None or name in wanted:
            own = sequences
            if not in_every:
                indices = struct.unpack_from(f"<{count}I", payload, table)
                table += count * _U32.size
                if indices[-1] >= len(sequences) or any(map(ge, indices, islice(indices, 1, None))):
                    raise MalformedPayloadError("a section names records that its frame does not have")
                own = _Picked(sequences, indices)
            lengths = struct.unpack_from(f"<{count}I", payload, table)
            if sum(lengths) != end - start:
                raise MalformedPayloadError("a section's lengths do not add up")
            yield Entries(name, own, payload[start:end], lengths)


class _Picked(Sequence[int]):
    """Those of the sequences that stand at the indices; each is looked up when it is asked for, which is seldom."""

    __slots__ = ("_indices", "_sequences")

    def __init__(self, sequences: Sequence[int], indices: Sequence[int]) -> None:
        self._sequences, self._indices = sequences, indices

    def __len__(self) -> int:
        return len(self._indices)

    @overload
    def __getitem__(self, place: int) -> int: ...
    @overload
    def __getitem__(self, place: slice) -> _Picked: ...
    def __getitem__(self, place: int | slice) -> int | _Picked:
        if isinstance(place, slice):
            return _Picked(self._sequences, self._indices[place])
        return self._sequences[self._indices[place]]

    def __iter__(self) -> Iterator[int]:
        return map(self._sequences.__getitem__, self._indices)


def shares_of_sections(payload: bytes, record_count: int) -> Iterator[Share]:
    """What each name has in a payload that :func:`pack_sections` has made; its tables are not read but for that."""
    for name, count, in_every, table, start, end in _sections(payload, record_count):
        last = record_count - 1 if in_every else _U32.unpack_from(payload, table + (count - 1) * _U32.size)[0]
        if last >= record_count:
            raise MalformedPayloadError("a section names records that its frame does not have")
        yield name, last, end - start


def _sections(payload: bytes, record_count: int) -> Iterator[tuple[str, int, int, int, int, int]]:
    """Of each section the name, the number of its entries, whether that is one a record, and where its table, its data
    and the next section begin."""
    position = 0
    names: set[str] = set()
    while position < len(payload):
        if position + _SECTION.size > len(payload):
            raise MalformedPayloadError("a section's header is cut off")
        name_bytes, flags, count, data_bytes = _SECTION.unpack_from(payload, position)
        position += _SECTION.size
        in_every = flags & _IN_EVERY_RECORD
        table = position + name_bytes
        start = table + count * _U32.size * (1 if in_every else 2)
        end = start + data_bytes
        if end > len(payload) or not 0 < count <= record_count or (in_every and count != record_count):
            raise MalformedPayloadError("a section is longer or shorter than its frame")
        name = _name(payload[position:table])
        if name in names:
            raise MalformedPayloadError("two sections of one name")
        names.add(name)
        yield name, count, in_every, table, start, end
        position = end


@lru_cache(maxsize=1024)
def _name(data: bytes) -> str:
    try:
        return check_name(data.decode())
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


def pack_lines(records: Sequence[Record]) -> tuple[bytes, list[Share]]:
    """The payload as JSON lines; the entries must be JSON texts without a line break."""
    last_index: dict[str, int] = {}
    nbytes: dict[str, int] = {}
    lines = []
    for index, record in enumerate(records):
        for name, text in record.items():
            last_index[name] = index
            nbytes[name] = nbytes.get(name, 0) + len(text)
        members = (json.dumps(name, ensure_ascii=False).encode() + b": " + text for name, text in record.items())
        lines.append(b"{" + b", ".join(members) + b"}\n")
    return b"".join(lines), [(name, last_index[name], nbytes[name]) for name in nbytes]


def unpack_lines(payload: bytes, sequences: Sequence[int], wanted: Container[str] | None = None) -> Iterator[Entries]:
    """The entries of each name, or of the ``wanted`` ones; ``sequences`` are those of the frame's records."""
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
        if wanted is None or name in wanted:
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
