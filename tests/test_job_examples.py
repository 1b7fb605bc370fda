"""The jobs in examples/, killed at every commit: state, generators and files end as those of an uninterrupted run.

``TRAX_JOB_EXAMPLES=N`` makes them N times as long, and also lets their power fail.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.counting import count
from trax.testing import crash_everywhere

np = pytest.importorskip("numpy", reason="NumPy is not installed")

EXAMPLES = Path(__file__).parent.parent / "examples"
EFFORT = int(os.environ.get("TRAX_JOB_EXAMPLES", "1"))

SHORT: dict[str, Callable[[Any, str], Any]] = {
    "nile_job": lambda module, directory: module.run(directory, steps=5 * EFFORT, checkpoint_every=3),
    "ising": lambda module, directory: module.run(directory, side=8, sweeps=EFFORT, checkpoint_every=3),
    "iris_sgd": lambda module, directory: module.run(directory, steps=5 * EFFORT, checkpoint_every=3),
}


@pytest.fixture
def example(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.syspath_prepend(EXAMPLES)
    yield importlib.import_module(request.param)
    for name in (*SHORT, "nile_mcmc"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize("example", SHORT, indirect=True)
@pytest.mark.parametrize("how", ["kill", "power loss"] if EFFORT > 1 else ["kill"])
def test_an_example_that_is_cut_off_at_every_commit_ends_as_if_it_had_not_been(example: Any, how: Any) -> None:
    report = crash_everywhere(lambda directory: SHORT[example.__name__](example, directory), how=how)
    print(report)
    assert report.tried == report.points >= 2 * 5
    count(f"example jobs: {how}", report.crashes)


@pytest.mark.parametrize("example", ["nile_job"], indirect=True)
def test_the_sampler_gives_the_same_chain_as_a_job_and_without_one(example: Any, tmp_path: Path) -> None:
    chain, status = example.run(tmp_path, steps=60)
    alone = example.nile_mcmc.start(60)
    generator = np.random.default_rng(1871)
    while alone["length"] < 60:
        example.nile_mcmc.apply(alone, example.nile_mcmc.advance(alone, generator))
    assert chain["samples"].tobytes() == alone["samples"].tobytes() and status == 0
    rows = [list(map(float, row.split(","))) for row in (tmp_path / "samples.csv").read_text().splitlines()]
    assert np.array(rows).tobytes() == chain["samples"].tobytes()


@pytest.mark.parametrize("example", ["ising"], indirect=True)
def test_the_trajectory_of_the_magnet_ends_with_its_state_and_heat_takes_its_order(
    example: Any, tmp_path: Path
) -> None:
    magnet, _ = example.run(tmp_path, side=16, sweeps=30)
    frames = np.unpackbits(np.frombuffer((tmp_path / "trajectory.bin").read_bytes(), np.uint8)).reshape(-1, 16, 16)
    assert len(frames) == 30 * len(example.TEMPERATURES)
    assert np.array_equal(2 * frames[-1].astype(int) - 1, magnet["spins"])
    energies = [int(line.split()[2]) for line in (tmp_path / "energies.txt").read_text().splitlines()]
    assert energies[-1] == example.energy(magnet["spins"])
    assert example.energy(np.ones((16, 16), np.int8)) == -2 * 256
    assert np.mean(energies[10:30]) < -450 < -300 < np.mean(energies[-20:])


@pytest.mark.parametrize("example", ["iris_sgd"], indirect=True)
def test_the_network_learns_and_its_gradients_are_right(example: Any, tmp_path: Path) -> None:
    network, _ = example.run(tmp_path, steps=300)
    assert example.accuracy(network) > 0.9 > example.accuracy(example.start())
    weights = network["weights"]
    everything = example.FEATURES, example.SPECIES
    loss, gradients = example.loss_and_gradients(weights, *everything)
    for weight, gradient in zip(weights, gradients, strict=True):
        weight.flat[1] += 1e-6
        after, _ = example.loss_and_gradients(weights, *everything)
        weight.flat[1] -= 1e-6
        assert (after - loss) / 1e-6 == pytest.approx(gradient.flat[1], abs=1e-4)


def test_the_irises_are_fifty_of_each_kind() -> None:
    lines = (EXAMPLES / "iris.csv").read_text().splitlines()
    assert len(lines) == 151 and lines[1] == "5.1,3.5,1.4,0.2,0" and lines[-1] == "5.9,3.0,5.1,1.8,2"
    assert [sum(line.endswith(f",{kind}") for line in lines) for kind in range(3)] == [50, 50, 50]
