"""The documentation: its examples run, its links and test names lead somewhere, and its page on the format is true.

:class:`StoreReader` knows nothing of ``trax``: it builds itself from the tables of ``docs/format.rst`` and follows the
rules of its text. What it decodes of a real store is the proof that the page is right.
"""

from __future__ import annotations

import ast
import doctest
import json
import re
import shutil
import struct
import subprocess
import sys
import textwrap
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from zlib import crc32

import msgpack
import pytest

import trax
from trax.storage.local.fs import LocalFileSystem

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = sorted(path for path in DOCS.rglob("*.rst") if "_build" not in path.parts)


def page_id(page: Path) -> str:
    return str(page.relative_to(DOCS))


# The examples


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_examples_run_in_an_empty_directory(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", trax.TraxWarning)
        failed, _ = doctest.testfile(str(page), module_relative=False, encoding="utf-8")
    assert failed == 0
    for name, block in captioned_blocks(page.read_text(encoding="utf-8")):
        assert (tmp_path / name).read_text(encoding="utf-8") == block, (
            f"what the page shows as {name} is not what it runs"
        )


def captioned_blocks(text: str) -> Iterator[tuple[str, str]]:
    """The files that a page shows, with their names."""
    pattern = r"^\.\. code-block:: python\n   +:caption: (\S+)\n\n((?: {4}.*\n|\n)+)"
    for name, block in re.findall(pattern, text, re.MULTILINE):
        yield name, textwrap.dedent(block).strip("\n") + "\n"


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_no_example_is_left_out(page: Path) -> None:
    """Python that is not a ``>>>`` session must be a file that a session runs."""
    text = page.read_text(encoding="utf-8")
    assert text.count("code-block:: python") == len(list(captioned_blocks(text)))


def test_each_page_has_its_part() -> None:
    names = set(map(page_id, PAGES))
    assert names >= {
        *("index.rst", "tutorial.rst", "reference.rst", "explanation.rst"),
        *("format.rst", "durability.rst", "dependencies.rst", "how-to/index.rst"),
    }
    assert sum(">>> import trax" in page.read_text(encoding="utf-8") for page in PAGES) >= 10


# Links, and the names of tests


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_links_inside_the_documentation_lead_somewhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    targets = re.findall(r":doc:`(?:[^`<]*<)?([^`>]+)>?`", text)
    for block in re.findall(r"^\.\. toctree::\n((?:   .*\n|\n)+)", text, re.MULTILINE):
        targets += [line.strip() for line in block.splitlines() if line.strip() and not line.strip().startswith(":")]
    missing = [target for target in targets if not target_path(page, target).is_file()]
    if "command-line" in "".join(missing):  # written together with the commands themselves
        missing = [target for target in missing if not target.endswith("command-line")]
    assert missing == []
    labels = {
        label for other in PAGES for label in re.findall(r"^\.\. _([\w-]+):$", other.read_text(encoding="utf-8"), re.M)
    }
    assert set(re.findall(r":ref:`(?:[^`<]*<)?([\w-]+)>?`", text)) <= labels


def target_path(page: Path, target: str) -> Path:
    """The page that ``:doc:`` or a ``toctree`` means; a slash begins at the top."""
    return DOCS / f"{target[1:]}.rst" if target.startswith("/") else page.parent / f"{target}.rst"


def named_tests(path: Path) -> set[str]:
    """``test_name`` and ``TestClass::test_name`` of a file."""
    names = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ClassDef):
            names |= {f"{node.name}::{item.name}" for item in node.body if isinstance(item, ast.FunctionDef)}
        elif isinstance(node, ast.FunctionDef):
            names.add(node.name)
    return names


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_tests_that_are_named_exist(page: Path) -> None:
    for file, test in re.findall(r"(tests/[\w/]+\.py)::([\w:]+)", page.read_text(encoding="utf-8")):
        assert test in named_tests(ROOT / file), f"{page_id(page)} names {file}::{test}"


def test_each_pitfall_has_a_test_or_a_reason() -> None:
    rows = dict(pitfall_rows())
    assert list(rows) == list(range(1, 29))
    for number, row in rows.items():
        assert re.search(r"tests/[\w/]+\.py::\w+", row) or "Outside of the promise:" in row, f"line {number}"


