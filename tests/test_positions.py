"""Positions: the file is whole whatever crashes, at most one window behind, and nobody else's.

``Each fault of the model`` has what winlogbeat's package, the model, does wrong, each with the test that it would fail.
"""

from __future__ import annotations

import gc
import os
import random
import re
import signal
import stat
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import trax
from tests.counting import count
from tests.sweeping import SEED, Bounds, crash_everywhere, fail_everywhere
from trax import errors
from trax.positions import EventLogState, PersistedState, Positions, document, read
from trax.positions.keeper import Clock
from trax.storage.local.fs import LocalFileSystem
from trax.testing.disks import crash_images
from trax.testing.faults import FAULTS, FaultyFileSystem
from trax.testing.recording import RecordingFileSystem

yaml = pytest.importorskip("yaml")

KILLS = int(os.environ.get("TRAX_KILLS", "12"))
NOON = datetime(2024, 1, 31, 12, tzinfo=UTC)
HOUR_S = 3600.0

GO_FILE = """\
update_time: 2024-02-01T08:30:00.123456789Z
event_logs:
- name: Application
  record_number: 18446744073709551615
  timestamp: 2024-02-01T08:29:59.987654321Z
  bookmark: "<BookmarkList>\\r\\n  <Bookmark Channel='Application' RecordId='7' IsCurrent='true'/>\\r\\n</BookmarkList>"
- name: Microsoft-Windows-Sysmon/Operational
  record_number: 5
  timestamp: 0001-01-01T00:00:00Z
- name: Security
  record_number: 12
  timestamp: 2024-02-01T09:29:59.5+01:00
"""


