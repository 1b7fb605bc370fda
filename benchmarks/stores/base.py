"""What every store of a log can do here."""

from __future__ import annotations

import struct
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import msgpack

Durability = Literal["buffered", "os", "always"]
"""When a record counts as written: it may wait in the process; the operating system has it; it is on stable storage."""

BATCH_RECORDS = 1000
"""What peers that write in batches put into one: about as much as trax holds back with ``buffer_bytes=65536``."""

pack = msgpack.Packer().pack
unpack = msgpack.unpackb
key_of = struct.Struct(">Q").pack
"""Keys of the stores that sort them as bytes: the number of the record, most significant byte first."""


class LogStore(ABC):
    """A log of values. The loops stand in the methods, so that no contestant pays for a call that another one saves."""

    def __init__(self, directory: Path, durability: Durability) -> None:
        self.directory = directory
        self.durability = durability
        self.open()

    @abstractmethod
    def open(self) -> None: ...

    @abstractmethod
    def put(self, value: Any) -> None:
        """Write one record; called from several threads."""

    def put_each(self, values: Sequence[Any]) -> None:
        """Write records, each with a call of its own."""
        for value in values:
            self.put(value)

    def put_together(self, values: Sequence[Any]) -> None:
        """Write records in batches, or in one transaction, whichever is faster."""
        raise NotImplementedError

    @abstractmethod
    def read(self) -> Iterator[Any]:
        """Every record, decoded, in order."""

    @abstractmethod
    def close(self) -> None: ...

    def __enter__(self) -> LogStore:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def batches(values: Sequence[Any], size: int = BATCH_RECORDS) -> Iterator[tuple[int, Sequence[Any]]]:
    """Slices, each with the number of its first value."""
    for start in range(0, len(values), size):
        yield start, values[start : start + size]
