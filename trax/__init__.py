"""Save the state of a long-running program now and then, log what changes in between, get it back after a crash.

>>> import trax
>>> logger = trax.Trax()                        # ".trax" in the working directory; any path may be given
>>> hello = logger.recover("hello", create=lambda: "world")
>>> logger.checkpoint(existence="u")
2
>>> for c in "niverse":
...     sequence = logger.log(existence=c)
>>> logger.recover("existence", create=lambda: "u", replay_log=lambda state, entry: state + entry)
'universe'
>>> logger.close()
"""

from __future__ import annotations

import importlib
import logging
from typing import TYPE_CHECKING, Any

from trax._version import __version__
from trax.batch import Batch
from trax.codecs import register
from trax.errors import TraxError, TraxWarning
from trax.inspection import Verification
from trax.storage.base import SnapshotInfo
from trax.store import Trax

if TYPE_CHECKING:
    from trax.job import Job

__all__ = [
    "Batch",
    "Job",
    "SnapshotInfo",
    "Trax",
    "TraxError",
    "TraxWarning",
    "Verification",
    "__version__",
    "register",
]

logging.getLogger(__name__).addHandler(logging.NullHandler())  # what it says is also a warning; handlers are the user's


def __getattr__(name: str) -> Any:
    if name not in ("Job", "job"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    # Imported when it is used: most programs that import trax have a store, and not a job.
    job = importlib.import_module("trax.job")
    globals()["Job"] = job.Job
    return job if name == "job" else job.Job
