"""The items of a loop, and whether they are the ones that the loop has begun with.

A resumed loop leaves out the items whose steps are done, so the rest must be what would have followed. A range says
what it holds: where it begins and how it goes on must be the same, and it may have become longer. Of other collections
the number of items is compared; of iterators, that there are enough of them; sets are refused. ``check_items=True``
compares the items that are left out, by a digest of their encodings.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sized
from itertools import islice
from typing import Any, Generic, TypeVar

from trax.codecs.base import Codec
from trax.errors import LoopError

T = TypeVar("T")
_DIGEST_BYTES = 16


class Items(Generic[T]):
    """The items of the loop ``name`` of a job; ``digest`` covers those that :meth:`behind` gave or left out."""

    def __init__(self, name: str, items: Iterable[T], codec: Codec | None) -> None:
        if isinstance(items, set | frozenset):
            text = f"the loop {name!r} can't go over a set: its order is another one in each process. Use sorted(…)."
            raise LoopError(text, reason="a set")
        self._name = name
        self._items = items
        self._codec = codec
        self._hash = hashlib.blake2b(digest_size=_DIGEST_BYTES)
        self.is_digested = codec is not None
        self.count = len(items) if isinstance(items, Sized) else None

    @property
    def description(self) -> list[Any]:
        """What is stored of the items."""
        if isinstance(self._items, range):
            return ["range", self._items.start, self._items.step]
        return ["iterator"] if self.count is None else ["collection", self.count]

    @property
    def digest(self) -> bytes:
        return b"" if self._codec is None else self._hash.digest()

    def check(self, description: list[Any], done: int) -> None:
        """LoopError unless these can be the items that a loop has begun with, of which ``done`` are done."""
        if description != self.description:
            raise self._changed(f"it began over {_told(description)}, and is now over {_told(self.description)}")
        if self.count is not None and self.count < done:
            raise self._changed(f"{done} of its steps are done, and there are only {self.count} items now")

    def behind(self, done: int, digest: bytes) -> Iterator[T]:
        """The items of the steps that are not done."""
        if isinstance(self._items, range) and self._codec is None:
            rest: Any = self._items[done:]
            return iter(rest)
        remaining = iter(self._items)
        left_out = 0
        for item in islice(remaining, done):
            self.add(item)
            left_out += 1
        if left_out < done:
            raise self._changed(f"{done} of its steps are done, and there are only {left_out} items now")
        if done and self._codec is not None and digest != self.digest:
            how = f"the first {done} items are not the ones whose steps are done"
            how += ", or some of those were done without check_items=True, by which they are compared"
            raise self._changed(how)
        return remaining

    def add(self, item: T) -> None:
        """Count an item in the digest."""
        if self._codec is not None:
            encoding = self._codec.encode(item, self._name)
            self._hash.update(len(encoding).to_bytes(8, "little") + encoding)

    def _changed(self, how: str) -> LoopError:
        text = (
            f"the loop {self._name!r} can't be resumed, because its items have changed: {how}. Give it the items it "
            f"had, or another name=, with which it begins anew."
        )
        return LoopError(text, reason="items have changed")


def _told(description: list[Any]) -> str:
    kind, *rest = description or [""]
    if kind == "range":
        return f"a range from {rest[0]} in steps of {rest[1]}"
    return f"a collection of {rest[0]} items" if kind == "collection" else "an iterator"
