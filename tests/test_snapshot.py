"""A snapshot that follows from another one, at the cost of what changes, is the one that would be made from nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

import trax
from trax.storage.base import BlobReference, Stored
from trax.storage.local.segment import Summary
from trax.storage.local.snapshot import SegmentReference, Snapshot, decode_snapshot, encode_snapshot
from trax.storage.local.state import without_dead_markers

NAMES = ["a", "b", "c", "dd", "€"]

_stored = st.builds(Stored, st.integers(0, 99), st.integers(1, 2**40), st.sampled_from(["blob", "based", b"x", None]))
_changes = st.dictionaries(st.sampled_from(NAMES), st.one_of(st.none(), _stored))


@given(st.lists(st.tuples(_changes, st.booleans())))
def test_what_follows_is_what_would_be_made_anew(steps: list[tuple[dict[str, Stored | None], bool]]) -> None:
    snapshot = Snapshot(bytes(16), "msgpack", 1, segments=(SegmentReference(1, bytes(8), None),), last_segment=1)
    names: dict[str, Stored] = {}
    for changes, asked in steps:
        if asked:  # what is derived of all names, and what is derived of what was derived before
            assert encode_snapshot(snapshot)
        number = snapshot.last_blob
        made: dict[str, Stored | None] = {}
        for name, one in changes.items():
            number += 2
            made[name] = one and one._replace(value=_value(one.value, number))
        snapshot = snapshot.changed(made, generation=snapshot.generation + 1, last_blob=number)
        for name, one in made.items():
            if one is None:
                names.pop(name, None)
            else:
                names[name] = one
        anew = replace(snapshot, names=dict(names))
        assert snapshot == anew
        assert snapshot.blobs == anew.blobs == {one.value for one in names.values() if type(one.value) is BlobReference}
        assert snapshot.deleted == anew.deleted == {name for name, one in names.items() if one.value is None}
        assert encode_snapshot(snapshot) == encode_snapshot(anew)
        assert decode_snapshot(encode_snapshot(snapshot), "snapshot") == anew


def test_a_snapshot_that_is_kept_takes_no_memory_for_a_commit_that_was(tmp_path: Path) -> None:
    with trax.Trax(tmp_path / "s", keep=3) as store:
        for step in range(4):
            store.checkpoint({f"{step} of many names": step})
        now, kept, *_ = store._storage._state  # type: ignore[union-attr]
        assert "packed" in vars(now)
        assert [len(one.names) for one in kept] == [2, 3]
        assert not any("packed" in vars(one) for one in kept)


def _value(kind: object, number: int) -> bytes | BlobReference | None:
    if kind == "blob":
        return BlobReference(number, 100, 7)
    if kind == "based":
        return BlobReference(number, 100, 7, (BlobReference(number - 1, 50, 8),))
    assert kind is None or isinstance(kind, bytes)
    return kind


def test_a_marker_goes_when_the_log_holds_nothing_it_hides() -> None:
    old = Snapshot(bytes(16), "msgpack", 1, names={"gone": Stored(1, 1, None), "hides": Stored(1, 1, None)})
    changes = {"new": Stored(5, 5, b"x"), "deleted": Stored(5, 5, None)}
    log = [Summary({"hides": 1}, {"hides": 10}), Summary()]
    assert without_dead_markers(old, changes, log) == {**changes, "gone": None, "deleted": None}
    assert without_dead_markers(old, {"gone": Stored(5, 5, b"x")}, log) == {"gone": Stored(5, 5, b"x")}
    assert without_dead_markers(old, {}, []) == {"gone": None, "hides": None}
