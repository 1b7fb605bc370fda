"""B1 to B4: adding records to a log."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from importlib import import_module
from statistics import median, quantiles
from typing import Any, Literal, NamedTuple

import msgpack

from benchmarks.model import FAST, RATE, Bar, Case, Contestant, Figure, Role, versus
from benchmarks.results import CaseResults
from benchmarks.stores.base import Durability, LogStore
from benchmarks.task import Task

Way = Literal["each", "together"]
TRAX = "trax"


class Kind(NamedTuple):
    """A store: where its class is, and what it needs."""

    module: str
    name: str
    needs: tuple[str, ...] = ()
    role: Role = "peer"

    def open(self, task: Task, durability: Durability) -> LogStore:
        store: LogStore = getattr(import_module(f"benchmarks.stores.{self.module}"), self.name)(
            task.directory, durability
        )
        return store


TRAX_LOG = Kind("with_trax", "TraxLog", role="trax")
SQLITE = Kind("with_sqlite", "SqliteLog")
LMDB = Kind("with_lmdb", "LmdbLog", ("lmdb",))
ROCKSDB = Kind("with_rocksdb", "RocksdbLog", ("rocksdict",))
LEVELDB = Kind("with_leveldb", "LeveldbLog", ("plyvel",))
DISKCACHE = Kind("with_diskcache", "DiskcacheLog", ("diskcache",))
ZODB = Kind("with_zodb", "ZodbLog", ("ZODB",))
OPTUNA = Kind("with_optuna", "OptunaLog", ("optuna",))
PICKLE = Kind("bare_files", "PickleLog", role="file")
JSON = Kind("bare_files", "JsonLog", role="file")


def values_of(task: Task, large: bool) -> Sequence[Any]:
    return task.large() if large else task.small()


def write_log(task: Task, kind: Kind, durability: Durability, way: Way, large: bool) -> None:
    """Write the records, and read them back through a second opening."""
    values = values_of(task, large)
    with kind.open(task, durability) as store:
        put = store.put_each if way == "each" else store.put_together
        with task.measured() as clock:
            put(values)
    task.figures["rate"] = len(values) / clock.seconds
    with kind.open(task, durability) as store:
        task.check(store.read(), values)


class Writers:
    """The contestants of one case: the same durability, the same values."""

    def __init__(self, durability: Durability, *, large: bool = False) -> None:
        self.durability: Durability = durability
        self.large = large

    def one(self, name: str, kind: Kind, way: Way, does: str, share: float = 1.0) -> Contestant:
        run = partial(write_log, kind=kind, durability=self.durability, way=way, large=self.large)
        blocks = FAST if kind is TRAX_LOG else ()
        return Contestant(name, kind.role, does, run, needs=kind.needs, blocks=blocks, share=share)


def _trax(writers: Writers, does: str) -> list[Contestant]:
    return [writers.one(TRAX, TRAX_LOG, "each", does)]


# B1: the process may hold some records back

BATCHED = ["RocksDB, WriteBatch", "LevelDB, batch", "LMDB, one transaction"]
ONE_A_CALL = ["RocksDB, put", "LevelDB, put", "LMDB, transaction each", "SQLite, commit each", "diskcache, set"]


def pack_only(task: Task, large: bool) -> None:
    values = values_of(task, large)
    pack = msgpack.Packer().pack
    with task.measured() as clock:
        for value in values:
            pack(value)
    task.figures["rate"] = len(values) / clock.seconds
    task.check([msgpack.unpackb(pack(value)) for value in values], values)


def buffered(*, large: bool) -> list[Contestant]:
    writers = Writers("buffered", large=large)
    one = writers.one
    limit = Contestant(
        "Packer.pack", "limit", "msgpack.Packer().pack(value), and nothing is kept", partial(pack_only, large=large)
    )
    trax = _trax(writers, 'log(sample=value), sync="os", buffer_bytes=65536: encoded before the call returns')
    batched = [
        one("RocksDB, WriteBatch", ROCKSDB, "together", "pack, put into a WriteBatch of 1,000, write; WAL, no sync"),
        one("LevelDB, batch", LEVELDB, "together", "pack, put into a write_batch of 1,000, write; no sync"),
        one("LMDB, one transaction", LMDB, "together", "pack, one putmulti(append=True) for all; writemap, no sync"),
        one("SQLite, one transaction", SQLITE, "together", "pack, one executemany for all; WAL, synchronous=OFF"),
        one("diskcache, one transaction", DISKCACHE, "together", "pack, set, all in one transact(); no sync", 0.1),
        one("ZODB, one transaction", ZODB, "together", "pack, into a BTree, one commit with its fsync for all", 0.2),
    ]
    single = [
        one("RocksDB, put", ROCKSDB, "each", "pack, put; WAL, no sync", 0.5),
        one("LevelDB, put", LEVELDB, "each", "pack, put; no sync", 0.5),
        one("LMDB, transaction each", LMDB, "each", "pack, put in a transaction of its own; writemap, no sync", 0.2),
        one("SQLite, commit each", SQLITE, "each", "pack, INSERT, committed; WAL, synchronous=OFF", 0.1),
        one("diskcache, set", DISKCACHE, "each", "pack, set; no sync", 0.05),
    ]
    files = [one("pickle, buffered file", PICKLE, "each", "pickle.dumps, write to a file with a 64 KiB buffer")]
    if not large:  # JSON has no bytes
        batched.append(
            one("Optuna journal, batch", OPTUNA, "together", "append_logs of 1,000 as JSON, each call with its fsync")
        )
        files.append(one("JSON lines, buffered file", JSON, "each", "JSON, write to a file with a 64 KiB buffer"))
    return [limit, *trax, *batched, *single, *files]


B1 = Case(
    "B1",
    "log, held back up to 64 KiB: small records",
    {"full": {"count": 200_000}, "quick": {"count": 40_000}, "tiny": {"count": 100}},
    buffered(large=False),
    bars=[
        versus(TRAX, "Packer.pack", at_least=0.45, stretch=0.7),
        versus(TRAX, BATCHED, at_least=0.8, stretch=1.2, text="trax to the best of RocksDB, LevelDB, LMDB in batches"),
        versus(TRAX, "SQLite, one transaction", at_least=2),
        versus(TRAX, ONE_A_CALL, at_least=2, text="trax to the best that takes one record a call"),
    ],
    tries=3,
)
B1_LARGE = Case(
    "B1-large",
    "log, held back up to 64 KiB: records of 1 KiB",
    {"full": {"count": 50_000}, "quick": {"count": 10_000}, "tiny": {"count": 100}},
    buffered(large=True),
    bars=[
        versus(
            TRAX,
            [*BATCHED, "SQLite, one transaction"],
            at_least=1.3,
            text="trax to the best of RocksDB, LevelDB, LMDB, SQLite in batches",
        ),
        versus(TRAX, ONE_A_CALL, at_least=2, text="trax to the best that takes one record a call"),
    ],
    tries=3,
)

# B2: the operating system has each record when the call returns


def write_ready(task: Task) -> None:
    values = task.small()
    ready = [msgpack.packb(value) for value in values]
    path = task.directory / "log"
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    write = os.write
    with task.measured() as clock:
        for data in ready:
            write(file, data)
    os.close(file)
    task.figures["rate"] = len(values) / clock.seconds
    with open(path, "rb") as again:
        task.check(msgpack.Unpacker(again), values)


def handed_over() -> list[Contestant]:
    writers = Writers("os")
    one = writers.one
    return [
        Contestant("os.write", "limit", "os.write of bytes that are ready", write_ready),
        *_trax(writers, 'log(sample=value), sync="os"'),
        one("RocksDB, put", ROCKSDB, "each", "pack, put; WAL, no sync"),
        one("LevelDB, put", LEVELDB, "each", "pack, put; no sync"),
        one("LMDB, transaction each", LMDB, "each", "pack, put in a transaction of its own; writemap, no sync"),
        one("SQLite, commit each", SQLITE, "each", "pack, INSERT, committed; WAL, synchronous=OFF", 0.3),
        one("diskcache, set", DISKCACHE, "each", "pack, set; no sync", 0.1),
        one("pickle, file", PICKLE, "each", "pickle.dumps, write to a file without a buffer"),
        one("JSON lines, file", JSON, "each", "JSON, write to a file without a buffer"),
    ]


B2 = Case(
    "B2",
    "log, each record handed to the operating system",
    {"full": {"count": 100_000}, "quick": {"count": 20_000}, "tiny": {"count": 100}},
    handed_over(),
    bars=[
        versus(TRAX, "os.write", at_least=0.33),
        versus(TRAX, "RocksDB, put", at_least=1.0),
        versus(TRAX, "SQLite, commit each", at_least=4),
    ],
    tries=3,
)

# B3: each record is on stable storage when the call returns

CALL_MEDIAN = Figure("call_p50", "median call", "ms", higher_is_better=False)
CALL_P99 = Figure("call_p99", "p99 call", "ms", higher_is_better=False)


def sync_each(task: Task, together: int = 1) -> None:
    """pwrite and fdatasync of so many records at a time, into a file that has its size already."""
    values = task.small()
    ready = [msgpack.packb(value) for value in values]
    groups = [b"".join(ready[start : start + together]) for start in range(0, len(ready), together)]
    path = task.directory / "log"
    file = os.open(path, os.O_WRONLY | os.O_CREAT)
    os.posix_fallocate(file, 0, sum(map(len, groups)) + 4096)
    os.fsync(file)
    offset = 0
    took = []
    with task.measured() as clock:
        for data in groups:
            start = time.perf_counter()
            os.pwrite(file, data, offset)
            os.fdatasync(file)
            offset += len(data)
            took.append(time.perf_counter() - start)
    os.ftruncate(file, offset)
    os.close(file)
    task.figures["rate"] = len(values) / clock.seconds
    _calls(task, took)
    with open(path, "rb") as again:
        task.check(msgpack.Unpacker(again), values)


def _calls(task: Task, took: list[float]) -> None:
    task.figures["call_p50"] = median(took) * 1000
    task.figures["call_p99"] = (quantiles(took, n=100, method="inclusive")[-1] if len(took) > 1 else took[0]) * 1000


def durable() -> list[Contestant]:
    writers = Writers("always")
    one = writers.one
    return [
        Contestant("pwrite, fdatasync", "limit", "of bytes that are ready, into a preallocated file", sync_each),
        *_trax(writers, 'log(sample=value), sync="always"'),
        one("RocksDB, put", ROCKSDB, "each", "pack, put with sync"),
        one("LevelDB, put", LEVELDB, "each", "pack, put with sync"),
        one("LMDB, transaction each", LMDB, "each", "pack, put in a transaction of its own, synced"),
        one("SQLite, commit each", SQLITE, "each", "pack, INSERT, committed; WAL, synchronous=FULL"),
        one("diskcache, set", DISKCACHE, "each", "pack, set; synchronous=FULL", 0.5),
        one("ZODB, commit each", ZODB, "each", "pack, into a BTree, commit with its fsync", 0.5),
        one("Optuna journal", OPTUNA, "each", "append_logs of one record as JSON, with its lock and fsync", 0.5),
        one("pickle, file", PICKLE, "each", "pickle.dumps, write, fdatasync"),
        one("JSON lines, file", JSON, "each", "JSON, write, fdatasync"),
    ]


B3_PEERS = [contestant.name for contestant in durable() if contestant.role == "peer"]
B3 = Case(
    "B3",
    "log, each record on stable storage, one thread",
    {"full": {"count": 4_000}, "quick": {"count": 300}, "tiny": {"count": 20}},
    durable(),
    bars=[
        versus(TRAX, "pwrite, fdatasync", at_least=0.95),
        versus(TRAX, B3_PEERS, at_least=1.3, text="trax to the best peer"),
    ],
    tries=3,
)

# B4: the same from several threads


def write_from_threads(task: Task, kind: Kind, threads: int) -> None:
    """Each thread writes its share, one call a record; the time of each call is taken."""
    values = task.small()
    with kind.open(task, "always") as store:
        barrier = threading.Barrier(threads + 1)
        took: list[list[float]] = [[] for _ in range(threads)]
        workers = [
            threading.Thread(target=_write_share, args=(store.put, values[number::threads], barrier, took[number]))
            for number in range(threads)
        ]
        for worker in workers:
            worker.start()
        with task.measured() as clock:
            barrier.wait()
            for worker in workers:
                worker.join()
    task.figures["rate"] = len(values) / clock.seconds
    _calls(task, [seconds for share in took for seconds in share])
    with kind.open(task, "always") as store:
        task.check(sorted(store.read(), key=lambda value: int(value["step"])), values)


def _write_share(
    put: Callable[[Any], None], values: Sequence[Any], barrier: threading.Barrier, took: list[float]
) -> None:
    barrier.wait()
    clock = time.perf_counter
    for value in values:
        start = clock()
        put(value)
        took.append(clock() - start)


def _in_threads(threads: int) -> Case:
    def one(name: str, kind: Kind, does: str, share: float = 1.0) -> Contestant:
        run = partial(write_from_threads, kind=kind, threads=threads)
        blocks = FAST if kind is TRAX_LOG else ()
        return Contestant(name, kind.role, does, run, needs=kind.needs, blocks=blocks, share=share)

    limit = f"{threads} records an fdatasync"

    def p99_in_syncs(results: CaseResults) -> float | None:
        return results.ratio(TRAX, [limit], CALL_P99, CALL_MEDIAN)

    return Case(
        f"B4-{threads}",
        f"log, each record on stable storage when its call returns, {threads} threads",
        {
            "full": {"count": 500 * threads},
            "quick": {"count": 40 * threads},
            "tiny": {"count": 2 * threads},
        },
        [
            Contestant(
                limit,
                "limit",
                f"one thread: pwrite of {threads} records that are ready, fdatasync",
                partial(sync_each, together=threads),
            ),
            one(TRAX, TRAX_LOG, 'log(sample=value), sync="always"'),
            one("LevelDB, put", LEVELDB, "pack, put with sync: its group commit"),
            one("RocksDB, put", ROCKSDB, "pack, put with sync: its group commit"),
            one("SQLite, commit each", SQLITE, "pack, INSERT, committed, one after the other; synchronous=FULL", 0.5),
            one("LMDB, transaction each", LMDB, "pack, put in a transaction of its own, one after the other", 0.5),
        ],
        figures=[RATE, CALL_MEDIAN, CALL_P99],
        bars=[
            versus(TRAX, "LevelDB, put", at_least=1.1),
            versus(
                TRAX,
                ["SQLite, commit each", "LMDB, transaction each"],
                at_least=4,
                text="trax to the better of SQLite and LMDB",
            ),
            Bar("trax, p99 of a call, in fsyncs (median call of the limit)", p99_in_syncs, at_most=6),
        ],
        tries=3,
    )


CASES = [B1, B1_LARGE, B2, B3, _in_threads(8), _in_threads(32)]