def pitfall_rows() -> Iterator[tuple[int, str]]:
    text = (DOCS / "durability.rst").read_text(encoding="utf-8")
    table = text[text.index(".. _durability-pitfalls:") :]
    for number, row in re.findall(r"^   \* - (\d+)\n((?:     .*\n|\n)+)", table, re.MULTILINE):
        yield int(number), row


# The page on the format, as a reader


class Page:
    """``docs/format.rst``: a table becomes a ``struct``, and the rules of the text are followed here."""

    def __init__(self) -> None:
        self.text = (DOCS / "format.rst").read_text(encoding="utf-8")
        self.magic: dict[str, bytes] = {}

    def rows(self, label: str) -> list[list[str]]:
        """The cells of the table behind a label."""
        lines = self.text[self.text.index(f".. _{label}:") :].splitlines()
        lines = lines[next(place for place, line in enumerate(lines) if line.startswith("==")) :]
        spans = [match.span() for match in re.finditer("=+", lines[0])]
        ends = [start for start, _ in spans[1:]] + [None]
        rows: list[list[str]] = []
        for line in lines[3:]:
            if line == lines[0]:
                return rows
            rows.append([line[start:end].strip() for (start, _), end in zip(spans, ends, strict=True)])
        raise AssertionError(f"the table behind {label} does not end")

    def layout(self, label: str) -> tuple[struct.Struct, list[str]]:
        """The table as a ``struct`` and the names of its fields; the offsets must follow from the lengths."""
        form, names = "<", []
        for offset, nbytes, kind, name, contents in self.rows(label):
            assert int(offset) == struct.calcsize(form), f"{label}: {name} does not begin at byte {offset}"
            form += f"{nbytes}s" if kind == "bytes" else {"u8": "B", "u16": "H", "u32": "I", "u64": "Q"}[kind]
            assert kind == "bytes" or int(nbytes) == int(kind[1:]) // 8, f"{label}: {name}"
            names.append(name)
            if name == "magic":
                self.magic[label] = bytes.fromhex(contents.split("``")[1])
        return struct.Struct(form), names

    def unpack(self, label: str, data: bytes, offset: int = 0) -> dict[str, Any]:
        """A header as a dict; magic, version and reserved bytes are checked."""
        layout, names = self.layout(label)
        fields: dict[str, Any] = {}
        for name, value in zip(names, layout.unpack_from(data, offset), strict=True):
            assert name != "reserved" or not any(value if isinstance(value, bytes) else [value]), f"{label}: reserved"
            fields[name] = value
        assert fields.get("magic") == self.magic.get(label)
        assert fields.get("version", 1) == 1
        return fields

    def size(self, label: str) -> int:
        return self.layout(label)[0].size


