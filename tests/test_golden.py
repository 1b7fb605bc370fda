"""Stores that earlier versions made open in this one, and hold what they held."""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path

import pytest

import trax
from tests.codecs.strategies import identical
from tests.golden.make import CONTENTS, HERE, LIST, fold
from trax import errors

STORES = sorted(path.name for path in HERE.glob("v*"))


def test_there_is_a_golden_store_of_this_format() -> None:
    assert {"v1-json", "v1-killed", "v1-msgpack"} <= set(STORES)


@pytest.mark.parametrize("name", STORES)
@pytest.mark.parametrize("mode", ["a", "r"])
def test_an_old_store_opens_and_holds_what_it_held(tmp_path: Path, name: str, mode: str) -> None:
    shutil.copytree(HERE / name, tmp_path / "s")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        store = trax.Trax(tmp_path / "s", mode=mode)  # type: ignore[arg-type]
    with store:
        assert store.verify().problems == []
        for one, value in CONTENTS.items():
            assert identical(store.recover(one), value), one
        assert store.recover("list", None, fold) == LIST
        assert [entry for _, entry in store.entries("never")] == ["checkpointed"]
        oldest, newest = store.snapshots()
        assert (
            store.recover("list", None, fold, at=oldest.sequence)
            == LIST[: 2 if oldest.sequence < newest.sequence - 2 else 3]
        )
        if mode == "a":
            torn = [one for one in caught if issubclass(one.category, errors.TornTailWarning)]
            assert len(torn) == (1 if name.endswith("killed") else 0)
            store.log(list="more")
            assert store.recover("list", None, fold) == [*LIST, "more"]


@pytest.mark.parametrize("file", ["snapshot", "log", "blob"])
def test_a_store_of_a_newer_format_is_refused_with_a_clear_error(tmp_path: Path, file: str) -> None:
    shutil.copytree(HERE / "v1-msgpack", tmp_path / "s")
    (tmp_path / "s" / "kept").mkdir(exist_ok=True)
    path = {
        "snapshot": tmp_path / "s" / "snapshot",
        "log": max((tmp_path / "s").glob("log.*")),
        "blob": next((tmp_path / "s" / "blobs").iterdir()),
    }[file]
    data = bytearray(path.read_bytes())
    data[8:10] = (2).to_bytes(2, "little")
    path.write_bytes(data)
    before = data
    with pytest.raises(errors.FormatError, match=r"newer (version of )?trax|Install a newer trax"):
        with trax.Trax(tmp_path / "s") as store:
            store.recover("large")
    assert path.read_bytes() == before
