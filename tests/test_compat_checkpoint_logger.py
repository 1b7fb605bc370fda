"""The face of checkpoint_logger: its README and its tests hold, and the files it has left are taken over once."""

from __future__ import annotations

import os
import threading
import warnings
from pathlib import Path
from typing import Any

import pytest

import trax
from tests.counting import count
from tests.sweeping import Bounds, crash_everywhere, fail_everywhere
from trax import errors
from trax.compat.checkpoint_logger import Checkpoint
from trax.events import EventLog


def leave(directory: Path, **files: str) -> dict[str, bytes]:
    """Files as the old library left them."""
    (directory / ".checkpoint").mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (directory / ".checkpoint" / name).write_text(text)
    return {name: text.encode() for name, text in files.items()}


def everything(directory: Path) -> list[tuple[str, Any, Any]]:
    with EventLog(directory / ".checkpoint", mode="r") as log:
        return [(stream, object, event) for _, stream, object, event in log]


# The model's own promises


def test_readme_of_the_model(tmp_path: Path) -> None:
    x = Checkpoint(str(tmp_path))
    x.createCheckpointLog("test_key")
    x.writeCheckpoint("test_key", "photo123", "UPLOADED")
    x.writeCheckpoint("test_key", "photo123", "ADDED_TO_ALBUM")
    assert x.getCheckpoints("photo123") == ["UPLOADED", "ADDED_TO_ALBUM"]
    x.close()


def test_tests_of_the_model(tmp_path: Path) -> None:
    with Checkpoint(tmp_path) as x:
        assert (tmp_path / ".checkpoint").is_dir()
        x.createCheckpointLog("test_key")
        x.createCheckpointLog("test_key2")
        assert x.getCheckpointLogKeys() == ["test_key", "test_key2"]
        x.writeCheckpoint("test_key", "a", 1)
        x.writeCheckpoint("test_key", "a", 2)
        x.writeCheckpoint("test_key2", "b", 3)
        x.releaseCheckpointLog("test_key")
        assert x.getCheckpointLogKeys() == ["test_key2"]
        x.releaseCheckpointLog("test_key2")
        assert sorted(x.getCheckpointKeys()) == ["a", "b"]
        assert (x.getCheckpoints("b"), x.getCheckpoints("a")) == ([3], [1, 2])
    with Checkpoint(tmp_path) as y:
        assert (y.getCheckpoints("b"), y.getCheckpoints("a")) == ([3], [1, 2])
        assert y.getCheckpoints("unknown") == []


def test_what_is_not_open_is_a_clear_error(tmp_path: Path) -> None:
    with Checkpoint(tmp_path) as x:
        with pytest.raises(KeyError, match=r"'test_key' .*not created"):
            x.writeCheckpoint("test_key", "a", 1)
        x.createCheckpointLog("test_key")
        x.writeCheckpoint("test_key", "a", 1)
        x.releaseCheckpointLog("test_key")
        with pytest.raises(KeyError):
            x.writeCheckpoint("test_key", "a", 2)
        assert x.getCheckpoints("a") == [1]
    with pytest.raises(errors.ClosedError):
        x.getCheckpoints("a")
    with pytest.raises(errors.ClosedError), x:
        pass


def test_creating_a_stream_again_in_the_same_second_loses_nothing(tmp_path: Path) -> None:
    """In the model both are the same file, and the second creation empties it."""
    for number in range(3):
        with Checkpoint(tmp_path) as x:
            x.createCheckpointLog("test_key")
            x.createCheckpointLog("test_key")
            x.writeCheckpoint("test_key", "a", number)
    assert everything(tmp_path) == [("test_key", "a", number) for number in range(3)]


def test_threads_may_write_to_the_same_stream(tmp_path: Path) -> None:
    """In the model lines of two threads may be mixed."""
    with Checkpoint(tmp_path, sync="os") as x:
        x.createCheckpointLog("test_key")

        def write(thread: int) -> None:
            for number in range(100):
                x.writeCheckpoint("test_key", f"thread {thread}", number)

        threads = [threading.Thread(target=write, args=[thread]) for thread in range(4)]
        for thread in threads:
            thread.start()
        x.compact()
        for thread in threads:
            thread.join()
        for thread in range(4):
            assert x.getCheckpoints(f"thread {thread}") == list(range(100))
    with Checkpoint(tmp_path) as x:
        for thread in range(4):
            assert x.getCheckpoints(f"thread {thread}") == list(range(100))


