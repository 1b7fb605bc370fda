"""What a hostile author writes is refused, or is another store; it takes no time, no memory, and no other file.

Rot is found by the checksums (``test_corruption.py``); here the checksums are right. What is changed, and how, says
``hostile.py``; what the process must not do, ``guards.py``. ``TRAX_FUZZ`` multiplies the number of examples.
"""

from __future__ import annotations

import base64
import contextlib
import io
import os
import pickle
import random
import shutil
import tempfile
import tracemalloc
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgpack
import pytest
from hypothesis import HealthCheck, given, note, seed, settings
from hypothesis import strategies as st

import trax
from tests import hostile, reseal
from tests.codecs.test_golden import GOLDEN
from tests.counting import count
from tests.damage import KINDS, lay_out, make, read_files, small_stores
from tests.golden.make import HERE
from tests.guards import Watch, bounded
from trax.cli import main
from trax.cli.codes import FAILED, NOT_CONFIRMED, OK
from trax.codecs import get_codec, table
from trax.errors import CorruptionError, TraxError
from trax.inspection import describe_store, verify_store
from trax.interchange import export_store, import_store
from trax.lengths import check_lengths
from trax.repair import Repair
from trax.storage.base import BlobReference
from trax.storage.local.blob_reader import BlobReader
from trax.storage.local.fs import LocalFileSystem
from trax.storage.local.owner import decode_owner, describe, encode_owner, is_gone, is_running, this_process
from trax.storage.local.payload import (
    MalformedPayloadError,
    pack_lines,
    pack_sections,
    pack_sequences,
    shares_of_sections,
    split_sequences,
    unpack_lines,
    unpack_sections,
)
from trax.storage.local.snapshot import decode_snapshot, encode_snapshot

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
def watch(tmp_path_factory: pytest.TempPathFactory) -> Watch:
    # The first store of a process imports the extra ``fast``.
    with trax.Trax(tmp_path_factory.mktemp("first") / "store") as store:
        store.log(x=1)
        store.recover("x", create=int, replay_log=lambda state, entry: state + entry)
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

    @fuzz(250)
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


# The parts of files


def hostile_sections(dice: random.Random) -> None:
    records = [{name: dice.choice(VALUES) for name in ("a", "bb")[: dice.randrange(1, 3)]} for _ in range(3)]
    payload = hostile.mutate_bytes(pack_sections(records)[0], dice)
    count = dice.choice([1, 2, 3, 4, 2**32 - 1])
    with contextlib.suppress(MalformedPayloadError):
        assert all(last < count for _, last, _ in shares_of_sections(payload, count))
    found = list(unpack_sections(payload, range(5, 5 + count)))
    shares = [(entries.name, entries.sequences[-1] - 5, len(entries.data)) for entries in found]
    assert list(shares_of_sections(payload, count)) == shares
    assert sum(len(entries.data) for entries in found) <= len(payload)
    assert all(len(entries.sequences) == len(entries.lengths) for entries in found)


def test_a_section_must_not_name_a_record_that_its_frame_does_not_have() -> None:
    payload, _ = pack_sections([{"a": b"1"}, {"b": b"2"}])
    assert [*shares_of_sections(payload, 2)] == [("a", 0, 1), ("b", 1, 1)]
    for read in (lambda: [*shares_of_sections(payload, 1)], lambda: [*unpack_sections(payload, range(1))]):
        with pytest.raises(MalformedPayloadError, match="does not have"):
            read()


def hostile_lines(dice: random.Random) -> None:
    records = [dict.fromkeys(("a", "bb")[: dice.randrange(1, 3)], b'{"x": [1, "\\u00e9"]}') for _ in range(3)]
    payload = hostile.mutate_bytes(pack_lines(records)[0], dice)
    for entries in unpack_lines(payload, range(5, 5 + dice.choice([1, 2, 3, 4]))):
        assert list(entries.sequences) == sorted(set(entries.sequences))


def hostile_sequences(dice: random.Random) -> None:
    payload = hostile.mutate_bytes(pack_sequences([1, 5, 9]), dice)
    sequences, _ = split_sequences(payload, dice.choice([0, 1, 2, 3, 4, 2**32 - 1]))
    assert list(sequences) == sorted(set(sequences))