class ManualClock(Clock):
    """A clock that a test moves. ``settle`` returns when the keeper's thread has done what is due, and waits again."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.rounds = 0
        self.timeout_s: float | None = None
        self.condition = threading.Condition()

    def now(self) -> datetime:
        return NOON + timedelta(seconds=self.seconds)

    def monotonic(self) -> float:
        return self.seconds

    def wait(self, condition: threading.Condition, timeout_s: float | None) -> None:
        self.condition, self.timeout_s = condition, timeout_s
        self.rounds += 1
        condition.notify_all()
        condition.wait()

    def settle(self) -> None:
        assert wait_until(lambda: self.rounds > 0), "the keeper's thread has not begun"
        with self.condition:
            before = self.rounds
            self.condition.notify_all()
            assert self.condition.wait_for(lambda: self.rounds > before, 60), "the keeper's thread hangs"

    def advance(self, seconds: float) -> None:
        with self.condition:
            self.seconds += seconds
        self.settle()


def wait_until(true: Callable[[], bool]) -> bool:
    patience = threading.Event()
    return any(true() or patience.wait(0.01) for _ in range(6000))


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


def numbers(file: Path) -> dict[str, int]:
    """What the file says, by name."""
    return {name: state.record_number for name, state in read(file).states.items()}


# What it keeps


def test_what_was_persisted_is_there_after_a_restart(tmp_path: Path) -> None:
    file = tmp_path / "state" / "dir" / ".positions.yml"
    with Positions(file) as positions:
        assert positions.states() == {} and read(file).states == {}
        positions.persist("Security", 7, NOON, "<Bookmark/>")
        positions.persist("Application", 2**64 - 1, NOON)
        positions.states().clear()
        assert list(positions.states()) == ["Security", "Application"]
    with Positions(file) as positions:
        assert positions.states() == {
            "Application": EventLogState("Application", 2**64 - 1, NOON),
            "Security": EventLogState("Security", 7, NOON, "<Bookmark/>"),
        }


def test_file_is_yaml_sorted_by_name(tmp_path: Path, clock: ManualClock) -> None:
    with Positions(tmp_path / "p.yml", clock=clock) as positions:
        positions.persist("b: c", 2, NOON + timedelta(microseconds=120), "one\ntwo")
        positions.persist("a", 1, NOON.astimezone(timezone(timedelta(hours=-3, minutes=-30))))
    assert (tmp_path / "p.yml").read_text() == (
        "---\n"
        "update_time: 2024-01-31T12:00:00Z\n"
        "event_logs:\n"
        "- name: a\n"
        "  record_number: 1\n"
        "  timestamp: 2024-01-31T08:30:00-03:30\n"
        "- name: 'b: c'\n"
        "  record_number: 2\n"
        "  timestamp: 2024-01-31T12:00:00.00012Z\n"
        '  bookmark: "one\\ntwo"\n'
        "...\n"
    )
    found = yaml.safe_load((tmp_path / "p.yml").read_text())
    assert found["event_logs"][0] == {"name": "a", "record_number": 1, "timestamp": NOON}


def test_file_of_the_go_library_opens_and_untouched_entries_stay_exactly_as_they_were(tmp_path: Path) -> None:
    file = tmp_path / ".winlogbeat.yml"
    file.write_text(GO_FILE)
    persisted = read(file)
    assert persisted.update_time == datetime(2024, 2, 1, 8, 30, 0, 123456, UTC)
    assert list(persisted.states) == ["Application", "Microsoft-Windows-Sysmon/Operational", "Security"]
    with Positions(file) as positions:
        application = positions.states()["Application"]
        assert application.record_number == 2**64 - 1
        assert application.timestamp == datetime(2024, 2, 1, 8, 29, 59, 987654, UTC) and application.nanosecond == 321
        assert application.bookmark.startswith("<BookmarkList>\r\n  <Bookmark Channel='Application'")
        positions.persist("Security", 13, NOON)
    assert (tmp_path / ".winlogbeat.yml.previous").read_text() == GO_FILE
    kept = GO_FILE.splitlines()[2:9]
    assert [line for line in file.read_text().splitlines() if line in kept] == kept
    assert read(file).states["Security"] == EventLogState("Security", 13, NOON)


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
zones = st.one_of(st.just(UTC), st.integers(-1439, 1439).map(lambda n: timezone(timedelta(minutes=n))))
times = st.datetimes(datetime(1, 1, 3), datetime(9999, 12, 29), timezones=zones)
logs = st.builds(EventLogState, texts, st.integers(0, 2**64 - 1), times, texts, st.integers(0, 999))


@pytest.fixture(scope="module", params=["libyaml", "pure Python"])
def _kind_of_yaml(request: pytest.FixtureRequest) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "pure Python":
            patch.delattr(yaml, "CSafeDumper", raising=False)
            patch.delattr(yaml, "CBaseLoader", raising=False)
        document._yaml.cache_clear()
        yield
    document._yaml.cache_clear()


@pytest.mark.usefixtures("_kind_of_yaml")
@given(st.lists(logs, max_size=5), times)
def test_every_state_comes_back_as_it_was(states: list[EventLogState], update_time: datetime) -> None:
    persisted = PersistedState(update_time, {state.name: state for state in states})
    found = document.decode(document.encode(persisted), "p")
    assert found == persisted
    assert list(found.states) == sorted(persisted.states)


def test_offset_with_seconds_becomes_the_same_instant_in_utc(tmp_path: Path) -> None:
    with Positions(tmp_path / "p.yml") as positions:
        positions.persist("a", 1, NOON.astimezone(timezone(timedelta(seconds=4321))))
    assert read(tmp_path / "p.yml").states["a"].timestamp == NOON


@pytest.mark.parametrize(
    ("name", "number", "timestamp", "bookmark"),
    [
        (1, 1, NOON, ""),
        ("a", -1, NOON, ""),
        ("a", 2**64, NOON, ""),
        ("a", True, NOON, ""),
        ("a", 1.0, NOON, ""),
        ("a", 1, NOON.replace(tzinfo=None), ""),
        ("a", 1, "2024-01-31", ""),
        ("a", 1, datetime.max.replace(tzinfo=timezone(timedelta(seconds=-1))), ""),
        ("a", 1, NOON, b"x"),
        ("a\ud800", 1, NOON, ""),
    ],
)
def test_what_a_file_cant_keep_is_refused(
    name: Any, number: Any, timestamp: Any, bookmark: Any, tmp_path: Path
) -> None:
    with Positions(tmp_path / "p.yml") as positions:
        with pytest.raises(errors.InvalidArgumentError):
            positions.persist(name, number, timestamp, bookmark)
        assert positions.states() == {}


def test_options_that_mean_nothing_are_refused(tmp_path: Path) -> None:
    for options in ({"max_updates": 0}, {"max_updates": True}, {"interval_s": float("nan")}, {"interval_s": "5"}):
        with pytest.raises(errors.InvalidArgumentError):
            Positions(tmp_path / "p.yml", **options)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


def test_directories_and_files_have_the_permissions_of_the_model(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        with Positions(tmp_path / "a" / "b" / "p.yml") as positions:
            positions.persist("a", 1, NOON)
            positions.flush()
    finally:
        os.umask(before)
    for path in (tmp_path / "a", tmp_path / "a" / "b"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o750
    for name in ("p.yml", "p.yml.previous"):
        assert stat.S_IMODE((tmp_path / "a" / "b" / name).stat().st_mode) == 0o600


def test_previous_generation_stays_beside_the_file(tmp_path: Path) -> None:
    with Positions(tmp_path / "p.yml") as positions:
        for number in (1, 2, 3):
            positions.persist("a", number, NOON)
            positions.flush()
    assert numbers(tmp_path / "p.yml") == {"a": 3}
    assert numbers(tmp_path / "p.yml.previous") == {"a": 2}


def test_reading_takes_no_lock_and_changes_nothing(tmp_path: Path) -> None:
    with pytest.raises(errors.StoreNotFoundError, match=r"p\.yml"):
        read(tmp_path / "p.yml")
    assert list(tmp_path.iterdir()) == []
    with Positions(tmp_path / "p.yml") as positions:
        positions.persist("a", 1, NOON)
        positions.flush()
        before = sorted(path.stat().st_mtime_ns for path in tmp_path.iterdir())
        assert numbers(tmp_path / "p.yml") == {"a": 1}
        assert sorted(path.stat().st_mtime_ns for path in tmp_path.iterdir()) == before


def test_missing_yaml_is_named(tmp_path: Path) -> None:
    code = f"""
