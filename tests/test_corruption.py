"""Every byte changed, every sector zeroed, every file cut, removed, exchanged, put back: the exact state, or an error.

Each damaged store is also read by :class:`tests.witness.Witness`, which knows nothing of ``trax``: both must say the
same. What it says must be the state that the store had, or that it is damaged. There are two exceptions, and their
extent is tested here: damage of the active segment that looks like a crash costs the end of the log; and files that
were put back from an older copy of the same store may bring an older state back.
"""

from __future__ import annotations

import os
import random
import shutil
import tempfile
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import trax
from tests.counting import count
from tests.crashing import fold
from tests.damage import (
    KINDS,
    Damage,
    Files,
    State,
    Subject,
    damages,
    lay_out,
    make,
    read_files,
    small_stores,
    without_room,
)
from tests.helpers import kill
from tests.witness import DamagedError, Witness, walk
from trax.inspection import verify_store

STRIDE = int(os.environ.get("TRAX_CORRUPTION_STRIDE", "100"))
SEED = os.environ.get("TRAX_SEED", "1")


@pytest.fixture(scope="module")
def scratch() -> Iterator[Path]:
    memory = "/dev/shm" if Path("/dev/shm").is_dir() else None
    with tempfile.TemporaryDirectory(dir=memory) as directory:
        yield Path(directory)


@dataclass
class Outcome:
    """What a store was found to be: refused, or the state of each name, now and at some sequences, and torn tails."""

    refused: trax.TraxError | None = None
    states: dict[int | None, State] = field(default_factory=dict)
    torn: bool = False


def open_damaged(files: Files, path: Path, moments: Sequence[int] = ()) -> Outcome:
    """Lay the files out, open the store for writing, recover everything, and log something."""
    lay_out(files, path)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            store = trax.Trax(path)
        except trax.errors.CorruptionError as error:
            refuses_again_and_changes_nothing(error, files, path)
            return Outcome(error)
    torn = sum(issubclass(one.category, trax.errors.TornTailWarning) for one in caught)
    assert torn <= 1
    with store:
        outcome = Outcome(None, states_of(store, moments), bool(torn))
        if "a" in (state := outcome.states[None]) and not isinstance(state["a"], Exception):
            store.log(a="after")
            assert store.recover("a", None, fold) == [*state["a"], "after"]
    return outcome


def refuses_again_and_changes_nothing(error: trax.TraxError, files: Files, path: Path) -> None:
    with pytest.raises(type(error)) as again:
        trax.Trax(path)
    assert str(again.value) == str(error)
    assert read_files(path) == files
    assert {one.name for one in path.iterdir() if one.is_dir()} - {"removed"} == {"blobs", "kept"}


def states_of(store: trax.Trax, moments: Sequence[int]) -> dict[int | None, State]:
    """What each name is recovered to, or the error, now and at some sequences, if they can be reached."""
    names: dict[int | None, list[str]] = {None: store.names()}
    for snapshot in store.snapshots():
        names |= {at: list(snapshot.names) for at in moments if at >= snapshot.sequence}
    return {at: recovered(store, those, at) for at, those in names.items()}


def recovered(store: trax.Trax, names: list[str], at: int | None = None) -> State:
    """All at once, or one by one if that is refused."""
    try:
        return store.recover_many(names, None, fold, at=at)
    except trax.errors.CorruptionError as error:
        if len(names) == 1:
            return {names[0]: error}
        return {name: recovered(store, [name], at)[name] for name in names}


def witnessed(files: Files, subject: Subject) -> Outcome:
    """The same, as the witness says: now, at each snapshot, and at the last commit before the current one."""
    try:
        witness = Witness(files)
    except DamagedError as error:
        return Outcome(trax.errors.CorruptionError(str(error)))
    *kept, last = witness.sequences
    moments = {*kept, max(one for one in subject.states if one < last)} if kept else set()
    return Outcome(None, {at: witness.state(at) for at in [None, *sorted(moments)]}, witness.torn)


def errors_in(state: State) -> list[Any]:
    return [value for value in state.values() if isinstance(value, Exception)]


