"""How many cases a search for faults has tried: printed, and added up by ``tools/crash.py``."""

from __future__ import annotations

import json
import os


def count(method: str, cases: int) -> None:
    """``cases`` were tried by ``method`` (its name in the table of ``make crash``) without finding a fault."""
    assert cases > 0, f"{method} has tried nothing"
    print(f"{method}: {cases:,} cases")
    if path := os.environ.get("TRAX_CASES"):
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        try:  # one write a line: several test processes append to the same file
            os.write(fd, (json.dumps([method, cases]) + "\n").encode())
        finally:
            os.close(fd)
