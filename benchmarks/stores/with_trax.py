"""trax, with one name."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal

from benchmarks.model import FAST, SkippedError
from benchmarks.stores.base import LogStore

NAME = "sample"
BUFFER_BYTES = 1 << 16


class TraxLog(LogStore):
    def open(self) -> None:
        import trax

        sync: Literal["os", "always"] = "always" if self.durability == "always" else "os"
        self.store = trax.Trax(
            self.directory / "store", sync=sync, buffer_bytes=BUFFER_BYTES if self.durability == "buffered" else 0
        )

    def put(self, value: Any) -> None:
        self.store.log(sample=value)

    def put_each(self, values: Sequence[Any]) -> None:
        log = self.store.log
        for value in values:
            log(sample=value)

    def read(self) -> Iterator[Any]:
        return (value for _, value in self.store.entries(NAME))

    def close(self) -> None:
        self.store.close()


def check_fast() -> None:
    """Called after the work: whether this trax makes use of the extra at all."""
    import sys

    if not any(sys.modules.get(name) for name in FAST):
        raise SkippedError("this trax has no extra 'fast'")