def same(one: Any, other: Any) -> bool:
    """Whether two states are the same; an error is like any other error."""
    if isinstance(one, Exception) or isinstance(other, Exception):
        return isinstance(one, Exception) and isinstance(other, Exception)
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    return bool(one == other)


def judge(subject: Subject, damage: Damage, outcome: Outcome) -> str:
    """Which of the allowed outcomes it is."""
    if outcome.refused is not None:
        return "refused"
    last = max(subject.states)
    if all(agrees(subject, outcome, at, last) for at in outcome.states):
        return "some names refused" if any(map(errors_in, outcome.states.values())) else "exact"
    had = any(all(agrees(subject, outcome, at, one) for at in outcome.states) for one in subject.states)
    assert had, f"a state that the store never had: {outcome.states}"
    if "copy" in damage.what:
        return "an older state"
    assert damage.name == subject.active, "only the end of the active segment can look like a crash"
    if not damage.what.startswith(("cut to", "zeros from", "sector")):
        assert outcome.torn, "it is reported, unless nothing is left of it"
    return "without its end, reported" if outcome.torn else "without its end"


def agrees(subject: Subject, outcome: Outcome, at: int | None, last: int) -> bool:
    """Whether a state is that of ``at`` in a log that ends at ``last``, leaving out what is refused."""
    expected = subject.as_of(last if at is None else min(at, last))
    found = outcome.states[at]
    return found.keys() == expected.keys() and all(
        isinstance(value, Exception) or value == expected[name] for name, value in found.items()
    )


