"""What a job keeps about itself, beside the names of its user: one name, ``trax:job:state``.

The value is a :class:`JobState`. An entry is ``[loop, done]``, or ``[loop, done, changes]``: each step of a loop logs
one, in the same commit as what the user logged in that step. ``loop`` is None for what happens outside of a loop: a
generator that was made, an output file that was opened for the first time.

The position of an output file and the state of a generator change with a step, and only with a step. What a job does
outside of its loops it does again each time it is started; so a generator begins at its ``created`` state, and goes on
from ``generators`` of a loop when the job comes to that loop again.
"""

from __future__ import annotations

from typing import Any, TypedDict

from trax.names import layer_name

STATE = layer_name("job", "state")


class LoopState(TypedDict):
    """How far one loop has come."""

    done: int
    """How many of its steps are committed."""
    items: list[Any]
    """What it goes over, as far as it can be recognised again; see :mod:`trax.job.items`."""
    finished: bool
    """Whether it was left by ``break``, or its items came to their end."""
    digest: bytes
    """Of the items of the steps that are done, if asked for."""
    generators: dict[str, Any]
    """The states of the generators as of the last step."""


class JobState(TypedDict):
    """What is known of a job. The loops are in the order of their first steps."""

    loops: dict[str, LoopState]
    created: dict[str, Any]
    files: dict[str, list[int]]
    config: list[Any]
    """The configuration alone; empty before there was any."""
    replays: dict[str, list[Any]]
    """What is known of the ``replay_log`` of each name."""


def new_state() -> JobState:
    return JobState(loops={}, created={}, files={}, config=[], replays={})


def fold(state: JobState, entry: list[Any]) -> JobState:
    """What one entry makes of the state. The running job and the recovery share it, so they can't differ."""
    name, done, *rest = entry
    changes = rest[0] if rest else {}
    if name is not None:
        if name not in state["loops"]:
            state["loops"][name] = LoopState(done=0, items=[], finished=False, digest=b"", generators={})
        loop = state["loops"][name]
        loop["done"] = done
        if changes:
            loop["items"] = changes.get("items", loop["items"])
            loop["finished"] = changes.get("finished", loop["finished"])
            loop["digest"] = changes.get("digest", loop["digest"])
            loop["generators"] |= changes.get("generators", {})
    if changes:
        state["files"] |= changes.get("files", {})
        state["created"] |= changes.get("created", {})
        state["config"] = changes.get("config", state["config"])
        state["replays"] |= changes.get("replays", {})
    return state
