"""What a hostile author writes: values, records and stores whose checksums are right and whose contents are not.

Everything begins with something real, whose parts are then taken away, doubled, exchanged, and replaced by what may
hurt: huge and negative numbers, lengths that lie, names that look like paths, values of other types. All choices come
from one ``random.Random``, which may be Hypothesis's.
"""

from __future__ import annotations

import copy
import json
import os
import random
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgpack

from tests import reseal

INTEGERS = [
    *(0, 1, 2, 3, 5, 7, 8, 15, 16, 31, 47, 48, 49, 63, 64, 65, 96, 127, 128, 200, 255, 256, 1000, 4096, 16384),
    *(2**16 - 1, 2**16, 2**20, 2**24, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**40, 2**53),
    *(2**63 - 1, 2**63, 2**64 - 2, 2**64 - 1, 2**64, 2**100, -1, -2, -48, -(2**31), -(2**63)),
]
TEXTS = [
    *("", "a", "b", "log.00000001", "../../etc/passwd", "/etc/passwd", "..", "\0", "x" * 300, "trax:", "$", "\ud800"),
    *("msgpack", "json", "pickle", "os.system", "C", "F", "array", "struct", "list", "int", "PosixPath", "Europe"),
    *("UTC", "Europe/Berlin", "../UTC", "x" * 5000, "2026-01-01", "NaN", "1E+999999999", "-0x1f", "9" * 5000),
    *("PCG64", "MT19937", "Philox", "SFC64", "PCG64DXSM", "tests.Particle", "00000000-0000-0000-0000-000000000001"),
]
DTYPES = [
    *(
        "<f8",
        "|V0",
        "|S0",
        "<U0",
        "<U99999999",
        "|S2147483647",
        "|V1000000000",
        "<M8[25s]",
        "<m8",
        "<M8[D]",
        "|O",
        "O8",
    ),
    *("<c16", "|b1", ">i2", "<f16", "<f3", "|V4", "<M8[0s]", "<M8[99999999999s]", "<c1", "f8,O", "<L", "|u1"),
]
FLOATS = [0.0, -0.0, 1.5, 1e300, float("inf"), float("-inf"), float("nan"), 2.0**63]


class Pairs(list[Any]):
    """A map, as a list of ``[key, value]``."""


class Tagged(list[Any]):
    """An extension of msgpack: ``[code, value]``."""


class Lying(list[Any]):
    """``[length, value]``: a value whose header says another length."""


class Deep(list[Any]):
    """``[levels, value]``: a value inside so many lists."""


class Raw(bytes):
    """Bytes that stand for themselves."""


def some_bytes(dice: random.Random, most: int = 40) -> bytes:
    return random.Random(dice.getrandbits(32)).randbytes(dice.randrange(most))


def leaf(dice: random.Random) -> Any:
    kind = dice.randrange(10)
    if kind < 3:
        return dice.choice(INTEGERS)
    if kind < 5:
        return dice.choice(TEXTS)
    if kind == 5:
        return dice.choice(DTYPES)
    if kind == 6:
        return dice.choice(FLOATS)
    if kind == 7:
        return some_bytes(dice)
    return dice.choice([None, True, False, [], Pairs(), [[]], [0], [-1, -1], [2**62, 4], [0, 2**63]])


# Trees: values as lists, which can be changed anywhere


def msgpack_tree(data: bytes) -> Any:
    def extension(code: int, inner: bytes) -> Any:
        try:
            return Tagged([code, msgpack_tree(inner)])
        except Exception:  # not of ours
            return Tagged([code, Raw(inner)])

    return msgpack.unpackb(
        data,
        ext_hook=extension,
        object_pairs_hook=lambda pairs: Pairs([list(pair) for pair in pairs]),
        strict_map_key=False,
        unicode_errors="surrogatepass",
    )