import sys
sys.modules["yaml"] = None
import trax.positions
try:
    trax.positions.Positions({str(tmp_path / "p.yml")!r})
except trax.errors.DependencyError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment())
    assert "install it: pip install PyYAML" in done.stdout


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}


# When it is flushed


def test_flush_follows_after_max_updates(tmp_path: Path, clock: ManualClock) -> None:
    with Positions(tmp_path / "p.yml", 2, HOUR_S, clock=clock) as positions:
        for number in range(1, 6):
            positions.persist("a", number, NOON)
            clock.settle()
            assert positions.states()["a"].record_number == number
            assert numbers(tmp_path / "p.yml") == ({"a": number // 2 * 2} if number > 1 else {})


def test_flush_follows_when_the_oldest_update_is_an_interval_old(tmp_path: Path, clock: ManualClock) -> None:
    with Positions(tmp_path / "p.yml", 100, 5.0, clock=clock) as positions:
        clock.advance(100)
        assert clock.timeout_s is None, "nothing waits to be flushed"
        positions.persist("a", 1, NOON)
        clock.advance(3)
        positions.persist("a", 2, NOON)
        clock.advance(1.5)
        assert numbers(tmp_path / "p.yml") == {} and clock.timeout_s == 0.5
        clock.advance(0.5)
        assert numbers(tmp_path / "p.yml") == {"a": 2}
        assert clock.timeout_s is None
        positions.persist("a", 3, NOON)
        clock.advance(4.5)
        assert numbers(tmp_path / "p.yml") == {"a": 2}, "the interval is that of the update, not of the flush"
        clock.advance(0.5)
        assert numbers(tmp_path / "p.yml") == {"a": 3}


@pytest.mark.parametrize(("asked", "taken"), [(0, 1.0), (0.2, 1.0), (-5, 1.0), (1.5, 1.5)])
def test_interval_of_less_than_a_second_is_raised_to_one(
    asked: float, taken: float, tmp_path: Path, clock: ManualClock
) -> None:
    with Positions(tmp_path / "p.yml", 100, asked, clock=clock) as positions:
        assert positions.interval_s == taken
        positions.persist("a", 1, NOON)
        clock.advance(taken - 0.25)
        assert numbers(tmp_path / "p.yml") == {}
        clock.advance(0.25)
        assert numbers(tmp_path / "p.yml") == {"a": 1}


def test_real_clock_flushes_too(tmp_path: Path) -> None:
    with Positions(tmp_path / "p.yml", 100, 1.0) as positions:
        positions.persist("a", 1, NOON)
        assert wait_until(lambda: numbers(tmp_path / "p.yml") == {"a": 1})


def test_flush_and_shutdown_bring_everything_to_the_file(tmp_path: Path, clock: ManualClock) -> None:
    positions = Positions(tmp_path / "p.yml", clock=clock)
    positions.persist("a", 1, NOON)
    positions.flush()
    assert numbers(tmp_path / "p.yml") == {"a": 1}
    written = (tmp_path / "p.yml").stat().st_mtime_ns
    positions.flush()
    assert (tmp_path / "p.yml").stat().st_mtime_ns == written, "there was nothing to do"
    positions.persist("a", 2, NOON)
    positions.shutdown()
    positions.shutdown()
    assert numbers(tmp_path / "p.yml") == {"a": 2}
    assert positions.states()["a"].record_number == 2
    with pytest.raises(errors.ClosedError):
        positions.flush()
    assert not positions._keeper._thread.is_alive()


class Gate(LocalFileSystem):
    """Holds every fsync until it is opened, and says that one has come."""

    def __init__(self) -> None:
        self.open_ = threading.Event()
        self.open_.set()
        self.reached = threading.Event()

    def fsync(self, fd: int) -> None:
        if not self.open_.is_set():
            self.reached.set()
            assert self.open_.wait(60)
        super().fsync(fd)


def test_persist_does_not_wait_for_the_disk_until_it_is_a_whole_window_ahead(tmp_path: Path) -> None:
    gate = Gate()
    with Positions(tmp_path / "p.yml", 3, HOUR_S, fs=gate) as positions:
        gate.open_.clear()
        for number in (1, 2, 3):
            positions.persist("a", number, NOON)
        assert gate.reached.wait(60), "the thread writes"
        returned = threading.Event()

        def persist() -> None:
            positions.persist("a", 4, NOON)
            returned.set()

        thread = threading.Thread(target=persist)
        thread.start()
        assert wait_until(lambda: positions.states()["a"].record_number == 4)
        assert numbers(tmp_path / "p.yml") == {} and not returned.is_set(), "four updates would be lost"
        gate.open_.set()
        thread.join()
        assert numbers(tmp_path / "p.yml")["a"] >= 3


def test_window_that_filled_while_another_was_written_is_flushed_too(tmp_path: Path) -> None:
    gate = Gate()
    with Positions(tmp_path / "p.yml", 3, HOUR_S, fs=gate) as positions:
        gate.open_.clear()
        for number in (1, 2, 3):
            positions.persist("a", number, NOON)
        assert gate.reached.wait(60), "the thread writes"
        threads = [threading.Thread(target=positions.persist, args=[name, 1, NOON]) for name in ("b", "c", "d")]
        for thread in threads:
            thread.start()
        assert wait_until(lambda: len(positions.states()) == 4)
        gate.open_.set()
        for thread in threads:
            thread.join()
        assert wait_until(lambda: len(numbers(tmp_path / "p.yml")) == 4), "three updates since the last flush"


# Each fault of the model


def test_second_process_is_refused_with_the_name_of_the_owner(tmp_path: Path) -> None:
    """In the model two processes write to the same file, and to the same temporary one."""
    code = """
import sys
from trax.positions import Positions
with Positions(sys.argv[1]) as positions:
    print("open", flush=True)
    sys.stdin.read()
"""
    command = [sys.executable, "-c", code, str(tmp_path / "p.yml")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment()) as other:
        assert other.stdout is not None and other.stdout.readline() == b"open\n"
        with pytest.raises(errors.StoreLockedError, match=rf"p\.yml is in use by pid {other.pid}") as caught:
            Positions(tmp_path / "p.yml")
        assert caught.value.owner["pid"] == other.pid
        assert "trax.positions.read()" in str(caught.value)
        assert read(tmp_path / "p.yml").states == {}
        other.kill()
        other.communicate()
    with Positions(tmp_path / "p.yml"), pytest.raises(errors.StoreLockedError, match="this very process"):
        Positions(tmp_path / "p.yml")


def test_temporary_file_is_of_one_process_alone_and_is_swept(tmp_path: Path) -> None:
    """In the model it is ``<file>.new``, whoever writes."""
    names = set()

    class Watching(LocalFileSystem):
        def create(self, path: str, mode: int | None = None) -> int:
            names.add(os.path.basename(path))
            return super().create(path, mode)

    for number in (1, 2):
        with Positions(tmp_path / "p.yml", fs=Watching()) as positions:
            positions.persist("a", number, NOON)
    new = {name for name in names if name.startswith("p.yml.new")}
    assert len(new) == 2 and "p.yml.new" not in new
    (tmp_path / "p.yml.new.0123abcd").write_text("left by a killed process")
    (tmp_path / "p.yml.new.txt").write_text("somebody's")
    Positions(tmp_path / "p.yml").shutdown()
    assert not (tmp_path / "p.yml.new.0123abcd").exists() and (tmp_path / "p.yml.new.txt").exists()


class FailingOnDemand(LocalFileSystem):
    """Its renames fail while ``error`` is set."""

    error: OSError | None = None
    attempts = 0

    def rename(self, source: str, target: str) -> None:
        self.attempts += 1
        if self.error is not None:
            raise self.error
        super().rename(source, target)


def test_shutdown_raises_what_the_final_flush_raised_and_can_be_repeated(tmp_path: Path) -> None:
    """In the model it is only logged, and the positions are gone."""
    fs = FailingOnDemand()
    positions = Positions(tmp_path / "p.yml", fs=fs)
    positions.persist("a", 1, NOON)
    fs.error = OSError(28, "No space left on device")
    for _ in range(2):
        with pytest.raises(errors.DiskFullError):
            positions.shutdown()
    with pytest.raises(errors.StoreLockedError):
        Positions(tmp_path / "p.yml")
    with pytest.raises(errors.ClosedError):
        positions.persist("a", 2, NOON)
    fs.error = None
    positions.shutdown()
    assert numbers(tmp_path / "p.yml") == {"a": 1}
    Positions(tmp_path / "p.yml").shutdown()


def test_failed_flush_is_tried_again_and_raised_to_the_next_caller(tmp_path: Path, clock: ManualClock) -> None:
    """In the model it is only logged."""
    fs = FailingOnDemand()
    with Positions(tmp_path / "p.yml", 2, 5.0, fs=fs, clock=clock) as positions:
        fs.error = OSError(5, "Input/output error")
        for next_call in (lambda: positions.persist("a", 3, NOON), positions.flush):
            positions.persist("a", 1, NOON, allow_rewind=True)
            positions.persist("a", 2, NOON)
            clock.settle()
            with pytest.raises(errors.StorageError, match=r"could not write .*p\.yml") as caught:
                next_call()
            assert caught.value.errno == 5
            fs.error = None
            with suppress(errors.StorageError):  # what the background had raised, if the flush raised its own
                positions.flush()
            positions.flush()
            fs.error = OSError(5, "Input/output error")
        positions.persist("b", 1, NOON)
        attempts = fs.attempts
        clock.advance(5)
        clock.advance(4)
        assert fs.attempts == attempts + 1
        clock.advance(1)
        assert fs.attempts == attempts + 2, "tried again after an interval"
        fs.error = None
        clock.advance(5)
        assert numbers(tmp_path / "p.yml") == {"a": 3, "b": 1} or numbers(tmp_path / "p.yml") == {"a": 2, "b": 1}
        with pytest.raises(errors.StorageError) as caught:
            positions.persist("b", 2, NOON)
        assert "goes to the file with the next flush" in caught.value.__notes__[0]
        assert positions.states()["b"].record_number == 2, "the update was taken all the same"
    assert numbers(tmp_path / "p.yml")["b"] == 2


def test_failure_in_the_background_is_raised_by_shutdown_though_all_is_written(
    tmp_path: Path, clock: ManualClock
) -> None:
    fs = FailingOnDemand()
    positions = Positions(tmp_path / "p.yml", 1, fs=fs, clock=clock)
    fs.error = OSError(5, "Input/output error")
    positions.persist("a", 1, NOON)
    clock.settle()
    fs.error = None
    with warnings.catch_warnings(action="error"):
        with pytest.raises(errors.StorageError) as caught:
            positions.shutdown()
        assert "on stable storage now" in caught.value.__notes__[0]
        assert numbers(tmp_path / "p.yml") == {"a": 1}
        positions.shutdown()
        del positions
        gc.collect()


def test_no_update_is_accepted_beyond_the_window_while_the_disk_fails(tmp_path: Path, clock: ManualClock) -> None:
    fs = FailingOnDemand()
    positions = Positions(tmp_path / "p.yml", 3, HOUR_S, fs=fs, clock=clock)
    fs.error = OSError(5, "Input/output error")
    accepted = 0
    for number in range(1, 20):
        with suppress(errors.StorageError):
            positions.persist("a", number, NOON)
            accepted += 1
        clock.settle()
    assert accepted == 3
    fs.error = None
    positions.flush()
    assert numbers(tmp_path / "p.yml") == {"a": 19}
    with suppress(errors.StorageError):
        positions.shutdown()
    positions.shutdown()


def test_update_that_races_with_shutdown_is_kept_or_refused(tmp_path: Path) -> None:
    """In the model an update that lies in the queue when the worker ends is dropped."""
    print(f"TRAX_SEED={SEED}")
    for run in range(20):
        file = tmp_path / f"{run}.yml"
        positions = Positions(file, 3, HOUR_S)
        accepted = {}

        def persist(name: str, positions: Positions = positions, accepted: dict[str, int] = accepted) -> None:
            with suppress(errors.ClosedError):
                for number in range(1, 10_000):
                    positions.persist(name, number, NOON)
                    accepted[name] = number

        threads = [threading.Thread(target=persist, args=[f"log {n}"]) for n in range(3)]
        for thread in threads:
            thread.start()
        assert wait_until(lambda accepted=accepted: len(accepted) == 3)  # type: ignore[misc]
        positions.shutdown()
        kept = numbers(file)
        for thread in threads:
            thread.join()
        assert kept == numbers(file), "nothing is written after shutdown has returned"
        assert all(accepted[name] <= kept[name] <= accepted[name] + 1 for name in accepted)


def test_persist_after_shutdown_raises_at_once(tmp_path: Path) -> None:
    """In the model it waits for ever for a worker that is gone."""
    positions = Positions(tmp_path / "p.yml", 1)
    positions.shutdown()
    for number in (1, 2, 3):
        with pytest.raises(errors.ClosedError, match="shut down"):
            positions.persist("a", number, NOON)


def test_older_number_never_overwrites_a_newer_one_unasked(tmp_path: Path) -> None:
    """In the model it does."""
    with Positions(tmp_path / "p.yml") as positions:
        positions.persist("a", 10, NOON)
        with pytest.raises(errors.RewindError, match=r"record 10 .* allow_rewind") as caught:
            positions.persist("a", 9, NOON)
        assert caught.value.stored == 10
        positions.persist("a", 10, NOON, "other")
        positions.persist("b", 1, NOON)
    with Positions(tmp_path / "p.yml") as positions:
        with pytest.raises(errors.RewindError):
            positions.persist("a", 9, NOON)
        assert positions.states()["a"] == EventLogState("a", 10, NOON, "other")
        positions.persist("a", 1, NOON, allow_rewind=True)
        positions.persist("a", 2, NOON)
    assert numbers(tmp_path / "p.yml") == {"a": 2, "b": 1}


@pytest.mark.parametrize("data", [b"", b"\n", b"  \n\n", b"\0" * 100])
def test_empty_file_is_no_fresh_start(data: bytes, tmp_path: Path) -> None:
    """In the model it is."""
    refuse(tmp_path / "p.yml", data)


def refuse(file: Path, data: bytes) -> None:
    file.write_bytes(data)
    before = sorted(path.name for path in file.parent.iterdir() if not path.name.endswith(".lock"))
    for call in (read, Positions):
        with pytest.raises(errors.CorruptionError, match=re.escape(str(file))) as caught:
            call(file)
        assert str(file) + ".previous" in str(caught.value)
    assert file.read_bytes() == data
    assert sorted(path.name for path in file.parent.iterdir() if not path.name.endswith(".lock")) == before


def test_file_of_ours_that_was_cut_anywhere_is_refused(tmp_path: Path) -> None:
    with Positions(tmp_path / "p.yml") as positions:
        positions.persist("a", 123, NOON + timedelta(microseconds=1), "bookmark\n")
        positions.persist("b", 456, NOON)
    data = (tmp_path / "p.yml").read_bytes()
    for length in range(len(data)):
        refuse(tmp_path / "p.yml", data[:length])
    count("positions: cuts", len(data))


def test_file_of_the_go_library_that_was_cut_inside_an_entry_is_refused(tmp_path: Path) -> None:
    """Between two entries, or before a bookmark, nothing in such a file could tell."""
    whole = [match.start() for match in re.finditer("- name|  bookmark", GO_FILE)][1:]
    for length in range(len(GO_FILE)):
        if length not in whole:
            refuse(tmp_path / "p.yml", GO_FILE[:length].encode())


@pytest.mark.parametrize(
    "text",
    [
        "hello\n",
        "[]\n",
        "{}\n",
        "event_logs: []\n",
        "update_time: 2024-01-31T12:00:00Z\n",
        "update_time: yesterday\nevent_logs: []\n",
        "update_time: 2024-01-31\nevent_logs: []\n",
        "update_time: 2024-13-31T12:00:00Z\nevent_logs: []\n",
        "update_time: 2024-01-31T12:00:00Z\nevent_logs: {}\n",
        "update_time: 2024-01-31T12:00:00Z\nevent_logs: []\nother: 1\n",
        "update_time: 2024-01-31T12:00:00Z\nevent_logs: [1]\n",
        *(
            f"update_time: 2024-01-31T12:00:00Z\nevent_logs:\n- {{{entry}}}\n"
            for entry in (
                "name: a, record_number: 1",
                "name: a, record_number: -1, timestamp: 2024-01-31T12:00:00Z",
                "name: a, record_number: 18446744073709551616, timestamp: 2024-01-31T12:00:00Z",
                "name: a, record_number: 0x10, timestamp: 2024-01-31T12:00:00Z",
                "name: a, record_number: ٣, timestamp: 2024-01-31T12:00:00Z",
                "name: a, record_number: 1, timestamp: 2024-01-31T12:00:00",
                "name: a, record_number: 1, timestamp: 2024-01-31T12:00:00.1234567890Z",
                "name: [], record_number: 1, timestamp: 2024-01-31T12:00:00Z",
                "name: a, record_number: 1, timestamp: 2024-01-31T12:00:00Z, bookmark: []",
                "name: a, record_number: 1, timestamp: 2024-01-31T12:00:00Z, offset: 1",
            )
        ),
        "update_time: 2024-01-31T12:00:00Z\nevent_logs:\n"
        + "- {name: a, record_number: 1, timestamp: 2024-01-31T12:00:00Z}\n" * 2,
        "update_time: 2024-01-31T12:00:00Z\nevent_logs: []\nevent_logs: []\n",
        "update_time: 2024-01-31T12:00:00Z\nevent_logs:\n"
        "- {name: a, record_number: 9, record_number: 1, timestamp: 2024-01-31T12:00:00Z}\n",
        "update_time: 2024-01-31T12:00:00Z\nevent_logs: []\n? [a]\n: b\n",
        "update_time: 2024-01-31T12:00:00Z\nevent_logs: []\n<<: {event_logs: []}\n",
        "update_time: &a [*a]\nevent_logs: []\n",
        "a: b: c\n",
        "!!python/object/apply:os.system [touch ran]\n",
        "--- {}\n---\n{}\n",
        "[" * 1500 + "\n",
    ],
)
def test_foreign_file_is_refused(text: str, tmp_path: Path) -> None:
    refuse(tmp_path / "p.yml", text.encode())


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    refuse(tmp_path / "p.yml", bytes(range(256)) + b"\n")
    refuse(tmp_path / "p.yml", GO_FILE.encode().replace(b"Security", b"S\xffcurity"))


def test_file_that_is_gone_is_no_fresh_start_while_its_previous_generation_is_there(tmp_path: Path) -> None:
    with Positions(tmp_path / "p.yml") as positions:
        positions.persist("a", 1, NOON)
    (tmp_path / "p.yml").unlink()
    with pytest.raises(errors.MissingFileError, match=r"p\.yml\.previous"):
        Positions(tmp_path / "p.yml")
    (tmp_path / "p.yml.previous").unlink()
    with Positions(tmp_path / "p.yml") as positions:
        assert positions.states() == {}


def test_flush_survives_a_power_loss(tmp_path: Path) -> None:
    """In the model the directory is never synced, so the rename may be lost, and with it any number of flushes."""
    (tmp_path / "run").mkdir()
    fs = RecordingFileSystem(tmp_path / "run")
    with Positions(tmp_path / "run" / "new" / "p.yml", fs=fs) as positions:
        for number in (1, 2):
            positions.persist("a", number, NOON)
            positions.flush()
            _, image = next(crash_images(fs.start, fs.operations, random.Random(1), 0, after=len(fs.operations)))
            (tmp_path / str(number)).mkdir()
            image.lay_out(str(tmp_path / str(number)))
            assert numbers(tmp_path / str(number) / "new" / "p.yml") == {"a": number}


# The handle


def test_dropped_handle_flushes_says_so_and_frees_the_file(tmp_path: Path) -> None:
    positions = Positions(tmp_path / "p.yml")
    positions.persist("a", 1, NOON)
    with pytest.warns(ResourceWarning, match="without shutdown"):
        del positions
    assert numbers(tmp_path / "p.yml") == {"a": 1}
    Positions(tmp_path / "p.yml").shutdown()


def test_handle_that_the_collector_drops_in_the_keepers_own_thread_is_shut_down_too(tmp_path: Path) -> None:
    class Collecting(LocalFileSystem):
        def rename(self, source: str, target: str) -> None:
            super().rename(source, target)
            if threading.current_thread().name == "trax-positions":
                gc.collect()

    gc.disable()
    try:
        positions = Positions(tmp_path / "p.yml", 1, fs=Collecting())
        positions.myself = positions  # type: ignore[attr-defined]
        keeper = positions._keeper
        with warnings.catch_warnings(action="ignore"):
            keeper._condition.acquire()
            positions.persist("a", 1, NOON)
            del positions
            keeper._condition.release()
            assert wait_until(lambda: keeper.released)
    finally:
        gc.enable()
    assert numbers(tmp_path / "p.yml") == {"a": 1}
    Positions(tmp_path / "p.yml").shutdown()


def test_end_of_the_program_flushes(tmp_path: Path) -> None:
    code = """
import datetime, sys
from trax.positions import Positions
positions = Positions(sys.argv[1])
positions.persist("a", 1, datetime.datetime.now(datetime.timezone.utc))
"""
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "p.yml")], check=True, env=environment())
    assert numbers(tmp_path / "p.yml") == {"a": 1}


