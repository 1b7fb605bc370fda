"""Learn to tell three irises apart: a small network, trained by stochastic gradient descent with momentum.

    python iris_sgd.py --directory /tmp/iris

What is logged of a step is only which flowers it has looked at. The state is large beside that, and folding an entry
takes the step again: a replay costs as much as the work, but the log is small. ``losses.csv`` gets a line a step. The
data: Fisher, Annals of Eugenics 7, 1936; see README.rst.
"""

from __future__ import annotations

import argparse
import csv
import sys
from pathlib import Path
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray

import trax
from trax.job import every

HIDDEN, BATCH, RATE, MOMENTUM = 8, 10, 0.05, 0.9

with open(Path(__file__).with_name("iris.csv"), newline="") as file:
    ROWS = np.array([list(map(float, row)) for row in list(csv.reader(file))[1:]])
FEATURES, SPECIES = ROWS[:, :4], ROWS[:, 4].astype(int)
FEATURES = (FEATURES - FEATURES.mean(0)) / FEATURES.std(0)
TEST = np.arange(len(ROWS)) % 5 == 0  # a fifth of each species: the file is sorted by it
TRAINING = np.flatnonzero(~TEST)

Weights = list[NDArray[np.float64]]


class Network(TypedDict):
    """The state: this is checkpointed."""

    weights: Weights
    velocity: Weights
    loss: float


def start() -> Network:
    rng = np.random.default_rng(1936)
    shapes = [(4, HIDDEN), (HIDDEN,), (HIDDEN, 3), (3,)]
    weights = [rng.normal(0, 0.5, shape) for shape in shapes]
    return Network(weights=weights, velocity=[np.zeros(shape) for shape in shapes], loss=0.0)


def train(network: Network, flowers: NDArray[np.int64]) -> Network:
    """One step of the descent. The running job and the recovery share it, so they can't differ."""
    network["loss"], gradients = loss_and_gradients(network["weights"], FEATURES[flowers], SPECIES[flowers])
    for weights, velocity, gradient in zip(network["weights"], network["velocity"], gradients, strict=True):
        velocity *= MOMENTUM
        velocity -= RATE * gradient
        weights += velocity
    return network


def loss_and_gradients(
    weights: Weights, inputs: NDArray[np.float64], labels: NDArray[np.int64]
) -> tuple[float, Weights]:
    """Cross entropy, on average, and what it changes by."""
    hidden = np.tanh(inputs @ weights[0] + weights[1])
    scores = hidden @ weights[2] + weights[3]
    chances = np.exp(scores - scores.max(1, keepdims=True))
    chances /= chances.sum(1, keepdims=True)
    rows = np.arange(len(labels))
    loss = -float(np.log(chances[rows, labels]).mean())
    chances[rows, labels] -= 1
    back = chances / len(labels)
    inner = back @ weights[2].T * (1 - hidden**2)
    return loss, [inputs.T @ inner, inner.sum(0), hidden.T @ back, back.sum(0)]


def accuracy(network: Network) -> float:
    """On the flowers that were held back."""
    one, two, three, four = network["weights"]
    scores = np.tanh(FEATURES[TEST] @ one + two) @ three + four
    return float((scores.argmax(1) == SPECIES[TEST]).mean())


def run(directory: str | Path, steps: int = 2000, checkpoint_every: int = 200) -> tuple[Network, int]:
    """Take the steps that are still missing in a directory; the network, and the exit status of the script."""
    directory = Path(directory)
    with trax.Job(directory / "job.trax", checkpoint_when=every(steps=checkpoint_every)) as job:
        network: Network = job.recover("network", start, train)
        rng = job.rng("batches", seed=7, kind="Philox")
        losses = job.open(directory / "losses.csv", "a")
        for step in job.loop(range(steps), desc="training"):
            flowers = rng.choice(TRAINING, BATCH, replace=False)
            job.log(network=flowers)
            train(network, flowers)
            losses.write(f"{step},{network['loss']!r}\n")
            if job.should_checkpoint():
                job.checkpoint(network=network)
    return network, job.exit_status


def main() -> int:
    parser = argparse.ArgumentParser(description="Tell three irises apart; may be killed at any time.")
    parser.add_argument("--directory", default="iris", help="for the store and losses.csv (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=2000, help="of the descent (default: %(default)s)")
    arguments = parser.parse_args()
    network, status = run(arguments.directory, arguments.steps)
    if not status:
        print(f"The last loss was {network['loss']:.3f}; of the flowers held back {accuracy(network):.0%} are right.")
    return status


if __name__ == "__main__":
    sys.exit(main())
