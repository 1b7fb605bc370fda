"""Kill a sampling job with SIGKILL again and again, and show that nothing came of it.

The job of nile_mcmc.py runs once without a store and without a kill: the reference. Then it runs with a store in a
child process that is killed over and over: in a step, in a checkpoint, while it starts. At the end the chain, the
generator's state and the result of both must agree bit for bit. Exits with 1 if they don't, if a step that was
acknowledged before a kill is gone after it, or if one that was not begun is there.
"""

from __future__ import annotations

import argparse
import hashlib
import logging
import mmap
import random
import shutil
import struct
import subprocess
import sys
import tempfile
import time
import warnings
from dataclasses import dataclass
from pathlib import Path

import nile_mcmc
import numpy as np

import trax
from trax.errors import TornTailWarning

PATIENCE_S = 60.0
ROW = "{:>4}  {:<12}  {:>8}  {:>9}  {:>9}  {:>13}  {:>9}"


@dataclass(frozen=True)
class Aim:
    """When to kill: ``delay_s`` after the child was started, or got ``further`` steps, or began the next checkpoint."""

    what: str
    further: int
    delay_s: float

    def step(self, begin: int, steps: int) -> int:
        """The step to wait for, in a child that begins at ``begin``."""
        if self.what == "its start":
            return 0
        step = begin + self.further
        if self.what == "a checkpoint":
            step += -step % nile_mcmc.CHECKPOINT_EVERY
        return min(step, steps - 1)


@dataclass(frozen=True)
class Found:
    """What a recovery brought back: the chain up to which step, and how much of it from where."""

    snapshot: int = 0
    log: int = 0
    torn: bool = False

    @property
    def step(self) -> int:
        return self.snapshot + self.log


class Ledger:
    """What the child says outside the store: the last step that was acknowledged.

    A shared page, because what was written to it before a SIGKILL stays written.
    """

    def __init__(self, path: Path) -> None:
        with open(path, "a+b") as file:
            file.truncate(8)
            self._page = mmap.mmap(file.fileno(), 8)

    def report(self, step: int) -> None:
        self._page[:] = struct.pack("=Q", step)

    @property
    def step(self) -> int:
        return int(struct.unpack("=Q", self._page[:])[0])


class Child:
    """The job in a process of its own."""

    def __init__(self, directory: Path, ledger: Ledger, steps: int) -> None:
        self._ledger = ledger
        self._errors = directory / "errors"
        self._began_s = time.monotonic()
        with open(self._errors, "wb") as errors:
            self._process = subprocess.Popen(
                [sys.executable, __file__, "--steps", str(steps), "--child", str(directory)],
                stdin=subprocess.DEVNULL,
                stderr=errors,
            )

    def kill(self, step: int, delay_s: float) -> float:
        """Kill it once ``step`` is acknowledged and the delay is over; returns how many milliseconds it had lived."""
        while self._ledger.step < step and self._process.poll() is None:
            if time.monotonic() - self._began_s > PATIENCE_S:
                self._process.kill()
                raise SystemExit(f"The job did not get to step {step} in {PATIENCE_S:.0f} seconds.")
            time.sleep(0.00005)
        time.sleep(delay_s)
        self._process.kill()
        lived_ms = 1000 * (time.monotonic() - self._began_s)
        if self._process.wait() > 0:
            raise SystemExit(f"The job failed by itself:\n{self._errors.read_text()}")
        return lived_ms

    def finish(self) -> None:
        if self._process.wait():
            raise SystemExit(f"The job failed by itself:\n{self._errors.read_text()}")


