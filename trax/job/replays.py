"""The names that a job recovers: with which function each is folded, and whether that gives the live state."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

from trax.errors import InvalidArgumentError, TraxWarning, VerificationError
from trax.job.checking import Upgrades
from trax.job.fingerprints import fingerprint, is_another
from trax.job.meter import Meter
from trax.job.randomness import Randomness
from trax.job.steps import Steps
from trax.replay import ReplayLog
from trax.testing.differences import Difference, difference, located

Save = Callable[[dict[str, Any]], None]


class Replays:
    """``save`` checkpoints values, at once, together with the job's state."""

    def __init__(self, steps: Steps, randomness: Randomness, upgrades: Upgrades, meter: Meter, save: Save) -> None:
        self._steps, self._randomness, self._upgrades = steps, randomness, upgrades
        self._meter, self._save = meter, save
        self._functions: dict[str, ReplayLog] = {}

    def recover(self, name: str, create: Callable[[], Any] | None, replay_log: ReplayLog) -> Any:
        store, known = self._steps.store, self._steps.state["replays"]
        now, stored = fingerprint(replay_log), known.get(name)
        is_first = name not in self._functions and self._steps.step is None
        if create is not None and name not in store:
            create = partial(self._randomness.draw, name, create)
        elif is_first:
            self._randomness.has_drawn(name)
        if stored is not None and is_another(stored, now):
            before = self._upgrades.replay_log_for(name, stored, now, replay_log)
            state = self._meter.timed_replay(lambda: store.recover(name, create, before))
            try:
                known[name] = now
                self._save({name: state})  # from here on the log is the new function's
            except BaseException:
                known[name] = stored
                raise
        elif stored != now:
            self._steps.note({"replays": {name: now}})
        self._functions[name] = replay_log
        return self._meter.timed_replay(lambda: store.recover(name, create, replay_log))

    def check_recovered(self, names: Iterable[str]) -> None:
        """InvalidArgumentError for a name of which it is not known how it is replayed."""
        for name in names:
            if name not in self._functions:
                text = (
                    f"{name!r} can't be verified: this job has not recovered it, job.recover({name!r}, …, replay_log)."
                )
                raise InvalidArgumentError(text, path=self._steps.store.path, reason="not recovered")

    def verify(self, values: Mapping[str, Any], *, stops: bool) -> None:
        """Compare what is live with what a crash behind this step would bring back.

        What differs is a VerificationError, or, unless it ``stops``, a warning. Names that were not recovered are
        passed over, and so are those that this step has checkpointed: a crash behind it brings back that.
        """
        step = self._steps.step
        for name, live in values.items():
            if name not in self._functions or (step is not None and step.has_checkpointed(name)):
                continue
            if name in self._steps.store:
                found = difference(self._replayed(name, self._functions[name]), live)
                if found is not None:
                    error = self._error(name, found)
                    if stops:
                        raise error
                    warnings.warn(TraxWarning(str(error)), stacklevel=5)

    def _replayed(self, name: str, replay_log: ReplayLog) -> Any:
        store, step = self._steps.store, self._steps.step
        state = store.recover(name, replay_log=replay_log)
        for encoding in step.encodings(name) if step is not None else ():
            (entry,) = store.codec.decode_many(encoding, [len(encoding)])
            state = replay_log(state, entry)
        return state

    def _error(self, name: str, found: Difference) -> VerificationError:
        store = self._steps.store
        sequence = self._first_change(name, found)
        if sequence is None:
            record = "No record that would be replayed changes it: log what does"
        elif sequence > store.last_sequence:
            record = f"The first record that changes it is of this step, {sequence}: let replay_log do what the job did"
        else:
            record = f"The first record that changes it is {sequence}: let replay_log do to the state what the job did"
        text = (
            f"what {store.path} would give back of {name!r} is not the live state: {found.told(name)} (recovered, and "
            f"live). {record}. Nothing of this step was stored; verify_every=1 finds the step in which they part."
        )
        return VerificationError(text, path=store.path, sequence=sequence, reason="replay differs")

    def _first_change(self, name: str, found: Difference) -> int | None:
        """The sequence of the first record, of those behind the checkpoint, that changes the place that differs."""
        store, replay_log = self._steps.store, self._functions[name]
        sequences = [sequence for sequence, _ in store.entries(name)]
        changing: list[int] = []
        replayed = 0

        def watching(state: Any, entry: Any) -> Any:
            nonlocal replayed
            before = copy.deepcopy(located(state, found.path))
            state = replay_log(state, entry)
            if difference(before, located(state, found.path)) is not None:
                behind = store.last_sequence + 1
                changing.append(sequences[replayed] if replayed < len(sequences) else behind)
            replayed += 1
            return state

        self._replayed(name, watching)
        return changing[0] if changing else None
