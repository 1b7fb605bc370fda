"""``Job``: a loop whose steps are commits, and all that has to roll back with them.

A step is one commit. It holds what the user logs and checkpoints in it, and one entry of the job's own
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
from types import TracebackType
from typing import Any, Literal, TypeVar, overload

from trax.commit import SyncPolicy
from trax.errors import InvalidArgumentError
from trax.job.background import Background
from trax.job.checking import Upgrade, Upgrades
from trax.job.deadlines import Clock
from trax.job.ending import Ending
from trax.job.files import OutputFiles
from trax.job.items import Items
from trax.job.looping import Looping
from trax.job.meter import Meter
from trax.job.outputs import BinaryOutput, TextOutput, check_appends
from trax.job.policies import Policy, optimal
from trax.job.randomness import Randomness
from trax.job.replays import Replays
from trax.job.state import STATE, recover_state
from trax.job.steps import Steps
from trax.job.stopping import SIGNALS
from trax.layers import LayerStore
from trax.names import check_name, named_values
from trax.replay import ReplayLog, last_wins
from trax.storage.local.fs import FileSystem, default_file_system
from trax.testing.differences import first_difference

T = TypeVar("T")


class Job:
    """A job that may be killed at any moment, and that goes on, started again, as if it had not been.

    ``path``, ``sync``, ``codec``, ``keep``, ``sync_interval_s``, ``differential`` are those of :class:`trax.Trax`;
    ``store`` is the store on which the job stands. A handle belongs to one thread. Use it in a ``with`` statement.

    ``checkpoint_when``
        When :meth:`should_checkpoint` says so: see ``trax.job.policies``. None: ``optimal()``.
    ``config``
        What the job is configured with: any value that a store keeps. Another one, or another ``replay_log`` of
        :meth:`recover`, is refused with a ChangedError when the job is started again.
    ``upgrade``
        What becomes of what was stored under another configuration or function: a mapping of the fingerprints that the
        ChangedErrors name to functions. That of a configuration makes the present one of the old one; that of a
        ``replay_log`` folds what was logged under the old one, and the state is then checkpointed. True: the present
        ones are taken for what was stored as well.
    ``verify_every``
        After how many steps :meth:`should_checkpoint` asks for a checkpoint that is verified, as by :meth:`verify`.
        0: never.
    ``verify_stops``
        Whether what a verification finds is a VerificationError, or only a warning.
    ``signals``
        Those after which the loop ends, behind the step that it is in; ``interrupted`` is then the first that came.
        They are watched from the opening to the closing of a job that is opened in the main thread. The handlers that
        were there before are called as well. A second SIGINT interrupts at once. In a forked child SIGTERM does what
        it did before, since ``multiprocessing`` ends its workers by it; the others are left to the job.
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
        differential: bool = False,
        checkpoint_when: Policy | None = None,
        config: Any = None,
        upgrade: Upgrade = False,
        verify_every: int = 0,
        verify_stops: bool = True,
        signals: Iterable[str | signal.Signals] = SIGNALS,
        deadline_s: float | None = None,
        deadline_margin: float = 3.0,
        clock: Clock = time.time,
        fs: FileSystem | None = None,
    ) -> None:
        _check_options(checkpoint_when, verify_every, deadline_s, deadline_margin)
        self._verify_every, self._verify_stops, self._verified_at = verify_every, verify_stops, 0
        upgrades = Upgrades(upgrade, os.path.abspath(os.fspath(path)))
        self.store = LayerStore(
            path,
            sync=sync,
            codec=codec,
            keep=keep,
            sync_interval_s=sync_interval_s,
            differential=differential,
            fs=fs,
        )
        self._meter = Meter(optimal() if checkpoint_when is None else checkpoint_when, clock, self.store)
        try:
            state, checkpointed = recover_state(self.store)
            self._steps = steps = Steps(self.store, state)
            self._check_config(config, upgrades)
            self._meter.count_replayed()
            seam = default_file_system() if fs is None else fs
            self._files = OutputFiles(steps, checkpointed, seam, syncs_each_step=sync == "always")
            self._randomness = Randomness(steps)
            self._background = Background(steps, self._files, self._meter)
            self._ending = Ending(signals, deadline_s, deadline_margin, self._meter, self._background)
            self._replays = Replays(steps, self._randomness, upgrades, self._meter, self._checkpoint_now)
            self._looping = Looping(steps, self._randomness, self._files, self._background, self._ending, self._meter)
        except BaseException:
            self.store.close()
            raise
        self._ending.signals.watch()
        self._finalizer = weakref.finalize(self, self._ending.signals.restore)

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
        wanted = Items(name, items, self.store.codec if check_items else None)
        return self._looping.over(wanted, check_name(name), desc or name)

    @property
    def interrupted(self) -> signal.Signals | None:
        """The signal after which the job ends; None if none has come."""
        return self._ending.signals.received

    @property
    def is_ending(self) -> bool:
        """Whether a signal has come, or the deadline is near: loops end behind the present step."""
        return self._ending.is_near

    @property
    def exit_status(self) -> int:
        """For ``sys.exit``: 0, or after a signal what a shell makes of it; 75, "try again" of sysexits.h, otherwise."""
        return self._ending.exit_status

    # What happens in a step, or at once

    def log(self, mapping: Mapping[str, Any] | None = None, /, **entries: Any) -> None:
        """Add a record: to the commit of this step; outside of a loop at once, as :meth:`trax.Trax.log`."""
        steps = self._steps
        if steps.step is not None:
            steps.step.log(mapping, entries)
            return
        steps.check()
        self.store.log(mapping, **entries)

    def checkpoint(self, mapping: Mapping[str, Any] | None = None, /, **values: Any) -> None:
        """Save values as they are now: with the commit of this step; outside of a loop at once."""
        self._steps.check()
        if self._is_verification_due():
            self._verify(named_values(mapping, values, "checkpoint"))
        if self._steps.step is None:
            self._checkpoint_now(mapping, **values)
            return
        self._background.wait()  # never two at once
        began = self._meter.now()
        self._steps.step.checkpoint(mapping, values)
        self._meter.note_written(began)

    def checkpoint_async(self, mapping: Mapping[str, Any] | None = None, /, **values: Any) -> None:
        """The same as :meth:`checkpoint`, written in the background while the loop goes on.

        In a step the values are taken, and copied, behind the step's commit, as they are then. There are never two at
        once: a call waits for the one before. If one fails, the end of the next step raises it, or the next call on the
        job; the last good one is in place.
        """
        self._steps.check()
        wanted = dict(named_values(mapping, values, "checkpoint_async"))
        if self._is_verification_due():
            self._verify(wanted)
        if self._steps.step is not None:
            self._background.behind_step |= wanted
        else:
            self._background.begin(wanted)

    def should_checkpoint(self) -> bool:
        """Whether it is time for a checkpoint: the policy says so, or the job is about to end.

        Not while one is being written in the background, unless the job is about to end: it then waits for that one.
        """
        self._steps.check()
        if self.is_ending:
            return True
        if self._background.is_busy:
            return False
        return self._is_verification_due() or self._meter.is_due(in_step=self._steps.step is not None)

    def stats(self) -> dict[str, object]:
        """Figures about the job, by name, beside those of its store: seconds, steps, bytes."""
        return self.store.stats() | self._meter.stats()

    # Getting it back

    def recover(self, name: str, create: Callable[[], Any] | None = None, replay_log: ReplayLog = last_wins) -> Any:
        """The state of a name as of the last commit, as :meth:`trax.Trax.recover`; ``create()`` makes the first one.

        ChangedError if ``replay_log`` does something else than it did when the job began, as far as can be told: its
        code, its constants and those of its helpers are compared, in the same version of Python.

        ``create`` may draw from generators of the job: where its value is there already, they are as it left them. In a
        step it does not have what the step itself has logged.
        """
        self._steps.check()
        return self._replays.recover(name, create, replay_log)

    def verify(self, mapping: Mapping[str, Any] | None = None, /, **values: Any) -> None:
        """Compare live values with what a crash would bring back of them: bit for bit, with what this step has logged.

        For names that were recovered with :meth:`recover`. VerificationError names the first place that differs, and
        the first record behind the last checkpoint that changes it; it ends the job, unless ``verify_stops`` is false.
        """
        self._steps.check()
        live = named_values(mapping, values, "verify")
        self._replays.check_recovered(live)
        self._verify(live)

    # What rolls back with the state

    @overload
    def open(self, path: str | os.PathLike[str], mode: Literal["a"] = "a") -> TextOutput: ...

    @overload
    def open(self, path: str | os.PathLike[str], mode: Literal["ab"]) -> BinaryOutput: ...

    def open(self, path: str | os.PathLike[str], mode: Literal["a", "ab"] = "a") -> TextOutput | BinaryOutput:
        """An output file that rolls back with the state: text in UTF-8 (``"a"``), or bytes (``"ab"``), appended.

        What a step writes becomes part of its commit. With ``sync="always"`` the file is synced before the commit;
        otherwise before each checkpoint, and the commit holds what was written as well, so that the file is never
        behind the state. When the job is started again, what no commit names is cut off. The file is remembered by its
        path from the directory that the store is in, so both can be moved together.

        A file that is there at first is appended to. Raises OutputFileError for one that is missing, or is not as the
        job left it; InvalidArgumentError for other modes, and for formats that can't be appended to.
        """
        self._steps.check()
        full = os.path.abspath(os.fspath(path))
        check_appends(full, mode)
        file = self._files.open(full, is_repeating=self._looping.resumes is not None)
        return BinaryOutput(file) if mode == "ab" else TextOutput(file)

    def rng(self, name: str, seed: Any = None, *, kind: str = "PCG64") -> Any:
        """A random generator whose state is part of each step's commit.

        ``kind`` is the name of a bit generator of NumPy (PCG64, PCG64DXSM, MT19937, Philox, SFC64), for a
        ``numpy.random.Generator``; or ``"random"``, for a ``random.Random``. Without a ``seed`` the first one that the
        system gives is kept. InvalidArgumentError if the generator was made with another seed or kind before.
        """
        self._steps.check()
        return self._randomness.rng(name, seed, kind)

    def capture_global_rng(self) -> None:
        """Make the states of the global generators part of each step's commit.

        They are those of ``random``, of ``numpy.random``, and of torch, where these are imported by now: call it after
        the imports and after seeding.
        """
        self._steps.check()
        self._randomness.capture_global()

    # The end

    def close(self) -> None:
        """Sync the output files and the store, and let go of them. A second call does nothing.

        A step that is open is not committed; StepError says so. Raises what kept a step from being committed, unless
        the job has raised it before.
        """
        steps = self._steps
        if steps.is_closed:
            return
        steps.is_closed = True
        if steps.step is not None:
            steps.leave("open")
        try:
            if not steps.has_failed:
                self._files.sync()
        finally:
            self._files.close()
            self._finalizer()
            self.store.close()
        steps.raise_unknown()

    def __enter__(self) -> Job:
        self._steps.check()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if value is not None:
            # What the block raised has ended the step, or was the reason why a step could not be committed.
            self._steps.know()
        self.close()

    # How it is done

    def _check_config(self, config: Any, upgrades: Upgrades) -> None:
        stored = self._steps.state["config"]
        self.store.encode(config, "config")  # says where in it there is something that can't be kept
        if stored:
            upgrades.check_config(stored[0], config, self.store.codec)
        if (stored or config is not None) and first_difference(stored, [config]) is not None:
            self._steps.note({"config": [config]})

    def _checkpoint_now(self, mapping: Mapping[str, Any] | None = None, /, **values: Any) -> None:
        """Outside of the present step."""
        self._background.wait()
        self._files.sync()
        self._meter.begin_commit()
        with self.store.batch() as batch:
            batch.checkpoint(mapping, **values)
            batch.checkpoint({STATE: self._steps.state})
        self._meter.note_checkpoint()

    def _is_verification_due(self) -> bool:
        if not self._verify_every or self._steps.step is None:
            return False
        return self._meter.steps + 1 - self._verified_at >= self._verify_every

    def _verify(self, live: Mapping[str, Any]) -> None:
        self._replays.verify(live, stops=self._verify_stops)
        self._verified_at = self._meter.steps + (self._steps.step is not None)


def _check_options(checkpoint_when: Any, verify_every: Any, deadline_s: Any, deadline_margin: Any) -> None:
    """InvalidArgumentError for an option that means nothing, before anything is opened."""
    if checkpoint_when is not None and not isinstance(checkpoint_when, Policy):
        text = f"checkpoint_when is a policy, such as trax.job.every(seconds=600), not {checkpoint_when!r}."
        raise InvalidArgumentError(text, reason="checkpoint_when")
    if not isinstance(verify_every, int) or verify_every < 0:
        text = f"verify_every is a number of steps, or 0 for never, not {verify_every!r}."
        raise InvalidArgumentError(text, reason="verify_every")
    for name, seconds in (("deadline_s", deadline_s), ("deadline_margin", deadline_margin)):
        if seconds is not None and not (isinstance(seconds, int | float) and seconds >= 0):
            raise InvalidArgumentError(f"{name} is a number, 0 or more, not {seconds!r}.", reason=name)