def hostile_snapshot(dice: random.Random) -> None:
    snapshot = reseal.Snapshot.parse((HERE / dice.choice(STORES) / "snapshot").read_bytes())
    tree = hostile.msgpack_tree(msgpack.packb(snapshot.body))
    for _ in range(dice.choice([1, 1, 2, 4])):
        hostile.mutate_tree(tree, dice, [1, 5, 64])
    snapshot.header["body"] = hostile.msgpack_bytes(tree)
    if dice.random() < 0.3:
        snapshot.header["body"] = hostile.mutate_bytes(snapshot.header["body"], dice)
    decoded = decode_snapshot(snapshot.pack(), "snapshot")
    assert decode_snapshot(encode_snapshot(decoded), "snapshot") == decoded
    encode_snapshot(replace(decoded, generation=decoded.generation + 1, epoch=decoded.epoch + 1))


def hostile_owner(dice: random.Random) -> None:
    root = [hostile.json_tree(encode_owner(this_process()))]
    for _ in range(dice.choice([1, 2, 4])):
        hostile.mutate_tree(root, dice, ["bytes"])
    data = hostile.json_bytes(root[0])
    owner = decode_owner((hostile.mutate_bytes(data, dice) if dice.random() < 0.3 else data)[:4096])
    assert describe(owner)
    assert not (is_gone(owner) and is_running(owner))


VALUES = [b"", b"\1", b"x" * 300]
PARTS = [hostile_sections, hostile_lines, hostile_sequences, hostile_snapshot, hostile_owner]


@pytest.mark.parametrize("part", PARTS, ids=lambda part: part.__name__)
def test_a_hostile_part_of_a_file_is_refused_or_another_one(part: Callable[[random.Random], None]) -> None:
    tried = 0

    @fuzz(150)
    def run(dice: random.Random) -> None:
        nonlocal tried
        tried += 1
        with contextlib.suppress(TraxError, MalformedPayloadError), bounded(32 * MEBIBYTE):
            part(dice)

    run()
    count("fuzzed values", tried)


# Exported files


@pytest.fixture(scope="module")
def exported() -> list[bytes]:
    files = []
    for name in STORES:
        out = io.BytesIO()
        export_store(HERE / name, out)
        files.append(out.getvalue())
    return files


def test_a_hostile_exported_file_is_refused_or_another_store(
    exported: list[bytes], scratch: Path, watch: Watch
) -> None:
    tried = 0
    path = scratch / "imported"

    @fuzz(40)
    def run(dice: random.Random) -> None:
        nonlocal tried
        tried += 1
        shutil.rmtree(path, ignore_errors=True)
        data = hostile_lines_of(dice.choice(exported), dice)
        with watch.over(str(scratch)):
            imported = attempt(import_store, io.BytesIO(data), path, codec=dice.choice([None, "msgpack", "json"]))
            if imported:
                attempt(read_all, path)
        assert imported == path.exists()
        assert not [one.name for one in scratch.iterdir() if "importing" in one.name]

    run()
    count("fuzzed stores", tried)


def hostile_lines_of(data: bytes, dice: random.Random) -> bytes:
    lines = data.splitlines(keepends=True)
    for _ in range(dice.choice([1, 1, 2])):
        place = dice.randrange(len(lines) - 1)
        kind = dice.randrange(6)
        if kind == 0:
            del lines[place]
        elif kind == 1:
            lines.insert(place, dice.choice(lines))
        elif kind == 2:
            lines[place] = hostile.mutate_bytes(lines[place], dice)
        else:
            with contextlib.suppress(ValueError):  # another mutation has changed the line
                root = [hostile.json_tree(lines[place])]
                hostile.mutate_tree(root, dice, TAGS["json"])
                lines[place] = hostile.json_bytes(root[0]) + b"\n"
    return b"".join(lines)


def read_all(path: Path) -> None:
    with trax.Trax(path) as store:
        assert store.verify().problems == []
        look_around(store)


# Whole stores


@pytest.fixture(scope="module")
def originals(scratch: Path) -> dict[str, reseal.Store]:
    """The golden stores, and small ones of other kinds."""
    found = {name: reseal.Store.load(HERE / name) for name in STORES}
    with pytest.MonkeyPatch.context() as patch:
        small_stores(patch)
        for kind in KINDS:
            lay_out(make(kind, scratch).files, scratch / "made")
            found[kind] = reseal.Store.load(scratch / "made")
    return found


