"""One writer at a time.

Where the file system has no locks, an owner file, which is not taken from anybody who may live.
"""

from __future__ import annotations

import errno
import gc
import json
import os
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import trax
from tests.helpers import kill, reopen_and_check
from tests.test_pitfalls import Stubborn
from trax import errors
from trax.storage.local import opening
from trax.storage.local.fs import LocalFileSystem
from trax.storage.local.layout import Layout
from trax.storage.local.lock import WriterLock
from trax.storage.local.owner import is_this_process, this_process
from trax.testing.faults import FAULTS, OPERATIONS, FaultyFileSystem


def no_locks(number: int = errno.ENOLCK) -> Stubborn:
    return Stubborn(lock=lambda fd: OSError(number, os.strerror(number)))


def owner_of(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((path / "owner").read_text())
    return found


@pytest.mark.parametrize("text", ["[" * 100_000, "{", "[]", '{"pid": "x"}'], ids=["deep", "cut", "list", "no number"])
def test_an_owner_file_that_can_not_be_understood_names_nobody_and_is_respected(tmp_path: Path, text: str) -> None:
    with trax.Trax(tmp_path / "s") as store:
        store.log(a=1)
    (tmp_path / "s" / "owner").write_text(text)
    with warnings.catch_warnings(action="ignore"), pytest.raises(errors.StoreLockedError, match="trax unlock"):
        trax.Trax(tmp_path / "s", fs=no_locks())
    assert (tmp_path / "s" / "owner").read_text() == text


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK])
def test_without_locks_an_owner_file_takes_their_place_and_it_is_said_aloud(tmp_path: Path, number: int) -> None:
    with pytest.warns(errors.LockWarning, match=r"no locks.*trax unlock"):
        store = trax.Trax(tmp_path / "s", fs=no_locks(number))
    assert store.stats()["lock"] == "owner file"
    assert owner_of(tmp_path / "s")["pid"] == os.getpid()
    with warnings.catch_warnings(action="ignore"), pytest.raises(errors.StoreLockedError, match="this very process"):
        trax.Trax(tmp_path / "s", fs=no_locks())
    store.log(a=1)
    store.checkpoint(a=1)
    store.close()
    assert not (tmp_path / "s" / "owner").exists()


def change(**changes: Any) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda owner: {**owner, **changes}


@pytest.mark.parametrize(
    ("changed", "free"),
    [
        (change(), False),
        (change(host="elsewhere"), False),
        (change(host="elsewhere", pid=2**22 + 1), False),
        (change(boot="another"), False),
        (change(started=1), True),
        (change(pid=2**22 + 1), True),
        (change(pid=2**22 + 1, started=None), False),
        (change(boot=None, pid=2**22 + 1), False),
        (lambda owner: {}, False),
    ],
    ids=[
        "alive",
        "other host",
        "other host, no such pid",
        "other boot",
        "pid was reused",
        "gone",
        "unknown start",
        "no boot id",
        "empty",
    ],
)
def test_only_an_owner_that_is_provably_gone_is_replaced(tmp_path: Path, changed: Any, free: bool) -> None:
    with warnings.catch_warnings(action="ignore"):
        store = trax.Trax(tmp_path / "s", fs=no_locks())
        store.checkpoint(a=1)
        kill(store)
        path = tmp_path / "s" / "owner"
        path.write_text(json.dumps(changed(this_process())))
        os.utime(path, (0, 0))
        before = path.read_bytes()
        if not free:
            with pytest.raises(errors.StoreLockedError, match="trax unlock"):
                trax.Trax(tmp_path / "s", fs=no_locks())
            assert path.read_bytes() == before
            return
        with trax.Trax(tmp_path / "s", fs=no_locks()) as store:
            assert store.recover("a") == 1
            assert owner_of(tmp_path / "s")["pid"] == os.getpid()


