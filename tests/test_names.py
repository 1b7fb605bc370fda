"""The reserved prefix: only a layer writes behind it, whatever has been written there before."""

from __future__ import annotations

from pathlib import Path

import pytest

import trax
from trax.errors import InvalidNameError
from trax.names import layer_name


def test_a_layers_name_works_in_every_call_and_stays_reserved_for_everybody_else(tmp_path: Path) -> None:
    name = layer_name("test", "a:b")
    assert name == "trax:test:a:b"
    with trax.Trax(tmp_path / "s") as store:
        store.checkpoint({name: 1})
        store.log({name: 2}, own=3)
        with store.batch() as batch:
            batch.log({name: 3})
        for call in (store.log, store.checkpoint):
            with pytest.raises(InvalidNameError, match="belong to the layers"):
                call({"trax:test:a:b": 4})
        with pytest.raises(InvalidNameError):
            store.recover("trax:test:a:b")
    with trax.Trax(tmp_path / "s") as store:
        assert store.recover(name) == 3
        assert [entry for _, entry in store.entries(name)] == [2, 3]
        assert store.names() == [name]
        store.delete(name)
        assert name not in store


@pytest.mark.parametrize("rest", ["x" * 250, "\ud800"])
def test_a_layers_name_keeps_to_the_limits_of_a_name(rest: str) -> None:
    with pytest.raises(InvalidNameError):
        layer_name("test", rest)
