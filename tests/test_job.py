"""A job's loop: what is committed when, and where it goes on."""

from __future__ import annotations

import errno
import functools
import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import trax
from tests.counting import count
from trax.errors import (
    ClosedError,
    DiskFullError,
    ForkedError,
    InvalidArgumentError,
    LoopError,
    OutputFileError,
    StepError,
    StorageError,
)
from trax.job.generators import BIT_GENERATORS
from trax.job.state import STATE
from trax.storage.local.fs import LocalFileSystem
from trax.testing import crash_everywhere, first_difference

LIMIT = int(os.environ.get("TRAX_JOB_LIMIT", "16"))


def plus(state: int, entry: int) -> int:
    return state + entry


def steps(path: Path, items: Any, **options: Any) -> list[Any]:
    """The items that a job gets to see when it goes over them to the end."""
    with trax.Job(path) as job:
        return list(job.loop(items, **options))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "job.trax"


def test_what_happens_in_a_step_is_one_commit(path: Path) -> None:
    with trax.Job(path) as job:
        job.recover("sum", lambda: 0, plus)
        before = job.store.last_sequence
        for step in job.loop(range(3)):
            job.log(sum=step)
            job.log(sum=10)
            assert job.store.last_sequence - before == 2 * step, "the step commits at its end"
    with trax.Trax(path) as store:
        assert store.recover("sum", replay_log=plus) == 33


@pytest.mark.parametrize("calls", ["c", "l", "ll", "lc", "cl", "lcl", "clc", "llcll", ""])
def test_a_step_logs_and_checkpoints_in_any_order(path: Path, calls: str) -> None:
    """A checkpoint holds what was logged of its name before it, in the same step, and not what comes behind."""
    expected = 0
    for steps_in_all in (2, 3):
        with trax.Job(path) as job:
            state = job.recover("sum", lambda: 0, plus)
            assert state == expected
            for _ in job.loop(range(steps_in_all)):
                for call in calls:
                    if call == "c":
                        job.checkpoint(sum=state)
                    else:
                        job.log(sum=1, other=1)
                        state += 1
        expected = state
        with trax.Trax(path) as store:
            assert store.recover("sum", replay_log=plus) == expected
            assert len(list(store.entries("other"))) == expected, "which no checkpoint contains"
            assert store.verify().problems == []


def test_a_job_goes_on_at_the_first_step_that_is_not_committed(path: Path) -> None:
    seen = []
    with pytest.raises(ZeroDivisionError):
        with trax.Job(path) as job:
            job.recover("sum", lambda: 0, plus)
            for step in job.loop(range(10, 20, 2)):
                seen.append(step)
                job.log(sum=step)
                if step == 14:
                    raise ZeroDivisionError
    with trax.Job(path) as job:
        assert job.recover("sum", replay_log=plus) == 10 + 12, "the step that failed has left nothing"
        for step in job.loop(range(10, 20, 2)):
            seen.append(step)
            job.log(sum=step)
    assert seen == [10, 12, 14, 14, 16, 18]
    with trax.Trax(path) as store:
        assert store.recover("sum", replay_log=plus) == sum(range(10, 20, 2))
        assert store.verify().problems == []


def test_a_finished_loop_is_passed_over(path: Path) -> None:
    assert steps(path, range(3)) == [0, 1, 2]
    assert steps(path, range(3)) == []
    assert steps(path, range(5)) == [3, 4], "a range may become longer"


def leave_by_break(job: Any) -> None:
    for step in job.loop(range(5)):
        job.log(sum=1)
        if step == 2:
            break


def leave_by_return(job: Any) -> int | None:
    for step in job.loop(range(5)):
        job.log(sum=1)
        if step == 2:
            return int(step) + 1
    return None


def leave_by_break_in_a_block(job: Any) -> None:
    for step in job.loop(range(5)):
        try:
            job.log(sum=1)
            if step == 2:
                raise KeyError
        except KeyError:
            break


def leave_through_enumerate(job: Any) -> None:
    for number, _ in enumerate(job.loop(range(5))):
        job.log(sum=1)
        if number == 2:
            break


def leave_through_a_generator(job: Any) -> None:
    def wrapped() -> Iterator[int]:
        yield from job.loop(range(5))

    def wrapped_again() -> Iterator[int]:
        for step in wrapped():
            yield step + 0

    for step in wrapped_again():
        job.log(sum=1)
        if step == 2:
            break


