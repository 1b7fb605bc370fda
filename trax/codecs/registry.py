"""Types that the caller registers: enums, dataclasses, named tuples, and any class with functions of its own.

A registered value is kept as the type's *name* and its *state*, which may hold anything that can be kept. The registry
belongs to the process; every function here may be called from any thread.
"""

from __future__ import annotations

import dataclasses
import enum
import functools
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar, overload

from trax.codecs import table
from trax.errors import CodecError, RegistrationError, UnsupportedValueError

C = TypeVar("C", bound=type)
Encode = Callable[[Any], Any]
Decode = Callable[[Any], Any]

_NOTE = "raised while trax "

_NATIVE = (type(None), bool, int, float, str, bytes, list, dict)

_lock = threading.Lock()
_by_class: dict[type, Registration] = {}
_by_name: dict[str, Registration] = {}


@overload
def register(cls: C, *, name: str | None = None, encode: Encode | None = None, decode: Decode | None = None) -> C: ...


@overload
def register(
    *, name: str | None = None, encode: Encode | None = None, decode: Decode | None = None
) -> Callable[[C], C]: ...


def register(
    cls: Any = None, *, name: str | None = None, encode: Encode | None = None, decode: Decode | None = None
) -> Any:
    """Let values of exactly ``cls`` be kept; returns ``cls``, so it can decorate: ``@register``, ``@register(name=…)``.

    ``name`` stands in the store and must outlive renames of the class; it defaults to ``cls.__qualname__``.
    ``encode(value)`` gives the state, ``decode(state)`` a value of the class again. Enums, dataclasses and named tuples
    need neither: an enum's state is the member's name (a Flag's: its value), that of the others a dict of the fields,
    and a dataclass is rebuilt without running ``__init__``.

    Registering a class again replaces its functions, and an earlier name of it can still be read. A class of the same
    module and qualified name (a notebook cell run again) takes the place of the old one. The name of any other class
    is a RegistrationError.
    """
    if cls is None:
        return functools.partial(register, name=name, encode=encode, decode=decode)
    if not isinstance(cls, type):
        raise RegistrationError(f"a class is registered, not {cls!r}", reason="not a class")
    if cls in _NATIVE or table.by_class(cls) is not None:
        raise RegistrationError(f"{cls.__qualname__} is kept exactly without being registered", reason="built in")
    default_encode, default_decode = _defaults(cls, encode, decode)
    _add(Registration(cls, cls.__qualname__ if name is None else name, default_encode, default_decode))
    return cls


@dataclass(frozen=True, slots=True)
class Registration:
    """A registered type. Its functions are the caller's, so what they raise is passed on, with a note."""

    cls: type
    name: str
    _encode: Encode
    _decode: Decode

    def encode(self, value: Any) -> Any:
        try:
            return self._encode(value)
        except UnsupportedValueError:
            raise  # the codec says where in the value
        except Exception as error:
            error.add_note(f"{_NOTE}encoded a value of the registered type {self.name!r}")
            raise

    def decode(self, state: Any) -> Any:
        try:
            return self._decode(state)
        except Exception as error:
            error.add_note(f"{_NOTE}decoded a value of the registered type {self.name!r}")
            raise


def by_class(cls: type) -> Registration | None:
    return _by_class.get(cls)


def by_name(name: Any) -> Registration:
    """The registered type of that name. Raises CodecError, with the line to write, where there is none."""
    if type(name) is not str:
        raise TypeError("a registered name is a str")
    found = _by_name.get(name)
    if found is None:
        line = f"trax.register({name.rpartition('.')[2] or 'cls'}, name={name!r})"
        raise CodecError(
            f"the store holds a value of the type {name!r}, which is not registered in this process; register its class"
            f" before reading: {line}",
            reason="type not registered",
        )
    return found


def raised_by_caller(error: BaseException) -> bool:
    """Whether ``error`` came out of a registered function: then it is the caller's, and no verdict on the bytes."""
    return any(note.startswith(_NOTE) for note in getattr(error, "__notes__", ()))


