"""Whether a job is to end: a signal has come, or the deadline is near."""

from __future__ import annotations

import signal
from collections.abc import Iterable

from trax.job.background import Background
from trax.job.deadlines import deadline_after
from trax.job.meter import Meter
from trax.job.stopping import Signals


class Ending:
    """Asked behind each step, so that nothing has to be done in a handler."""

    def __init__(
        self,
        signals: Iterable[str | signal.Signals],
        deadline_s: float | None,
        margin: float,
        meter: Meter,
        background: Background,
    ) -> None:
        self.signals = Signals(signals)
        self._deadline, self._margin = deadline_after(deadline_s, meter.now), margin
        self._meter, self._background = meter, background
        self._has_begun = False

    def begins(self) -> bool:
        """Whether a loop has to end here. Once one has, the job is ending, whatever is measured afterwards."""
        self._has_begun = self.is_near
        return self._has_begun

    @property
    def is_near(self) -> bool:
        if self._has_begun or self.signals.received is not None:
            return True
        if self._deadline is None:
            return False
        needed_s = self._margin * self._meter.slow_checkpoint_s + self._meter.longest_step_s
        if self._background.is_busy:  # the one at the end has to wait for it
            needed_s += self._margin * self._meter.background_rest_s
        return self._meter.now() + needed_s >= self._deadline

    @property
    def exit_status(self) -> int:
        """After a signal what a shell makes of it; at a deadline 75, "try again" of sysexits.h; otherwise 0."""
        if self.signals.received is not None:
            return 128 + self.signals.received
        return 75 if self.is_near else 0