def test_forked_child_is_refused_and_leaves_the_parent_alone(tmp_path: Path) -> None:
    positions = Positions(tmp_path / "p.yml", 1, HOUR_S)
    with warnings.catch_warnings(action="ignore"):
        child = os.fork()
    if not child:
        try:
            with pytest.raises(errors.ForkedError, match="parent"):
                positions.persist("a", 1, NOON)
            with pytest.raises(errors.ForkedError):
                positions.flush()
            positions.shutdown()
            assert positions.states() == {}
            with pytest.raises(errors.StoreLockedError):
                Positions(tmp_path / "p.yml")
            os._exit(0)
        finally:
            os._exit(1)
    assert os.waitpid(child, 0)[1] == 0
    with pytest.raises(errors.StoreLockedError):
        Positions(tmp_path / "p.yml")
    positions.persist("a", 2, NOON)
    positions.shutdown()
    assert numbers(tmp_path / "p.yml") == {"a": 2}


def test_signal_handler_in_the_middle_of_a_call_gets_an_error_and_no_deadlock(tmp_path: Path) -> None:
    raised: list[Exception] = []
    armed = threading.Event()

    class Interrupted(LocalFileSystem):
        def rename(self, source: str, target: str) -> None:
            super().rename(source, target)
            if armed.is_set() and threading.current_thread() is threading.main_thread():
                signal.raise_signal(signal.SIGUSR1)

    def handler(number: int, frame: object) -> None:
        for call in (lambda: positions.persist("a", 9, NOON), positions.flush, positions.shutdown):
            try:
                call()
            except errors.ReentrantCallError as error:
                raised.append(error)

    with Positions(tmp_path / "p.yml", fs=Interrupted()) as positions:
        positions.persist("a", 1, NOON)
        before = signal.signal(signal.SIGUSR1, handler)
        armed.set()
        try:
            positions.flush()
        finally:
            armed.clear()
            signal.signal(signal.SIGUSR1, before)
    assert len(raised) == 6  # two renames: of the previous generation and of this one
    assert numbers(tmp_path / "p.yml") == {"a": 1}


