"""The names of a store, and the two ways in which a call gives them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trax.errors import InvalidArgumentError, InvalidNameError

MAX_NAME_BYTES = 255
RESERVED_PREFIX = "trax:"


class LayerName(str):
    """A name behind the reserved prefix, which only the layers of trax make: ``trax:<layer>:<rest>``."""

    __slots__ = ()


def layer_name(layer: str, rest: str) -> LayerName:
    """The name under which a layer keeps something of its own; InvalidNameError if it is none."""
    return LayerName(check_name(f"{RESERVED_PREFIX}{layer}:{rest}", reserved=True))


def check_name(name: object, *, reserved: bool = False) -> str:
    """The name, if it is one: a ``str`` of 1 to 255 UTF-8 bytes, outside the prefix that belongs to the layers."""
    if not isinstance(name, str):
        text = f"a name is a str, and {name!r} is of type {type(name).__name__}."
        raise InvalidNameError(text, reason="not a str")
    try:
        nbytes = len(name.encode())
    except UnicodeEncodeError as error:
        raise InvalidNameError(f"the name {name!r} can't be written as UTF-8.", reason="not UTF-8") from error
    if not 1 <= nbytes <= MAX_NAME_BYTES:
        shown = name if nbytes <= 40 else name[:20] + "…"
        text = f"a name has 1 to {MAX_NAME_BYTES} bytes in UTF-8, and {shown!r} has {nbytes}."
        raise InvalidNameError(text, reason="length")
    if name.startswith(RESERVED_PREFIX) and not (reserved or isinstance(name, LayerName)):
        text = f"names that begin with {RESERVED_PREFIX!r} belong to the layers of trax: choose another than {name!r}."
        raise InvalidNameError(text, reason="reserved")
    return name


def named_values(mapping: Mapping[str, Any] | None, keywords: dict[str, Any], call: str) -> Mapping[str, Any]:
    """What a call was given, as a mapping and as keywords, in one mapping that is not empty."""
    if mapping is None:
        named: Mapping[str, Any] = keywords
    elif not isinstance(mapping, Mapping):  # type checkers say never, callers say list
        text = f"{call}() takes name=value, or a mapping of names to values, and got {type(mapping).__name__}."
        raise InvalidArgumentError(text, reason="not a mapping")
    elif mapping.keys() & keywords.keys():
        twice = ", ".join(sorted(mapping.keys() & keywords.keys()))
        raise InvalidArgumentError(f"{call}() was given {twice} twice.", reason="given twice")
    else:
        named = {**mapping, **keywords}
    if not named:
        raise InvalidArgumentError(f"{call}() was given nothing: name what to save, {call}(state=…).", reason="empty")
    return named
