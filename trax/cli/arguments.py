"""What the commands are called and take."""

from __future__ import annotations

import argparse
from argparse import ArgumentParser, _SubParsersAction
from typing import TypeAlias

from trax._version import __version__

_EPILOG = """\
exit codes:
  0    all is well
  1    a problem was found, or the command failed; a message on stderr says why
  2    wrong usage
  3    a change was not confirmed (repair, unlock): nothing was changed
  130  interrupted
"""

_Parsers: TypeAlias = "_SubParsersAction[ArgumentParser]"  # generic for type checkers only


def parser() -> ArgumentParser:
    top = ArgumentParser(
        prog="trax",
        description="Look at a trax store, take it elsewhere, put it right.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action="version", version=f"trax {__version__}")
    commands = top.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _looking(commands)
    _moving(commands)
    _mending(commands)
    return top


def _looking(commands: _Parsers) -> None:
    info = _command(commands, "info", "looking", "what a store is and holds", may_be_cut_off=True)
    _path(info, optional=True)
    info.add_argument("--json", action="store_true", help="one JSON object instead of text")
    log = _command(commands, "log", "looking", "the records of the log, one a line", may_be_cut_off=True)
    _path(log, optional=True)
    log.add_argument("--name", action="append", metavar="N", help="only this name; may be given more than once")
    log.add_argument(
        "--after",
        type=_sequence,
        metavar="SEQ",
        help="what was logged behind this sequence, not what is behind each name's cut",
    )
    log.add_argument("--follow", action="store_true", help="go on with what is logged from now on, until Ctrl-C")
    log.add_argument("--json", action="store_true", help="one JSON object a line, values in their exact form")
    _values(log)
    verify = _command(commands, "verify", "looking", "read every byte of a store and check it")
    _path(verify, optional=True)
    consumer = _command(commands, "consumer", "streams", "how far consumers have come", may_be_cut_off=True)
    _path(consumer, optional=True)
    consumer.add_argument("--stream", metavar="S", help="only this stream, with its unfinished and exhausted records")
    consumer.add_argument("--json", action="store_true", help="one JSON object instead of text")
    consumer.add_argument("--codec", choices=["pickle"], help="needed only for pickle, which runs code in the files")


def _moving(commands: _Parsers) -> None:
    export = _command(commands, "export", "moving", "write a store to a file of JSON lines, without loss")
    _path(export, optional=True)
    export.add_argument("-o", "--output", metavar="FILE", help="the file; standard output if it is not given")
    _values(export)
    take = _command(commands, "import", "moving", "make a store of an exported file")
    take.add_argument("file", metavar="FILE", help="what export wrote; - for standard input")
    _path(take)
    _values(take, "the codec of the new store; that of the exported one if it is not given")


def _mending(commands: _Parsers) -> None:
    repair = _command(commands, "repair", "mending", "put a damaged store right, after saying what will be lost")
    _path(repair)
    _yes(repair)
    unlock = _command(commands, "unlock", "mending", "free a store whose owner file was left behind")
    _path(unlock)
    _yes(unlock)


def _command(commands: _Parsers, name: str, module: str, text: str, *, may_be_cut_off: bool = False) -> ArgumentParser:
    command = commands.add_parser(
        name,
        help=text,
        description=f"{text[0].upper()}{text[1:]}.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    function = {"import": "import_"}.get(name, name)
    command.set_defaults(module=module, function=function, may_be_cut_off=may_be_cut_off)
    return command


def _path(command: ArgumentParser, *, optional: bool = False) -> None:
    text = "the store's directory" + (" (default: .trax)" if optional else "")
    if optional:
        command.add_argument("path", metavar="PATH", nargs="?", default=".trax", help=text)
    else:
        command.add_argument("path", metavar="PATH", help=text)


def _values(
    command: ArgumentParser,
    codec: str = "the store's codec; needed only for pickle, which runs the code that the store's files contain",
) -> None:
    command.add_argument("--codec", choices=["msgpack", "json", "pickle"], help=codec)
    command.add_argument(
        "--import-module",
        action="append",
        default=[],
        dest="modules",
        metavar="MOD",
        help="import this module first: it registers types of its own",
    )


def _yes(command: ArgumentParser) -> None:
    command.add_argument("--yes", action="store_true", help="do it without asking")


def _sequence(text: str) -> int:
    number = int(text)
    if number < 0:
        raise ValueError
    return number


_sequence.__name__ = "sequence"  # argparse names it when it refuses a text
