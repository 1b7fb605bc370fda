"""The demo: a job that was killed ends where an unkilled one does, and the comparison would see it if it didn't."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"

pytest.importorskip("numpy")


@pytest.fixture
def demo(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    monkeypatch.syspath_prepend(EXAMPLES)
    import demo

    yield demo
    for name in ("demo", "nile_mcmc"):
        sys.modules.pop(name, None)


def test_killed_job_ends_where_an_unkilled_one_does() -> None:
    command = [sys.executable, str(EXAMPLES / "demo.py"), "--steps", "1500", "--kills", "6", "--seed", "1"]
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONSAFEPATH"}  # it imports nile_mcmc
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Killed 6 times or never: the same, bit for bit." in done.stdout
    assert done.stdout.count("  same\n") == 3
    assert max(map(len, done.stdout.splitlines())) <= 80


def test_job_can_be_resumed_in_pieces(demo: ModuleType, tmp_path: Path) -> None:
    class Stop(Exception):  # noqa: N818
        pass

    def stop_at(length: int) -> None:
        if length and length % 170 == 0 and length > stop_at.reached:  # type: ignore[attr-defined]
            stop_at.reached = length  # type: ignore[attr-defined]
            raise Stop

    stop_at.reached = 0  # type: ignore[attr-defined]
    chain = None
    while chain is None:
        try:
            chain = demo.nile_mcmc.run(tmp_path / "store", 600, stop_at)
        except Stop:
            pass
    assert demo.parts_of(chain) == demo.parts_of(demo.unkilled(600))


def test_comparison_sees_a_generator_that_was_not_restored(
    demo: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = demo.unkilled(20), demo.nile_mcmc.start(20)
    generator = demo.np.random.Generator(demo.np.random.PCG64(1))
    while second["length"] < 20:
        demo.nile_mcmc.apply(second, demo.nile_mcmc.advance(second, generator))
    assert demo.compare(first, second) == [
        f"{what}: not the same" for what in ("the samples", "the generator", "the result")
    ]
    assert capsys.readouterr().out.count("DIFFERENT") == 3


def test_comparison_sees_a_single_bit(demo: ModuleType) -> None:
    first, second = demo.unkilled(20), demo.unkilled(20)
    assert demo.compare(first, second) == []
    second["samples"].view("u8")[7, 2] ^= 1
    assert demo.compare(first, second)[0] == "the samples: not the same"


def test_data_are_a_hundred_years(demo: ModuleType) -> None:
    years, flows = demo.nile_mcmc.YEARS, demo.nile_mcmc.FLOWS
    assert years == tuple(range(1871, 1971))
    assert (flows[0], flows[-1], sum(flows)) == (1120, 740, 91935)
