"""Jobs whose file system fails, and what must be true of them whatever fails.

- A call raises an error of trax's tree, or the very interrupt; never anything else, and it ends.
- A call that raised StorageError (or DiskFullError) has had no effect, and what follows on the same handle is right.
- After a FinishedError or an interrupt the call has had its whole effect or none; the store opens and shows which.
- What was acknowledged is there: for the next process, and after a power loss.
- No descriptor, no thread and no lock outlives ``close()``.
"""

from __future__ import annotations

import copy
import errno
import gc
import os
import random
import shutil
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

import trax
from tests.crashing import (
    CHUNK_BYTES,
    NAMES,
    Job,
    Model,
    State,
    an_array,
    fold,
    judge,
    lay_out,
    recovered,
    without_chance,
)
from tests.helpers import kill
from tests.watching import assert_nothing_left
from trax.testing.disks import cached_image, moments
from trax.testing.faults import FaultyFileSystem
from trax.testing.recording import Image, RecordingFileSystem, image_of

INTERRUPTS = (KeyboardInterrupt, MemoryError)


class LocklessFileSystem(RecordingFileSystem):
    """Has no locks, so that an owner file takes their place."""

    def lock(self, fd: int) -> bool:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))


@dataclass(frozen=True)
class Scenario:
    """Calls on a store: those of ``setup`` succeed, those of ``script`` are made while something fails."""

    script: str
    setup: str = ""
    sync: str = "always"
    keep: int = 1
    codec: str = "msgpack"
    differential: bool = False
    file_system: type[RecordingFileSystem] = RecordingFileSystem


# One for each part of the store that can fail in its own way. Short, because each is played once for each operation.
SCENARIOS = {
    "creation": Scenario("open checkpoint log close"),
    "log": Scenario("open log batch log sync log close", "open fill log close"),
    "log in the system's hands": Scenario("open log batch sync log log close", "open fill log close", sync="os"),
    "log as lines": Scenario("open log batch log close open log close", "open fill close", codec="json"),
    "checkpoint": Scenario("open log checkpoint large log checkpoint close", "open fill log close"),
    "checkpoints that are kept": Scenario("open log large log mixed past close", "open fill large log close", keep=3),
    "created values": Scenario("open create create log recover close", "open checkpoint close"),
    "batches": Scenario("open mixed log mixed batch close", "open fill log close", sync="os", codec="json"),
    "deletion": Scenario("open delete log delete create close", "open fill large log close", keep=2),
    "in the background": Scenario("open flight log flight log landed flight close", "open fill log close"),
    "in the background, lazily": Scenario("open log flight log landed log close", "open fill close", sync="os"),
    "compaction": Scenario(
        "open rare log checkpoint rare log checkpoint log checkpoint rare close", "open fill rare log checkpoint close"
    ),
    "after a kill": Scenario("open log checkpoint close", "open fill log log large log kill"),
    "after a kill, lazily": Scenario("open log close", "open fill log batch kill", sync="os", keep=2),
    "after a tear": Scenario("open log checkpoint close", "open fill log log kill tear"),
    "recovery": Scenario("open recover map past names close", "open fill large log checkpoint log close", keep=2),
    "no locks": Scenario("open log checkpoint close", "open fill log close", file_system=LocklessFileSystem),
    "differential": Scenario(
        "open array log array recover array names close", "open fill array log array close", differential=True
    ),
    "copy": Scenario("open log copy copy log close", "open fill large log checkpoint log close", keep=2),
}


@dataclass
class Stage:
    """Operations in the middle or at the end of which the power may fail, and the states that may be found then."""

    first: int
    last: int
    failed: bool
    model: Model