@pytest.mark.parametrize(
    "leave",
    [
        leave_by_break,
        leave_by_return,
        leave_by_break_in_a_block,
        leave_through_enumerate,
        leave_through_a_generator,
    ],
)
def test_a_loop_that_is_left_is_finished_and_its_last_step_committed(path: Path, leave: Callable[[Any], Any]) -> None:
    for _ in range(2):
        with trax.Job(path) as job:
            job.recover("sum", lambda: 0, plus)
            leave(job)
            assert job.recover("sum", replay_log=plus) == 3, "at once, and the second time nothing is done"
    assert steps(path, range(5)) == []


def fail_by_raise(step: int) -> None:
    raise ZeroDivisionError


def fail_by_operator(step: int) -> float:
    return step / 0


@pytest.mark.parametrize("fail", [fail_by_raise, fail_by_operator])
@pytest.mark.parametrize("inline", [False, True])
def test_a_step_that_an_exception_leaves_is_not_committed_even_if_it_is_caught(
    path: Path, fail: Callable[[int], Any], inline: bool
) -> None:
    with trax.Job(path) as job:
        job.recover("sum", lambda: 0, plus)
        try:
            for step in job.loop(range(5)):
                job.log(sum=1)
                if step == 2:
                    if inline:
                        step / 0
                    fail(step)
        except ZeroDivisionError:
            pass
        with pytest.raises(StepError, match="Open the job again"):
            job.checkpoint(sum=100)
    with trax.Job(path) as job:
        assert job.recover("sum", replay_log=plus) == 2
        assert list(job.loop(range(5))) == [2, 3, 4]


class Holding:
    """A context manager that holds the exception which it has swallowed."""

    def __enter__(self) -> None:
        self.error: BaseException | None = None

    def __exit__(self, kind: Any, value: BaseException | None, traceback: Any) -> bool:
        self.error = value
        return True


def test_a_step_that_an_exception_leaves_is_not_committed_when_it_is_let_go_of_somewhere_else(path: Path) -> None:
    def fail(job: Any) -> None:
        loop = job.loop(range(5))  # the traceback holds this frame, and so the loop
        for step in loop:
            job.log(sum=1)
            if step == 2:
                raise KeyError

    with trax.Job(path) as job:
        job.recover("sum", lambda: 0, plus)
        with Holding():
            fail(job)
        with pytest.raises(StepError):
            job.log(sum=1)
    assert steps(path, range(5)) == [2, 3, 4]


def test_a_failure_to_commit_the_step_that_break_ends_is_raised_by_the_next_call(path: Path) -> None:
    def leave(job: Any) -> None:
        for _ in job.loop(range(3)):
            job._steps.commit = None
            break

    with pytest.raises(StepError) as caught:
        with trax.Job(path) as job:
            leave(job)
            job.log(a=1)
    assert isinstance(caught.value.__cause__, TypeError)
    with pytest.raises(TypeError):
        with trax.Job(path) as job:
            leave(job)
    assert steps(path, range(3)) == [0, 1, 2]


def test_a_step_that_is_still_open_at_the_end_is_not_committed_and_close_says_so(path: Path) -> None:
    with pytest.raises(StepError):
        with trax.Job(path) as job:
            iterator = job.loop(range(3))
            next(iterator)
            job.log(a=1)
    assert steps(path, range(3)) == [0, 1, 2]


def test_loops_come_one_after_the_other_by_name(path: Path) -> None:
    def work(fail_at: tuple[str, int] | None) -> list[tuple[str, int]]:
        seen = []
        with trax.Job(path) as job:
            for name in ("heat", "cool"):
                for step in job.loop(range(3), name=name):
                    if (name, step) == fail_at:
                        raise ZeroDivisionError
                    seen.append((name, step))
        return seen

    with pytest.raises(ZeroDivisionError):
        work(("cool", 1))
    assert work(None) == [("cool", 1), ("cool", 2)]
    with trax.Job(path) as job:
        with pytest.raises(LoopError, match="longer"):
            job.loop(range(4), name="heat")
        assert list(job.loop(range(4), name="cool")) == [3]
        with pytest.raises(LoopError, match="name of its own"):
            job.loop(range(4), name="cool")


def test_another_loop_than_the_one_to_resume_is_refused(path: Path) -> None:
    steps(path, range(3))
    with trax.Job(path) as job, pytest.raises(LoopError, match="'other' first"):
        job.loop(range(3), name="other")


def test_a_nested_loop_is_refused_and_its_step_goes_on(path: Path) -> None:
    with trax.Job(path) as job:
        for _ in job.loop(range(2)):
            with pytest.raises(LoopError, match="not nested"):
                job.loop(range(2), name="inner")
    assert steps(path, range(2)) == []


