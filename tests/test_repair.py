"""``trax repair``: what it says before it does anything, what it saves, and what a crash inside it leaves."""

from __future__ import annotations

import collections
import errno
import logging
import os
import random
import re
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import trax
from tests.counting import count
from tests.helpers import kill, reopen_and_check
from tests.test_cli import flip, on_terminal, run
from trax.inspection import verify_store
from trax.repair import Repair
from trax.storage.local import compaction
from trax.storage.local.commit_point import load_snapshot
from trax.storage.local.fs import LocalFileSystem
from trax.storage.local.layout import Layout
from trax.testing.disks import crash_images
from trax.testing.recording import RecordingFileSystem

SEED = os.environ.get("TRAX_SEED", "20261121")
RUNS = int(os.environ.get("TRAX_REPAIR_RUNS", "150"))
MEMORY = "/dev/shm" if os.path.isdir("/dev/shm") else None
LARGE = "x" * 6000

Files = dict[str, bytes]


def fold(state: list[Any], entry: Any) -> list[Any]:
    return [*state, entry]


def files_of(path: Path) -> Files:
    return {
        str(file.relative_to(path)): file.read_bytes()
        for file in path.rglob("*")
        if file.is_file() and file.name != "lock"
    }


def kept_under_removed(path: Path) -> Files:
    """What the newest repair has left out, by the names that it had."""
    newest = max((path / "removed").iterdir())
    return files_of(newest)


def flip_record(segment: Path, number: int) -> None:
    """Damage the payload of a frame."""
    flip(segment, [found.end() for found in re.finditer(b"trxR", segment.read_bytes())][number] + 50)


