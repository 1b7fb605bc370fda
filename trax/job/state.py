"""What a job keeps about itself, beside the names of its user: one name, ``trax:job:state``.

The value is a :class:`JobState`. Each step of a loop logs one entry, in the same commit as what the user logged in that
step: the number of steps that are done, which is all that most steps have to say and then means the last of the loops;
or ``[loop, done, changes]``. ``loop`` is None for what happens outside of a loop: a generator that was made, an output
file that was opened for the first time.

The position of an output file and the state of a generator change with a step, and only with a step. What a job does
outside of its loops it does again each time it is started; so a generator begins at its ``created`` state, and goes on
from ``generators`` of a loop when the job comes to that loop again. Only the first value of a name is not made again:
``drawn`` says where generators were behind that.
"""

from __future__ import annotations

from typing import Any, TypedDict

from trax.names import layer_name
from trax.store import Trax

STATE = layer_name("job", "state")
Entry = int | list[Any]
Position = list[Any]
"""Of an output file: its length, the checksum of what lies before it, and whether a step has written it. In an entry
also the bytes themselves that were appended, where the file was not synced before the commit."""


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
    drawn: dict[str, dict[str, Any]]
    """The states of the generators that the first value of a name was drawn from, behind that."""
    files: dict[str, Position]
    config: list[Any]
    """The configuration alone; empty before there was any."""
    replays: dict[str, list[Any]]
    """What is known of the ``replay_log`` of each name."""


def new_state() -> JobState:
    return JobState(loops={}, created={}, drawn={}, files={}, config=[], replays={})


def recover_state(store: Trax) -> tuple[JobState, dict[str, Position]]:
    """The state as of the last commit, and the positions of the files as of its checkpoint."""
    checkpointed: list[dict[str, Position]] = []

    def noting(state: JobState, entry: Entry) -> JobState:
        if not checkpointed:
            checkpointed.append(dict(state["files"]))
        return fold(state, entry)

    state: JobState = store.recover(STATE, new_state, noting)
    return state, checkpointed[0] if checkpointed else dict(state["files"])


def last_loop(state: JobState) -> str | None:
    """The loop that a job is in, or was in when it ended."""
    return next(reversed(state["loops"]), None)


def fold(state: JobState, entry: Entry) -> JobState:
    """What one entry makes of the state. The running job and the recovery share it, so they can't differ."""
    loops = state["loops"]
    if isinstance(entry, int):
        loops[next(reversed(loops))]["done"] = entry
        return state
    name, done, changes = entry
    if name is not None:
        if name not in loops:
            loops[name] = LoopState(done=0, items=[], finished=False, digest=b"", generators={})
        loop = loops[name]
        loop["done"] = done
        loop["items"] = changes.get("items", loop["items"])
        loop["finished"] = changes.get("finished", loop["finished"])
        loop["digest"] = changes.get("digest", loop["digest"])
        loop["generators"] |= changes.get("generators", {})
    state["files"] |= {key: position[:3] for key, position in changes.get("files", {}).items()}
    state["created"] |= changes.get("created", {})
    state["drawn"] |= changes.get("drawn", {})
    state["config"] = changes.get("config", state["config"])
    state["replays"] |= changes.get("replays", {})
    return state
