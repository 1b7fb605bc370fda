"""A long scientific job: its loop, its random generators, its output files, resumed as if it had never been killed.

``handle`` is what users hold. ``state`` is what the job keeps about itself, as one name of its store; ``items`` are
what a loop goes over; ``leaving`` tells ``break`` from an exception; ``outputs`` are files that roll back;
``generators`` are the states of random generators. ``policies`` say when to checkpoint, from what ``meter`` has
measured; ``stopping`` is about signals and deadlines.
"""

from __future__ import annotations

from trax.job.handle import Job
from trax.job.policies import Policy, every, log_larger_than, on_signal, optimal

__all__ = ["Job", "Policy", "every", "log_larger_than", "on_signal", "optimal"]
