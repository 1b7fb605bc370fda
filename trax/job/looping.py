"""The loop of a job: where it begins, and what ends a step.

A generator is told neither whether the loop over it was left by ``break`` nor of an exception in it; see
:mod:`trax.job.leaving`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeVar

from trax.errors import LoopError
from trax.job.background import Background
from trax.job.ending import Ending
from trax.job.files import OutputFiles
from trax.job.items import Items
from trax.job.leaving import asking, left_by_break
from trax.job.meter import Meter
from trax.job.progress import progress_bar
from trax.job.randomness import Randomness
from trax.job.state import LoopState, last_loop
from trax.job.steps import Steps

T = TypeVar("T")


class Looping:
    """The loops of a job, one after the other."""

    def __init__(
        self,
        steps: Steps,
        randomness: Randomness,
        files: OutputFiles,
        background: Background,
        ending: Ending,
        meter: Meter,
    ) -> None:
        self._steps, self._randomness, self._files = steps, randomness, files
        self._background, self._ending, self._meter = background, ending, meter
        self._entered: set[str] = set()
        self.resumes = last_loop(steps.state)
        """The loop in which the job was when it ended, until it comes to it again."""

    def over(self, items: Items[T], name: str, description: str) -> Iterator[T]:
        """The items whose steps are not done; LoopError if the loop can't be begun or resumed here."""
        self._check(items, name)
        return self._over(name, description, items)

    def _over(self, name: str, description: str, items: Items[T]) -> Iterator[T]:
        steps, ending = self._steps, self._ending
        self._check(items, name)  # what was right when the loop was made may not be when it begins
        if ending.begins():
            return
        done, finished, digest = self._begin(name)
        if finished:
            return
        bar = progress_bar(description, items.count, done)
        self._meter.begin_loop()
        try:
            for item in items.behind(done, digest):
                if items.is_digested:
                    items.add(item)
                steps.begin(name)
                frames = asking()
                yield item
                done += 1
                self._end_step(items, name, done)
                if bar is not None:
                    bar.update()
                if ending.begins():
                    return
            if items.count is None:
                steps.begin(name)
                self._end_step(items, name, done, finished=True)
        except GeneratorExit:
            if left_by_break(frames):
                self._end_step_quietly(items, name, done + 1)
            else:
                steps.leave("left")
            raise
        except BaseException as error:
            if steps.step is not None:
                steps.fail(error, is_known=True)
            raise
        finally:
            if bar is not None:
                bar.close()

    def _begin(self, name: str) -> tuple[int, bool, bytes]:
        """Where a loop begins; generators and files are from now on what they were there."""
        self._entered.add(name)
        stored = self._steps.state["loops"].get(name)
        self._randomness.begin_loop(stored)
        if stored is None:
            return 0, False, b""
        if name == self.resumes:
            self.resumes = None
            self._files.resume()
        return stored["done"], stored["finished"], stored["digest"]

    def _end_step(self, items: Items[T], name: str, done: int, *, finished: bool = False) -> None:
        step = self._steps.step
        assert step is not None
        has_checkpoint = step.has_checkpoint
        changes = self._changes(items, name, finished, has_checkpoint)
        if has_checkpoint:
            self._background.wait()  # never two at once
            self._meter.begin_commit()
        self._meter.end_step(self._steps.commit([name, done, changes] if changes else done))
        if has_checkpoint:
            self._meter.note_checkpoint()
        if self._background.future is not None or self._background.behind_step:
            self._background.end_step()

    def _end_step_quietly(self, items: Items[T], name: str, done: int) -> None:
        """End the last step of a loop that is left. What is raised there would be lost: the next call raises it."""
        try:
            self._end_step(items, name, done, finished=True)
        except BaseException as error:
            self._steps.fail(error)

    def _changes(self, items: Items[T], name: str, finished: bool, has_checkpoint: bool) -> dict[str, Any]:
        """What the step's entry says beside the number of steps that are done."""
        changes: dict[str, Any] = {}
        stored = self._steps.state["loops"].get(name)
        if stored is None:
            changes["items"] = items.description
        if finished:
            changes["finished"] = True
        if items.is_digested:
            changes["digest"] = items.digest
        if self._randomness.tracked and (generators := self._randomness.changed(stored)):
            changes["generators"] = generators
        if self._files.opened and (files := self._files.changed(checkpoints=has_checkpoint)):
            changes["files"] = files
        return changes

    def _check(self, items: Items[Any], name: str) -> None:
        """LoopError if the loop can't be begun or resumed now."""
        steps = self._steps
        steps.check()
        if steps.step is not None:
            text = (
                f"the loop {name!r} was begun in a step of the loop {steps.loop!r}: a step is one commit, so loops of "
                f"a job are not nested. Use an ordinary for inside, or one job.loop(itertools.product(…))."
            )
            raise LoopError(text, path=steps.store.path, reason="nested")
        if self._ending.is_near:
            return  # it won't begin
        if name in self._entered:
            text = f"there was a loop {name!r} in this job already: give each a name of its own, job.loop(…, name=…)."
            raise LoopError(text, path=steps.store.path, reason="name used twice")
        stored = steps.state["loops"].get(name)
        if stored is None:
            self._check_nothing_to_resume(name)
        else:
            self._check_resumable(name, stored, items)

    def _check_nothing_to_resume(self, name: str) -> None:
        if self.resumes is not None:
            text = (
                f"this job was in its loop {self.resumes!r} when it ended, and now comes to {name!r} first, which it "
                f"has not seen before. Let it come to its loops in the order it had, or begin a new job."
            )
            raise LoopError(text, path=self._steps.store.path, reason="another loop")

    def _check_resumable(self, name: str, stored: LoopState, items: Items[Any]) -> None:
        items.check(stored["items"], stored["done"])
        is_over = stored["finished"] or items.count == stored["done"]
        if not is_over and name != last_loop(self._steps.state):
            text = (
                f"the loop {name!r} has become longer, but others have begun after it: its new steps would come too "
                f"late. Begin a new job, or give the new steps a loop of their own, behind the others."
            )
            raise LoopError(text, path=self._steps.store.path, reason="longer")
