"""What two runs have left, compared: every difference is named, and what only looks like one is not."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

import trax
from trax.testing.endings import Endings, close_stores, commits_below, keep_value, remember_replays
from trax.testing.errors import JobError


def append(state: list[Any], entry: Any) -> list[Any]:
    return [*state, entry]


class Runs:
    """The directories of two runs that have ended alike; a test then changes one of them."""

    def __init__(self, root: Path) -> None:
        self.reference, self.directory = root / "reference", root / "job"
        self.value = str(root / "value")
        self.reference.mkdir()
        keep_value({"a": [1.0]}, self.value)
        self.replays: dict[tuple[str, str], Any] = {(str(self.directory / "s.trax"), "state"): append}
        with trax.Trax(self.reference / "s.trax") as store:
            store.checkpoint(state=[1])
            store.log(state=2, results="one")
            store.log(results="two")
        (self.reference / "out").mkdir()
        (self.reference / "out" / "rows.txt").write_bytes(b"row 1\nrow 2\n" + b"x" * 3_000_000)
        (self.reference / "link").symlink_to("out")
        shutil.copytree(self.reference, self.directory, symlinks=True)

    def differences(self, value: Any = None, ignore: tuple[str, ...] = ()) -> list[str]:
        endings = Endings(str(self.reference), str(self.directory), self.replays, ignore, ("first", "second"))
        return endings.differences(self.value, {"a": [1.0]} if value is None else value)

    def store(self) -> trax.Trax:
        return trax.Trax(self.directory / "s.trax")


@pytest.fixture
def runs(tmp_path: Path) -> Runs:
    return Runs(tmp_path)


def test_the_same_is_no_difference(runs: Runs) -> None:
    assert runs.differences() == []
    with runs.store() as store:  # the same state, and another share of it in the log
        store.checkpoint(state=[1, 2])
    assert runs.differences() == []


def test_values(runs: Runs) -> None:
    expected = ["the returned value['a'][0]: float 1.0 in the first run, int 1 in the second run"]
    assert runs.differences({"a": [1]}) == expected
    with pytest.raises(JobError, match="can't be pickled"):
        runs.differences(lambda: None)


def test_names(runs: Runs) -> None:
    with runs.store() as store:
        store.log(state=3)
        store.log(results="two")
        store.checkpoint(further=1)
    assert runs.differences() == [
        "the store s.trax: 'further': missing in the first run",
        "the store s.trax: results['log'][2]: nothing in the first run, 'two' in the second run (of 2 and 3 items)",
        "the store s.trax: state[2]: nothing in the first run, 3 in the second run (of 2 and 3 items)",
    ]
    assert runs.differences(ignore=("s.trax:*",)) == []
    assert runs.differences(ignore=("s.trax:[fs]*", "other:*")) == runs.differences()[1:2]


def test_a_replay_that_fails(runs: Runs) -> None:
    runs.replays = {key: lambda state, entry: state[entry] for key in runs.replays}
    assert runs.differences() == [
        "the store s.trax: to recover 'state' at the end raises IndexError: list index out of range"
    ]


def test_stores(runs: Runs) -> None:
    shutil.copytree(runs.directory / "s.trax", runs.directory / "copies" / "1")
    assert runs.differences() == ["the store copies/1: missing in the first run"]
    shutil.copytree(runs.directory / "copies", runs.reference / "copies")
    assert runs.differences() == [], "its names are replayed as those of the store that was recovered"
    shutil.rmtree(runs.directory / "copies")
    assert runs.differences() == ["the store copies/1: missing in the second run"]


def test_a_damaged_store(runs: Runs) -> None:
    snapshot = runs.directory / "s.trax" / "snapshot"
    data = bytearray(snapshot.read_bytes())
    data[60] ^= 1
    snapshot.write_bytes(data)
    (difference,) = runs.differences()
    assert difference.startswith(f"the store s.trax is damaged: {snapshot}")


def test_a_store_of_pickles_is_read(runs: Runs) -> None:
    for directory, state in ((runs.reference, {1, 2}), (runs.directory, {1, 3})):
        with trax.Trax(directory / "pickles", codec="pickle") as store:
            store.checkpoint(state=state)
    assert runs.differences() == ["the store pickles: state: has 2 in the first run, lacks 2 in the second run"]


def test_files(runs: Runs) -> None:
    rows = runs.directory / "out" / "rows.txt"
    content = rows.read_bytes()
    rows.write_bytes(content.replace(b"row 2", b"row 3"))
    changed = "the file out/rows.txt, byte 10 (line 2): b'row 2' in the first run, b'row 3' in the second run"
    assert runs.differences() == [changed]
    rows.write_bytes(content[:-1])
    (difference,) = runs.differences()
    assert difference.startswith("the file out/rows.txt, byte 3,000,011 (line 3): b'xxx")
    assert difference.endswith("in the first run, the end of the file in the second run")
    rows.unlink()
    (runs.directory / "new.txt").touch()
    assert runs.differences() == [
        "the file new.txt: missing in the first run",
        "the file out/rows.txt: missing in the second run",
    ]
    assert runs.differences(ignore=("out/*", "*.txt")) == []


def test_links_and_files_among_those_of_a_store(runs: Runs) -> None:
    os.unlink(runs.directory / "link")
    (runs.directory / "link").symlink_to("elsewhere")
    (runs.directory / "s.trax" / "notes.txt").write_text("mine")
    assert runs.differences() == [
        "the file link: out in the first run, elsewhere in the second run",
        "the file s.trax/notes.txt: missing in the first run",
    ]
    os.unlink(runs.directory / "link")
    (runs.directory / "link").touch()
    assert runs.differences()[0] == "the file link: out in the first run, a file in the second run"


def test_it_is_noted_how_each_name_is_recovered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trax.Trax, "recover_many", trax.Trax.recover_many)  # and put back
    replays = remember_replays()
    with trax.Trax(tmp_path / "s") as store:
        store.checkpoint(a=[1], b=2, c=3)
        store.recover("a", replay_log=append)
        store.recover_many(["b", "c"], replay_log={"b": max})
        assert store.recover("a", None, append) == [1]
    path = str(tmp_path / "s")
    assert replays[path, "a"] is append and replays[path, "b"] is max
    assert replays[path, "c"](1, 2) == 2


def test_what_is_open_is_closed_and_counted(tmp_path: Path) -> None:
    store = trax.Trax(tmp_path / "below" / "s", sync="os", buffer_bytes=1000)
    store.recover("a", int)
    for number in range(5):
        store.log(a=number)
    assert commits_below(str(tmp_path)) == 1
    close_stores()
    assert commits_below(str(tmp_path)) == 6
    with pytest.raises(trax.errors.ClosedError):
        store.log(a=1)
