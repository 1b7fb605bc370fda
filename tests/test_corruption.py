"""Every byte flipped, every sector zeroed, every file cut, removed or swapped: the exact state, or a typed error.

The one exception is what can't be told from a legal crash: damage behind the last proof in the active segment may cost
the tail from there on, and is reported.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import trax
from tests.counting import count
from tests.crashing import fold, recovered
from tests.helpers import kill

STRIDE = int(os.environ.get("TRAX_CORRUPTION_STRIDE", "7"))
Files = dict[str, bytes]


def read_files(path: Path) -> Files:
    return {str(file.relative_to(path)): file.read_bytes() for file in path.rglob("*") if file.is_file()}


def lay_out(files: Files, path: Path) -> None:
    shutil.rmtree(path, ignore_errors=True)
    for directory in ("", "blobs", "kept"):
        (path / directory).mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        (path / name).write_bytes(data)


@pytest.fixture(scope="module")
def scratch() -> Iterator[Path]:
    memory = "/dev/shm" if Path("/dev/shm").is_dir() else None
    with tempfile.TemporaryDirectory(dir=memory) as directory:
        yield Path(directory)


class Subject:
    """A store with every kind of file, as its last writer left it, or as it was while the writer lived."""

    def __init__(self, scratch: Path, *, closed: bool) -> None:
        path = scratch / "original"
        shutil.rmtree(path, ignore_errors=True)
        store = trax.Trax(path, keep=2)
        store.checkpoint(a=[0, "x" * 5000], b=[], c=["buffer", bytes(range(250)) * 80])
        store.log(a=1, b=2)
        store.log(b=3)
        self.older = read_files(path)
        store.checkpoint(a=[0, "x" * 5000, 1])
        self.tail_states = []
        for number in range(4, 9):
            self.tail_states.append(recovered(store))
            store.log(a=number, b=-number)
        self.state = recovered(store)
        self.at = {snapshot.sequence: recovered(store, snapshot.sequence) for snapshot in store.snapshots()}
        if closed:
            store.close()
        self.files = read_files(path)
        store.close()
        active = max(name for name in self.files if name.startswith("log."))
        self.active = active
        self.files[active] = self.files[active].rstrip(b"\0")


def open_damaged(files: Files, path: Path) -> tuple[Any, int]:
    """The recovered state and the number of torn tails that were reported, or the error."""
    lay_out(files, path)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            with trax.Trax(path, mode="r+") as store:
                state = recovered(store)
                at = {snapshot.sequence: recovered(store, snapshot.sequence) for snapshot in store.snapshots()}
                if state:
                    store.log({"a": "after"})
                    assert store.recover("a", None, fold)[-1] == "after"
                state = (state, at)
        except trax.TraxError as error:
            state = error
    return state, sum(issubclass(one.category, trax.errors.TornTailWarning) for one in caught)


def damages(subject: Subject) -> Iterator[tuple[str, str, Files]]:
    """What was done, to which file, and the files afterwards."""
    files = subject.files
    for name, data in files.items():
        if name == "lock":
            continue
        for place in range(0, len(data), STRIDE if len(data) < 2000 else 5 * STRIDE):
            flipped = bytearray(data)
            flipped[place] ^= 1 << place % 8
            yield f"byte {place} flipped", name, {**files, name: bytes(flipped)}
        for start in range(0, len(data), 512):
            end = min(start + 512, len(data))
            yield f"sector {start} zeroed", name, {**files, name: data[:start] + bytes(end - start) + data[end:]}
        for length in range(0, len(data), STRIDE if len(data) < 2000 else 5 * STRIDE):
            yield f"cut to {length}", name, {**files, name: data[:length]}
        yield "removed", name, {other: content for other, content in files.items() if other != name}
        for other, content in files.items():
            if other not in (name, "lock"):
                yield f"replaced by {other}", name, {**files, name: content}
        if name in subject.older:
            yield "put back to an older copy", name, {**files, name: subject.older[name]}


@pytest.mark.parametrize("closed", [True, False])
def test_damage_is_found_or_costs_only_the_unproven_tail(scratch: Path, closed: bool) -> None:
    subject = Subject(scratch, closed=closed)
    assert open_damaged(subject.files, scratch / "s")[0] == (subject.state, subject.at)
    tried = found = tails = 0
    for what, name, files in damages(subject):
        if files == subject.files:
            continue
        tried += 1
        outcome, torn = open_damaged(files, scratch / "s")
        if isinstance(outcome, trax.TraxError):
            found += 1
            continue
        if outcome == (subject.state, subject.at):
            continue
        tails += 1
        state, _ = outcome
        where = f"{name}, {what}: {state}"
        assert name == subject.active, where
        assert state in subject.tail_states, where
        whole_frames_cut_off = what.startswith("cut")
        assert torn or whole_frames_cut_off, where
        if closed:
            # Every frame is proven by the mark: only taking away the mark too can cost some of them.
            assert what.startswith(("cut", "put back", "sector")), where
        elif not what.startswith(("cut", "put back", "sector")):
            assert state == subject.tail_states[-1], f"only the last frame is proven by none: {where}"
    print(f"{found} refused, {tails} without their tail, the others exact")
    count("damaged stores", tried)
    assert found > tried / 2


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
    data[100] ^= 1
    victim.write_bytes(data)
    before = read_files(path)
    messages = set()
    for _ in range(3):
        with pytest.raises(trax.errors.CorruptionError) as caught:
            trax.Trax(path)
        messages.add(str(caught.value))
        assert {**read_files(path), "lock": before["lock"]} == before
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
    outcome, _ = open_damaged({**files, log: bytes(flipped)}, scratch / "s")
    assert isinstance(outcome, trax.errors.CorruptionError), outcome


def test_a_rotten_sector_of_zeros_is_not_the_end(scratch: Path) -> None:
    path = scratch / "zeros"
    with trax.Trax(path) as store:
        store.checkpoint(a=[])
        for number in range(40):
            store.log(a=[number, "x" * 100])
        files = read_files(path)
    log = max(name for name in files if name.startswith("log."))
    data = files[log]
    assert len(data.rstrip(b"\0")) > 6 * 512
    first_frame = data.index(b"trxR")
    between_frames = data.index(b"trxR", 512)
    for start in (512, 1024, first_frame, between_frames):
        outcome, _ = open_damaged({**files, log: data[:start] + bytes(512) + data[start + 512 :]}, scratch / "s")
        assert isinstance(outcome, trax.errors.CorruptionError), f"sector {start}: {outcome}"
        assert outcome.offset is not None and start - 512 < outcome.offset < start + 512
        assert outcome.path is not None and outcome.path.endswith(log)


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
    outcome, _ = open_damaged({**third, "snapshot": second["snapshot"]}, scratch / "s")
    assert isinstance(outcome, trax.errors.CorruptionError), "it is of an older epoch, though nothing is lost by it"


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
        frames = max(path.glob("log.*")).read_bytes()[48:].rstrip(b"\0")
        store.log(a=frames)
        store.log(a=frames * 3)
        files = read_files(path)
    log = max(name for name in files if name.startswith("log."))
    cut = files[log].rstrip(b"\0")[
        : -len(frames)
    ]  # the last record is torn, and whole frames lie in what is left of it
    outcome, torn = open_damaged({**files, log: cut}, scratch / "s")
    assert outcome[0]["a"] == ["first", frames]
    assert torn == 1


def test_a_frame_of_an_earlier_use_of_the_same_bytes_is_not_taken_for_one(scratch: Path) -> None:
    path = scratch / "stale"
    shutil.rmtree(path, ignore_errors=True)
    with trax.Trax(path) as store:
        store.checkpoint(a=[])
        for number in range(3):
            store.log(a=number)
        old = max(path.glob("log.*")).read_bytes().rstrip(b"\0")
        store.checkpoint(a=[0, 1, 2])
        store.log(a=3)
        files = read_files(path)
    log = max(name for name in files if name.startswith("log."))
    new = files[log].rstrip(b"\0")
    assert len(old) > len(new)
    outcome, _ = open_damaged({**files, log: new + old[len(new) :]}, scratch / "s")
    assert outcome[0]["a"] == [0, 1, 2, 3]


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
    outcome, torn = open_damaged(files, scratch / "s")
    assert outcome[0]["a"] == ["ONE"] and torn == 1
