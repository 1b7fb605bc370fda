"""A store against a plain model.

Random names, values, subset checkpoints, batches, reopenings, kills, keep, at, delete.
"""

from __future__ import annotations

import shutil
import tempfile
import warnings
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, precondition, rule

import trax
from tests.codecs.strategies import identical, through_entry
from tests.codecs.strategies import values as any_values
from tests.helpers import kill
from trax.codecs import get_codec
from trax.storage.local import compaction

values = any_values.map(lambda value: through_entry(get_codec("msgpack"), value))
"""As a store gives them back: an array with strides of its own comes back in C order."""

NAMES = st.sampled_from(["a", "b", "ünï/ ", "x" * 255])


def fold(state: list[Any], entry: Any) -> list[Any]:
    return [*state, entry]


class StoreMachine(RuleBasedStateMachine):
    """The model: for each name that is stored, the list that its value and its entries fold to."""

    names = Bundle("names")

    @initialize(
        sync=st.sampled_from(["always", "os", "interval"]),
        keep=st.integers(1, 3),
        codec=st.sampled_from(["msgpack", "json"]),
    )
    def create(self, sync: str, keep: int, codec: str) -> None:
        memory = "/dev/shm" if Path("/dev/shm").is_dir() else None
        self.directory = tempfile.mkdtemp(dir=memory)
        self.options: dict[str, Any] = {"sync": sync, "keep": keep, "codec": codec, "sync_interval_s": 0.05}
        self.state: dict[str, list[Any]] = {}
        self.waiting: dict[str, list[tuple[int, Any]]] = {}
        self.history: dict[int, dict[str, list[Any]]] = {}
        self.last = 0
        self.store = trax.Trax(self.path, **self.options)

    @property
    def path(self) -> Path:
        return Path(self.directory, "store")

    def committed(self, sequence: int | None) -> None:
        assert sequence is not None and sequence > self.last
        self.last = sequence
        self.history[sequence] = dict(self.state)  # lists are replaced, not changed; deepcopy() changes a dtype('q')

    def saved(self, name: str) -> None:
        self.waiting[name] = []

    def logged(self, name: str, sequence: int, entry: Any) -> None:
        self.waiting.setdefault(name, []).append((sequence, entry))
        if name in self.state:
            self.state[name] = [*self.state[name], entry]

    @rule(entries=st.dictionaries(NAMES, values, min_size=1, max_size=3))
    def log(self, entries: dict[str, Any]) -> None:
        sequence = self.store.log(entries)
        for name, entry in entries.items():
            self.logged(name, sequence, entry)
        self.committed(sequence)

    @rule(name=NAMES, value=values, large=st.booleans(), background=st.booleans())
    def checkpoint(self, name: str, value: Any, large: bool, background: bool) -> None:
        state = [*self.state.get(name, []), value, *(["x" * 5000] if large else [])]
        call = self.store.checkpoint_async if background else self.store.checkpoint
        result = call({name: state})
        self.state[name] = state
        self.saved(name)
        self.committed(result if isinstance(result, int) else result.result())

    @precondition(lambda self: len(self.state) > 1)
    @rule(data=st.data())
    def checkpoint_some(self, data: st.DataObject) -> None:
        names = data.draw(st.lists(st.sampled_from(sorted(self.state)), min_size=1, unique=True))
        sequence = self.store.checkpoint({name: self.state[name] for name in names})
        for name in names:
            self.saved(name)
        self.committed(sequence)

    @rule(
        before=st.dictionaries(NAMES, values, max_size=2), name=NAMES, after=st.dictionaries(NAMES, values, max_size=2)
    )
    def mixed_batch(self, before: dict[str, Any], name: str, after: dict[str, Any]) -> None:
        base = self.last
        with self.store.batch() as batch:
            if before:
                base += 1
                batch.log(before)
                for one, entry in before.items():
                    self.logged(one, base, entry)
            state = [*self.state.get(name, []), "batch"]
            batch.checkpoint({name: state})
            self.state[name] = state
            self.saved(name)
            base += 1
            if after:
                base += 1
                batch.log(after)
                for one, entry in after.items():
                    self.logged(one, base, entry)
        assert batch.sequence == base
        self.committed(batch.sequence)

    @rule(name=NAMES)
    def create_absent(self, name: str) -> None:
        expected = self.state.get(name, [entry for _, entry in self.waiting.get(name, [])])
        assert identical(self.store.recover(name, list, fold), expected)
        if name not in self.state:
            self.state[name] = expected
            self.committed(self.store.last_sequence)

    @precondition(lambda self: bool(self.state))
    @rule(data=st.data())
    def delete(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.state)))
        sequence = self.store.delete(name)
        del self.state[name]
        self.saved(name)
        self.committed(sequence)

    @rule(how=st.sampled_from(["close", "kill", "sync"]))
    def restart(self, how: str) -> None:
        if how == "sync":
            self.store.sync()
            assert self.store.durable_sequence == self.store.last_sequence
            return
        if how == "close":
            self.store.close()
        else:
            kill(self.store)
        with warnings.catch_warnings(action="error"):
            self.store = trax.Trax(self.path, **self.options)
        assert self.store.last_sequence == self.last

    @rule(data=st.data())
    def go_back(self, data: st.DataObject) -> None:
        snapshots = [snapshot.sequence for snapshot in self.store.snapshots()]
        assert 1 <= len(snapshots) <= self.options["keep"] and snapshots == sorted(snapshots)
        reachable = [sequence for sequence in self.history if sequence >= snapshots[0]]
        if not reachable:
            return
        at = data.draw(st.sampled_from(reachable))
        for name in ("a", "b"):
            if name in self.history[at]:
                assert identical(self.store.recover(name, None, fold, at=at), self.history[at][name])
            else:
                with pytest.raises(KeyError):
                    self.store.recover(name, at=at)

    @rule()
    def read_beside(self) -> None:
        with trax.Trax(self.path, mode="r") as reader:
            self.compare(reader)

    @invariant()
    def holds(self) -> None:
        if hasattr(self, "store"):
            self.compare(self.store)

    def compare(self, store: trax.Trax) -> None:
        assert store.names() == sorted(self.state)
        recovered = store.recover_many(self.state, None, fold)
        for name, state in self.state.items():
            assert identical(recovered[name], state), name
        for name, waiting in self.waiting.items():
            assert identical(list(store.entries(name)), waiting), name

    def teardown(self) -> None:
        if hasattr(self, "store"):
            assert self.store.verify().problems == []
            self.store.close()
            shutil.rmtree(self.directory)


@pytest.fixture(autouse=True)
def _compact_early(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compaction, "LARGE_BYTES", 300)
    monkeypatch.setattr(compaction, "MANY_SEGMENTS", 3)


TestStore = StoreMachine.TestCase
TestStore.settings = settings(
    max_examples=60,
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    derandomize=True,
    report_multiple_bugs=False,
)
