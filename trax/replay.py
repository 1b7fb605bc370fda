"""Folding: a checkpointed value and the entries behind its cut, through the caller's callback."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from operator import length_hint
from typing import Any

from trax.codecs.base import Codec
from trax.errors import CorruptionError, ReplayError
from trax.storage.base import Entries, Stored, View

_MANY_ENTRIES = 64
_MANY_BYTES = 1 << 15
_TOGETHER = 128  # entries that are decoded at once: with more new objects the garbage collector takes its share,
_UNTRACKED_TOGETHER = 1024  # but for such as it does not look into, numbers or dicts of them for instance

ReplayLog = Callable[[Any, Any], Any]
"""``replay_log(state, entry) -> state``: what one entry makes of a state."""


def last_wins(state: Any, entry: Any) -> Any:
    """The default ``replay_log``: each entry replaces the state."""
    return entry


class Fold:
    """The state of one name while the log is passed over; ``finish`` folds what was held back.

    Few entries at a time are held back until they are many: decoding them together is several times as fast.
    """

    def __init__(self, name: str, state: Any, replay_log: ReplayLog, codec: Codec, path: str) -> None:
        self.name = name
        self.state = state
        self._replay_log = replay_log
        self._codec = codec
        self._path = path
        self._held: list[Entries] = []
        self._held_entries = 0
        self._held_bytes = 0
        self._together = _TOGETHER

    def add(self, entries: Entries) -> None:
        """Fold some entries, or hold them back for a while.

        What the callback raises goes on as it is, with a note that names the record.
        """
        self._held.append(entries)
        self._held_entries += len(entries.lengths)
        self._held_bytes += len(entries.data)
        if self._held_entries >= _MANY_ENTRIES or self._held_bytes >= _MANY_BYTES:
            self.finish()

    def finish(self) -> None:
        """Fold everything that was added."""
        held, self._held, self._held_entries, self._held_bytes = self._held, [], 0, 0
        for entries in _in_parts(held[0], self._together) if len(held) == 1 else ([held] if held else ()):
            self._fold(entries)

    def _fold(self, held: Sequence[Entries]) -> None:
        state, replay_log = self.state, self._replay_log
        decoded = decode_entries(self._codec, held, self._path)
        self._together = _TOGETHER if any(map(gc.is_tracked, decoded[-1:])) else _UNTRACKED_TOGETHER
        remaining = iter(decoded)
        try:
            for entry in remaining:
                before = state
                state = replay_log(before, entry)
                if state is None and before is not None and entry is not None:
                    break
            else:
                self.state = state
                return
        except BaseException as error:
            sequence = _sequence(held, remaining)
            error.add_note(f"trax: while replaying sequence {sequence} of {self.name!r} from {self._path}")
            raise
        raise self._returned_none(_sequence(held, remaining))

    def _returned_none(self, sequence: int) -> ReplayError:
        text = (
            f"replay_log returned None for {self.name!r} at sequence {sequence}, though neither the state nor the "
            f"entry was None. Return the new state from it (a function that changes the state in place must return it, "
            f"too)."
        )
        return ReplayError(text, path=self._path, sequence=sequence, reason="replay_log returned None")


def _sequence(held: Sequence[Entries], remaining: Iterator[Any]) -> int:
    """Of the entry that was decoded last from ``remaining``."""
    return [*chain.from_iterable(entries.sequences for entries in held)][-1 - length_hint(remaining)]


def _in_parts(entries: Entries, most: int) -> Iterator[Sequence[Entries]]:
    """At most so many entries each."""
    name, sequences, data, lengths = entries
    if len(lengths) <= most:
        yield [entries]
        return
    start = 0
    for first in range(0, len(lengths), most):
        part = lengths[first : first + most]
        end = start + sum(part)
        yield [Entries(name, sequences[first : first + most], data[start:end], part)]
        start = end


def decode_entries(codec: Codec, held: Sequence[Entries], path: str) -> list[Any]:
    """The values of some entries of one name; a CorruptionError says where they stood."""
    if len(held) == 1:
        _, _, data, lengths = held[0]
    else:
        data = b"".join(entries.data for entries in held)
        lengths = [*chain.from_iterable(entries.lengths for entries in held)]
    try:
        values = codec.decode_many(data, lengths)
        if len(values) != len(lengths):
            raise CorruptionError(f"{len(values)} values where {len(lengths)} were to be", reason="too few")
        return values
    except CorruptionError as error:
        raise _located(error, held[0].name, path, held[0].sequences[0]) from error


def decode_stored(codec: Codec, view: View, name: str, stored: Stored, path: str, *, mmap: bool = False) -> Any:
    """A checkpointed value, as an object of the caller's own."""
    head, source = view.value(stored)
    try:
        return codec.decode_value(head, source, mmap=mmap)
    except CorruptionError as error:
        raise _located(error, name, path, stored.sequence) from error


def decoded(codec: Codec, every: Iterable[Entries], path: str) -> Iterator[tuple[int, Any]]:
    """Sequence and value, one by one."""
    for entries in every:
        yield from zip(entries.sequences, decode_entries(codec, [entries], path), strict=True)


def _located(error: CorruptionError, name: str, path: str, sequence: int) -> CorruptionError:
    if error.path is not None:
        return error
    text = f"{path} is damaged: what is stored of {name!r} at sequence {sequence} can't be decoded ({error})."
    return CorruptionError(text, path=path, sequence=sequence, reason=error.reason or str(error))
