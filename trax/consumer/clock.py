"""Time, as a consumer sees it. Tests give it another: :class:`trax.testing.clock.ManualClock`."""

from __future__ import annotations

import threading
from datetime import UTC, datetime


class Clock:
    """The machine's clock. Leases that several machines share need clocks that agree, to well below ``lease_s``."""

    def now(self) -> datetime:
        """The present, aware, in UTC."""
        return datetime.now(UTC)

    def wait(self, condition: threading.Condition, seconds: float) -> None:
        """Until the condition, which the caller holds, is notified, or so many seconds have passed."""
        condition.wait(seconds)
