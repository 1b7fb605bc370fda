"""The file systems that count where a job may be cut off, and what they leave when it is."""

from __future__ import annotations

import functools
import os
import shutil
import sys
import threading
import warnings
from pathlib import Path
from typing import Any

import pytest

import trax
from tests.helpers import kill, reopen_and_check
from trax.storage.local.fs import LocalFileSystem, default_file_system, set_default_file_system
from trax.testing.cutting import KillingFileSystem, PowerLossFileSystem
from trax.testing.errors import JobError
from trax.testing.points import CrashPoints, Point, file_of, is_own_code


def append(state: list[Any], entry: Any) -> list[Any]:
    return [*state, entry]


class Cut(BaseException):
    """The end of a process, without the end."""


def cut(point: Point) -> None:
    raise Cut(point)


class Places(CrashPoints):
    """Remembers what was counted."""

    def __init__(self) -> None:
        super().__init__(0, cut, None)
        self.seen: list[str] = []

    def reach(self, what: str) -> None:
        super().reach(what)
        self.seen.append(what)


@pytest.mark.parametrize("kind", [KillingFileSystem, PowerLossFileSystem])
def test_what_is_counted_around_each_commit(kind: Any, tmp_path: Path) -> None:
    places = Places()
    with trax.Trax(tmp_path / "s", fs=kind(str(tmp_path), places, "commit")) as store:
        opening = len(places.seen)
        assert not any("record" in what for what in places.seen), "marks and headers are no records"
        store.log(a=1)
        store.checkpoint(a=1)
        closing = len(places.seen)
    logged = [f"just {when} the write of a record to s/log.00000001" for when in ("before", "after")]
    replaced = [f"just {when} the replacement of s/snapshot" for when in ("before", "after")]
    synced = ["just after the sync of s/log.00000001"]
    if kind is KillingFileSystem:
        assert places.seen[opening:closing] == [*logged, *replaced]
        assert places.seen[closing:] == [], "closing commits nothing"
    else:
        # The log is synced once more before it is sealed; a new segment is synced, and then the names.
        assert places.seen[opening : opening + 3] == [*logged, *synced]
        assert places.seen[closing - 3 : closing] == [*replaced, "just after the sync of the names in s"]
    assert len(places.seen) == places.count


def test_every_operation_is_counted_on_both_sides(tmp_path: Path) -> None:
    places = Places()
    with trax.Trax(tmp_path / "s", fs=KillingFileSystem(str(tmp_path), places, "operation")) as store:
        store.checkpoint(a=bytes(100_000))
        store.log(a=1)
    begun, done = (
        {what.removeprefix(f"just {when} ") for what in places.seen if what.startswith(f"just {when} ")}
        for when in ("before", "after")
    )
    assert done <= begun
    assert all(what.startswith("the removal of") for what in begun - done), "of what was not there"
    for what in ("creation", "a write to", "sync of s/", "sync of the names", "removal", "making of s", "truncation"):
        assert any(what in seen for seen in places.seen), what


def lose_power(tmp_path: Path, *, sync: str = "os", seed: str = "1", variant: int = 0) -> list[int]:
    """Log 20 records, 10 of which are synced; lose the power; what is left of them."""
    shutil.rmtree(tmp_path / "store", ignore_errors=True)
    fs = PowerLossFileSystem(str(tmp_path), CrashPoints(0, cut, None), "commit")
    store = trax.Trax(tmp_path / "store", sync=sync, fs=fs)  # type: ignore[arg-type]
    store.recover("numbers", list)
    for number in range(20):
        store.log(numbers=number)
        if number == 9:
            store.sync()
            (tmp_path / "results.txt").write_text("the job's own, and new")
    fs.lose_power(seed, variant)
    kill(store)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", trax.TraxWarning)
        store = reopen_and_check(tmp_path / "store")
    with store:
        numbers: list[int] = store.recover("numbers", None, append)
    return numbers


def test_a_power_loss_takes_what_was_not_synced_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "results.txt").write_text("the job's own")
    assert lose_power(tmp_path) == list(range(10))
    assert lose_power(tmp_path, sync="always") == list(range(20))
    assert (tmp_path / "results.txt").read_text() == "the job's own, and new"


def test_other_variants_lose_a_part_of_it_as_the_seed_decides(tmp_path: Path) -> None:
    found = {}
    for seed in "123456":
        for variant in (1, 2):
            found[seed, variant] = lose_power(tmp_path, seed=seed, variant=variant)
            assert list(range(10)) == found[seed, variant][:10]
    assert len(set(map(tuple, found.values()))) > 2