def msgpack_bytes(tree: Any) -> bytes:
    if isinstance(tree, Raw):
        return bytes(tree)
    if isinstance(tree, Lying | Deep | Tagged) and (len(tree) != 2 or not isinstance(tree[0], int)):
        tree = list(tree)  # another mutation has changed it
    if isinstance(tree, Lying):
        return _lying(tree[0], tree[1])
    if isinstance(tree, Deep):
        return b"\x91" * (tree[0] % 2000) + msgpack_bytes(tree[1])
    if isinstance(tree, Tagged):
        inner = msgpack_bytes(tree[1])
        return struct.pack(">BIB", 0xC9, len(inner), tree[0] % 256) + inner
    if isinstance(tree, list):
        pairs = isinstance(tree, Pairs) and all(isinstance(one, list) and len(one) == 2 for one in tree)
        header = _header(0xDF if pairs else 0xDD, len(tree))
        parts = [part for one in tree for part in one] if pairs else tree
        return header + b"".join(map(msgpack_bytes, parts))
    if type(tree) is int and not -(2**63) <= tree < 2**64:
        return msgpack_bytes(Tagged([5, tree.to_bytes(tree.bit_length() // 8 + 1, "little", signed=True)]))
    packed: bytes = msgpack.packb(tree, unicode_errors="surrogatepass")
    return packed


def _header(kind: int, length: int) -> bytes:
    return struct.pack(">BI", kind, length % 2**32)


def _lying(length: int, value: Any) -> bytes:
    """The value behind a header that says another length: of an array, a map, a str, bytes, or an extension."""
    if isinstance(value, Pairs):
        return _header(0xDF, length) + msgpack_bytes(value)[5:]
    if isinstance(value, str):
        return _header(0xDB, length) + value.encode("utf-8", "surrogatepass")
    if isinstance(value, bytes):
        return _header(0xC6, length) + value
    return _header(0xDD, length) + msgpack_bytes(value)


def json_tree(data: bytes) -> Any:
    return json.loads(data.decode("utf-8", "surrogatepass"), object_pairs_hook=_pairs)


def _pairs(pairs: list[tuple[str, Any]]) -> Pairs:
    return Pairs([list(pair) for pair in pairs])


def json_bytes(tree: Any) -> bytes:
    return _json_text(tree).encode("utf-8", "surrogatepass")


def _json_text(tree: Any) -> str:
    if isinstance(tree, Deep) and len(tree) == 2 and isinstance(tree[0], int):
        return "[" * (tree[0] % 2000) + _json_text(tree[1]) + "]" * (tree[0] % 2000)
    if isinstance(tree, Tagged | Lying) and len(tree) == 2:
        return _json_text(tree[1])
    if isinstance(tree, Pairs) and all(isinstance(one, list) and len(one) == 2 for one in tree):
        members = [f"{_json_key(key)}: {_json_text(value)}" for key, value in tree]
        return "{" + ", ".join(members) + "}"
    if isinstance(tree, list):
        return f"[{', '.join(map(_json_text, tree))}]"
    if isinstance(tree, bytes):
        return json.dumps({"$bytes": tree.hex()})
    if type(tree) is int and tree.bit_length() > 3000:
        return "0"
    return json.dumps(tree, ensure_ascii=False)


def _json_key(key: Any) -> str:
    return json.dumps(key if isinstance(key, str) else "key", ensure_ascii=False)


def slots(tree: list[Any]) -> list[tuple[list[Any], int]]:
    """Every place in a tree, below its root."""
    found = []
    waiting = [tree]
    while waiting:
        one = waiting.pop()
        for place, item in enumerate(one):
            found.append((one, place))
            if isinstance(item, list):
                waiting.append(item)
    return found


def mutate_tree(root: list[Any], dice: random.Random, tags: list[Any]) -> None:
    """Change what stands in a list, or lies deeper in it, at one place."""
    every = slots(root)
    if not every:
        root.append(leaf(dice))
        return
    where, place = dice.choice(every)
    old = where[place]
    kind = dice.randrange(9)
    if kind < 3 or (kind == 8 and not isinstance(old, list | str | bytes)):
        where[place] = leaf(dice)
    elif kind == 3 and len(where) > 1 and where is not root:
        del where[place]
    elif kind == 4 and where is not root:
        where.insert(place, copy.deepcopy(old))
    elif kind == 5:
        other, at = dice.choice(every)
        where[place] = copy.deepcopy(other[at])
    elif kind == 6:
        where[place] = tagged(dice.choice(tags), old)
    elif kind == 7:
        where[place] = Deep([dice.choice([1, 3, 50, 90, 99, 100, 101, 110, 250, 600, 1100]), old])
    else:
        where[place] = Lying([dice.choice(INTEGERS), old])


def tagged(tag: Any, value: Any) -> Any:
    return Tagged([tag, value]) if isinstance(tag, int) else Pairs([[f"${tag}", value]])


# Bytes


def mutate_bytes(data: bytes, dice: random.Random) -> bytes:
    """A few bytes changed, taken out, put in, or repeated; or a number put over four or eight of them."""
    changed = bytearray(data)
    for _ in range(dice.choice([1, 1, 2, 4])):
        place = dice.randrange(len(changed) + 1)
        kind = dice.randrange(6)
        if kind == 0 and changed:
            changed[place % len(changed)] = dice.randrange(256)
        elif kind == 1:
            del changed[place : place + dice.randrange(1, 20)]
        elif kind == 2:
            changed[place:place] = some_bytes(dice, 9)
        elif kind == 3:
            changed[place:place] = changed[place : place + dice.randrange(1, 30)]
        else:
            width = dice.choice([1, 2, 4, 8])
            number = dice.choice(INTEGERS) % 256**width
            changed[place : place + width] = number.to_bytes(width, dice.choice(["little", "big"]))
    return bytes(changed)


# Stores


class Hostile:
    """A store that is being changed. ``done`` says what was done, ``traps`` what is done to the directory at last."""

    def __init__(self, store: reseal.Store, dice: random.Random, codec: str, values: list[bytes], tags: list[Any]):
        self.store, self.dice, self.codec, self.values, self.tags = store, dice, codec, values, tags
        self.done: list[str] = []
        self.changes: list[Callable[[reseal.Body], None]] = []
        self.names: dict[str, str] = {}
        self.traps: list[Callable[[Path], None]] = []

    def mutate(self) -> None:
        kinds = [
            *[self.snapshot_body] * 4,
            *[self.frame_field] * 4,
            *[self.frame_payload] * 3,
            *(self.snapshot_header, self.kept_body, self.frames_order, self.segment_header, self.explicit_frame),
            *[self.blob_part] * 3,
            *(self.inline_value, self.entry, self.rename_file, self.owner_file, self.trap),
        ]
        kind = self.dice.choice(kinds)
        self.done.append(kind.__name__)
        kind()

    def write(self, path: Path) -> None:
        def change(body: reseal.Body) -> None:
            for one in self.changes:
                one(body)

        files = self.store.files(change)
        for name in ("blobs", "kept"):
            (path / name).mkdir(parents=True, exist_ok=True)
        for name, data in files.items():
            (path / self.names.get(name, name)).write_bytes(data)
        for trap in self.traps:
            try:
                trap(path)
            except FileNotFoundError:
                pass  # another mutation has taken the file away

    # What the snapshot says

    def snapshot_body(self) -> None:
        self._mutate_body(self.store.snapshot)

    def kept_body(self) -> None:
        if self.store.kept:
            self._mutate_body(self.dice.choice(list(self.store.kept.values())))

    def _mutate_body(self, snapshot: reseal.Snapshot) -> None:
        """Now, so that what follows is made to fit; or when everything else is written."""
        dice = self.dice

        def mutate(body: reseal.Body) -> None:
            tree = msgpack_tree(msgpack.packb(body))
            for _ in range(dice.choice([1, 1, 2])):
                mutate_tree(tree, dice, [1, 5, 49, 64])
            snapshot.header["body"] = msgpack_bytes(tree)

        if snapshot is self.store.snapshot:
            self.changes.append(mutate)
        else:
            mutate(snapshot.body)

    def snapshot_header(self) -> None:
        header = self.store.snapshot.header
        kind = self.dice.randrange(4)
        if kind == 0:
            header["body_bytes"] = self.dice.choice(INTEGERS) % 2**64
        elif kind == 1:
            header["version"] = self.dice.choice(INTEGERS) % 2**16
        elif kind == 2:
            header["reserved"] = self.dice.choice(INTEGERS) % 2**16
        else:
            header["body"] = mutate_bytes(msgpack.packb(self.store.snapshot.body), self.dice)

    def inline_value(self) -> None:
        names = self.store.snapshot.body[3]
        inline = [stored for stored in names.values() if isinstance(stored[2], bytes)]
        if inline:
            self.dice.choice(inline)[2] = self.dice.choice(self.values)

    # The log

    def _segment(self) -> reseal.Segment:
        return self.dice.choice(list(self.store.segments.values()))

    def _frame(self) -> reseal.Frame | None:
        frames = [frame for segment in self.store.segments.values() for frame in segment.frames]
        return self.dice.choice(frames) if frames else None

    def segment_header(self) -> None:
        segment = self._segment()
        field = self.dice.choice(["version", "number", "store_id", "salt", "rest"])
        if field == "version":
            segment.version = self.dice.choice(INTEGERS) % 2**16
        elif field == "number":
            segment.number = self.dice.choice(INTEGERS) % 2**64
        elif field == "rest":
            segment.rest = self.dice.choice([b"", bytes(100), b"trxR", some_bytes(self.dice, 200)])
        else:
            setattr(segment, field, bytes(len(getattr(segment, field))))

    def frame_field(self) -> None:
        frame = self._frame()
        if frame is None:
            return
        widths = {"flags": 1, "record_count": 4, "payload_bytes": 4, "first_sequence": 8, "synced": 8, "chain": 4}
        widths |= {"epoch": 4, "payload_checksum": 4, "kind": 4}
        field = self.dice.choice(list(widths))
        number = self.dice.choice(INTEGERS) % 256 ** widths[field]
        if field == "kind":
            frame.kind = self.dice.choice([b"trxR", b"trxJ", b"trxM", b"trxZ", bytes(4)])
        elif field == "flags":
            frame.flags ^= 1 << self.dice.randrange(8)
        else:
            setattr(frame, field, number)

    def frame_payload(self) -> None:
        frame = self._frame()
        if frame is not None:
            frame.payload = mutate_bytes(frame.payload, self.dice)

    def explicit_frame(self) -> None:
        """A frame that says the sequence of each record, in whatever order."""
        frame = self._frame()
        if frame is not None and frame.record_count < 1000:
            frame.flags |= 1
            sequences = [self.dice.choice(INTEGERS) % 2**64 for _ in range(frame.record_count)]
            if self.dice.random() < 0.5:
                sequences.sort()
            frame.payload = struct.pack(f"<{len(sequences)}Q", *sequences) + frame.payload

    def entry(self) -> None:
        """A record whose entry is hostile, in a frame that is laid out as it should be."""
        frame = self._frame()
        if frame is None or frame.kind == b"trxM":
            return
        name, value = (
            self.dice.choice([b"a", b"list", b"often", b"x" * 255, b"\xff", b""]),
            self.dice.choice(self.values),
        )
        frame.record_count, frame.flags = 1, 0
        if self.codec == "json":
            frame.kind, frame.payload = b"trxJ", b'{"' + name + b'": ' + value.replace(b"\n", b" ") + b"}\n"
        else:
            section = struct.pack("<BB2xII", len(name), 1, 1, len(value)) + name + struct.pack("<I", len(value))
            frame.kind, frame.payload = b"trxR", section + value

    def frames_order(self) -> None:
        segment = self._segment()
        if not segment.frames:
            return
        place = self.dice.randrange(len(segment.frames))
        kind = self.dice.randrange(4)
        if kind == 0:
            del segment.frames[place]
        elif kind == 1:
            segment.frames.insert(place, copy.copy(segment.frames[place]))
        elif kind == 2:
            other = self._frame()
            assert other is not None
            segment.frames.insert(place, copy.copy(other))
        else:
            segment.frames[place:] = segment.frames[place:][::-1]

    # Blobs

    def blob_part(self) -> None:
        if not self.store.blobs:
            return
        blob = self.dice.choice(list(self.store.blobs.values()))
        kind = self.dice.randrange(7)
        if kind == 0:
            blob.version = self.dice.choice(INTEGERS) % 2**16
        elif kind == 1:
            blob.number = self.dice.choice(INTEGERS) % 2**64
        elif kind == 2:
            blob.head = self.dice.choice(self.values)
        elif kind == 3:
            blob.head = mutate_bytes(blob.head, self.dice)
        elif kind == 4:
            fields = ["head_offset", "head_bytes", "head_checksum", "index_offset", "index_bytes", "index_checksum"]
            field = self.dice.choice(fields)
            blob.footer[field] = self.dice.choice(INTEGERS) % (2**32 if field.endswith("checksum") else 2**64)
        else:
            index = blob.index if isinstance(blob.index, bytes) else msgpack.packb(blob.index)
            if kind == 5 and not isinstance(blob.index, bytes):
                tree = [msgpack_tree(index)]
                mutate_tree(tree, self.dice, [1, 5])
                blob.index = msgpack_bytes(tree[0])
            else:
                blob.index = mutate_bytes(index, self.dice)

    # Names and other files

    def rename_file(self) -> None:
        old = self.dice.choice([*self.store.segments, *self.store.blobs, *self.store.kept])
        directory = old[: old.rfind("/") + 1] + ("log." if old.startswith("log.") else "")
        number = self.dice.choice([0, 1, 2, 3, 99, 10**8, 2**63 - 1, 2**63, 2**64 - 1, 2**64, 10**19])
        names = [f"{number:08}", f"{number:020}", f"{number}", "٠٠٠٠٠٠٠٩", "00000001 ", "-0000001", "0000000²"]
        self.names[old] = directory + self.dice.choice(names)

    def owner_file(self) -> None:
        name = self.dice.choice(["lock", "owner"])
        owner: Any = Pairs([["host", "h"], ["boot", None], ["pid", 1], ["started", 5], ["job", None], ["run", 0]])
        tree = [owner]
        for _ in range(3):
            mutate_tree(tree, self.dice, ["bytes"])
        texts = [
            json_bytes(tree[0]),
            b"[" * 4096,
            b'{"pid": ' + b"9" * 4000 + b"}",
            some_bytes(self.dice),
            b'{"pid": 1e999}',
        ]
        data = self.dice.choice(texts)
        self.traps.append(lambda path: (path / name).unlink(missing_ok=True))
        self.traps.append(lambda path: _write(path / name, data))

    def trap(self) -> None:
        """Something else in the place of a file: a directory, a pipe, a device, a link that leads out of the store."""
        every = ["snapshot", "lock", "owner", "blobs", "kept", "removed", "snapshot.new.0123abcd", "log.00000099"]
        name = self.dice.choice([*every, *self.store.segments, *self.store.blobs, *self.store.kept])
        kind = self.dice.choice(["directory", "pipe", "device", "link", "dangling link", "link to itself", "outside"])
        self.traps.append(lambda path: set_trap(path, name, kind))


def _write(file: Path, data: bytes) -> None:
    file.write_bytes(data)


def set_trap(path: Path, name: str, kind: str) -> None:
    """Beside the store stands ``outside``, a directory with files that must stay as they are."""
    file, outside = path / name, path.parent / "outside"
    if file.is_dir() and not file.is_symlink():
        file.rename(path.parent / f"moved-{name.replace('/', '-')}-{os.urandom(3).hex()}")
    else:
        file.unlink(missing_ok=True)
    if kind == "directory":
        file.mkdir()
    elif kind == "pipe":
        os.mkfifo(file)
    elif kind == "device":
        file.symlink_to("/dev/zero") if os.geteuid() else os.mknod(file, 0o20666, os.makedev(1, 5))
    elif kind == "link":
        file.symlink_to(outside / "file")
    elif kind == "dangling link":
        file.symlink_to(outside / "nothing")
    elif kind == "link to itself":
        file.symlink_to(file)
    else:
        file.symlink_to(outside)
