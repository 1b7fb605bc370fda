"""Optuna's journal: a file of JSON lines behind a lock. Each append ends with an fsync."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from typing import Any

from optuna.storages.journal import JournalFileBackend

from benchmarks.stores.base import LogStore, batches


class OptunaLog(LogStore):
    def open(self) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.backend = JournalFileBackend(str(self.directory / "journal.log"))

    def put(self, value: Any) -> None:
        self.backend.append_logs([value])

    def put_together(self, values: Sequence[Any]) -> None:
        for _, some in batches(values):
            self.backend.append_logs(list(some))

    def read(self) -> Iterator[Any]:
        return iter(self.backend.read_logs(0))

    def close(self) -> None: ...
