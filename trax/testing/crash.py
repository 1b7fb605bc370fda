"""``crash_everywhere``: a job of the user's own is cut off everywhere, resumed, and compared with itself.

The job runs twice without being interrupted: once to have something to compare with, and once to see that it is
repeatable at all. Then, for each point, it runs in an empty directory until that point, where its process is killed; it
is called again on what is left, runs to its end, and must have ended as the uninterrupted one did.
"""

from __future__ import annotations

import os
import random
import shutil
import tempfile
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Literal

from trax.errors import InvalidArgumentError
from trax.testing.cutting import Every
from trax.testing.errors import JobError, NotDeterministicError, NothingToCheckError, ResumeError
from trax.testing.runs import How, Job, Order, Run, run

StartMethod = Literal["fork", "spawn"]

_MEMORY = "/dev/shm"  # on Linux; nothing here has to outlast the machine
_EARLY_POINTS = 8  # about as many as a store comes by when it is opened again
_SHOWN_DIFFERENCES = 5


@dataclass(frozen=True)
class CrashReport:
    """What ``crash_everywhere`` has tried without finding a difference.

    ``points`` is how many there are in a whole run of the job, ``tried`` at how many of them it was cut off,
    ``crashes`` how often its process was ended, ``commits`` how many sequences its stores gave out in a whole run.
    """

    how: How
    every: Every
    points: int
    tried: int
    crashes: int
    commits: int
    seconds: float
    seed: int | str

    def __str__(self) -> str:
        ended = "killed" if self.how == "kill" else "cut off by a power loss"
        which = "all" if self.tried == self.points else f"{self.tried:,} of the"
        spread = ", evenly spread" if 1 < self.tried < self.points else ""
        seed = "" if self.how == "kill" else f", seed={self.seed!r}"
        return (
            f"{ended} {self.crashes:,} times, at {which} {self.points:,} points around {self.commits:,} commits"
            f"{spread} (every={self.every!r}{seed}): each time the job, resumed, ended as if nothing had happened "
            f"({self.seconds:.1f} s)"
        )


@dataclass(frozen=True)
class _Cut:
    """Where one run is cut off: the number of the point, and which of the disks a power loss leaves."""

    at: int
    variant: int = 0

    def __str__(self) -> str:
        return f"{self.at}:{self.variant}" if self.variant else str(self.at)


_Case = tuple[_Cut, ...]


def crash_everywhere(
    job: Job,
    *,
    how: How = "kill",
    every: Every = "commit",
    crashes: int = 1,
    limit: int | None = None,
    samples: int = 1,
    seed: int | str = 0,
    only: str | int | None = None,
    ignore: Collection[str] = (),
    timeout_s: float = 60.0,
    start_method: StartMethod = "fork",
    scratch: str | os.PathLike[str] | None = None,
) -> CrashReport:
    """Cut a job off before and after every commit, resume it, and compare its end with that of an uninterrupted run.

    ``job``
        is called with the path of a directory, empty at first, and works there to its end; called again after a
        crash, with the same path, it goes on. It opens its stores below that directory, with ``trax.Trax`` as always.
        What it returns is compared; so is every name of every store below the directory, replayed with the
        ``replay_log`` that the job itself uses, and every other file there, byte for byte.
    ``how``
        ``"kill"``: with SIGKILL, at once, and with all processes that it has started. ``"power loss"``: the same, and
        what was not synced of its stores is lost: all of it, and in ``samples`` more ways that ``seed`` decides, some
        of it. Files that the job writes by other means are kept as the operating system has them.
    ``every``
        ``"commit"``: just before and just after what makes each commit. ``"operation"``: also before and after every
        other call that changes or syncs a file of a store. ``"line"``: also before every line of the job's own code, so
        that files which it writes by other means are found half written.
    ``crashes``
        How often one job is cut off before it may end; further points are chosen by ``seed``, half of them in the
        recovery.
    ``limit``
        At most so many points, evenly spread; None: all.
    ``only``
        Repeats one crash alone: what the message of a failure says.
    ``ignore``
        Patterns as for a shell (``*``, ``?``): files (``"logs/*.txt"``) and names in a store (``"job.trax:started"``)
        that are not compared.
    ``timeout_s``
        How many seconds one run may take.
    ``start_method``
        ``"fork"``: fast, and any callable will do. ``"spawn"``: a new interpreter for each run, for jobs that a fork
        does not agree with, and to see what differs from process to process, such as the order of a set of strings.
        The job must then be importable.
    ``scratch``
        An existing directory to work in, which is left as it is when something was found.

    Raises ResumeError, which names the first differences, where the job was cut off, and how to repeat that alone.
    Before that: JobError when the job fails, hangs or can't be compared; NotDeterministicError when two uninterrupted
    runs differ; NothingToCheckError when it never commits. All are AssertionErrors.
    """
    __tracebackhide__ = True
    _check(how, every, crashes, limit, samples, timeout_s, start_method)
    began_s = time.monotonic()
    with _working_in(scratch) as root:
        order = Order(
            directory=os.path.join(root, "job"),
            reference=os.path.join(root, "uninterrupted"),
            value=os.path.join(root, "value"),
            output=os.path.join(root, "output"),
            how=how,
            every=every,
            ignore=tuple(ignore),
            timeout_s=timeout_s,
        )
        trial = _Trial(job, order, start_method, seed)
        whole = trial.run_uninterrupted()
        if only is not None:
            cases = [_parsed(only)]
        else:
            cases = list(_cases(whole.points, limit, how, crashes, samples, seed))
        tried: set[int] = set()
        happened = 0
        for case in cases:
            if count := trial.try_case(case):
                tried.add(case[0].at)
                happened += count
    if not tried:
        text = (
            f"the job came to its end before any point where it was to be cut off, so nothing was checked. A whole run "
            f"comes by {whole.points} points."
        )
        raise NothingToCheckError(text, reason="no crash")
    seconds = time.monotonic() - began_s
    return CrashReport(how, every, whole.points, len(tried), happened, whole.commits, seconds, seed)