def test_a_hostile_store_is_refused_or_another_store(
    originals: dict[str, reseal.Store], scratch: Path, watch: Watch
) -> None:
    tried = 0

    @fuzz(80)
    def run(dice: random.Random) -> None:
        nonlocal tried
        tried += 1
        original = dice.choice(list(originals))
        done = make_hostile(originals[original], dice, scratch)
        note(f"{original}: {done}")
        with watch.over(str(scratch / "store"), str(scratch / "copy")):
            exercise(scratch / "store", scratch / "copy", dice)
        assert read_files(scratch / "outside") == OUTSIDE

    run()
    count("fuzzed stores", tried)


OUTSIDE = dict.fromkeys(("file", "00000001", "20260101"), b"outside")
"""What lies beside a hostile store. The last two have names such as blobs have."""


def make_empty(scratch: Path) -> None:
    for entry in scratch.iterdir():
        shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()


def make_outside(scratch: Path) -> None:
    (scratch / "outside").mkdir()
    for name, data in OUTSIDE.items():
        (scratch / "outside" / name).write_bytes(data)


def make_hostile(original: reseal.Store, dice: random.Random, scratch: Path) -> list[str]:
    """Lay a changed store out, with a directory beside it that must stay as it is; what was changed."""
    make_empty(scratch)
    make_outside(scratch)
    codec = original.snapshot.body[0][1]
    values = [hostile_value(dice, codec) for _ in range(3)]
    store = hostile.Hostile(original.copy(), dice, codec, values, TAGS[codec])
    for _ in range(dice.choice([1, 1, 2, 3, 4])):
        store.mutate()
    store.write(scratch / "store")
    return store.done