# Crashes


WINDOW = 2


@contextmanager
def held(file: Path, fs: Any, clock: ManualClock) -> Iterator[Positions]:
    """A handle that is left like a killed process leaves it when its file system does not let it shut down."""
    positions = Positions(file, WINDOW, 5.0, fs=fs, clock=clock)
    try:
        yield positions
        positions.shutdown()
    finally:
        for _ in range(2):
            with suppress(trax.TraxError, KeyboardInterrupt):
                positions.shutdown()
        if not positions._keeper.released:
            positions._finalizer.detach()
            positions._keeper.abandon()
            with clock.condition:
                clock.condition.notify_all()


def job(path: Path, fs: Any, bounds: Bounds) -> None:
    """Updates that are flushed by their number, by the clock, on demand, and at the end; in two lives."""
    for life in range(2):
        clock = ManualClock()
        with held(path / "state" / "p.yml", fs, clock) as positions:
            for place in range(4):
                bounds.issued += 1
                bounds.promise(bounds.acknowledged)
                positions.persist("a", bounds.issued, NOON, "x" * 600)
                bounds.promise(max(bounds.acknowledged, bounds.issued - WINDOW))
                if place == 2 and life == 0:
                    clock.advance(5)
                elif place == 1:
                    clock.settle()
                if place == 2 and life == 1:
                    positions.flush()
                    bounds.promise(bounds.issued)
        bounds.promise(bounds.issued)