def test_loops_that_were_made_before_they_begin_are_checked_when_they_begin(path: Path) -> None:
    with trax.Job(path) as job:
        one, other = job.loop(range(2), name="one"), job.loop(range(2), name="other")
        with pytest.raises(LoopError, match="not nested"):
            next(iter(zip(one, other, strict=True)))
        assert list(one) == [1], "its step goes on"
    with trax.Job(path) as job:
        one, again = job.loop(range(2), name="one"), job.loop(range(2), name="one")
        assert list(one) == []
        with pytest.raises(LoopError, match="already"):
            list(again)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (range(3), range(1, 4)),
        (range(3), range(0, 6, 2)),
        (range(3), range(1)),
        (["a", "b", "c"], ["a", "b"]),
        (["a", "b", "c"], iter("abc")),
        (iter("abc"), iter("a")),
    ],
)
def test_items_that_have_changed_are_refused(path: Path, before: Any, after: Any) -> None:
    with pytest.raises(ZeroDivisionError):
        with trax.Job(path) as job:
            for number, _ in enumerate(job.loop(before)):
                if number == 2:
                    raise ZeroDivisionError
    with trax.Job(path) as job, pytest.raises(LoopError, match="items have changed"):
        list(job.loop(after))


def test_an_iterator_ends_its_loop_with_its_last_item(path: Path) -> None:
    assert steps(path, iter("abc")) == ["a", "b", "c"]
    assert steps(path, iter("abcd")) == [], "that it had ended is stored"


def test_items_are_compared_by_their_digest_if_asked_for(path: Path) -> None:
    def work(items: list[str], fail: bool) -> list[str]:
        seen = []
        with trax.Job(path) as job:
            for item in job.loop(items, check_items=True):
                if fail and item == "c":
                    raise ZeroDivisionError
                seen.append(item)
        return seen

    with pytest.raises(ZeroDivisionError):
        work(["a", "b", "c"], True)
    with pytest.raises(LoopError, match="the first 2 items"):
        work(["a", "x", "c"], False)
    assert work(["a", "b", "c"], False) == ["c"]
    assert steps(path, ["a", "b", "c"]) == []


def test_items_without_an_order_are_refused(path: Path) -> None:
    with trax.Job(path) as job:
        with pytest.raises(LoopError, match="sorted"):
            job.loop({"a", "b"})
        assert list(job.loop(dict.fromkeys("ab"))) == ["a", "b"]


def test_a_checkpoint_in_a_step_truncates_the_log_of_the_job_as_well(path: Path) -> None:
    with trax.Job(path) as job:
        state = job.recover("sum", lambda: 0, plus)
        for step in job.loop(range(10)):
            state += step
            job.log(sum=step)
            if step == 8:
                job.checkpoint(sum=state)
        assert [entry for _, entry in job.store.entries(STATE)] == [10]
        assert job.recover("sum", replay_log=plus) == 45


def test_outside_of_a_loop_calls_commit_at_once(path: Path) -> None:
    with trax.Job(path) as job:
        job.recover("sum", lambda: 0, plus)
        job.log(sum=1)
        assert job.recover("sum", replay_log=plus) == 1
        job.checkpoint(sum=5)
        assert job.store.recover("sum", replay_log=plus) == 5


# Output files


def test_an_output_file_is_cut_back_to_what_the_last_commit_names(path: Path, tmp_path: Path) -> None:
    def work(fail: bool) -> None:
        with trax.Job(path) as job:
            text = job.open(tmp_path / "out.txt")
            binary = job.open(tmp_path / "out.bin", "ab")
            text.write("# header\n")
            for step in job.loop(range(4)):
                text.write(f"{step} ä\n")
                binary.write(bytes([step]))
                text.flush()
                if fail and step == 2:
                    raise ZeroDivisionError
            text.write("# footer\n")

    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            work(True)
        assert (tmp_path / "out.txt").read_text().endswith("2 ä\n"), "it is cut back when the job is opened again"
    for _ in range(3):
        work(False)
        assert (tmp_path / "out.txt").read_text() == "# header\n0 ä\n1 ä\n2 ä\n3 ä\n# footer\n"
        assert (tmp_path / "out.bin").read_bytes() == bytes(range(4))