def _add(new: Registration) -> None:
    if type(new.name) is not str or not new.name:
        raise RegistrationError(f"a type is registered under a non-empty str, not {new.name!r}", reason="bad name")
    with _lock:
        old = _by_name.get(new.name)
        if old is not None and _origin(old.cls) != _origin(new.cls):
            raise RegistrationError(
                f"the name {new.name!r} already stands for {'.'.join(_origin(old.cls))}; register"
                f" {'.'.join(_origin(new.cls))} under another one: trax.register({new.cls.__name__}, name=…)",
                reason="name taken",
            )
        if old is not None and old.cls is not new.cls:
            _by_class.pop(old.cls, None)
        _by_class[new.cls] = _by_name[new.name] = new


def _origin(cls: type) -> tuple[str, str]:
    return cls.__module__, cls.__qualname__


# The defaults


def _defaults(cls: type, encode: Encode | None, decode: Decode | None) -> tuple[Encode, Decode]:
    if encode is not None and decode is not None:
        return encode, decode
    if issubclass(cls, enum.Flag):
        defaults: tuple[Encode, Decode] = (lambda member: member.value, functools.partial(_decode_member, cls, cls))
    elif issubclass(cls, enum.Enum):
        defaults = (lambda member: member.name, functools.partial(_decode_member, cls, cls.__getitem__))
    elif dataclasses.is_dataclass(cls):
        defaults = _dataclass_defaults(cls)
    elif is_named_tuple(cls):
        defaults = (_encode_named_tuple, functools.partial(_decode_named_tuple, cls))
    else:
        raise RegistrationError(
            f"{cls.__qualname__} is no enum, dataclass or named tuple, so say how it is kept:"
            f" trax.register({cls.__name__}, encode=…, decode=…)",
            reason="encode and decode are needed",
        )
    return encode or defaults[0], decode or defaults[1]


def is_named_tuple(cls: type) -> bool:
    return issubclass(cls, tuple) and hasattr(cls, "_fields")


def _decode_member(cls: type, find: Callable[[Any], Any], state: Any) -> Any:
    try:
        return find(state)
    except (KeyError, ValueError, TypeError):
        raise CodecError(
            f"the store holds the member {state!r} of {cls.__qualname__}, which has no such member now; add it, or give"
            " trax.register a decode= that knows what became of it",
            reason="no such enum member",
        ) from None


def _dataclass_defaults(cls: type) -> tuple[Encode, Decode]:
    try:
        object.__new__(cls)
    except TypeError as error:  # it derives from a builtin, or can't have instances
        raise RegistrationError(
            f"{cls.__qualname__} is more than its fields ({error}), so say how it is kept:"
            f" trax.register({cls.__name__}, encode=…, decode=…)",
            reason="not a plain dataclass",
        ) from error
    names = tuple(field.name for field in dataclasses.fields(cls))
    return functools.partial(_encode_dataclass, names), functools.partial(_decode_dataclass, cls, names)


def _encode_dataclass(names: tuple[str, ...], value: Any) -> dict[str, Any]:
    extra = [
        name
        for name in getattr(value, "__dict__", ())
        if name not in names and not isinstance(getattr(type(value), name, None), functools.cached_property)
    ]
    if extra:
        raise UnsupportedValueError(
            f"a {type(value).__qualname__} with attributes that are no fields ({', '.join(extra)}) can't be kept"
            " exactly; make them fields, or give trax.register encode= and decode=",
            reason="attributes beside the fields",
        )
    return {name: getattr(value, name) for name in names}


def _decode_dataclass(cls: type, names: tuple[str, ...], state: Any) -> Any:
    _check_fields(cls, names, state)
    value: Any = object.__new__(cls)
    for name in names:
        object.__setattr__(value, name, state[name])  # a frozen class refuses setattr
    return value


def _encode_named_tuple(value: Any) -> dict[str, Any]:
    return dict(zip(value._fields, value, strict=True))


def _decode_named_tuple(cls: Any, state: Any) -> Any:
    _check_fields(cls, cls._fields, state)
    return cls._make(state[name] for name in cls._fields)


def _check_fields(cls: type, names: tuple[str, ...], state: Any) -> None:
    if type(state) is not dict:
        raise CodecError(f"the state of a {cls.__qualname__} is no dict of its fields", reason="not a dict of fields")
    missing = [name for name in names if name not in state]
    extra = [str(name) for name in state if name not in names]
    if missing or extra:
        raise CodecError(
            f"the store holds a {cls.__qualname__} of another shape: missing fields: {', '.join(missing) or 'none'};"
            f" extra fields: {', '.join(extra) or 'none'}. Give trax.register a decode= that makes the present class"
            " from the old state",
            reason="the fields differ",
        )