def states(path: Path) -> dict[str, Any]:
    with reopen_and_check(path) as store:
        return {name: store.recover(name, replay_log=fold) for name in store.names()}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Everything that changes is logged. Sequence: 1 checkpoint, 2 to 6 logs, 7 checkpoint, 8 to 10 logs, 11, 12."""
    path = tmp_path / "store"
    with trax.Trax(path, keep=2) as store:
        store.checkpoint(a=[LARGE], b=[0])
        for number in range(1, 6):
            store.log(a=number, b=number)
        store.checkpoint(a=[LARGE, 1, 2, 3, 4, 5])
        for number in range(6, 9):
            store.log(a=number, b=number)
        store.checkpoint(c=["first"])
        store.log(b=9, c=9)
    return path


A, B, C = [LARGE, *range(1, 9)], [*range(10)], ["first", 9]


# What it says and asks


def test_a_whole_store_needs_no_repair_and_is_not_touched(path: Path) -> None:
    before = files_of(path)
    for arguments in ([], ["--yes"]):
        done = run("repair", path, *arguments)
        assert (done.returncode, done.stdout) == (0, f"{path}: nothing to repair\n")
    assert files_of(path) == before
    assert states(path) == {"a": A, "b": B, "c": C}


def test_a_torn_tail_needs_no_repair(path: Path) -> None:
    with (path / "log.00000003").open("ab") as segment:
        segment.write(b"trxRxxxx")
    assert run("repair", path).stdout == f"{path}: nothing to repair\n"


def test_it_says_everything_first_and_does_nothing_unasked(path: Path) -> None:
    flip_record(path / "log.00000002", 2)
    before = files_of(path)
    done = run("repair", path)
    assert done.returncode == 3
    assert done.stdout.splitlines() == [
        "What is wrong:",
        "  - log.00000002, byte 264: the frame's payload does not match its checksum (behind sequence 9)",
        "",
        "What will be lost:",
        "  - the log from sequence 10 to 12; 1 whole record behind the damage can be found in the removed files only",
        "  - 'b': 1 entry of these",
        "  - 'c': 1 entry of these",
        "  - going back (at=) to sequences below 12; so far it reached 7",
        "",
        "What will be kept:",
        "  - 'a', 'b': as of sequence 9",
        "  - 'c': as of sequence 10, which its checkpointed value contains",
        "",
        f"Every file that is replaced or left out is kept under {path}/removed/" + done.stdout.strip()[-16:],
    ]
    assert "there is no terminal to ask on; --yes does it without asking" in done.stderr
    for typed in ("n\n", "\n", "\x04", "nonsense\n"):
        code, shown = on_terminal("repair", path, typed=typed)
        assert code == 3
        assert "Repair the store like this? [y/N]" in shown
        assert "What will be lost:" in shown
        assert max(map(len, shown.splitlines())) <= 80 or str(path) in shown
    assert files_of(path) == before


def test_yes_on_the_terminal_or_on_the_command_line_does_it(path: Path) -> None:
    damaged = path.with_name("damaged")
    flip_record(path / "log.00000002", 2)
    shutil.copytree(path, damaged)
    assert on_terminal("repair", path, typed="y\n")[0] == 0
    done = run("repair", damaged, "--yes")
    assert done.returncode == 0
    assert done.stdout.splitlines()[-1].startswith(
        f"{damaged}: repaired; what it had before is under {damaged}/removed/"
    )
    assert states(path) == states(damaged)
    assert run("verify", path).returncode == run("verify", damaged).returncode == 0
    assert "nothing to repair" in run("repair", path).stdout
    assert "Removed   1 directory of files that repairs left out" in run("info", path).stdout


def test_a_store_in_use_is_not_repaired(path: Path) -> None:
    with trax.Trax(path) as store:
        done = run("repair", path, "--yes")
        assert done.returncode == 1
        assert f"is in use by pid {os.getpid()}" in done.stderr
        store.log(a=9)


# What it saves


def test_the_log_ends_before_the_damage_in_a_sealed_segment(path: Path) -> None:
    flip_record(path / "log.00000001", 2)
    before = files_of(path)
    assert verify_store(path).problems[0].sequence == 3
    assert run("repair", path, "--yes").returncode == 0
    removed = kept_under_removed(path)
    for name in ("snapshot", "log.00000001", "log.00000002", "log.00000003", "kept/00000003"):
        assert removed[name] == before[name], name
    # a and c contain more than the log still has; b is of the time before the damage.
    assert states(path) == {"a": [LARGE, 1, 2, 3, 4, 5], "b": [0, 1, 2], "c": ["first"]}


def test_sequences_that_were_lost_are_not_given_out_again(path: Path) -> None:
    flip_record(path / "log.00000001", 2)
    run("repair", path, "--yes")
    with trax.Trax(path) as store:
        assert store.log(b="new") > 12
        assert store.recover("b", replay_log=fold) == [0, 1, 2, "new"]


def test_the_sequence_of_a_lost_last_record_is_not_given_out_again(tmp_path: Path) -> None:
    """Its frame's header, or the mark behind it, still names it."""
    for end in ("closed", "killed"):
        path = tmp_path / end
        store = trax.Trax(path)
        store.checkpoint(a=[0])
        last = [store.log(a=number) for number in range(3)][-1]
        store.close() if end == "closed" else kill(store)
        flip_record(path / "log.00000001", 1 if end == "killed" else 2)
        assert run("repair", path, "--yes").returncode == 0
        with trax.Trax(path) as store:
            assert store.log(a="new") > last


def test_a_log_that_was_put_together_is_not_written_again_by_the_next_writer(path: Path) -> None:
    (path / "snapshot").unlink()
    run("repair", path, "--yes")
    with trax.Trax(path) as store:
        assert store.stats()["rewritten_records"] == 0


@pytest.mark.parametrize("what", ["log", "snapshot", "kept"])
def test_the_repaired_store_is_newer_than_everything_before(path: Path, what: str) -> None:
    fs, layout = LocalFileSystem(), Layout(path)
    before = load_snapshot(fs, layout.snapshot)
    damaged_stores()[what](path)
    run("repair", path, "--yes")
    after = load_snapshot(fs, layout.snapshot)
    kept = [int(file.name) for file in path.glob("kept/*")]
    assert after.generation > max([before.generation if what != "snapshot" else 0, *kept])
    assert after.epoch > before.epoch
    assert after.sequence >= before.sequence
    assert after.last_blob >= before.last_blob
    assert after.last_segment == max(int(file.suffix[1:]) for file in path.glob("log.*"))


def test_going_back_does_not_reach_over_what_was_lost(path: Path) -> None:
    flip_record(path / "log.00000001", 2)
    run("repair", path, "--yes")
    with trax.Trax(path) as store:
        assert len(store.snapshots()) == 1
        with pytest.raises(trax.errors.UnreachableError):
            store.recover("b", at=8)


