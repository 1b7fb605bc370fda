"""The examples of README and of the docstrings run, as they stand. Those of docs/ run in ``test_docs.py``."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
import re
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import trax

ROOT = Path(__file__).parent.parent
PROGRAMS = {"trax.__main__"}  # importing it runs it
MODULES = ["trax", *sorted({module.name for module in pkgutil.walk_packages(trax.__path__, "trax.")} - PROGRAMS)]


def python_blocks(path: Path) -> list[str]:
    """The ``.. code-block:: python`` of a page."""
    pattern = r"^\.\. code-block:: python\n\n((?: {4}.*\n|\n)+)"
    return [textwrap.dedent(block) for block in re.findall(pattern, path.read_text(encoding="utf-8"), re.MULTILINE)]


def test_readme_example_works_in_this_process_and_in_later_ones(tmp_path: Path) -> None:
    example = python_blocks(ROOT / "README.rst")[0]
    assert example.startswith("import trax\n")
    for _ in range(3):
        done = subprocess.run(
            [sys.executable, "-c", example], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
    later = (
        'import trax\nwith trax.Trax() as store:\n    print(store.recover("existence", replay_log=lambda s, e: s + e))'
    )
    done = subprocess.run([sys.executable, "-c", later], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.stdout, done.returncode) == ("universe\n", 0), done.stderr


# The functions that the example names, before it; and a death that nothing softens, somewhere in a step.
JOB_BEFORE = """
import os, sys
def start():
    return {"x": 0.0}
def move(state, delta):
    state["x"] += delta
    if sys.argv[1:] == [str(move.calls)]:
        os.kill(os.getpid(), 9)
    move.calls += 1
    return state
move.calls = 0
"""


def test_the_job_of_the_readme_survives_kills_and_is_short(tmp_path: Path) -> None:
    _, example = python_blocks(ROOT / "README.rst")
    assert len([line for line in example.splitlines() if line]) <= 15

    def run(directory: str, *arguments: str) -> int:
        (tmp_path / directory).mkdir(exist_ok=True)
        command = [sys.executable, "-c", JOB_BEFORE + example, *arguments]
        return subprocess.run(command, cwd=tmp_path / directory, check=False).returncode

    assert run("whole") == 0
    for last_call in (0, 1, 300, 700, 999):  # what it replays counts as well
        assert run("killed", str(last_call)) == -signal.SIGKILL
    assert run("killed") == 0
    whole, killed = ((tmp_path / directory / "walk.txt").read_text() for directory in ("whole", "killed"))
    assert whole == killed and len(whole.splitlines()) == 1000
    states = []
    for directory in ("whole", "killed"):
        with trax.Trax(tmp_path / directory / "walk.trax") as store:
            states.append(store.recover("state", replay_log=lambda state, delta: {"x": state["x"] + delta}))
    assert states[0] == states[1] == {"x": float(whole.split()[-1])}


def test_readme_is_not_longer_than_four_screens() -> None:
    assert len((ROOT / "README.rst").read_text(encoding="utf-8").splitlines()) <= 100


@pytest.mark.parametrize("name", MODULES)
def test_docstring_examples(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert doctest.testmod(importlib.import_module(name)).failed == 0