@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_store_is_exact_or_refused(scratch: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    print(f"TRAX_SEED={SEED} TRAX_CORRUPTION_STRIDE={STRIDE}")
    small_stores(monkeypatch)
    subject = make(kind, scratch)
    path = scratch / "s"
    assert try_damage(subject, Damage("nothing", "", subject.files), path, looked_at=True) == "exact"
    verdicts: Counter[str] = Counter()
    tried = {key(subject.files)}
    for damage in damages(subject, STRIDE, random.Random(f"{SEED} {kind}")):
        if key(damage.files) in tried:
            continue
        tried.add(key(damage.files))
        try:
            verdicts[try_damage(subject, damage, path, looked_at=len(tried) % 5 == 0)] += 1
        except BaseException as error:
            error.add_note(f"{kind}: {damage.name}: {damage.what}")
            raise
    print(dict(verdicts))
    count("damaged stores", len(tried) - 1)
    assert verdicts["refused"] + verdicts["some names refused"] > len(tried) / 4


def key(files: Files) -> int:
    return hash(tuple(sorted(files.items())))


def try_damage(subject: Subject, damage: Damage, path: Path, *, looked_at: bool) -> str:
    """Open a damaged store; a part of them is read and verified before. Which of the allowed outcomes it was."""
    files = {**damage.files, **subject.others}
    if looked_at:
        lay_out(files, path)
        problems = verify_store(path).problems
        read_damaged(subject, damage, path)
        assert read_files(path) == files
    expected = witnessed(damage.files, subject)
    outcome = open_damaged(files, path, [at for at in expected.states if at is not None])
    assert (outcome.refused is None) == (expected.refused is None), (outcome.refused, expected.refused)
    assert same(outcome.states, expected.states), f"{outcome.states} instead of {expected.states}"
    assert outcome.torn == expected.torn
    verdict = judge(subject, damage, outcome)
    if looked_at:
        found = outcome.refused is not None or any(map(errors_in, outcome.states.values()))
        assert bool(problems) == found, (verdict, problems)
    return verdict


def read_damaged(subject: Subject, damage: Damage, path: Path) -> None:
    """A reader says what the witness says; it does not look for a later snapshot, and for damage where it must read."""
    try:
        store = trax.Trax(path, mode="r")
    except trax.errors.CorruptionError:
        return
    with store:
        found = recovered(store, store.names())
    try:
        assert same(found, Witness(damage.files, writing=False).state())
    except DamagedError:
        whole = {name: value for name, value in found.items() if not isinstance(value, Exception)}
        possible = [state for state in subject.states.values() if state.keys() >= whole.keys()]
        assert any(all(state[name] == value for name, value in whole.items()) for state in possible), found


# The extent of what can't be told from a crash


class LastLog(NamedTuple):
    """A store with the list ``a``, whose entries 1 to 9 were logged last; where each of them ends in the log."""

    files: Files
    log: str
    ends: list[int]


def last_log(path: Path, *, end: str, sync: Any = "always", synced: int = 0, batched: int = 0) -> LastLog:
    """``synced``: sync() came behind that entry. ``batched``: so many came with the checkpoint, in a batch."""
    shutil.rmtree(path, ignore_errors=True)
    store = trax.Trax(path, sync=sync)
    store.checkpoint(a=[0])
    store.log(a="contained in the checkpoint that follows")
    with store.batch() as batch:
        batch.checkpoint(a=[0])
        for number in range(1, batched + 1):
            batch.log(a=number)
    for number in range(batched + 1, 10):
        store.log(a=number)
        if number == synced:
            store.sync()
    kill(store) if end == "killed" else store.close()
    files = read_files(path)
    log = max(name for name in files if name.startswith("log."))
    files[log] = without_room(files[log])
    places = {sequence: offset for offset, _, sequence in reversed(walk(files[log], 0).ends) if sequence}
    return LastLog(files, log, sorted(places.values()))


def cost(last: LastLog, data: bytes, path: Path) -> int | None:
    """How many entries are lost with another content of the log; None: it is refused. What is lost is reported."""
    outcome = open_damaged({**last.files, last.log: data}, path)
    if outcome.refused is not None:
        return None
    found = outcome.states[None]["a"]
    assert found == list(range(len(found)))
    frames_taken_away = data in [last.files[last.log][:end] for end, _, _ in walk(last.files[last.log], 0).ends]
    assert outcome.torn != frames_taken_away
    return 10 - len(found)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        # Each frame says that the one before it was synced.
        ({"end": "killed"}, [None] * 8 + [1]),
        ({"end": "killed", "sync": "os", "synced": 9}, [None] * 9),
        ({"end": "closed"}, [None] * 9),
        ({"end": "closed", "sync": "os"}, [None] * 9),
        # No frame says so behind the last sync, however many of them are whole.
        ({"end": "killed", "sync": "os"}, [9, 8, 7, 6, 5, 4, 3, 2, 1]),
        ({"end": "killed", "sync": "os", "synced": 4}, [None] * 4 + [5, 4, 3, 2, 1]),
        # What came with a checkpoint is part of it.
        ({"end": "killed", "sync": "os", "batched": 3}, [None] * 3 + [6, 5, 4, 3, 2, 1]),
        ({"end": "killed", "batched": 9}, [None] * 9),
    ],
)
def test_what_one_bad_place_may_cost(scratch: Path, options: dict[str, Any], expected: list[int | None]) -> None:
    last = last_log(scratch / "extent", **options)
    data = last.files[last.log]
    for place in (1, 47):  # the last byte of the entry, and one of its header
        found = [cost(last, _flipped(data, end - place), scratch / "s") for end in last.ends]
        assert found == expected
    if data[-48:-45] == b"trx":
        assert cost(last, _flipped(data, len(data) - 20), scratch / "s") == 0, "the mark alone costs nothing"


@pytest.mark.parametrize(
    ("options", "least"),
    [
        ({"end": "killed"}, 0),
        ({"end": "closed"}, 0),
        ({"end": "killed", "sync": "os", "synced": 4}, 0),
        ({"end": "closed", "batched": 5}, 5),
        ({"end": "killed", "batched": 9}, 9),
    ],
)
def test_what_a_missing_end_may_cost(scratch: Path, options: dict[str, Any], least: int) -> None:
    """A file that was cut off, or overwritten up to its end: what came with the last checkpoint is never lost."""
    last = last_log(scratch / "extent", **options)
    data = last.files[last.log]
    for place in range(48, len(data), 1 if STRIDE == 1 else 5):
        whole = sum(end <= place for end in last.ends)
        lost = 9 - whole if whole >= least else None
        assert cost(last, data[:place], scratch / "s") == lost, place
        if place % 10 == 0:
            zeros = open_damaged({**last.files, last.log: data[:place] + bytes(len(data) - place)}, scratch / "s")
            assert (zeros.refused is None) == (lost is not None)
            assert lost is None or len(zeros.states[None]["a"]) == 10 - lost


