"""``Job``: a loop whose steps are commits, and all that has to roll back with them.

A step is one batch of the store. It holds what the user logs and checkpoints in it, and one entry of the job's own
(:mod:`trax.job.state`): how many steps are done, and what became of generators and output files. So a crash leaves
either the whole step or nothing of it, and the job, started again, repeats the step on the state before it.

What a job does outside of its loops it does again each time it is started. For that, generators begin at the states in
which they were made, and what is written to output files is left out, until the job comes to the loop that it is to
resume: there both get the states of its last committed step.
"""

from __future__ import annotations

import os
import signal
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future
from types import TracebackType
from typing import Any, Literal, TypeVar

from trax.batch import Batch
from trax.commit import SyncPolicy
from trax.errors import ClosedError, InvalidArgumentError, LoopError, OutputFileError, StepError
from trax.job.checking import check_config, check_replay_log, check_state, fingerprint
from trax.job.generators import Tracked, global_generators, kind_of, make
from trax.job.items import Items
from trax.job.leaving import left_by_break
from trax.job.meter import Meter
from trax.job.outputs import AppendedFile, BinaryOutput, Output, TextOutput, check_appends
from trax.job.policies import Policy, optimal
from trax.job.progress import progress_bar
from trax.job.state import STATE, JobState, LoopState, fold, new_state
from trax.job.stopping import SIGNALS, Clock, Signals, deadline_after
from trax.layers import LayerStore
from trax.names import check_name
from trax.replay import ReplayLog, last_wins
from trax.storage.local.fs import FileSystem, default_file_system

T = TypeVar("T")


