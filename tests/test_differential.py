"""``differential=True``: only what has changed is written, all is recovered, and there are never too many files."""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest

import trax
from tests import reseal
from tests.counting import count
from tests.helpers import reopen_and_check
from trax.errors import CorruptionError, InvalidArgumentError, MissingFileError
from trax.repair import Repair
from trax.storage.local import blob
from trax.storage.local.fs import LocalFileSystem

MEBIBYTE = 1 << 20
BEGIN = 1 << 16  # where the first buffer of a blob lies
SEED = os.environ.get("TRAX_SEED", "1")


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(blob, "CHUNK_BYTES", 4096)
    return 4096


def an_array(chunks: int, chunk_bytes: int = MEBIBYTE, rest: int = 100) -> Any:
    return np.random.default_rng(1).integers(0, 256, chunks * chunk_bytes + rest, dtype=np.uint8)


def files_of(path: Path) -> dict[int, int]:
    """The files of blobs that there are, and how long each is."""
    return {int(file.name): file.stat().st_size for file in (path / "blobs").iterdir()}


def stored(path: Path, name: str = "x") -> Any:
    """What the snapshot says of the value of a name."""
    return msgpack.unpackb((path / "snapshot").read_bytes()[32:])[3][name][2]


def bases(path: Path, name: str = "x") -> list[int]:
    value = stored(path, name)
    return [base[0] for base in value[3]] if len(value) > 3 else []


def test_only_the_chunks_that_have_changed_are_written(tmp_path: Path) -> None:
    array = an_array(10)
    with trax.Trax(tmp_path / "s", differential=True) as store:
        store.checkpoint(x=array)
        array[3 * MEBIBYTE + 5] ^= 1
        array[-1] ^= 1
        store.checkpoint(x=array)
        store.log(x=b"entry")
        assert bases(tmp_path / "s") == [1]
        assert MEBIBYTE + 100 < files_of(tmp_path / "s")[2] - BEGIN < MEBIBYTE + 1000
        assert np.array_equal(store.recover("x", None, lambda state, _: state), array)
    with reopen_and_check(tmp_path / "s", differential=True) as store:
        array[0] ^= 1  # the next process goes on where that one was
        store.checkpoint(x=array)
        assert bases(tmp_path / "s") == [1, 2]
    with trax.Trax(tmp_path / "s", mode="r") as reader:
        assert np.array_equal(reader.recover("x"), array)
        assert reader.stats()["blobs"] == 3
        assert reader.stats()["blob_bytes"] == sum(files_of(tmp_path / "s").values())


def test_without_the_option_a_value_is_written_whole(tmp_path: Path) -> None:
    array = an_array(4)
    with trax.Trax(tmp_path / "s", differential=True) as store:
        store.checkpoint(x=array)
        store.checkpoint(x=array)
        assert len(stored(tmp_path / "s")) == 4
    with trax.Trax(tmp_path / "s") as store:
        store.checkpoint(x=array)
        assert len(stored(tmp_path / "s")) == 3
        assert [*files_of(tmp_path / "s")] == [3]
    with reopen_and_check(tmp_path / "s") as store:
        assert np.array_equal(store.recover("x"), array)


def test_a_file_stays_as_long_as_something_lies_in_it_and_no_longer(tmp_path: Path) -> None:
    array = an_array(8)
    with trax.Trax(tmp_path / "s", differential=True) as store:
        store.checkpoint(x=array)
        for _ in range(5):
            array[2 * MEBIBYTE] ^= 1
            store.checkpoint(x=array)
        assert bases(tmp_path / "s") == [1], "what the others held has changed since"
        assert {*files_of(tmp_path / "s")} == {1, 6}
        array += 1
        store.checkpoint(x=array)
        assert len(stored(tmp_path / "s")) == 3
        assert [*files_of(tmp_path / "s")] == [7]
    with reopen_and_check(tmp_path / "s", differential=True) as store:
        assert np.array_equal(store.recover("x", mmap=True), array)
        array[0] ^= 1
        store.checkpoint(x=array)
        assert {*files_of(tmp_path / "s")} == {7, 8}
        store.delete("x")
        assert files_of(tmp_path / "s") == {}
        store.checkpoint(x=array)
        assert np.array_equal(store.recover("x", mmap=True), array)
    reopen_and_check(tmp_path / "s").close()