def test_what_was_there_at_the_last_opening_is_never_lost(scratch: Path) -> None:
    """The snapshot that an opening publishes says how far the log was on stable storage."""
    for end in ("killed", "closed"):
        last = last_log(scratch / "extent", end=end)
        lay_out(last.files, scratch / "opened")
        kill(trax.Trax(scratch / "opened"))
        files = read_files(scratch / "opened")
        log = max(name for name in files if name.startswith("log."))
        ends = [offset for offset, _, _ in walk(files[log], 0).ends]
        for place in range(0, ends[-2], 1 if STRIDE == 1 else 7):
            assert open_damaged({**files, log: files[log][:place]}, scratch / "s").refused is not None, (end, place)


def _flipped(data: bytes, place: int) -> bytes:
    return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]


@pytest.mark.parametrize("file", ["snapshot", "kept/", "log.", "sealed log."])
def test_an_opening_that_is_refused_changes_nothing(scratch: Path, file: str) -> None:
    path = scratch / "refused"
    shutil.rmtree(path, ignore_errors=True)
    with trax.Trax(path, keep=2) as store:
        store.checkpoint(a=[0])
        store.log(a=1, b=2)
        store.checkpoint(a=[0, 1])
        store.log(a=2)
        store.log(a=3)
    shutil.rmtree(path / "blobs")  # an opening would make it again
    names = sorted(name for name in read_files(path) if name.startswith(file.removeprefix("sealed ")))
    victim = path / (names[0] if file.startswith("sealed") else names[-1])
    data = bytearray(victim.read_bytes())
    data[-60] ^= 1
    victim.write_bytes(data)
    before = read_files(path)
    messages = set()
    for _ in range(3):
        with pytest.raises(trax.errors.CorruptionError) as caught:
            trax.Trax(path)
        messages.add(str(caught.value))
        assert read_files(path) == before
        assert not (path / "blobs").exists()
    assert len(messages) == 1


def test_a_writer_that_has_done_nothing_takes_no_proof_away(scratch: Path) -> None:
    """What was proven by the mark of a close stays proven when the next writer is killed before its first record."""
    path = scratch / "proof"
    shutil.rmtree(path, ignore_errors=True)
    with trax.Trax(path) as store:
        store.checkpoint(a=[])
        store.log(a=1)
        store.log(a=2)
    kill(trax.Trax(path))
    files = read_files(path)
    log = max(name for name in files if name.startswith("log."))
    last_record = files[log].rindex(b"trxR")
    flipped = bytearray(files[log])
    flipped[last_record + 50] ^= 1
    assert open_damaged({**files, log: bytes(flipped)}, scratch / "s").refused is not None


def test_a_rotten_sector_of_zeros_is_not_the_end(scratch: Path) -> None:
    path = scratch / "zeros"
    with trax.Trax(path) as store:
        store.checkpoint(a=[])
        for number in range(40):
            store.log(a=[number, "x" * 100])
        files = read_files(path)
    log = max(name for name in files if name.startswith("log."))
    data = files[log]
    assert len(without_room(data)) > 6 * 512
    first_frame = data.index(b"trxR")
    between_frames = data.index(b"trxR", 512)
    for start in (512, 1024, first_frame, between_frames):
        refused = open_damaged({**files, log: data[:start] + bytes(512) + data[start + 512 :]}, scratch / "s").refused
        assert refused is not None, f"sector {start}"
        assert refused.offset is not None and start - 512 < refused.offset < start + 512
        assert refused.path is not None and refused.path.endswith(log)


def test_a_snapshot_that_was_put_back_beside_the_same_log_is_found(scratch: Path) -> None:
    path = scratch / "back"
    shutil.rmtree(path, ignore_errors=True)
    with trax.Trax(path) as store:
        store.checkpoint(a=[1])
        first = read_files(path)
        store.checkpoint(a=[2])
    with trax.Trax(path) as store:
        second = read_files(path)
        store.log(a=3)
    with trax.Trax(path) as store:
        store.log(a=4)
        third = read_files(path)
    refuses_again_and_again({**third, "snapshot": first["snapshot"]}, scratch / "s")
    outcome = open_damaged({**third, "snapshot": second["snapshot"]}, scratch / "s")
    assert outcome.refused is not None, "it is of an older epoch, though nothing is lost by it"


