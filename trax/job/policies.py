"""When to checkpoint: conditions that are asked once a step, and compose with ``|`` and ``&``.

>>> from trax.job import every, log_larger_than
>>> policy = every(seconds=600) | every(steps=10_000) & log_larger_than(1 << 20)

``optimal`` balances what checkpoints cost against what a crash costs. With C the seconds that a checkpoint takes, M the
mean time between failures and R the seconds that it takes to replay one second's work, a job that checkpoints every T
seconds spends C / T of its time on checkpoints, and loses R T / 2 on average at each failure, so R T / (2 M) of its
time. The sum is least at T = sqrt(2 C M / R). With R = 1, as for jobs that keep no log and have to compute all of it
again, this is Young's interval (Communications of the ACM 17, 1974).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from trax.errors import InvalidArgumentError


@dataclass
class Facts:
    """What a policy can know: all of it since the last checkpoint, or the opening of the job, where that is later."""

    steps: int = 0
    seconds: float = 0.0
    log_size: Callable[[], int] = int
    """Bytes by which the log has grown, about: asked for only by who needs it, since that may take a while."""
    checkpoint_s: float | None = None
    """How long a checkpoint takes, on average; None before the first."""
    replay_ratio: float = 1.0
    """Seconds of replay for a second of work, as measured at the opening; 1 before that could be measured."""
    has_signal: bool = False


class Policy:
    """Whether it is time for a checkpoint."""

    def is_due(self, facts: Facts) -> bool:
        raise NotImplementedError

    def __or__(self, other: Policy) -> Policy:
        return _Any(self, other)

    def __and__(self, other: Policy) -> Policy:
        return _All(self, other)


@dataclass(frozen=True)
class _Any(Policy):
    one: Policy
    other: Policy

    def is_due(self, facts: Facts) -> bool:
        return self.one.is_due(facts) or self.other.is_due(facts)


@dataclass(frozen=True)
class _All(Policy):
    one: Policy
    other: Policy

    def is_due(self, facts: Facts) -> bool:
        return self.one.is_due(facts) and self.other.is_due(facts)


@dataclass(frozen=True)
class _Steps(Policy):
    steps: int

    def is_due(self, facts: Facts) -> bool:
        return facts.steps >= self.steps


@dataclass(frozen=True)
class _Seconds(Policy):
    seconds: float

    def is_due(self, facts: Facts) -> bool:
        return facts.seconds >= self.seconds


@dataclass(frozen=True)
class _LogBytes(Policy):
    nbytes: int

    def is_due(self, facts: Facts) -> bool:
        return facts.log_size() > self.nbytes


@dataclass(frozen=True)
class _Signal(Policy):
    def is_due(self, facts: Facts) -> bool:
        return facts.has_signal


@dataclass(frozen=True)
class Optimal(Policy):
    """See :func:`optimal`."""

    mtbf_s: float
    recovery_s: float
    log_bytes: int
    first_s: float

    def is_due(self, facts: Facts) -> bool:
        if not facts.steps:
            return False
        return facts.seconds >= self.interval_s(facts) or facts.log_size() > self.log_bytes

    def interval_s(self, facts: Facts) -> float:
        """The seconds between checkpoints that cost least, within the budgets."""
        if facts.checkpoint_s is None:
            return self.first_s
        ratio = max(facts.replay_ratio, 1e-9)
        best = math.sqrt(2 * facts.checkpoint_s * self.mtbf_s / ratio)
        return min(best, self.recovery_s / ratio)


def every(*, steps: int | None = None, seconds: float | None = None) -> Policy:
    """After so many steps, or seconds, since the last checkpoint; with both, after whichever comes first."""
    policies: list[Policy] = []
    if steps is not None:
        policies.append(_Steps(int(_positive("steps", steps))))
    if seconds is not None:
        policies.append(_Seconds(_positive("seconds", seconds)))
    if not policies:
        raise InvalidArgumentError("every() was given neither steps= nor seconds=.", reason="empty")
    return policies[0] if len(policies) == 1 else policies[0] | policies[1]


def log_larger_than(nbytes: int) -> Policy:
    """When the log has grown by more than so many bytes since the last checkpoint."""
    return _LogBytes(int(_positive("log_larger_than()", nbytes)))


def on_signal() -> Policy:
    """When a signal has come, or the deadline is near. A job's policy always has this beside it."""
    return _Signal()


def optimal(
    *, mtbf_s: float = 86_400.0, recovery_s: float = 600.0, log_bytes: int = 1 << 30, first_s: float = 60.0
) -> Policy:
    """At the interval that costs least, for a mean time between failures of ``mtbf_s`` seconds.

    The cost of a checkpoint and that of replaying are measured as the job goes. A replay will take at most about
    ``recovery_s`` seconds, and the log will have at most about ``log_bytes``. The first checkpoint, before there is
    anything measured, comes after ``first_s`` seconds.
    """
    return Optimal(
        _positive("mtbf_s", mtbf_s),
        _positive("recovery_s", recovery_s),
        int(_positive("log_bytes", log_bytes)),
        _positive("first_s", first_s),
    )


def _positive(what: str, number: float) -> float:
    if isinstance(number, bool) or not isinstance(number, (int, float)) or not number > 0:
        raise InvalidArgumentError(f"{what} is a number above 0, not {number!r}.", reason=what)
    return number