class Job:
    """A job that may be killed at any moment, and that goes on, started again, as if it had not been.

    ``path``, ``sync``, ``codec``, ``keep``, ``sync_interval_s`` are those of :class:`trax.Trax`, on which the job
    stands; ``store`` is that store. A handle belongs to one thread. Use it in a ``with`` statement.

    ``checkpoint_when``
        When :meth:`should_checkpoint` says so: see ``trax.job.policies``. None: ``optimal()``.
    ``config``
        What the job is configured with: any value that a store keeps. Another one, or another ``replay_log`` of
        :meth:`recover`, is refused with a ChangedError when the job is started again, unless ``upgrade`` is true: then
        the new ones are taken from now on.
    ``verify_every``
        After how many steps :meth:`should_checkpoint` asks for a checkpoint that is verified: what the store and the
        present step give when they are replayed must be what is about to be checkpointed, bit for bit;
        VerificationError otherwise. For names that were recovered with :meth:`recover`. 0: never.
    ``signals``
        Those after which the loop ends, behind the step that it is in; ``interrupted`` is then the first that came.
        They are watched from the opening to the closing of a job that is opened in the main thread. The handlers that
        were there before are called as well. A second SIGINT interrupts at once.
    ``deadline_s``
        After how many seconds the job has to have ended; None: what SLURM or PBS say. The loop ends behind the first
        step that leaves less than ``deadline_margin`` times what a slow checkpoint takes, and the longest step.
    """

    def __init__(
        self,
        path: str | os.PathLike[str] = ".trax",
        *,
        sync: SyncPolicy = "always",
        codec: str | None = None,
        keep: int | None = None,
        sync_interval_s: float = 1.0,
        checkpoint_when: Policy | None = None,
        config: Any = None,
        upgrade: bool = False,
        verify_every: int = 0,
        signals: Iterable[str | signal.Signals] = SIGNALS,
        deadline_s: float | None = None,
        deadline_margin: float = 3.0,
        clock: Clock = time.time,
        fs: FileSystem | None = None,
    ) -> None:
        self._upgrade, self._verify_every, self._verified_at = upgrade, verify_every, 0
        self._replays: dict[str, ReplayLog] = {}
        self._behind_step: dict[str, Any] = {}
        self._in_background: Future[int] | None = None
        self._signals = Signals(signals)
        self._meter = Meter(optimal() if checkpoint_when is None else checkpoint_when, clock)
        self._deadline, self._deadline_margin = deadline_after(deadline_s, clock), deadline_margin
        self._fs = default_file_system() if fs is None else fs
        self._syncs_each_step = sync == "always"
        self._generators: dict[str, Tracked] = {}
        self._files: dict[str, AppendedFile] = {}
        self._entered: set[str] = set()
        self._running: str | None = None
        self._step: Batch | None = None
        self._failure: BaseException | None = None
        self._is_known = False
        """Whether the user has learned of the failure."""
        self._closed = False
        self.store = LayerStore(path, sync=sync, codec=codec, keep=keep, sync_interval_s=sync_interval_s, fs=fs)
        self._encode = self.store.codec.encode
        try:
            self._state: JobState = self.store.recover(STATE, new_state, fold)
            self._check_config(config)
            self._meter.replayed_steps = sum(entry[0] is not None for _, entry in self.store.entries(STATE))
        except BaseException:
            self.store.close()
            raise
        self._resumes: str | None = next(reversed(self._state["loops"]), None)
        """The loop in which the job was, until it comes to it again."""
        self._signals.watch()
        self._finalizer = weakref.finalize(self, self._signals.restore)

    # The loop

    def loop(
        self, items: Iterable[T], *, name: str = "loop", desc: str | None = None, check_items: bool = False
    ) -> Iterator[T]:
        """Go over the items whose steps are not committed yet; each step is one commit, made when the next one begins.

        ``items`` must be the same each time the job is started; a range may become longer as long as no other loop has
        begun after it. ``check_items`` compares those that are left out with the ones whose steps are done.

        A step that an exception leaves is not committed, and ends the job: started again, it repeats the step. A loop
        that is left by ``break`` or ``return`` is finished, and its last step committed. Finished loops are passed
        over. Loops come one after the other, each with a name of its own; to nest them, loop over
        ``itertools.product``.

        With the extra ``progress`` a terminal shows the progress, under ``desc``.

        After a signal, or when the deadline is near, the loop ends behind the present step, and any other before its
        first: look at ``is_ending`` before doing what belongs to a finished job.

        Raises LoopError where that can't be kept; in the step, what the commit raises.
        """
        self._check()
        if self._step is not None:
            text = (
                f"the loop {name!r} was begun in a step of the loop {self._running!r}: a step is one commit, so loops "
                f"of a job are not nested. Use an ordinary for inside, or one job.loop(itertools.product(…))."
            )
            raise LoopError(text, path=self.store.path, reason="nested")
        if self.is_ending:
            return iter(())
        if check_name(name) in self._entered:
            text = f"there was a loop {name!r} in this job already: give each a name of its own, job.loop(…, name=…)."
            raise LoopError(text, path=self.store.path, reason="name used twice")
        wanted = Items(name, items, self.store.codec if check_items else None)
        stored = self._state["loops"].get(name)
        if stored is None:
            self._check_nothing_to_resume(name)
        else:
            self._check_resumable(name, stored, wanted)
        return self._steps(name, desc or name, wanted)

    def _steps(self, name: str, description: str, items: Items[T]) -> Iterator[T]:
        self._entered.add(name)
        done, finished, digest = self._come_to(name)
        if finished:
            return
        bar = progress_bar(description, items.count, done)
        try:
            for item in items.behind(done, digest):
                items.add(item)
                self._begin_step(name)
                yield item
                done += 1
                self._end_step(items, done)
                if bar is not None:
                    bar.update()
                if self.is_ending:
                    return
            if items.count is None:
                self._begin_step(name)
                self._end_step(items, done, finished=True)
        except GeneratorExit:
            if left_by_break():
                self._end_step_quietly(items, done + 1)
            else:
                self._fail(StepError(self._not_committed(), path=self.store.path, reason="left"))
            raise
        except BaseException as error:
            if self._step is not None:
                self._fail(error)
                self._is_known = True
            raise
        finally:
            if bar is not None:
                bar.close()

    def _begin_step(self, name: str) -> None:
        self._step, self._running = self.store.batch(), name
        self._meter.begin_step()

    def _come_to(self, name: str) -> tuple[int, bool, bytes]:
        """Where a loop begins; generators and files are from now on what they were there."""
        stored = self._state["loops"].get(name)
        if stored is None:
            return 0, False, b""
        for key, state in stored["generators"].items():
            if key in self._generators:
                self._generators[key].put(state)
        if name == self._resumes:
            self._resumes = None
            for file in self._files.values():
                file.is_repeating = False
        return stored["done"], stored["finished"], stored["digest"]

    def _end_step_quietly(self, items: Items[T], done: int) -> None:
        """End the last step of a loop that is left. What is raised there would be lost: the next call raises it."""
        try:
            self._end_step(items, done, finished=True)
        except BaseException as error:
            self._fail(error)

    def _end_step(self, items: Items[T], done: int, *, finished: bool = False) -> None:
        step, name = self._step, self._running
        assert step is not None and name is not None
        changes = self._changes(items, name, finished, checkpoints=bool(step.changes))
        entry = [name, done, changes] if changes else [name, done]
        self._meter.begin_commit()
        with step:
            fold(self._state, entry)
            if step.changes:
                step.checkpoint({STATE: self._state})  # or the log could not be truncated
            else:
                step.join(STATE, self._encode(entry, STATE))
        self._meter.end_step(step.changes, self.store)
        self._step = self._running = None
        self._notice_failure()
        if self._behind_step:
            values, self._behind_step = self._behind_step, {}
            self._checkpoint_behind(values)

    def _changes(self, items: Items[T], name: str, finished: bool, *, checkpoints: bool) -> dict[str, Any]:
        changes: dict[str, Any] = {}
        stored = self._state["loops"].get(name)
        if stored is None:
            changes["items"] = items.description
        if finished:
            changes["finished"] = True
        if items.digest:
            changes["digest"] = items.digest
        known = stored["generators"] if stored else {}
        if self._generators:
            states = {key: tracked.take() for key, tracked in self._generators.items()}
            if changed := {key: state for key, state in states.items() if state != known.get(key)}:
                changes["generators"] = changed
        if self._files and (files := self._bring_files(sync=self._syncs_each_step or checkpoints)):
            changes["files"] = files
        return changes

    def _bring_files(self, *, sync: bool) -> dict[str, list[int]]:
        """Hand over what was written, before the commit that names it; the positions that have changed."""
        changed = {}
        for key, file in self._files.items():
            if sync:
                file.sync()
            else:
                file.flush()
            position = [*file.position, 1]
            if position[:2] != self._state["files"][key][:2]:
                changed[key] = position
        return changed

    # The end of it, and checkpoints on the way

    @property
    def interrupted(self) -> signal.Signals | None:
        """The signal after which the job ends; None if none has come."""
        return self._signals.received

    @property
    def is_ending(self) -> bool:
        """Whether a signal has come, or the deadline is near: loops end behind the present step."""
        if self._signals.received is not None:
            return True
        if self._deadline is None:
            return False
        needed_s = self._deadline_margin * self._meter.slow_checkpoint_s + self._meter.longest_step_s
        return self._meter.now() + needed_s >= self._deadline

    @property
    def exit_status(self) -> int:
        """For ``sys.exit``: 0, or after a signal what a shell makes of it; 75, "try again" of sysexits.h, otherwise."""
        if self.interrupted is not None:
            return 128 + self.interrupted
        return 75 if self.is_ending else 0

    def should_checkpoint(self) -> bool:
        """Whether it is time for a checkpoint: the policy says so, or the job is about to end.

        Not while one is being written in the background.
        """
        self._check()
        if self._in_background is not None and not self._in_background.done():
            return False
        return (
            self.is_ending
            or self._is_verification_due()
            or self._meter.is_due(self.store, in_step=self._step is not None)
        )

    def stats(self) -> dict[str, object]:
        """Figures about the job, by name, beside those of its store: seconds, steps, bytes."""
        return self.store.stats() | self._meter.stats()

    # What happens in a step, or at once

    def log(self, mapping: Mapping[str, Any] | None = None, /, **entries: Any) -> None:
        """Add a record: to the commit of this step; outside of a loop at once, as :meth:`trax.Trax.log`."""
        self._check()
        if self._step is not None:
            self._step.log(mapping, **entries)
        else:
            self.store.log(mapping, **entries)

    def checkpoint(self, mapping: Mapping[str, Any] | None = None, /, **values: Any) -> None:
        """Save values: with the commit of this step; outside of a loop at once, as :meth:`trax.Trax.checkpoint`.

        In a step large arrays are read at its end: don't change them in between.
        """
        self._check()
        if self._step is not None:
            if self._is_verification_due():
                self._verify({**(mapping or {}), **values})
            self._step.checkpoint(mapping, **values)
            return
        for file in self._files.values():
            file.sync()
        self._meter.begin_commit()
        with self.store.batch() as batch:
            batch.checkpoint(mapping, **values)
            batch.checkpoint({STATE: self._state})
        self._meter.note_checkpoint(self.store)

    def checkpoint_async(self, mapping: Mapping[str, Any] | None = None, /, **values: Any) -> None:
        """The same as :meth:`checkpoint`, written in the background while the loop goes on.

        In a step the values are taken, and copied, behind the step's commit, as they are then. There are never two at
        once: a call waits for the one before. If one fails, the end of the next step raises it, or the next call on the
        job; the last good one is in place.
        """
        self._check()
        wanted = {**(mapping or {}), **values}
        if self._step is not None:
            self._behind_step |= wanted
        elif wanted:
            self._checkpoint_behind(wanted)

    def _checkpoint_behind(self, values: dict[str, Any]) -> None:
        self._await_checkpoint()
        for file in self._files.values():
            file.sync()
        began = self._meter.now()
        future = self.store.checkpoint_async({**values, STATE: self._state})
        future.add_done_callback(lambda done: self._meter.note_background(began, done.exception() is None))
        self._in_background = future
        self._meter.begin_commit()
        self._meter.note_background_begun(self.store)

    def _await_checkpoint(self) -> None:
        """Wait for the checkpoint in the background; its failure is raised once."""
        future, self._in_background = self._in_background, None
        if future is not None:
            future.result()

    def _notice_failure(self) -> None:
        if self._in_background is not None and self._in_background.done():
            self._await_checkpoint()

    def recover(self, name: str, create: Callable[[], Any] | None = None, replay_log: ReplayLog = last_wins) -> Any:
        """The state of a name as of the last commit, as :meth:`trax.Trax.recover`; ``create()`` makes the first one.

        ChangedError if ``replay_log`` is not the function that it was when the job began.

        In a step it does not have what the step itself has logged.
        """
        self._check()
        now, stored = fingerprint(replay_log), self._state["replays"].get(name)
        if stored is not None and not self._upgrade:
            check_replay_log(name, stored, now, self.store.path)
        if stored != now:
            self._note({"replays": {name: now}})
        self._replays[name] = replay_log
        return self._meter.timed_replay(lambda: self.store.recover(name, create, replay_log))

    # What rolls back with the state

    def open(self, path: str | os.PathLike[str], mode: Literal["a", "ab"] = "a") -> Output:
        """An output file that rolls back with the state: text in UTF-8 (``"a"``), or bytes (``"ab"``), appended.

        What a step writes becomes part of its commit, synced before it if the store's policy is ``sync="always"``, and
        otherwise before each checkpoint. When the job is started again, what no commit names is cut off. The file is
        remembered by its path from the directory that the store is in, so both can be moved together.

        A file that is there at first is appended to. Raises OutputFileError for one that is missing, or is not as the
        job left it; InvalidArgumentError for other modes, and for formats that can't be appended to.
        """
        self._check()
        full = os.path.abspath(os.fspath(path))
        check_appends(full, mode)
        key = os.path.relpath(full, os.path.dirname(self.store.path))
        if key not in self._files:
            self._files[key] = self._opened(key, full)
        return BinaryOutput(self._files[key]) if mode == "ab" else TextOutput(self._files[key])

    def _opened(self, key: str, path: str) -> AppendedFile:
        stored = self._state["files"].get(key)
        if stored is not None and self._fs.kind(path) == "absent":
            text = (
                f"{path} is missing: the job has written {stored[0]:,} bytes to it. Put the file back, or begin a new "
                f"job in another store."
            )
            raise OutputFileError(text, path=path, reason="missing")
        file = AppendedFile(self._fs, path)
        try:
            if stored is None:
                self._note({"files": {key: [*file.begin(), 0]}})
            else:
                length, checksum, from_step = stored
                file.roll_back(length, checksum)
                # Nothing is left out of a file that no step has written to: it may be new to a job that is not.
                file.is_repeating = bool(from_step) and self._resumes is not None
        except BaseException:
            file.close()
            raise
        return file

    def rng(self, name: str, seed: Any = None, *, kind: str = "PCG64") -> Any:
        """A random generator whose state is part of each step's commit.

        ``kind`` is the name of a bit generator of NumPy (PCG64, PCG64DXSM, MT19937, Philox, SFC64), for a
        ``numpy.random.Generator``; or ``"random"``, for a ``random.Random``. Without a ``seed`` the first one that the
        system gives is kept. InvalidArgumentError if the generator was made with another seed or kind before.
        """
        self._check()
        key = f"rng:{check_name(name)}"
        if key not in self._generators:
            self._track(key, make(kind, seed), must_match=seed is not None)
        return self._generators[key].generator

    def capture_global_rng(self) -> None:
        """Make the states of the global generators part of each step's commit.

        They are those of ``random``, of ``numpy.random``, and of torch, where these are imported by now: call it after
        the imports and after seeding.
        """
        self._check()
        for name, tracked in global_generators().items():
            if f"global:{name}" not in self._generators:
                self._track(f"global:{name}", tracked, must_match=False)

    def _track(self, key: str, tracked: Tracked, *, must_match: bool) -> None:
        created, now = self._state["created"].get(key), tracked.take()
        if created is None:
            self._note({"created": {key: now}})
        elif created != now:
            if must_match or kind_of(created) != kind_of(now):
                text = (
                    f"the generator {key.partition(':')[2]!r} was made with another seed or kind when this job began. "
                    f"Give it those, or another name; to change them, begin a new job in another store."
                )
                raise InvalidArgumentError(text, path=self.store.path, reason="seed or kind")
            tracked.put(created)
        if self._running is not None:
            stored = self._state["loops"].get(self._running)
            if stored is not None and key in stored["generators"]:
                tracked.put(stored["generators"][key])
        self._generators[key] = tracked

    def _note(self, changes: dict[str, Any]) -> None:
        """Commit something that is true whatever becomes of the present step."""
        entry = [None, 0, changes]
        self.store.log({STATE: entry})
        self.store.sync()
        fold(self._state, entry)

    # The end

    def close(self) -> None:
        """Sync the output files and the store, and let go of them. A second call does nothing.

        A step that is open is not committed; StepError says so. Raises what kept a step from being committed, unless
        the job has raised it before.
        """
        if self._closed:
            return
        self._closed = True
        if self._step is not None:
            self._fail(StepError(self._not_committed(), path=self.store.path, reason="open"))
        try:
            if self._failure is None:
                for file in self._files.values():
                    file.sync()
        finally:
            for file in self._files.values():
                file.close()
            self._finalizer()
            self.store.close()
        if self._failure is not None and not self._is_known:
            raise self._failure

    def __enter__(self) -> Job:
        self._check()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        # What the block raised has ended the step, or was the reason why a step could not be committed.
        self._is_known = self._is_known or value is not None
        self.close()

    # How it is done

    def _check(self) -> None:
        if self._closed:
            text = f"the job in {self.store.path} was closed. Open it again with trax.Job(…)."
            raise ClosedError(text, path=self.store.path, reason="closed")
        if self._failure is not None:
            self._is_known = True
            if isinstance(self._failure, StepError):
                raise self._failure
            raise StepError(self._not_committed(), path=self.store.path, reason="failed") from self._failure

    def _check_config(self, config: Any) -> None:
        stored = self._state["config"]
        if stored and not self._upgrade:
            check_config(stored[0], config, self.store.path)
        elif stored or config is not None:
            self._note({"config": [config]})

    def _is_verification_due(self) -> bool:
        if not self._verify_every or self._step is None:
            return False
        return self._meter.steps + 1 - self._verified_at >= self._verify_every

    def _verify(self, values: Mapping[str, Any]) -> None:
        """Compare what is about to be checkpointed with what a crash behind this step would bring back without it."""
        assert self._step is not None
        for name, live in values.items():
            if name in self._replays and name in self.store:
                recovered = self.store.recover(name, replay_log=self._replays[name])
                for encoding in self._step.encodings(name):
                    (entry,) = self.store.codec.decode_many(encoding, [len(encoding)])
                    recovered = self._replays[name](recovered, entry)
                check_state(name, recovered, live, self.store.last_sequence, self.store.path)
        self._verified_at = self._meter.steps + 1

    def _fail(self, error: BaseException) -> None:
        """Nothing more is committed: what is in memory is ahead of the store."""
        if self._failure is None:
            self._failure = error
        self._step = None

    def _not_committed(self) -> str:
        return (
            f"a step of the loop {self._running!r} did not come to its end, so it is not committed, and the state in "
            f"memory is ahead of {self.store.path}. Open the job again: it repeats the step on the state before it."
        )

    def _check_nothing_to_resume(self, name: str) -> None:
        if self._resumes is not None:
            text = (
                f"this job was in its loop {self._resumes!r} when it ended, and now comes to {name!r} first, which it "
                f"has not seen before. Let it come to its loops in the order it had, or begin a new job."
            )
            raise LoopError(text, path=self.store.path, reason="another loop")

    def _check_resumable(self, name: str, stored: LoopState, items: Items[Any]) -> None:
        items.check(stored["items"], stored["done"])
        longer = items.count is not None and items.count > stored["done"] and not stored["finished"]
        if longer and name != next(reversed(self._state["loops"])):
            text = (
                f"the loop {name!r} has become longer, but others have begun after it: its new steps would come too "
                f"late. Begin a new job, or give the new steps a loop of their own, behind the others."
            )
            raise LoopError(text, path=self.store.path, reason="longer")