def judge(path: Path, acknowledged: int, issued: int) -> None:
    file = path / "state" / "p.yml"
    clock = ManualClock()
    if file.with_name("p.yml.previous").exists():
        assert numbers(file.with_name("p.yml.previous")).get("a", 0) <= issued
    with Positions(file, clock=clock) as positions:
        found = positions.states()["a"].record_number if positions.states() else 0
        assert acknowledged <= found <= issued
        assert numbers(file) == ({"a": found} if found else {})
        positions.persist("a", found + 1, NOON)
    assert numbers(file) == {"a": found + 1}
    assert not list(path.rglob("*.new.*")), "what a crash left is swept"


def test_crash_at_every_storage_call_leaves_the_file_whole_and_one_window_behind_at_most() -> None:
    tried = crash_everywhere(job, judge)
    assert tried > 60
    count("positions: crash", tried)


def test_every_storage_call_may_fail_and_nothing_older_than_a_window_is_lost() -> None:
    count("positions: failing operations", fail_everywhere(job, judge))


@pytest.mark.parametrize("fault", ["EIO", "ENOSPC", "MemoryError", "KeyboardInterrupt"])
def test_flush_that_failed_anywhere_succeeds_when_it_is_tried_again(tmp_path: Path, fault: str) -> None:
    failed = []
    for nth in range(100):
        file = tmp_path / str(nth) / "p.yml"
        fs = FaultyFileSystem(fault=FAULTS[fault])
        positions = Positions(file, fs=fs)
        positions.persist("a", 1, NOON)
        fs._nth = fs.count + nth
        try:
            positions.flush()
        except (errors.StorageError, MemoryError, KeyboardInterrupt):
            positions.flush()
        assert numbers(file) == {"a": 1}
        fs._nth = -1
        positions.persist("a", 2, NOON)
        positions.shutdown()
        assert numbers(file) == {"a": 2} and numbers(Path(f"{file}.previous")) == {"a": 1}
        assert sorted(path.name for path in file.parent.iterdir()) == ["p.yml", "p.yml.lock", "p.yml.previous"]
        if not fs.failed:
            break
        failed += fs.failed
    assert {"create", "pwrite", "fsync", "rename", "fsync_directory"} <= set(failed)


