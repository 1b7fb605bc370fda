"""What large arrays cost: measured as the peak of the process, in one of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import trax

NBYTES = 200_000_000
SCRIPT = """
import sys, numpy as np, trax
path, what = sys.argv[1:]
def peak():  # of this program; ru_maxrss would begin with that of the process that started it
    with open("/proc/self/status") as status:
        (line,) = (line for line in status if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024
store = trax.Trax(path)
store.checkpoint(warm=np.zeros(100_000))
store.checkpoint_async(warm=np.zeros(100_000)).result()
store.recover("warm")
if what in ("save", "async", "strided"):
    array = np.ones({n} // 8)
    if what == "strided":
        array = array.reshape(-1, 1000).T
        assert not array.flags.c_contiguous
        array = array[::-1]
    before = peak()
    store.checkpoint(a=array) if what != "async" else store.checkpoint_async(a=array).result()
else:
    before = peak()
    array = store.recover("a", mmap=what == "map")
    if what == "load":
        assert array.sum() == {n} // 8
    else:
        assert array[0] == 1 and not array.flags.writeable
print(peak() - before)
store.close()
"""


def extra(path: Path, what: str) -> float:
    """The extra peak memory, as a share of the array's bytes."""
    script = SCRIPT.replace("{n}", str(NBYTES))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    run = subprocess.run(
        [sys.executable, "-c", script, str(path), what], capture_output=True, text=True, env=environment
    )
    assert run.returncode == 0, run.stderr
    return int(run.stdout) / NBYTES


needs_proc = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak of a process is read in /proc")


@needs_proc
@pytest.mark.parametrize(("what", "limit"), [("save", 0.1), ("strided", 0.1), ("async", 1.1)])
def test_saving_an_array(tmp_path: Path, what: str, limit: float) -> None:
    assert extra(tmp_path / "s", what) <= limit


@needs_proc
def test_loading_an_array_makes_one_copy(tmp_path: Path) -> None:
    assert extra(tmp_path / "s", "save") <= 0.1
    assert 0.9 < extra(tmp_path / "s", "load") < 1.1
    assert extra(tmp_path / "s", "map") < 1.1  # the pages of the file, which the system can take back


def test_few_entries_at_a_time_that_the_garbage_collector_looks_into(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    count = 1500
    with trax.Trax(tmp_path / "store", sync="os", buffer_bytes=1 << 20) as store:
        for step in range(count):
            store.log(flat={"step": step}, nested={"steps": [step]})
        decode_many = type(store._codec).decode_many
        for name, most in (("nested", 128), ("flat", 1024)):
            sizes: list[int] = []

            def watched(codec: Any, data: bytes, lengths: Any, sizes: list[int] = sizes) -> list[Any]:
                sizes.append(len(lengths))
                return decode_many(codec, data, lengths)

            monkeypatch.setattr(type(store._codec), "decode_many", watched)
            store.checkpoint_at(0, {name: 0})
            folded = store.recover(name, replay_log=lambda state, entry: state + 1)
            assert (folded, sum(sizes)) == (count, count)
            assert max(sizes) <= most, sizes
            assert name == "nested" or max(sizes) > 128, sizes
