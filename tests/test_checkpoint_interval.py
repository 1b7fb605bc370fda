"""The simulation that says how often to checkpoint: it agrees with the formula, and the policy with it."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

import pytest

from trax.job import optimal
from trax.job.policies import Facts, Optimal

ROOT = Path(__file__).parent.parent
pytestmark = pytest.mark.skipif(
    not (ROOT / "benchmarks").exists(),
    reason="the benchmarks are not part of what is installed",
)


@pytest.fixture
def simulation(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(ROOT)
    return importlib.import_module("benchmarks.checkpoint_interval")


@pytest.mark.parametrize(("cost_s", "ratio"), [(1.0, 1.0), (1.0, 0.1), (10.0, 0.01)])
def test_where_failures_are_rare_the_formula_is_right(simulation: ModuleType, cost_s: float, ratio: float) -> None:
    for factor in (0.25, 1.0, 4.0):
        interval_s = factor * simulation.best(cost_s, 604_800.0, ratio)
        expected = simulation.expected_overhead(interval_s, cost_s, 604_800.0, ratio)
        assert simulation.overhead(interval_s, cost_s, 604_800.0, ratio) == pytest.approx(expected, rel=0.05)


@pytest.mark.parametrize("case", [(1.0, 86_400.0, 0.1), (10.0, 3600.0, 0.03), (100.0, 86_400.0, 0.01)])
def test_no_interval_is_much_better_than_the_best_one(simulation: ModuleType, case: tuple[float, float, float]) -> None:
    best = simulation.overhead(simulation.best(*case), *case)
    others = [simulation.overhead(factor * simulation.best(*case), *case) for factor in (0.3, 0.5, 0.8, 1.25, 2.0, 3.0)]
    assert best < 1.03 * min(others)
    assert max(others) > 1.5 * best


def test_the_policy_takes_the_interval_that_is_simulated(simulation: ModuleType) -> None:
    policy = optimal(mtbf_s=3600.0, recovery_s=1e9)
    assert isinstance(policy, Optimal)
    facts = Facts(checkpoint_s=2.0, replay_ratio=0.05)
    assert policy.interval_s(facts) == pytest.approx(simulation.best(2.0, 3600.0, 0.05))


@pytest.mark.parametrize(
    ("left_s", "since_s", "expected"),
    [
        (3.0, 0.0, (3.0, 3.0)),
        (3.0, 6.0, (3.0, 9.0)),
        (5.0, 6.0, (4.0, 10.0)),  # in the checkpoint
        (6.0, 6.0, (4.0, 0.0)),  # just behind it
        (9.0, 6.0, (7.0, 3.0)),
        (6.0 + 3 * 12.0 + 11.0, 6.0, (4.0 + 30.0 + 10.0, 10.0)),
    ],
)
def test_the_work_until_a_failure(
    simulation: ModuleType, left_s: float, since_s: float, expected: tuple[float, float]
) -> None:
    assert simulation._work_for(left_s, since_s, 10.0, 2.0) == pytest.approx(expected)
