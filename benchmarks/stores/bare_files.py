"""Bare files: what one writes without a library. No checksums, no names, nothing that tells a torn end from a whole."""

from __future__ import annotations

import json
import os
import pickle
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any

from benchmarks.stores.base import LogStore

BUFFER_BYTES = 1 << 16


class FileLog(LogStore):
    """Appends encoded records to a file."""

    def open(self) -> None:
        self.path = self.directory / "log"
        self.file = open(self.path, "ab", BUFFER_BYTES if self.durability == "buffered" else 0)  # noqa: SIM115
        self.sync = self.durability == "always"

    @abstractmethod
    def encode(self, value: Any) -> bytes: ...

    def put(self, value: Any) -> None:
        self.file.write(self.encode(value))
        if self.sync:
            os.fdatasync(self.file.fileno())

    def put_each(self, values: Sequence[Any]) -> None:
        write, encode, sync = self.file.write, self.encode, self.sync
        for value in values:
            write(encode(value))
            if sync:
                os.fdatasync(self.file.fileno())
        self.file.flush()

    def close(self) -> None:
        self.file.close()


class PickleLog(FileLog):
    encode = staticmethod(pickle.dumps)  # type: ignore[assignment]

    def read(self) -> Iterator[Any]:
        load = pickle.load  # an Unpickler for all of them would remember every object
        with open(self.path, "rb") as file:
            while file.peek(1):
                yield load(file)


class JsonLog(FileLog):
    encoder = json.JSONEncoder(separators=(",", ":"))

    def encode(self, value: Any) -> bytes:
        return self.encoder.encode(value).encode() + b"\n"

    def read(self) -> Iterator[Any]:
        with open(self.path, "rb") as file:
            yield from map(json.loads, file)