def test_what_is_written_before_the_loop_to_a_file_that_no_step_has_written_to_is_kept(
    path: Path, tmp_path: Path
) -> None:
    def work(fail_at: int | None, *, with_file: bool) -> None:
        with trax.Job(path) as job:
            out = job.open(tmp_path / "new.txt") if with_file else None
            if out is not None:
                out.write("# header\n")
            for step in job.loop(range(4)):
                if step == fail_at:
                    raise ZeroDivisionError
                if out is not None:
                    out.write(f"{step}\n")

    with pytest.raises(ZeroDivisionError):
        work(1, with_file=False)
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            work(1, with_file=True)
    for _ in range(2):
        work(None, with_file=True)
        assert (tmp_path / "new.txt").read_text() == "# header\n1\n2\n3\n"


def test_a_job_directory_can_be_moved_with_its_files(tmp_path: Path) -> None:
    def work(directory: Path, count: int) -> None:
        with trax.Job(directory / "job.trax") as job:
            out = job.open(directory / "out.txt")
            for step in job.loop(range(count)):
                out.write(str(step))

    (tmp_path / "one").mkdir()
    work(tmp_path / "one", 3)
    os.rename(tmp_path / "one", tmp_path / "two")
    work(tmp_path / "two", 5)
    assert (tmp_path / "two/out.txt").read_text() == "01234"


def test_output_files_and_directories_may_be_links(tmp_path: Path) -> None:
    scratch, link = tmp_path / "scratch", tmp_path / "link"
    scratch.mkdir()
    link.symlink_to(scratch)
    (scratch / "linked.txt").symlink_to(tmp_path / "elsewhere.txt")

    def work(store: Path, out: Path, fail: bool) -> None:
        with trax.Job(store / "job.trax") as job:
            file = job.open(out / "linked.txt")
            for step in job.loop(range(4)):
                file.write(f"{step}\n")
                if step == 2 and fail:
                    file.flush()
                    raise ZeroDivisionError
            with pytest.raises(InvalidArgumentError, match="links to the same file"):
                job.open(tmp_path / "elsewhere.txt")
        assert file.name == str(tmp_path / "elsewhere.txt")

    with pytest.raises(ZeroDivisionError):
        work(scratch, scratch, True)
    work(scratch, link, False)
    work(link, scratch, False)
    assert (tmp_path / "elsewhere.txt").read_text() == "0\n1\n2\n3\n" and (scratch / "linked.txt").is_symlink()
    (tmp_path / "elsewhere.txt").unlink()
    with pytest.raises(OutputFileError, match="missing"):
        work(link, link, False)


def test_what_a_file_held_before_the_job_stays(path: Path, tmp_path: Path) -> None:
    (tmp_path / "out.txt").write_text("before\n")
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            with trax.Job(path) as job:
                job.open(tmp_path / "out.txt").write("lost")
                raise ZeroDivisionError
    with trax.Job(path) as job:
        assert job.open(tmp_path / "out.txt").tell() == len("before\n")
    assert (tmp_path / "out.txt").read_text() == "before\n"


def change(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[0] ^= 1
    file.write_bytes(data)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [(change, "changed"), (lambda file: os.truncate(file, 2), "changed"), (os.unlink, "missing")],
)
def test_an_output_file_that_something_else_has_changed_is_refused_and_left_alone(
    path: Path, tmp_path: Path, damage: Callable[[Path], None], reason: str
) -> None:
    file = tmp_path / "out.txt"
    with trax.Job(path) as job:
        out = job.open(file)
        for step in job.loop(range(3)):
            out.write(f"{step}\n")
    damage(file)
    left = file.read_bytes() if file.exists() else None
    with trax.Job(path) as job:
        with pytest.raises(OutputFileError) as caught:
            job.open(file)
        assert caught.value.reason == reason and caught.value.path == str(file)
    assert (file.read_bytes() if file.exists() else None) == left


class FullDisk(LocalFileSystem):
    """A disk on which, while it is full, only three bytes more of an output file find room."""

    is_full = False

    def pwrite(self, fd: int, data: bytes | memoryview, offset: int) -> int:
        if not self.is_full:
            return super().pwrite(fd, data, offset)
        if len(data) <= 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        return super().pwrite(fd, data[:3], offset)


def test_what_a_full_disk_did_not_take_can_be_written_again(path: Path, tmp_path: Path) -> None:
    fs, much = FullDisk(), "much " * 300_000
    with trax.Job(path, fs=fs) as job:
        out = job.open(tmp_path / "out.txt")
        for _ in job.loop(range(2)):
            out.write(much)
            fs.is_full = True
            for call in (out.flush, lambda: out.write("more\n")):
                with pytest.raises(DiskFullError, match="repeat the call"):
                    call()
            fs.is_full = False
            out.write("more\n")
    assert (tmp_path / "out.txt").read_text() == 2 * (much + "more\n")
    with trax.Job(path) as job:
        job.open(tmp_path / "out.txt")