WORKER = """
import os, sys
from datetime import datetime, timezone
from trax.positions import Positions

with Positions(sys.argv[1], 5, 1.0) as positions:
    number = max([state.record_number for state in positions.states().values()], default=0) + 1
    print("ready", flush=True)
    while True:
        positions.persist("a", number, datetime.now(timezone.utc), "<Bookmark/>" * 20)
        os.write(1, b"%d\\n" % number)
        number += 1
"""


def test_sigkill_takes_one_window_at_most(tmp_path: Path) -> None:
    print(f"TRAX_SEED={SEED}")
    dice = random.Random(SEED)
    file = tmp_path / "state" / "p.yml"
    stored = 0
    for _ in range(max(2, KILLS // 4)):
        command = [sys.executable, "-W", "ignore", "-c", WORKER, str(file)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment()) as worker:
            assert worker.stdout is not None and worker.stdout.readline() == b"ready\n"
            for _ in range(dice.randrange(3, 60)):
                acknowledged = int(worker.stdout.readline())
            worker.send_signal(signal.SIGKILL)
            rest, _ = worker.communicate()
            acknowledged = max([acknowledged, *map(int, rest.split(b"\n")[:-1])])
        found = numbers(file).get("a", 0)
        assert max(stored, acknowledged - 5) <= found <= acknowledged + 1
        stored = found
    assert stored > 0
    count("positions: SIGKILL", max(2, KILLS // 4))
