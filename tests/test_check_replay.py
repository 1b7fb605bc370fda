"""``check_replay``: each way in which a replay can go wrong is told apart from the others, and what is right passes."""

from __future__ import annotations

import copy
import itertools
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import trax
from trax.testing import History, NothingToCheckError, ReplayDiffersError, check_replay

State = dict[str, Any]


def apply(state: State, entry: dict[str, Any]) -> State:
    state["count"] += 1
    state["items"].extend(entry["items"])
    state["generator"] = entry["generator"]
    return state


@pytest.fixture
def store(tmp_path: Path) -> Iterator[trax.Trax]:
    with trax.Trax(tmp_path / "store", sync="os", buffer_bytes=10_000) as store:
        yield store


def entry(number: int) -> dict[str, Any]:
    return {"items": [number, float(number)], "generator": random.Random(number)}


def live(store: trax.Trax, history: History | None = None) -> State:
    """A job's first steps: sequences 1 to 6, none of them synced, of which 1 is the created value."""
    state: State = store.recover("state", lambda: {"count": 0, "items": [], "generator": random.Random(0)}, apply)
    for number in range(5):
        sequence = store.log(state=entry(number))
        apply(state, entry(number))
        if history is not None:
            history[sequence] = state
    return state


def failure(*arguments: Any, **options: Any) -> ReplayDiffersError:
    with pytest.raises(ReplayDiffersError) as caught:
        check_replay(*arguments, **options)
    print(caught.value)
    assert isinstance(caught.value, AssertionError)
    return caught.value


def test_what_the_store_gives_back_is_the_live_state(store: trax.Trax) -> None:
    history = History()
    state = live(store, history)
    report = check_replay(store, "state", apply, state, history=history)
    assert (report.entries, report.last_sequence, report.compared_on_the_way) == (5, 6, 5)
    assert "5 entries" in str(report)
    store.sync()
    assert check_replay(store.path, "state", apply, state).entries == 5
    assert state == live_copy(state), "it was left alone"


def live_copy(state: State) -> State:
    return {**state, "items": [*state["items"]]}


def test_the_place_and_the_entries_that_change_it_are_named(store: trax.Trax) -> None:
    state = live(store)
    state["items"][7] = -0.0
    error = failure(store, "state", apply, state)
    assert "state['items'][7]: -0.0 live, 3.0 recovered" in str(error)
    assert "at the sequences 2, 3, 4, 5, 6." in str(error)
    assert "state['items'][7] is changed at 5; the last of these entries is {'items': [3, 3.0]" in str(error)
    assert error.sequence == 5


def test_a_container_that_is_changed_in_place_is_followed(store: trax.Trax) -> None:
    def see(state: dict[str, set[int]], number: int) -> dict[str, set[int]]:
        state["seen"].add(number)
        return state

    store.recover("state", lambda: {"seen": set()}, see)
    for number in (7, 7, 8):
        store.log(state=number)
    error = failure(store, "state", see, {"seen": {7}})
    assert "state['seen']: lacks 8 live, has 8 recovered" in str(error)
    assert "is changed at 2, 4; the last of these entries is 8." in str(error)


def test_a_change_that_was_not_logged_is_told_apart(store: trax.Trax) -> None:
    state = live(store)
    state["accepted"] = 3
    error = failure(store, "state", apply, state)
    assert "state['accepted']: 3 live, nothing recovered" in str(error)
    assert "none changes state['accepted']" in str(error)
    assert error.sequence is None


def test_an_entry_that_was_logged_and_not_applied_is_told_apart(store: trax.Trax) -> None:
    state = live(store)
    sequence = store.log(state=entry(5))
    store.log(state=entry(6))
    error = failure(store, "state", apply, state)
    assert f"without the entries from sequence {sequence} on: they were logged, and not applied" in str(error)
    assert error.sequence == sequence


def test_a_checkpoint_of_another_moment_is_told_apart(store: trax.Trax) -> None:
    """It is taken to contain the entry before it, and was made of the state as it was without."""
    state = live(store)
    store.log(state=entry(5))
    store.checkpoint(state=state)
    apply(state, entry(5))
    store.log(state={"items": [], "generator": random.Random(6)})
    apply(state, {"items": [], "generator": random.Random(6)})
    error = failure(store, "state", apply, state)
    assert "state['count']: 7 live, 6 recovered" in str(error)
    state["count"] = 6
    error = failure(store, "state", apply, state)
    assert "state['items'][10]: 5 live, nothing recovered (of 12 and 10 items)" in str(error)
    assert "or the checkpoint was of another moment" in str(error)


