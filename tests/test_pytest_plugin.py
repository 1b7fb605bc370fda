"""The plugin, in test sessions of its own: the fixtures work, failures read well, and it costs nobody anything."""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest_plugins = ["pytester"]

INSTALLED = any(point.name == "trax" for point in importlib.metadata.entry_points(group="pytest11"))
PLUGIN = () if INSTALLED else ("-p", "trax.testing.plugin")

JOB = """
import os, random
import pytest, trax

def add(state, amount):
    return {"step": state["step"] + 1, "sum": state["sum"] + amount}

def job(directory, seeded_again=True):
    generator = random.Random(7)
    with trax.Trax(os.path.join(directory, "job.trax")) as store:
        state = store.recover("state", lambda: {"step": 0, "sum": 0.0}, add)
        while state["step"] < 3:
            amount = random.Random(state["step"]).random() if seeded_again else generator.random()
            store.log(state=amount)
            state = add(state, amount)
    return state
"""


@pytest.fixture
def session(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(map(os.path.abspath, filter(None, sys.path))))
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)
    return pytester


def run(session: pytest.Pytester, tests: str, *arguments: str) -> pytest.RunResult:
    session.makepyfile(JOB + tests)
    return session.runpytest_subprocess(*PLUGIN, "-p", "no:cacheprovider", *arguments)


def test_fixtures_pass_what_is_right(session: pytest.Pytester) -> None:
    tests = """
def test_job(crash_everywhere):
    report = crash_everywhere(job, limit=3)
    assert report.tried == 3

def test_replay(check_replay, trax_store):
    state = trax_store.recover("state", lambda: {"step": 0, "sum": 0.0}, add)
    for amount in (0.1, 0.2):
        trax_store.log(state=amount)
        state = add(state, amount)
    assert check_replay(trax_store, "state", add, state).entries == 2

def test_places(trax_directory, trax_store):
    assert os.path.dirname(trax_store.path) == trax_directory

def test_empty(trax_directory):
    assert os.listdir(trax_directory) == []
"""
    result = run(session, tests, "-rP")
    result.assert_outcomes(passed=4)
    result.stdout.fnmatch_lines(["killed 3 times, at 3 of the * points around 4 commits, evenly spread (*"])


def test_failures_end_with_the_users_own_line(session: pytest.Pytester) -> None:
    tests = """
def test_job(crash_everywhere):
    crash_everywhere(lambda directory: job(directory, seeded_again=False))

def test_replay(check_replay, trax_store):
    trax_store.recover("state", lambda: {"step": 0, "sum": 0.0}, add)
    trax_store.log(state=0.5)
    check_replay(trax_store, "state", add, {"step": 1, "sum": 0.0})
"""
    result = run(session, tests)
    result.assert_outcomes(failed=2)
    result.stdout.fnmatch_lines(
        [
            "> *crash_everywhere(lambda directory: job(directory, seeded_again=False))",
            "E *the job was killed, and when it was resumed it ended differently from a run that nothing interrupted.",
            "E *at point *, just after the write of a record to job.trax/log.00000001",
            "E *test_failures_end_with_the_users_own_line.py, line *, in job: store.log(state=amount)",
            "E *the returned value?'sum'?: * in the uninterrupted run, * in the resumed run",
            "E *crash_everywhere(job, only='*')",
            "> *check_replay(trax_store, *",
            "E *state?'sum'?: 0.0 live, 0.5 recovered",
        ]
    )
    assert "trax/testing/" not in result.stdout.str(), "the traceback goes into the tools"


def test_a_store_that_a_test_leaves_damaged_fails_it(session: pytest.Pytester) -> None:
    tests = """
def test_damage(trax_store):
    trax_store.checkpoint(a=bytes(100_000))
    with open(os.path.join(trax_store.path, "blobs", "00000001"), "r+b") as blob:
        blob.seek(50_000)
        blob.write(b"damage")
"""
    result = run(session, tests)
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(["E *the store was damaged: *00000001*"])


def test_the_seed_comes_from_the_command_line(session: pytest.Pytester) -> None:
    tests = """
def test_job(crash_everywhere):
    assert crash_everywhere(job, how="power loss", limit=2).seed == "4711"
    assert crash_everywhere(job, how="power loss", limit=2, seed=5).seed == 5
"""
    run(session, tests, "--trax-seed=4711").assert_outcomes(passed=1)


@pytest.mark.skipif(not INSTALLED, reason="the plugin is found by its name only where trax is installed")
def test_the_plugin_can_be_left_out(session: pytest.Pytester) -> None:
    result = run(session, "def test_job(crash_everywhere): pass", "-p", "no:trax")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*fixture 'crash_everywhere' not found"])


def test_this_session_imports_trax_only_when_a_test_does(request: pytest.FixtureRequest) -> None:
    """Or the coverage of what runs at import could not be measured here."""
    assert not request.config.pluginmanager.has_plugin("trax")


def python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_the_plugin_imports_nothing_that_it_may_not_need(tmp_path: Path) -> None:
    heavy = {"numpy", "rich", "hypothesis", "multiprocessing", "trax.testing.crash", "trax.testing.disks", "pickle"}
    code = "import sys, pytest; before = set(sys.modules); import trax.testing.plugin; "
    code += f"print(sorted({heavy!r} & (set(sys.modules) - before)))"
    assert python(code) in ("[]", "['pickle']")


def test_trax_alone_imports_no_test_tools() -> None:
    tools = ("trax.testing", "pytest", "_pytest")
    assert python(f"import sys, trax; print([name for name in sys.modules if name.startswith({tools!r})])") == "[]"


def test_everything_that_the_package_names_is_there() -> None:
    import trax.testing

    for name in trax.testing.__all__:
        assert getattr(trax.testing, name).__name__ == name
    assert set(trax.testing.__all__) <= set(dir(trax.testing))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        trax.testing.nothing  # noqa: B018
