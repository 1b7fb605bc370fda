"""Where two values part: type for type, order for order, bit for bit.

Whatever a store can keep is compared as a store keeps it: two values without a difference have the same encoding, a NaN
with its payload, -0.0 apart from 0.0, the keys of a dict in their order. Nothing here imports NumPy; it is there when a
value of it is.
"""

from __future__ import annotations

import collections
import dataclasses
import enum
import operator
import random
import reprlib
import struct
import sys
import types
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, NamedTuple

from trax.codecs import registry, table
from trax.errors import TraxError

SHOWN_CHARACTERS = 70


class Step(NamedTuple):
    """One step from a value into it: how it is written, and what goes there."""

    text: str
    get: Callable[[Any], Any]


@dataclasses.dataclass(frozen=True)
class Difference:
    """The first place where two values differ, and what each of them has there."""

    path: tuple[Step, ...]
    one: str
    other: str
    note: str = ""

    def place(self, name: str) -> str:
        """The place, such as ``state['rng'][3]``."""
        return name + "".join(step.text for step in self.path)

    def told(self, name: str, one: str = "", other: str = "") -> str:
        """The place and both sides, each with what it is called."""
        if one and other:
            return f"{self.place(name)}: {self.one} {one}, {self.other} {other}{self.note}"
        return f"{self.place(name)}: {self.one} and {self.other}{self.note}"


def first_difference(one: Any, other: Any, name: str = "value") -> str | None:
    """Where ``other`` is not what ``one`` is, such as ``"value['rng'][3]: 5 and 4"``; None when they are the same.

    Compared are types, orders, and every bit: what a store brings back from a checkpoint has no difference from what it
    was given. Values that a store can't keep are compared by their attributes, and the rest by ``==``.
    """
    found = difference(one, other)
    return None if found is None else found.told(name)


def difference(one: Any, other: Any) -> Difference | None:
    """The first difference of two values, or None."""
    return _Comparison().compare(one, other, ())


def located(value: Any, path: Iterable[Step]) -> tuple[bool, Any]:
    """Whether the place exists in a value, and what is there."""
    for step in path:
        try:
            value = step.get(value)
        except (LookupError, TypeError, AttributeError):
            return False, None
    return True, value


def shown(value: Any) -> str:
    """A value in a few words."""
    try:
        text = _Shortened().repr(value)
    except ValueError:  # an int of more digits than Python likes to write
        text = f"an int of {value.bit_length():,} bits" if type(value) is int else f"<{type(value).__name__}>"
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[: SHOWN_CHARACTERS - 1]}…"


class _Shortened(reprlib.Repr):
    def __init__(self) -> None:
        super().__init__()
        self.maxstring = self.maxother = self.maxlong = SHOWN_CHARACTERS
        self.maxlevel = 3

    def repr_dict(self, value: dict[Any, Any], level: int) -> str:
        """As it is: reprlib would sort the keys."""
        if level <= 0 and value:
            return "{...}"
        pairs = [f"{self.repr1(key, level - 1)}: {self.repr1(value[key], level - 1)}" for key in islice(value, 4)]
        return f"{{{', '.join([*pairs, *(['...'] if len(value) > 4 else [])])}}}"


Path = tuple[Step, ...]
_SEQUENCES = (list, tuple, collections.deque)
_MAPPINGS = (dict, collections.OrderedDict, collections.defaultdict, collections.Counter)
_SETS = (set, frozenset)
_ATOMS = (type(None), bool, int, float, complex, type(Ellipsis))
_NAMED = (type, enum.Enum, types.FunctionType, types.BuiltinFunctionType, types.MethodType, types.ModuleType)
_CONTAINERS = (*_SEQUENCES, *_MAPPINGS, *_SETS)
_MISSING = object()


