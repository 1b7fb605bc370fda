"""What a function does, as far as that can be told, in a few bytes.

A digest covers the function's name and its instructions, constants and names; those of functions inside it; its
defaults and what it closes over; and the same of the functions of its module that it names, and of the constants there
whose names are in capitals. Its place in its file and its docstring are not covered, nor what other modules do.
Instructions are those of one version of Python: under another one, functions are not compared.
"""

from __future__ import annotations

import dis
import functools
import hashlib
import sys
from collections.abc import Callable
from types import CodeType, FunctionType, MethodType
from typing import Any

_DIGEST_BYTES = 16
_PLAIN = (type(None), bool, int, float, complex, str, bytes, type(Ellipsis))

Fingerprint = list[Any]
"""The version of Python, the function's name, and the digest."""


def fingerprint(function: Callable[..., Any]) -> Fingerprint:
    # Without the module, which is "__main__" or not as the script is started.
    name = getattr(function, "__qualname__", type(function).__qualname__)
    walk = _Walk()
    walk.add(function)
    return [sys.version_info[:2], name, walk.digest()]


def is_another(stored: Fingerprint, now: Fingerprint) -> bool:
    """Whether the functions are known to differ."""
    return bool(stored[0] == now[0] and stored != now)


def key_of(stored: Fingerprint) -> str:
    """How a fingerprint is written: in messages, and in ``upgrade=``."""
    return f"{stored[1]}:{stored[2].hex()[:12]}"


class _Walk:
    """Goes through a function and those that it names; each is entered once."""

    def __init__(self) -> None:
        self._hash = hashlib.blake2b(digest_size=_DIGEST_BYTES)
        self._entered: set[int] = set()

    def digest(self) -> bytes:
        return self._hash.digest()

    def add(self, value: Any) -> None:
        """A value that a function is made of, or refers to."""
        if isinstance(value, MethodType):
            self.add(value.__func__)
        elif isinstance(value, functools.partial):
            self._note("partial", *sorted(value.keywords))
            self._each([value.func, *value.args, *(value.keywords[key] for key in sorted(value.keywords))])
        elif isinstance(value, FunctionType):
            self._add_function(value)
        elif isinstance(value, CodeType):
            self._add_code(value)
        elif isinstance(value, _PLAIN):
            self._note(f"{type(value).__name__} {value!r}")
        elif isinstance(value, tuple):
            self._note(f"tuple {len(value)}")
            self._each(value)
        elif isinstance(value, frozenset):
            self._note(f"frozenset {sorted(map(repr, value))}")
        else:
            # What it holds may change while the job runs. But what it does when it is called is its class's.
            self._note(f"a {type(value).__qualname__}")
            called = vars(type(value)).get("__call__")
            if isinstance(called, FunctionType):
                self._add_function(called)

    def _add_function(self, function: FunctionType) -> None:
        if id(function) in self._entered:
            self._note(f"again {function.__qualname__}")
            return
        self._entered.add(id(function))
        code, space = function.__code__, function.__globals__
        self.add(_without_docstring(code, function.__doc__))
        self.add(function.__defaults__)
        defaults = function.__kwdefaults__ or {}
        self._note(*defaults)
        self._each(defaults.values())
        for cell in function.__closure__ or ():
            try:
                self.add(cell.cell_contents)
            except ValueError:
                self._note("an empty cell")
        for name in _names_in(code):
            value = space.get(name)
            if isinstance(value, FunctionType) and value.__globals__ is space:
                self.add(value)
            elif name.isupper() and isinstance(value, (*_PLAIN, tuple)):
                self._note(name)
                self.add(value)

    def _add_code(self, code: CodeType) -> None:
        self._hash.update(len(code.co_code).to_bytes(8, "little") + code.co_code)
        self._note(repr(code.co_names), repr(code.co_varnames), repr(code.co_freevars))
        self._each(code.co_consts)

    def _each(self, values: Any) -> None:
        for value in values:
            self.add(value)

    def _note(self, *texts: str) -> None:
        for text in texts:
            data = text.encode("utf-8", "surrogatepass")
            self._hash.update(len(data).to_bytes(8, "little") + data)


def _without_docstring(code: CodeType, docstring: str | None) -> CodeType:
    """The code of a function as if it had none, unless an instruction uses the very constant."""
    constants = code.co_consts
    if docstring is None or not constants or constants[0] != docstring:
        return code
    if any(one.opcode in dis.hasconst and one.arg == 0 for one in dis.get_instructions(code)):
        return code
    return code.replace(co_consts=(None, *constants[1:]))


def _names_in(code: CodeType) -> list[str]:
    """The names that the code uses, with those of the functions inside it."""
    names = dict.fromkeys(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            names |= dict.fromkeys(_names_in(constant))
    return list(names)
