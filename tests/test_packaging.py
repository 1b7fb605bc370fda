"""What is installed: the metadata, the wheel, what it needs, and where it comes from."""

from __future__ import annotations

import importlib.metadata
import os
import re
import subprocess
import sys
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

import trax
from trax._version import __version__

ROOT = Path(__file__).parent.parent
WHEEL = os.environ.get("TRAX_TEST_WHEEL", "")
needs_wheel = pytest.mark.skipif(not WHEEL, reason="make test builds the wheel and names it in TRAX_TEST_WHEEL")

ONLY_THE_CORE = """
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        known = sys.stdlib_module_names | {"trax", "msgpack", "filelock"}
        if name.partition(".")[0] not in known and not name.startswith("_sysconfigdata"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Blocker())
"""


def python(code: str, directory: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=directory,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.skipif("TRAX_TEST_INSTALLED" not in os.environ, reason="only make test runs against the installed wheel")
def test_tests_run_against_the_installed_wheel() -> None:
    assert "site-packages" in Path(trax.__file__).parts
    code = "import trax; print(trax.__file__)"
    assert python(code, ROOT).stdout.strip() == trax.__file__, "a child process imports ./trax"


def test_import_and_store_need_only_the_core(tmp_path: Path) -> None:
    code = f"""{ONLY_THE_CORE}
import trax
with trax.Trax("store") as store:
    store.log(name="entry")
    store.checkpoint(name=["value"])
    assert store.recover("name") == ["value"]
assert "numpy" not in sys.modules
"""
    done = python(code, tmp_path)
    assert done.returncode == 0, done.stderr
    assert "ModuleNotFoundError" in python(f"{ONLY_THE_CORE}\nimport numpy", tmp_path).stderr


def test_import_alone_does_not_load_what_is_optional(tmp_path: Path) -> None:
    code = "import sys, trax; print(sorted({'numpy', 'yaml', 'rich', 'tqdm', 'isal', 'msgspec'} & set(sys.modules)))"
    assert python(code, tmp_path).stdout == "[]\n"


@needs_wheel
def test_metadata() -> None:
    distribution = importlib.metadata.distribution("trax-log")
    assert distribution.version == __version__ == trax.__version__
    assert distribution.metadata["License-Expression"] == "MIT"
    assert distribution.metadata["Requires-Python"] == ">=3.11"
    core = {requirement for requirement in distribution.requires or [] if "extra ==" not in requirement}
    assert core == {"msgpack>=1.1", "filelock>=3.30"}
    extras = set(distribution.metadata.get_all("Provides-Extra") or [])
    assert extras == {"numpy", "cli", "fast", "yaml", "progress", "all", "test", "lint", "docs", "bench"}
    assert {(point.group, point.name, point.value) for point in distribution.entry_points} == {
        ("console_scripts", "trax", "trax.cli:main"),
        ("pytest11", "trax", "trax.testing.plugin"),
    }


@needs_wheel
def test_wheel_holds_the_package_its_types_and_its_licence_and_nothing_else() -> None:
    with zipfile.ZipFile(WHEEL) as archive:
        names = set(archive.namelist())
        (licence,) = (name for name in names if name.endswith("licenses/COPYING"))
        assert b"trax contributors" in archive.read(licence)
        (metadata,) = (name for name in names if name.endswith(".dist-info/METADATA"))
        assert Parser().parsestr(archive.read(metadata).decode())["Name"] == "trax-log"
    assert "trax/py.typed" in names
    assert {name.partition("/")[0].partition("-")[0] for name in names} == {"trax", "trax_log"}
    assert {name for name in names if name.startswith("trax/")} == {
        path.relative_to(ROOT).as_posix()
        for pattern in ("*.py", "py.typed")
        for path in ROOT.glob(f"trax/**/{pattern}")
    }


@needs_wheel
def test_installs_under_a_prefix(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--ignore-installed", "--no-compile"]
    subprocess.run([*command, "--prefix", str(tmp_path / "tools"), WHEEL], check=True)
    (package,) = tmp_path.glob("tools/lib/python*/site-packages/trax")
    done = python("import trax; print(trax.__file__)", tmp_path, PYTHONPATH=str(package.parent))
    assert done.stdout.strip() == str(package / "__init__.py"), done.stderr
    assert os.access(tmp_path / "tools/bin/trax", os.X_OK)


@pytest.mark.parametrize(
    ("trouble", "message"),
    [
        ("sys.version_info = (3, 9, 18)", "trax needs Python 3.11 or newer"),
        ("sys.modules['ensurepip'] = None", "came without its module 'ensurepip'"),
    ],
)
def test_setting_up_says_in_plain_words_what_is_missing(trouble: str, message: str, tmp_path: Path) -> None:
    script = str(ROOT / "tools" / "environment.py")
    code = f"import runpy, sys; {trouble}; sys.argv = [{script!r}, 'venv', 'wheel']\n"
    code += f"runpy.run_path({script!r}, run_name='__main__')"
    done = python(code, tmp_path)
    assert done.returncode == 1
    assert message in done.stderr
    assert "make PYTHON=" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())


@needs_wheel
def test_setting_up_without_a_network_says_so(tmp_path: Path) -> None:
    (tmp_path / "venv").mkdir()
    code = (
        f"import runpy, sys; runpy.run_path({str(ROOT / 'tools' / 'environment.py')!r})"
        "['pip'](sys.executable, 'venv/pip.log', 'install', '--target', 'venv', '--ignore-installed', 'msgpack')"
    )
    done = python(code, tmp_path, PIP_NO_INDEX="1", PIP_CONFIG_FILE=os.devnull, PIP_FIND_LINKS="")
    assert done.returncode == 1
    assert "pip could not get msgpack. Most likely there is no network here" in done.stderr
    assert "What pip said is in venv/pip.log" in done.stderr
    assert len(done.stderr.splitlines()) <= 4
    assert "No matching distribution" in (tmp_path / "venv" / "pip.log").read_text()


def test_nothing_tells_users_to_install_the_other_project() -> None:
    advice = re.compile(r"""pip3?\s+install\s+(?:-\S+\s+)*["'`]*trax(?![-_]log|[\w/])""")
    assert advice.search("pip install -U trax")
    assert advice.search("pip install 'trax[numpy]'")
    assert not advice.search("pip install 'trax-log[numpy]'")
    folders = ("trax", "docs", "examples", "tools", ".ci")
    paths = [path for folder in folders for path in (ROOT / folder).rglob("*") if path.suffix in {".py", ".rst", ""}]
    paths += [*ROOT.glob("*.rst"), ROOT / "Makefile", ROOT / "setup.py"]
    assert [path for path in paths if path.is_file() and advice.search(path.read_text(encoding="utf-8"))] == []