COMMANDS = [
    *(["info"], ["info", "--json"], ["log"], ["log", "--json"], ["log", "--after", "0", "--json"]),
    *(["verify"], ["export"], ["repair"], ["unlock"]),
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
    except TraxError as error:
        if not isinstance(error, trax.errors.StorageError):  # the system may refuse anything at any time
            assert tree_of(path) == before, "a refused opening has changed something"
        attempt(repair, path)
        command_line(["unlock", "--yes", path])
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
            assert main(list(map(str, arguments))) in (OK, FAILED, NOT_CONFIRMED)
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


def open_and_use(path: Path) -> None:
    with trax.Trax(path) as store:
        store.log(list="more")
        store.checkpoint(often="x" * 5000)
        store.log(list="even more")


def use(store: trax.Trax, copy: Path) -> None:
    attempt(store.log, {"list": "more", "new": 1})
    attempt(store.checkpoint, {"new": "x" * 5000, "often": 1})
    attempt(store.log, {"list": "even more"})
    attempt(store.delete, "often")
    attempt(store.copy_to, copy)
    attempt(store.sync)
    look_around(store)


# Something else in the place of a file


ENTRIES = [
    *("snapshot", "lock", "owner", "blobs", "kept", "removed", "snapshot.new.0123abcd"),
    *("log.00000001", "log.00000009", "log.00000099", "blobs/00000001", "blobs/00000099", "kept/00000013"),
]
TRAPS = ["directory", "pipe", "device", "link", "dangling link", "link to itself", "outside"]


@pytest.mark.parametrize("kind", TRAPS)
def test_what_is_no_file_is_neither_followed_nor_waited_for(kind: str, scratch: Path, watch: Watch) -> None:
    for name in ENTRIES:
        for act in (look_and_use, repair):
            make_empty(scratch)
            make_outside(scratch)
            path = scratch / "store"
            shutil.copytree(HERE / "v1-msgpack", path)
            hostile.set_trap(path, name, kind)
            try:
                with watch.over(str(path), str(scratch / "copy")):
                    attempt(act, path)
                assert read_files(scratch / "outside") == OUTSIDE
            except BaseException as error:
                error.add_note(f"{name} is a {kind}, {act.__name__}")
                raise
    count("fuzzed stores", 2 * len(ENTRIES))


def look_and_use(path: Path) -> None:
    exercise(path, path.parent / "copy", random.Random(str(path)))


def exercise_all(path: Path) -> None:
    for command in COMMANDS:
        command_line([*command, path])
    look_and_use(path)


@pytest.mark.parametrize("write", [False, True])
def test_only_a_regular_file_is_opened(tmp_path: Path, write: bool) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("file")
    (tmp_path / "file").write_bytes(b"")
    with bounded(MEBIBYTE, 5):
        for path in (tmp_path, tmp_path / "pipe", tmp_path / "link", Path("/dev/zero")):
            with pytest.raises(OSError):  # noqa: PT011 (which one is up to the system)
                LocalFileSystem().open(str(path), write=write)
    fd = LocalFileSystem().open(str(tmp_path / "file"), write=write)
    os.close(fd)


@pytest.mark.parametrize("name", ["snapshot", "lock", "blobs", "kept", "removed"])
def test_a_link_in_the_place_of_what_belongs_to_a_store_is_named(tmp_path: Path, name: str) -> None:
    """A store that is itself reached through a link is none of these."""
    shutil.copytree(HERE / "v1-msgpack", tmp_path / "s")
    (tmp_path / "linked").symlink_to("s")
    with trax.Trax(tmp_path / "linked") as store:
        assert store.verify().problems == []
    (tmp_path / "s" / "removed").mkdir()
    (tmp_path / "s" / name).rename(tmp_path / "elsewhere")
    (tmp_path / "s" / name).symlink_to(tmp_path / "elsewhere")
    for mode in ("a", "r"):
        with pytest.raises(CorruptionError, match=f"{name} is a symbolic link"):
            trax.Trax(tmp_path / "s", mode=mode)  # type: ignore[arg-type]
    assert [problem.reason for problem in verify_store(tmp_path / "s").problems] == ["it is a symbolic link"]


PROCESSES = [b"-1", b"0", b"true", b"9" * 200, b"9" * 4050, b"18446744073709551616", b"1e999", b"[1]"]
OWNERS = [
    *(b"", b"\0", b"[" * 4096, b'{"a":' * 800, b"[]", b"1", b"NaN", b'{"run": {}, "job": []}', b"\xff"),
    *(b'{"pid": %s, "started": 1}' % process for process in PROCESSES),
]


@pytest.mark.parametrize("name", ["lock", "owner"])
def test_whatever_an_owner_says_is_an_owner_or_nobody(tmp_path: Path, name: str) -> None:
    path = tmp_path / "s"
    shutil.copytree(HERE / "v1-msgpack", path)
    same_machine = [
        data.replace(b"{", b'{"host": "%s", "boot": "%s", ' % machine(), 1) for data in OWNERS if b"{" in data
    ]
    for data in (*OWNERS, *same_machine):
        (path / name).write_bytes(data)
        command_line(["info", path])
        attempt(open_and_use, path)
        assert describe(decode_owner(data))


def machine() -> tuple[bytes, bytes]:
    owner = this_process()
    return str(owner["host"]).encode(), str(owner["boot"]).encode()


# Memory


def peak_of(act: Callable[[], Any]) -> int:
    tracemalloc.start()
    try:
        with contextlib.suppress(TraxError), quiet():
            act()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def array_header(claims: int) -> bytes:
    return b"\xdd" + claims.to_bytes(4, "big")


def nested_claims(nbytes: int) -> bytes:
    """Lists inside lists, each of which claims as many items as there are bytes, inside tuples inside tuples."""
    data = bytes(nbytes // 10)
    while len(data) < nbytes:
        data = array_header(nbytes) * 900 + data
        data = b"\xc9" + len(data).to_bytes(4, "big") + b"\1" + data
    return data


@pytest.mark.parametrize("nbytes", [5_000, 50_000, 200_000])
def test_lengths_that_lie_inside_one_another_take_no_memory(nbytes: int) -> None:
    data = nested_claims(nbytes)
    own = get_codec("msgpack")
    snapshot = reseal.Snapshot([], {"body": data})
    blob = reseal.Blob(1, bytes(16), 1, b"", b"\xc0", data)
    for act in (
        lambda: own.decode(data),
        lambda: own.decode_many(data, [len(data)]),
        lambda: own.decode_value(data, Source()),
        lambda: decode_snapshot(snapshot.pack(), "snapshot"),
        lambda: read_blob(blob),
    ):
        assert peak_of(act) < 4 * MEBIBYTE + 200 * len(data)


@pytest.mark.parametrize(("headers", "nbytes"), [(9, 2_000), (1_000, 2_000), (8, 50_000), (1, 300_000)])
def test_lengths_that_could_take_memory_together_are_looked_at_first(headers: int, nbytes: int) -> None:
    lying = array_header(nbytes) * headers + bytes(nbytes - 2)
    with pytest.raises(msgpack.OutOfData):
        check_lengths(lying)
    check_lengths(msgpack.packb([[0] * nbytes]))


def read_blob(blob: reseal.Blob) -> None:
    data, seal = blob.pack()
    with tempfile.NamedTemporaryFile(dir=MEMORY) as file:
        file.write(data)
        file.flush()
        reference = BlobReference(blob.number, len(data), seal)
        reader = BlobReader(LocalFileSystem(), file.fileno(), file.name, blob.store_id, reference)
        reader.check()
        get_codec("msgpack").decode_value(reader.head, reader)


def test_a_buffer_that_is_used_again_and_again_takes_no_memory() -> None:
    """Neither by a head that names it more than once, nor by an index in which it stands more than once."""
    buffer = bytes(MEBIBYTE)
    used = msgpack.ExtType(table.BLOB.code, msgpack.packb(msgpack.ExtType(table.BUFFER_CODE, b"\0")))
    again = [msgpack.ExtType(49, msgpack.packb(msgpack.ExtType(50, bytes([place])))) for place in range(100)]
    blob = reseal.Blob(1, bytes(16), 1, buffer, msgpack.packb([used] * 100), [])
    entry = [64, len(buffer), blob.checksums(64, len(buffer))]
    blob.index = [entry]
    assert peak_of(lambda: read_blob(blob)) < 5 * MEBIBYTE
    blob.head, blob.index = msgpack.packb(again), [entry] * 100
    assert peak_of(lambda: read_blob(blob)) < 5 * MEBIBYTE
    blob.head, blob.index = msgpack.packb([used]), [entry]
    read_blob(blob)


@pytest.mark.parametrize("value", [2**31, 2**32 - 1, 2**63, 2**64 - 1])
def test_a_length_that_the_file_can_not_hold_takes_no_memory(tmp_path: Path, value: int) -> None:
    def body_of(field: str) -> Callable[[reseal.Body], None]:
        def change(body: reseal.Body) -> None:
            if field.startswith("sealed"):
                body[1][0][2][0] = value

        return change

    for field in ("sealed", "sealed and payload", "body", "record_count", "head_bytes", "index_bytes", "nbytes"):
        path = tmp_path / field
        shutil.copytree(HERE / "v1-msgpack", path)
        store = reseal.Store.load(path)
        change = body_of(field)
        if field.startswith("sealed"):
            last = store.segments["log.00000001"].frames[-1]
            last.payload_bytes = value % 2**32 if field != "sealed" else None
        elif field == "body":
            store.snapshot.header["body_bytes"] = value
        elif field == "record_count":
            store.segments["log.00000009"].frames[-2].record_count = value % 2**32
        elif field == "nbytes":
            entry = store.blobs["blobs/00000001"].index[0]
            entry[1] = value
        else:
            store.blobs["blobs/00000001"].footer[field] = value
        for name, data in store.files(change).items():
            (path / name).write_bytes(data)
        assert peak_of(lambda: verify_store(path)) < 4 * MEBIBYTE, field  # noqa: B023
        assert peak_of(lambda: read(path)) < 4 * MEBIBYTE, field  # noqa: B023
        assert peak_of(lambda: plan_repair(path)) < 4 * MEBIBYTE, field  # noqa: B023
        assert verify_store(path).problems, field


# Time


def test_numbers_that_take_the_square_of_their_length_are_refused() -> None:
    one, other = (random.Random(place).getrandbits(2 * MEBIBYTE) for place in range(2))
    fraction = msgpack.ExtType(25, hostile.msgpack_bytes([one, other]))
    seeds = [msgpack.ExtType(67, hostile.msgpack_bytes([entropy, [], 4, 0])) for entropy in (one, [1] * 10**6)]
    for value in (fraction, *seeds):
        with pytest.raises(CorruptionError), bounded(200 * MEBIBYTE, 5):
            get_codec("msgpack").decode(msgpack.packb(value))


def test_headers_whose_payloads_are_not_theirs_do_not_hold_a_repair_up(tmp_path: Path) -> None:
    """Each is whole, and names half of the file."""
    shutil.copytree(HERE / "v1-msgpack", tmp_path / "s")
    store = reseal.Store.load(tmp_path / "s")
    segment = store.segments["log.00000009"]
    headers, room = 8000, 2 * MEBIBYTE
    frame = replace(segment.frames[0], kind=b"trxR", payload=b"", payload_bytes=room, payload_checksum=0, chain=0)
    segment.frames += [frame] * headers
    segment.rest = bytes(room)
    for name, data in store.files().items():
        (tmp_path / "s" / name).write_bytes(data)
    with bounded(64 * MEBIBYTE, 10):
        plan_repair(tmp_path / "s")


@pytest.mark.parametrize("number", [10**9, 10**18, 10**19, 2**64, 10**20])
def test_the_name_of_a_file_may_hold_any_number(tmp_path: Path, number: int) -> None:
    for snapshot_is_lost in (False, True):
        path = tmp_path / f"{number} {snapshot_is_lost}"
        shutil.copytree(HERE / "v1-msgpack", path)
        for name in (f"log.{number}", f"blobs/{number}", "log.٠٠٠٠٠٠٩٩", "log.000000099"):
            (path / name).write_bytes(b"")
        if snapshot_is_lost:
            (path / "snapshot").unlink()
        attempt(look_and_use, path)
        attempt(repair, path)
        assert (path / "log.٠٠٠٠٠٠٩٩").exists() and (path / "log.000000099").exists(), "they are no names of ours"
        if not snapshot_is_lost:
            assert attempt(read_all, path)


HEAD = ["store_id", "codec", "keep", "generation", "epoch", "sequence", "created", "last_segment", "last_blob"]


@pytest.mark.parametrize("field", ["keep", "generation", "epoch", "sequence", "last_segment", "last_blob"])
def test_a_number_may_be_as_high_as_there_is_room_for_the_next_one(tmp_path: Path, field: str) -> None:
    numbers = [2**31, 10**19 - 2**41, *(high - low for high in (2**32, 10**19, 2**64) for low in (1, 2))]
    for number in numbers:
        path = tmp_path / str(number)
        shutil.copytree(HERE / "v1-msgpack", path)
        store = reseal.Store.load(path)
        store.snapshot.body[0][HEAD.index(field)] = number
        for name, data in store.files().items():
            (path / name).write_bytes(data)
        problems = verify_store(path).problems
        opened = attempt(open_and_use, path)
        assert opened == (not problems)
        assert opened or number > 2**31
        # The last epoch that there is can be reached, and is an end.
        assert attempt(open_and_use, path) == (opened and (field, number) != ("epoch", 2**32 - 2))
        attempt(repair, path)


# Code


class Bomb:
    """Unpickling it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def test_no_code_runs_unless_pickle_is_asked_for(tmp_path: Path, watch: Watch) -> None:
    exploded, path = tmp_path / "exploded", tmp_path / "s"
    with trax.Trax(path, codec="pickle", keep=2) as store:
        store.checkpoint(list=Bomb(exploded), a=Bomb(exploded))
        store.log(list=Bomb(exploded))
        store.checkpoint(a=Bomb(exploded))
        store.log(never=Bomb(exploded))
    for codec in ("pickle", "msgpack", "json", "Pickle", ""):
        claimed = tmp_path / f"claims {codec}"
        shutil.copytree(path, claimed)
        hostile_store = reseal.Store.load(claimed)
        for snapshot in (hostile_store.snapshot, *hostile_store.kept.values()):
            snapshot.body[0][1] = codec
        for name, data in hostile_store.files().items():
            (claimed / name).write_bytes(data)
        with watch.over(str(tmp_path)):
            exercise_all(claimed)
            attempt(trax.Trax, claimed, codec="msgpack")
        assert not exploded.exists()
    line = b'{"$pickle": "%s"}' % base64.b64encode(pickle.dumps(Bomb(exploded)))
    header = b'{"trax": "export", "format": 1, "version": "1", "codec": "%s", "keep": 1, "sequence": 1}\n'
    for codec in (b"pickle", b"msgpack", b"json"):
        data = header % codec + b'{"name": "a", "cut": 0, "sequence": 1, "value": %s}\n' % line
        data += b'{"end": {"names": 1, "records": 0}}\n'
        with watch.over(str(tmp_path)), pytest.raises(trax.errors.CodecError):
            import_store(io.BytesIO(data), tmp_path / "imported")
        assert not exploded.exists()
    with trax.Trax(path, codec="pickle") as store:
        attempt(store.recover, "a")
    assert exploded.exists(), "it is a bomb"
