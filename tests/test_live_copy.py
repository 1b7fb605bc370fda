"""A directory that is copied while its writer is alive opens as a state that the store had, or raises."""

from __future__ import annotations

import os
import random
import shutil
import threading
import warnings
from pathlib import Path

import pytest

import trax
from tests.counting import count
from tests.crashing import fold

COPIES = int(os.environ.get("TRAX_COPIES", "40"))


def copy_slowly(source: Path, target: Path, dice: random.Random) -> None:
    """Copy file by file in any order, as ``cp`` does; files that vanish meanwhile are passed over."""
    target.mkdir()
    files = [file for file in source.rglob("*") if file.is_file()]
    dice.shuffle(files)
    for directory in ("blobs", "kept"):
        (target / directory).mkdir()
    for file in files:
        try:
            shutil.copyfile(file, target / file.relative_to(source))
        except FileNotFoundError:
            continue


@pytest.mark.parametrize("sync", ["always", "os"])
def test_a_copy_of_a_live_store_is_a_state_that_it_had_or_an_error(tmp_path: Path, sync: str) -> None:
    dice = random.Random(20261121)
    store = trax.Trax(tmp_path / "s", sync=sync, keep=2)  # type: ignore[arg-type]
    store.checkpoint(a=[], b=[])
    ended = threading.Event()

    def write() -> None:
        state: list[int] = []
        number = 0
        while not ended.is_set():
            store.log(a=number, b=number)
            state.append(number)
            number += 1
            if number % 50 == 0:
                store.checkpoint(a=state)
            if number % 90 == 0:
                store.checkpoint(b=[*state, "x" * 5000] and state)

    writer = threading.Thread(target=write)
    writer.start()
    opened = 0
    try:
        for number in range(COPIES):
            copy = tmp_path / f"copy{number}"
            copy_slowly(tmp_path / "s", copy, dice)
            with warnings.catch_warnings(action="ignore"):
                try:
                    with trax.Trax(copy, mode="r+") as found:
                        a, b = found.recover("a", None, fold), found.recover("b", None, fold)
                except trax.TraxError as error:
                    assert isinstance(error, (trax.errors.CorruptionError, trax.errors.StoreNotFoundError)), error
                else:
                    opened += 1
                    assert a == b == list(range(len(a)))
            shutil.rmtree(copy)
    finally:
        ended.set()
        writer.join()
        store.close()
    print(f"{opened} of {COPIES} copies opened")
    count("copies of a live store", COPIES)
    assert opened > 0


def test_readers_beside_a_live_writer_see_only_whole_states(tmp_path: Path) -> None:
    store = trax.Trax(tmp_path / "s", sync="os")
    store.checkpoint(a=[], b=[])
    ended = threading.Event()

    def write() -> None:
        state: list[int] = []
        number = 0
        while not ended.is_set():
            store.log(a=number, b=number)
            state.append(number)
            number += 1
            if number % 20 == 0:
                store.checkpoint(a=state, b=state)

    writer = threading.Thread(target=write)
    writer.start()
    seen = 0
    try:
        with trax.Trax(tmp_path / "s", mode="r") as reader:
            for _ in range(150):
                found = reader.recover_many(["a", "b"], None, fold)
                assert found["a"] == found["b"] == list(range(len(found["a"])))
                assert len(found["a"]) >= seen
                seen = len(found["a"])
    finally:
        ended.set()
        writer.join()
        store.close()
    assert seen > 0