def test_a_forked_child_does_not_write_what_its_parent_holds(path: Path, tmp_path: Path) -> None:
    with trax.Job(path) as job:
        out = job.open(tmp_path / "out.txt")
        out.write("# header\n")
        if (child := os.fork()) == 0:
            try:
                job.close()
            except ForkedError:
                os._exit(7)
            finally:
                os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
        for step in job.loop(range(2)):
            out.write(f"{step}\n")
    assert (tmp_path / "out.txt").read_text() == "# header\n0\n1\n"


def test_what_is_written_after_the_job_is_an_error(path: Path, tmp_path: Path) -> None:
    with trax.Job(path) as job:
        out = job.open(tmp_path / "out.txt")
        for step in job.loop(range(2)):
            out.write(f"{step}\n")
    with pytest.raises(ClosedError, match="closed"):
        out.write("end\n")
    assert (tmp_path / "out.txt").read_text() == "0\n1\n"


def test_a_file_that_something_else_appends_to_meanwhile_is_an_error(path: Path, tmp_path: Path) -> None:
    with pytest.raises(OutputFileError, match="something else"):
        with trax.Job(path) as job:
            out = job.open(tmp_path / "out.txt")
            for step in job.loop(range(3)):
                out.write(f"{step}\n")
                if step == 1:
                    with open(tmp_path / "out.txt", "a") as other:
                        other.write("not ours")


def write_steps(path: Path, file: Path, *, sync: Any, count: int, size: int = 1, checkpoint_at: int = -1) -> None:
    with trax.Job(path, sync=sync) as job:
        out = job.open(file, "ab")
        for step in job.loop(range(count)):
            out.write(bytes([65 + step]) * size)
            if step == checkpoint_at:
                job.checkpoint(state=step)


@pytest.mark.parametrize("sync", ["interval", "os"])
@pytest.mark.parametrize("left", [b"", b"ABC", b"ABC\0\0", b"ABC\0EF", b"ABCDEFgarbage"])
def test_what_a_power_loss_took_of_a_file_is_put_back_from_the_log(
    path: Path, tmp_path: Path, sync: Any, left: bytes
) -> None:
    file = tmp_path / "out.bin"
    write_steps(path, file, sync=sync, count=6)
    file.write_bytes(left)
    write_steps(path, file, sync="always", count=8)
    assert file.read_bytes() == b"ABCDEFGH"


@pytest.mark.parametrize("left", [b"", b"AB", b"XBCDEF"])
def test_what_was_synced_before_a_checkpoint_can_not_have_been_lost(path: Path, tmp_path: Path, left: bytes) -> None:
    file = tmp_path / "out.bin"
    write_steps(path, file, sync="os", count=6, checkpoint_at=2)
    file.write_bytes(b"ABC")
    write_steps(path, file, sync="os", count=6)
    assert file.read_bytes() == b"ABCDEF"
    file.write_bytes(left)
    with pytest.raises(OutputFileError, match="something else"):
        write_steps(path, file, sync="os", count=7)
    assert file.read_bytes() == left


class NotingSyncs(LocalFileSystem):
    """Which files were synced."""

    def __init__(self) -> None:
        self.paths: dict[int, str] = {}
        self.synced: list[str] = []

    def open(self, path: str, *, write: bool = False) -> int:
        fd = super().open(path, write=write)
        self.paths[fd] = path
        return fd

    def fsync(self, fd: int) -> None:
        self.synced.append(self.paths.get(fd, ""))
        super().fsync(fd)


@pytest.mark.parametrize("kind", ["checkpoint", "checkpoint_async", "outside of a loop"])
def test_a_checkpoint_syncs_what_an_earlier_process_has_not(path: Path, tmp_path: Path, kind: str) -> None:
    file = tmp_path / "out.bin"
    write_steps(path, file, sync="os", count=3)
    fs = NotingSyncs()
    with trax.Job(path, sync="os", fs=fs) as job:
        job.open(file, "ab")
        if kind == "outside of a loop":
            assert str(file) not in fs.synced
            job.checkpoint(state=1)
        for step in job.loop(range(4) if kind != "outside of a loop" else range(3)):
            assert str(file) not in fs.synced
            getattr(job, kind)(state=step)
        assert str(file) in fs.synced