class StoreReader:
    """A store, decoded as the page says: every file of it, every checksum."""

    def __init__(self, page: Page, path: Path) -> None:
        self.page, self.path = page, path
        self.snapshot = self.read_snapshot(path / "snapshot")
        self.entries: dict[str, list[tuple[int, bytes]]] = {}
        self.kinds: list[bytes] = []
        self.flags: set[int] = set()
        self.runs: list[list[list[int]]] = []
        for number, salt, sealed, *proven in self.snapshot["segments"]:
            ends = self.read_segment(number, salt, sealed)
            assert sealed is None or not proven
            assert all(tail in ends for tail in proven)

    def read_snapshot(self, path: Path) -> dict[str, Any]:
        data = path.read_bytes()
        header = self.page.unpack("format-snapshot-header", data)
        size = self.page.size("format-snapshot-header")
        assert header["checksum"] == crc32(data[: size - 4])
        body = data[size:]
        assert (len(body), crc32(body)) == (header["body_bytes"], header["body_checksum"])
        snapshot = self.named("format-snapshot-body", msgpack.unpackb(body))
        return snapshot | self.named("format-snapshot-head", snapshot["head"])

    def named(self, label: str, items: list[Any]) -> dict[str, Any]:
        rows = self.page.rows(label)
        assert [row[0] for row in rows] == [*map(str, range(len(items)))]
        return dict(zip((row[1] for row in rows), items, strict=True))

    def read_segment(self, number: int, salt: bytes, sealed: list[int] | None) -> list[list[int]]:
        """Check it; where each of its frames ends."""
        data = (self.path / f"log.{number:08}").read_bytes()
        header = self.page.unpack("format-segment-header", data)
        offset = self.page.size("format-segment-header")
        assert header["checksum"] == crc32(data[: offset - 4])
        assert (header["store_id"], header["number"], header["salt"]) == (self.snapshot["store_id"], number, salt)
        chain, sequence, let_go = header["checksum"], 0, False
        end = len(data) if sealed is None else sealed[0]
        ends: list[list[int]] = []
        while any(data[offset:end]):
            frame, payload = self.read_frame(data, offset, salt)
            assert frame["chain"] == chain
            assert frame["synced"] <= offset
            assert not let_go, "only the last mark says that the writer has let go"
            assert frame["epoch"] <= self.snapshot["epoch"]
            offset += self.page.size("format-frame-header") + len(payload)
            chain = frame["checksum"]
            if frame["kind"] == b"trxM":
                assert (payload, frame["record_count"]) == (b"", 0)
                assert frame["flags"] in (0, 2)
                let_go = frame["flags"] == 2
                ends.append([offset, chain, sequence])
                assert sequence <= frame["first_sequence"] <= max(sequence, self.snapshot["sequence"])
                continue
            assert frame["first_sequence"] > sequence
            assert frame["flags"] in (0, 1)
            sequence = self.read_records(frame, payload)
            ends.append([offset, chain, sequence])
        if sealed is not None:
            assert sealed == [offset, chain, sequence] and not let_go
        return ends

    def read_frame(self, data: bytes, offset: int, salt: bytes) -> tuple[dict[str, Any], bytes]:
        frame = self.page.unpack("format-frame-header", data, offset)
        assert f"``{frame['kind'].decode()}``" in [row[0] for row in self.page.rows("format-kinds")]
        size = self.page.size("format-frame-header")
        covered, _ = self.page.layout("format-frame-covered")
        assert frame["checksum"] == crc32(covered.pack(salt, offset, data[offset : offset + size - 4]))
        payload = data[offset + size : offset + size + frame["payload_bytes"]]
        assert frame["payload_checksum"] == crc32(payload)
        self.kinds.append(frame["kind"])
        self.flags.add(frame["flags"])
        return frame, payload

    def read_records(self, frame: dict[str, Any], payload: bytes) -> int:
        count = frame["record_count"]
        sequences = [*range(frame["first_sequence"], frame["first_sequence"] + count)]
        if frame["flags"] & 1:
            sequences = [*struct.unpack_from(f"<{count}Q", payload)]
            assert sequences == sorted(set(sequences)) and sequences[0] == frame["first_sequence"]
            payload = payload[8 * count :]
        if frame["kind"] == b"trxJ":
            lines = payload.decode().splitlines()
            for sequence, line in zip(sequences, lines, strict=True):
                members = json.loads(line)
                assert line == json.dumps(members, ensure_ascii=False)
                for name, entry in members.items():
                    self.entries.setdefault(name, []).append((sequence, entry))
        while frame["kind"] == b"trxR" and payload:
            payload = self.read_section(payload, sequences)
        return sequences[-1]

    def read_section(self, payload: bytes, sequences: list[int]) -> bytes:
        section = self.page.unpack("format-section-header", payload)
        count = section["entry_count"]
        rest = payload[self.page.size("format-section-header") :]
        name, rest = rest[: section["name_bytes"]].decode(), rest[section["name_bytes"] :]
        if not section["flags"] & 1:
            sequences = [sequences[index] for index in struct.unpack_from(f"<{count}I", rest)]
            rest = rest[4 * count :]
        lengths, rest = struct.unpack_from(f"<{count}I", rest), rest[4 * count :]
        assert sum(lengths) == section["data_bytes"] and len(sequences) == count
        for sequence, length in zip(sequences, lengths, strict=True):
            self.entries.setdefault(name, []).append((sequence, rest[:length]))
            rest = rest[length:]
        return rest

    def read_value(self, value: Any) -> tuple[bytes, list[bytes]]:
        """The head of a stored value, and its buffers."""
        if isinstance(value, bytes):
            return value, []
        *own, bases = value if len(value) == 4 else [*value, []]
        files = [self.read_sealed(*one) for one in (own, *bases)]
        data, fields = files[0]
        numbers = [number for number, *_ in (*bases, own)]
        assert numbers == sorted({*numbers}) and len(bases) <= 16
        head, index = (
            data[fields[f"{part}_offset"] : fields[f"{part}_offset"] + fields[f"{part}_bytes"]]
            for part in ("head", "index")
        )
        assert (crc32(head), crc32(index)) == (fields["head_checksum"], fields["index_checksum"])
        buffers = []
        end = self.page.size("format-blob-header")
        for place, length, checksums in msgpack.unpackb(index):
            runs = place if isinstance(place, list) else [[len(checksums) // 4, 0, place]]
            buffers.append(b"")
            for count, file, offset in runs:
                size = min(count * 2**20, length - len(buffers[-1]))
                buffers[-1] += files[file][0][offset : offset + size]
                if file == 0:
                    assert offset in (end, end + -end % (64 if length < 2**20 else 2**16))
                    end = offset + size
            self.runs.append([*runs])
            chunks = [buffers[-1][start : start + 2**20] for start in range(0, length, 2**20)]
            assert checksums == struct.pack(f"<{len(chunks)}I", *map(crc32, chunks))
        assert fields["head_offset"] == end
        return head, buffers

    def read_sealed(self, number: int, nbytes: int, seal: int) -> tuple[bytes, dict[str, Any]]:
        """A file of a blob, and its footer."""
        data = (self.path / "blobs" / f"{number:08}").read_bytes()
        header_bytes, footer_bytes = self.page.size("format-blob-header"), self.page.size("format-blob-footer")
        header, footer = self.page.unpack("format-blob-header", data), data[-footer_bytes:]
        assert (header["store_id"], header["number"], len(data)) == (self.snapshot["store_id"], number, nbytes)
        fields = self.page.unpack("format-blob-footer", footer)
        assert seal == fields["checksum"] == crc32(data[:header_bytes] + footer[:-4])
        return data, fields


@pytest.fixture(scope="module")
def page() -> Page:
    return Page()


def decoded(entries: list[tuple[int, bytes]]) -> list[tuple[int, Any]]:
    return [(sequence, msgpack.unpackb(entry)) for sequence, entry in entries]


def test_the_page_decodes_a_store(page: Page, tmp_path: Path) -> None:
    large, text = bytes(range(256)) * 8192, "text" * 5000
    with trax.Trax(tmp_path / "store", keep=2) as store:
        store.checkpoint({"count": 0, "large": {"data": large, "more": large[:20000]}, "text": text, "gone": 1})
        logged = [(store.log({"count": n, **({"sometimes": [n]} if n % 3 == 0 else {})}), n) for n in range(300)]
        with store.batch() as batch:
            for n in range(300):
                batch.log({"count": n, **({"ß": str(n)} if n % 3 == 0 else {})})
        store.delete("gone")
        store.checkpoint(text=text[:10])
        store.log(count=-1)
        reader = StoreReader(page, tmp_path / "store")  # the writer is alive: room was made ahead
        expected = {name: [*store.entries(name)] for name in ("count", "sometimes", "ß")}
    assert {name: decoded(entries) for name, entries in reader.entries.items()} == expected
    assert expected["count"][:300] == logged
    names = reader.snapshot["names"]
    assert reader.read_value(names["count"][2]) == (msgpack.packb(0), [])
    head, buffers = reader.read_value(names["large"][2])
    assert buffers == [large, large[:20000]]
    blob = {place: msgpack.ExtType(49, msgpack.packb(msgpack.ExtType(50, msgpack.packb(place)))) for place in (0, 1)}
    assert head == msgpack.packb({"data": blob[0], "more": blob[1]})
    ((generation, *_),) = reader.snapshot["kept"]
    kept = reader.read_snapshot(tmp_path / "store" / "kept" / f"{generation:08}")
    assert reader.read_value(kept["names"]["text"][2]) == (msgpack.packb(text), [])
    assert reader.snapshot["keep"] == 2 and reader.snapshot["codec"] == "msgpack"
    closed = StoreReader(page, tmp_path / "store")
    assert closed.entries == reader.entries and closed.kinds[-1] == b"trxM"
    assert 2 in closed.flags - reader.flags, "close() lets go of the store, and nothing before it does"
    assert reader.snapshot["last_segment"] == max(number for number, *_ in reader.snapshot["segments"])
    blobs = [int(path.name) for path in (tmp_path / "store" / "blobs").iterdir()]
    assert 0 < max(blobs) <= reader.snapshot["last_blob"]


def test_the_page_decodes_a_differential_checkpoint(page: Page, tmp_path: Path) -> None:
    mebibyte = 1 << 20
    parts = [bytes([number]) * mebibyte for number in range(6)]
    with trax.Trax(tmp_path / "store", differential=True) as store:
        for changed in (None, 2, 5, 4):
            if changed is not None:
                parts[changed] = bytes([100 + changed]) * mebibyte
            store.checkpoint(large=[b"".join(parts) + b"end", bytes(20_000)])
    reader = StoreReader(page, tmp_path / "store")
    stored = reader.snapshot["names"]["large"][2]
    assert len(stored) == 4 and [base[0] for base in stored[3]] == [1, 2, 3]
    assert reader.read_value(stored)[1] == [b"".join(parts) + b"end", bytes(20_000)]
    assert [run[:2] for run in reader.runs[-2]] == [[2, 1], [1, 2], [1, 1], [1, 0], [1, 3], [1, 1]]
    assert [run[:2] for run in reader.runs[-1]] == [[1, 1]]


def test_a_new_store_begins_as_the_page_says(page: Page, tmp_path: Path) -> None:
    class Interrupted(LocalFileSystem):
        def rename(self, source: str, target: str) -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trax.Trax(tmp_path / "store", fs=Interrupted())
    data = (tmp_path / "store" / "log.00000001").read_bytes()
    header = page.unpack("format-segment-header", data)
    mark = page.unpack("format-frame-header", data, 48)
    assert (len(data), header["number"], mark["kind"], mark["chain"]) == (96, 1, b"trxM", header["checksum"])
    assert (mark["flags"], mark["epoch"], mark["first_sequence"], mark["synced"]) == (2, 0, 0, 48)
    assert "in bytes 48 to 95" in page.text
    with trax.Trax(tmp_path / "store") as store:  # the next creation replaces it
        store.log(x=1)
    (tmp_path / "store" / "snapshot").unlink()
    with pytest.raises(trax.errors.MissingFileError):
        trax.Trax(tmp_path / "store")


@pytest.mark.parametrize("codec", ["msgpack", "json"])
def test_the_page_decodes_copied_survivors(page: Page, tmp_path: Path, codec: str) -> None:
    with trax.Trax(tmp_path / "store", sync="os", codec=codec) as store:
        for n in range(80):
            store.log(pinned=n, count=n) if n % 2 else store.log(count=n)
            store.checkpoint(count=n)
        expected = [*store.entries("pinned")]
    reader = StoreReader(page, tmp_path / "store")
    assert 1 in reader.flags, "nothing was copied"
    found = reader.entries["pinned"]
    assert (decoded(found) if codec == "msgpack" else found) == expected
    assert set(reader.kinds) - {b"trxM"} == {b"trxR" if codec == "msgpack" else b"trxJ"}


def test_the_page_decodes_json_lines(page: Page, tmp_path: Path) -> None:
    with trax.Trax(tmp_path / "store", codec="json") as store:
        store.checkpoint(x=(1, 2))
        store.log(
            x={
                1,
            },
            y=float("inf"),
        )
        store.log({"ü": b"\0", "x": 2**3000})
        store.log(x={1: None})
    reader = StoreReader(page, tmp_path / "store")
    assert reader.read_value(reader.snapshot["names"]["x"][2])[0] == b'{"$tuple": [1, 2]}'
    assert reader.entries == {
        "x": [(2, {"$set": [1]}), (3, {"$int": hex(2**3000)}), (4, {"$dict": [[1, None]]})],
        "y": [(2, {"$float": "7ff0000000000000"})],
        "ü": [(3, {"$bytes": "AA=="})],
    }


def test_the_page_and_the_code_have_the_same_extensions(page: Page) -> None:
    pytest.importorskip("numpy")
    from trax.codecs import json as json_codec
    from trax.codecs import table

    assert table.by_code(64) is not None
    known = {(row.code, row.tag) for row in table._by_code.values()}
    known |= {(table.REGISTERED_CODE, table.REGISTERED_TAG), (table.BUFFER_CODE, table.BUFFER_TAG)}
    assert {(int(row[0]), row[1]) for row in page.rows("format-extensions")} == known
    assert {row[0].strip("`") for row in page.rows("format-json-tags")} == set(json_codec._NOTATIONS)


def test_the_limits_on_the_page_are_those_of_the_code(page: Page) -> None:
    from trax import encoding, names
    from trax.codecs import limits
    from trax.storage.local import blob, directory, segment

    assert names.MAX_NAME_BYTES == 255 and names.RESERVED_PREFIX == "trax:"
    assert limits.MAX_ENTRY_BYTES == encoding.MAX_COMMIT_BYTES == 2**30 and limits.MAX_DEPTH == 100
    assert (limits.OUT_OF_BAND_BYTES, directory.INLINE_BYTES) == (16384, 4096)
    assert (blob.CHUNK_BYTES, blob._ALIGNMENT_BYTES, blob.MAX_BASES) == (2**20, 64, 16)
    assert (blob._LARGE_BYTES, blob._LARGE_ALIGNMENT_BYTES) == (1_048_576, 65_536)
    assert (segment.FRAME_RECORDS, segment.FRAME_BYTES) == (128, 64 * 1024)
    for text in (
        "1 to 255 bytes",
        "at least 16,384",
        "at most 4096 bytes",
        "1,048,576 bytes",
        "1 to 16 earlier files",
        "multiple of 64,",
        "multiple of 65,536",
        "128\nrecords",
    ):
        assert text in page.text


def hexdump(page: Page, label: str) -> bytes:
    block = page.text[page.text.index(f".. _{label}:") :]
    lines = re.findall(r"^    ([0-9a-f]{8})  ((?:[0-9a-f]{2} ?)+)$", block[: block.index("==========")], re.MULTILINE)
    data = b""
    for offset, text in lines:
        assert int(offset, 16) == len(data)
        data += bytes.fromhex(text)
    return data


def test_the_store_that_the_page_shows_is_one(page: Page, tmp_path: Path) -> None:
    for name in ("blobs", "kept"):
        (tmp_path / name).mkdir()
    (tmp_path / "snapshot").write_bytes(hexdump(page, "format-example-snapshot"))
    (tmp_path / "log.00000001").write_bytes(hexdump(page, "format-example-segment"))
    assert {name: decoded(found) for name, found in StoreReader(page, tmp_path).entries.items()} == {
        "n": [(2, 2), (3, 3)],
        "m": [(3, "x")],
    }
    with trax.Trax(tmp_path, mode="r") as store:
        assert store.verify().problems == []
        assert store.recover("n", replay_log=lambda state, entry: [state, entry]) == [[1, 2], 3]
        assert [*store.entries("m")] == [(3, "x")]
    with trax.Trax(tmp_path) as store:
        assert store.recover("n") == 3


def test_the_program_on_the_page_still_makes_such_a_store(page: Page, tmp_path: Path) -> None:
    with trax.Trax(tmp_path) as store:
        assert (store.checkpoint(n=1), store.log(n=2), store.log(n=3, m="x")) == (1, 2, 3)
    shown = tmp_path / "shown"
    shown.mkdir()
    for label, name in (("format-example-snapshot", "snapshot"), ("format-example-segment", "log.00000001")):
        (shown / name).write_bytes(hexdump(page, label))
        assert (shown / name).stat().st_size == (tmp_path / name).stat().st_size
    old, new = StoreReader(page, shown), StoreReader(page, tmp_path)
    assert (old.entries, old.kinds, old.snapshot["names"]) == (new.entries, new.kinds, new.snapshot["names"])
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "blobs",
        "kept",
        "lock",
        "log.00000001",
        "shown",
        "snapshot",
    ]


def test_the_decoded_bytes_of_the_page_are_those_of_its_dump(page: Page) -> None:
    for label in ("format-example-snapshot", "format-example-segment"):
        data = hexdump(page, label)
        rows = [(row[0], row[1]) for row in page.rows(label)]
        assert len(rows) > 10
        place = 0
        for offset, text in rows:
            assert int(offset, 16) == place, f"{label}: the row before {offset} is of another length"
            shown = " ".join(re.findall(r"``([^`]+)``", text))
            if "…" in shown:
                first, last = (bytes.fromhex(part) for part in shown.split("…"))
                following = [int(other, 16) for other, _ in rows if int(other, 16) > place]
                end = following[0] if following else len(data)
                assert data[place : place + len(first)] == first and data[place:end].endswith(last), (
                    f"{label}: {offset}"
                )
                place = end
            else:
                assert data[place:].startswith(bytes.fromhex(shown)), f"{label}: {offset}"
                place += len(bytes.fromhex(shown))
        assert place == len(data)


# The whole, as Sphinx sees it


@pytest.mark.slow
def test_sphinx_builds_it_without_a_warning(tmp_path: Path) -> None:
    pytest.importorskip("sphinx", reason="Sphinx is not installed: make docs installs it")
    source = tmp_path / "docs"
    shutil.copytree(DOCS, source, ignore=shutil.ignore_patterns("_build"))
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "-n", "-b", "html", str(source), str(tmp_path / "html")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
