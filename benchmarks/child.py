"""One contestant, one run, one process: what it reports goes to standard output as one line of JSON."""

from __future__ import annotations

import json
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

from benchmarks.model import FAST, Contestant, Scale, SkippedError
from benchmarks.task import Task


def execute(contestant: Contestant, directory: Path, sizes: dict[str, int], *, prepare: bool = False) -> dict[str, Any]:
    """Let it work; the figures, or why it can't take part."""
    for name in contestant.blocks:
        sys.modules[name] = None  # type: ignore[assignment]
    for name in contestant.needs:
        if name not in FAST:  # trax imports these itself, or it has no use for them: see check_fast
            import_module(name)  # before the clock runs
    task = Task(directory, sizes, contestant.share)
    work = contestant.prepare if prepare else contestant.run
    assert work is not None
    try:
        work(task)
    except SkippedError as reason:
        return {"skipped": str(reason)}
    return {"figures": task.figures}


def main(arguments: list[str]) -> int:
    from benchmarks.cases import find_case

    key, name, scale, directory, prepare = arguments
    case = find_case(key)
    (contestant,) = (contestant for contestant in case.contestants if contestant.name == name)
    chosen: Scale = scale  # type: ignore[assignment]
    outcome = execute(contestant, Path(directory), dict(case.sizes[chosen]), prepare=prepare == "prepare")
    print(json.dumps(outcome))
    return 0
