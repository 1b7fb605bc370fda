"""Why a value can't be kept, where in the whole it lies, and what the caller can do instead.

Nothing here runs before a value was refused, so the walk may be slow and the advice long.
"""

from __future__ import annotations

import collections
import collections.abc
import dataclasses
import enum
import io
import reprlib
import sys
import types
from collections.abc import Iterator
from typing import Any

from trax.codecs import registry, table
from trax.codecs.limits import MAX_DEPTH
from trax.errors import UnsupportedValueError

_ATOMS = (type(None), bool, int, float, str, bytes)
_MAPPINGS = (dict, collections.OrderedDict, collections.defaultdict, collections.Counter)
_SEQUENCES = (list, tuple, collections.deque)
_SETS = (set, frozenset)

_PROCESS_BOUND = "it belongs to this process; leave it out and make it anew after recovery"
_KEEP_A_NAME = "keep what names it, such as a str, and look it up after recovery"


def refusal(value: Any) -> UnsupportedValueError:
    """The error for a value of a type that no codec keeps; :func:`located` adds where it lies."""
    return UnsupportedValueError(
        f"{_type_name(type(value))} can't be kept exactly; {_advice(value)}", reason="unsupported type"
    )


def located(error: UnsupportedValueError, value: Any, name: str) -> UnsupportedValueError:
    """``error`` again, with the path to the first part of ``value`` that is refused."""
    location, found = next(_refused_parts(value, name, 0), (name, error))
    return UnsupportedValueError(f"{location}: {found.message}", location=location, reason=found.reason)


# The walk


def _refused_parts(value: Any, location: str, depth: int) -> Iterator[tuple[str, UnsupportedValueError]]:
    if type(value) in _ATOMS or depth > MAX_DEPTH:
        return
    try:
        parts = list(_parts(value, location))
    except UnsupportedValueError as error:
        yield location, error
        return
    for part_location, part in parts:
        yield from _refused_parts(part, part_location, depth + 1)


def _parts(value: Any, location: str) -> Iterator[tuple[str, Any]]:
    """What lies directly in ``value``. Raises UnsupportedValueError where ``value`` itself is refused."""
    kind = type(value)
    if kind is list or kind is dict:
        yield from _contained(value, location)
    elif (row := table.by_class(kind)) is not None:
        row.encode(value)
        yield from _contained(value, location)
    elif (registration := registry.by_class(kind)) is not None:
        state = registration.encode(value)
        if type(state) is dict and all(type(key) is str and key.isidentifier() for key in state):
            yield from ((f"{location}.{key}", item) for key, item in state.items())
        else:
            yield location, state
    else:
        raise refusal(value)


def _contained(value: Any, location: str) -> Iterator[tuple[str, Any]]:
    if type(value) in _MAPPINGS:
        for key, item in value.items():
            yield f"{location}[{reprlib.repr(key)}]", key
            yield f"{location}[{reprlib.repr(key)}]", item
    elif type(value) in _SEQUENCES:
        yield from ((f"{location}[{index}]", item) for index, item in enumerate(value))
    elif type(value) in _SETS:
        yield from ((f"{location}{{…}}", item) for item in value)


# The advice


def _type_name(cls: type) -> str:
    return cls.__qualname__ if cls.__module__ in ("builtins", "__main__") else f"{cls.__module__}.{cls.__qualname__}"


def _advice(value: Any) -> str:
    cls = type(value)
    advice = _foreign_advice(value) or _numpy_advice(value)
    if advice is not None:
        return advice
    if isinstance(value, enum.Enum) or dataclasses.is_dataclass(cls) or registry.is_named_tuple(cls):
        return f"register it: trax.register({_reference(cls)})"
    if isinstance(value, memoryview):
        return "keep bytes(view)"
    if isinstance(value, type | types.ModuleType) or callable(value):
        return f"code is not kept; {_KEEP_A_NAME}"
    if isinstance(value, io.IOBase):
        return "keep its name and its position"
    if isinstance(value, collections.abc.Iterator):
        return "an iterator can't be read without being used up; keep list(…) of what it yields, and how far it got"
    if cls.__module__ in ("_thread", "threading", "_asyncio", "asyncio", "_socket", "socket", "subprocess"):
        return _PROCESS_BOUND
    register = f"register it: trax.register({_reference(cls)}, encode=…, decode=…)"
    for base in (*_ATOMS, *_MAPPINGS, *_SEQUENCES, *_SETS):
        if isinstance(value, base):
            return f"it is a subclass of {base.__name__}: keep {base.__name__}(value), or {register}"
    return register


def _reference(cls: type) -> str:
    return cls.__name__ if "<locals>" in cls.__qualname__ else _type_name(cls)


def _foreign_advice(value: Any) -> str | None:
    """Advice by package, which is not imported for it. Polars and others answer to the same methods as pandas."""
    package = type(value).__module__.partition(".")[0]
    if package == "pandas":
        return "keep value.to_dict('list'), or value.to_numpy() and its columns and index, or its Arrow bytes"
    if package == "polars":
        return "keep value.to_dict(as_series=False), or its Arrow bytes"
    if package == "torch":
        return "keep value.detach().cpu().numpy() of a tensor, and state_dict() of a module or optimizer"
    if package in ("jax", "jaxlib", "tensorflow", "cupy"):
        return "keep numpy.asarray(value), or value.get() of a CuPy array"
    return None


def _numpy_advice(value: Any) -> str | None:
    numpy = sys.modules.get("numpy")
    if numpy is None or not isinstance(value, numpy.ndarray):
        return None
    if isinstance(value, numpy.ma.MaskedArray):
        return "keep value.data and value.mask"
    if isinstance(value, numpy.recarray):
        return "keep value.view(numpy.ndarray)"
    if isinstance(value, numpy.memmap | numpy.matrix):
        return "keep numpy.asarray(value)"
    return f"keep numpy.asarray(value), or register it: trax.register({_reference(type(value))}, encode=…, decode=…)"