def test_an_earlier_run_of_the_same_scheduler_job_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "4711")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    with warnings.catch_warnings(action="ignore"):
        kill(trax.Trax(tmp_path / "s", fs=no_locks()))
        path = tmp_path / "s" / "owner"
        for job, run, free in [("4711", 1, False), ("4712", 0, False), ("4711", 0, True)]:
            path.write_text(json.dumps({**this_process(), "host": "node7", "job": job, "run": run}))
            if free:
                trax.Trax(tmp_path / "s", fs=no_locks()).close()
            else:
                with pytest.raises(errors.StoreLockedError, match=f"job {job}"):
                    trax.Trax(tmp_path / "s", fs=no_locks())


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("once", [True, False], ids=["once", "always"])
@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError, FAULTS["EIO"]], ids=["Ctrl-C", "memory", "EIO"])
def test_an_opening_that_failed_leaves_no_owner_file_that_keeps_its_own_process_out(
    tmp_path: Path, error: Callable[[], BaseException], once: bool
) -> None:
    """It comes at any operation, when the system has done what it was asked for."""
    kinds = OPERATIONS if error is FAULTS["EIO"] else (*OPERATIONS, "close")
    with warnings.catch_warnings(action="ignore"):
        trax.Trax(tmp_path / "s", fs=(counting := FaultyFileSystem(kinds=kinds, inner=no_locks()))).close()
        for nth in range(counting.count):
            fs = FaultyFileSystem(nth, error, once=once, after=True, kinds=kinds, inner=no_locks())
            try:
                trax.Trax(tmp_path / "s", fs=fs).close()
            except (KeyboardInterrupt, MemoryError, errors.StorageError, errors.FinishedError):
                assert fs.failed
            gc.collect(1)  # the error that says that there are no locks keeps the frames in which it was raised
            owner = tmp_path / "s" / "owner"
            if not once and owner.exists():
                assert is_this_process(owner_of(tmp_path / "s")), "nothing could be removed; it says whose it was"
                owner.unlink()
            trax.Trax(tmp_path / "s", fs=no_locks()).close()


@pytest.mark.parametrize("number", [errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS])
def test_without_links_the_owner_file_is_made_at_once(tmp_path: Path, number: int) -> None:
    fs = FaultyFileSystem(0, lambda: OSError(number, os.strerror(number)), kinds=("link",), inner=no_locks())
    with warnings.catch_warnings(action="ignore"), trax.Trax(tmp_path / "s", fs=fs):
        assert fs.failed == ["link"]
        assert is_this_process(owner_of(tmp_path / "s"))
        assert [path.name for path in (tmp_path / "s").glob("owner*")] == ["owner"]
        with pytest.raises(errors.StoreLockedError, match="this very process"):
            trax.Trax(tmp_path / "s", fs=no_locks())


def test_a_crash_while_the_owner_file_is_made_leaves_none_that_names_nobody(tmp_path: Path) -> None:
    """A link whose answer was lost is reported as one that was there before."""

    class Answers(LocalFileSystem):
        def lock(self, fd: int) -> bool:
            raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

        def link(self, source: str, target: str) -> None:
            assert json.loads(Path(source).read_bytes())["pid"] == os.getpid(), "it says whose it is before it is there"
            super().link(source, target)
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))

    with warnings.catch_warnings(action="ignore"), trax.Trax(tmp_path / "s", fs=Answers()) as store:
        store.log(a=1)
    assert not (tmp_path / "s" / "owner").exists()


def test_an_owner_file_that_could_not_be_removed_is_removed_when_the_handle_is_dropped(tmp_path: Path) -> None:
    fs = FaultyFileSystem(kinds=("unlink",), inner=no_locks())
    with warnings.catch_warnings(action="ignore"):
        store = trax.Trax(tmp_path / "s", fs=fs)
        store.log(a=1)
        fs.fail_at(fs.count, FAULTS["EIO"])
        with pytest.raises(errors.StorageError, match="could not unlock"):
            store.close()
        with pytest.raises(errors.StoreLockedError, match="this very process"):
            trax.Trax(tmp_path / "s", fs=no_locks())
        del store
        gc.collect()
        with trax.Trax(tmp_path / "s", fs=no_locks()) as again:
            assert [entry for _, entry in again.entries("a")] == [1]


def test_a_lock_that_a_forked_child_drops_stays_with_its_parent(tmp_path: Path) -> None:
    with warnings.catch_warnings(action="ignore"):
        lock = WriterLock(no_locks(), Layout(tmp_path))
        if (child := os.fork()) == 0:
            del lock
            gc.collect()
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        assert owner_of(tmp_path)["pid"] == os.getpid()
        lock.release()
        assert not (tmp_path / "owner").exists()


def test_a_released_lock_is_free_although_a_child_has_the_descriptor_too(tmp_path: Path) -> None:
    lock = WriterLock(LocalFileSystem(), Layout(tmp_path))
    assert lock._fd is not None
    inherited = os.dup(lock._fd)  # as a child has it that a library in C has forked, or before its hooks have run
    lock.release()
    WriterLock(LocalFileSystem(), Layout(tmp_path)).release()
    os.close(inherited)


def test_a_writer_that_was_replaced_while_idle_writes_over_nothing(tmp_path: Path) -> None:
    with warnings.catch_warnings(action="ignore"):
        with trax.Trax(tmp_path / "s", fs=no_locks()) as first:
            first.log(a="first")
        for step in ("log", "sync", "close"):
            idle = trax.Trax(tmp_path / "s", fs=no_locks())
            if step == "sync":
                idle.sync()
            (tmp_path / "s" / "owner").unlink()
            with trax.Trax(tmp_path / "s", fs=no_locks()) as new:
                before = [entry for _, entry in new.entries("a")]
                new.log(a=f"{step} 1")
                if step == "log":
                    with pytest.raises(errors.FencedError):
                        idle.log(a="lost")
                idle.close()
                assert (tmp_path / "s" / "owner").exists(), "it is the new writer's"
                new.log(a=f"{step} 2")
                assert [entry for _, entry in new.entries("a")] == [*before, f"{step} 1", f"{step} 2"]
            with trax.Trax(tmp_path / "s", fs=no_locks()) as again:
                assert [entry for _, entry in again.entries("a")] == [*before, f"{step} 1", f"{step} 2"]
                assert again.verify().ok


