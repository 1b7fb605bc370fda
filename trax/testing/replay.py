"""``check_replay``: what a crash would bring back now is compared with the state that is alive now.

A store gives back a checkpointed value and what ``replay_log`` makes of it with each entry since. Whether that is the
live state depends on the job: on what it logs, when it checkpoints, and whether ``replay_log`` does to the state what
the job did to it.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from trax.errors import ReplayError
from trax.replay import ReplayLog
from trax.store import Trax
from trax.testing.differences import Difference, Path, difference, located, shown
from trax.testing.errors import NothingToCheckError, ReplayDiffersError

_SHOWN = 6


class History(dict[int, Any]):
    """States on the way, by sequence: each is copied when it is put in, so the job may go on changing it.

    >>> history = History()
    >>> state = [1]
    >>> history[7] = state
    >>> state.append(2)
    >>> history
    {7: [1]}
    """

    def __setitem__(self, sequence: int, state: Any) -> None:
        super().__setitem__(sequence, copy.deepcopy(state))


@dataclass(frozen=True)
class ReplayReport:
    """What ``check_replay`` has compared: so many entries were replayed, the last of them ``last_sequence``."""

    name: str
    entries: int
    last_sequence: int
    compared_on_the_way: int

    def __str__(self) -> str:
        way = f", and {self.compared_on_the_way:,} states on the way" if self.compared_on_the_way else ""
        return (
            f"{self.name}: its checkpoint and {self.entries:,} entries, up to sequence {self.last_sequence}, give the "
            f"live state, bit for bit{way}"
        )


def check_replay(
    store: Trax | str | os.PathLike[str],
    name: str,
    replay_log: ReplayLog,
    live_state: Any,
    *,
    history: Mapping[int, Any] | None = None,
) -> ReplayReport:
    """Check that what the store would give back of ``name`` is ``live_state``, type for type and bit for bit.

    ``store``
        is an open store, or the path of one, which is then only read. Records need not be synced.
    ``replay_log``
        is the function that the job gives to ``recover``.
    ``history``
        holds states that the job had on the way, by the sequence of the last record that each contains; a
        :class:`History` copies them. With it the first record is named after which the two part.

    Raises ReplayDiffersError, which names the first path in the state that differs, and the records that change it when
    they are replayed; or what is wrong with ``replay_log`` itself: it raises, it changes the entry that it is given, or
    it gives another state when it is asked again. NothingToCheckError when no entry of the name is in the log.
    """
    __tracebackhide__ = True
    if not isinstance(store, Trax):
        with Trax(store, mode="r") as opened:
            return check_replay(opened, name, replay_log, live_state, history=history)
    log = _Log(store, name, replay_log)
    before = copy.deepcopy(live_state)
    first, second = log.fold(), log.fold()
    if (found := difference(before, live_state)) is not None:
        raise log.error(
            f"replay_log has changed the live state itself, at {found.place(name)}: it does not work on the state that "
            f"it is given, or keeps a part of one that it was given before. Let it change only its first argument.",
            reason="replay_log changes the live state",
        )
    if (found := difference(first, second)) is not None:
        raise log.not_repeatable(found)
    compared = log.check_history(history or {})
    if (found := difference(live_state, first)) is not None:
        raise log.differs(found, live_state)
    return ReplayReport(name, len(log.sequences), log.sequences[-1], compared)


class _Log:
    """What is stored of one name, replayed as often as one likes."""

    def __init__(self, store: Trax, name: str, replay_log: ReplayLog) -> None:
        self._store, self.name, self._replay_log = store, name, replay_log
        self.sequences = [sequence for sequence, _ in store.entries(name)]
        if name not in store:
            raise NothingToCheckError(
                f"{store.path} holds no value of {name!r}. Give the store one with recover({name!r}, create=…) or "
                f"checkpoint(), as the job does, before the check.",
                path=store.path,
                reason="not stored",
            )
        if not self.sequences:
            raise NothingToCheckError(
                f"the log of {store.path} holds no entries of {name!r} behind its checkpoint, so nothing is replayed "
                f"and replay_log is not checked. Call check_replay() after some log() calls and before the next "
                f"checkpoint().",
                path=store.path,
                reason="no entries",
            )

    def fold(self, watch: _Watch | None = None) -> Any:
        """The state as the store would give it back; ``watch`` sees it on the way."""
        fresh = self._store.entries(self.name)

        def replay(state: Any, entry: Any) -> Any:
            sequence, untouched = next(fresh)
            if watch is not None and sequence == self.sequences[0]:
                watch.begin(state)
            try:
                state = self._replay_log(state, entry)
            except Exception as error:
                text = (
                    f"replay_log raises {type(error).__name__} at sequence {sequence}, for {shown(untouched)}: {error}"
                )
                raise self.error(text, sequence=sequence, reason="replay_log raises") from error
            if (found := difference(untouched, entry)) is not None:
                raise self._entry_changed(sequence, found)
            if watch is not None:
                watch.step(sequence, untouched, state)
            return state

        __tracebackhide__ = True
        try:
            return self._store.recover(self.name, replay_log=replay)
        except ReplayDiffersError as error:
            del error.__notes__  # recover() has noted the sequence, which the message names already
            raise error.with_traceback(None) from error.__cause__
        except ReplayError as error:
            raise self.error(error.message, sequence=error.sequence, reason=error.reason) from error

    def check_history(self, history: Mapping[int, Any]) -> int:
        """Compare with the states on the way; with how many."""
        __tracebackhide__ = True
        common = [sequence for sequence in self.sequences if sequence in history]
        if history and not common:
            text = (
                f"history holds the sequences {_some(sorted(history))}, and the log holds entries of {self.name!r} at "
                f"{_some(self.sequences)}: nothing could be compared. Its keys are what log() returns."
            )
            raise NothingToCheckError(text, reason="no such sequence in the log")
        if common:
            self.fold(_Comparing(self, history))
        return len(common)

    def differs(self, found: Difference, live_state: Any) -> ReplayDiffersError:
        """The error for a state that is not the live one, with what the log says about the place."""
        trace = _Tracing(found.path, live_state)
        self.fold(trace)
        place, last = found.place(self.name), self.sequences[-1]
        lines = [
            f"what the store would give back is not the live state: {found.told(self.name, 'live', 'recovered')}",
            f"Behind the checkpoint, the log holds {len(self.sequences):,} entries of {self.name!r}, at the sequences "
            f"{_some(self.sequences)}.",
        ]
        if trace.changed:
            sequence, entry = trace.changed[-1]
            lines.append(
                f"When they are replayed, {place} is changed at {_some([number for number, _ in trace.changed])}; the "
                f"last of these entries is {entry}."
            )
        else:
            sequence = None
            lines.append(
                f"When they are replayed, none changes {place}: either the job changes it and does not log that, or "
                f"replay_log does not do what the job did, or the checkpoint was of another moment than its place in "
                f"the log."
            )
        if trace.same_as_of is not None and trace.same_as_of != last:
            sequence = next(number for number in self.sequences if number > trace.same_as_of)
            lines.append(
                f"The live state is what the store gives without the entries from sequence {sequence} on: they were "
                f"logged, and not applied to it."
            )
        return self.error("\n".join(lines), sequence=sequence, reason="the recovered state is not the live one")

    def not_repeatable(self, found: Difference) -> ReplayDiffersError:
        """The error for a ``replay_log`` that gives different states."""
        place = found.place(self.name)
        traces = [_Remembering(found.path), _Remembering(found.path)]
        for trace in traces:
            self.fold(trace)
        pairs = zip(self.sequences, *(trace.parts for trace in traces), strict=True)
        sequence = next((number for number, one, other in pairs if difference(one, other) is not None), None)
        where = "" if sequence is None else f" Sequence {sequence} is the first that does."
        text = (
            f"replay_log gives another state when the same log is replayed again: "
            f"{found.told(self.name, 'the first time', 'the second')}.{where} It depends on more than its arguments, "
            f"such as the time, a random generator, or something that an earlier call has changed; let the entry say "
            f"all that it needs."
        )
        return self.error(text, sequence=sequence, reason=f"{place} is not repeatable")

    def error(self, text: str, **details: Any) -> ReplayDiffersError:
        return ReplayDiffersError(text, path=self._store.path, **details)

    def _entry_changed(self, sequence: int, found: Difference) -> ReplayDiffersError:
        text = (
            f"replay_log changes the entry that it is given: at sequence {sequence}, "
            f"{found.told('entry', 'before', 'afterwards')}. A job that applies the same function to an entry and then "
            f"logs it, or uses it again, has another one in its hands than the log. Copy what has to be changed."
        )
        return self.error(text, sequence=sequence, reason="replay_log changes its entry")


class _Watch:
    """Sees the checkpointed value, and the state after each entry."""

    def begin(self, state: Any) -> None:
        pass

    def step(self, sequence: int, entry: Any, state: Any) -> None:
        raise NotImplementedError


class _Comparing(_Watch):
    """Compares with the states that the job had."""

    def __init__(self, log: _Log, history: Mapping[int, Any]) -> None:
        self._log, self._history, self._same = log, history, 0

    def step(self, sequence: int, entry: Any, state: Any) -> None:
        if sequence not in self._history:
            return
        found = difference(self._history[sequence], state)
        if found is None:
            self._same = sequence
            return
        same = f"The last that was the same is sequence {self._same}" if self._same else "None before it was compared"
        text = (
            f"with sequence {sequence}, what the store would give back parts from the state that the job had then: "
            f"{found.told(self._log.name, 'live', 'recovered')}. {same}. The entry of sequence {sequence} is "
            f"{shown(entry)}."
        )
        raise self._log.error(text, sequence=sequence, reason="the states part here")


class _Tracing(_Watch):
    """Notes which entries change one place, and when the state was the live one."""

    def __init__(self, path: Path, live_state: Any) -> None:
        self._path, self._live_state = path, live_state
        self.changed: list[tuple[int, str]] = []
        self.same_as_of: int | None = None

    def begin(self, state: Any) -> None:
        self._part = copy.deepcopy(located(state, self._path))
        if difference(self._live_state, state) is None:
            self.same_as_of = 0

    def step(self, sequence: int, entry: Any, state: Any) -> None:
        part = located(state, self._path)
        if difference(self._part, part) is not None:
            self.changed.append((sequence, shown(entry)))
            self._part = copy.deepcopy(part)
        if difference(self._live_state, state) is None:
            self.same_as_of = sequence


class _Remembering(_Watch):
    """Keeps one place as it was after each entry."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.parts: list[tuple[bool, Any]] = []

    def step(self, sequence: int, entry: Any, state: Any) -> None:
        self.parts.append(copy.deepcopy(located(state, self._path)))


def _some(sequences: list[int]) -> str:
    """The first and the last of many numbers."""
    texts = [str(sequence) for sequence in sequences]
    return ", ".join(texts if len(texts) <= _SHOWN else [*texts[:2], "…", *texts[-2:]])
