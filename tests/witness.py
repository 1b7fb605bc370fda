"""A second reader, which knows nothing of ``trax``: what ``docs/format.rst`` says that a store is.

It is given the files of a store, whatever has happened to them, and says what each name must be recovered to, or that
the store is damaged. Values are lists, to which each entry is appended, of what msgpack and JSON hold by themselves and
of large ``bytes``.
"""

from __future__ import annotations

import base64
import json
import re
import struct
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, NamedTuple
from zlib import crc32

import msgpack

Files = Mapping[str, bytes]
State = dict[str, Any]

CHUNK_BYTES = 2**20
_KINDS = (b"trxR", b"trxJ", b"trxM")


class DamagedError(Exception):
    """These bytes are nothing that a crash leaves."""


class Log(NamedTuple):
    """What stands in a segment. ``ends`` are ``(offset, chain, sequence)`` behind its header and each whole frame."""

    records: tuple[tuple[int, str, bytes], ...]
    ends: tuple[tuple[int, int, int], ...]
    torn: bool
    marks: int
    synced: int
    epoch: int
    published: int


class Witness:
    """What the files say. Constructing it raises DamagedError where an opening must be refused.

    ``writing``: whether the opening is one for writing, which looks for signs of a later snapshot.
    """

    def __init__(self, files: Files, *, writing: bool = True) -> None:
        self._files = files
        self._snapshot = _snapshot(_file(files, "snapshot"))
        self._id, self._codec, *_ = self._snapshot[0]
        if writing:
            self._look_for_a_later_one()
        self._kept = [self._load_kept(*kept) for kept in self._snapshot[2]]
        self._records: list[tuple[int, str, bytes]] = []
        self.torn = False
        sequence = 0
        for number, salt, sealed, *proven in self._snapshot[1]:
            log = self._segment(number, salt, None if sealed is None else tuple(sealed), sequence)
            if proven and tuple(proven[0]) not in log.ends:
                raise DamagedError("an active segment that is shorter than it was")
            self._records += log.records
            sequence = log.ends[-1][2]
            if sealed is None:
                self.torn = log.torn
                if writing and (log.epoch > self._snapshot[0][4] or log.published > self._snapshot[0][5]):
                    raise DamagedError("the log is newer than the snapshot")

    @property
    def sequences(self) -> list[int]:
        """Those of the snapshots, oldest first."""
        return [snapshot[0][5] for snapshot in [*self._kept, self._snapshot]]

    def state(self, at: int | None = None) -> State:
        """What each name is recovered to; DamagedError, not raised, for one whose value is."""
        snapshot = self._snapshot
        if at is not None and snapshot[0][5] > at:
            snapshot = [kept for kept in self._kept if kept[0][5] <= at][-1]
        state: State = {}
        for name, (cut, _, value) in snapshot[3].items():
            if value is None:
                continue
            try:
                state[name] = self._value(value)
            except DamagedError as error:
                state[name] = error
                continue
            for sequence, other, entry in self._records:
                if other == name and cut < sequence and (at is None or sequence <= at):
                    state[name] = [*state[name], _decode(self._codec, entry, [])]
        return state

    def _load_kept(self, generation: int, sequence: int, created: float) -> Any:
        kept = _snapshot(_file(self._files, f"kept/{generation:08}"))
        if (kept[0][0], kept[0][3]) != (self._id, generation):
            raise DamagedError("another snapshot than the one that was kept")
        return kept

    def _segment(self, number: int, salt: bytes, sealed: tuple[int, int, int] | None, before: int) -> Log:
        data = _file(self._files, f"log.{number:08}")
        if data[12:44] != self._id + struct.pack("<Q", number) + salt:
            raise DamagedError("a segment that belongs elsewhere")
        log = walk(data[: sealed[0]] if sealed else data, before)
        if sealed is not None and (log.torn or log.ends[-1] != sealed):
            raise DamagedError("a sealed segment that ends elsewhere")
        return log

    def _look_for_a_later_one(self) -> None:
        named = [segment[0] for segment in self._snapshot[1]]
        for name, data in self._files.items():
            if name.startswith("kept/") and int(name[5:]) > self._snapshot[0][3]:
                raise DamagedError("a kept snapshot is newer")
            if not re.fullmatch(r"log\.\d{8}", name) or int(name[4:]) in named or int(name[4:]) < named[-1]:
                continue
            try:
                log = walk(data, 0, judge=False)
            except DamagedError:
                continue
            if data[12:28] == self._id and (log.marks or log.synced > 48):
                raise DamagedError("a segment was in use that is not named")

    def _value(self, value: Any) -> Any:
        if isinstance(value, bytes):
            return _decode(self._codec, value, [])
        *own, bases = value if len(value) > 3 else [*value, []]
        files = [(_file(self._files, f"blobs/{number:08}"), number, size, seal) for number, size, seal in [own, *bases]]
        return _blob(tuple(files), self._id, self._codec)


def _file(files: Files, name: str) -> bytes:
    if name not in files:
        raise DamagedError(f"{name} is gone")
    return files[name]


@lru_cache(maxsize=64)
def _snapshot(data: bytes) -> Any:
    if len(data) < 32 or data[:8] != b"traxsnap" or crc32(data[:28]) != _u32(data, 28):
        raise DamagedError("a snapshot's header")
    nbytes, checksum = struct.unpack_from("<QI", data, 16)
    if data[8:10] != b"\1\0" or nbytes != len(data) - 32 or crc32(data[32:]) != checksum:
        raise DamagedError("a snapshot's body")
    return msgpack.unpackb(data[32:])


