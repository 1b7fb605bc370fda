"""The mutants of ``tools/mutants.py`` fit the code, and every safeguard has one."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parent.parent
SYNCS = re.compile(r"\.(fsync|fdatasync|fsync_directory)\(|(?<!_)(writer|copy|storage|_writer)\.sync\(\)")
COMPARISONS = re.compile(
    r"crc32\(.*(!=|==)|(!=|==).*crc32\(|(if|elif|and|or) .*\b(chain|salt|epoch|store_id|generation)\b.*(!=|==| [<>]=? )"
    r"|(!=|==).*\b(chain|salt|epoch|store_id|generation)\b"
)


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    path = ROOT / "tools" / "mutants.py"
    if not path.exists():
        pytest.skip("the tools are not here: a copy in which one mutant is tried")
    spec = importlib.util.spec_from_file_location("mutants", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_mutant_fits_the_code(tool: ModuleType) -> None:
    names = [mutant.what for mutant in tool.MUTANTS]
    assert len(set(names)) == len(names)
    for mutant in tool.MUTANTS:
        text = (ROOT / mutant.file).read_text()
        changed = tool.apply(mutant, text)
        assert changed is not None, f"{mutant.what}: the text is not found once in {mutant.file}"
        assert changed != text, mutant.what
        compile(changed, mutant.file, "exec")


def lines_that(pattern: re.Pattern[str]) -> list[tuple[str, int, str]]:
    found = []
    for path in sorted((ROOT / "trax").rglob("*.py")):
        file = str(path.relative_to(ROOT))
        if file.startswith(("trax/testing", "trax/codecs", "trax/cli")):
            continue
        for number, line in enumerate(path.read_text().splitlines(), 1):
            code = line.partition("  #")[0].strip()
            only_sanity = code.startswith("assert ") or "len(store_id)" in code or "len(_expect(" in code
            if pattern.search(code) and not only_sanity and not code.startswith(("def ", "#", '"')):
                found.append((file, number, code))
    return found


def covered(tool: ModuleType) -> set[tuple[str, int]]:
    """The lines that some mutant changes."""
    found = set()
    for mutant in tool.MUTANTS:
        text = (ROOT / mutant.file).read_text()
        for old, _ in ((mutant.old, mutant.new), *mutant.also):
            first = text[: text.index(old)].count("\n") + 1
            found |= {(mutant.file, first + extra) for extra in range(old.rstrip("\n").count("\n") + 1)}
    return found


@pytest.mark.parametrize("pattern", [SYNCS, COMPARISONS], ids=["fsyncs", "comparisons"])
def test_every_safeguard_has_a_mutant(tool: ModuleType, pattern: re.Pattern[str]) -> None:
    lines = lines_that(pattern)
    assert len(lines) > 15
    without = [one for one in lines if one[:2] not in covered(tool)]
    assert without == []