def test_store_can_be_read_with_the_eyes_and_with_trax(tmp_path: Path) -> None:
    with Checkpoint(tmp_path) as x:
        x.createCheckpointLog("test_key")
        x.writeCheckpoint("test_key", "photo123", "UPLOADED")
    text = b"".join(path.read_bytes() for path in (tmp_path / ".checkpoint").glob("log.*"))
    assert b'["test_key", "photo123", "UPLOADED"]' in text
    with trax.Trax(tmp_path / ".checkpoint", mode="r") as store:
        assert store.verify().ok


# What the old library has left


def test_old_files_are_taken_over_once_in_the_order_of_their_times_and_kept(tmp_path: Path) -> None:
    old = leave(
        tmp_path,
        photos1700000010='{"a": "second"}\n{"b": {"c": [1, null]}}\n',
        photos1700000009='{"a": "first"}\n',
        run71700000011='{"a": "fourth"}\n',
        albums1700000010='{"a": "before photos, by name"}\n',
        empty1700000012="",
    )
    expected = [
        ("photos", "a", "first"),
        ("albums", "a", "before photos, by name"),
        ("photos", "a", "second"),
        ("photos", "b", {"c": [1, None]}),
        ("run7", "a", "fourth"),
    ]
    for number in range(3):
        with Checkpoint(tmp_path) as x:
            assert x.getCheckpoints("a") == [e for _, o, e in expected if o == "a"]
            assert x.getCheckpointLogKeys() == []
            x.createCheckpointLog("photos")
            x.writeCheckpoint("photos", "a", number)
            expected.append(("photos", "a", number))
            if number == 1:
                x.compact()
        assert everything(tmp_path) == expected
        for name, data in old.items():
            assert (tmp_path / ".checkpoint" / name).read_bytes() == data


@pytest.mark.parametrize("rest", ["{", '{"a": "thr', '{"a": 3', "\0\0\0", "3", "[]", '{"a": 3, "b"'])
def test_unfinished_last_line_is_reported_and_glued_to_nothing(tmp_path: Path, rest: str) -> None:
    leave(tmp_path, k1700000000='{"a": 1}\n{"a": 2}\n' + rest, k1700000001='{"a": 4}\n')
    with pytest.warns(errors.TornTailWarning, match="k1700000000: the last line, 3, is unfinished"):
        x = Checkpoint(tmp_path)
    with x:
        assert x.getCheckpoints("a") == [1, 2, 4]
        assert x.getCheckpointKeys() == ["a"]
    with warnings.catch_warnings(action="error"), Checkpoint(tmp_path) as x:
        assert x.getCheckpoints("a") == [1, 2, 4]


def test_last_line_that_lacks_only_its_end_is_whole(tmp_path: Path) -> None:
    leave(tmp_path, k1700000000='{"a": 1}\n{"a": 2}')
    with warnings.catch_warnings(action="error"), Checkpoint(tmp_path) as x:
        assert x.getCheckpoints("a") == [1, 2]


@pytest.mark.parametrize("line", ["", "{", '{"a": 1} x', "[1]", "1", "{}", '{"a": 1, "b": 2}', "[" * 10_000])
def test_unreadable_line_is_an_error_that_names_file_and_line(tmp_path: Path, line: str) -> None:
    leave(tmp_path, k1700000000='{"a": 1}\n' + line + '\n{"a": 2}\n')
    for _ in range(2):
        with pytest.raises(errors.CorruptionError, match="k1700000000, line 2, can't be read") as caught:
            Checkpoint(tmp_path)
        assert caught.value.path == str(tmp_path / ".checkpoint" / "k1700000000")
    leave(tmp_path, k1700000000='{"a": 1}\n{"a": 2}\n')
    with Checkpoint(tmp_path) as x:
        assert x.getCheckpoints("a") == [1, 2]


