"""What a hostile author writes is refused, or is another store; it takes no time, no memory, and no other file.

Rot is found by the checksums (``test_corruption.py``); here the checksums are right. What is changed, and how, says
``hostile.py``; what the process must not do, ``guards.py``. ``TRAX_FUZZ`` multiplies the number of examples.
"""

from __future__ import annotations

import contextlib
import io
import os
import random
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, note, seed, settings
from hypothesis import strategies as st

import trax
from tests import hostile, reseal
from tests.codecs.test_golden import GOLDEN
from tests.counting import count
from tests.damage import read_files
from tests.golden.make import HERE
from tests.guards import Watch, bounded
from trax.cli import main
from trax.codecs import get_codec, table
from trax.errors import CorruptionError, TraxError
from trax.inspection import describe_store, verify_store
from trax.repair import Repair

EFFORT = float(os.environ.get("TRAX_FUZZ", "1"))
SEED = os.environ.get("TRAX_SEED")
MEBIBYTE = 1 << 20
MEMORY = "/dev/shm" if os.path.isdir("/dev/shm") else None

STORES = sorted(path.name for path in HERE.glob("v*"))

table._load_numpy()
TAGS: dict[str, list[Any]] = {
    "msgpack": [*table._by_code, table.REGISTERED_CODE, table.BUFFER_CODE, 77, 127],
    "json": [*table._by_tag, table.REGISTERED_TAG, table.BUFFER_TAG, "dict", "int", "float", "bytes", "nothing"],
}