def test_what_a_file_held_before_the_job_is_synced(path: Path, tmp_path: Path) -> None:
    file = tmp_path / "out.bin"
    file.write_bytes(b"before")
    fs = NotingSyncs()
    with trax.Job(path, sync="os", fs=fs) as job:
        before = len(fs.synced)
        job.open(file, "ab")
        assert fs.synced[before] == str(file), "before the commit that names it"


def test_what_was_logged_is_not_put_back_where_it_was_synced_later(path: Path, tmp_path: Path) -> None:
    file = tmp_path / "out.bin"
    with trax.Job(path, sync="os") as job:
        out = job.open(file, "ab")
        for step in job.loop(range(3)):
            out.write(b"small" if step < 2 else bytes(2 << 20))
    with open(file, "r+b") as damaged:
        damaged.write(b"x")
    with trax.Job(path, sync="os") as job, pytest.raises(OutputFileError, match="something else"):
        job.open(file, "ab")


def test_a_step_that_writes_much_has_its_file_synced_and_not_logged(path: Path, tmp_path: Path) -> None:
    file = tmp_path / "out.bin"
    write_steps(path, file, sync="os", count=3, size=(1 << 20) + 1)
    assert sum(found.stat().st_size for found in path.rglob("*") if found.is_file()) < 1 << 20
    with open(file, "r+b") as damaged:
        damaged.truncate(5)
    with pytest.raises(OutputFileError, match="something else"):
        write_steps(path, file, sync="os", count=3)


@pytest.mark.parametrize("name", ["a.h5", "a.npy", "a.npz", "a.nc"])
def test_formats_that_do_not_append_are_refused_with_advice(path: Path, tmp_path: Path, name: str) -> None:
    with trax.Job(path) as job, pytest.raises(InvalidArgumentError, match=r"job\.checkpoint"):
        job.open(tmp_path / name, "ab")


@pytest.mark.parametrize("mode", ["w", "r+", "r", "x", "a+"])
def test_other_modes_are_refused(path: Path, tmp_path: Path, mode: Any) -> None:
    with trax.Job(path) as job, pytest.raises(InvalidArgumentError, match="appends"):
        job.open(tmp_path / "a.txt", mode)
    assert not (tmp_path / "a.txt").exists()


def test_an_output_file_in_the_store_is_refused(path: Path) -> None:
    with trax.Job(path) as job:
        for name in ("lock", "out.txt"):
            with pytest.raises(InvalidArgumentError, match="beside"):
                job.open(path / name)


def test_a_directory_in_place_of_an_output_file_is_refused(path: Path, tmp_path: Path) -> None:
    with trax.Job(path) as job:
        with pytest.raises(InvalidArgumentError, match="no file"):
            job.open(tmp_path)
        with pytest.raises(StorageError):
            job.open(tmp_path / "missing" / "a.txt")


# Random generators


@pytest.mark.parametrize("kind", ["random", *BIT_GENERATORS])
def test_a_generator_goes_on_where_the_last_committed_step_left_it(tmp_path: Path, kind: str) -> None:
    if kind != "random":
        pytest.importorskip("numpy", reason="NumPy is not installed")

    def draw(generator: Any) -> list[Any]:
        if kind == "random":
            return [generator.gauss(0, 1), generator.random(), generator.getrandbits(5)]
        child = generator.spawn(1)[0]
        draws = [generator.standard_normal(), generator.integers(100), generator.integers(9, dtype="uint8"), child]
        return [draws[0].hex() if hasattr(draws[0], "hex") else draws[0], int(draws[1]), int(draws[2]), child.random()]

    def work(directory: Path, fail_at: int | None) -> list[list[Any]]:
        draws = []
        with trax.Job(directory / "job.trax") as job:
            generator = job.rng("moves", seed=42, kind=kind)
            first = draw(generator)
            for step in job.loop(range(4), name="one"):
                if step == fail_at:
                    draw(generator)
                    raise ZeroDivisionError
                draws.append(draw(generator))
            between = draw(generator)
            for step in job.loop(range(4), name="two"):
                if fail_at is not None and step + 4 == fail_at:
                    draw(generator)
                    raise ZeroDivisionError
                draws.append(draw(generator))
        return [first, between, *draws]

    whole = work(tmp_path / "whole", None)
    for fail_at in (0, 2, 4, 6):
        with pytest.raises(ZeroDivisionError):
            work(tmp_path / str(fail_at), fail_at)
        resumed = work(tmp_path / str(fail_at), None)
        assert resumed == whole[:2] + whole[2 + fail_at :]


