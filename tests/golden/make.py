"""Make the golden stores: ``python -m tests.golden.make``. Only for a new version of the format; old ones stay as they
are.

Each directory ``v<format>-<what>`` is a store that every later version must open, and recover to what ``CONTENTS``
says.
"""

from __future__ import annotations

import datetime
import decimal
import fractions
import pathlib
import shutil
import uuid
from collections import OrderedDict, deque
from pathlib import Path
from typing import Any

import numpy as np

import trax
from trax.storage.local import compaction

HERE = Path(__file__).parent

CONTENTS: dict[str, Any] = {
    "plain": {"none": None, "true": True, "int": -(2**63), "float": -0.0, "str": "ü\ud800", "bytes": b"\0\xff", 1: [2]},
    "numbers": [2**64, -(2**200), complex(1.5, -0.0), decimal.Decimal("-1.50E+3"), fractions.Fraction(1, 3)],
    "containers": [(1, (2,)), {3}, frozenset({4}), deque([5], 6), OrderedDict(b=1, a=2), bytearray(b"7"), range(8)],
    "times": [
        datetime.datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=datetime.timezone(datetime.timedelta(hours=2), "two")),
        datetime.date(1, 1, 1),
        datetime.timedelta(days=-1, microseconds=1),
    ],
    "others": [uuid.UUID(int=5), pathlib.PurePosixPath("/a/b")],
    "arrays": [
        np.arange(6, dtype=">i2").reshape(2, 3),
        np.asfortranarray(np.eye(3, dtype=np.complex64)),
        np.array([(1, 2.5)], dtype=[("a", "u1"), ("b", "<f8")]),
        np.array(["2026-01-01", "NaT"], dtype="datetime64[D]"),
        np.float32(1.5),
    ],
    "large": np.arange(5000, dtype=np.float64),
}
"""What is recovered of each name of the store ``v1-msgpack`` and ``v1-json``.

Half of it was checkpointed, half logged.
"""

SPREAD = [np.arange(start, start + 2100, dtype=np.float64) for start in (0, 7000, 14000)]
"""What is recovered of the name "spread" of the store ``v1-differential``: each array lies in another file."""

LIST = [0, 1, 2, "three", {"four": 4}]
"""What is recovered of the name "list" of each store, whose entries are appended."""


def fold(state: list[Any], entry: Any) -> list[Any]:
    return [*state, entry]


def make(path: Path, codec: str, *, killed: bool, differential: bool = False) -> None:
    shutil.rmtree(path, ignore_errors=True)
    store = trax.Trax(path, codec=codec, keep=2, differential=differential)
    if differential:
        for known in range(1, 4):  # one array after the other becomes what it is
            store.checkpoint(spread=[*SPREAD[:known], *(array + 1 for array in SPREAD[known:])])
    for number, (name, value) in enumerate(CONTENTS.items()):
        if number % 2 or name == "large":
            store.checkpoint({name: value})
        else:
            store.checkpoint({name: "something else"})
            store.log({name: value, "list": "hidden by the checkpoint that follows"})
    store.checkpoint(list=LIST[:1], often=0)
    store.log(list=LIST[1], often=1)
    for number in range(4):
        store.log(often="x" * 100)
        store.checkpoint(often=number)
    with store.batch() as batch:
        batch.log(list=LIST[2])
        batch.checkpoint(often="batch")
        batch.log(list=LIST[3])
    store.log(list=LIST[4], never="checkpointed")
    if not killed:
        store.close()
        (path / "lock").write_text("")
        return
    shutil.copytree(path, path.with_suffix(".copy"))
    store.close()
    shutil.rmtree(path)
    path.with_suffix(".copy").rename(path)
    log = max(path.glob("log.*"))
    log.write_bytes(log.read_bytes().rstrip(b"\0") + b"trxR torn")
    (path / "lock").write_text("")


if __name__ == "__main__":
    compaction.LARGE_BYTES = 300
    make(HERE / "v1-msgpack", "msgpack", killed=False)
    make(HERE / "v1-json", "json", killed=False)
    make(HERE / "v1-killed", "msgpack", killed=True)
    make(HERE / "v1-proven", "msgpack", killed=False)  # the same, since the snapshot says how far the log was synced
    make(HERE / "v1-differential", "msgpack", killed=False, differential=True)