class _Trial:
    """The job, and what its runs are compared with."""

    def __init__(self, job: Job, order: Order, start_method: StartMethod, seed: int | str) -> None:
        self._job, self._order, self._start_method, self._seed = job, order, start_method, seed

    def run_uninterrupted(self) -> Run:
        """Twice. The first is what all others are compared with."""
        __tracebackhide__ = True
        whole = self._run(self._order, fresh=True)
        self._check_ended(whole, "")
        if not whole.commits:
            text = (
                "the job opened no store below the directory that it was given, or committed nothing to one, or did so "
                "in another process: there is nothing to cut off here. Open the store with "
                "trax.Trax(os.path.join(directory, …)), in the process that the job itself runs in."
            )
            raise NothingToCheckError(text, path=self._order.directory, reason="no commit")
        os.rename(self._order.directory, self._order.reference)
        again = self._run(replace(self._order, compared=True, labels=("first", "second")), fresh=True)
        self._check_ended(again, " when it runs for the second time, in a new directory")
        self._check_same(again)
        return whole

    def try_case(self, case: _Case) -> int:
        """Cut the job off as the case says, let it end, and compare; how often it was cut off."""
        __tracebackhide__ = True
        order = replace(self._order, compared=True)
        story: list[str] = []
        for number, cut in enumerate(case):
            seed = f"{self._seed} {_written(case[: number + 1])}"
            found = self._run(replace(order, at=cut.at, variant=cut.variant, seed=seed), fresh=number == 0)
            if found.end != "cut" or found.point is None:
                break
            story.append(f"at point {found.point.number}, {found.point.what}\n{found.point.where}".rstrip())
        else:
            found = self._run(order, fresh=False)
        if not story:  # it came by fewer points than before
            self._check_ended(found, ", though it was not interrupted either when it did not fail")
            self._check_same(found)
        if found.end != "whole" or found.differences:
            raise self._resume_error(case, story, found)
        return len(story)

    def _run(self, order: Order, *, fresh: bool) -> Run:
        if fresh:
            shutil.rmtree(order.directory, ignore_errors=True)
            os.mkdir(order.directory)
        return run(self._job, order, self._start_method)

    def _check_ended(self, found: Run, when: str) -> None:
        """That a run which nothing has interrupted came to its end."""
        __tracebackhide__ = True
        reasons = {
            "refused": "the job can't be checked",
            "failed": f"the job fails by itself{when}",
            "died": f"the job does not return{when}",
            "hung": f"the job does not end within {self._order.timeout_s:g} seconds (timeout_s){when}",
        }
        if found.end in reasons:
            raise JobError(f"{reasons[found.end]}:\n{found.text}", reason=found.end)

    def _check_same(self, found: Run) -> None:
        """That a run which nothing has interrupted ended as the first one did."""
        __tracebackhide__ = True
        if found.differences:
            text = (
                f"two runs of the job that nothing interrupted ended differently, so a resumed one can't be compared. "
                f"Seed its random generators, leave out times and process numbers, or name what may differ in "
                f"ignore=.\n{_listed(found.differences)}"
            )
            raise NotDeterministicError(text, reason="not deterministic")

    def _resume_error(self, case: _Case, story: list[str], found: Run) -> ResumeError:
        ended = "killed" if self._order.how == "kill" else "cut off by a power loss"
        reasons = {
            "whole": "ended differently from a run that nothing interrupted",
            "failed": "failed",
            "refused": "can't be compared",
            "died": "did not return",
            "hung": f"did not end within {self._order.timeout_s:g} seconds (timeout_s)",
        }
        only = _written(case[: len(story)])
        seed = f", seed={self._seed!r}" if self._order.how == "power loss" else ""
        options = "" if self._order.how == "kill" else f", how={self._order.how!r}"
        options += "" if self._order.every == "commit" else f", every={self._order.every!r}"
        lines = [f"the job was {ended}, and when it was resumed it {reasons[found.end]}."]
        for place in story:
            lines += [f"It was {ended}", _indented(place)]
        lines += [_listed(found.differences) if found.end == "whole" else found.text]
        lines += ["To repeat this alone:", _indented(f"crash_everywhere(job{options}{seed}, only={only!r})")]
        return ResumeError("\n".join(lines), reason=found.end, only=only)


