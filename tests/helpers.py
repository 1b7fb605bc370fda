"""What many tests end with."""

from __future__ import annotations

import os
from typing import Any

from hypothesis import HealthCheck, seed, settings
from hypothesis.stateful import RuleBasedStateMachine, run_state_machine_as_test

import trax


def reopen_and_check(path: str | os.PathLike[str], **options: Any) -> trax.Trax:
    """The store, opened again, after every byte of it was read and found right."""
    store = trax.Trax(path, **options)
    found = store.verify()
    assert found.problems == [], found.problems
    return store


def kill(store: trax.Trax) -> None:
    """Leave the store as SIGKILL would, without the death: nothing is flushed, synced or marked."""
    assert store._writer is not None
    store._finalizer.detach()
    store._closed = trax.errors.ClosedError("killed")
    writer, closed = store._writer, store._closed

    def die() -> None:
        writer.committer.finish(closed)
        writer.storage.abandon()

    writer.committer.quietly(die)  # the thread that syncs now and then dies too


def run_machine(machine: type[RuleBasedStateMachine], *, steps: int) -> None:
    """Run a state machine: always the same runs, unless TRAX_SEED chooses others; TRAX_MACHINE_RUNS of them."""
    chosen = os.environ.get("TRAX_SEED")
    print(f"TRAX_SEED={chosen or ''}")
    run_state_machine_as_test(
        seed(chosen)(machine) if chosen else machine,
        settings=settings(
            max_examples=int(os.environ.get("TRAX_MACHINE_RUNS", "60")),
            stateful_step_count=steps,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            derandomize=not chosen,
            database=None,
            report_multiple_bugs=False,
        ),
    )
