"""Search for faults at full length, and print one table: method, cases tried, faults found.

    python tools/crash.py [word ...]

Each row is a part of the tests, which ``make test`` runs too, briefly. The words choose rows. TRAX_SEED chooses other
random cases than those of the last run; what was chosen is printed. Ends with status 1 if anything was found.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
_LONGEST_TEST_S = 600  # a test that takes longer hangs, which is a fault


@dataclass(frozen=True)
class Search:
    """A part of the tests, and how much more of it is run here than by ``make test``."""

    what: str
    tests: tuple[str, ...]
    effort: Mapping[str, str] = field(default_factory=dict)


# The longest first: they set the time that the whole takes.
SEARCHES = [
    Search("failing operations", ("tests/test_faults.py",), {"TRAX_FAULT_STRIDE": "1"}),
    Search("corruption", ("tests/test_corruption.py",), {"TRAX_CORRUPTION_STRIDE": "1"}),
    Search("interrupts", ("tests/test_interrupts.py",), {"TRAX_FAULT_STRIDE": "1"}),
    Search(
        "power loss, fixed jobs",
        ("tests/test_crash.py", "-k", "every_state"),
        {"TRAX_CRASH_LIMIT": "700", "TRAX_CRASH_DEEP": "10"},
    ),
    Search("power loss, random jobs", ("tests/test_crash.py", "-k", "not every_state"), {"TRAX_CRASH_RUNS": "3"}),
    Search(
        "long jobs",
        ("tests/test_job.py", "tests/test_job_examples.py"),
        {"TRAX_JOB_LIMIT": "80", "TRAX_JOB_EXAMPLES": "2"},
    ),
    Search("real file systems", ("tests/test_real_disks.py",), {"TRAX_SHUTDOWNS": "20"}),
    Search("SIGKILL", ("tests/test_sigkill.py", "tests/test_examples.py"), {"TRAX_KILLS": "50"}),
    Search("fuzzing", ("tests/test_fuzz.py",), {"TRAX_FUZZ": "10"}),
    Search("failing fsyncs", ("tests/test_fsync_failures.py",), {"TRAX_FAULT_STRIDE": "6"}),
    Search(
        "layers",
        ("tests/test_events.py", "tests/test_positions.py", "tests/test_compat_checkpoint_logger.py", "tests/consumer"),
        {"TRAX_SWEEP_SAMPLES": "4", "TRAX_CONSUMER_STRIDE": "1", "TRAX_EVENT_RUNS": "100", "TRAX_KILLS": "30"},
    ),
    Search("repair", ("tests/test_repair.py",), {"TRAX_REPAIR_RUNS": "700"}),
    Search(
        "state machines",
        ("tests/test_state_machine.py", "tests/test_crash_machine.py"),
        {"TRAX_MACHINE_RUNS": "400"},
    ),
    Search("jobs of users", ("tests/test_user_tools.py",), {"TRAX_JOB_POINTS": "70"}),
    Search("copies of a live store", ("tests/test_live_copy.py",), {"TRAX_COPIES": "300"}),
]


@dataclass
class Outcome:
    """What one run of a search came to."""

    search: Search
    cases: Counter[str]
    faults: list[str]
    skipped: list[str]
    seconds: float


def run(search: Search, seed: str) -> Outcome:
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as directory:
        counts = Path(directory, "cases")
        environment = {**os.environ, **search.effort, "TRAX_CASES": str(counts), "TRAX_SEED": seed}
        options = ["-q", "-rfEs", "--tb=short", "-p", "no:cacheprovider"]
        hung = ["-o", f"faulthandler_timeout={_LONGEST_TEST_S}", "-o", "faulthandler_exit_on_timeout=true"]
        command = [sys.executable, "-m", "pytest", *options, *hung, *search.tests]
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
        cases: Counter[str] = Counter()
        for line in counts.read_text().splitlines() if counts.exists() else ():
            method, tried = json.loads(line)
            cases[method] += tried
    lines = done.stdout.splitlines()
    faults = [line for line in lines if line.startswith(("FAILED", "ERROR"))]
    if done.returncode and not faults:
        faults = [f"pytest ended with {done.returncode}: {(done.stderr or done.stdout)[-2000:]}"]
    if faults:
        print(done.stdout, file=sys.stderr)
    return Outcome(search, cases, faults, [line for line in lines if line.startswith("SKIPPED")], _since(began))


def main(words: list[str]) -> int:
    chosen = [search for search in SEARCHES if not words or any(word in search.what for word in words)]
    seed = os.environ.get("TRAX_SEED", "1")
    print(f"TRAX_SEED={seed}", flush=True)
    began = time.monotonic()
    outcomes: list[Outcome] = []
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        runs = [pool.submit(run, search, seed) for search in chosen]
        for future in as_completed(runs):
            outcomes.append(outcome := future.result())
            print(f"  {outcome.search.what}: {outcome.seconds:.0f} s", file=sys.stderr, flush=True)
    outcomes.sort(key=lambda outcome: SEARCHES.index(outcome.search))
    _print_table(outcomes)
    faults = [line for outcome in outcomes for line in outcome.faults]
    for line in [*sorted({line for outcome in outcomes for line in outcome.skipped}), *faults]:
        print(line)
    cases = sum(outcome.cases.total() for outcome in outcomes)
    idle = [outcome.search.what for outcome in outcomes if not outcome.cases and not outcome.skipped]
    for what in idle:
        print(f"{what}: nothing was tried, which is a fault of the search")
    print(f"{cases:,} cases, {len(faults)} faults, {_since(began) / 60:.1f} minutes")
    return 1 if faults or idle or not cases else 0


def _print_table(outcomes: Sequence[Outcome]) -> None:
    """The faults stand in the row of the search that found them; its methods are below it."""
    methods = [method for outcome in outcomes for method in outcome.cases]
    width = max([len("method"), *(2 + len(method) for method in methods), *(len(one.search.what) for one in outcomes)])
    print(f"{'method':{width}}  {'cases':>10}  {'faults':>6}")
    for outcome in outcomes:
        print(f"{outcome.search.what:{width}}  {outcome.cases.total():>10,}  {len(outcome.faults):>6}")
        for method, tried in sorted(outcome.cases.items()):
            print(f"  {method:{width - 2}}  {tried:>10,}")


def _since(began: float) -> float:
    return time.monotonic() - began


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