def main() -> int:
    parser = argparse.ArgumentParser(description="Kill a job again and again; compare it with one that was not killed.")
    parser.add_argument("--kills", type=int, default=12, help="how often (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=20_000, help="length of the chain (default: %(default)s)")
    parser.add_argument("--seed", type=int, help="of the moments of the kills (default: another one each time)")
    parser.add_argument("--child", type=Path, metavar="DIRECTORY", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        nile_mcmc.run(arguments.child / "store", arguments.steps, Ledger(arguments.child / "ledger").report)
        return 0
    logging.getLogger("trax").addHandler(logging.NullHandler())  # the table reports a torn tail
    seed = random.randrange(10**6) if arguments.seed is None else arguments.seed
    planned = aims(random.Random(seed), arguments.steps, arguments.kills)
    print(f"When did the flow of the Nile change? {arguments.steps} steps, {len(planned)} kills, --seed {seed}")
    with tempfile.TemporaryDirectory(prefix="trax-demo-") as directory:
        return demonstrate(Path(directory), arguments.steps, planned)


def demonstrate(directory: Path, steps: int, planned: list[Aim]) -> int:
    began_s = time.monotonic()
    reference = unkilled(steps)
    print(f"An unkilled run takes {time.monotonic() - began_s:.1f} seconds. Now with a store, and SIGKILL:\n")
    print(ROW.format("kill", "aimed at", "after ms", "last ack.", "recovered", "snapshot+log", "torn tail"))
    ledger, failures = Ledger(directory / "ledger"), []
    for number, aim in enumerate(planned, 1):
        lived_ms = Child(directory, ledger, steps).kill(aim.step(ledger.step, steps), aim.delay_s)
        found = recover_copy(directory)
        parts = f"{found.snapshot}+{found.log}"
        torn = "reported" if found.torn else "none"
        print(ROW.format(number, aim.what, f"{lived_ms:.0f}", ledger.step, found.step, parts, torn), flush=True)
        if not ledger.step <= found.step <= ledger.step + 1:
            failures.append(f"kill {number}: step {ledger.step} was acknowledged, {found.step} recovered")
    Child(directory, ledger, steps).finish()
    killed = nile_mcmc.run(directory / "store", steps)  # no step is left to do: this recovers
    print(f"\n{nile_mcmc.summary(killed)}\n")
    failures += compare(reference, killed)
    print("".join(f"\nFAILED: {failure}" for failure in failures))
    verdict = "NOT the same" if failures else "the same, bit for bit"
    print(f"Killed {len(planned)} times or never: {verdict}. ({time.monotonic() - began_s:.0f} seconds)")
    return 1 if failures else 0


def unkilled(steps: int) -> nile_mcmc.Chain:
    """The reference: the same arithmetic, and nothing of trax."""
    chain = nile_mcmc.start(steps)
    generator = np.random.Generator(np.random.PCG64())
    generator.bit_generator.state = chain["last"]["generator"]
    while chain["length"] < steps:
        nile_mcmc.apply(chain, nile_mcmc.advance(chain, generator))
    return chain


def aims(generator: random.Random, steps: int, kills: int) -> list[Aim]:
    """Spread the kills over the run: most in a step, some in a checkpoint, the first as the store comes into being."""
    planned = []
    for number in range(kills):
        what = ("its start", "a step", "a checkpoint", "a step", "a checkpoint", "a step")[number % 6]
        further = 1 + int(generator.uniform(0.1, 1.5) * steps / kills)
        delay_s = generator.uniform(0, {"its start": 0.15, "a step": 0.001, "a checkpoint": 0.004}[what])
        planned.append(Aim(what, further, delay_s))
    return planned


def recover_copy(directory: Path) -> Found:
    """Recover from a copy of what the kill left, so that the next child still has all of the recovery to do."""
    if not (directory / "store").exists():
        return Found()
    replayed = 0

    def counting(chain: nile_mcmc.Chain, step: nile_mcmc.Step) -> nile_mcmc.Chain:
        nonlocal replayed
        replayed += 1
        return nile_mcmc.apply(chain, step)

    copy = directory / "copy"
    shutil.copytree(directory / "store", copy)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with trax.Trax(copy) as store:
            step = store.recover("chain", replay_log=counting)["length"] if "chain" in store else 0
    shutil.rmtree(copy)
    torn = any(issubclass(warning.category, TornTailWarning) for warning in caught)
    return Found(snapshot=step - replayed, log=replayed, torn=torn)


def compare(reference: nile_mcmc.Chain, killed: nile_mcmc.Chain) -> list[str]:
    """Print the digests of both side by side; return what differs."""
    failures = []
    print(f"{'SHA-256 of':<18}  {'unkilled':<16}  killed")
    for what, one, other in zip(
        ("the samples", "the generator", "the result"), parts_of(reference), parts_of(killed), strict=True
    ):
        print(f"{what:<18}  {digest(one)}  {digest(other)}  {'same' if one == other else 'DIFFERENT'}")
        if one != other:
            failures.append(f"{what}: not the same")
    return failures


def parts_of(chain: nile_mcmc.Chain) -> tuple[bytes, bytes, bytes]:
    """Samples, generator and result, every bit of them: a float's repr is exact, and so is what tobytes() gives."""
    last = chain["last"]
    result = chain["length"], last["position"], last["log_density"], last["log_scale"], chain["total"].tobytes()
    return (
        chain["samples"].tobytes(),
        repr(last["generator"]).encode(),
        repr((result, nile_mcmc.summary(chain))).encode(),
    )


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


if __name__ == "__main__":
    sys.exit(main())
