"""Imports go downward only, the operating system's file functions are called in one place, and the package is typed."""

from __future__ import annotations

import ast
import functools
import subprocess
import sys
from pathlib import Path

import pytest

import trax

PACKAGE = Path(trax.__file__).parent

FLOORS = [
    {"trax._version", "trax.errors", "trax.lengths"},
    {"trax.codecs"},
    {"trax.storage", "trax.storage.base"},
    {"trax.storage.local.crc"},
    {"trax.storage.local.fs", "trax.storage.local.framing", "trax.storage.local.layout", "trax.storage.local.owner"},
    {"trax.storage.local.refusal", "trax.storage.local.payload"},
    {"trax.storage.local"},
    {"trax.guard"},
    {"trax.commit", "trax.replay", "trax.names", "trax.options"},
    {"trax.encoding"},
    {"trax.publish", "trax.testing.differences", "trax.testing.array_differences"},
    {"trax.batch", "trax.writer"},
    {"trax.records"},
    {"trax.inspection"},
    {"trax.store"},
    {"trax.interchange", "trax.salvage", "trax.repair_plan", "trax.repair", "trax.unlock"},
    {"trax"},
    {"trax.layers"},
    {"trax.events", "trax.positions", "trax.consumer", "trax.job"},
    {"trax.compat"},
    {"trax.testing"},
    {"trax.cli", "trax.__main__"},
]
"""Each floor may import from those before it, and within itself. The longest entry that a module begins with counts."""


CALLERS_OF_THE_STORAGE = (
    *("trax.storage", "trax.commit", "trax.publish", "trax.store"),
    *("trax.layers", "trax.events", "trax.positions", "trax.compat.checkpoint_logger"),
)


@functools.cache
def modules() -> dict[str, Path]:
    found = {}
    for path in PACKAGE.rglob("*.py"):
        parts = ("trax", *path.relative_to(PACKAGE).with_suffix("").parts)
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def floor_of(module: str) -> int:
    entries = [(len(entry), number) for number, floor in enumerate(FLOORS) for entry in floor if is_in(module, entry)]
    return max(entries)[1]


def is_in(module: str, entry: str) -> bool:
    return module == entry or (entry != "trax" and module.startswith(entry + "."))


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            named = {f"{node.module}.{alias.name}" for alias in node.names}
            # "from a.b import c" with a module c is an import of a.b.c; the package itself is empty, or below it.
            found |= named if named <= modules().keys() else named | {node.module}
    return {name for name in found if name.split(".")[0] == "trax"}


def test_every_module_has_a_floor_and_imports_go_downward() -> None:
    known = modules()
    upward = [
        f"{module} imports {other}"
        for module, path in known.items()
        for other in imports(path) & known.keys()
        if other != "trax" and floor_of(other) > floor_of(module)
    ]
    assert len(known) > 30
    assert upward == ["trax imports trax.job"], "for type checkers; at run time when trax.Job is first used"


def test_only_one_module_calls_the_file_functions_of_the_operating_system() -> None:
    forbidden = {
        "open",
        "fsync",
        "fdatasync",
        "rename",
        "replace",
        "unlink",
        "remove",
        "mkdir",
        "makedirs",
        "link",
        "ftruncate",
    }
    found = []
    for module, path in modules().items():
        if not module.startswith(CALLERS_OF_THE_STORAGE) or module.endswith(".fs"):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                function = node.func
                if isinstance(function, ast.Name) and function.id == "open":
                    found.append((module, "open"))
                if isinstance(function, ast.Attribute) and ast.unparse(function.value) in ("os", "shutil", "pathlib"):
                    found += [(module, function.attr)] * (function.attr in forbidden)
    assert found == [("trax.storage.local.owner", "open")], "which reads the facts of the machine in /proc"


def test_the_storage_knows_no_codec_but_the_protocol() -> None:
    for module, path in modules().items():
        if module.startswith("trax.storage"):
            codecs = {other for other in imports(path) if other.startswith("trax.codecs")}
            assert {other for other in codecs if not other.startswith("trax.codecs.base")} <= {"trax.codecs"} - {
                "trax.codecs"
            }


def test_importing_trax_imports_no_optional_package() -> None:
    optional = {"numpy", "rich", "yaml", "tqdm", "pickle", "msgspec", "isal"}
    script = f"import sys, trax; print(sorted({optional!r} & set(sys.modules)))"
    out = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.strip()
    assert out in ("[]", "['pickle']"), out


USE = """
import trax
from concurrent.futures import Future

def use() -> None:
    with trax.Trax("s", mode="a", sync="os", keep=2, buffer_bytes=10) as store:
        sequence: int = store.log(a=1)
        sequence = store.checkpoint({"a b": 2}, c=3)
        future: Future[int] = store.checkpoint_async(a=1)
        state = store.recover("a", create=lambda: 1, replay_log=lambda state, entry: state + entry)
        with store.batch() as batch:
            batch.log(a=1)
        info: list[trax.SnapshotInfo] = store.snapshots()
"""
MISUSE = 'import trax\ntrax.Trax("s", mode="w")\ntrax.Trax("s").log(1)\n'


@pytest.mark.parametrize(("script", "errors"), [(USE, 0), (MISUSE, 2)])
def test_type_checkers_see_the_interface(tmp_path: Path, script: str, errors: int) -> None:
    pytest.importorskip("mypy", reason="mypy is not installed")
    (tmp_path / "use.py").write_text(script)
    command = [sys.executable, "-m", "mypy", "--strict", "--no-incremental", "--cache-dir", str(tmp_path), "use.py"]
    environment = {"MYPYPATH": str(PACKAGE.parent), "PATH": ""} if "site-packages" not in str(PACKAGE) else None
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, env=environment)
    assert run.stdout.count("use.py:") == errors, run.stdout
