"""The commands that take a store elsewhere: export, import."""

from __future__ import annotations

import os
import stat
import sys
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

from trax.cli.codes import OK
from trax.cli.output import complain, count, paragraph
from trax.cli.values import check_pickle, import_modules
from trax.errors import CodecError
from trax.interchange import Counts, export_store, import_store
from trax.storage.local.refusal import asking


def export(options: Namespace) -> int:
    import_modules(options.modules)
    try:
        if options.output in (None, "-"):
            export_store(options.path, sys.stdout.buffer, codec=options.codec)
            return OK
        with asking("write", options.output), _replacing(options.output) as file:
            counts = export_store(options.path, file, codec=options.codec)
    except CodecError as error:
        check_pickle("pickle" if error.reason == "pickle must be asked for" else "", options.codec, options.path)
        raise
    complain(f"exported {_text(counts)} to {options.output}")
    return OK


def import_(options: Namespace) -> int:
    import_modules(options.modules)
    try:
        if options.file == "-":
            counts = import_store(sys.stdin.buffer, options.path, source="standard input", codec=options.codec)
        else:
            with asking("read", options.file), open(options.file, "rb") as file:
                counts = import_store(file, options.path, source=options.file, codec=options.codec)
    except CodecError as error:
        check_pickle("pickle" if error.reason == "pickle must be asked for" else "", options.codec, options.file)
        raise
    paragraph(f"imported {_text(counts)} to {os.path.abspath(options.path)}")
    return OK


def _text(counts: Counts) -> str:
    return f"{count(counts.names, 'name')} and {count(counts.records, 'record')}"


@contextmanager
def _replacing(path: str) -> Iterator[BinaryIO]:
    """The file to write, which takes its name when it is complete, and not at all if the block fails."""
    if os.path.exists(path) and not stat.S_ISREG(os.stat(path).st_mode):
        with open(path, "wb") as file:  # a pipe or a device keeps its name
            yield file
        return
    beside = f"{os.path.realpath(path)}.exporting-{os.getpid()}"
    try:
        with open(beside, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())  # makes durable: the contents, before the name leads to them
        os.replace(beside, os.path.realpath(path))
    except BaseException:
        if os.path.exists(beside):
            os.unlink(beside)
        raise
