"""What a job measures of itself: how long its checkpoints take, its replay, its work; and what the policy makes of it.

The clock is the one of the job, which tests put forward as they like; how long something takes is always measured with
it as well, so that a test can say how long a checkpoint took.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TypeVar

from trax.job.deadlines import Clock
from trax.job.policies import Facts, Optimal, Policy
from trax.job.state import STATE
from trax.store import Trax

T = TypeVar("T")
_REMEMBERED = 100
_SLOW = 0.99
_LOOK_BYTES = 1 << 16
_FRAME_BYTES = 100  # about what a record takes beside its entries


class Meter:
    """The figures of one handle, and its policy."""

    def __init__(self, policy: Policy, clock: Clock, store: Trax) -> None:
        self._policy, self.now, self._store = policy, clock, store
        self._began = self._began_background = clock()
        self._began_commit = 0.0
        self._last_checkpoint = self._began
        self._costs: deque[float] = deque(maxlen=_REMEMBERED)
        self._steps_since = 0
        self._log_bytes_then = self._seen_growth = 0
        self._unseen_growth = _LOOK_BYTES
        self.checkpoint_s: float | None = None
        """What a checkpoint takes, on average."""
        self.slow_checkpoint_s = 1.0
        """What 99 of 100 checkpoints don't exceed; a second before the first."""
        self._facts = Facts(log_size=self._log_growth)
        self._replay_s = self._written_s = 0.0
        self._began_step = self._began
        self.longest_step_s = 0.0
        self.steps = self.checkpoints = self.replayed_steps = 0

    def begin_loop(self) -> None:
        self._began_step = self.now()

    def note_written(self, began: float) -> None:
        """Values of a checkpoint were written ahead of its commit, since ``began``."""
        self._written_s += self.now() - began

    def begin_commit(self) -> None:
        """A commit with a checkpoint begins."""
        self._began_commit = self.now()

    def end_step(self, nbytes: int) -> None:
        """A step was committed, with so many bytes of entries, and the next one begins."""
        now = self.now()
        self.steps += 1
        self._unseen_growth += nbytes + _FRAME_BYTES
        self._steps_since += 1
        if now - self._began_step > self.longest_step_s:
            self.longest_step_s = now - self._began_step
        self._began_step = now

    def note_checkpoint(self) -> None:
        """A checkpoint was committed."""
        now = self.now()
        self._note_cost(self._written_s + now - self._began_commit)
        self._written_s = 0.0
        self._begin_interval(now)
        self.checkpoints += 1

    def note_background_begun(self) -> None:
        """A checkpoint in the background has begun: what comes now is behind it."""
        self._began_background = self.now()
        self._begin_interval(self._began_background)

    def note_background(self, began: float, succeeded: bool) -> None:
        """It has ended."""
        if succeeded:
            self._note_cost(self.now() - began)
            self.checkpoints += 1

    def count_replayed(self) -> None:
        """How many steps a recovery has to replay."""
        entries = self._store.entries(STATE)
        self.replayed_steps = sum(isinstance(entry, int) or entry[0] is not None for _, entry in entries)

    def timed_replay(self, replay: Callable[[], T]) -> T:
        began = self.now()
        try:
            return replay()
        finally:
            self._replay_s += max(self.now() - began, 0.0)

    @property
    def background_rest_s(self) -> float:
        """What a checkpoint that is being written in the background may still take."""
        return max(self.slow_checkpoint_s - (self.now() - self._began_background), 0.0)

    def is_due(self, *, in_step: bool) -> bool:
        """Whether the policy says that it is time; the present step counts as one."""
        return self._policy.is_due(self._facts_now(in_step))

    def stats(self) -> dict[str, object]:
        facts = self._facts_now(False)
        interval_s = self._policy.interval_s(facts) if isinstance(self._policy, Optimal) else None
        return {
            "steps": self.steps,
            "checkpoints": self.checkpoints,
            "checkpoint_s": facts.checkpoint_s,
            "slow_checkpoint_s": self.slow_checkpoint_s,
            "replay_ratio": facts.replay_ratio,
            "checkpoint_interval_s": interval_s,
        }

    @property
    def replay_ratio(self) -> float:
        """Seconds of replay for a second of work; 1 where there is nothing to tell it from."""
        if not (self._replay_s > 0 and self.replayed_steps and self.steps):
            return 1.0
        work_s = self.now() - self._began - self._replay_s - sum(self._costs)
        if work_s <= 0:
            return 1.0
        return (self._replay_s / self.replayed_steps) / (work_s / self.steps)

    def _note_cost(self, cost_s: float) -> None:
        self._costs.append(max(cost_s, 0.0))
        self.checkpoint_s = sum(self._costs) / len(self._costs)
        self.slow_checkpoint_s = sorted(self._costs)[min(int(_SLOW * len(self._costs)), len(self._costs) - 1)]

    def _begin_interval(self, now: float) -> None:
        self._last_checkpoint = now
        self._steps_since = 0
        self._log_bytes_then = self._log_bytes()
        self._seen_growth = self._unseen_growth = 0

    def _log_growth(self) -> int:
        """By how much the log has grown; looked at now and then, since that takes a while, and else reckoned."""
        if self._unseen_growth >= _LOOK_BYTES:
            self._seen_growth, self._unseen_growth = self._log_bytes() - self._log_bytes_then, 0
        return self._seen_growth + self._unseen_growth

    def _log_bytes(self) -> int:
        return int(str(self._store.stats()["log_bytes"]))

    def _facts_now(self, in_step: bool) -> Facts:
        """The same object each time: it is asked for in each step."""
        facts = self._facts
        facts.steps = self._steps_since + in_step
        facts.seconds = self.now() - self._last_checkpoint
        facts.checkpoint_s = self.checkpoint_s
        facts.replay_ratio = self.replay_ratio
        return facts
