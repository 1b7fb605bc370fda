"""A store as JSON lines and back, without loss: to keep it, to read it with other tools, to move it to another codec.

The file holds, one JSON object a line, UTF-8 (with lone surrogates as the three bytes that UTF-8 would give them):

- ``{"trax": "export", "format": 1, "version": …, "codec": …, "keep": …, "sequence": …}``: what the store was;
- ``{"name": …, "cut": …, "sequence": …, "value": …}`` for each stored name, in the exact notation of
  :mod:`trax.codecs.json`, with ``"buffers": [base64, …]`` for large arrays and bytes;
- ``{"sequence": …, "entries": {name: …}}`` for each record behind the cuts of its names, in order;
- ``{"end": {"names": …, "records": …}}``: without this line the file was cut off.

A value of a pickle store that the notation can't hold is ``{"$pickle": base64}``. Older snapshots that a store keeps,
and deleted names, are not exported. Importing keeps all sequences and cuts.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import re
import secrets
import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO

from trax._version import __version__
from trax.codecs import get_codec
from trax.codecs.base import Buffer, Codec, Encoded
from trax.codecs.json import JsonCodec
from trax.errors import (
    CodecError,
    CorruptionError,
    FormatError,
    InvalidArgumentError,
    InvalidNameError,
    UnsupportedValueError,
)
from trax.names import check_name
from trax.records import Wanted, view_records
from trax.replay import decode_entries, decode_stored
from trax.storage.base import MAX_SEQUENCE, Commit, Entries, Stored
from trax.storage.local.commit_point import load_snapshot
from trax.storage.local.creation import survey
from trax.storage.local.directory import LocalStorage
from trax.storage.local.fs import FileSystem, LocalFileSystem
from trax.storage.local.layout import Layout
from trax.storage.local.reader import check_codec
from trax.storage.local.refusal import asking
from trax.storage.local.snapshot import Snapshot
from trax.storage.local.view import LocalView, of_latest

EXPORT_FORMAT = 1
_JSON = JsonCodec()
_PICKLED = "$pickle"
_CHUNK_BYTES = 3 << 18
_RUN_RECORDS = 1024
_RUN_BYTES = 1 << 20


@dataclass(frozen=True)
class Counts:
    """How much was exported or imported."""

    names: int
    records: int


# Export


def export_store(path: str | os.PathLike[str], out: BinaryIO, *, codec: str | None = None) -> Counts:
    """Write the state that the store has now to ``out``; its writer may go on meanwhile.

    ``codec`` must be ``"pickle"`` for a store of pickles, which are then unpickled: that runs the code they contain.
    """
    fs, layout = LocalFileSystem(), Layout(path)
    survey(fs, layout, create=False)
    snapshot, view = _view_of_everything(fs, layout)
    with view:
        check_codec(codec, snapshot.codec, layout.path)
        own = get_codec(snapshot.codec)
        header = {"trax": "export", "format": EXPORT_FORMAT, "version": __version__}
        header |= {"codec": snapshot.codec, "keep": snapshot.keep, "sequence": snapshot.sequence}
        _write_line(out, header)
        stored = {name: one for name, one in sorted(view.names.items()) if one.value is not None}
        for name, one in stored.items():
            _write_value(out, own, name, one, decode_stored(own, view, name, one, layout.path))
        records = 0
        for record in view_records(view, Wanted(None, view.names)):
            texts = {}
            for name, data in record.entries.items():
                (entry,) = decode_entries(own, [Entries(name, [record.sequence], data, [len(data)])], layout.path)
                texts[name] = entry_text(own, entry, name)
            out.write(record_line(record.sequence, texts))
            records += 1
        _write_line(out, {"end": {"names": len(stored), "records": records}})
    return Counts(len(stored), records)


def entry_text(codec: Codec, value: Any, name: str) -> bytes:
    """A value in the exact JSON notation; what only pickle can hold, of a pickle store, as ``{"$pickle": base64}``."""
    try:
        return _JSON.encode(value, name)
    except UnsupportedValueError:
        if codec.name != "pickle":
            raise
        return b'{"%s": "%s"}' % (_PICKLED.encode(), base64.b64encode(codec.encode(value, name)))


def record_line(sequence: int, texts: Mapping[str, bytes]) -> bytes:
    """The line of a record, as ``export`` writes it."""
    members = b", ".join(_text(name) + b": " + text for name, text in texts.items())
    return b'{"sequence": %d, "entries": {%s}}\n' % (sequence, members)


def _view_of_everything(fs: FileSystem, layout: Layout) -> tuple[Snapshot, LocalView]:
    taken: list[Snapshot] = []

    def load() -> tuple[Snapshot, int]:
        with asking("read", layout.snapshot):
            return load_snapshot(fs, layout.snapshot), 0

    def make(snapshot: Snapshot, _: int) -> LocalView:
        taken.append(snapshot)
        return LocalView(fs, layout, snapshot, snapshot, snapshot.names, None)

    view = of_latest(load, make)
    return taken[-1], view


def _write_value(out: BinaryIO, codec: Codec, name: str, stored: Stored, value: Any) -> None:
    try:
        encoded = _JSON.encode_value(value, name)
    except UnsupportedValueError:
        encoded = Encoded(entry_text(codec, value, name))
    start = b'{"name": %s, "cut": %d, "sequence": %d, "value": ' % (_text(name), stored.cut, stored.sequence)
    out.write(start + encoded.head)
    for place, buffer in enumerate(encoded.buffers):
        out.write(b', "' if place else b', "buffers": ["')
        for piece in _base64(buffer):
            out.write(piece)
        out.write(b'"')
    out.write(b"]}\n" if encoded.buffers else b"}\n")


def _base64(buffer: Buffer) -> Iterator[bytes]:
    """The buffer in base64, a part at a time: an array is not copied as a whole."""
    rest = b""
    for chunk in buffer.chunks(_CHUNK_BYTES):
        data = rest + chunk.tobytes()
        whole = len(data) - len(data) % 3
        yield base64.b64encode(data[:whole])
        rest = data[whole:]
    yield base64.b64encode(rest)


def _write_line(out: BinaryIO, line: Mapping[str, Any]) -> None:
    out.write(json.dumps(line).encode() + b"\n")


def _text(name: str) -> bytes:
    return json.dumps(name, ensure_ascii=False).encode()


# Import


def import_store(
    file: BinaryIO, path: str | os.PathLike[str], *, source: str = "the file", codec: str | None = None
) -> Counts:
    """Make a store at ``path``, where there is none, of what ``export_store`` wrote; durable when it returns.

    It is made beside ``path`` and renamed: whatever goes wrong, there is no store at ``path``. ``codec`` is that of the
    new store, by default the exported one's; ``"pickle"`` must be asked for, since the file's pickles are unpickled.
    """
    fs, layout = LocalFileSystem(), Layout(path)
    with asking("look at", layout.path):
        _check_free(fs, layout)
    lines = _Lines(file, source)
    header = lines.header()
    if header.codec == "pickle" and codec is None:
        text = (
            f"{source} was exported from a store of pickles, and unpickling runs whatever code it contains. If you "
            f"trust everyone who could write to it, import it with the codec 'pickle'."
        )
        raise CodecError(text, path=source, reason="pickle must be asked for")
    beside = f"{layout.path}.importing-{secrets.token_hex(4)}"
    try:
        counts = _fill(LocalStorage(beside, codec=codec or header.codec, keep=header.keep), lines, header)
        with asking("create", layout.path):
            fs.rename(beside, layout.path)
            fs.fsync_directory(layout.parent)  # makes durable: the store's name; all in it was synced before
    except BaseException:
        shutil.rmtree(beside, ignore_errors=True)
        raise
    return counts


def _check_free(fs: FileSystem, layout: Layout) -> None:
    if survey(fs, layout, create=True):
        text = f"there is a store at {layout.path}, and an import never changes one. Choose another path."
        raise InvalidArgumentError(text, path=layout.path, reason="a store exists")
    if fs.kind(layout.path) == "directory" and fs.listdir(layout.path):
        text = f"{layout.path} is not empty. Choose an empty or a new directory."
        raise InvalidArgumentError(text, path=layout.path, reason="not empty")


@dataclass(frozen=True)
class _Header:
    codec: str
    keep: int
    sequence: int


def _fill(storage: LocalStorage, lines: _Lines, header: _Header) -> Counts:
    try:
        writer = _ImportWriter(storage, lines)
        counts = writer.run(header.sequence)
        storage.publish(writer.names, header.sequence)  # and the records: it seals them
        return counts
    finally:
        storage.close()


class _ImportWriter:
    """Brings the lines behind the header to a new store; ``names`` is what its snapshot is to hold."""

    def __init__(self, storage: LocalStorage, lines: _Lines) -> None:
        self._storage, self._lines = storage, lines
        self._codec = get_codec(storage.codec)
        self.names: dict[str, Stored] = {}
        self._records = 0
        self._last = 0
        self._run: list[Commit] = []
        self._run_bytes = 0

    def run(self, sequence: int) -> Counts:
        for line in self._lines:
            if "name" in line:
                self._add_name(line, sequence)
            elif "entries" in line:
                self._add_record(line)
            else:
                self._flush()
                counts = Counts(len(self.names), self._records)
                self._lines.check_end(line, counts)
                return counts
        raise self._lines.damaged("it ends without its last line: it was cut off")

    def _add_name(self, line: Mapping[str, str], last: int) -> None:
        name = self._lines.name(line["name"])
        cut, sequence = self._lines.number(line, "cut", last), self._lines.number(line, "sequence", last)
        if name in self.names or cut > sequence:
            raise self._lines.damaged(f"the line of {name!r} does not fit those before it")
        source = _Buffers(self._lines.texts(line.get("buffers", "[]")))
        value = self._decode(line.get("value", ""), source)
        encoded = self._codec.encode_value(value, name)
        self.names[name] = Stored(cut, sequence, self._storage.write_value(name, encoded))

    def _add_record(self, line: Mapping[str, str]) -> None:
        sequence = self._lines.number(line, "sequence", MAX_SEQUENCE - 1)
        texts = self._lines.members(line["entries"], quoted=True)
        entries = {self._lines.name(key): text for key, text in texts.items()}
        cuts = [self.names[name].cut for name in entries if name in self.names]
        if not entries or sequence <= max(self._last, *cuts, 0):
            raise self._lines.damaged(f"the record of sequence {sequence} does not fit the lines before it")
        record = {name: self._codec.encode(self._decode(text, None), name) for name, text in entries.items()}
        if sequence != self._last + 1 or len(self._run) >= _RUN_RECORDS or self._run_bytes >= _RUN_BYTES:
            self._flush()
        self._last = sequence
        self._run.append([record])
        self._run_bytes += sum(map(len, record.values()))
        self._records += 1

    def _flush(self) -> None:
        if self._run:
            self._storage.append(self._last - len(self._run) + 1, self._run)
        self._run, self._run_bytes = [], 0

    def _decode(self, text: str, source: _Buffers | None) -> Any:
        try:
            if text.startswith("{") and _PICKLED_VALUE.match(text):
                return self._unpickle(text)
            data = text.encode("utf-8", "surrogatepass")
            return _JSON.decode(data) if source is None else _JSON.decode_value(data, source)
        except CorruptionError as error:
            raise self._lines.damaged(str(error)) from error

    def _unpickle(self, text: str) -> Any:
        if self._codec.name != "pickle":
            text = f"{self._lines.source} holds values that only a store with codec='pickle' can hold."
            raise CodecError(text, path=self._lines.source, reason="pickle must be asked for")
        try:
            data = base64.b64decode(json.loads(text)[_PICKLED], validate=True)
        except (ValueError, TypeError) as error:
            raise self._lines.damaged("a pickle is not base64") from error
        return self._codec.decode(data)


class _Lines:
    """The lines of an exported file, each as its keys with the text of what they say."""

    def __init__(self, file: BinaryIO, source: str) -> None:
        self._file, self.source = file, source
        self._number, self._offset, self._next = 0, 0, 0

    def __iter__(self) -> Iterator[dict[str, str]]:
        while (line := self._read()) is not None:
            yield self.members(line)

    def header(self) -> _Header:
        line = self._read()
        try:
            header = json.loads(line or "")
            kind, version = header["trax"], header["format"]
            known = _Header(header["codec"], header["keep"], header["sequence"])
        except (ValueError, TypeError, LookupError, RecursionError) as error:
            kind, version, known = None, 0, _Header("", 0, 0)
            cause: BaseException | None = error
        else:
            cause = None
        if kind != "export" or type(version) is not int:
            text = f"{self.source} does not begin like a file that 'trax export' writes."
            raise FormatError(text, path=self.source, offset=0, reason="not an export") from cause
        if version > EXPORT_FORMAT:
            text = f"{self.source} has format {version}; this trax reads up to {EXPORT_FORMAT}. Install a newer trax."
            raise FormatError(text, path=self.source, offset=0, reason=f"format {version}")
        numbers = (known.keep, known.sequence)
        in_range = all(type(one) is int and 0 <= one < MAX_SEQUENCE for one in numbers)
        if type(known.codec) is not str or not in_range or known.keep < 1:
            raise self.damaged("its header makes no sense")
        return known

    def members(self, text: str, *, quoted: bool = False) -> dict[str, str]:
        """The keys of an object (``quoted``: as they stand in the text) with the text of each value."""
        found: dict[str, str] = {}
        try:
            position = _expect("{", text, 0)
            while text[position] != "}":
                start = position
                key, position = _DECODER.raw_decode(text, position)
                key = text[start:position] if quoted else key
                position = _expect(":", text, _skip(text, position))
                start = position
                _, position = _DECODER.raw_decode(text, position)
                if key in found or type(key) is not str:
                    raise ValueError(f"the key {key!r}")
                found[key] = text[start:position]
                position = _skip(text, position)
                position = _expect(",", text, position) if text[position] == "," else position
            if text[position + 1 :].strip():
                raise ValueError("text behind the object")
        except (ValueError, IndexError, RecursionError) as error:
            raise self.damaged(f"it is not a JSON object ({error})") from error
        return found

    def name(self, text: str) -> str:
        try:
            return check_name(json.loads(text), reserved=True)
        except (ValueError, InvalidNameError) as error:
            raise self.damaged(str(error)) from error

    def number(self, line: Mapping[str, str], key: str, most: int) -> int:
        text = line.get(key, "")
        if not re.fullmatch(r"\d{1,20}", text, re.ASCII) or int(text) > most:
            raise self.damaged(f"its {key!r} is not a sequence that fits here")
        return int(text)

    def texts(self, text: str) -> list[str]:
        try:
            found = json.loads(text)
        except ValueError as error:
            raise self.damaged(str(error)) from error
        if type(found) is not list or any(type(one) is not str for one in found):
            raise self.damaged("its 'buffers' is not a list of texts")
        return found

    def check_end(self, line: Mapping[str, str], counts: Counts) -> None:
        """The last line must say what was found, and be the last."""
        end = self.members(line.get("end", ""))
        found = (self.number(end, "names", MAX_SEQUENCE), self.number(end, "records", MAX_SEQUENCE))
        if found != (counts.names, counts.records):
            raise self.damaged(
                f"it says that it holds {found[0]} names and {found[1]} records, and there are {counts.names} and "
                f"{counts.records}"
            )
        if self._read() is not None:
            raise self.damaged("something follows its last line")

    def damaged(self, reason: str) -> CorruptionError:
        text = f"{self.source} is damaged in line {self._number}: {reason}. Nothing was imported."
        return CorruptionError(text, path=self.source, offset=self._offset, reason=reason)

    def _read(self) -> str | None:
        line = self._file.readline()
        self._number += 1
        self._offset = self._next
        self._next += len(line)
        if not line:
            return None
        try:
            return line.decode("utf-8", "surrogatepass")
        except UnicodeDecodeError as error:
            raise self.damaged("it is not UTF-8") from error


class _Buffers:
    """The ``buffers`` of a line: a :class:`trax.codecs.base.BufferSource`."""

    def __init__(self, texts: Iterable[str]) -> None:
        self._texts = list(texts)

    def nbytes(self, index: int) -> int:
        return len(self._data(index))

    def readinto(self, index: int, target: memoryview) -> None:
        target[:] = self._data(index)

    def map(self, index: int) -> memoryview:
        return memoryview(self._data(index))

    def _data(self, index: int) -> bytes:
        try:
            return base64.b64decode(self._texts[index], validate=True)
        except (IndexError, binascii.Error) as error:
            raise CorruptionError(f"buffer {index} is not there, or not base64", reason="no such buffer") from error


_DECODER = json.JSONDecoder()
_SPACE = re.compile(r"[ \t\r\n]*")
_PICKLED_VALUE = re.compile(r'\{[ \t]*"\$pickle"')


def _skip(text: str, position: int) -> int:
    found = _SPACE.match(text, position)
    assert found is not None, "it matches nothing, too"
    return found.end()


def _expect(sign: str, text: str, position: int) -> int:
    """The position behind ``sign`` and the space after it."""
    if text[position] != sign:
        raise ValueError(f"{sign!r} expected at character {position}")
    return _skip(text, position + 1)
