"""When did the flow of the Nile change? A Markov chain that can be killed at any moment and goes on unharmed.

The model: the annual flow is normal with the mean ``before`` up to some year and ``after`` from then on, with the same
standard deviation throughout. The sampler: Metropolis within Gibbs, whose step size is adapted ever more slowly
(Andrieu and Thoms, Statistics and Computing 18, 2008). The data: Cobb, Biometrika 65, 1978; see README.rst.

    python nile_mcmc.py --store /tmp/nile --steps 20000

Start it, kill it, start it again: the chain is, bit for bit, the one that an unkilled run would have given.
"""

from __future__ import annotations

import argparse
import csv
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray

import trax

CHECKPOINT_EVERY = 500
UPDATES_PER_STEP = 10

with open(Path(__file__).with_name("nile.csv"), newline="") as file:
    YEARS, FLOWS = zip(*((int(row["year"]), int(row["volume"])) for row in csv.DictReader(file)), strict=True)

# Sums over the first k years: with them the density at any change point needs no loop.
SUMS = [sum(FLOWS[:k]) for k in range(len(FLOWS) + 1)]
SQUARES = sum(flow * flow for flow in FLOWS)

Position = list[float]  # before, after, log of the standard deviation, years until the change


class Step(TypedDict):
    """What one step ended with: this is logged."""

    position: Position
    log_density: float
    log_scale: float
    generator: dict[str, Any]


class Chain(TypedDict):
    """The chain so far: this is checkpointed."""

    length: int  # steps taken
    last: Step
    total: NDArray[np.float64]
    samples: NDArray[np.float64]  # (steps, 4): a row for each step that will be taken


def start(steps: int, seed: int = 1871) -> Chain:
    position = [900.0, 900.0, 5.0, 50.0]
    generator = dict(np.random.PCG64(seed).state)
    last = Step(position=position, log_density=log_density(position), log_scale=0.0, generator=generator)
    return Chain(length=0, last=last, total=np.zeros(4), samples=np.zeros((steps, 4)))


def advance(chain: Chain, generator: np.random.Generator) -> Step:
    """Draw the next sample; ``chain`` itself is left as it is."""
    last = chain["last"]
    position, density, log_scale = last["position"], last["log_density"], last["log_scale"]
    for _ in range(UPDATES_PER_STEP):
        before, after, log_sigma, change = position
        widths = math.exp(log_scale) * np.array([25.0, 20.0, 0.1])
        moves = (widths * generator.standard_normal(3)).tolist()
        proposal = [before + moves[0], after + moves[1], log_sigma + moves[2], change]
        position, density, accepted = choose(position, density, proposal, generator)
        log_scale += (accepted - 0.3) / math.sqrt(1 + chain["length"])
        proposal = [*position[:3], change + int(generator.integers(-3, 4))]
        position, density, _ = choose(position, density, proposal, generator)
    return Step(
        position=position, log_density=density, log_scale=log_scale, generator=dict(generator.bit_generator.state)
    )


def apply(chain: Chain, step: Step) -> Chain:
    """Fold one step into the chain. The running job and the recovery share it, so they can't differ."""
    chain["samples"][chain["length"]] = step["position"]
    chain["total"] += step["position"]
    chain["last"] = step
    chain["length"] += 1
    return chain


def run(path: str | Path, steps: int, report: Callable[[int], None] = lambda length: None) -> Chain:
    """Sample ``steps`` steps into the store at ``path``, or those that are still missing there.

    ``report`` is called with the number of steps taken: after recovery, and once each further one is safe in the log.
    """
    # "interval": what log() returned from survives any kill. Power that fails may cost the last second's steps, which
    # the restored generator would then draw again exactly as they were.
    with trax.Trax(path, sync="interval") as store:
        chain: Chain = store.recover("chain", create=lambda: start(steps), replay_log=apply)
        generator = np.random.Generator(np.random.PCG64())
        generator.bit_generator.state = chain["last"]["generator"]
        report(chain["length"])
        while chain["length"] < len(chain["samples"]):
            step = advance(chain, generator)
            store.log(chain=step)
            apply(chain, step)
            report(chain["length"])
            if chain["length"] % CHECKPOINT_EVERY == 0:
                store.checkpoint(chain=chain)
    return chain


def choose(
    position: Position, density: float, proposal: Position, generator: np.random.Generator
) -> tuple[Position, float, bool]:
    """Metropolis: go to the proposal, or stay."""
    proposed = log_density(proposal)
    if math.log(1.0 - generator.random()) < proposed - density:
        return proposal, proposed, True
    return position, density, False


def log_density(position: Position) -> float:
    """Of the posterior, up to a constant. Flat priors on the change and log(sigma), wide normal ones on the means."""
    before, after, log_sigma, change = position
    k, n = int(change), len(FLOWS)
    if not 0 < k < n:
        return -math.inf
    misfit: float = k * before**2 - 2 * before * SUMS[k]
    misfit += (n - k) * after**2 - 2 * after * (SUMS[n] - SUMS[k]) + SQUARES
    prior: float = ((before - 900) ** 2 + (after - 900) ** 2) / 500**2
    return -n * log_sigma - 0.5 * (misfit * math.exp(-2 * log_sigma) + prior)


def summary(chain: Chain) -> str:
    kept = chain["samples"][chain["length"] // 5 : chain["length"]]  # the first fifth is the way in
    before, after, sigma = kept[:, 0], kept[:, 1], np.exp(kept[:, 2])
    years, counts = np.unique(YEARS[0] + kept[:, 3].astype(int) - 1, return_counts=True)
    return (
        f"The flow fell after {years[counts.argmax()]} (probability {counts.max() / counts.sum():.2f}), "
        f"from {before.mean():.0f} ± {before.std():.0f}\n"
        f"to {after.mean():.0f} ± {after.std():.0f}, in 10^8 cubic metres a year; "
        f"a single year strays by {sigma.mean():.0f}."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="Sample when the flow of the Nile changed; may be killed at any time.")
    parser.add_argument("--store", default="nile.trax", help="directory of the store (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=20_000, help="length of a new chain (default: %(default)s)")
    arguments = parser.parse_args()
    print(summary(run(arguments.store, arguments.steps)))


if __name__ == "__main__":
    main()