def test_what_was_there_before_counts_as_synced(tmp_path: Path) -> None:
    with trax.Trax(tmp_path / "store", keep=2) as store:
        store.checkpoint(numbers=[1], blob=bytes(100_000))
        store.log(numbers=2)
    fs = PowerLossFileSystem(str(tmp_path), CrashPoints(0, cut, None), "commit")
    store = trax.Trax(tmp_path / "store", sync="os", fs=fs)
    store.log(numbers=3)
    fs.lose_power("", 0)
    kill(store)
    with reopen_and_check(tmp_path / "store") as store:
        assert store.recover("numbers", None, append) == [1, 2]
        assert store.recover("blob") == bytes(100_000)


def test_what_the_job_has_removed_itself_does_not_come_back(tmp_path: Path) -> None:
    fs = PowerLossFileSystem(str(tmp_path), CrashPoints(0, cut, None), "commit")
    with trax.Trax(tmp_path / "first", fs=fs) as store:
        store.checkpoint(a=1)
    with trax.Trax(tmp_path / "second", fs=fs) as store:
        store.checkpoint(a=2)
    shutil.rmtree(tmp_path / "first")
    fs.lose_power("", 0)
    assert not (tmp_path / "first" / "snapshot").exists()
    with reopen_and_check(tmp_path / "second") as store:
        assert store.recover("a") == 2


def test_a_store_whose_name_was_not_synced_is_gone(tmp_path: Path) -> None:
    """And what the job has put into a directory beside it is not."""
    places = CrashPoints(0, cut, None)
    fs = PowerLossFileSystem(str(tmp_path), places, "operation")
    places._at, places._end = 4, cut  # just after the directory was made
    (tmp_path / "results").mkdir()
    with pytest.raises(Cut, match="just after the making of results/store"):
        trax.Trax(tmp_path / "results" / "store", fs=fs)
    (tmp_path / "results" / "rows.txt").touch()
    fs.lose_power("", 0)
    assert os.listdir(tmp_path / "results") == ["rows.txt"]


def test_stores_elsewhere_can_be_read_and_not_written(tmp_path: Path) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()
    with trax.Trax(tmp_path / "input.trax") as store:
        store.checkpoint(a=1)
    lock = (tmp_path / "input.trax" / "lock").read_bytes()
    for kind in (KillingFileSystem, PowerLossFileSystem):
        fs: Any = kind(str(inside), CrashPoints(0, cut, None), "commit")
        with trax.Trax(tmp_path / "input.trax", mode="r", fs=fs) as store:
            assert store.recover("a") == 1
        for path in ("input.trax", "output.trax", "inside-out.trax"):
            with pytest.raises(JobError, match="outside of the directory"):
                trax.Trax(tmp_path / path, fs=fs)
    assert (tmp_path / "input.trax" / "lock").read_bytes() == lock


def test_a_store_that_is_given_no_file_system_asks_for_the_default_one(tmp_path: Path) -> None:
    real = default_file_system()
    assert type(real) is LocalFileSystem
    places = Places()
    assert set_default_file_system(KillingFileSystem(str(tmp_path), places, "commit")) is real
    try:
        with trax.Trax(tmp_path / "s") as store:
            store.log(a=1)
    finally:
        set_default_file_system(real)
    assert places.count > 2
    with trax.Trax(tmp_path / "s") as store:
        before = places.count
        store.log(a=1)
    assert places.count == before


def test_a_point_names_the_line_of_the_job(tmp_path: Path) -> None:
    places = CrashPoints(0, cut, None)
    with trax.Trax(tmp_path / "s", fs=KillingFileSystem(str(tmp_path), places, "commit")) as store:
        places._at = places.count + 2
        with pytest.raises(Cut) as caught:
            store.log(a=1)
        kill(store)
    (point,) = caught.value.args
    assert (point.number, point.what) == (places._at, "just after the write of a record to s/log.00000001")
    assert "test_cutting.py, line" in point.where
    assert point.where.endswith("in test_a_point_names_the_line_of_the_job: store.log(a=1)")


def test_whose_code_it_is() -> None:
    assert is_own_code(__file__) and is_own_code("<doctest page.rst[0]>")
    assert not is_own_code(shutil.__file__) and not is_own_code(pytest.__file__) and not is_own_code(trax.__file__)
    assert not is_own_code("<frozen os>") and not is_own_code("<string>")


class CallableJob:
    def __call__(self, directory: str) -> None: ...

    def method(self, directory: str) -> None: ...


def test_the_file_of_a_job() -> None:
    jobs: list[Any] = [
        append,
        functools.partial(append, []),
        CallableJob(),
        CallableJob().method,
        lambda directory: None,
    ]
    assert {file_of(one) for one in jobs} == {__file__}
    assert file_of(len) is None


def test_lines_are_counted_when_they_are_the_jobs_own(tmp_path: Path) -> None:
    places = Places()
    before = sys.gettrace()
    places.count_lines()
    try:
        append([1], 2)
        shutil.which("sh")
    finally:
        sys.settrace(before)
        threading.settrace(before)  # type: ignore[arg-type]
    assert places.seen == ["just before a line of the job"]
