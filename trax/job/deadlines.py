"""When a scheduler will end the job, and whether the job has to come to its end before that."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping

Clock = Callable[[], float]


def deadline_from(environment: Mapping[str, str], clock: Clock = time.time) -> float | None:
    """When the scheduler will end this job, in seconds since the epoch; None where it does not say so.

    SLURM gives that very time in SLURM_JOB_END_TIME (sbatch(1), "Output environment variables"). PBS gives the seconds
    that were asked for, in PBS_WALLTIME, as TORQUE's qsub(1) has it; they are counted from now, so open the job early
    in the script, or give ``deadline_s``.
    """
    if (end := _number(environment.get("SLURM_JOB_END_TIME"))) is not None:
        return end
    if (walltime := _number(environment.get("PBS_WALLTIME"))) is not None:
        return clock() + walltime
    return None


def deadline_after(seconds: float | None, clock: Clock = time.time) -> float | None:
    """``seconds`` from now; None: what the scheduler says."""
    return deadline_from(os.environ, clock) if seconds is None else clock() + seconds


def _number(text: str | None) -> float | None:
    try:
        number = float(text or "")
    except ValueError:
        return None
    return number if number > 0 else None