def test_damage_in_the_active_segment(tmp_path: Path) -> None:
    path = tmp_path / "store"
    with trax.Trax(path) as store:
        store.checkpoint(a=[])
        offsets = []
        for number in range(6):
            offsets.append(store._storage._writer.tail.offset)  # type: ignore[union-attr]
            store.log(a=number)
    flip(path / "log.00000001", offsets[3] + 50)
    done = run("repair", path, "--yes")
    assert done.returncode == 0
    assert "the log from sequence 5 to 7; 2 whole records behind the damage" in done.stdout
    assert states(path) == {"a": [0, 1, 2]}


@pytest.mark.parametrize("name", ["log.00000001", "log.00000002", "log.00000003"])
def test_a_missing_segment(path: Path, name: str) -> None:
    (path / name).unlink()
    done = run("repair", path, "--yes")
    assert done.returncode == 0
    assert f"  - {name}: a file is missing\n" in done.stdout
    expected = {
        "log.00000001": {"a": A[:6], "b": [0], "c": C[:1]},
        "log.00000002": {"a": A[:6], "b": B[:6], "c": C[:1]},
        "log.00000003": {"a": A, "b": B[:9], "c": C[:1]},
    }
    assert states(path) == expected[name]


def test_a_damaged_blob_brings_back_the_kept_snapshot_and_the_log_since(path: Path) -> None:
    with trax.Trax(path) as store:
        store.checkpoint(a=A)
    flip(path / "blobs" / "00000003", 3000)
    before = files_of(path)
    done = run("repair", path, "--yes")
    assert done.returncode == 0
    assert "the snapshot of sequence 13: that of sequence 11 takes its place" in done.stdout
    assert "'a': what was checkpointed since and is not in the log" in done.stdout
    assert states(path) == {"a": A, "b": B, "c": C}
    assert kept_under_removed(path)["blobs/00000003"] == before["blobs/00000003"]


def test_a_damaged_blob_that_no_kept_snapshot_can_replace_drops_its_name(path: Path) -> None:
    with trax.Trax(path) as store:
        store.log(a=9)
    flip(path / "blobs" / "00000002", 3000)  # the value of a in both snapshots
    before = files_of(path)
    done = run("repair", path, "--yes")
    assert done.returncode == 0
    assert "'a': its value, which was in blobs/00000002; its entries in the log are hidden" in done.stdout
    assert states(path) == {"b": B, "c": C}
    removed = kept_under_removed(path)
    assert removed["blobs/00000002"] == before["blobs/00000002"]
    for name in ("log.00000002", "log.00000003"):  # the latter is still appended to
        assert removed[name] == before[name]
    with trax.Trax(path) as store:
        assert store.recover("a", create=lambda: ["anew"], replay_log=fold) == ["anew"]
        store.log(a=1)
        assert store.recover("a", replay_log=fold) == ["anew", 1]
    assert kept_under_removed(path) == removed


@pytest.mark.parametrize("how", ["damaged", "missing", "put back"])
def test_without_its_snapshot_a_store_goes_on_from_the_kept_one(path: Path, how: str) -> None:
    if how == "damaged":
        flip(path / "snapshot", 60)
    elif how == "missing":
        (path / "snapshot").unlink()
    else:
        shutil.copy(next(path.glob("kept/*")), path / "snapshot")
    before = files_of(path)
    done = run("repair", path, "--yes")
    assert done.returncode == 0, done.stderr
    assert "that of sequence 7 takes its place" in done.stdout
    removed = kept_under_removed(path)
    assert all(removed[name] == data for name, data in before.items() if name.startswith(("log", "snapshot")))
    # c was checkpointed first after that snapshot, and never logged until then.
    assert states(path) == {"a": A, "b": B}
    with trax.Trax(path) as store:
        assert [entry for _, entry in store.entries("c")] == [9]


def test_what_a_fenced_writer_added_does_not_come_back(tmp_path: Path) -> None:
    """Its records were never acknowledged, and others have their sequences."""
    path, fenced = tmp_path / "store", tmp_path / "fenced"
    with trax.Trax(fenced, keep=2) as store:
        store.checkpoint(a=[])
        store.checkpoint(b=[])
        for number in (3, 4, 5):
            store.log(a=number)
        shutil.copytree(fenced, path)
        for number in (6, 7, 8):
            store.log(a=-number)
        late = (fenced / "log.00000001").read_bytes()
    with trax.Trax(path) as store:
        assert store.log(a=6) == 6
    assert (path / "log.00000002").exists()
    (path / "log.00000001").write_bytes(late)
    assert states(path) == {"a": [3, 4, 5, 6], "b": []}
    (path / "snapshot").unlink()
    assert run("repair", path, "--yes").returncode == 0
    assert states(path) == {"a": [3, 4, 5, 6]}