class FaultyJob(Job):
    """The calls of a script, one after the other; ``fs`` is what fails, and what it lets through is recorded.

    ``lossy``: a failure may take with it what was not yet durable, even for the next process of the same machine.
    """

    def __init__(self, root: Path, scenario: Scenario, seed: str, *, lossy: bool = False) -> None:
        dice, codec = random.Random(seed), scenario.codec
        super().__init__(root / "s", dice, scenario.sync, scenario.keep, codec, scenario.differential)
        self.scenario = scenario
        self.root = root
        self.lossy = lossy
        self.recording = scenario.file_system(root)
        self.fs: Any = self.recording
        self.store: trax.Trax | None = None
        self.flights: list[Future[int]] = []
        self.copies = 0
        self.arrays = 0
        self.errors: list[str] = []
        self.usable: set[str] = set()
        """The errors that left the handle usable; what failed in the background is raised twice."""
        self.healed = False
        self.stages: list[Stage] = []
        self.taken_back: list[tuple[int, State]] = []

    def set_up(self) -> None:
        for step in self.scenario.setup.split():
            self.step(step)
        self.model.durable = len(self.model.states) - 1
        assert self.store is None, "a setup ends with close or kill"

    def play(self, fs: Any, recording: RecordingFileSystem, *, go_on: bool) -> None:
        """Make the calls. With ``go_on``, those that follow a failed one are made, too."""
        self.fs, self.recording = fs, recording
        try:
            for step in self.scenario.script.split():
                if step.endswith("open") and self.store is not None:
                    continue  # since what came before has failed
                if not step.endswith("open") and self.store is None:
                    self.open_again()
                failed = self.step_or_fail(step)
                if failed and not go_on:
                    return
                if failed and step.endswith("open"):
                    self.open_again()
        finally:
            self.end()
            self.note_stage(len(self.recording.operations), self.model.durable, failed=False)

    def open_again(self) -> None:
        """However often it fails, it must be for another reason each time."""
        failures = len(self.failed)
        while self.step_or_fail("open"):
            assert len(self.failed) > failures, f"opening fails again: {self.errors}"
            failures = len(self.failed)

    def step_or_fail(self, step: str) -> bool:
        """Whether the call failed; then the model says what it has left."""
        before, commits = copy.deepcopy(self.state), len(self.model.states)
        durable, first = self.model.durable, len(self.recording.operations)
        try:
            self.step(step)
            self.note_stage(first, durable, failed=False)
            return False
        except (trax.TraxError, *INTERRUPTS) as error:
            self.errors.append(f"{step}: {error!r}")
            self.note_stage(first, durable, failed=True)
            if self.store is None:
                return True
            if isinstance(error, trax.errors.HandleError):
                if not isinstance(error, trax.errors.ClosedError):  # which an interrupted close() may have half done
                    self.assert_refused()
                self.end()
            elif isinstance(error, trax.TraxError):
                self.usable.add(str(error))
                if not self.was_created(before):
                    self.take_back(before, commits)
                return True
        # Nobody was told what became of the call. The store knows, and does not change its mind.
        self.resolve(before, commits)
        return True

    def step(self, step: str) -> None:
        getattr(self, f"do_{step}")()

    def end(self) -> None:
        """Let go of the store, whatever state the handle is in."""
        flights, self.flights = self.flights, []
        store, self.store = self.store, None
        if store is None:
            return
        for _ in range(2):
            try:
                store.close()
            except (trax.TraxError, *INTERRUPTS) as error:
                self.errors.append(f"close: {error!r}")
        if store._closed is None:
            self.heal()
            kill(store)  # no call of close() came to its end: only that of the process will
        self.remove_owner()
        assert all(future.done() for future in flights), "close() waits for what is in the background"

    @property
    def failed(self) -> list[str]:
        """What has failed."""
        return list(self.fs.failed)

    def remove_owner(self) -> None:
        """As ``trax unlock`` does, when the process that an owner file names has died; here it lives on."""
        if isinstance(self.recording, LocklessFileSystem) and (self.path / "owner").exists():
            self.recording.unlink(str(self.path / "owner"))

    def heal(self) -> None:
        self.healed = True
        self.fs.heal()

    def note_stage(self, first: int, durable: int, *, failed: bool) -> None:
        model = Model([*self.model.states], [*self.model.sequences], durable)
        # What a failed call has written was taken back, but nothing has synced that yet.
        model.states += [state for since, state in self.taken_back if since == durable]
        self.stages.append(Stage(first, len(self.recording.operations), failed, model))

    def assert_refused(self) -> None:
        """A finished handle does nothing more, whatever it is asked for."""
        store = self.opened
        wait(self.flights, 60)  # what they have begun to write, they remove
        done = len(self.recording.operations)
        for call in (lambda: store.log(a=1), lambda: store.checkpoint(a=1), store.sync, lambda: store.recover("a")):
            try:
                call()
            except (trax.TraxError, MemoryError):  # the latter of a call in the background, which is told once
                continue
            raise AssertionError("a finished handle goes on")
        assert len(self.recording.operations) == done, self.recording.operations[done:]

    def was_created(self, before: State) -> bool:
        """recover() has stored the value that it created before it failed to read it back."""
        try:
            return any(name in self.opened for name in self.state.keys() - before.keys())
        except (trax.TraxError, *INTERRUPTS):
            return False

    def take_back(self, state: State, commits: int) -> None:
        self.state = copy.deepcopy(state)
        self.taken_back += [(self.model.durable, state) for state in self.model.states[commits:]]
        del self.model.states[commits:], self.model.sequences[commits - 1 :]

    def resolve(self, before: State, commits: int) -> None:
        """Look at the store to see what became of a call."""
        healed, opened = self.healed, self.store is None
        try:
            if opened:
                self.do_open()
            found = recovered(self.opened)
        except (trax.TraxError, *INTERRUPTS) as error:
            self.errors.append(f"resolve: {error!r}")
            self.end()
            if healed:
                raise AssertionError(f"the store can't be used: {self.errors}") from error
            self.heal()  # what fails from now on would fail again
            self.resolve(before, commits)
            return
        if found != self.state:
            possible = self.model.states[self.model.durable :] if self.lossy and opened else [before]
            assert found in possible, f"{found} is neither {before} nor {self.state}: {self.errors}"
            index = commits - 1
            while self.lossy and self.model.states[index] != found:
                index -= 1
            self.take_back(found, index + 1)
        if opened:  # what a new writer has read is durable before its first call returns
            self.model.durable = len(self.model.states) - 1

    # The calls

    def do_open(self) -> None:
        if self.scenario.file_system is LocklessFileSystem:
            gc.collect(1)  # a lock that is dropped looks for its owner file: not in the middle of a recorded call
        self.store = self._open(self.fs)

    def do_close(self) -> None:
        store = self.opened
        flights, self.flights = self.flights, []
        try:
            store.close()
        finally:
            if store._closed is not None:
                self.store = None
                self.remove_owner()
        assert all(future.done() for future in flights)
        self.model.durable = len(self.model.states) - 1
        self._note(self.recording)

    def do_leave(self) -> None:
        """Leave the ``with`` block."""
        self.opened.__exit__(None, None, None)
        self.do_close()

    def do_kill(self) -> None:
        kill(self.opened)
        self.store = None
        self.remove_owner()

    def do_tear(self) -> None:
        log = max(self.path.glob("log.*"))
        data = log.read_bytes().rstrip(b"\0")
        log.write_bytes(data + data[-60:-5])

    def do_fill(self) -> None:
        self.state.update({name: [] for name in NAMES})
        values = {name: list(values) for name, values in self.state.items()}
        self._commit(self.recording, lambda: self.opened.checkpoint(values), durable=True)

    def do_log(self) -> None:
        if not self.state:  # the call that was to make a name has failed
            self.do_checkpoint()
        self._log(self.recording, self.opened)

    def do_rare(self) -> None:
        """An entry of a name that is never checkpointed: it survives the segment that it was written to."""
        name = NAMES[2]
        self.number += 1
        self.state[name].append(self.number)
        entry = {name: self.number}
        self._commit(self.recording, lambda: self.opened.log(entry), durable=self.sync == "always")

    def do_batch(self) -> None:
        self._batch(self.recording, self.opened)

    def do_mixed(self) -> None:
        self._mixed(self.recording, self.opened)

    def do_checkpoint(self) -> None:
        self._save(NAMES[:2])

    def do_large(self) -> None:
        self.state.setdefault(NAMES[0], []).insert(0, "y" * 5000)
        self._save(NAMES[:1])

    def do_array(self) -> None:
        """Change a chunk of an array, and save it."""
        state = self.state.setdefault(NAMES[0], [])
        if not (state and isinstance(state[0], bytes)):
            state.insert(0, an_array())
        self.arrays += 1
        start = self.arrays % 6 * CHUNK_BYTES
        state[0] = state[0][:start] + bytes([self.arrays]) * CHUNK_BYTES + state[0][start + CHUNK_BYTES :]
        self._save(NAMES[:1])

    def do_create(self) -> None:
        for name in NAMES:
            if name not in self.state:
                self.state[name] = []
                self._commit(self.recording, lambda name=name: self._created(name), durable=True)
                return
        self.do_checkpoint()

    def do_delete(self) -> None:
        self._delete(self.recording, self.opened)

    def do_sync(self) -> None:
        self.opened.sync()
        self.model.durable = len(self.model.states) - 1
        self._note(self.recording)

    def do_flight(self) -> None:
        """A checkpoint in the background; what follows is done meanwhile. It changes no state, only how it is kept."""
        self.flights.append(self.opened.checkpoint_async({name: list(self.state[name]) for name in NAMES}))

    def do_landed(self) -> None:
        covered = len(self.model.states) - 1  # at least what was logged before the last of them began
        flights, self.flights = self.flights, []
        for future in flights:
            future.result(60)
        if self.sync == "always":
            self.model.durable = covered
            self._note(self.recording)

    def do_recover(self) -> None:
        assert recovered(self.opened) == self.state

    def do_map(self) -> None:
        for name, expected in self.state.items():
            assert self.opened.recover(name, None, fold, mmap=True) == expected
        assert len([*self.opened.entries(NAMES[0])]) <= len(self.state[NAMES[0]])

    def do_past(self) -> None:
        oldest = self.opened.snapshots()[0].sequence
        reachable = [number for number, sequence in enumerate(self.model.sequences) if sequence >= oldest]
        for number in {reachable[0], reachable[-2]}:
            assert recovered(self.opened, at=self.model.sequences[number]) == self.model.states[number + 1]

    def do_names(self) -> None:
        assert self.opened.names() == sorted(self.state)
        assert self.opened.stats()["names"] == len(self.state)
        assert self.opened.verify().problems == []

    def do_copy(self) -> None:
        """To the same place again, until it has worked."""
        path = self.root / f"copy{self.copies}"
        self.opened.copy_to(path)
        with trax.Trax(path, mode="r") as reader:
            assert recovered(reader) == self.state
        self.copies += 1

    @property
    def opened(self) -> trax.Trax:
        assert self.store is not None
        return self.store

    def _save(self, names: tuple[str, ...]) -> None:
        values = {name: list(self.state.setdefault(name, [])) for name in names}
        self._commit(self.recording, lambda: self.opened.checkpoint(values), durable=True)

    def _created(self, name: str) -> int:
        assert self.opened.recover(name, create=list) == []
        return self.opened.last_sequence


