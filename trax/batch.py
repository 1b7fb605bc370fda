"""Several logs and checkpoints as one atomic commit."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from types import TracebackType
from typing import Any

from trax.encoding import Encoder
from trax.errors import ClosedError, HandleError
from trax.publish import Change, Publisher
from trax.storage.base import Commit

CommitBatch = Callable[["Batch"], int]


class Batch:
    """What happens in the ``with`` block becomes durable together at its end, or, when it raises, not at all.

    The order in the program counts: a checkpoint contains what the batch logged of its names before it, and not what it
    logged after. ``sequence`` is None until the commit, then the sequence of its last record or checkpoint. One thread
    at a time. Made by :meth:`trax.Trax.batch`.
    """

    def __init__(self, encoder: Encoder, publisher: Publisher, commit: CommitBatch) -> None:
        self._encoder = encoder
        self._publisher = publisher
        self._commit = commit
        self._open = True
        self._records: list[tuple[int, dict[str, bytes]]] = []
        self._places = 0
        self.changes: dict[str, Change] = {}
        self.sequence: int | None = None

    def log(self, mapping: Mapping[str, Any] | None = None, /, **entries: Any) -> None:
        """Add a record to the commit. The entries are encoded before this returns."""
        self._check_open()
        record, _ = self._encoder.record(mapping, entries)
        self._records.append((self._next_place(), record))

    def join(self, name: str, encoding: bytes) -> None:
        """Add an encoded entry of another name to the last record: less room and time than a record of its own.

        For a layer, which has checked the name and encoded the entry.
        """
        self._check_open()
        if not self._records:
            self._records.append((self._next_place(), {}))
        self._records[-1][1][name] = encoding

    def encodings(self, name: str) -> list[bytes]:
        """The encoded entries of a name, in the order in which they were logged."""
        return [record[name] for _, record in self._records if name in record]

    def checkpoint(self, mapping: Mapping[str, Any] | None = None, /, **values: Any) -> None:
        """Add a checkpoint to the commit. Large arrays are written before this returns, and published with the rest."""
        self._check_open()
        _, cut = self._publisher.begin()
        written = self._publisher.write(self._encoder.values(mapping, values))
        replaced = [self.changes[name] for name in written if name in self.changes]
        self._next_place()
        # What the batch logged of these names before is contained, and is left out. A cut that covers it would cover
        # what others log meanwhile as well, since the batch gets its sequences only at its end.
        for _, record in self._records:
            for name in written:
                record.pop(name, None)
        for name, value in written.items():
            self.changes[name] = Change(value, cut)
        self._publisher.give_up(replaced)

    @property
    def commit_of_records(self) -> Commit:
        """The records alone, when there are no checkpoints among them."""
        return [record for _, record in self._records]

    @property
    def ahead(self) -> list[tuple[int, Commit]]:
        """The records with their places among all that the batch holds."""
        return [(place, [record]) for place, record in self._records if record]

    @property
    def size(self) -> int:
        """How many sequences the commit takes."""
        return self._places

    def _next_place(self) -> int:
        self._places += 1
        return self._places - 1

    def _check_open(self) -> None:
        if not self._open:
            raise ClosedError("this batch has ended: begin another with store.batch().", reason="ended")

    def __enter__(self) -> Batch:
        self._check_open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._open = False
        try:
            if kind is None and self._places:
                self.sequence = self._commit(self)
        finally:
            if self.sequence is None and self.changes:
                with suppress(HandleError):  # what a handle that has ended leaves behind, the next opening sweeps
                    self._publisher.give_up(self.changes.values())