class _Comparison:
    """Compares two values. What contains itself is followed once."""

    def __init__(self) -> None:
        self._busy: set[tuple[int, int]] = set()

    def compare(self, one: Any, other: Any, path: Path) -> Difference | None:
        if one is other:
            return None
        kind = type(one)
        if kind is not type(other):
            first, second = _type_names(kind, type(other))
            return Difference(path, f"{first} {shown(one)}", f"{second} {shown(other)}")
        pair = id(one), id(other)
        if pair in self._busy:
            return None
        self._busy.add(pair)
        try:
            return self._compare_alike(kind, one, other, path)
        finally:
            self._busy.discard(pair)

    def _compare_alike(self, kind: type, one: Any, other: Any, path: Path) -> Difference | None:
        """Two values of the same type."""
        if kind in _ATOMS:
            return None if _atom_bits(one) == _atom_bits(other) else Difference(path, *_told_apart(one, other))
        if kind in (str, bytes, bytearray):
            return _text_difference(one, other, path)
        if kind in _SEQUENCES:
            return self._sequences(one, other, path)
        if kind in _MAPPINGS:
            return self._mappings(one, other, path)
        if kind in _SETS:
            return self._sets(one, other, path)
        if isinstance(one, random.Random):
            state = Step(".getstate()", operator.methodcaller("getstate"))
            return self.compare(state.get(one), state.get(other), (*path, state))
        if "numpy" in sys.modules:  # a value of NumPy can't be there without it
            from trax.testing import array_differences

            if array_differences.is_numpy(one):
                return array_differences.difference(one, other, path, self.compare)
        if (registration := registry.by_class(kind)) is not None:
            return self._registered(registration.encode, one, other, path)
        if (plain := _as_stored(kind, one, other)) is not None:
            same = self.compare(*plain, path) is None
            return None if same else Difference(path, *_told_apart(one, other))
        return self._objects(kind, one, other, path)

    def _sequences(self, one: Sequence[Any], other: Sequence[Any], path: Path) -> Difference | None:
        note = "" if len(one) == len(other) else f" (of {len(one)} and {len(other)} items)"
        for index, (first, second) in enumerate(zip(one, other, strict=False)):
            if found := self.compare(first, second, (*path, item(index))):
                return found if found.note else dataclasses.replace(found, note=note)
        if note:
            index = min(len(one), len(other))
            longer = one if len(one) > len(other) else other
            sides = shown(longer[index]), "nothing"
            return Difference((*path, item(index)), *(sides if longer is one else sides[::-1]), note)
        if isinstance(one, collections.deque) and one.maxlen != other.maxlen:  # type: ignore[attr-defined]
            return self.compare(one.maxlen, other.maxlen, (*path, attribute("maxlen")))  # type: ignore[attr-defined]
        return None

    def _mappings(self, one: dict[Any, Any], other: dict[Any, Any], path: Path) -> Difference | None:
        keys = len(one) == len(other) and all(
            self.compare(first, second, path) is None for first, second in zip(one, other, strict=True)
        )
        pairs = zip(one, one.values(), other.values(), strict=True) if keys else _common(one, other)
        if not keys and (lacking := _lacking(one, other, path)):
            return lacking
        for key, first, second in pairs:
            if found := self.compare(first, second, (*path, item(key))):
                return found
        if not keys:
            first, second = next(
                (first, second)
                for first, second in zip(one, other, strict=True)
                if self.compare(first, second, ()) is not None
            )
            return Difference(path, f"the key {shown(first)}", f"the key {shown(second)}", " in the same place")
        if isinstance(one, collections.defaultdict) and isinstance(other, collections.defaultdict):
            return self.compare(one.default_factory, other.default_factory, (*path, attribute("default_factory")))
        return None

    def _sets(self, one: set[Any], other: set[Any], path: Path) -> Difference | None:
        for present, absent, swapped in ((one, other, False), (other, one, True)):
            same = {element: element for element in absent}
            for element in present:
                twin = same.get(element, _MISSING)
                if twin is not _MISSING and self.compare(element, twin, path) is None:
                    continue
                if not any(self.compare(element, candidate, path) is None for candidate in absent):  # a NaN
                    sides = f"has {shown(element)}", f"lacks {shown(element)}"
                    return Difference(path, *(sides[::-1] if swapped else sides))
        return None

    def _registered(self, encode: Callable[[Any], Any], one: Any, other: Any, path: Path) -> Difference | None:
        """By what a store would keep of them."""
        first, second = encode(one), encode(other)
        if type(first) is dict and all(type(key) is str and hasattr(one, key) for key in first):
            found = _lacking(first, second, path)
            return found or self._members(first, one, other, path)
        return self.compare(first, second, (*path, Step("", encode)))

    def _members(self, names: Iterable[str], one: Any, other: Any, path: Path) -> Difference | None:
        for name in names:
            first, second = getattr(one, name, _MISSING), getattr(other, name, _MISSING)
            if (first is _MISSING) != (second is _MISSING):
                sides = ("nothing" if side is _MISSING else shown(side) for side in (first, second))
                return Difference((*path, attribute(name)), *sides)
            if found := self.compare(first, second, (*path, attribute(name))):
                return found
        return None

    def _objects(self, kind: type, one: Any, other: Any, path: Path) -> Difference | None:
        """What no codec keeps: by what can be seen of them, by what pickle would keep, or by ``==``."""
        if not isinstance(one, _NAMED):
            for base in () if registry.is_named_tuple(kind) else _CONTAINERS:
                if isinstance(one, base) and (found := self.compare(base(one), base(other), path)):  # type: ignore[call-overload]
                    return found
            if found := self._members(_attribute_names(kind, one, other), one, other, path):
                return found
            if (reduced := _reduced(one, other)) is not None:
                same = self.compare(*reduced, path) is None
                return None if same else Difference(path, *_told_apart(one, other))
        return None if (one == other) is True else Difference(path, *_told_apart(one, other))


