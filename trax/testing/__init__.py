"""Tools that look for a crash that a job, or a store, does not survive: for users of trax, and for its own tests.

For the tests of a job, here or as fixtures of pytest (``trax.testing.plugin``, which pytest finds by itself):

- :func:`crash_everywhere` runs a job of yours as it is, ends its process before and after every commit, resumes it, and
  compares what it has come to with what it comes to when nothing happens.
- :func:`check_replay` compares the state that is alive now with what a crash would bring back.
- :func:`first_difference` says where two values part, type for type and bit for bit.

How a job is cut off, from the inside out: ``recording`` is a file system that writes down every operation of a real
run; ``disks`` are the states in which a power loss may leave the disk after any of them; ``cutting`` puts a file system
under the job's stores that counts the places where it may be cut off (``points``), and leaves there what the cut
leaves; ``runs`` is one run of the job in a process of its own; ``endings`` compares what two runs have left
(``differences``); ``crash`` goes through all of it. ``faults`` is a file system that fails when it is told to,
and ``fsyncs`` one whose fsyncs fail and lose what they were to write.

For who writes a storage for :mod:`trax.consumer`: ``consumer_storage`` is what each must do, as tests to inherit, and
``clock`` is time for tests of consumers, which passes when they say so.

What is here is imported when it is used: pytest imports this package, with the plugin, at each of its starts.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trax.testing.crash import CrashReport, crash_everywhere
    from trax.testing.differences import first_difference
    from trax.testing.errors import (
        CheckError,
        JobError,
        NotDeterministicError,
        NothingToCheckError,
        ReplayDiffersError,
        ResumeError,
    )
    from trax.testing.replay import History, ReplayReport, check_replay

__all__ = [
    "CheckError",
    "CrashReport",
    "History",
    "JobError",
    "NotDeterministicError",
    "NothingToCheckError",
    "ReplayDiffersError",
    "ReplayReport",
    "ResumeError",
    "check_replay",
    "crash_everywhere",
    "first_difference",
]

_HOMES = {
    "CrashReport": "crash",
    "History": "replay",
    "ReplayReport": "replay",
    "check_replay": "replay",
    "crash_everywhere": "crash",
    "first_difference": "differences",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOMES.get(name, 'errors')}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