@pytest.mark.parametrize(("changed", "leans"), [(range(5), True), (range(6), False), (range(4, 10), False)])
def test_a_value_of_which_more_than_half_has_changed_is_written_whole(
    tmp_path: Path, small_chunks: int, changed: range, leans: bool
) -> None:
    array = an_array(10, small_chunks)
    with trax.Trax(tmp_path / "s", differential=True) as store:
        store.checkpoint(x=array)
        for place in changed:
            array[place * small_chunks] ^= 1
        store.checkpoint(x=array)
        assert bases(tmp_path / "s") == ([1] if leans else [])
    with reopen_and_check(tmp_path / "s") as store:
        assert np.array_equal(store.recover("x"), array)


def test_there_are_never_more_than_twice_the_bytes_nor_seventeen_files(tmp_path: Path, small_chunks: int) -> None:
    print(f"TRAX_SEED={SEED}")
    for chunks, most_changed in ((100, 1), (40, 12), (5, 2), (5, 1)):
        dice = random.Random(f"{SEED} {chunks}")
        path = tmp_path / f"{chunks}"
        array = an_array(chunks, small_chunks)
        most_files = wholes = 0
        with trax.Trax(path, differential=True) as store:
            for _ in range(60):
                store.checkpoint(x=array)
                files = files_of(path)
                assert {*files} == {stored(path)[0], *bases(path)}
                assert sum(files.values()) <= max(2 * array.nbytes, array.nbytes + 4096)
                most_files = max(most_files, len(files))
                wholes += len(files) == 1
                for _ in range(dice.randint(0, most_changed)):
                    array[dice.randrange(len(array))] ^= 1
            store.checkpoint(x=array)
        assert most_files <= 17
        if most_changed == 1 and chunks == 100:
            assert most_files == 17 and wholes > 1
        with reopen_and_check(path) as store:
            assert np.array_equal(store.recover("x"), array)


