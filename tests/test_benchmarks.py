"""The benchmarks run from end to end, and their checks notice a contestant that loses something.

Nothing here looks at a time: the sizes are tiny, and the machine is busy with other tests.
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import trax

ROOT = Path(__file__).parent.parent
PROGRAM = ROOT / "benchmarks" / "__main__.py"
KEYS = ["B1", "B1-large", "B2", "B3", "B4-8", "B4-32", "B5", "B6", "B7", "B8", "B9", "B10", "B11", "B12", "B13"]
pytestmark = pytest.mark.skipif(not PROGRAM.exists(), reason="the benchmarks are not part of what is installed")


@pytest.fixture
def benchmarks(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The package, found behind everything else, so that trax stays the one that is tested."""
    monkeypatch.setattr(sys, "path", [*sys.path, str(ROOT)])
    return importlib.import_module("benchmarks.cases")


def run(*arguments: str, directory: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(PROGRAM), "--tiny", "--directory", str(directory), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=directory, env=os.environ)


@pytest.mark.parametrize("key", KEYS)
def test_a_case_runs_from_end_to_end(key: str, tmp_path: Path) -> None:
    done = run("--cases", key, "--output", "results.json", directory=tmp_path)
    assert done.returncode == 0, done.stderr
    data = json.loads((tmp_path / "results.json").read_text())
    contestants = data["cases"][key]["contestants"]
    took_part = {name for name, outcome in contestants.items() if outcome["rounds"]}
    assert {contestants[name]["role"] for name in took_part} >= {"trax"}
    for name, outcome in contestants.items():
        assert "error" not in outcome, (name, outcome)
        assert name in took_part or "not installed" in outcome["skipped"] or "this trax has no" in outcome["skipped"]
        for figures in outcome["rounds"]:
            assert all(value >= 0 for value in figures.values())
    shown = done.stdout.partition(f"{key}: ")[2]
    assert all(f"\n{name}  " in shown for name in took_part), shown
    assert [path.name for path in tmp_path.iterdir()] == ["results.json"], "the stores were left behind"


def test_all_cases_are_tested(benchmarks: ModuleType) -> None:
    assert [case.key for case in benchmarks.CASES] == KEYS
    assert {case.key for case in benchmarks.choose(["B4", "B1"])} == {"B1", "B1-large", "B4-8", "B4-32"}
    with pytest.raises(ValueError, match="no such case: B99"):
        benchmarks.choose(["B99"])


# A contestant that loses something is found out


class Losing:
    """A store of a log that leaves one record out."""

    def __init__(self, store: Any) -> None:
        self.store = store
        self.calls = 0

    def put(self, value: Any) -> None:
        self.calls += 1
        if self.calls != 3:
            self.store.put(value)

    def put_each(self, values: Any) -> None:
        self.store.put_each([*values[:2], *values[3:]])

    def put_together(self, values: Any) -> None:
        self.store.put_together([*values[:2], *values[3:]])

    def __getattr__(self, name: str) -> Any:
        return getattr(self.store, name)

    def __enter__(self) -> Losing:
        return self

    def __exit__(self, *error: object) -> None:
        self.store.close()


