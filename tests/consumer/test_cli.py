"""``trax consumer``: what it shows, on a terminal and in a pipe, and that it only looks."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import trax
from tests.consumer.toys import Numbers, always_failing
from tests.test_cli import all_files, no_rich, on_terminal, run  # noqa: F401 (no_rich is a fixture)
from trax.consumer import Checkpoint, Tracker


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Two streams: one that has ended, one that was stopped in the middle of its second batch."""
    path = tmp_path / "store"
    with trax.Trax(path) as store:
        Numbers(Checkpoint(store, "done", initial_pointer=0), always_failing("r4")).run()
        checkpoint = Checkpoint(store, "two\nlines \x1b[31m" + "long " * 30, initial_pointer=0)

        class Stops(Numbers):
            def dead_letter(self, record: dict[str, Any], tracker: Tracker) -> None:
                self.stop()
                raise ConnectionError("the queue is down " * 10)

        Stops(checkpoint, always_failing("r3")).run()
    return path


def test_all_streams_in_a_table(path: Path) -> None:
    done = run("consumer", path)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[:2] == [f"Store    {path}", "Streams  2"]
    assert lines[3].split() == ["Stream", "Batch", "Records", "Unfinished", "Exhausted", "Next", "pointer"]
    assert lines[4].split(maxsplit=5) == ["done", "2", "3", "0", "1", "the stream has ended"]
    assert lines[5].endswith("2        3           1          1  none: these are the last")


def test_one_stream_with_what_is_wrong_in_it(path: Path) -> None:
    done = run("consumer", path, "--stream", "done")
    assert "Records  1 exhausted, 2 succeeded" in done.stdout
    assert done.stdout.splitlines()[-1].split(maxsplit=3) == ["r4", "exhausted", "3", "ValueError: r4 is bad"]


@pytest.mark.parametrize("rich", [True, False])
def test_it_fits_into_eighty_columns(path: Path, rich: bool, no_rich: dict[str, str]) -> None:  # noqa: F811
    name = "two\nlines \x1b[31m" + "long " * 30
    for arguments in ([], ["--stream", name]):
        code, shown = on_terminal("consumer", path, *arguments, **({} if rich else no_rich))
        assert code == 0
        lines = shown.replace("\x1b[1m", "").replace("\x1b[0m", "").splitlines()
        assert len(lines) > 5 and "\x1b[31m" not in shown
        assert max(len(line) for line in lines if str(path) not in line) <= 80, shown
    assert "not delivered" in shown


def test_everything_as_json(path: Path) -> None:
    found = json.loads(run("consumer", path, "--json", "--stream", "done").stdout)
    assert list(found) == ["done"]
    assert found["done"]["ended"] and len(found["done"]["history"]) == 2
    assert [tracker["status"] for tracker in found["done"]["trackers"]] == ["succeeded", "exhausted", "succeeded"]
    assert "Traceback" in found["done"]["trackers"][1]["errors"][0]["traceback"]


def test_it_only_looks_also_beside_a_live_consumer(path: Path) -> None:
    before = all_files(path)
    assert run("consumer", path).returncode == 0
    assert all_files(path) == before
    with trax.Trax(path):
        assert run("consumer", path).returncode == 0


def test_what_is_not_there_is_said(path: Path, tmp_path: Path) -> None:
    done = run("consumer", path, "--stream", "nope")
    assert (done.returncode, done.stdout) == (1, "")
    assert "holds no stream 'nope': it has done," in done.stderr
    done = run("consumer", tmp_path / "nowhere")
    assert (done.returncode, done.stderr) == (1, f"trax: there is no store at {tmp_path / 'nowhere'}\n")
    trax.Trax(tmp_path / "empty").close()
    assert run("consumer", tmp_path / "empty").stdout.endswith("Streams  0\n")
    assert "it has no streams" in run("consumer", tmp_path / "empty", "--stream", "x").stderr


def test_a_store_of_pickles_must_be_trusted_first(tmp_path: Path) -> None:
    with trax.Trax(tmp_path / "store", codec="pickle") as store:
        Numbers(Checkpoint(store, "stream", initial_pointer=0)).run()
    assert run("consumer", tmp_path / "store").returncode == 1
    assert "stream" in run("consumer", tmp_path / "store", "--codec", "pickle").stdout


def test_importing_trax_imports_no_layer() -> None:
    script = (
        "import sys, trax; print([name for name in sys.modules if name.startswith(('trax.consumer', 'trax.compat'))])"
    )
    out = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert out == "[]\n"