def test_bytes_that_are_no_text_are_an_error_too(tmp_path: Path) -> None:
    leave(tmp_path)
    (tmp_path / ".checkpoint" / "k1700000000").write_bytes(b'{"a": "\xff"}\n')
    with pytest.raises(errors.CorruptionError, match="line 1"):
        Checkpoint(tmp_path)


def test_directory_with_other_files_is_refused(tmp_path: Path) -> None:
    leave(tmp_path, k1700000000='{"a": 1}\n', notes="mine")
    with pytest.raises(errors.NotAStoreError, match="'notes'"):
        Checkpoint(tmp_path)
    with pytest.raises(errors.NotAStoreError, match="k1700000000"):
        trax.Trax(tmp_path / ".checkpoint")


@pytest.mark.parametrize("name", ["log.1700000000", "log.11700000000"])
def test_old_file_with_a_name_that_a_store_needs_is_refused_and_left_alone(tmp_path: Path, name: str) -> None:
    old = leave(tmp_path, **{name: '{"a": 1}\n', "k1700000001": '{"a": 2}\n'})
    with pytest.raises(errors.NotAStoreError, match=f"old-{name}"):
        Checkpoint(tmp_path)
    assert {path.name: path.read_bytes() for path in (tmp_path / ".checkpoint").iterdir()} == old
    (tmp_path / ".checkpoint" / name).rename(tmp_path / ".checkpoint" / f"old-{name}")
    with Checkpoint(tmp_path) as x:
        assert x.getCheckpoints("a") == [1, 2]


def test_directory_of_the_old_library_that_holds_nothing_is_a_new_store(tmp_path: Path) -> None:
    leave(tmp_path)
    with Checkpoint(tmp_path) as x:
        assert x.getCheckpointKeys() == []


# Crashes

OLD = {"k1700000000": '{"a": 0}\n{"a": 1}\n', "j1700000001": '{"a": 2}\n{"a": 3}\n{"a'}


def prepare(path: Path) -> None:
    leave(path, **OLD)


def job(path: Path, fs: Any, bounds: Bounds) -> None:
    with open_or_release(path, fs) as x:
        x.createCheckpointLog("k")
        with bounds.step():
            x.writeCheckpoint("k", "a", 4)
        x.compact()


class open_or_release:  # noqa: N801
    """A handle whose lock is let go of even if the file system does not let it close."""

    def __init__(self, path: Path, fs: Any) -> None:
        self.checkpoint = Checkpoint(path, fs=fs)

    def __enter__(self) -> Checkpoint:
        return self.checkpoint

    def __exit__(self, *error: object) -> None:
        try:
            self.checkpoint.close()
        except BaseException:
            self.checkpoint._log._store._after_fork_in_child()
            raise


def judge(path: Path, acknowledged: int, issued: int) -> None:
    for _ in range(2):
        with Checkpoint(path) as x:
            found = x.getCheckpoints("a")
        assert found == list(range(len(found)))
        assert 4 + acknowledged <= len(found) <= 4 + issued
    assert {name: (path / ".checkpoint" / name).read_text() for name in OLD} == OLD


@pytest.mark.filterwarnings("ignore::trax.TraxWarning")
def test_crash_at_every_storage_call_of_the_take_over_loses_and_doubles_nothing() -> None:
    count("take over: crash", crash_everywhere(job, judge, prepare))


@pytest.mark.filterwarnings("ignore::trax.TraxWarning", "ignore::ResourceWarning")
def test_every_storage_call_of_the_take_over_may_fail() -> None:
    count("take over: failing operations", fail_everywhere(job, judge, prepare))


def test_old_directory_that_may_not_be_read_is_an_error(tmp_path: Path) -> None:
    leave(tmp_path, k1700000000='{"a": 1}\n')
    os.mkdir(tmp_path / ".checkpoint" / "j1700000000")
    with pytest.raises(errors.StorageError, match=r"could not read .*j1700000000"):
        Checkpoint(tmp_path)
