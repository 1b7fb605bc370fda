"""Events: what was written is there, once and in order, whatever crashes; and readers miss nothing."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

import trax
from tests.counting import count
from tests.helpers import in_forked_child, kill
from tests.sweeping import SEED, Bounds, crash_everywhere, fail_everywhere
from trax import errors
from trax.events import NAME, Event, EventLog, Follower
from trax.layers import LayerStore
from trax.storage.local.fs import LocalFileSystem
from trax.testing.faults import FAULTS, FaultyFileSystem

RUNS = int(os.environ.get("TRAX_EVENT_RUNS", "30"))
KILLS = int(os.environ.get("TRAX_KILLS", "12"))
EVENTS = int(os.environ.get("TRAX_EVENTS", "10000"))


def reopened(path: Path) -> list[Event]:
    """All events after every byte was read and found right; the index in memory says the same as the log."""
    with EventLog(path) as log:
        found = list(log)
        assert trax.Trax(path, mode="r").verify().problems == []
        check_index(log, found)
    return found


def check_index(log: EventLog, found: list[Event]) -> None:
    by_object: dict[Any, list[Any]] = {}
    for event in found:
        by_object.setdefault(event.object, []).append(event.event)
    assert log.objects() == list(by_object)
    for one, expected in by_object.items():
        assert log.events(one) == expected
    sequences = [event.sequence for event in found]
    assert sequences == sorted(set(sequences))


# What it keeps


def test_events_come_in_the_order_logged_across_streams_and_restarts(tmp_path: Path) -> None:
    with EventLog(tmp_path / "log") as log:
        log.create_stream("uploads")
        log.create_stream("albums")
        log.write("uploads", "photo123", "UPLOADED")
        log.write("albums", "photo123", "ADDED_TO_ALBUM")
        log.write("uploads", "photo9", "UPLOADED")
        assert log.events("photo123") == ["UPLOADED", "ADDED_TO_ALBUM"]
    with EventLog(tmp_path / "log") as log:
        assert log.events("photo123") == ["UPLOADED", "ADDED_TO_ALBUM"]
        assert log.streams() == []
        log.create_stream("uploads")
        log.write("uploads", "photo123", "REMOVED")
        assert log.events("photo123") == ["UPLOADED", "ADDED_TO_ALBUM", "REMOVED"]
        assert log.objects() == ["photo123", "photo9"]
        assert log.events("nothing") == []
    assert [event[1:] for event in reopened(tmp_path / "log")] == [
        ("uploads", "photo123", "UPLOADED"),
        ("albums", "photo123", "ADDED_TO_ALBUM"),
        ("uploads", "photo9", "UPLOADED"),
        ("uploads", "photo123", "REMOVED"),
    ]


def test_stream_is_open_from_create_to_release(tmp_path: Path) -> None:
    with EventLog(tmp_path / "log") as log:
        with pytest.raises(errors.StreamError, match=r"'s' .* is not open") as caught:
            log.write("s", "a", 1)
        assert isinstance(caught.value, KeyError) and caught.value.stream == "s"
        log.create_stream("s")
        log.write("s", "a", 1)
        log.create_stream("s")  # harmless
        log.write("s", "a", 2)
        assert log.streams() == ["s"]
        log.release_stream("s")
        assert log.streams() == []
        with pytest.raises(errors.StreamError):
            log.write("s", "a", 3)
        with pytest.raises(errors.StreamError):
            log.release_stream("s")
        assert log.events("a") == [1, 2]
        log.create_stream("s")
        log.write("s", "a", 3)
    assert [event.event for event in reopened(tmp_path / "log")] == [1, 2, 3]


def test_objects_and_events_are_any_value_that_the_codec_keeps(tmp_path: Path) -> None:
    values = ["", "a", "1", 1, 1.0, True, None, -0.0, 0.0, float("inf"), b"a", (1, "x"), [1, "x"], {"a": [b"c"]}, 2**70]
    values += [frozenset([3]), complex(1, 2), "\ud800"]
    for codec in ("json", "msgpack"):
        with EventLog(tmp_path / codec, codec=codec) as log:
            log.create_stream("s")
            for number, value in enumerate(values):
                log.write("s", value, number)
                log.write("s", "all", value)
        for compacted in (False, True):
            with EventLog(tmp_path / codec) as log:
                for number, value in enumerate(values):
                    assert log.events(value) == [number], value
                assert repr(log.objects()) == repr(["", "all", *values[1:]])
                assert repr(log.events("all")) == repr(values)
                if not compacted:
                    log.compact()


def test_what_the_caller_changes_afterwards_changes_nothing(tmp_path: Path) -> None:
    with EventLog(tmp_path / "log") as log:
        log.create_stream("s")
        event = {"tags": ["new"]}
        log.write("s", "a", event)
        event["tags"].append("changed")
        log.events("a")[0]["tags"].append("changed")
        assert log.events("a") == [{"tags": ["new"]}]


def test_refused_values_leave_nothing_behind(tmp_path: Path) -> None:
    with EventLog(tmp_path / "log") as log:
        log.create_stream("s")
        with pytest.raises(errors.UnsupportedValueError, match=r"event\['f'\]"):
            log.write("s", "a", {"f": lambda: None})
        with pytest.raises(errors.InvalidArgumentError):
            log.create_stream(1)  # type: ignore[arg-type]
        assert log.objects() == []
    assert reopened(tmp_path / "log") == []


def test_log_with_codec_json_can_be_read_with_the_eyes(tmp_path: Path) -> None:
    with EventLog(tmp_path / "log", codec="json") as log:
        log.create_stream("uploads")
        log.write("uploads", "photo123", "UPLOADED")
    text = b"".join(path.read_bytes() for path in (tmp_path / "log").glob("log.*"))
    assert b'["uploads", "photo123", "UPLOADED"]' in text


def test_events_live_beside_other_names_of_a_store(tmp_path: Path) -> None:
    with trax.Trax(tmp_path / "log") as store:
        store.log(step=1)
        store.checkpoint(step=2)
        store.log(step=3)
        with pytest.raises(errors.InvalidNameError):
            store.log({"trax:events": 1})
        with pytest.raises(errors.InvalidNameError):
            store.recover("trax:events")
    with EventLog(tmp_path / "log") as log:
        log.create_stream("s")
        log.write("s", "a", 1)
        log.compact()
        log.write("s", "a", 2)
    assert [event.event for event in reopened(tmp_path / "log")] == [1, 2]
    with trax.Trax(tmp_path / "log") as store:
        assert store.recover("step") == 3


def test_closed_handle_says_so(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "log")
    log.create_stream("s")
    log.close()
    log.close()
    for call in (
        lambda: log.create_stream("s"),
        lambda: log.write("s", "a", 1),
        lambda: log.events("a"),
        log.objects,
        log.streams,
        log.compact,
        lambda: list(log),
        log.follow,
        log.__enter__,
    ):
        with pytest.raises(errors.ClosedError):
            call()


# Readers


def test_reader_sees_the_newest_events_and_writes_nothing(tmp_path: Path) -> None:
    with EventLog(tmp_path / "log") as log, EventLog(tmp_path / "log", mode="r") as reader:
        assert reader.objects() == []
        log.create_stream("s")
        for number in range(6):
            log.write("s", f"o{number % 2}", number)
            if number == 3:
                log.compact()
            assert reader.events("o0") == log.events("o0")
            assert list(reader) == list(log)
        for call in (lambda: reader.create_stream("s"), lambda: reader.write("s", "a", 1), reader.compact):
            with pytest.raises(errors.ReadOnlyError):
                call()


def test_follower_goes_on_from_the_snapshot_when_it_was_overtaken_and_says_so(tmp_path: Path) -> None:
    with EventLog(tmp_path / "log") as log, EventLog(tmp_path / "log", mode="r") as reader:
        log.create_stream("s")
        follower = reader.follow()
        for number in range(3):
            log.write("s", "a", number)
        assert [event.event for event in follower] == [0, 1, 2] and follower.overtaken == 0
        log.compact()
        log.write("s", "a", 3)
        assert [event.event for event in follower] == [3]
        assert follower.overtaken == 0, "nothing that it had not seen has left the log"
        log.write("s", "a", 4)
        log.compact()
        log.write("s", "a", 5)
        assert [event.event for event in follower] == [4, 5]
        assert follower.overtaken == 1
        assert list(follower) == []
        late = reader.follow(after=follower.sequence)
        log.write("s", "a", 6)
        assert [event.event for event in late] == [6]
        assert [event.event for event in reader.follow()] == list(range(7))


def test_followers_miss_nothing_and_repeat_nothing_whenever_the_log_is_compacted(tmp_path: Path) -> None:
    print(f"TRAX_SEED={SEED}")
    for run in range(RUNS):
        dice = random.Random(f"{SEED}-{run}")
        path = tmp_path / str(run)
        with EventLog(path, sync="os") as log, EventLog(path, mode="r") as reader:
            log.create_stream("s")
            written: list[int] = []
            followers: list[tuple[Follower, list[int]]] = [(reader.follow(), []) for _ in range(3)]
            for _ in range(40):
                kind = dice.choice(["write"] * 4 + ["compact", "look", "look", "glance", "restart", "lay aside"])
                place = dice.randrange(3)
                follower, seen = followers[place]
                if kind == "write":
                    written.append(len(written))
                    log.write("s", f"o{dice.randrange(3)}", written[-1])
                elif kind == "compact":
                    log.compact()
                elif kind == "look":
                    seen += [event.event for event in follower]
                    assert seen == written
                elif kind == "glance":  # and go away in the middle
                    for event in follower:
                        seen.append(event.event)
                        if dice.random() < 0.5:
                            break
                    assert seen == written[: len(seen)]
                elif kind == "restart":
                    followers[place] = reader.follow(after=follower.sequence), seen
                elif seen == written:  # another name of the store takes sequences too
                    log._store.checkpoint(other=dice.random())
            for follower, seen in followers:
                assert seen + [event.event for event in follower] == written
        assert [event.event for event in reopened(path)] == written
    count("events followed", RUNS)


def test_follower_survives_a_compaction_between_its_two_looks(tmp_path: Path) -> None:
    """The log has been truncated, and while the follower turns to the snapshot, that is replaced as well."""
    with EventLog(tmp_path / "log") as log, EventLog(tmp_path / "log", mode="r") as reader:
        log.create_stream("s")
        log.write("s", "a", 0)
        follower = reader.follow()
        assert len(list(follower)) == 1
        log.write("s", "a", 1)
        log.compact()
        snapshots = reader._store.snapshots
        left = iter([2, 3])

        def then_compact() -> list[trax.SnapshotInfo]:
            found = snapshots()
            for number in left:
                log.write("s", "a", number)
                log.compact()
                break
            return found

        reader._store.snapshots = then_compact  # type: ignore[method-assign]
        assert [event.event for event in follower] == [1, 2, 3]


@pytest.mark.parametrize("after", [-1, 1.5, "1", None, True])
def test_follower_goes_on_behind_a_sequence_and_nothing_else(tmp_path: Path, after: Any) -> None:
    with EventLog(tmp_path / "log") as log, pytest.raises(errors.InvalidArgumentError, match="after is a sequence"):
        log.follow(after=after)


# Threads


def test_threads_write_to_one_stream_while_it_is_compacted(tmp_path: Path) -> None:
    with EventLog(tmp_path / "log", sync="os") as log:
        log.create_stream("s")
        go_on = threading.Event()
        go_on.set()

        def write(thread: int) -> None:
            for number in range(150):
                log.write("s", f"o{number % 7}", [thread, number])

        def compact() -> None:
            while go_on.is_set():
                log.compact()

        writers = [threading.Thread(target=write, args=[thread]) for thread in range(4)]
        compactor = threading.Thread(target=compact)
        for thread in [compactor, *writers]:
            thread.start()
        for thread in writers:
            thread.join()
        go_on.clear()
        compactor.join()
        found = list(log)
        check_index(log, found)
    assert reopened(tmp_path / "log") == found
    for thread in range(4):
        assert [event.event[1] for event in found if event.event[0] == thread] == list(range(150))
    assert len(found) == 600


def test_event_that_a_thread_logs_while_others_are_compacted_stays_in_the_log(tmp_path: Path) -> None:
    with EventLog(tmp_path / "log", sync="os") as log:
        log.create_stream("s")
        log.write("s", "a", "early")
        entries, late = log._store.entries, iter(["late"])

        def then_write(name: str, *, after: int | None = None) -> Iterator[tuple[int, Any]]:
            yield from entries(name, after=after)
            for event in late:  # everything was read, and nothing is checkpointed yet
                log.write("s", "a", event)

        log._store.entries = then_write  # type: ignore[method-assign]
        log.compact()
        log._store.entries = entries  # type: ignore[method-assign]
        assert next(late, None) is None
        assert [entry[2] for _, entry in log._store.entries(NAME)] == ["late"]
    assert [event.event for event in reopened(tmp_path / "log")] == ["early", "late"]


def test_index_keeps_the_order_of_the_log_when_threads_return_from_it_in_another(tmp_path: Path) -> None:
    with EventLog(tmp_path / "log", sync="os") as log:
        log.create_stream("s")
        store_log = log._store.log
        logged, remembered = threading.Event(), threading.Event()

        def slow(mapping: Any = None, /, **entries: Any) -> int:
            sequence = store_log(mapping, **entries)
            if mapping[NAME][2] == "first":
                logged.set()
                assert remembered.wait(60)
            return sequence

        log._store.log = slow  # type: ignore[method-assign]
        first = threading.Thread(target=log.write, args=["s", "a", "first"])
        first.start()
        assert logged.wait(60)
        log.write("s", "a", "second")
        remembered.set()
        first.join()
        assert log.events("a") == ["first", "second"]
        check_index(log, list(log))


def test_forked_child_is_refused_though_another_thread_was_in_the_middle_of_a_call(tmp_path: Path) -> None:
    with EventLog(tmp_path / "log") as log:
        log.create_stream("s")
        log.write("s", "a", 1)
        follower = log.follow()

        def child() -> None:
            for call in (
                lambda: log.write("s", "a", 2),
                lambda: log.events("a"),
                log.objects,
                log.streams,
                log.compact,
                lambda: list(log),
                lambda: list(follower),
                lambda: log.release_stream("s"),
            ):
                with pytest.raises(errors.ForkedError):
                    call()
            log.close()

        for held in (log._lock, log._compacting):
            in_forked_child(child, held)
        log.write("s", "a", 3)
    assert [event.event for event in reopened(tmp_path / "log")] == [1, 3]


# Crashes


def job(path: Path, fs: Any, bounds: Bounds) -> None:
    """Two handles one after the other; writes, compactions, and writes behind them."""
    for life in range(2):
        with open_or_kill(path / "log", fs) as log:
            log.create_stream("s")
            for place in range(3):
                with bounds.step() as number:
                    log.write("s", f"o{number % 2}", number)
                if place == 1 + life:
                    log.compact()


class open_or_kill:  # noqa: N801
    """An event log that is left like a killed process leaves it when its file system does not let it close."""

    def __init__(self, path: Path, fs: Any) -> None:
        self.log = EventLog(path, codec="json", fs=fs)

    def __enter__(self) -> EventLog:
        return self.log

    def __exit__(self, *error: object) -> None:
        try:
            self.log.close()
        except BaseException:
            with suppress(trax.TraxError, KeyboardInterrupt):
                self.log.close()
            if self.log._store._closed is None:
                kill(self.log._store)
            raise


def judge(path: Path, acknowledged: int, issued: int) -> None:
    with EventLog(path / "log", codec="json") as log:
        found = [event.event for event in log]
        assert found == list(range(len(found))), "each once, in order"
        assert acknowledged <= len(found) <= issued
        check_index(log, list(log))
        log.create_stream("t")
        log.write("t", "after", len(found))
        log.compact()
    assert [event.event for event in reopened(path / "log")] == [*found, len(found)]


@pytest.mark.filterwarnings("ignore::trax.TraxWarning")
def test_crash_at_every_storage_call_loses_no_acknowledged_event() -> None:
    tried = crash_everywhere(job, judge)
    assert tried > 150
    count("events: crash", tried)


@pytest.mark.filterwarnings("ignore::trax.TraxWarning", "ignore::ResourceWarning")
def test_every_storage_call_may_fail_and_no_acknowledged_event_is_lost() -> None:
    count("events: failing operations", fail_everywhere(job, judge))


@pytest.mark.parametrize("fault", ["KeyboardInterrupt", "EIO", "ENOSPC"])
def test_after_a_failed_write_the_handle_says_what_the_log_says(tmp_path: Path, fault: str) -> None:
    kinds = ("pwrite", "fdatasync")
    counting = FaultyFileSystem(kinds=kinds)
    with EventLog(tmp_path / "count", fs=counting) as log:
        log.create_stream("s")
        before = counting.count
        log.write("s", "a", 0)
        during = counting.count
    assert during > before
    for nth in range(before, during):
        path = tmp_path / str(nth)
        log = EventLog(path, fs=FaultyFileSystem(nth, FAULTS[fault], kinds=kinds))
        log.create_stream("s")
        with pytest.raises((trax.TraxError, KeyboardInterrupt)):
            log.write("s", "a", 0)
        with suppress(errors.HandleError):
            log.write("s", "a", 1)
            found = log.events("a")
            check_index(log, list(log))
            log.close()
            assert [event.event for event in reopened(path)] == found
        with suppress(errors.HandleError):
            log.close()
        assert [event.event for event in reopened(path)] in ([], [0], [1], [0, 1])


WORKER = """
import os, sys
from trax.events import EventLog