def _cases(points: int, limit: int | None, how: How, crashes: int, samples: int, seed: int | str) -> Iterator[_Case]:
    """Where the job is to be cut off: each point first, then others that the dice choose."""
    last_variant = 0 if how == "kill" else samples
    for at in _spread(points, limit):
        for variant in range(last_variant + 1):
            first = _Cut(at, variant)
            dice = random.Random(f"{seed} {first}")
            further = [
                _Cut(dice.randint(1, min(dice.choice([_EARLY_POINTS, points]), points)), dice.randint(0, last_variant))
                for _ in range(crashes - 1)
            ]
            yield (first, *further)


def _spread(points: int, limit: int | None) -> list[int]:
    if limit is None or limit >= points:
        return list(range(1, points + 1))
    return [1 + index * (points - 1) // max(1, limit - 1) for index in range(limit)]


def _written(case: _Case) -> str:
    return ",".join(map(str, case))


def _parsed(only: str | int) -> _Case:
    try:
        parts = [[int(number) for number in part.split(":")] for part in str(only).split(",")]
        return tuple(_Cut(*part) for part in parts)
    except (ValueError, TypeError):
        text = f"only={only!r} names no crash; the message of a failure says what to write, such as only='17'."
        raise InvalidArgumentError(text, reason="only") from None


def _check(
    how: str, every: str, crashes: int, limit: int | None, samples: int, timeout_s: float, start_method: str
) -> None:
    problem = None
    if how not in ("kill", "power loss"):
        problem = f"how is 'kill' or 'power loss', not {how!r}"
    elif every not in ("commit", "operation", "line"):
        problem = f"every is 'commit', 'operation' or 'line', not {every!r}"
    elif start_method not in ("fork", "spawn"):
        problem = f"start_method is 'fork' or 'spawn', not {start_method!r}"
    elif min(crashes, 1 if limit is None else limit) < 1 or samples < 0 or not timeout_s > 0:
        problem = "crashes and limit are 1 or more, samples is 0 or more, and timeout_s is above 0"
    if problem is not None:
        raise InvalidArgumentError(f"{problem}.", reason="an option")


@contextmanager
def _working_in(scratch: str | os.PathLike[str] | None) -> Iterator[str]:
    """A directory of our own, without links in its path, so that a job sees the path that it will see the next time."""
    quick = _MEMORY if os.access(_MEMORY, os.W_OK) else None
    made = os.path.realpath(tempfile.mkdtemp(prefix="trax-testing-", dir=quick if scratch is None else scratch))
    try:
        yield made
    except BaseException:
        if scratch is None:
            shutil.rmtree(made)
        raise
    shutil.rmtree(made)


def _listed(differences: list[str]) -> str:
    more = len(differences) - _SHOWN_DIFFERENCES
    lines = [*differences[:_SHOWN_DIFFERENCES], *([f"and {more} more"] if more > 0 else [])]
    return "What differs:\n" + "\n".join(map(_indented, lines))


def _indented(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.splitlines())
