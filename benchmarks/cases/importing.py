"""B13: what ``import trax`` costs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import partial
from statistics import median

from benchmarks.model import Case, Contestant, Figure, Role, versus
from benchmarks.task import Task

IMPORT = Figure("import", "import", "ms", higher_is_better=False)
OPTIONAL = ["numpy", "rich", "yaml", "tqdm", "isal", "msgspec"]
SCRIPT = """
import json, sys, time
def peak():
    try:
        with open("/proc/self/status") as status:
            return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM"))
    except FileNotFoundError:
        return 0
before = peak()
start = time.perf_counter()
{statement}
seconds = time.perf_counter() - start
after = peak()
print(json.dumps([seconds, after, after - before, [name for name in {optional} if name in sys.modules]]))
"""


def import_it(task: Task, statement: str) -> None:
    """In interpreters of its own, one after the other; the first of them, which is not counted, compiles."""
    script = SCRIPT.format(statement=statement, optional=OPTIONAL)
    environment = {**os.environ, "PYTHONPYCACHEPREFIX": str(task.directory), "PYTHONDONTWRITEBYTECODE": ""}
    runs = []
    for _ in range(1 + task.sizes["imports"]):
        command = [sys.executable, "-c", script]
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
        runs.append(json.loads(done.stdout))
    del runs[0]
    task.figures["import"] = median(run[0] for run in runs) * 1000
    task.figures["peak_bytes"] = max(run[1] for run in runs)
    task.figures["extra_bytes"] = max(run[2] for run in runs)
    for run in runs:
        task.check_equal(run[3], [], "optional packages that were imported")


def _importer(names: str, role: Role) -> Contestant:
    statement = f"import {names}"
    return Contestant(names, role, f"{statement}, in a new interpreter", partial(import_it, statement=statement))


B13 = Case(
    "B13",
    "import",
    {"full": {"imports": 20}, "quick": {"imports": 7}, "tiny": {"imports": 1}},
    [_importer("msgpack, filelock", "limit"), _importer("trax", "trax")],
    figures=[IMPORT],
    bars=[versus("trax", "msgpack, filelock", at_most=2, figure=IMPORT)],
)