def test_a_loop_restores_a_generator_that_none_of_its_steps_has_used(path: Path) -> None:
    def work(first_loop: bool, fail: bool) -> float:
        with trax.Job(path) as job:
            rng = job.rng("a", 1, kind="random")
            if first_loop:
                for _ in job.loop(range(2), name="one"):
                    rng.random()
            for step in job.loop(range(3), name="two"):
                if fail and step == 1:
                    raise ZeroDivisionError
            return float(rng.random())

    with pytest.raises(ZeroDivisionError):
        work(first_loop=True, fail=True)
    expected = random.Random(1)
    assert work(first_loop=False, fail=False) == [expected.random() for _ in range(3)][2]


def test_a_step_that_only_spawns_children_changes_a_generator(path: Path) -> None:
    numpy = pytest.importorskip("numpy", reason="NumPy is not installed")

    def work(fail: bool) -> list[float]:
        drawn = []
        with trax.Job(path) as job:
            rng = job.rng("a", 1)
            for step in job.loop(range(4)):
                drawn.append(rng.spawn(1)[0].random())
                if fail and step == 2:
                    raise ZeroDivisionError
        return drawn

    with pytest.raises(ZeroDivisionError):
        work(True)
    expected = [child.random() for child in numpy.random.default_rng(1).spawn(4)]
    assert work(False) == expected[2:]


def test_a_generator_without_a_seed_keeps_the_one_it_was_given(path: Path) -> None:
    drawn = []
    for _ in range(2):
        with trax.Job(path) as job:
            drawn.append(job.rng("a", kind="random").random())
    assert drawn[0] == drawn[1]


@pytest.mark.parametrize("kind", ["random", "PCG64"])
def test_a_first_state_that_was_drawn_leaves_its_generator_behind_it(tmp_path: Path, kind: str) -> None:
    def add(state: list[float], entry: float) -> list[float]:
        return [*state, entry]

    def drawn(path: Path, stop: str) -> list[float]:
        with trax.Job(path) as job:
            rng = job.rng("draws", seed=7, kind=kind)
            state: list[float] = job.recover("state", lambda: [rng.random()], add)
            if stop == "behind the state":
                return state
            between = rng.random()
            for step in job.loop(range(2)):
                state.append(rng.random())
                job.log(state=state[-1])
                if stop == "in the loop" and step == 1:
                    raise KeyError
            assert job.recover("state", replay_log=add) == state, "which draws nothing"
            return [*state, between, rng.random()]

    whole = drawn(tmp_path / "whole.trax", "")
    drawn(tmp_path / "cut.trax", "behind the state")
    with pytest.raises(KeyError):
        drawn(tmp_path / "cut.trax", "in the loop")
    assert drawn(tmp_path / "cut.trax", "") == whole


def test_another_seed_or_kind_is_refused(path: Path) -> None:
    with trax.Job(path) as job:
        job.rng("a", 1, kind="random")
    with trax.Job(path) as job:
        with pytest.raises(InvalidArgumentError, match="another seed or kind"):
            job.rng("a", 2, kind="random")
        with pytest.raises(InvalidArgumentError, match="no random generator"):
            job.rng("b", 2, kind="dice")
        again = job.rng("a", 1, kind="random")
        again.random()
        with pytest.raises(InvalidArgumentError, match="another seed or kind"):
            job.rng("a", 2, kind="random")
        with pytest.raises(InvalidArgumentError, match="seed"):
            job.rng("b", [1], kind="random")  # cannot be hashed, as random.Random wants it
        assert job.rng("a", 1, kind="random") is again is job.rng("a", kind="random")


