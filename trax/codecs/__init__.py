"""Values to bytes and back: the codecs, by name, and the registry of the caller's own types.

``base.py`` says what a codec is. ``table.py`` is the table of what the two exact codecs, msgpack and JSON, keep beyond
their own notations; ``standard.py``, ``arrays.py`` and ``generators.py`` hold the functions behind it, ``registry.py``
the types that the caller adds, ``refusal.py`` the reasons for what is not kept, ``limits.py`` the bounds.
``buffers.py`` carries large arrays past the encoding. NumPy is imported when the first value of one of its types comes
by, and not before.
"""

from __future__ import annotations

import importlib

from trax.codecs.base import CODECS, Buffer, BufferSource, Codec, Encoded
from trax.codecs.buffers import for_background
from trax.codecs.registry import register
from trax.errors import InvalidArgumentError

__all__ = ["CODECS", "Buffer", "BufferSource", "Codec", "Encoded", "for_background", "get_codec", "register"]


def get_codec(name: str) -> Codec:
    """A codec by its name: ``"msgpack"``, ``"json"`` or ``"pickle"`` (read the warning in ``trax.codecs.pickle``)."""
    if name not in CODECS:
        raise InvalidArgumentError(
            f"there is no codec {name!r}; choose one of {', '.join(map(repr, CODECS))}", reason="unknown codec"
        )
    codec: Codec = getattr(importlib.import_module(f"{__name__}.{name}"), CODECS[name])()
    return codec
