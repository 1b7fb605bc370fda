"""The sampler of nile_mcmc.py as a ``trax.Job``, which writes each sample to a file as well.

    python nile_job.py --directory /tmp/nile --steps 20000

Start it, kill it, start it again: the chain, the generator and samples.csv are what an unkilled run would have given.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import nile_mcmc
import numpy as np

import trax
from trax.job import every


def take_step(chain: nile_mcmc.Chain, generator: np.random.Generator) -> nile_mcmc.Step:
    step = nile_mcmc.advance(chain, generator)
    step["generator"] = {}  # the job keeps it
    return step


def run(
    directory: str | Path, steps: int, checkpoint_every: int = nile_mcmc.CHECKPOINT_EVERY
) -> tuple[nile_mcmc.Chain, int]:
    """Take the steps that are still missing in a directory; the chain, and the exit status of the script."""
    directory = Path(directory)
    config, policy = {"steps": steps}, every(steps=checkpoint_every)
    # "interval": what a step has done survives any kill, and of a loss of power all but the last second.
    with trax.Job(directory / "job.trax", sync="interval", config=config, checkpoint_when=policy) as job:
        chain: nile_mcmc.Chain = job.recover("chain", lambda: nile_mcmc.start(steps), nile_mcmc.apply)
        generator = job.rng("moves", seed=1871)
        samples = job.open(directory / "samples.csv", "a")
        for _ in job.loop(range(steps), desc="sampling"):
            step = take_step(chain, generator)
            job.log(chain=step)
            nile_mcmc.apply(chain, step)
            samples.write(",".join(map(repr, step["position"])) + "\n")
            if job.should_checkpoint():
                job.checkpoint(chain=chain)
    return chain, job.exit_status


def main() -> int:
    parser = argparse.ArgumentParser(description="Sample when the flow of the Nile changed; may be killed at any time.")
    parser.add_argument("--directory", default="nile", help="for the store and samples.csv (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=20_000, help="length of the chain (default: %(default)s)")
    arguments = parser.parse_args()
    chain, status = run(arguments.directory, arguments.steps)
    if not status:
        print(nile_mcmc.summary(chain))
    return status


if __name__ == "__main__":
    sys.exit(main())
