"""The progress of a loop, shown by tqdm where that is installed and standard error is a terminal.

Totals and rates are right after a resume: the bar begins at the steps that were done before, and its rate is that of
this process.
"""

from __future__ import annotations

import importlib
import sys
from typing import Any


def progress_bar(description: str, total: int | None, done: int) -> Any:
    """A bar of tqdm, with ``update()`` and ``close()``; None where there is nobody to show it to, or no tqdm."""
    if sys.stderr is None or not sys.stderr.isatty():
        return None
    try:
        tqdm = importlib.import_module("tqdm")
    except ImportError:
        return None  # the extra "progress" was not installed: the loop runs all the same
    return tqdm.tqdm(desc=description, total=total, initial=done, dynamic_ncols=True)
