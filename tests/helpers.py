"""What many tests end with."""

from __future__ import annotations

import os
import signal
import threading
import traceback
import warnings
from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, seed, settings
from hypothesis.stateful import RuleBasedStateMachine, run_state_machine_as_test

import trax
from trax.storage.local.fs import LocalFileSystem


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


def in_forked_child(action: Callable[[], object], held: Any) -> None:
    """Do it in a forked child, while another thread of the parent has entered ``held``; AssertionError if it fails."""
    entered, done = threading.Event(), threading.Event()

    def hold() -> None:
        with held:
            entered.set()
            done.wait(120)

    thread = threading.Thread(target=hold)
    thread.start()
    assert entered.wait(60)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # that a process with threads should not fork
        child = os.fork()
    if child == 0:
        signal.alarm(30)  # whoever waits for a thread that is not there waits for ever
        try:
            action()
            os._exit(0)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(1)
    done.set()
    thread.join()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0, "the child has failed, or hangs"


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


class GatedFileSystem(LocalFileSystem):
    """Holds every fsync of a file up until the gate is opened."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.gate.set()
        self.waiting = threading.Event()

    def close_gate(self) -> None:
        self.waiting.clear()
        self.gate.clear()

    def fsync(self, fd: int) -> None:
        self._wait()
        super().fsync(fd)

    def fdatasync(self, fd: int) -> None:
        self._wait()
        super().fdatasync(fd)

    def _wait(self) -> None:
        if not self.gate.is_set():
            self.waiting.set()
            assert self.gate.wait(60)