@dataclass
class Sweep:
    """Plays one scenario again and again, each time with something else that fails."""

    scratch: Path
    scenario: Scenario
    seed: str
    job: Callable[..., FaultyJob] = FaultyJob
    seen: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.root = self.scratch / "run"
        self.template = self.scratch / "template"
        self.template.mkdir()
        job = FaultyJob(self.template, self.scenario, self.seed)
        job.set_up()
        self._prepared = (job.model, job.state, job.number, job.dice.getstate())

    def operations(self, kinds: tuple[str, ...]) -> int:
        """How many operations there are that can fail."""
        fs = self.case(lambda inner: FaultyFileSystem(kinds=kinds, inner=inner), go_on=False)
        assert fs.count > 0
        return int(fs.count)

    def case(
        self, make: Callable[[RecordingFileSystem], Any], *, go_on: bool, interrupting: bool = False
    ) -> FaultyFileSystem:
        """Play the scenario on the file system that ``make`` puts above the recording one, and judge what it leaves."""
        recording = self.lay_out_the_template()
        fs: FaultyFileSystem = make(recording)
        job = self.play(fs, recording, go_on=go_on)
        with noted(job):
            assert interrupting or recording.open_files == []
            failed = [stage for stage in job.stages if stage.failed]
            for stage in [*failed[:2], job.stages[-1]]:
                self.lose_power(job, stage, stage.last)
        return fs

    def lay_out_the_template(self) -> RecordingFileSystem:
        shutil.rmtree(self.root, ignore_errors=True)
        shutil.copytree(self.template, self.root)
        return self.scenario.file_system(self.root)

    def play(self, fs: Any, recording: RecordingFileSystem, *, go_on: bool, lossy: bool = False) -> FaultyJob:
        job = self.job(self.root, self.scenario, self.seed, lossy=lossy)
        model, state, number, dice = self._prepared
        job.model = Model([*model.states], [*model.sequences], model.durable)
        job.state, job.number = copy.deepcopy(state), number
        job.dice.setstate(dice)
        with noted(job), pytest.MonkeyPatch.context() as patch:
            # What fails while a dropped lock is let go of reaches nobody, and must not be kept: it holds files open.
            patch.setattr(sys, "unraisablehook", lambda lost: job.errors.append(f"dropped: {lost.exc_value!r}"))
            with without_chance(self.seed):
                job.play(fs, recording, go_on=go_on)
            if not job.failed:
                assert job.errors == []
            elif go_on:
                assert len(job.usable) <= len(job.failed), "one failure, and more than one call that fails"
            assert_nothing_left(self.scratch)
            if not lossy:
                shown = cached_image(recording.start, recording.operations)
                assert shown.key() == image_of(self.root).key(), "what was recorded is not what was done"
        return job

    def lose_power(self, job: FaultyJob, stage: Stage, done: int) -> None:
        """Judge some of the disks that a power loss may leave: nothing of what was not synced has arrived, or some."""
        durable, issued = stage.model.durable, len(stage.model.states) - 1
        for image in self._disks(job.recording, done):
            image.names.pop("s/lock", None)  # says when it was taken, and must not make a disk another one
            key = hash((image.key(), repr(stage.model.states[durable:])))
            if key not in self.seen:
                self.seen.add(key)
                lay_out(image, self.root)
                judge(job.path, stage.model, durable, issued)

    def _disks(self, recording: RecordingFileSystem, done: int) -> Iterator[Image]:
        dice = random.Random(f"{self.seed}-{done}")
        for _, outcomes in moments(recording.start, recording.operations[:done], after=done):
            extremes = list(outcomes.extremes())
            yield from (extremes[-1], dice.choice(extremes[:-1]), outcomes.sample(dice))


@contextmanager
def noted(job: FaultyJob) -> Iterator[None]:
    """Say what a case had seen when it went wrong."""
    try:
        yield
    except BaseException as error:
        error.add_note(f"it had seen {job.errors}; what failed: {job.failed[:3]}")
        raise
