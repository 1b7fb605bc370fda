"""Checkpoints that are written in the background while the loop goes on: never two at once, and no failure is lost."""

from __future__ import annotations

from concurrent.futures import Future
from typing import Any

from trax.job.files import OutputFiles
from trax.job.meter import Meter
from trax.job.state import STATE
from trax.job.steps import Steps


class Background:
    """The checkpoint that is on its way, and the values of the next one, which begins behind the present step."""

    def __init__(self, steps: Steps, files: OutputFiles, meter: Meter) -> None:
        self._steps, self._files, self._meter = steps, files, meter
        self.behind_step: dict[str, Any] = {}
        self.future: Future[int] | None = None

    @property
    def is_busy(self) -> bool:
        return self.future is not None and not self.future.done()

    def begin(self, values: dict[str, Any]) -> None:
        """Take the values as they are now, and write them while the caller goes on."""
        self.wait()
        self._files.sync()
        began = self._meter.now()
        self.future = self._steps.store.checkpoint_async({**values, STATE: self._steps.state})
        self.future.add_done_callback(lambda done: self._meter.note_background(began, done.exception() is None))
        self._meter.note_background_begun()

    def end_step(self) -> None:
        """A step was committed: raise what has failed since, and begin what was asked for in it."""
        if self.future is not None and self.future.done():
            self.wait()
        if self.behind_step:
            values, self.behind_step = self.behind_step, {}
            self.begin(values)

    def wait(self) -> None:
        """Until the one on its way has ended; its failure is raised once."""
        future, self.future = self.future, None
        if future is not None:
            future.result()