@pytest.mark.usefixtures("_compact_early")
@pytest.mark.parametrize("how", ["in the middle", "at its beginning", "no header", "missing"])
def test_the_log_ends_before_a_damaged_copy_of_it(tmp_path: Path, how: str) -> None:
    path = tmp_path / "store"
    fs, layout = LocalFileSystem(), Layout(path)
    with trax.Trax(path, keep=2) as store:
        store.checkpoint(a=[], pinned=[])
        number = 0
        while not (copies := copies_since_the_kept_snapshot(fs, layout)):
            number += 1
            store.log(pinned=number)
            store.checkpoint(a=number)
        store.log(pinned=number + 1)
    (path / "snapshot").unlink()
    copy = path / f"log.{copies[0]:08}"
    if how == "missing":
        copy.unlink()
    else:
        flip(copy, {"no header": 10, "at its beginning": 120, "in the middle": 240}[how])
    done = run("repair", path, "--yes")
    assert done.returncode == 0
    pinned = states(path)["pinned"]
    if how == "missing":
        assert "is not there. Most likely it was not needed any more; if it was lost" in " ".join(done.stdout.split())
    else:
        assert pinned == [1, 2] if how == "in the middle" else pinned == []


def copies_since_the_kept_snapshot(fs: LocalFileSystem, layout: Layout) -> list[int]:
    current = load_snapshot(fs, layout.snapshot)
    if not current.kept:
        return []
    kept = load_snapshot(fs, layout.kept_snapshot(current.kept[-1].generation))
    known = {segment.number for segment in kept.segments}
    return [one.number for one in current.segments[:-1] if one.number not in known]


def test_without_any_snapshot_it_only_says_what_is_there(path: Path) -> None:
    flip(path / "snapshot", 60)
    flip(next(path.glob("kept/*")), 60)
    before = files_of(path)
    done = run("repair", path, "--yes")
    assert done.returncode == 1
    assert "It can't be repaired." in done.stdout
    assert "log.00000001 holds 5 whole records, up to sequence 6, of 'a', 'b'" in done.stdout
    assert "blobs/00000002 holds a value, and only a snapshot says of which name" in done.stdout
    assert files_of(path) == before


def test_a_damaged_kept_snapshot_costs_only_going_back(path: Path) -> None:
    flip(next(path.glob("kept/*")), 60)
    done = run("repair", path, "--yes")
    assert done.returncode == 0
    assert "going back (at=) to sequences below 11; so far it reached 7" in done.stdout
    assert states(path) == {"a": A, "b": B, "c": C}


def test_missing_directories_are_made_again(tmp_path: Path) -> None:
    path = tmp_path / "store"
    with trax.Trax(path) as store:
        store.checkpoint(a=[1])
    (path / "blobs").rmdir()
    (path / "kept").rmdir()
    done = run("repair", path, "--yes")
    assert done.returncode == 0
    assert "What will be lost:\n  - nothing\n" in done.stdout
    assert states(path) == {"a": [1]}


def test_a_repair_within_the_same_second_has_a_directory_of_its_own(path: Path) -> None:
    flip_record(path / "log.00000002", 2)
    with Repair(path) as repair:
        os.makedirs(repair.removed)
        assert repair.carry_out().ok
        assert repair.removed.endswith("-2")


# Random damage


