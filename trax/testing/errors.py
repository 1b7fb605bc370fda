"""What the checks of ``trax.testing`` raise: each is an ``AssertionError``, so a test that meets one fails."""

from __future__ import annotations

from trax.errors import TraxError


class CheckError(TraxError, AssertionError):
    """The root of what the checks raise."""


class ResumeError(CheckError):
    """A job that was cut off and resumed ended differently, or not at all. ``only`` repeats this crash alone."""

    only: str


class NotDeterministicError(CheckError):
    """Two runs of the job that nothing interrupted ended differently: there is nothing to compare with."""


class JobError(CheckError):
    """The job fails though nothing interrupts it, or does not end in time, or its end can't be compared."""


class NothingToCheckError(CheckError):
    """The check has met nothing that could have failed, such as a job that never commits."""


class ReplayDiffersError(CheckError):
    """What the store would give back is not the live state. ``sequence`` is the first record known to be concerned."""
