"""``python -m benchmarks``: run cases, print their tables, keep the results, write the page."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

if not __package__:
    # Run by its path, as the Makefile does: the checkout comes last, so that the installed trax is measured.
    sys.path[:] = [path for path in sys.path if path != str(Path(__file__).parent)]
    sys.path.append(str(Path(__file__).resolve().parent.parent))

ROUNDS = {"full": 5, "quick": 2, "tiny": 1}


def main(arguments: list[str]) -> int:
    if arguments[:1] == ["child"]:
        from benchmarks.child import main as child

        return child(arguments[1:])
    options = parse(arguments)
    if options.list:
        for case in options.cases:
            print(f"{case.key:10} {case.title}")
        return 0
    if options.results is not None:
        data = json.loads(options.results.read_text(encoding="utf-8"))
        show_machine(data)
        for key, case in data["cases"].items():
            show_case(key, case)
    else:
        data = run(options)
    if options.page is not None:
        from benchmarks.page import write_page

        write_page(data, options.page)
    outcomes = [outcome for case in data["cases"].values() for outcome in case["contestants"].values()]
    return 1 if any("error" in outcome for outcome in outcomes) else 0


def parse(arguments: list[str]) -> argparse.Namespace:
    from benchmarks.cases import choose

    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--cases", default="", help="as in B1,B5; all without it. B4 means B4-8 and B4-32")
    parser.add_argument("--rounds", type=int, help="how often each contestant has its turn")
    scale = parser.add_mutually_exclusive_group()
    for name in ("quick", "tiny"):
        scale.add_argument(f"--{name}", dest="scale", action="store_const", const=name, default="full")
    parser.add_argument("--directory", type=Path, help="where the stores are made; its file system is what is measured")
    parser.add_argument("--output", type=Path, metavar="RESULTS.json", help="keep the results")
    parser.add_argument("--results", type=Path, metavar="RESULTS.json", help="run nothing, show what was kept")
    parser.add_argument("--page", type=Path, metavar="PAGE.rst", help="put the tables and pictures into this page")
    parser.add_argument("--list", action="store_true", help="the cases, and no more")
    options = parser.parse_args(arguments)
    try:
        options.cases = choose([word for word in options.cases.split(",") if word])
    except ValueError as error:
        parser.error(str(error))
    options.rounds = options.rounds or ROUNDS[options.scale]
    options.command = "python -m benchmarks " + " ".join(arguments)
    return options


def run(options: argparse.Namespace) -> dict[str, Any]:
    from benchmarks.machine import describe
    from benchmarks.runner import run_case

    def say(text: str) -> None:
        print(f"[{time.monotonic() - began:6.0f} s] {text}", file=sys.stderr, flush=True)

    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="trax-bench-", dir=options.directory) as directory:
        data: dict[str, Any] = {
            "command": options.command,
            "scale": options.scale,
            "rounds": options.rounds,
            "machine": describe(Path(directory)),
            "cases": {},
        }
        if data["machine"]["file system"].startswith(("tmpfs", "ramfs", "overlay")):
            say("an fsync costs nothing on this file system: choose another one with --directory")
        show_machine(data)
        for case in options.cases:
            data["cases"][case.key] = run_case(case, options.scale, options.rounds, Path(directory), say)
            show_case(case.key, data["cases"][case.key])
            if options.output is not None:
                options.output.write_text(json.dumps(data, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return data


def show_machine(data: dict[str, Any]) -> None:
    print(", ".join(f"{name} {fact}" for name, fact in data["machine"].items()), end="\n\n", flush=True)


def show_case(key: str, case: dict[str, Any]) -> None:
    from benchmarks.cases import find_case
    from benchmarks.results import CaseResults
    from benchmarks.text import report

    print(report(CaseResults(find_case(key), case)), flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
