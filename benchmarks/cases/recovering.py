"""B5 and B6: opening a log and folding it into a state."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import msgpack

from benchmarks.cases.logging import JSON, LEVELDB, LMDB, PICKLE, ROCKSDB, SQLITE, TRAX_LOG, Kind
from benchmarks.model import FAST, Bar, Case, Contestant, Figure, no_more_than, versus
from benchmarks.stores.base import pack
from benchmarks.stores.with_trax import NAME, check_fast
from benchmarks.task import Task
from benchmarks.values import fold, folded

EXTRA = Figure("extra_bytes", "extra memory", "bytes", higher_is_better=False)

# B5: one name


def fill(task: Task, kind: Kind) -> None:
    values = task.small()
    with kind.open(task, "buffered") as store:
        if kind.role == "peer":
            store.put_together(values)
        else:
            store.put_each(values)
    if kind is TRAX_LOG:
        _create(task, [NAME])
    with kind.open(task, "buffered") as store:
        task.check(store.read(), values)


def _create(task: Task, names: Iterable[str]) -> None:
    """Store the first values, so that each round recovers alike."""
    import trax

    with trax.Trax(task.directory / "store") as store:
        store.recover_many(names, create=lambda: 0)


def fill_stream(task: Task) -> None:
    with open(task.directory / "log", "wb") as file:
        for value in task.small():
            file.write(pack(value))


def fold_all(values: Iterable[Any]) -> int:
    state = 0
    for value in values:
        state = fold(state, value)
    return state


def fold_stream(task: Task) -> None:
    with task.measured() as clock, open(task.directory / "log", "rb") as file:
        state = fold_all(msgpack.Unpacker(file, read_size=1 << 20))
    _recovered(task, clock.seconds, state)


def fold_peer(task: Task, kind: Kind) -> None:
    with task.measured() as clock:
        store = kind.open(task, "buffered")
        state = fold_all(store.read())
    store.close()
    _recovered(task, clock.seconds, state)


def recover_one(task: Task, fast: bool) -> None:
    import trax

    with task.measured() as clock:
        store = trax.Trax(task.directory / "store", sync="os")
        state = store.recover(NAME, replay_log=fold)
    store.close()
    if fast:
        check_fast()
    _recovered(task, clock.seconds, state)


def _recovered(task: Task, seconds: float, state: int) -> None:
    task.figures["rate"] = task.count / seconds
    task.check_equal(state, folded(task.count), "the folded state")


def _peer(name: str, kind: Kind, does: str) -> Contestant:
    return Contestant(name, kind.role, does, partial(fold_peer, kind=kind), partial(fill, kind=kind), kind.needs)


RECOVER = 'Trax(path), recover("sample", replay_log=fold): checksums, chain and sequences of all frames are checked'


def _trax(name: str = "trax", *, fast: bool = False) -> Contestant:
    run = partial(recover_one, fast=fast)
    prepare = partial(fill, kind=TRAX_LOG)
    if fast:
        does = "the same with the packages of the extra fast"
        return Contestant(name, "trax", does, run, prepare, FAST)
    return Contestant(name, "trax", RECOVER, run, prepare, blocks=FAST)


B5 = Case(
    "B5",
    "open and recover: one name, folded by a Python function",
    {"full": {"count": 1_000_000}, "quick": {"count": 100_000}, "tiny": {"count": 300}},
    [
        Contestant("Unpacker", "limit", "msgpack.Unpacker over a file of bare values, fold", fold_stream, fill_stream),
        _trax(),
        _trax("trax, fast", fast=True),
        _peer("LMDB", LMDB, "open, cursor over all values, unpackb, fold"),
        _peer("RocksDB", ROCKSDB, "open, values(), unpackb, fold"),
        _peer("LevelDB", LEVELDB, "open, iterator over all values, unpackb, fold"),
        _peer("SQLite", SQLITE, "open, SELECT all values, unpackb, fold"),
        _peer("pickle file", PICKLE, "Unpickler.load, fold"),
        _peer("JSON lines file", JSON, "json.loads, fold"),
    ],
    bars=[
        versus("trax", "Unpacker", at_least=0.85),
        versus("trax, fast", "Unpacker", at_least=1.3),
        versus("trax", "LMDB", at_least=1.4),
        no_more_than("trax", EXTRA, 5 << 20),
    ],
    tries=3,
)

# B6: the same records over many names

NAMES = [f"name {number}" for number in range(20)]


def fill_names(task: Task) -> None:
    import trax

    values = task.small()
    with trax.Trax(task.directory / "store", sync="os", buffer_bytes=1 << 16) as store:
        for number, value in enumerate(values):
            store.log({NAMES[number % len(NAMES)]: value})
    _create(task, NAMES)
    with trax.Trax(task.directory / "store", mode="r") as reader:
        for number, name in enumerate(NAMES):
            task.check((value for _, value in reader.entries(name)), values[number :: len(NAMES)])


def recover_names(task: Task, how: Callable[[Any], list[int]], fast: bool = False) -> None:
    import trax

    with task.measured() as clock:
        store = trax.Trax(task.directory / "store", sync="os")
        states = how(store)
    store.close()
    if fast:
        check_fast()
    task.figures["rate"] = task.count / clock.seconds
    task.check_equal(states, [sum(range(number, task.count, len(NAMES))) for number in range(len(NAMES))], "the states")


def together(store: Any) -> list[int]:
    return [*store.recover_many(NAMES, replay_log=fold).values()]


def one_by_one(store: Any) -> list[int]:
    return [store.recover(name, replay_log=fold) for name in NAMES]


def _time_to_one(name: str, at_most: float | None = None) -> Bar:
    return versus("one name", name, at_most=at_most, text=f"20 names {name}, time a record, to one name")


B6 = Case(
    "B6",
    "open and recover: 20 names, their records interleaved",
    B5.sizes,
    [
        Contestant("Unpacker", "limit", "msgpack.Unpacker over a file of bare values, fold", fold_stream, fill_stream),
        _trax("one name"),
        Contestant(
            "together",
            "trax",
            "Trax(path), recover_many of the 20 names",
            partial(recover_names, how=together),
            fill_names,
            blocks=FAST,
        ),
        Contestant(
            "one by one",
            "trax",
            "Trax(path), recover of each of the 20 names",
            partial(recover_names, how=one_by_one),
            fill_names,
            blocks=FAST,
        ),
    ],
    bars=[_time_to_one("together", 1.5), _time_to_one("one by one")],
    tries=3,
)

CASES = [B5, B6]