def take_over(path: Path) -> trax.Trax:
    """What a second writer does where locks do not keep it away."""
    (path / "owner").unlink(missing_ok=True)
    other = trax.Trax(path, fs=no_locks())
    other.log(a="another writer's")
    other.checkpoint(large=bytes(50_000))
    return other


def assert_all_there(path: Path, other: trax.Trax) -> None:
    other.log(a="its last")
    other.close()
    with warnings.catch_warnings(action="ignore"), reopen_and_check(path, fs=no_locks()) as store:
        assert [entry for _, entry in store.entries("a")] == ["first", "another writer's", "its last"]
        assert len(store.recover("large")) == 50_000


@pytest.fixture
def closed(tmp_path: Path) -> Iterator[Path]:
    with warnings.catch_warnings(action="ignore"):
        with trax.Trax(tmp_path / "s", fs=no_locks()) as store:
            store.log(a="first")
        yield tmp_path / "s"


def test_an_opening_that_is_overtaken_before_it_sweeps_removes_nothing(closed: Path) -> None:
    others = []

    def pwrite(fd: int, data: bytes, offset: int) -> int:
        written = LocalFileSystem().pwrite(fd, data, offset)
        if data.startswith(b"trxM") and not others:  # the mark, with which it goes on in the segment
            others.append(None)
            others[0] = take_over(closed)
        return written

    fs = Stubborn(lock=lambda fd: OSError(errno.ENOLCK, os.strerror(errno.ENOLCK)))
    fs.pwrite = pwrite  # type: ignore[method-assign, assignment]
    with pytest.raises(errors.FencedError):
        trax.Trax(closed, fs=fs)
    assert_all_there(closed, others[0])


def test_an_opening_that_is_overtaken_writes_over_no_mark(closed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    others: list[trax.Trax] = []
    calls: list[int] = []
    read_on = opening.LogOpening._read_on

    def read_on_and_be_overtaken(self: opening.LogOpening, epoch: int) -> str | None:
        reason = read_on(self, epoch)
        calls.append(epoch)
        if len(calls) == 2:  # once before it has published its epoch, and once behind that
            others.append(take_over(closed))
        return reason

    monkeypatch.setattr(opening.LogOpening, "_read_on", read_on_and_be_overtaken)
    with pytest.raises(errors.FencedError):
        trax.Trax(closed, fs=no_locks())
    assert_all_there(closed, others[0])


def test_a_writer_that_was_replaced_cuts_nothing_off_when_it_is_closed(closed: Path) -> None:
    """The other writer, on another host perhaps, has not seen that this one went on in the segment, and does so too."""
    log = closed / "log.00000001"
    before = log.read_bytes()
    idle = trax.Trax(closed, fs=no_locks())
    log.write_bytes(before)
    other = take_over(closed)
    idle.close()
    assert_all_there(closed, other)


def test_the_lock_ends_with_its_process(tmp_path: Path) -> None:
    script = f"import os, trax; s = trax.Trax({str(tmp_path / 's')!r}); s.checkpoint(a=1); os.kill(os.getpid(), 9)"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", script], env=environment, check=False)
    with trax.Trax(tmp_path / "s") as store:
        assert store.recover("a") == 1


def test_a_refused_writer_leaves_the_name_of_the_holder_in_place(tmp_path: Path) -> None:
    with trax.Trax(tmp_path / "s"):
        before = (tmp_path / "s" / "lock").read_bytes()
        for _ in range(2):
            with pytest.raises(errors.StoreLockedError):
                trax.Trax(tmp_path / "s")
        assert (tmp_path / "s" / "lock").read_bytes() == before
        assert json.loads(before)["pid"] == os.getpid()


def test_a_lock_file_that_was_removed_is_no_way_to_two_writers_that_both_acknowledge(tmp_path: Path) -> None:
    old = trax.Trax(tmp_path / "s")
    old.log(a=1)
    (tmp_path / "s" / "lock").unlink()
    with trax.Trax(tmp_path / "s") as new:
        with pytest.raises(errors.FencedError):
            old.log(a=2)
        new.log(a=3)
        assert [entry for _, entry in new.entries("a")] == [1, 3]
    with pytest.raises(errors.FencedError):
        old.log(a=4)
    old.close()
