"""A long scientific job: its loop, its random generators, its output files, resumed as if it had never been killed.

``handle`` is what users hold. ``state`` is what the job keeps about itself, as one name of its store; ``items`` are
what a loop goes over; ``leaving`` tells ``break`` from an exception; ``outputs`` are files that roll back;
``generators`` are the states of random generators.
"""

from __future__ import annotations

from trax.job.handle import Job

__all__ = ["Job"]
