"""The examples of README and of the docstrings run, as they stand. Those of docs/ run in ``test_docs.py``."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
import re
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
    (example,) = python_blocks(ROOT / "README.rst")
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


def test_readme_is_not_longer_than_three_screens() -> None:
    assert len((ROOT / "README.rst").read_text(encoding="utf-8").splitlines()) <= 80


@pytest.mark.parametrize("name", MODULES)
def test_docstring_examples(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert doctest.testmod(importlib.import_module(name)).failed == 0
