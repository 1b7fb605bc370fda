"""A long scientific job: its loop, its random generators, its output files, resumed as if it had never been killed.

``handle`` is what users hold. ``state`` is what the job keeps about itself, as one name of its store.

``looping`` is the loop: over ``items``, step by step (``steps``), with ``progress``; ``leaving`` tells ``break`` from
an exception. What rolls back with a step: ``files`` (one of them is in ``outputs``) and ``randomness`` (the states of
one generator are in ``generators``).

``policies`` say when to checkpoint, from what ``meter`` has measured; ``background`` writes while the loop goes on.
``ending`` says when to stop: after a signal (``stopping``), or before a deadline (``deadlines``).

``replays`` are the names that the job recovers and verifies; ``checking`` refuses what has changed since the job began,
by ``fingerprints``.
"""

from __future__ import annotations

from trax.job.handle import Job
from trax.job.policies import Policy, every, log_larger_than, on_signal, optimal

__all__ = ["Job", "Policy", "every", "log_larger_than", "on_signal", "optimal"]