def plant(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is stored, something of it is lost."""
    from benchmarks.cases.logging import Kind

    open_store = Kind.open
    monkeypatch.setattr(Kind, "open", lambda *arguments: Losing(open_store(*arguments)))
    log, checkpoint = trax.Trax.log, trax.Trax.checkpoint
    logged: dict[Any, int] = {}

    def losing_log(self: trax.Trax, *mappings: Any, **entries: Any) -> int:
        logged[self] = logged.get(self, 0) + 1
        return log(self, *mappings, **entries) if logged[self] != 3 else 0

    def losing_checkpoint(self: trax.Trax, *mappings: Any, **values: Any) -> int:
        return checkpoint(self, *mappings, **{name: damaged(value) for name, value in values.items()})

    monkeypatch.setattr(trax.Trax, "log", losing_log)
    monkeypatch.setattr(trax.Trax, "checkpoint", losing_checkpoint)
    if importlib.util.find_spec("numpy"):
        from benchmarks.stores import array_files

        for kind in (array_files.ArrayFile, array_files.ZarrDirectory):
            save = kind.save
            monkeypatch.setattr(kind, "save", lambda self, array, save=save: save(self, damaged(array)))


def damaged(value: Any) -> Any:
    if isinstance(value, dict):
        return {**value, "step": None}
    if isinstance(value, int):
        return value + 1
    value = value.copy()
    value[len(value) // 2] += 1.0
    return value


@pytest.mark.parametrize("key", [key for key in KEYS if key != "B13"])
def test_a_planted_loss_is_found(
    key: str, benchmarks: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from benchmarks.child import execute
    from benchmarks.model import WrongResultError
    from benchmarks.runner import missing

    plant(monkeypatch)
    case = benchmarks.find_case(key)
    noticed = []
    for number, contestant in enumerate(case.contestants):
        # The limits store nothing through a library that something could be planted in.
        if contestant.role == "limit" or missing(contestant) or "differential" in contestant.name:
            continue
        directory = tmp_path / str(number)
        directory.mkdir()
        harmless = replace(contestant, blocks=())  # blocking would last for the other tests
        try:
            for prepare in (True, False) if contestant.prepare else (False,):
                outcome = execute(harmless, directory, dict(case.sizes["tiny"]), prepare=prepare)
        except WrongResultError:
            noticed.append(contestant.name)
        else:
            assert "skipped" in outcome, f"{contestant.name} has lost something, and nobody noticed"
    assert noticed


def test_an_optional_package_that_import_loads_is_found(benchmarks: ModuleType, tmp_path: Path) -> None:
    from benchmarks.cases.importing import import_it
    from benchmarks.model import WrongResultError
    from benchmarks.task import Task

    pytest.importorskip("numpy", reason="numpy is not installed")
    with pytest.raises(WrongResultError, match="optional packages"):
        import_it(Task(tmp_path, {"imports": 1}), "import trax, numpy")


def test_a_contestant_that_fails_fails_the_run(benchmarks: ModuleType, tmp_path: Path) -> None:
    """As the runner sees it: a child that ends with an error, and a module that isn't there."""
    from benchmarks.model import Case, Contestant
    from benchmarks.runner import run_case

    def works(task: Any) -> None: ...

    sizes = {"tiny": {"count": 1}}
    contestants = [
        Contestant("nobody knows it", "trax", "", works),
        Contestant("absent", "peer", "", works, needs=("no_such_module",)),
    ]
    said: list[str] = []
    outcome = run_case(Case("B1", "", sizes, contestants), "tiny", 1, tmp_path, said.append)["contestants"]
    assert "error" in outcome["nobody knows it"]
    assert outcome["absent"]["skipped"] == "no_such_module not installed"
    assert any("absent: skipped: no_such_module not installed" in line for line in said)


def test_the_best_turn_of_a_round_counts(
    benchmarks: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from benchmarks import runner
    from benchmarks.model import Case, Contestant, Figure

    sizes = {"full": {"count": 1}, "quick": {"count": 1}}
    contestants = [Contestant("trax", "trax", "", lambda task: None)]
    faster, slower = {"rate": 2.0, "waited": 8.0}, {"rate": 1.0, "waited": 9.0}
    turns = iter([slower, faster, slower] * 5)
    monkeypatch.setattr(runner, "_turn", lambda *arguments: [next(turns)])

    def rounds(scale: str, first: Figure) -> Any:
        case = Case("B1", "", sizes, contestants, figures=[first], tries=3)
        result = runner.run_case(case, scale, 2, tmp_path, lambda text: None)
        assert result["tries"] == (3 if scale == "full" else 1)
        return result["contestants"]["trax"]["rounds"]

    assert rounds("full", Figure("rate", "", "")) == [faster, faster]
    assert rounds("full", Figure("rate", "", "", higher_is_better=False)) == [slower, slower]
    assert rounds("quick", Figure("rate", "", "")) == [slower, faster]


# What is made of the figures


def results_of(benchmarks: ModuleType, **rates: list[float]) -> Any:
    from benchmarks.model import Case, Contestant, versus
    from benchmarks.results import CaseResults

    roles = {"limit": "limit", "trax": "trax", "file": "file"}
    contestants = {
        name: {"role": roles.get(name, "peer"), "does": "", "rounds": [{"rate": rate} for rate in found]}
        for name, found in rates.items()
    }
    bars = [versus("trax", "limit", at_least=0.5), versus("trax", ["a", "b"], at_least=2), versus("trax", "absent")]
    listed = [Contestant(name, roles.get(name, "peer"), "", lambda task: None) for name in rates]
    return CaseResults(Case("B1", "", {}, listed, bars=bars), {"contestants": contestants})


def test_ratios_are_those_of_medians_and_bars_judge_them(benchmarks: ModuleType) -> None:
    from benchmarks.results import verdicts
    from benchmarks.text import rows

    results = results_of(
        benchmarks, limit=[100.0, 300.0, 200.0], trax=[1.0, 120.0, 140.0], a=[70.0], b=[80.0, 60.0, 10.0], file=[999.0]
    )
    assert [(verdict.value, verdict.word) for verdict in verdicts(results)] == [
        (120 / 200, "pass"),
        (120 / 70, "FAIL"),
        (None, "not run"),
    ]
    (row,) = (row for row in rows(results) if row[0] == "trax")
    assert row[1:5] == ["120", "±58%", "0.6", "1.71"]


def test_a_page_keeps_what_people_wrote(benchmarks: ModuleType, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed: make bench installs it")
    page = tmp_path / "page.rst"
    parts = [".. begin run\n.. end run", "middle", ".. begin bars\n.. end bars", ".. begin B13\nold\n.. end B13"]
    page.write_text("\n\n".join(["Head", *parts, "foot\n"]))
    done = run("--cases", "B13", "--page", "page.rst", directory=tmp_path)
    assert done.returncode == 0, done.stderr
    once = page.read_text()
    assert once.startswith("Head\n\n.. begin run\n\nThis is a run that only shows that the program works")
    assert once.endswith(".. end B13\n\nfoot\n") and "\nmiddle\n" in once and "old" not in once
    assert "**trax**" in once and "page/B13.svg" in once
    assert b"<svg" in (tmp_path / "page" / "B13.svg").read_bytes()
    page.write_text(once + "\n.. begin B1\n.. end B1\n")
    done = run("--cases", "B13", "--page", "page.rst", directory=tmp_path)
    assert done.returncode != 0 and "also shows B1" in done.stderr


def test_the_page_has_a_place_for_every_case(benchmarks: ModuleType) -> None:
    importlib.import_module("benchmarks.page")
    from benchmarks.page import PART

    text = (ROOT / "docs" / "benchmarks.rst").read_text(encoding="utf-8")
    assert [match["key"] for match in PART.finditer(text)] == ["run", "bars", *KEYS]