with EventLog(sys.argv[1], sync="os") as log:
    log.create_stream("s")
    number = len(list(log))
    print("ready", flush=True)
    while True:
        log.write("s", f"o{number % 3}", number)
        os.write(1, b"%d\\n" % number)
        number += 1
        if number % 20 == 0:
            log.compact()
"""


@pytest.fixture
def workers(tmp_path: Path) -> Iterator[Any]:
    """Starts workers on a log, and kills them."""
    running: list[subprocess.Popen[bytes]] = []

    def start(path: Path) -> subprocess.Popen[bytes]:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        command = [sys.executable, "-W", "ignore", "-c", WORKER, str(path)]
        running.append(subprocess.Popen(command, stdout=subprocess.PIPE, env=environment))
        return running[-1]

    yield start
    for worker in running:
        worker.kill()
        worker.wait()
        worker.stdout.close()  # type: ignore[union-attr]


@pytest.mark.filterwarnings("ignore::trax.TraxWarning")
def test_sigkill_loses_no_event_and_followers_in_another_process_see_each_once(tmp_path: Path, workers: Any) -> None:
    print(f"TRAX_SEED={SEED}")
    dice = random.Random(SEED)
    EventLog(tmp_path / "log").close()
    reader = EventLog(tmp_path / "log", mode="r")
    follower, seen = reader.follow(), []
    acknowledged = -1
    for _ in range(max(2, KILLS // 4)):
        worker = workers(tmp_path / "log")
        assert worker.stdout.readline() == b"ready\n"
        for _ in range(dice.randrange(30, 90)):
            acknowledged = int(worker.stdout.readline())
            if dice.random() < 0.1:
                seen += [event.event for event in follower]
                assert seen == list(range(len(seen))), "each once, in order"
                assert len(seen) > acknowledged
        worker.send_signal(signal.SIGKILL)
        rest, _ = worker.communicate()
        acknowledged = max([acknowledged, *map(int, rest.split(b"\n")[:-1])])
        seen += [event.event for event in follower]
        assert seen == list(range(len(seen))) and len(seen) > acknowledged
        assert [event.event for event in reopened(tmp_path / "log")] == seen
    reader.close()
    count("events: SIGKILL", max(2, KILLS // 4))


# Size and speed


class Weighing(LocalFileSystem):
    """Adds up how many bytes are read of which file."""

    def __init__(self, root: Path) -> None:
        self.read: Counter[str] = Counter()
        self._root, self._names = root, dict[int, str]()

    def open(self, path: str, *arguments: Any, **keywords: Any) -> int:
        fd = super().open(path, *arguments, **keywords)
        self._names[fd] = os.path.relpath(path, self._root)
        return fd

    def pread(self, fd: int, length: int, offset: int) -> bytes:
        data = super().pread(fd, length, offset)
        self.read[self._names[fd]] += len(data)
        return data

    def preadinto(self, fd: int, *arguments: Any) -> int:
        nbytes = super().preadinto(fd, *arguments)
        self.read[self._names[fd]] += nbytes
        return nbytes


def test_opening_takes_at_most_twice_a_bare_replay_and_reads_only_the_snapshot_after_compaction(tmp_path: Path) -> None:
    """``TRAX_EVENTS=1000000`` is the full size: a million events of ten thousand objects."""
    path = tmp_path / "log"
    with EventLog(path, sync="os", codec="json") as log:
        log.create_stream("s")
        for number in range(EVENTS):
            log.write("s", f"object{number % (EVENTS // 100)}", f"EVENT_{number % 10}")

    def bare() -> None:
        with LayerStore(path) as store:
            store.recover(NAME, replay_log=lambda state, entry: state)

    def whole() -> None:
        EventLog(path).close()

    rounds = range(3 if EVENTS < 100_000 else 1)
    opened, replayed = min(seconds(whole) for _ in rounds), min(seconds(bare) for _ in rounds)
    print(f"{EVENTS:,} events: opening {opened:.2f} s, {opened / replayed:.2f} x a bare replay, {size(path):,} bytes")
    assert opened <= 2 * replayed
    with EventLog(path) as log:
        log.compact()
    with LayerStore(path) as store:
        assert list(store.entries(NAME)) == []
        (blob,) = (path / "blobs").iterdir()
        assert b'[[2, "s", "object0", "EVENT_0"], ' in blob.read_bytes()
    snapshot = blob.stat().st_size + (path / "snapshot").stat().st_size
    print(
        f"compacted: opening {seconds(whole):.2f} s, {size(path):,} bytes, {size(path) / snapshot:.3f} x the snapshot"
    )
    assert size(path) <= 1.2 * blob.stat().st_size
    fs = Weighing(path)
    with EventLog(path, fs=fs) as log:
        assert len(log.objects()) == EVENTS // 100
    of_the_log = sum(nbytes for name, nbytes in fs.read.items() if name.startswith("log."))
    assert fs.read[str(blob.relative_to(path))] >= blob.stat().st_size and of_the_log < 1000, fs.read
    assert len(reopened(path)) == EVENTS


def size(path: Path) -> int:
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())


def seconds(call: Any) -> float:
    """Of this process: what others do on the machine is not counted."""
    began = time.process_time()
    call()
    return time.process_time() - began
