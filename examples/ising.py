"""A magnet that is heated: the two-dimensional Ising model by Metropolis' rule, with a trajectory of all its spins.

    python ising.py --directory /tmp/ising

Each temperature is a loop of its own, and each step of it a sweep over the lattice, one half of a chessboard after the
other. What is logged of a sweep is which spins it turned; ``trajectory.bin`` gets all spins, eight to a byte, and
``energies.txt`` a line. Killed and started again, all three go on as if nothing had happened.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray

import trax
from trax.job import every

TEMPERATURES = (1.5, 2.0, 2.27, 2.5, 3.5)  # the order is lost at 2 / log(1 + sqrt(2)), which is 2.269…


class Magnet(TypedDict):
    """The state: this is checkpointed."""

    spins: NDArray[np.int8]  # (side, side), each 1 or -1
    turned: int  # how often a spin was turned so far


def start(side: int) -> Magnet:
    return Magnet(spins=np.ones((side, side), np.int8), turned=0)


def turn(magnet: Magnet, flips: NDArray[np.uint32]) -> Magnet:
    """Fold one sweep into the state: ``flips`` are the places in the flattened lattice whose spins were turned."""
    magnet["spins"].reshape(-1)[flips] *= -1
    magnet["turned"] += len(flips)
    return magnet


def sweep(magnet: Magnet, temperature: float, rng: np.random.Generator) -> NDArray[np.uint32]:
    """Offer each spin to turn; which of them did. ``magnet`` itself is left as it is."""
    spins = magnet["spins"].copy()
    rows, columns = np.indices(spins.shape)
    for colour in (0, 1):
        cost = 2 * spins * neighbours(spins)
        accepted = rng.random(spins.shape) < np.exp(-cost / temperature)
        spins[accepted & ((rows + columns) % 2 == colour)] *= -1
    return np.flatnonzero(spins != magnet["spins"]).astype(np.uint32)


def neighbours(spins: NDArray[np.int8]) -> NDArray[Any]:
    """The sum of the four spins around each; the lattice is closed to a torus."""
    return sum(np.roll(spins, shift, axis).astype(int) for axis in (0, 1) for shift in (1, -1))  # type: ignore[return-value]


def energy(spins: NDArray[np.int8]) -> int:
    return -int((spins * neighbours(spins)).sum()) // 2


def run(directory: str | Path, side: int = 32, sweeps: int = 500, checkpoint_every: int = 100) -> tuple[Magnet, int]:
    """Make the sweeps that are still missing in a directory; the magnet, and the exit status of the script."""
    directory = Path(directory)
    config, policy = {"side": side}, every(steps=checkpoint_every)
    with trax.Job(directory / "job.trax", sync="os", config=config, checkpoint_when=policy) as job:
        magnet: Magnet = job.recover("magnet", lambda: start(side), turn)
        rng = job.rng("spins", seed=1925)
        trajectory = job.open(directory / "trajectory.bin", "ab")
        energies = job.open(directory / "energies.txt", "a")
        for temperature in TEMPERATURES:
            for number in job.loop(range(sweeps), name=f"at {temperature}"):
                flips = sweep(magnet, temperature, rng)
                job.log(magnet=flips)
                turn(magnet, flips)
                trajectory.write(np.packbits(magnet["spins"] > 0).tobytes())
                energies.write(f"{temperature} {number} {energy(magnet['spins'])}\n")
                if job.should_checkpoint():
                    job.checkpoint(magnet=magnet)
    return magnet, job.exit_status


def main() -> int:
    parser = argparse.ArgumentParser(description="Heat a magnet; may be killed at any time.")
    parser.add_argument("--directory", default="ising", help="for the store and the files (default: %(default)s)")
    parser.add_argument("--side", type=int, default=32, help="of the lattice (default: %(default)s)")
    parser.add_argument("--sweeps", type=int, default=500, help="at each temperature (default: %(default)s)")
    arguments = parser.parse_args()
    magnet, status = run(arguments.directory, arguments.side, arguments.sweeps)
    if not status:
        print(f"{magnet['turned']:,} spins turned; the magnetisation is now {magnet['spins'].mean():+.3f}")
    return status


if __name__ == "__main__":
    sys.exit(main())