@pytest.fixture
def _compact_early(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(compaction, "LARGE_BYTES", 200)
    monkeypatch.setattr(compaction, "MANY_SEGMENTS", 2)
    logging.getLogger("trax").setLevel(logging.CRITICAL)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
    logging.getLogger("trax").setLevel(logging.NOTSET)


def random_store(dice: random.Random, path: Path, codec: str) -> dict[str, list[Any]]:
    """A store of which everything was logged, and the states it had at its end."""
    state: dict[str, list[Any]] = collections.defaultdict(list)
    store = trax.Trax(path, keep=dice.choice([1, 2, 3]), codec=codec, sync=dice.choice(["always", "os"]))
    for number in range(dice.randrange(5, 40)):
        call = dice.choice(["log"] * 6 + ["checkpoint"] * 3 + ["large", "batch", "sync", "reopen", "kill"])
        names = dice.sample("abcd", dice.randint(1, 3))
        if call in ("log", "large", "batch"):
            entry = "z" * 5000 + str(number) if call == "large" else number
            for name in names:
                state[name].append(entry)
        if call == "log":
            store.log(dict.fromkeys(names, number))
        elif call == "large":
            store.log(dict.fromkeys(names, state[names[0]][-1]))
            store.checkpoint({name: list(state[name]) for name in names})
        elif call == "checkpoint":
            store.checkpoint({name: list(state[name]) for name in names})
        elif call == "batch":
            with store.batch() as batch:
                # Not one of the names: what a batch logs before it checkpoints the same name does not reach the log.
                other = next(name for name in "abcd" if name not in names)
                batch.log(dict.fromkeys(names, number))
                batch.checkpoint({other: list(state[other])})
        elif call == "sync":
            store.sync()
        else:
            store = reopened(store, path, codec, killed=call == "kill")
    reopened(store, path, codec, killed=dice.random() < 0.5).close()
    return state


def reopened(store: trax.Trax, path: Path, codec: str, *, killed: bool) -> trax.Trax:
    if killed:  # a copy of a live store is what SIGKILL leaves
        shutil.copytree(path, path.with_name("killed"))
    store.close()
    if killed:
        shutil.rmtree(path)
        path.with_name("killed").rename(path)
    return trax.Trax(path, codec=codec)


def damage(dice: random.Random, path: Path) -> list[tuple[str, str]]:
    done = []
    for _ in range(dice.choice([1, 1, 1, 2, 3])):
        files = sorted(file for file in path.rglob("*") if file.is_file() and file.name != "lock")
        file = dice.choice(files)
        data = bytearray(file.read_bytes())
        at = dice.randrange(len(data.rstrip(b"\0")) or 1)
        how = dice.choice(["flip", "flip", "flip", "cut", "remove", "zero"])
        done.append((how, str(file.relative_to(path))))
        if how == "remove":
            file.unlink()
            continue
        if how == "flip" and data:
            data[at] ^= 1 << dice.randrange(8)
        elif how == "cut":
            del data[at:]
        else:
            data[at : at + 300] = bytes(len(data[at : at + 300]))
        file.write_bytes(data)
    return done


@pytest.mark.usefixtures("_compact_early")
def test_whatever_is_damaged_what_comes_back_had_been_there() -> None:
    print(f"TRAX_SEED={SEED}")
    outcomes: collections.Counter[str] = collections.Counter()
    for run_number in range(RUNS):
        dice = random.Random(f"{SEED}-{run_number}")
        with tempfile.TemporaryDirectory(dir=MEMORY) as directory:
            path = Path(directory, "store")
            try:
                outcomes[repair_at_random(dice, path)] += 1
            except BaseException as error:
                error.add_note(f"in run {run_number}")
                raise
    print(dict(outcomes))
    count("repairs of damaged stores", RUNS)
    assert outcomes["everything"] and outcomes["a part"] and outcomes["impossible"], outcomes


def repair_at_random(dice: random.Random, path: Path) -> str:
    codec = dice.choice(["msgpack", "json"])
    state = random_store(dice, path, codec)
    what = damage(dice, path)
    before = files_of(path)
    try:
        problems = verify_store(path).problems
        with Repair(path) as repair:
            assert repair.needed == bool(problems), (what, problems)
            assert files_of(path) == before, "planning has changed something"
            if repair.possible:
                assert repair.carry_out().ok, what
    except (trax.errors.FormatError, trax.errors.StoreNotFoundError) as error:
        return type(error).__name__  # a flipped version; no trace of a store left
    after = set(files_of(path).values())
    assert all(data in after for data in before.values()), f"something was thrown away: {what}"
    if repair.needed and not repair.possible:
        return "impossible"
    missing = repair.plan.rewritten.missing if repair.plan.rewritten is not None else []
    everything = check_states(path, codec, state, what, said=bool(missing))
    return "not needed" if not repair.needed else "everything" if everything else "a part"


def check_states(path: Path, codec: str, state: dict[str, list[Any]], what: object, *, said: bool) -> bool:
    """Each state is one that the store had, unless the plan said that a whole file may be missing in the middle."""
    everything = True
    with reopen_and_check(path, codec=codec) as store:
        for name in store.names():
            got = store.recover(name, replay_log=fold)
            assert said or got == state[name][: len(got)], (what, name)
            everything &= got == state[name]
        assert set(store.names()) <= state.keys()
        sequence = store.log(a="new")
        store.checkpoint(b=["new"])
        assert [entry for number, entry in store.entries("a") if number == sequence] == ["new"]
    reopen_and_check(path, codec=codec).close()
    return everything


# Crashes and refusals inside a repair


def damaged_stores() -> dict[str, Callable[[Path], None]]:
    return {
        "log": lambda path: flip_record(path / "log.00000001", 2),
        "snapshot": lambda path: flip(path / "snapshot", 60),
        "blob": lambda path: flip(path / "blobs" / "00000002", 3000),
        "kept": lambda path: flip(next(path.glob("kept/*")), 60),
        "directory": lambda path: shutil.rmtree(path / "kept"),
    }


def test_what_a_repair_has_put_together_has_no_torn_tail_after_a_power_loss(path: Path) -> None:
    flip(path / "snapshot", 60)
    fs = RecordingFileSystem(path.parent)
    with Repair(path, fs=fs) as repair:
        assert repair.plan.rewritten is not None
        assert repair.carry_out().ok
    for _, image in crash_images(fs.start, fs.operations, random.Random(SEED), 60, after=len(fs.operations)):
        with tempfile.TemporaryDirectory(dir=MEMORY) as directory:
            image.lay_out(directory)
            with trax.Trax(Path(directory, path.name)) as store:
                assert (store.stats()["rewritten_records"], store.stats()["torn_bytes"]) == (0, 0)


class RecordingWithoutLinks(RecordingFileSystem):
    def link(self, source: str, target: str) -> None:
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))