def refuses_again_and_again(files: Files, path: Path) -> None:
    lay_out(files, path)
    for _ in range(3):
        with pytest.raises(trax.errors.CorruptionError, match="put back"):
            trax.Trax(path)


def test_a_snapshot_from_before_the_first_checkpoint_is_found(scratch: Path) -> None:
    path = scratch / "first"
    for close in (True, False):
        shutil.rmtree(path, ignore_errors=True)
        store = trax.Trax(path)
        if close:
            store.close()
            store = trax.Trax(path)
        older = read_files(path)
        store.checkpoint(a=[1])
        store.log(b=2)
        files = read_files(path)
        store.close()
        refuses_again_and_again({**files, "snapshot": older["snapshot"]}, scratch / "s")


def test_a_snapshot_from_before_the_log_was_written_again_is_found(scratch: Path) -> None:
    path = scratch / "again"
    shutil.rmtree(path, ignore_errors=True)
    store = trax.Trax(path)
    store.log(a=1)
    store.sync()
    kill(store)
    older = read_files(path)
    store = trax.Trax(path)
    store.log(a=2)
    kill(store)
    refuses_again_and_again({**read_files(path), "snapshot": older["snapshot"]}, scratch / "s")


def test_a_frame_that_is_stored_inside_a_value_is_not_taken_for_one(scratch: Path) -> None:
    path = scratch / "inside"
    shutil.rmtree(path, ignore_errors=True)
    with trax.Trax(path) as store:
        store.checkpoint(a=[])
        store.log(a="first")
        frames = without_room(max(path.glob("log.*")).read_bytes())[48:]
        store.log(a=frames)
        store.log(a=frames * 3)
        files = read_files(path)
    log = max(name for name in files if name.startswith("log."))
    cut = without_room(files[log])[
        : -len(frames)
    ]  # the last record is torn, and whole frames lie in what is left of it
    outcome = open_damaged({**files, log: cut}, scratch / "s")
    assert outcome.states[None]["a"] == ["first", frames] and outcome.torn


def test_a_frame_of_an_earlier_use_of_the_same_bytes_is_not_taken_for_one(scratch: Path) -> None:
    path = scratch / "stale"
    shutil.rmtree(path, ignore_errors=True)
    with trax.Trax(path) as store:
        store.checkpoint(a=[])
        for number in range(3):
            store.log(a=number)
        old = without_room(max(path.glob("log.*")).read_bytes())
        store.checkpoint(a=[0, 1, 2])
        store.log(a=3)
        files = read_files(path)
    log = max(name for name in files if name.startswith("log."))
    new = without_room(files[log])
    assert len(old) > len(new)
    outcome = open_damaged({**files, log: new + old[len(new) :]}, scratch / "s")
    assert outcome.states[None]["a"] == [0, 1, 2, 3]


def test_a_frame_that_follows_the_wrong_one_is_not_read(scratch: Path) -> None:
    """A write that failed leaves a whole frame behind the tail.

    Another frame of the same length takes the place before.
    """
    path = scratch / "chain"
    shutil.rmtree(path, ignore_errors=True)
    store = trax.Trax(path, sync="os")
    store.checkpoint(a=[])
    log = max(path.glob("log.*"))
    writer = store._writer.storage._writer  # type: ignore[union-attr]
    tail = writer.tail
    store.log(a="one")
    store.log(a="two")
    nbytes = log.stat().st_size
    # The same handle, put back to where it was: as after an error, whose truncation did not reach the disk.
    writer.tail = tail
    store.log(a="ONE")
    assert log.stat().st_size == nbytes > writer.tail.offset
    files = read_files(path)
    store.close()
    outcome = open_damaged(files, scratch / "s")
    assert outcome.states[None]["a"] == ["ONE"] and outcome.torn
