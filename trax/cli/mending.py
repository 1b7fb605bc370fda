"""The commands that change a store: repair, unlock. Both say what they will do, and ask."""

from __future__ import annotations

import sys
from argparse import Namespace

from trax.cli.codes import FAILED, NOT_CONFIRMED, OK
from trax.cli.output import complain, items, paragraph, problem_text
from trax.repair import Repair
from trax.storage.local.fs import LocalFileSystem
from trax.storage.local.layout import Layout
from trax.unlock import OwnerFile


def repair(options: Namespace) -> int:
    with Repair(options.path) as found:
        plan = found.plan
        if not found.needed:
            paragraph(f"{found.path}: nothing to repair")
            return OK
        _list("What is wrong:", [problem_text(problem, found.path) for problem in plan.problems])
        if not found.possible:
            _list("It can't be repaired. What is there:", plan.notes)
            paragraph("Restore the store from a copy. Nothing was changed.")
            return FAILED
        _list("What will be lost:", plan.lost or ["nothing"])
        _list("What will be kept:", plan.stays or ["no names: the store will be empty"])
        _list("To know:", plan.notes)
        paragraph(f"Every file that is replaced or left out is kept under {found.removed}")
        if not _confirmed(options, "Repair the store like this?"):
            return NOT_CONFIRMED
        verified = found.carry_out()
        if verified.ok:
            paragraph(f"{found.path}: repaired; what it had before is under {found.removed}")
            return OK
        complain(f"{found.path} was repaired, and reading it again still found problems:")
        items([problem_text(problem, found.path) for problem in verified.problems])
        return FAILED


def unlock(options: Namespace) -> int:
    file = OwnerFile(LocalFileSystem(), Layout(options.path))
    paragraph(file.description)
    if not file.may_be_removed:
        return FAILED
    if not _confirmed(options, "Remove the owner file, so that another writer can open the store?"):
        return NOT_CONFIRMED
    file.remove()
    paragraph(f"{file.store}: unlocked")
    return OK


def _list(heading: str, texts: list[str]) -> None:
    if texts:
        print(heading)
        items(texts)
        print()


def _confirmed(options: Namespace, question: str) -> bool:
    if options.yes:
        return True
    sys.stdout.flush()
    if sys.stdin is not None and sys.stdin.isatty():
        print(f"{question} [y/N] ", end="", file=sys.stderr, flush=True)
        if sys.stdin.readline().strip().lower() in ("y", "yes"):
            return True
        complain("nothing was changed")
    else:
        complain("nothing was changed: there is no terminal to ask on; --yes does it without asking")
    return False
