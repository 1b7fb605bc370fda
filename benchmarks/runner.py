"""Rounds: in each one every contestant has one turn, in a process of its own, so that drift hits all alike."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from benchmarks.model import Case, Contestant, Scale

PROGRAM = Path(__file__).parent / "__main__.py"
TIMEOUT_S = 1800


def run_case(case: Case, scale: Scale, rounds: int, directory: Path, say: Callable[[str], None]) -> dict[str, Any]:
    """All rounds of a case, as they go into the results file."""
    outcomes: dict[str, dict[str, Any]] = {
        contestant.name: {"role": contestant.role, "does": contestant.does, "rounds": []}
        for contestant in case.contestants
    }
    for contestant in case.contestants:
        if reason := missing(contestant):
            outcomes[contestant.name]["skipped"] = reason
        elif contestant.prepare is not None:
            _turn(case, contestant, scale, directory, outcomes[contestant.name], prepare=True)
    for number in range(rounds):
        # In another order each round, the same in each run: what the one before leaves behind (a warm disk, a full
        # journal, blocks to be discarded) is not always given to the same.
        for contestant in random.Random(number).sample(case.contestants, len(case.contestants)):
            _round(case, contestant, scale, directory, outcomes[contestant.name])
        say(f"{case.key}: round {number + 1} of {rounds}")
    shutil.rmtree(directory / case.key, ignore_errors=True)
    for name, outcome in outcomes.items():
        if trouble := outcome.get("error") or outcome.get("skipped"):
            say(f"{case.key}: {name}: {'failed' if 'error' in outcome else 'skipped'}: {trouble}")
    sizes = dict(case.sizes[scale])
    return {"title": case.title, "sizes": sizes, "tries": tries(case, scale), "contestants": outcomes}


def tries(case: Case, scale: Scale) -> int:
    """How often each contestant works in a round."""
    return case.tries if scale == "full" else 1


def environment() -> dict[str, str]:
    """The children measure the trax that this process has: the checkout's only if it is the checkout's here."""
    import trax

    found = str(Path(trax.__file__).parent.parent)
    paths = [found] if found == str(PROGRAM.parent.parent) else []
    return {**os.environ, "PYTHONPATH": os.pathsep.join([*paths, os.environ.get("PYTHONPATH", "")]).strip(os.pathsep)}


def missing(contestant: Contestant) -> str:
    """Which module it needs that isn't there."""
    packages = dict.fromkeys(name.partition(".")[0] for name in contestant.needs)
    absent = [name for name in packages if find_spec(name) is None]
    return f"{' and '.join(absent)} not installed" if absent else ""


def _round(case: Case, contestant: Contestant, scale: Scale, directory: Path, outcome: dict[str, Any]) -> None:
    """Add the figures of its best turn to the outcome."""
    turns: list[dict[str, float]] = []
    for _ in range(tries(case, scale)):
        if "skipped" not in outcome and "error" not in outcome:
            turns += _turn(case, contestant, scale, directory, outcome)
    if turns:
        first = case.figures[0]
        best = max if first.higher_is_better else min
        outcome["rounds"].append(best(turns, key=lambda figures: figures[first.key]))


def _turn(
    case: Case, contestant: Contestant, scale: Scale, directory: Path, outcome: dict[str, Any], *, prepare: bool = False
) -> list[dict[str, float]]:
    """What it reported; nothing, if it could not take part, which the outcome says then."""
    place = directory / case.key / contestant.name.replace("/", "-")
    place.mkdir(parents=True, exist_ok=True)
    if scale != "tiny":
        os.sync()  # what earlier turns have not yet written is not to be waited for by this one's fsync
    command = [sys.executable, str(PROGRAM), "child", case.key, contestant.name, scale, str(place)]
    command.append("prepare" if prepare else "run")
    try:
        done = subprocess.run(
            command, env=environment(), capture_output=True, text=True, check=False, timeout=TIMEOUT_S
        )
    except subprocess.TimeoutExpired:
        outcome["error"] = f"it was not done after {TIMEOUT_S:,} s"
        return []
    finally:
        if contestant.prepare is None:
            shutil.rmtree(place)
    return _reported(done, outcome)


def _reported(done: subprocess.CompletedProcess[str], outcome: dict[str, Any]) -> list[dict[str, float]]:
    if done.returncode:
        print(done.stderr, file=sys.stderr)
        outcome["error"] = (done.stderr.strip().splitlines() or [f"it ended with status {done.returncode}"])[-1]
        return []
    said = json.loads(done.stdout.splitlines()[-1])
    if "skipped" in said:
        outcome["skipped"] = said["skipped"]
        return []
    return [{key: float(f"{value:.6g}") for key, value in said["figures"].items()}]
