"""One run of a job in a process of its own, which is left alone, cut off at a point, or ended when it hangs.

The process really ends: with SIGKILL, to itself and to what it has started. So no ``finally``, no ``atexit`` and no
buffered write of the job comes to its turn, just as when the machine or the scheduler ends it.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkContext, SpawnContext
from types import FrameType
from typing import Any, Literal

import trax.codecs.msgpack  # noqa: F401  # once here, and not in each child
from trax.errors import TornTailWarning
from trax.storage.local.fs import set_default_file_system
from trax.testing.cutting import Every, KillingFileSystem, PowerLossFileSystem
from trax.testing.endings import Endings, close_stores, commits_below, keep_value, remember_replays
from trax.testing.errors import JobError
from trax.testing.points import CrashPoints, Point, file_of

Job = Callable[[str], Any]
How = Literal["kill", "power loss"]

_GRACE_S = 10.0
_SHOWN_LINES = 12


@dataclass(frozen=True)
class Order:
    """What one run is to be: where it works, what it is compared with, and where it is cut off (0: nowhere)."""

    directory: str
    reference: str
    value: str
    output: str
    how: How
    every: Every
    ignore: tuple[str, ...]
    timeout_s: float
    compared: bool = False
    labels: tuple[str, str] = ("uninterrupted", "resumed")
    at: int = 0
    variant: int = 0
    seed: str = ""


@dataclass
class Run:
    """How a run ended, and what was found then. ``points`` and ``commits`` are counted in a whole run."""

    end: Literal["whole", "cut", "failed", "refused", "hung", "died"]
    text: str = ""
    points: int = 0
    commits: int = 0
    point: Point | None = None
    differences: list[str] = field(default_factory=list)


def run(job: Job, order: Order, start_method: Literal["fork", "spawn"]) -> Run:
    """Run the job as ordered, and wait for the end of its process."""
    context: ForkContext | SpawnContext = multiprocessing.get_context("spawn")
    if start_method == "fork":
        context = multiprocessing.get_context("fork")
    receiving, sending = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(job, order, sending), name="trax-testing")
    with warnings.catch_warnings():
        # Of Python 3.12 on, about threads that the child won't have: the job begins afresh there and needs none.
        warnings.filterwarnings("ignore", ".*use of fork", DeprecationWarning)
        process.start()
    sending.close()
    try:
        ended = wait([receiving, process.sentinel], order.timeout_s + _GRACE_S)
        if receiving.poll():
            with suppress(EOFError):  # it died without a word
                found: Run = receiving.recv()
                return found
    finally:
        _end(process.pid)  # before it is waited for: until then, its number can't be another process's
        process.join()
        receiving.close()
    if not ended:
        return Run("hung", f"It does not even say where.\n{_tail(order.output)}".rstrip())
    return Run("died", f"{_exit(process.exitcode or 0)}\n{_tail(order.output)}".rstrip())


def _end(pid: int | None) -> None:
    """End the process, and those that it has started."""
    assert pid is not None
    for kill in (os.killpg, os.kill):
        with suppress(ProcessLookupError, PermissionError):
            kill(pid, signal.SIGKILL)


def _exit(code: int) -> str:
    if code < 0:
        return f"Its process was ended by {signal.Signals(-code).name}."
    return f"Its process ended itself with the exit code {code}, before the job returned."


def _tail(path: str) -> str:
    with suppress(FileNotFoundError), open(path, errors="replace") as file:
        lines = file.read().splitlines()[-_SHOWN_LINES:]
        return "\n".join(["It had written:", *(f"    {line}" for line in lines)]) if lines else ""
    return ""


# In the child


def _work(job: Job, order: Order, connection: Connection) -> None:
    """Run the job, tell the parent how it ended, and end."""
    with suppress(PermissionError):
        os.setpgid(0, 0)  # so that what the job starts can be ended with it
    _write_to(order.output)
    telling = threading.Lock()

    def tell(found: Run) -> None:
        telling.acquire()  # and never let go: what is told first is how the run ended
        connection.send(found)
        _end_oneself()

    watch = threading.Timer(
        order.timeout_s, lambda: tell(Run("hung", f"{_stacks(main)}\n{_tail(order.output)}".rstrip()))
    )
    main, watch.daemon = threading.get_ident(), True
    watch.start()
    try:
        found = _whole(job, order, tell)
    except JobError as error:
        found = Run("refused", error.message)
    except BaseException as error:
        sys.settrace(None)
        found = Run("failed", f"{_told(error)}\n{_tail(order.output)}".rstrip())
    tell(found)


def _end_oneself() -> None:
    if os.getpgrp() == os.getpid():  # or a process of the job's, which ends its group, or itself
        os.killpg(0, signal.SIGKILL)
    os.kill(os.getpid(), signal.SIGKILL)


def _whole(job: Job, order: Order, tell: Callable[[Run], None]) -> Run:
    """The run to its end, unless its point comes before."""

    def end(point: Point) -> None:
        if isinstance(fs, PowerLossFileSystem):
            fs.lose_power(order.seed, order.variant)
        tell(Run("cut", point=point))

    points = CrashPoints(order.at, end, file_of(job))
    kind = KillingFileSystem if order.how == "kill" else PowerLossFileSystem
    fs = kind(order.directory, points, order.every)
    set_default_file_system(fs)
    _begin_as_a_new_process()
    replays = remember_replays()
    if order.every == "line":
        points.count_lines()
    try:
        value = job(order.directory)
    except SystemExit as error:  # how a script ends
        if error.code not in (None, 0):
            raise
        value = None
    sys.settrace(None)
    threading.settrace(None)
    points.reach("just after the job had returned, before its process ended")
    close_stores()
    if order.compared:
        endings = Endings(order.reference, order.directory, replays, order.ignore, order.labels)
        return Run("whole", points=points.count, differences=endings.differences(order.value, value))
    keep_value(value, order.value)
    # Commits that another process has made can't be cut off here: then there is nothing to check.
    return Run("whole", points=points.count, commits=commits_below(order.directory) if fs.commits else 0)


def _begin_as_a_new_process() -> None:
    gc.freeze()  # what was there before belongs to the parent, and need not be gone through again
    warnings.simplefilter("ignore", TornTailWarning)  # after a crash it has to be expected
    if "numpy.random" in sys.modules:
        # A fork inherits the state of NumPy's global generator. A new process would have seeded it anew, and a job that
        # does not seed it is not repeatable: that has to be seen.
        sys.modules["numpy.random"].seed()


def _write_to(path: str) -> None:
    """What the job prints goes to a file: it is shown when the job fails."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o666)
    os.dup2(fd, 1)
    os.dup2(fd, 2)
    sys.stdout, sys.stderr = os.fdopen(1, "w", 1, closefd=False), os.fdopen(2, "w", 1, closefd=False)


def _told(error: BaseException) -> str:
    """The traceback, from the job on."""
    step = error.__traceback__
    while step is not None and step.tb_frame.f_code.co_filename == __file__:
        step = step.tb_next
    return "".join(traceback.format_exception(type(error), error, step)).rstrip()


def _stacks(main: int) -> str:
    """Where the threads of the job are."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    frames = {number: frame for number, frame in sys._current_frames().items() if number != threading.get_ident()}
    texts = [f"The job was here:\n{_stack(frames.pop(main))}"]
    texts += [f"The thread {names.get(number)!r} was here:\n{_stack(frame)}" for number, frame in frames.items()]
    return "\n".join(texts)


def _stack(frame: FrameType) -> str:
    parts = traceback.extract_stack(frame)
    begin = 1 + max((index for index, part in enumerate(parts) if part.filename == __file__), default=-1)
    return "".join(traceback.format_list(parts[begin:])).rstrip()