class Values:
    """Values of several large parts that change, grow, shrink, come and go."""

    def __init__(self, dice: random.Random, chunk_bytes: int) -> None:
        self._dice, self._chunk_bytes = dice, chunk_bytes
        self._parts = [self._new() for _ in range(3)]

    def next(self) -> list[Any]:
        for _ in range(self._dice.randint(0, 2)):
            self._change(self._dice.randrange(len(self._parts)))
        return [part.copy() if isinstance(part, np.ndarray) else part for part in self._parts]

    def _new(self) -> Any:
        nbytes = self._dice.randint(5, 40) * self._chunk_bytes + self._dice.choice([0, 8, 4000])
        return np.frombuffer(self._dice.randbytes(nbytes), dtype=np.uint8).copy()

    def _change(self, place: int) -> None:
        part, dice = self._parts[place], self._dice
        kind = dice.choice(["items"] * 5 + ["grow", "shrink", "new", "reshape", "bytes", "strided", "swap"])
        flat = np.frombuffer(bytes(part) if isinstance(part, bytes) else part.tobytes(), dtype=np.uint8).copy()
        if kind == "items":
            for _ in range(dice.randint(1, 4)):
                flat[dice.randrange(len(flat))] ^= 1 << dice.randrange(8)
        elif kind == "grow":
            flat = np.concatenate([flat, np.frombuffer(dice.randbytes(5000), dtype=np.uint8)])
        elif kind == "shrink" and len(flat) > 10 * self._chunk_bytes:
            flat = flat[: len(flat) - 8 * dice.randint(1, 1000)].copy()
        elif kind == "new":
            flat = self._new()
        elif kind == "reshape":
            flat = flat[: len(flat) // 16 * 16].reshape(2, -1)
        elif kind == "bytes":
            self._parts[place] = flat.tobytes()
            return
        elif kind == "strided":
            self._parts[place] = np.repeat(flat[: len(flat) // 2], 2)[::2]
            return
        elif kind == "swap":
            self._parts.reverse()
            return
        self._parts[place] = flat


def same(one: list[Any], other: list[Any]) -> bool:
    return len(one) == len(other) and all(
        type(a) is type(b)
        and (a == b if isinstance(a, bytes) else (a.shape, a.dtype) == (b.shape, b.dtype) and np.array_equal(a, b))
        for a, b in zip(one, other, strict=True)
    )


@pytest.mark.parametrize("keep", [1, 3])
def test_whatever_changes_is_recovered(tmp_path: Path, small_chunks: int, keep: int) -> None:
    print(f"TRAX_SEED={SEED}")
    dice = random.Random(f"{SEED} {keep}")
    values = {name: Values(dice, small_chunks) for name in "xy"}
    had: dict[int, dict[str, Any]] = {}
    state: dict[str, Any] = {}
    leaning = 0
    store = trax.Trax(tmp_path / "s", keep=keep, differential=True)
    for number in range(150):
        names = dice.choice(["x", "y", "xy"])
        state = state | {name: values[name].next() for name in names}
        had[store.checkpoint({name: state[name] for name in names})] = state
        leaning += any(bases(tmp_path / "s", name) for name in names)
        if number % 10 == 0:
            store.close()
            store = reopen_and_check(tmp_path / "s", differential=dice.random() < 0.8)
        for name in state:
            assert same(store.recover(name), state[name]), number
        for snapshot in store.snapshots():
            for name in snapshot.names:
                found = store.recover(name, at=snapshot.sequence)
                assert same(found, had[snapshot.sequence][name]), (number, snapshot.sequence)
    store.close()
    count("differential checkpoints", leaning)
    assert leaning > 50
    reopen_and_check(tmp_path / "s").close()


def test_a_value_in_several_files_can_not_be_mapped_and_the_error_says_what_to_do(tmp_path: Path) -> None:
    array = an_array(4)
    with trax.Trax(tmp_path / "s", differential=True) as store:
        store.checkpoint(x=array)
        assert np.array_equal(store.recover("x", mmap=True), array)
        for changed in (0, None):
            if changed is not None:
                array[changed] ^= 1
            store.checkpoint(x=array)
            with pytest.raises(InvalidArgumentError, match=r"without mmap=True, or .* without differential=True"):
                store.recover("x", mmap=True)
            assert np.array_equal(store.recover("x"), array)
    with trax.Trax(tmp_path / "s") as store:
        store.checkpoint(x=array)
        assert np.array_equal(store.recover("x", mmap=True), array)


def flip(path: Path, place: int) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 0x10
    path.write_bytes(data)


def test_a_chunk_that_was_damaged_on_the_disk_is_written_again(tmp_path: Path) -> None:
    array = an_array(8)
    with trax.Trax(tmp_path / "s", differential=True) as store:
        store.checkpoint(x=array)
        flip(tmp_path / "s" / "blobs" / "00000001", BEGIN + 5 * MEBIBYTE)
        assert store.verify().problems
        store.checkpoint(x=array)
        assert bases(tmp_path / "s") == [1]
        assert store.verify().problems == [], "nobody reads the damaged one any more"
        flip(tmp_path / "s" / "blobs" / "00000002", BEGIN)
        (problem,) = store.verify().problems
        assert isinstance(problem, CorruptionError) and problem.path == str(tmp_path / "s" / "blobs" / "00000002")
        store.checkpoint(x=array)
        assert np.array_equal(store.recover("x"), array)
    reopen_and_check(tmp_path / "s").close()


@pytest.mark.parametrize("damage", ["removed", "its seal", "its index", "another", "longer"])
@pytest.mark.parametrize("number", [1, 2])
def test_a_file_that_can_not_be_leant_on_is_not(tmp_path: Path, damage: str, number: int) -> None:
    array = an_array(8)
    with trax.Trax(tmp_path / "s", differential=True) as store:
        store.checkpoint(x=array)
        array[7] ^= 1
        store.checkpoint(x=array)
        victim = tmp_path / "s" / "blobs" / f"{number:08}"
        if damage == "removed":
            victim.unlink()
        elif damage == "another":
            victim.write_bytes((tmp_path / "s" / "blobs" / f"{3 - number:08}").read_bytes())
        elif damage == "longer":
            victim.write_bytes(victim.read_bytes() + b"\0")
        else:
            flip(victim, victim.stat().st_size - (20 if damage == "its seal" else 60))
        (problem,) = store.verify().problems if number == 2 or damage != "its index" else (None,)
        if problem is not None:
            assert isinstance(problem, CorruptionError) and problem.path == str(victim)
            assert isinstance(problem, MissingFileError) == (damage == "removed")
            with pytest.raises(CorruptionError):
                store.recover("x")
        store.checkpoint(x=array)
        assert np.array_equal(store.recover("x"), array)
    with reopen_and_check(tmp_path / "s") as store:
        assert np.array_equal(store.recover("x"), array)


def test_a_chunk_that_can_not_be_read_is_written_again(tmp_path: Path) -> None:
    class BadSector(LocalFileSystem):
        bad = False
        asked = 0

        def preadinto(self, fd: int, target: memoryview, offset: int) -> int:
            if self.bad and offset == BEGIN + 3 * MEBIBYTE:
                self.asked += 1
                raise OSError(5, "Input/output error")
            return super().preadinto(fd, target, offset)

    fs = BadSector()
    array = np.ones(8 * MEBIBYTE, dtype=np.uint8)  # what was read just before would be just as right
    with trax.Trax(tmp_path / "s", differential=True, fs=fs) as store:
        store.checkpoint(x=array)
        fs.bad = True
        store.checkpoint(x=array)
        assert fs.asked == 1
        assert bases(tmp_path / "s") == [1]
        assert np.array_equal(store.recover("x"), array), "from its new place"
    reopen_and_check(tmp_path / "s").close()


@pytest.mark.parametrize("what", ["zeros that are right by now", "a mapped value"])
def test_damage_that_equals_the_value_is_not_leant_on(tmp_path: Path, what: str) -> None:
    array = an_array(8)
    with trax.Trax(tmp_path / "s", differential=True) as store:
        store.checkpoint(x=array)
        if what == "a mapped value":
            array = store.recover("x", mmap=True)
        with open(tmp_path / "s" / "blobs" / "00000001", "r+b") as file:
            file.seek(BEGIN + 5 * MEBIBYTE)
            file.write(bytes(MEBIBYTE))
        if what != "a mapped value":
            array[5 * MEBIBYTE : 6 * MEBIBYTE] = 0
        store.checkpoint(x=array)
        assert bases(tmp_path / "s") == [1]
        assert store.verify().problems == []
    with reopen_and_check(tmp_path / "s") as store:
        assert not store.recover("x")[5 * MEBIBYTE : 6 * MEBIBYTE].any()


class NotingSyncs(LocalFileSystem):
    """Notes the files that were synced, and refuses to sync one of them as often as it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.synced: set[str] = set()
        self.refuse = 0

    def fsync(self, fd: int) -> None:
        path = os.readlink(f"/proc/self/fd/{int(fd)}")
        if self.refuse and os.path.basename(path) == "00000001":
            self.refuse -= 1
            raise OSError(5, "Input/output error")
        super().fsync(fd)
        self.synced.add(os.path.basename(path))


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc, to see what is synced")
@pytest.mark.parametrize("refuse", [0, 1])
def test_a_file_that_this_handle_has_not_written_is_synced_before_it_is_leant_on(tmp_path: Path, refuse: int) -> None:
    """A store that was put back by a plain copy may be in memory only."""
    array = an_array(8)
    with trax.Trax(tmp_path / "s") as store:
        store.checkpoint(x=array)
    fs = NotingSyncs()
    fs.refuse = refuse
    with trax.Trax(tmp_path / "s", differential=True, fs=fs) as store:
        array[0] ^= 1
        store._storage.write_value("x", store._encoder.values({"x": array}, {})["x"])  # type: ignore[union-attr]
        assert ("00000001" in fs.synced) == (not refuse)
        store.checkpoint(x=array)  # the second sync, which would succeed, may do so without what the first has lost
        assert bases(tmp_path / "s") == ([] if refuse else [1])
        fs.synced.clear()
        array[0] ^= 1
        store.checkpoint(x=array)
        assert "00000001" not in fs.synced, "once is enough"


def test_a_head_that_is_most_of_a_value_is_no_reason_to_lean_on_the_rest(tmp_path: Path) -> None:
    array = an_array(1)
    with trax.Trax(tmp_path / "s", differential=True) as store:
        for number in range(2):
            store.checkpoint(x=[array, f"{number}" * 2 * MEBIBYTE])
            assert bases(tmp_path / "s") == []


def slowed(store: trax.Trax) -> tuple[threading.Event, threading.Event]:
    """Let values of other threads wait before they are published: the first event says so, the second ends it."""
    storage = store._writer.storage  # type: ignore[union-attr]
    waiting, go_on = threading.Event(), threading.Event()
    write_value = storage.write_value

    def slow(name: str, encoded: Any) -> Any:
        value = write_value(name, encoded)
        if threading.current_thread() is not threading.main_thread():
            waiting.set()
            assert go_on.wait(20)
        return value

    storage.write_value = slow  # type: ignore[method-assign]
    return waiting, go_on


@pytest.mark.parametrize("late_wins", [False, True])
def test_what_a_checkpoint_in_flight_leans_on_stays(tmp_path: Path, late_wins: bool) -> None:
    array = an_array(4)
    with trax.Trax(tmp_path / "s", differential=True) as store:
        store.checkpoint(x=array)
        waiting, go_on = slowed(store)
        other = array + 1
        if late_wins:  # the one in flight was called later, and the other one published before it
            call, cut = store._writer.publisher.begin()  # type: ignore[union-attr]
        late = store.checkpoint_async(x=array)
        assert waiting.wait(20)
        if late_wins:
            encoded = store._encoder.values({"x": other}, {})["x"]
            store._writer.publisher.publish(call, {"x": trax.publish.Change(encoded, cut)})  # type: ignore[union-attr]
        else:
            store.checkpoint(x=other)
        assert len(stored(tmp_path / "s")) == 3, "whole: all of it has changed"
        store.checkpoint(y=1)
        assert {1, 2, 3} == {*files_of(tmp_path / "s")}, "nothing names the first, and the second leans on it"
        go_on.set()
        late.result(20)
        expected = array if late_wins else other
        assert np.array_equal(store.recover("x"), expected)
        assert store.verify().problems == []
        store.checkpoint(y=2)
        assert {*files_of(tmp_path / "s")} == ({1, 2} if late_wins else {3})
    with reopen_and_check(tmp_path / "s") as store:
        assert np.array_equal(store.recover("x"), expected)


def test_what_lost_against_a_later_call_leaves_no_file_behind(tmp_path: Path) -> None:
    array = an_array(4)
    with trax.Trax(tmp_path / "s", differential=True) as store:
        store.checkpoint(x=array)
        waiting, go_on = slowed(store)
        late = store.checkpoint_async(x=array)
        assert waiting.wait(20)
        store.checkpoint(x=array + 1)
        go_on.set()
        late.result(20)
    assert [*files_of(tmp_path / "s")] == [3]


def test_a_call_that_ends_late_removes_nothing_that_another_leans_on(tmp_path: Path) -> None:
    first = an_array(4)
    with trax.Trax(tmp_path / "s", differential=True) as store:
        publisher, storage = store._writer.publisher, store._writer.storage  # type: ignore[union-attr]
        waiting, go_on, discard = threading.Event(), threading.Event(), storage.discard

        def late(values: Any) -> None:
            if threading.current_thread() is not threading.main_thread():
                waiting.set()
                assert go_on.wait(20)
            discard(values)

        storage.discard = late  # type: ignore[method-assign]
        ending = threading.Thread(target=store.checkpoint, kwargs={"x": first}, daemon=True)
        ending.start()
        assert waiting.wait(20), "it has published, and is yet to say that it is done with its files"
        earlier, cut = publisher.begin()
        second = first.copy()
        second[0] ^= 1
        call, _ = publisher.begin()
        encode = store._encoder.values
        leaning = storage.write_value("x", encode({"x": second}, {})["x"])
        assert leaning.bases[0].number == 1
        publisher.publish(earlier, {"x": trax.publish.Change(encode({"x": first + 1}, {})["x"], cut)})
        go_on.set()
        ending.join(20)
        assert 1 in files_of(tmp_path / "s")
        publisher.publish(call, {"x": trax.publish.Change(encode({"x": second}, {})["x"], cut)})
        assert np.array_equal(store.recover("x"), second)
    reopen_and_check(tmp_path / "s").close()


def test_a_checkpoint_that_fails_holds_on_to_nothing(tmp_path: Path) -> None:
    class Full(LocalFileSystem):
        full = False

        def pwrite(self, fd: int, data: bytes | memoryview, offset: int) -> int:
            if self.full and len(data) > 1000:
                raise OSError(28, "No space left on device")
            return super().pwrite(fd, data, offset)

    fs = Full()
    array = an_array(4)
    with trax.Trax(tmp_path / "s", differential=True, fs=fs) as store:
        store.checkpoint(x=array)
        fs.full = True
        array[0] ^= 1
        with pytest.raises(trax.errors.DiskFullError):
            store.checkpoint(x=array)
        fs.full = False
        assert [*files_of(tmp_path / "s")] == [1]
        array += 1
        store.checkpoint(x=array)
        assert [*files_of(tmp_path / "s")] == [3]
        assert np.array_equal(store.recover("x"), array)


def test_kept_snapshots_and_copies_have_all_that_they_lean_on(tmp_path: Path) -> None:
    array = an_array(6)
    with trax.Trax(tmp_path / "s", differential=True, keep=2) as store:
        had = {}
        for place in range(3):
            array[place * MEBIBYTE] ^= 1
            had[store.checkpoint(x=array)] = array.copy()
        store.copy_to(tmp_path / "copy")
    for path in (tmp_path / "s", tmp_path / "copy"):
        with reopen_and_check(path) as store:
            assert {*files_of(path)} == {1, 2, 3}
            assert [one.sequence for one in store.snapshots()] == [*had][1:]
            for sequence in [*had][1:]:
                assert np.array_equal(store.recover("x", at=sequence), had[sequence])


@pytest.mark.parametrize("keep", [1, 2])
def test_a_repair_drops_the_value_whose_base_is_gone_or_goes_back(tmp_path: Path, keep: int) -> None:
    first, second = an_array(6), an_array(6)
    second[0] ^= 1
    with trax.Trax(tmp_path / "s", differential=True, keep=keep) as store:
        store.checkpoint(x=first, y="stays")
        store.checkpoint(x=second)
    damaged, place = ("00000001", 2 * MEBIBYTE) if keep == 1 else ("00000002", 0)
    flip(tmp_path / "s" / "blobs" / damaged, BEGIN + place)
    with Repair(tmp_path / "s") as repair:
        if keep == 1:
            assert any("blobs/00000002, blobs/00000001" in one for one in repair.plan.lost)
        assert repair.carry_out().ok
    with reopen_and_check(tmp_path / "s") as store:
        assert store.recover("y") == "stays"
        assert store.names() == (["y"] if keep == 1 else ["x", "y"])
        assert keep == 1 or np.array_equal(store.recover("x"), first)
        assert {*files_of(tmp_path / "s")} == (set() if keep == 1 else {1})


@pytest.mark.parametrize("differential", [1, None, "yes"])
def test_the_option_is_true_or_false(tmp_path: Path, differential: Any) -> None:
    with pytest.raises(InvalidArgumentError, match="differential"):
        trax.Trax(tmp_path / "s", differential=differential)
    assert not (tmp_path / "s").exists()


Change = Callable[[Any], Any]


def spread_store(path: Path, rest: int) -> reseal.Store:
    """A store whose value ``x`` lies in the files 1, 2 and 3, taken apart."""
    array = an_array(6, rest=rest)
    with trax.Trax(path, differential=True) as store:
        for place in range(3):
            array[place * MEBIBYTE] ^= 1
            store.checkpoint(x=array)
    assert bases(path) == [1, 2]
    return reseal.Store.load(path)


@pytest.mark.parametrize("rest", [0, 100])
def test_what_no_writer_says_of_bases_is_refused_though_the_checksums_are_right(tmp_path: Path, rest: int) -> None:
    spread = spread_store(tmp_path / "s", rest)
    (runs, nbytes, checksums), *_ = spread.blobs["blobs/00000003"].index

    def assert_refused(store: reseal.Store, change: Change, match: str) -> None:
        for name, data in store.files(change).items():
            (tmp_path / "s" / name).write_bytes(data)
        with pytest.raises(CorruptionError, match=match):
            with trax.Trax(tmp_path / "s") as opened:
                opened.recover("x")

    def in_snapshot(act: Callable[[list[Any]], Any]) -> Change:
        return lambda body: act(body[3]["x"][2])

    snapshots: list[Change] = [
        in_snapshot(lambda value: value[3].reverse()),
        in_snapshot(lambda value: value[3].append(value[3][0])),
        in_snapshot(lambda value: value[3].append([3, 1, 1])),
        in_snapshot(lambda value: value[3].append([4, 1, 1])),
        in_snapshot(lambda value: value[3].clear()),
        in_snapshot(lambda value: value.append(1)),
        in_snapshot(lambda value: value[3][0].append([])),
        in_snapshot(lambda value: value[3][0].pop()),
        in_snapshot(lambda value: value.__setitem__(3, 7)),
        lambda body: body[3].update(other=[0, 1, body[3]["x"][2][3][0]]),  # two names with one file
    ]
    for change in snapshots:
        assert_refused(spread.copy(), change, "contents make no sense")
    seventeen = [[number, 200, 0] for number in range(1, 18)]
    late = in_snapshot(lambda value: value.__setitem__(slice(None), [99, *value[1:3], seventeen]))

    def with_high_numbers(body: Any) -> None:
        body[0][8] = 99
        late(body)

    assert_refused(spread.copy(), with_high_numbers, "contents make no sense")
    assert_refused(spread.copy(), in_snapshot(lambda value: value[3].pop()), "its index makes no sense")
    indexes: list[Any] = [
        [[1, 3, BEGIN], *runs[1:]],
        [[count, min(file, 1), offset] for count, file, offset in runs],
        [[count, file, offset + (1 << 23 if file == 1 else 0)] for count, file, offset in runs],
        [[count, file, offset - (BEGIN if file == 2 else 0)] for count, file, offset in runs],
        [*runs, [1, 1, BEGIN]],
        [[0, 1, BEGIN], *runs],
        [[-1, 1, BEGIN], [1, 1, 64], *runs],
        [[True, *runs[0][1:]], *runs[1:]],
        [[*run, 0] for run in runs],
        runs[:-1],
        [],
        [[1.0, *runs[0][1:]], *runs[1:]],
        [[runs[0][0], 1.0, runs[0][2]], *runs[1:]],
        [7],
        None,
        "runs",
    ]
    for place in indexes:
        store = spread.copy()
        store.blobs["blobs/00000003"].index = [[place, nbytes, checksums]]
        assert_refused(store, lambda body: None, "its index makes no sense")


def test_layers_take_the_option_too(tmp_path: Path) -> None:
    from trax.layers import LayerStore

    array = an_array(4)
    with LayerStore(tmp_path / "s", differential=True) as store:
        for place in range(2):
            array[place] ^= 1
            store.checkpoint(x=array)
        store.log(x=1)
        assert len(bases(tmp_path / "s")) == 1
    with reopen_and_check(tmp_path / "s") as store:
        assert np.array_equal(store.recover("x", None, lambda state, _: state), array)
