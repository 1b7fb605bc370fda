"""A state machine in which the power fails: at any moment, in any legal state of the disk, and the work goes on.

Hypothesis draws the calls, the moment, and what of the disk has arrived. So a run that fails is shrunk to a short one:
few calls, the latest moment, and as little lost as it takes.
"""

from __future__ import annotations

import contextlib
import random
import tempfile
import warnings
from pathlib import Path

import hypothesis.strategies as st
import pytest
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

import trax
from tests.counting import count
from tests.crashing import MEMORY, NAMES, Demand, Model, State, make_small, recovered, without_chance
from tests.helpers import run_machine
from tests.workloads import Workload
from trax.testing.disks import Disk
from trax.testing.recording import Image, RecordingFileSystem

SETTLED = ("store/lock",)
names = st.lists(st.sampled_from(NAMES), min_size=1, max_size=2, unique=True)
sizes = st.sampled_from([0, 0, 0, 600])


class PowerMachine(RuleBasedStateMachine):
    """The model: for each name the list that its value and its entries fold to, after every commit since the last loss.

    ``history`` has the state after each sequence that is in the store.
    """

    runs = 0
    losses = 0

    @initialize(
        sync=st.sampled_from(["always", "os"]), keep=st.sampled_from([1, 2]), codec=st.sampled_from(["msgpack", "json"])
    )
    def begin(self, sync: str, keep: int, codec: str) -> None:
        type(self).runs += 1
        self.clean_up = contextlib.ExitStack()
        self.clean_up.enter_context(without_chance("machine"))
        self.root = Path(self.clean_up.enter_context(tempfile.TemporaryDirectory(dir=MEMORY)))
        self.lives = 0
        self.options = sync, keep, codec
        self.history: dict[int, State] = {}
        self.job = self._live(Model(), 0)
        self.before = self.job.model.demand
        self.job.open()

    def _live(self, model: Model, number: int) -> Workload:
        """Until the next loss of power."""
        self.lives += 1
        where = self.root / str(self.lives)
        where.mkdir(exist_ok=True)
        state = dict(model.states[-1])
        job = Workload(where / "store", random.Random(0), *self.options, model=model, state=state, number=number)
        job.fs = RecordingFileSystem(where)
        return job

    @property
    def state(self) -> State:
        return self.job.state

    def _some(self, chosen: list[str]) -> list[str]:
        return [name for name in chosen if name in self.state]

    @precondition(lambda self: self.state)
    @rule(chosen=names, nbytes=sizes)
    def log(self, chosen: list[str], nbytes: int) -> None:
        self.job.log(*self._some(chosen) or sorted(self.state)[:1], nbytes=nbytes)

    @precondition(lambda self: self.state)
    @rule(chosen=st.lists(names, min_size=1, max_size=3))
    def log_batch(self, chosen: list[list[str]]) -> None:
        self.job.log_batch([self._some(one) or sorted(self.state)[:1] for one in chosen])

    @rule(chosen=names, nbytes=sizes, background=st.booleans())
    def checkpoint(self, chosen: list[str], nbytes: int, background: bool) -> None:
        self.job.checkpoint(*chosen, nbytes=nbytes, background=background)

    @precondition(lambda self: self.state)
    @rule(data=st.data(), saved=st.sampled_from(NAMES))
    def batch(self, data: st.DataObject, saved: str) -> None:
        stored = st.sampled_from(sorted(self.state))
        self.job.batch(data.draw(stored), saved, data.draw(stored))

    @rule(name=st.sampled_from(NAMES))
    def create(self, name: str) -> None:
        if name not in self.state:
            self.job.create(name)

    @precondition(lambda self: self.state)
    @rule(data=st.data())
    def delete(self, data: st.DataObject) -> None:
        self.job.delete(data.draw(st.sampled_from(sorted(self.state))))

    @rule()
    def sync(self) -> None:
        self.job.sync_all()

    @rule()
    def reopen(self) -> None:
        self.job.close()
        self.job.open()

    @rule()
    def kill(self) -> None:
        self.job.kill()
        self.job.open()

    @rule(data=st.data(), ago=st.integers(0, 100), style=st.sampled_from(["all arrived", "nothing arrived", "some"]))
    def power_loss(self, data: st.DataObject, ago: int, style: str) -> None:
        """The power fails, so many operations ago; what comes back is one of the states that may."""
        type(self).losses += 1
        job = self.job
        job.kill()
        done = max(0, len(job.fs.operations) - ago)
        demand = self._demand_at(done)
        disk = Disk(job.fs.start)
        for operation in job.fs.operations[:done]:
            disk.apply(operation)

        def choose(kind: str, number: int) -> int:
            if style == "some":
                return data.draw(st.integers(0, number - 1), label=kind)
            return min(number - 1, style == "nothing arrived")

        self._come_back(disk.outcomes(SETTLED).choose(choose), demand)

    def _come_back(self, image: Image, demand: Demand) -> None:
        """Open what the loss has left, and go on with it: opened again, it must not be any less."""
        job = self._live(Model([{}]), self.job.number)
        image.lay_out(job.path.parent)
        job.fs = RecordingFileSystem(job.path.parent)
        job.fs.note(demand)
        self.before, self.job = demand, job
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", trax.TraxWarning)
            job.store = job._open(job.fs)
        state = recovered(job.store)
        assert state in demand.states, f"{state} is no state between commit {demand.durable} and {demand.issued}"
        job.state = {name: list(values) for name, values in state.items()}
        job.model.states = [state]
        job.fs.note(job.model.demand)
        self.history = {
            sequence: state for sequence, state in self.history.items() if sequence <= job.store.last_sequence
        }

    def _demand_at(self, done: int) -> Demand:
        for operation in reversed(self.job.fs.operations[:done]):
            if operation.kind == "note":
                demand: Demand = operation.note
                return demand
        return self.before

    @invariant()
    def holds(self) -> None:
        if not hasattr(self, "job"):
            return
        store = self.job.store
        assert recovered(store) == self.state
        if self.job.model.sequences:
            self.history[self.job.model.sequences[-1]] = {name: list(values) for name, values in self.state.items()}
        for snapshot in store.snapshots():
            if snapshot.sequence in self.history:
                assert recovered(store, snapshot.sequence) == self.history[snapshot.sequence], snapshot.sequence

    def teardown(self) -> None:
        with self.clean_up:
            if hasattr(self, "job") and hasattr(self.job, "store"):
                assert self.job.store.verify().problems == []
                self.job.close()


def test_whatever_is_done_and_whenever_the_power_fails_nothing_durable_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    make_small(monkeypatch)
    PowerMachine.runs = PowerMachine.losses = 0
    run_machine(PowerMachine, steps=30)
    count("state machine runs", PowerMachine.runs)
    count("power losses in the state machine", PowerMachine.losses)
