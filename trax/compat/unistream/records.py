"""Records that serialize themselves, and the exceptions that have names."""

from __future__ import annotations

import dataclasses
import json
import uuid
from abc import ABC, abstractmethod
from datetime import UTC, datetime
from typing import Self


class ProcessError(Exception):
    """For ``process_record`` to raise, if it likes: any exception is a failed attempt."""


class StreamIsClosedError(Exception):
    """The stream has come to its end: ``get_records`` gave None as the next pointer, and its records have ended."""


class BaseRecord(ABC):
    """A record has an ``id``, unique in its batch, and ``create_at``, a time with its zone in ISO 8601."""

    id: str
    create_at: str

    @property
    def create_at_datetime(self) -> datetime:
        return datetime.fromisoformat(self.create_at)

    @abstractmethod
    def serialize(self) -> str: ...

    @classmethod
    @abstractmethod
    def deserialize(cls, data: str) -> Self: ...


@dataclasses.dataclass(frozen=True)
class DataClassRecord(BaseRecord):
    """A record whose fields JSON can hold. Subclasses add fields with defaults."""

    id: str = dataclasses.field(default_factory=lambda: str(uuid.uuid4()))
    create_at: str = dataclasses.field(default_factory=lambda: datetime.now(UTC).isoformat())

    def serialize(self) -> str:
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def deserialize(cls, data: str) -> Self:
        return cls(**json.loads(data))