@pytest.mark.parametrize(
    ("what", "make_fs"),
    [*((what, RecordingFileSystem) for what in damaged_stores()), ("snapshot", RecordingWithoutLinks)],
)
def test_power_loss_anywhere_leaves_the_damaged_store_or_the_repaired_one(
    path: Path, what: str, make_fs: type[RecordingFileSystem]
) -> None:
    print(f"TRAX_SEED={SEED}")
    damaged_stores()[what](path)
    before = files_of(path)
    problems = [str(problem) for problem in verify_store(path).problems]
    fs = make_fs(path.parent)
    with Repair(path, fs=fs) as repair:
        assert repair.carry_out().ok
        fs.note("done")
    expected = states(path)
    outcomes = collections.Counter()
    with tempfile.TemporaryDirectory(dir=MEMORY) as directory:
        for done, image in crash_images(fs.start, fs.operations, random.Random(SEED), 12):
            scratch = Path(directory, "crash")
            shutil.rmtree(scratch, ignore_errors=True)
            scratch.mkdir()
            image.lay_out(str(scratch))
            crashed = scratch / path.name
            finished = any(operation.note == "done" for operation in fs.operations[:done])
            found = [str(problem) for problem in verify_store(crashed).problems]
            if found:
                assert not finished
                expected_problems = [problem.replace(str(path), str(crashed)) for problem in problems]
                if what == "directory":  # it may be there already
                    assert {*found} <= {*expected_problems}, done
                else:
                    assert found == expected_problems, done
                assert all(files_of(crashed)[name] == data for name, data in before.items()), done
                with Repair(crashed) as again:
                    assert again.carry_out().ok
            outcomes["damaged" if found else "repaired"] += 1
            after = set(files_of(crashed).values())
            assert all(data in after for data in before.values()), done
            assert states(crashed) == expected, done
    assert min(outcomes["damaged"], outcomes["repaired"]) > 10, outcomes


