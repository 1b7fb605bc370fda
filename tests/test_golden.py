"""Stores that earlier versions made open in this one, and hold what they held."""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path

import pytest

import trax
from tests import reseal
from tests.codecs.strategies import identical
from tests.golden.make import CONTENTS, HERE, LIST, SPREAD, fold
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
        assert ("spread" in store) == name.endswith("differential")
        assert "spread" not in store or identical(store.recover("spread"), SPREAD)
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
@pytest.mark.parametrize("version", [0, 2, 2**16 - 1])
def test_a_version_that_this_one_does_not_read_is_refused_with_a_clear_error(
    tmp_path: Path, file: str, version: int
) -> None:
    path = tmp_path / "s"
    shutil.copytree(HERE / "v1-msgpack", path)
    reseal.set_version(path, file, version)
    before = {one: one.read_bytes() for one in path.rglob("*") if one.is_file() and one.name != "lock"}
    expected, match = (
        (errors.FormatError, "Install a newer trax")
        if version
        else (errors.CorruptionError, "format 0, and there is none of that number")
    )
    with pytest.raises(expected, match=match) as caught:
        with trax.Trax(path, mode="r") as store:
            store.recover("large")
    assert type(caught.value) is expected
    if file != "blob":  # only whoever asks for the value finds that out
        with pytest.raises(expected, match=match):
            trax.Trax(path)
        assert {one: one.read_bytes() for one in before} == before


@pytest.mark.parametrize("file", ["snapshot", "log", "blob"])
@pytest.mark.parametrize("byte", [8, 9])
def test_a_damaged_version_is_damage_and_not_a_newer_version(tmp_path: Path, file: str, byte: int) -> None:
    path = tmp_path / "s"
    shutil.copytree(HERE / "v1-msgpack", path)
    victim = reseal.file_of(path, file)
    data = bytearray(victim.read_bytes())
    data[byte] ^= 0x40
    victim.write_bytes(data)
    with pytest.raises(errors.CorruptionError, match="damaged"):
        with trax.Trax(path) as store:
            store.recover("large")