def item(key: Any) -> Step:
    """The step to ``value[key]``."""
    return Step(f"[{shown(key)}]", operator.itemgetter(key))


def attribute(name: str) -> Step:
    """The step to ``value.name``."""
    return Step(f".{name}", operator.attrgetter(name))


def _type_names(one: type, other: type) -> tuple[str, str]:
    if one.__name__ != other.__name__:
        return one.__name__, other.__name__
    return f"{one.__module__}.{one.__qualname__}", f"{other.__module__}.{other.__qualname__}"


def _text_difference(one: Any, other: Any, path: Path) -> Difference | None:
    if one == other:
        return None
    if max(len(one), len(other)) <= SHOWN_CHARACTERS // 2:
        return Difference(path, shown(one), shown(other))
    index = next((at for at, pair in enumerate(zip(one, other, strict=False)) if pair[0] != pair[1]), None)
    index = min(len(one), len(other)) if index is None else index
    begin = max(0, index - 10)
    first, second = (f"…{side[begin : index + 20]!r}…" for side in (one, other))
    unit = "character" if isinstance(one, str) else "byte"
    return Difference(path, first, second, f" (from {unit} {begin} on)")


def _atom_bits(value: Any) -> Any:
    if isinstance(value, float):
        return struct.pack(">d", value)
    return struct.pack(">dd", value.real, value.imag) if isinstance(value, complex) else value


def _told_apart(one: Any, other: Any) -> tuple[str, str]:
    """Both in a few words, and for floats in bits when the words are the same."""
    sides = shown(one), shown(other)
    if sides[0] == sides[1] and isinstance(one, float | complex):
        return f"{sides[0]} ({_atom_bits(one).hex()})", f"{sides[1]} ({_atom_bits(other).hex()})"
    return sides


def _as_stored(kind: type, one: Any, other: Any) -> tuple[Any, Any] | None:
    """Both as a codec would take them apart, if it keeps values of this type, and these."""
    if (row := table.by_class(kind)) is None:
        return None
    try:
        return row.encode(one), row.encode(other)
    except TraxError:
        return None


def _attribute_names(kind: type, one: Any, other: Any) -> Iterator[str]:
    if registry.is_named_tuple(kind):
        yield from kind._fields  # type: ignore[attr-defined]
    slots = [getattr(base, "__slots__", ()) for base in kind.__mro__]
    names = [name for slot in slots for name in ((slot,) if isinstance(slot, str) else slot)]
    names += [*getattr(one, "__dict__", ()), *getattr(other, "__dict__", ())]
    yield from (name for name in dict.fromkeys(names) if name not in ("__dict__", "__weakref__"))


def _reduced(one: Any, other: Any) -> tuple[Any, Any] | None:
    """Both as pickle would take them apart: some keep their state where no attribute shows it."""
    try:
        parts = [value.__reduce_ex__(4) for value in (one, other)]
    except TypeError:
        return None
    first, second = (
        tuple(list(item) if isinstance(item, Iterator) else item for item in part) if type(part) is tuple else part
        for part in parts
    )
    return first, second


def _common(one: dict[Any, Any], other: dict[Any, Any]) -> Iterator[tuple[Any, Any, Any]]:
    return ((key, one[key], other[key]) for key in one if key in other)


def _lacking(one: dict[Any, Any], other: dict[Any, Any], path: Path) -> Difference | None:
    """A key that only one of them has."""
    for key in one:
        if key not in other:
            return Difference((*path, item(key)), shown(one[key]), "nothing")
    for key in other:
        if key not in one:
            return Difference((*path, item(key)), "nothing", shown(other[key]))
    return None