class Refusing(LocalFileSystem):
    """Refuses one call."""

    def __init__(self, refused: int) -> None:
        self.refused, self.calls = refused, 0

    def _count(self) -> None:
        self.calls += 1
        if self.calls == self.refused:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def create(self, path: str, mode: int | None = None) -> int:
        self._count()
        return super().create(path, mode)

    def pwrite(self, fd: int, data: bytes | memoryview, offset: int) -> int:
        self._count()
        return super().pwrite(fd, data, offset)

    def fsync(self, fd: int) -> None:
        self._count()
        super().fsync(fd)

    def mkdir(self, path: str) -> None:
        self._count()
        super().mkdir(path)

    def link(self, source: str, target: str) -> None:
        self._count()
        super().link(source, target)

    def rename(self, source: str, target: str) -> None:
        self._count()
        super().rename(source, target)


@pytest.mark.parametrize("what", damaged_stores())
def test_a_full_disk_anywhere_leaves_a_store_that_can_be_repaired_again(path: Path, what: str, tmp_path: Path) -> None:
    damaged_stores()[what](path)
    refused = 0
    while True:
        refused += 1
        copy = tmp_path / "copy"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(path, copy)
        try:
            with Repair(copy, fs=Refusing(refused)) as repair:
                repair.carry_out()
        except OSError:  # a TraxError: whatever the file system refuses, this is what a caller gets
            pass
        else:
            break
        if not verify_store(copy).ok:
            with Repair(copy) as repair:
                assert repair.carry_out().ok
        reopen_and_check(copy).close()
    assert refused > 8


class NoLinks(LocalFileSystem):
    def link(self, source: str, target: str) -> None:
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))


def test_where_there_are_no_hard_links_files_are_copied(path: Path) -> None:
    flip_record(path / "log.00000001", 2)
    before = files_of(path)
    with Repair(path, fs=NoLinks()) as repair:
        assert repair.carry_out().ok
    removed = kept_under_removed(path)
    assert removed["log.00000001"] == before["log.00000001"]
    assert removed["snapshot"] == before["snapshot"]


def test_a_kept_snapshot_under_the_name_of_another_is_not_taken_for_that(path: Path) -> None:
    flip(path / "snapshot", 60)
    kept = next(path.glob("kept/*"))
    kept.rename(kept.with_name(f"{int(kept.name) + 5:0{len(kept.name)}}"))
    with Repair(path) as repair:
        assert not repair.possible, "the only snapshot that can be read does not say of which state it is"


def another_history(path: Path, *, goes_on: bool = False) -> None:
    """Put a segment in its place that was written from the same beginnings, in a copy of the store."""
    copy = path.with_name("copy")
    shutil.copytree(path, copy)
    for one, entry in ((path, "here"), (copy, "there")):
        with trax.Trax(one) as store:
            store.log(b=entry, c=entry)
            store.checkpoint(a=1)
            newest = max(one.glob("log.*")).name
            store.log(c=entry)
            if goes_on:
                store.checkpoint(d=1)
                store.log(d=1)
    assert (path / newest).exists()
    shutil.copy(copy / newest, path)


def another_history_of_a_kept_snapshot(path: Path) -> None:
    """Do so with a segment that the kept snapshot names."""
    another_history(path, goes_on=True)


def another_store(path: Path) -> None:
    """Put a segment of the same number in its place that another store has written."""
    with trax.Trax(path.with_name("other")) as store:
        store.log(b="not of this store", c="not of this store")
    newest = max(path.glob("log.*"))
    other = path.with_name("other") / "log.00000001"
    for number in range(2, int(newest.name[4:]) + 1):
        with trax.Trax(path.with_name("other")) as store:
            store.log(b="not of this store", c="not of this store")
            store.checkpoint(a=number)
            store.log(b="not of this store", c="not of this store")
        if (other := path.with_name("other") / newest.name).exists():
            break
    shutil.copy(other, path / newest.name)


@pytest.mark.parametrize(
    ("put", "snapshot"),
    [
        (another_history, "whole"),  # without the snapshot nothing says which history a last segment is of
        (another_history_of_a_kept_snapshot, "gone"),
        (another_store, "whole"),
        (another_store, "gone"),
    ],
)
def test_a_segment_of_another_history_or_store_is_not_saved_from(
    path: Path, put: Callable[[Path], None], snapshot: str
) -> None:
    put(path)
    if snapshot == "gone":
        (path / "snapshot").unlink()
    with Repair(path) as repair:
        assert repair.carry_out().ok
    found = states(path)
    assert not any("there" in str(value) or "not of this" in str(value) for value in found.values()), found
