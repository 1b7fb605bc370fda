"""The command line: looking at a store, taking it elsewhere, and putting it right.

``arguments.py``  what the commands are called and take
``output.py``     tables and messages, for a terminal and for a pipe
``looking.py``    info, log, verify
``streams.py``    consumer
``moving.py``     export, import
``mending.py``    repair, unlock

Each command returns its exit code; what goes wrong is a :class:`trax.TraxError`, which becomes one message here.
"""

from __future__ import annotations

import importlib
import os
import sys
import warnings
from argparse import Namespace
from collections.abc import Callable, Sequence
from typing import TextIO

from trax.cli import arguments, output
from trax.cli.codes import FAILED, INTERRUPTED, OK
from trax.errors import StoreNotFoundError, TraxError, TraxWarning

Command = Callable[[Namespace], int]


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code, and leaves by SystemExit only for ``--help`` and wrong usage."""
    output.prepare()
    _show_warnings_plainly()
    options = arguments.parser().parse_args(argv)
    try:
        command: Command = getattr(importlib.import_module(f"trax.cli.{options.module}"), options.function)
        code = command(options)
        sys.stdout.flush()
        return code
    except TraxError as error:
        output.complain(_hint(error, options))
        return FAILED
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read the output wants no more of it; Python would complain again when it closes stdout.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return OK if options.may_be_cut_off else FAILED
    except OSError as error:  # of the output, or of a file that is none of a store's
        output.complain(str(error))
        return FAILED


def _hint(error: TraxError, options: Namespace) -> str:
    text = str(error)
    if isinstance(error, StoreNotFoundError):
        return f"there is no store at {error.path}"
    if error.reason == "type not registered" and "modules" in options:
        return f"{text}. --import-module NAME imports the module that does so."
    return text


def _show_warnings_plainly() -> None:
    show = warnings.showwarning

    def show_plainly(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        if issubclass(category, TraxWarning):
            output.complain(f"warning: {message}")
        else:
            show(message, category, filename, lineno, file, line)

    warnings.showwarning = show_plainly