def fuzz(examples: int) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a test ``dice``, which decide everything, so many times; Hypothesis throws them."""

    def decorate(test: Callable[..., None]) -> Callable[..., None]:
        test = given(dice=st.randoms(use_true_random=False))(test)
        if SEED is not None:
            test = seed(int(SEED))(test)
        checks = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture]
        return settings(max_examples=max(1, int(examples * EFFORT)), suppress_health_check=checks)(test)

    return decorate


@pytest.fixture(scope="module")
def watch() -> Watch:
    return Watch()


@pytest.fixture(scope="module")
def scratch() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir=MEMORY) as directory:
        yield Path(directory)


# Values


class Source:
    """The buffers of a value that is made up: three of them."""

    def nbytes(self, index: int) -> int:
        if index > 2:
            raise CorruptionError("there are only three buffers")
        return (0, 16, 20_000)[index]

    def readinto(self, index: int, target: memoryview) -> None:
        target[:] = bytes(self.nbytes(index))

    def map(self, index: int) -> memoryview:
        return memoryview(bytes(self.nbytes(index)))


def corpus(codec: str) -> list[bytes]:
    own = get_codec(codec)
    values = [value for value, _, _ in GOLDEN.values()]
    heads = [own.encode_value(value, "state").head for value in values]
    return [*(own.encode(value, "state") for value in values), *heads]


CORPUS = {codec: corpus(codec) for codec in TAGS}


def hostile_value(dice: random.Random, codec: str) -> bytes:
    parse, pack = (
        (hostile.msgpack_tree, hostile.msgpack_bytes) if codec == "msgpack" else (hostile.json_tree, hostile.json_bytes)
    )
    root = [parse(dice.choice(CORPUS[codec]))]
    for _ in range(dice.choice([1, 1, 2, 3])):
        hostile.mutate_tree(root, dice, TAGS[codec])
    data = pack(root[0])
    return hostile.mutate_bytes(data, dice) if dice.random() < 0.2 else data


@pytest.mark.parametrize("codec", TAGS)
def test_a_hostile_value_is_refused_or_another_value(codec: str) -> None:
    own = get_codec(codec)
    tried = 0

    @fuzz(700)
    def run(dice: random.Random) -> None:
        nonlocal tried
        data = hostile_value(dice, codec)
        note(repr(data))
        ways: list[Callable[[], Any]] = [
            lambda: own.decode(data),
            lambda: own.decode_many(data + data, [len(data)] * 2),
            lambda: own.decode_value(data, Source()),
            lambda: own.decode_value(data, Source(), mmap=True),
        ]
        for way in ways:
            tried += 1
            with contextlib.suppress(TraxError), bounded(64 * MEBIBYTE), quiet():
                value = way()
                with contextlib.suppress(trax.errors.UnsupportedValueError):
                    own.decode(own.encode(value, "state"))

    run()
    count("fuzzed values", tried)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # NumPy's, over odd dtypes; torn tails
        yield


# Whole stores


@pytest.fixture(scope="module", params=STORES)
def golden(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_a_hostile_store_is_refused_or_another_store(golden: str, scratch: Path, watch: Watch) -> None:
    tried = 0
    original = reseal.Store.load(HERE / golden)

    @fuzz(60)
    def run(dice: random.Random) -> None:
        nonlocal tried
        tried += 1
        done = make_hostile(original, dice, scratch)
        note(f"{golden}: {done}")
        with watch.over(str(scratch / "store"), str(scratch / "copy")):
            exercise(scratch / "store", scratch / "copy", dice)
        assert read_files(scratch / "outside") == {"file": b"outside", "00000001": b"outside", "20260101": b"outside"}

    run()
    count("fuzzed stores", tried)


def make_hostile(original: reseal.Store, dice: random.Random, scratch: Path) -> list[str]:
    """Lay a changed store out, with a directory beside it that must stay as it is; what was changed."""
    for directory in scratch.iterdir():
        shutil.rmtree(directory) if directory.is_dir() and not directory.is_symlink() else directory.unlink()
    (scratch / "outside").mkdir()
    for name in ("file", "00000001", "20260101"):
        (scratch / "outside" / name).write_bytes(b"outside")
    codec = original.snapshot.body[0][1]
    values = [hostile_value(dice, codec) for _ in range(3)]
    store = hostile.Hostile(original.copy(), dice, codec, values, TAGS[codec])
    for _ in range(dice.choice([1, 1, 2, 3, 4])):
        store.mutate()
    store.write(scratch / "store")
    return store.done


COMMANDS = [
    *(["info"], ["info", "--json"], ["log"], ["log", "--json"], ["log", "--after", "0", "--json"]),
    *(["verify"], ["export"]),
]


def exercise(path: Path, copy: Path, dice: random.Random) -> None:
    """Everything that can be done with a store. What only looks at it changes nothing; errors are those of trax."""
    before = tree_of(path)
    for look in (verify_store, describe_store, plan_repair, read):
        attempt(look, path)
    for command in dice.sample(COMMANDS, 2):
        command_line([*command, path])
    assert tree_of(path) == before, "what only looks has changed something"
    try:
        with bounded(64 * MEBIBYTE), quiet():
            store = trax.Trax(path)
    except CorruptionError:
        assert tree_of(path) == before, "a refused opening has changed something"
        attempt(repair, path)
    except TraxError:
        pass
    else:
        attempt(use, store, copy)
        attempt(store.close)


def tree_of(path: Path) -> dict[str, Any]:
    """Every entry below a path, links unfollowed, but for the lock."""
    found: dict[str, Any] = {}
    for directory, directories, names in os.walk(path):
        for name in [*directories, *names]:
            file = Path(directory, name)
            content = file.read_bytes() if file.is_file() and not file.is_symlink() else file.lstat().st_mode
            found[str(file.relative_to(path))] = content
    found.pop("lock", None)
    return found


def attempt(act: Callable[..., Any], *arguments: Any, **options: Any) -> bool:
    """Do something; whether trax did not refuse it."""
    with contextlib.suppress(TraxError), bounded(64 * MEBIBYTE), quiet():
        act(*arguments, **options)
        return True
    return False


def plan_repair(path: Path) -> None:
    with Repair(path) as found:
        assert found.plan is not None


def repair(path: Path) -> None:
    with Repair(path) as found:
        if found.needed and found.possible:
            assert found.carry_out().ok


def command_line(arguments: list[Any]) -> None:
    shown = warnings.showwarning
    outputs = [io.TextIOWrapper(io.BytesIO(), encoding="utf-8") for _ in range(2)]
    try:
        with contextlib.redirect_stdout(outputs[0]), contextlib.redirect_stderr(outputs[1]), bounded(64 * MEBIBYTE):
            assert main(list(map(str, arguments))) in (0, 1)
    finally:
        warnings.showwarning = shown


def read(path: Path) -> None:
    with trax.Trax(path, mode="r") as store:
        look_around(store)


def look_around(store: trax.Trax) -> None:
    names = store.names()
    if not attempt(store.recover_many, names):
        for name in names:
            attempt(store.recover, name)
    attempt(store.recover_many, names, mmap=True)
    for snapshot in alternatively(store.snapshots, []):
        attempt(store.recover_many, snapshot.names, None, lambda state, entry: entry, at=snapshot.sequence)
    for name in ("list", "never"):
        attempt(lambda name=name: list(store.entries(name)))
        attempt(lambda name=name: list(store.entries(name, after=0)))
    attempt(store.stats)
    attempt(store.verify)


def alternatively(act: Callable[[], Any], otherwise: Any) -> Any:
    try:
        return act()
    except TraxError:
        return otherwise


def use(store: trax.Trax, copy: Path) -> None:
    attempt(store.log, {"list": "more", "new": 1})
    attempt(store.checkpoint, {"new": "x" * 5000, "often": 1})
    attempt(store.log, {"list": "even more"})
    attempt(store.delete, "often")
    attempt(store.copy_to, copy)
    attempt(store.sync)
    look_around(store)