def test_global_generators_that_were_captured_must_be_there_again(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("numpy", reason="NumPy is not installed")
    with trax.Job(path, codec="json") as job:
        job.capture_global_rng()
    monkeypatch.delitem(sys.modules, "numpy")
    with trax.Job(path) as job, pytest.raises(InvalidArgumentError, match="import it before"):
        job.capture_global_rng()


def test_global_generators_are_captured(path: Path) -> None:
    numpy = pytest.importorskip("numpy", reason="NumPy is not installed")

    def work(fail: bool) -> list[Any]:
        random.seed(3)
        numpy.random.seed(4)
        drawn = []
        with trax.Job(path) as job:
            job.capture_global_rng()
            for step in job.loop(range(3)):
                drawn.append((random.random(), numpy.random.normal()))
                if fail and step == 1:
                    raise ZeroDivisionError
        return drawn

    with pytest.raises(ZeroDivisionError):
        work(True)
    random.seed(3)
    numpy.random.seed(4)
    expected = [(random.random(), numpy.random.normal()) for _ in range(3)]
    assert first_difference(expected[1:], work(False)) is None


# All of it, killed everywhere


def everything(directory: str, sync: Any = "always", codec: str | None = None) -> dict[str, Any]:
    """Two loops, a generator, two output files, checkpoints, a break."""

    def advance(state: dict[str, Any], entry: float) -> dict[str, Any]:
        state["count"] += 1
        state["sum"] += entry
        return state

    with trax.Job(os.path.join(directory, "job.trax"), sync=sync, codec=codec) as job:
        state: dict[str, Any] = job.recover("state", lambda: {"count": 0, "sum": 0.0}, advance)
        rng = job.rng("moves", 7, kind="random")
        out = job.open(os.path.join(directory, "out.txt"))
        offset = rng.random()
        out.write(f"offset {offset}\n")
        for step in job.loop(range(4), name="one"):
            amount = offset + rng.random()
            job.log(state=amount)
            advance(state, amount)
            out.write(f"{step} {state['sum']!r}\n")
            if step == 2:
                job.checkpoint(state=state)
        between = rng.random()
        out.write(f"between {between}\n")
        raw = job.open(os.path.join(directory, "out.bin"), "ab")
        for item in job.loop("abcdef", name="two"):
            amount = between + rng.random()
            job.log(state=amount)
            advance(state, amount)
            raw.write(item.encode() * 3)
            if item == "c":
                break
        out.write(f"end {rng.random()}\n")
    return state


@pytest.mark.parametrize("every", ["commit", "operation"])
def test_a_job_that_is_killed_anywhere_ends_as_if_it_had_not_been(every: Any) -> None:
    report = crash_everywhere(everything, every=every, limit=2 * LIMIT)
    assert report.tried > 15
    count(f"jobs: a kill (every={every!r})", report.crashes)


@pytest.mark.parametrize("codec", ["json", "pickle"])
def test_a_job_can_have_any_codec(codec: str) -> None:
    job = functools.partial(everything, sync="os", codec=codec)
    report = crash_everywhere(job, how="power loss", limit=LIMIT // 2)
    assert report.crashes
    count(f"jobs: a power loss (codec={codec!r})", report.crashes)


@pytest.mark.parametrize("sync", ["always", "os"])
def test_a_job_whose_power_fails_anywhere_ends_as_if_it_had_not(sync: Any) -> None:
    job = functools.partial(everything, sync=sync)
    report = crash_everywhere(job, how="power loss", every="operation", limit=LIMIT, samples=2)
    assert report.tried == min(LIMIT, report.points)
    count(f"jobs: a power loss (sync={sync!r})", report.crashes)


def test_a_power_loss_during_the_recovery_from_another_one_changes_nothing() -> None:
    job = functools.partial(everything, sync="os")
    report = crash_everywhere(job, how="power loss", every="operation", limit=LIMIT // 2, crashes=2)
    assert report.crashes > report.tried
    count("jobs: two power losses", report.crashes)


def test_a_job_that_is_killed_twice_ends_as_if_it_had_not_been() -> None:
    assert crash_everywhere(everything, crashes=2, limit=12, every="operation").crashes > 12


def test_importing_trax_does_not_import_jobs() -> None:
    script = "import sys, trax; before = 'trax.job' in sys.modules; trax.Job; print(before, 'trax.job' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["False", "True"]


def test_a_job_can_save_only_what_has_changed(tmp_path: Path) -> None:
    array = np.random.default_rng(1).integers(0, 256, 4 << 20, dtype=np.uint8)
    for _ in range(2):
        with trax.Job(tmp_path / "j", differential=True) as job:
            job.recover("array", lambda: array)
            array[0] ^= 1
            job.checkpoint(array=array)
    assert sorted(file.stat().st_size >> 20 for file in (tmp_path / "j" / "blobs").iterdir()) == [1, 4]
    with trax.Job(tmp_path / "j") as job:
        assert np.array_equal(job.recover("array"), array)


def test_an_array_that_is_checkpointed_early_in_a_step_and_changed_later_is_not_changed_twice(tmp_path: Path) -> None:
    def add(array: Any, entry: int) -> Any:
        array += entry
        return array

    def run(path: Path) -> Any:
        with trax.Job(path) as job:
            array = job.recover("array", lambda: np.zeros(100_000), add)
            for item in job.loop(range(4)):
                if item % 2:
                    job.checkpoint(array=array)
                array += item
                job.log(array=item)
            return array.copy()

    crash_everywhere(run, limit=LIMIT)