@lru_cache(maxsize=64)
def walk(data: bytes, before: int, *, judge: bool = True) -> Log:
    """The frames of a segment, up to the end of ``data``."""
    if len(data) < 48 or data[:8] != b"traxlog\n" or crc32(data[:44]) != _u32(data, 44):
        raise DamagedError("a segment's header")
    salt = data[36:44]
    offset, chain, sequence = 48, _u32(data, 44), before
    records: list[tuple[int, str, bytes]] = []
    ends = [(offset, chain, sequence)]
    marks = proven = latest = published = 0
    while True:
        frame = _frame(data, offset, salt)
        if frame is None:
            break
        kind, flags, _, count, nbytes, first, synced, chained, epoch, checksum, own = frame
        payload = data[offset + 48 : offset + 48 + nbytes]
        if chained != chain or len(payload) != nbytes or crc32(payload) != checksum:
            break
        if kind != b"trxM" and first <= sequence:
            break
        assert kind in _KINDS, "no damage makes a kind"
        proven, latest = max(proven, synced), max(latest, epoch)
        if kind == b"trxM":
            marks += 1
            published = max(published, first if first > sequence else 0)
        else:
            own_records = _records(kind, flags, count, first, payload)
            records += own_records
            sequence = max((one[0] for one in own_records), default=first + count - 1)
        offset, chain = offset + 48 + nbytes, own
        ends.append((offset, chain, sequence))
    torn = any(data[offset:])
    if torn and judge:
        claims = (_frame(data, at, salt) for at in _places(data, offset + 1))
        if any(claim is not None and claim[6] > offset for claim in claims):
            raise DamagedError("a place that had been on stable storage")
    return Log(tuple(records), tuple(ends), torn, marks, proven, latest, published)


def _places(data: bytes, start: int) -> list[int]:
    return [match.start() for match in re.compile(b"trx").finditer(data, start)]


def _frame(data: bytes, offset: int, salt: bytes) -> tuple[Any, ...] | None:
    """The fields of a whole header, and its checksum."""
    if len(data) < offset + 48:
        return None
    checksum = _u32(data, offset + 44)
    if crc32(salt + struct.pack("<Q", offset) + data[offset : offset + 44]) != checksum:
        return None
    return (*struct.unpack_from("<4sB3sIIQQIII", data, offset), checksum)


def _records(kind: bytes, flags: int, count: int, first: int, payload: bytes) -> list[tuple[int, str, bytes]]:
    sequences = list(range(first, first + count))
    if flags & 1:
        sequences = list(struct.unpack_from(f"<{count}Q", payload))
        payload = payload[8 * count :]
    found: list[tuple[int, str, bytes]] = []
    if kind == b"trxJ":
        for sequence, line in zip(sequences, payload.decode().splitlines(), strict=True):
            found += [(sequence, name, json.dumps(entry).encode()) for name, entry in json.loads(line).items()]
        return found
    at = 0
    while at < len(payload):
        name_bytes, everywhere, entries, _ = struct.unpack_from("<BB2xII", payload, at)
        at += 12
        name = payload[at : at + name_bytes].decode()
        at += name_bytes
        indices = list(range(entries))
        if not everywhere & 1:
            indices = list(struct.unpack_from(f"<{entries}I", payload, at))
            at += 4 * entries
        lengths = struct.unpack_from(f"<{entries}I", payload, at)
        at += 4 * entries
        for index, length in zip(indices, lengths, strict=True):
            found.append((sequences[index], name, payload[at : at + length]))
            at += length
    return sorted(found, key=lambda one: one[0])


@lru_cache(maxsize=64)
def _blob(files: tuple[tuple[bytes, int, int, int], ...], store_id: bytes, codec: str) -> Any:
    for data, number, nbytes, seal in files:
        if len(data) != nbytes or crc32(data[-48:-4], crc32(data[:64])) != seal:
            raise DamagedError("a blob's length or seal")
        if data[:10] != b"traxblob\1\0" or data[16:40] != store_id + struct.pack("<Q", number):
            raise DamagedError("another blob")
    data = files[0][0]
    at, size, head_checksum, index_at, index_size, index_checksum = struct.unpack_from("<QQIQQI", data, len(data) - 48)
    head, index = data[at : at + size], data[index_at : index_at + index_size]
    if crc32(head) != head_checksum or crc32(index) != index_checksum:
        raise DamagedError("a blob's head or index")
    buffers = []
    for place, length, checksums in msgpack.unpackb(index):
        runs = place if isinstance(place, list) else [[len(checksums) // 4, 0, place]]
        parts = [files[file][0][start : start + count * CHUNK_BYTES] for count, file, start in runs]
        buffer = b"".join(parts)[:length]
        if [crc32(buffer[part : part + CHUNK_BYTES]) for part in range(0, length, CHUNK_BYTES)] != list(
            struct.unpack(f"<{len(checksums) // 4}I", checksums)
        ):
            raise DamagedError("a blob's buffer")
        buffers.append(buffer)
    return _decode(codec, head, buffers)


def _decode(codec: str, data: bytes, buffers: list[bytes]) -> Any:
    if codec == "json":
        return json.loads(data, object_hook=lambda found: _tagged(found, buffers))

    def extension(code: int, inner: bytes) -> Any:
        value = msgpack.unpackb(inner, ext_hook=extension)
        return buffers[value] if code == 50 else value  # 49, a blob, is its buffer

    return msgpack.unpackb(data, ext_hook=extension)


def _tagged(found: dict[str, Any], buffers: list[bytes]) -> Any:
    (tag, plain), *others = found.items()
    assert not others and tag in ("$bytes", "$blob", "$buffer")
    return base64.b64decode(plain) if tag == "$bytes" else buffers[plain] if tag == "$buffer" else plain


def _u32(data: bytes, offset: int) -> int:
    return int(struct.unpack_from("<I", data, offset)[0])
