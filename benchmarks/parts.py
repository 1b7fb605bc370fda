"""Where the time of a ``log()`` and of a replay goes: the parts of each, measured by themselves.

    python -m benchmarks.parts

Each row is the median over rounds of the processor time a record, in nanoseconds; all rows take turns in each round.
"In Python" are the rows that no library can go below without code of its own in C: a call with a keyword, a lock, the
loop around them. Files lie in memory where the system has such a directory, so that the disk has no part in it.
"""

from __future__ import annotations

import gc
import os
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import msgpack

import trax
from trax.storage.local.framing import RECORDS, encode_frame
from trax.storage.local.payload import pack_sections

RECORDS_A_TURN = 20_000
TURNS = 15
FRAME = 1024
MEMORY = "/dev/shm" if os.path.isdir("/dev/shm") else None


def parts(directory: Path, closing: ExitStack) -> dict[str, Callable[[], object]]:
    def store(name: str, buffer_bytes: int) -> trax.Trax:
        return closing.enter_context(trax.Trax(directory / name, sync="os", buffer_bytes=buffer_bytes))

    values = [{"step": step, "energy": -1.2345, "tag": "abc"} for step in range(RECORDS_A_TURN)]
    pack = msgpack.Packer().pack
    packed = [pack(value) for value in values]
    buffered, direct, replayed = store("buffered", 1 << 16), store("direct", 0), store("replayed", 1 << 16)
    replayed.checkpoint(sample=0)
    for value in values:
        replayed.log(sample=value)
    replayed.sync()
    encode, record = buffered._codec.encode, buffered._encoder.record
    lock = threading.Lock()
    frames = [[{"sample": data} for data in packed[start : start + FRAME]] for start in range(0, len(packed), FRAME)]
    fd = os.open(directory / "bare", os.O_RDWR | os.O_CREAT)
    closing.callback(os.close, fd)
    together = b"".join(packed)

    def keyword_call(log: Callable[..., object]) -> None:
        for value in values:
            log(sample=value)

    def pack_each() -> None:
        for value in values:
            pack(value)

    def encode_each() -> None:
        for value in values:
            encode(value, "sample")

    def make_records() -> None:
        for value in values:
            record(None, {"sample": value})

    def take_lock() -> None:
        for _ in values:
            with lock:
                pass

    def pack_frames() -> None:
        for frame in frames:
            payload, _ = pack_sections(frame)
            encode_frame(payload, b"saltsalt", 48, RECORDS, 0, len(frame), 1, 48, 0, 1)

    def pack_alone() -> None:
        for frame in frames:
            for record in frame:
                payload, _ = pack_sections((record,))
                encode_frame(payload, b"saltsalt", 48, RECORDS, 0, 1, 1, 48, 0, 1)

    def write_alone() -> None:
        for place, data in enumerate(packed):
            os.pwrite(fd, data, place * 128)

    def unpack() -> None:
        unpacker = msgpack.Unpacker()
        unpacker.feed(together)
        for _ in unpacker:
            pass

    return {
        "in Python: a method call with one keyword, that does nothing": lambda: keyword_call(Idle().log),
        "in Python: one lock, taken and given back": take_lock,
        "in Python: the least that a log() could do": lambda: keyword_call(Least().log),
        "msgpack.Packer.pack": pack_each,
        "the codec: types looked at, then packed": encode_each,
        "the record: names looked at, values encoded": make_records,
        "frames of 1,024 records: sections, checksums": pack_frames,
        "log(), buffered: all of it": lambda: keyword_call(buffered.log),
        "a frame for each record: sections, checksums": pack_alone,
        "os.pwrite of ready bytes": write_alone,
        "log(), handed to the system: all of it": lambda: keyword_call(direct.log),
        "msgpack.Unpacker": unpack,
        "recover(), of a log that is in the page cache": lambda: replayed.recover("sample", None, count),
    }


class Idle:
    def log(self, mapping: None = None, /, **entries: object) -> None: ...


class Least:
    """Each value packed before the call returns, in an order that threads share: no types, no names, no signals."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pack = msgpack.Packer().pack
        self._kept: list[bytes] = []

    def log(self, mapping: None = None, /, **entries: object) -> int:
        with self._lock:
            for value in entries.values():
                self._kept.append(self._pack(value))
            return len(self._kept)


def count(state: int, entry: object) -> int:
    return state + 1 if isinstance(state, int) else 1


def main() -> None:
    with tempfile.TemporaryDirectory(dir=MEMORY) as directory, ExitStack() as closing:
        every = parts(Path(directory), closing)
        took: dict[str, list[float]] = {what: [] for what in every}
        for _ in range(TURNS):
            for what, run in every.items():
                gc.collect()
                began = time.thread_time_ns()
                run()
                took[what].append((time.thread_time_ns() - began) / RECORDS_A_TURN)
        for what, figures in took.items():
            print(f"{what:64}{statistics.median(figures):8,.0f}")


if __name__ == "__main__":
    main()
