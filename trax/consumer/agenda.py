"""Which record of a batch is to be looked at next, and when."""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from datetime import UTC, datetime

_AT_ONCE = datetime.min.replace(tzinfo=UTC)


class Agenda:
    """Records with times. The next is the one whose time comes first, of several the first in the batch; ``ordered``,
    the first in the batch, when its time has come.

    It may hold a record more than once, or one that has ended: whoever takes a record looks at it. One thread at a
    time.
    """

    def __init__(self, record_ids: Iterable[str] = (), *, ordered: bool = False) -> None:
        self._places = {record_id: place for place, record_id in enumerate(record_ids)}
        self._ordered = ordered
        self._heap: list[tuple[bool | datetime, int, datetime, str]] = []

    def add(self, record_id: str, due: datetime | None = None) -> None:
        """Look at the record when it is due; without a time, at once."""
        due = due or _AT_ONCE
        heapq.heappush(self._heap, (self._ordered or due, self._places[record_id], due, record_id))

    def take(self, now: datetime) -> str | None:
        """The next record, if its time has come; it leaves the agenda."""
        due = self.next_due()
        return None if due is None or due > now else heapq.heappop(self._heap)[3]

    def next_due(self) -> datetime | None:
        """When the next record is to be looked at; None if there is none."""
        return self._heap[0][2] if self._heap else None
