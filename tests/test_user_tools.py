"""``crash_everywhere``: every bug that only a crash shows is found and named, and its repaired twin passes."""

from __future__ import annotations

import atexit
import os
import select
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import trax
from tests import jobs
from tests.counting import count
from trax.errors import InvalidArgumentError
from trax.testing import (
    CheckError,
    JobError,
    NotDeterministicError,
    NothingToCheckError,
    ResumeError,
    crash_everywhere,
    runs,
)

SEED = os.environ.get("TRAX_SEED", "20261121")
POINTS = int(os.environ.get("TRAX_JOB_POINTS", "8"))
ROOT = Path(__file__).parent.parent


# crash_everywhere: the bugs that only a crash shows


@pytest.mark.parametrize(
    ("job", "options", "found"),
    [
        (
            jobs.forgets_the_generator,
            {},
            ["returned value['sum']", "store job.trax: state['sum']", "store.log(state=am"],
        ),
        (jobs.counts_what_it_does_not_save, {}, ["returned value['accepted']: 2 in the uninterrupted run, "]),
        (
            jobs.writes_before_it_logs,
            {},
            ["the file rows.txt, byte 10 (line 2): b'row 2' in", "b'row 1' in the resumed"],
        ),
        (jobs.logs_before_it_writes, {}, ["the file rows.txt, byte ", "just after the write of a record"]),
        (jobs.appends_when_it_is_done, {}, ["the file summary.txt", "just after the job had returned"]),
        (jobs.checkpoints_too_early, {}, ["state['step']: 2 in the uninterrupted run, 3 in the resumed run"]),
        (jobs.replays_something_else, {}, ["returned value['sum']"]),
        (jobs.changes_the_entry_after_logging_it, {}, ["returned value[0][1]: -1 in", "nothing in the resumed run"]),
        (
            jobs.only_writes_results,
            {},
            ["the store job.trax: results['log'][1]: 4 in the uninterrupted run, 1 in the re"],
        ),
        (jobs.writes_a_file_in_place, {"every": "line"}, ["the returned value: 'steps = 3' in", "file.write("]),
        (jobs.acknowledges_what_is_not_synced, {"how": "power loss"}, ["it failed", "what was acknowledged is not in"]),
        (jobs.resumes_only_once, {"crashes": 2}, ["it failed", "FileExistsError", "resuming"]),
        (
            jobs.hangs_when_resumed,
            {"timeout_s": 1},
            ["did not end within 1 seconds", ".wait()", "waiting for something"],
        ),
        (jobs.fails_when_resumed, {}, ["it failed", "LookupError: the results of the last run", "about to fail"]),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_what_only_a_crash_shows_is_found_and_can_be_repeated(
    job: jobs.Job, options: dict[str, Any], found: list[str]
) -> None:
    with pytest.raises(ResumeError) as caught:
        crash_everywhere(job, **options)
    message = str(caught.value)
    for part in [*found, "tests/jobs.py, line " if "job had returned" not in message else "", "To repeat this alone:"]:
        assert part in message
    assert f"only={caught.value.only!r}" in message
    with pytest.raises(ResumeError) as again:
        crash_everywhere(job, **options, only=caught.value.only)
    assert told(again.value) == told(caught.value)


def told(error: ResumeError) -> list[str]:
    """The message without what differs from run to run: the name of the directory."""
    return [line for line in str(error).splitlines() if "/trax-testing-" not in line]


@pytest.mark.parametrize(
    ("job", "options"),
    [
        (jobs.good, {}),
        (jobs.good, {"crashes": 3, "limit": 6}),
        (jobs.good, {"every": "operation", "limit": 10}),
        (jobs.good, {"every": "line", "limit": 10}),
        (jobs.good, {"how": "power loss", "every": "operation", "limit": 5, "samples": 2}),
        (jobs.good, {"how": "power loss", "crashes": 2, "limit": 5}),
        (jobs.keeps_the_generator, {}),
        (jobs.rolls_its_file_back, {}),
        (jobs.replaces_a_file, {"every": "line", "ignore": ["*.new"], "limit": 10}),
        (jobs.acknowledges_what_is_synced, {"how": "power loss", "samples": 0}),
        (jobs.acknowledges_what_is_not_synced, {}),
        (jobs.resumes_only_once, {}),
        (jobs.writes_results_with_the_step, {}),
        (jobs.uses_everything, {"limit": 10}),
        (jobs.uses_everything, {"how": "power loss", "limit": 5}),
    ],
    ids=lambda value: getattr(value, "__name__", None) or " ".join(map(str, value.values())),
)
def test_a_job_without_such_a_bug_passes(job: jobs.Job, options: dict[str, Any]) -> None:
    print(f"TRAX_SEED={SEED}")
    report = crash_everywhere(job, seed=SEED, **options)
    assert report.tried == min(options.get("limit", report.points), report.points)
    assert report.crashes >= report.tried >= 4
    assert report.commits >= jobs.STEPS
    assert f"{report.crashes} times" in str(report)
    assert ("evenly spread" in str(report)) == (report.tried < report.points)


# crash_everywhere: what can't be checked is said, and not passed over


def unpicklable(directory: str) -> Any:
    jobs.good(directory)
    return lambda: None


def writes_elsewhere(directory: str) -> None:
    trax.Trax(os.path.join(directory, "..", "elsewhere.trax"))


def dies(directory: str) -> None:
    jobs.good(directory)
    os.kill(os.getpid(), signal.SIGTERM)


def commits_in_another_process(directory: str) -> None:
    code = "import sys, tests.jobs; tests.jobs.good(sys.argv[1])"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    subprocess.run([sys.executable, "-c", code, directory], check=True, env=environment)


def prints_and_fails(directory: str) -> None:
    print("the last words")
    raise LookupError("the input")


def waits(directory: str) -> None:
    signal.pause()


@pytest.mark.parametrize(
    ("job", "error", "found"),
    [
        (prints_and_fails, JobError, ["fails by itself", "LookupError: the input", "the last words"]),
        (waits, JobError, ["does not end within 1 seconds (timeout_s)", "signal.pause()"]),
        (dies, JobError, ["does not return", "ended by SIGTERM"]),
        (unpicklable, JobError, ["can't be pickled", "Return plain values"]),
        (writes_elsewhere, JobError, ["outside of the directory", "elsewhere.trax"]),
        (lambda directory: sys.exit("usage: …"), JobError, ["fails by itself", "SystemExit: usage: …"]),
        (lambda directory: None, NothingToCheckError, ["opened no store below the directory"]),
        (lambda directory: jobs.opened(directory).close(), NothingToCheckError, ["or committed nothing"]),
        (jobs.is_not_repeatable, NotDeterministicError, ["state['seed']: b", "in the first run", "in the second run"]),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_job_that_can_not_be_checked_is_an_error_of_its_own(
    job: jobs.Job, error: type[CheckError], found: list[str]
) -> None:
    with pytest.raises(error) as caught:
        crash_everywhere(job, timeout_s=1 if job is waits else 60)
    for part in found:
        assert part in str(caught.value)
    assert isinstance(caught.value, AssertionError) and isinstance(caught.value, trax.TraxError)


def test_a_job_whose_stores_belong_to_another_program_is_an_error() -> None:
    with pytest.raises(NothingToCheckError, match="in the process that the job itself runs in"):
        crash_everywhere(commits_in_another_process, limit=2)


def test_a_run_that_was_not_interrupted_and_ends_differently_is_not_called_a_crash(tmp_path: Path) -> None:
    runs = tmp_path / "runs"

    def job(directory: str) -> bool:
        with open(runs, "a") as file:
            file.write("x")
        jobs.good(directory)
        return runs.stat().st_size > 2

    with pytest.raises(NotDeterministicError, match="the returned value: False in the uninterrupted run, True in"):
        crash_everywhere(job, only=1000)


def test_a_point_that_does_not_exist_is_an_error() -> None:
    with pytest.raises(NothingToCheckError, match=r"A whole run comes by \d+ points"):
        crash_everywhere(jobs.good, only=1000)


@pytest.mark.parametrize(
    "options",
    [{"how": "fire"}, {"every": "second"}, {"limit": 0}, {"crashes": 0}, {"only": "x"}, {"start_method": "thread"}],
    ids=str,
)
def test_an_option_that_means_nothing_is_an_error(options: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgumentError):
        crash_everywhere(jobs.good, **options)


def test_a_job_that_is_stopped_hangs_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """No thread of it can say where."""
    monkeypatch.setattr(runs, "_GRACE_S", 0.5)
    with pytest.raises(JobError, match=r"does not end within 0.5 seconds(?s:.*)does not even say where"):
        crash_everywhere(lambda directory: os.kill(os.getpid(), signal.SIGSTOP), timeout_s=0.5)


def test_a_script_that_ends_with_sys_exit_has_ended_well() -> None:
    def script(directory: str) -> None:
        jobs.good(directory)
        sys.exit()

    assert crash_everywhere(script, limit=2).tried == 2


def test_what_is_ignored_is_not_compared() -> None:
    def job(directory: str) -> None:
        jobs.good(directory)
        Path(directory, "started.txt").write_text(str(os.getpid()))
        with jobs.opened(directory) as store:
            store.checkpoint(pid=os.getpid())

    with pytest.raises(NotDeterministicError, match=r"pid\['checkpoint'\]: \d+ in the first run.*\n.*started\.txt"):
        crash_everywhere(job, limit=2)
    assert crash_everywhere(job, limit=2, ignore=["*.txt", "job.trax:pid"]).tried == 2


def test_numpys_global_generator_is_not_inherited() -> None:
    numpy = pytest.importorskip("numpy")
    numpy.random.random()  # loads it: from here on it has a state

    def job(directory: str) -> float:
        jobs.good(directory)
        return float(numpy.random.random())

    with pytest.raises(NotDeterministicError):
        crash_everywhere(job)


def test_processes_that_the_job_has_started_end_with_it(tmp_path: Path) -> None:
    """A pipe that a sleeping grandchild holds open is closed when both are dead."""
    reading, writing = os.pipe()

    def job(directory: str) -> None:
        subprocess.Popen(["sleep", "60"], pass_fds=[writing])
        jobs.good(directory)

    crash_everywhere(job, limit=1)
    os.close(writing)
    ready, _, _ = select.select([reading], [], [], 20)
    assert ready and os.read(reading, 1) == b"", "somebody still holds the other end"
    os.close(reading)


def test_nothing_of_the_job_runs_after_the_kill() -> None:
    def job(directory: str) -> list[str]:
        witnesses = sorted(os.listdir(directory))
        if "buffered" in witnesses:
            witnesses.append(Path(directory, "buffered").read_text())
        ended = False
        atexit.register(lambda: ended or Path(directory, "atexit").touch())
        buffered = open(os.path.join(directory, "buffered"), "w")  # noqa: SIM115
        buffered.write("what was never flushed")
        try:
            jobs.good(directory)
            ended = True
        finally:
            if not ended:
                Path(directory, "finally").touch()
        buffered.close()
        os.unlink(buffered.name)
        return [entry for entry in witnesses if entry not in ("buffered", "job.trax", "")]

    assert crash_everywhere(job, limit=6).crashes == 6


def test_a_store_that_the_job_leaves_open_is_closed_as_at_the_end_of_its_process() -> None:
    kept: list[trax.Trax] = []

    def job(directory: str) -> None:
        kept.append(jobs.opened(directory, sync="os", buffer_bytes=10_000))
        count = kept[-1].recover("count", lambda: 0)
        for number in range(count, 3):
            kept[-1].log(count=number + 1)

    assert crash_everywhere(job).commits == 4


def test_the_directories_stay_where_they_were_asked_for_when_something_is_found(tmp_path: Path) -> None:
    with pytest.raises(ResumeError):
        crash_everywhere(jobs.writes_before_it_logs, scratch=tmp_path)
    (kept,) = tmp_path.iterdir()
    assert (kept / "uninterrupted" / "rows.txt").read_text() == "row 1\nrow 2\nrow 3\n"
    assert (kept / "job" / "rows.txt").read_text() == "row 1\nrow 1\nrow 2\nrow 3\n"
    crash_everywhere(jobs.good, scratch=tmp_path, limit=1)
    assert list(tmp_path.iterdir()) == [kept]


def test_a_job_runs_in_new_interpreters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "spawned_job.py").write_text((ROOT / "tests" / "jobs.py").read_text())
    monkeypatch.syspath_prepend(tmp_path)
    import spawned_job  # type: ignore[import-not-found]

    assert crash_everywhere(spawned_job.good, start_method="spawn", limit=2).tried == 2
    with pytest.raises(ResumeError, match="the file rows"):
        crash_everywhere(spawned_job.writes_before_it_logs, start_method="spawn", only=5)


# The examples


@pytest.mark.parametrize("options", [{}, {"how": "power loss"}, {"every": "line"}], ids=str)
def test_the_sampling_job_of_the_examples_passes(options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("numpy")
    monkeypatch.syspath_prepend(ROOT / "examples")
    import nile_mcmc  # type: ignore[import-not-found]

    print(f"TRAX_SEED={SEED}")
    monkeypatch.setattr(nile_mcmc, "CHECKPOINT_EVERY", 4)
    monkeypatch.delitem(sys.modules, "nile_mcmc")
    report = crash_everywhere(
        lambda directory: nile_mcmc.run(Path(directory, "nile.trax"), 10), limit=POINTS, seed=SEED, **options
    )
    assert report.commits >= 10
    count(f"a job of the user's, {report.how}", report.crashes)


def test_the_job_of_the_tutorial_passes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (ROOT / "docs" / "tutorial.rst").read_text(encoding="utf-8")
    lines = text[text.index(":caption: job.py") :].splitlines()[2:]
    script = "\n".join(line[4:] for line in lines[: lines.index("..")]).replace("time.sleep(0.02)", "pass")
    code = compile(script, "job.py", "exec")

    def job(directory: str) -> None:
        os.chdir(directory)
        exec(code, {"__name__": "__main__"})

    report = crash_everywhere(job, limit=POINTS, crashes=2, seed=SEED)
    assert report.commits > 60
    count("a job of the user's, kill", report.crashes)
