"""When a scheduler will end the job, and whether the job has to come to its end before that."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping

Clock = Callable[[], float]


def deadline_from(environment: Mapping[str, str], clock: Clock = time.time) -> float | None:
    """When the scheduler will end this job, in seconds since the epoch; None where it does not say so.

    SLURM gives that very time in SLURM_JOB_END_TIME (srun(1) and sbatch(1), "Output environment variables"; not in old
    versions). TORQUE gives the seconds that were asked for in PBS_WALLTIME (qsub(1B)); PBS Professional gives nothing,
    but its ``qsub -v`` can. They are counted from now, so open the job early in the script, or give ``deadline_s``.
    """
    if (end := _number(environment.get("SLURM_JOB_END_TIME"))) is not None:
        return end
    if (walltime := _seconds(environment.get("PBS_WALLTIME"))) is not None:
        return clock() + walltime
    return None


def deadline_after(seconds: float | None, clock: Clock = time.time) -> float | None:
    """``seconds`` from now; None: what the scheduler says."""
    return deadline_from(os.environ, clock) if seconds is None else clock() + seconds


def _seconds(text: str | None) -> float | None:
    """Of seconds, or of hours, minutes and seconds between colons."""
    total = 0.0
    for part in (text or "").split(":"):
        if not part.isascii() or not part.isdigit():
            return None
        total = 60 * total + int(part)
    return total or None


def _number(text: str | None) -> float | None:
    try:
        number = float(text or "")
    except ValueError:
        return None
    return number if number > 0 else None
