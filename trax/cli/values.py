"""What a command needs before it decodes values: the store's codec, and the types that the user registers."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterable

from trax.codecs import get_codec
from trax.codecs.base import Codec
from trax.errors import CodecError, DependencyError
from trax.storage.local.reader import check_codec
from trax.storage.local.snapshot import Snapshot


def import_modules(names: Iterable[str]) -> None:
    """Import modules that register types; those of the working directory are found, as ``python -m`` finds them."""
    for name in names:
        if os.getcwd() not in sys.path:
            sys.path.insert(0, os.getcwd())
        try:
            importlib.import_module(name)
        except ImportError as error:
            text = f"--import-module {name}: it can't be imported: {error}"
            raise DependencyError(text, reason="module not importable") from error


def codec_of(snapshot: Snapshot, asked: str | None, path: str) -> Codec:
    """The store's codec; pickle only if it was asked for."""
    check_pickle(snapshot.codec, asked, path)
    check_codec(asked, snapshot.codec, path)
    return get_codec(snapshot.codec)


def check_pickle(codec: str, asked: str | None, path: str) -> None:
    if codec == "pickle" and asked is None:
        text = (
            f"{path} holds pickles, and unpickling runs whatever code they contain. If you trust everyone who could "
            f"write to it, give --codec pickle."
        )
        raise CodecError(text, path=path, reason="pickle must be asked for")