def test_with_a_history_the_first_record_is_named(store: trax.Trax) -> None:
    history = History()
    live(store, history)

    def replays_otherwise(state: State, entry: dict[str, Any]) -> State:
        apply(state, entry)
        if state["count"] == 3:
            state["items"][-1] = int(state["items"][-1])
        return state

    error = failure(store, "state", replays_otherwise, history[6], history=history)
    assert error.sequence == 4
    assert "with sequence 4, what the store would give back parts from the state that the job had" in str(error)
    assert "state['items'][5]: float 2.0 live, int 2 recovered" in str(error)
    assert "The last that was the same is sequence 3." in str(error)
    del history[2], history[3]
    assert "None before it was compared." in str(
        failure(store, "state", replays_otherwise, history[6], history=history)
    )


def test_a_history_that_says_nothing_about_the_log_is_an_error(store: trax.Trax) -> None:
    state = live(store)
    with pytest.raises(NothingToCheckError, match="history holds the sequences 100, and the log holds entries"):
        check_replay(store, "state", apply, state, history={100: state})


def test_a_history_keeps_copies() -> None:
    history = History()
    state = [[1]]
    history[7] = state
    state[0].append(2)
    assert history == {7: [[1]]}


def test_a_replay_that_is_not_repeatable_is_named(store: trax.Trax) -> None:
    state = live(store)
    calls = itertools.count(1)

    def counts_calls(state: State, entry: dict[str, Any]) -> State:
        apply(state, entry)
        state["count"] = next(calls)
        return state

    error = failure(store, "state", counts_calls, state)
    assert "another state when the same log is replayed again: state['count']: 5 the first time, 10" in str(error)
    assert "Sequence 2 is the first that does" in str(error)


def test_a_replay_that_changes_its_entry_is_named(store: trax.Trax) -> None:
    state = live(store)

    def empties_the_entry(state: State, entry: dict[str, Any]) -> State:
        apply(state, {**entry, "items": [*entry["items"]]})
        entry["items"].clear()
        return state

    error = failure(store, "state", empties_the_entry, state)
    assert "changes the entry that it is given: at sequence 2, entry['items'][0]: 0 before, nothing" in str(error)


def test_a_replay_that_changes_the_live_state_is_named(store: trax.Trax) -> None:
    state = live(store)

    def works_on_the_global_one(given: State, entry: dict[str, Any]) -> State:
        return apply(state, entry)

    error = failure(store, "state", works_on_the_global_one, state)
    assert "replay_log has changed the live state itself, at state['count']" in str(error)


def test_a_replay_that_fails_is_named(store: trax.Trax) -> None:
    state = live(store)

    def fails(state: State, entry: dict[str, Any]) -> State:
        if state["count"] == 2:
            raise LookupError("no such thing")
        return apply(state, entry)

    error = failure(store, "state", fails, state)
    assert "replay_log raises LookupError at sequence 4, for {'items': [2, 2.0]" in str(error)
    assert isinstance(error.__cause__, LookupError) and error.sequence == 4

    def forgets_to_return(state: State, entry: dict[str, Any]) -> None:
        apply(state, entry)

    assert "replay_log returned None" in str(failure(store, "state", forgets_to_return, state))


def test_a_check_that_could_not_fail_is_an_error(store: trax.Trax) -> None:
    with pytest.raises(NothingToCheckError, match="holds no value of 'state'"):
        check_replay(store, "state", apply, {})
    state = live(store)
    store.checkpoint(state=state)
    with pytest.raises(NothingToCheckError, match="so nothing is replayed"):
        check_replay(store, "state", apply, state)


def test_arrays_are_compared_bit_for_bit(store: trax.Trax) -> None:
    numpy = pytest.importorskip("numpy")
    nan = numpy.array([0x7FF8000000000001], "u8").view("f8")

    def put(state: Any, entry: Any) -> Any:
        place, number = entry
        state[place] = number
        return state

    state = store.recover("state", lambda: numpy.zeros((2, 3)), put)
    for place in ((0, 1), (1, 2)):
        store.log(state=(place, nan[0]))
        put(state, (place, nan[0]))
    assert check_replay(store, "state", put, state).entries == 2
    other = copy.deepcopy(state)
    other.view("u8")[1, 2] += 1
    error = failure(store, "state", put, other)
    assert "state[1, 2]: nan (020000000000f87f) live, nan (010000000000f87f) recovered" in str(error)
    assert "state[1, 2] is changed at 3" in str(error)
