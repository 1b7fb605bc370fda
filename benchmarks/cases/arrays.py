"""B7, B8, B10 and B11: a large array, saved, loaded, saved again where little has changed, saved while others log."""

from __future__ import annotations

import os
import statistics
import threading
import time
from collections.abc import Callable
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from benchmarks.cases.logging import TRAX
from benchmarks.model import FAST, Case, Contestant, Figure, Role, Scale, no_more_than, versus
from benchmarks.stores.with_trax import check_fast
from benchmarks.task import Task

SIZES: dict[Scale, dict[str, int]] = {
    "full": {"array_bytes": 1 << 28, "times": 6},
    "quick": {"array_bytes": 1 << 25, "times": 2},
    "tiny": {"array_bytes": 1 << 20, "times": 2},
}
NUMPY = ("numpy",)
TRAX_FAST = "trax, fast"


def array_of(task: Task) -> Any:
    """Random float64: no compression, no pages of zeros."""
    import numpy as np

    return np.random.default_rng(1).standard_normal(task.sizes["array_bytes"] // 8)


def check_array(task: Task, found: Any, expected: Any) -> None:
    import numpy as np

    task.check_equal((found.dtype, found.shape), (expected.dtype, expected.shape), "dtype and shape")
    task.check_equal(bool(np.array_equal(found, expected)), True, "all values equal")


def _trax(does: str, run: Callable[..., None], prepare: Callable[[Task], None] | None = None) -> list[Contestant]:
    """The core alone, and with the packages of the extra."""
    core = Contestant(TRAX, "trax", does, partial(run, fast=False), prepare, NUMPY, FAST)
    fast = Contestant(
        TRAX_FAST,
        "trax",
        "the same with the packages of the extra fast",
        partial(run, fast=True),
        prepare,
        (*NUMPY, *FAST),
    )
    return [core, fast]


def _peer(
    name: str,
    kind: str,
    does: str,
    run: Callable[..., None],
    prepare: Callable[..., None] | None,
    *needs: str,
    role: Role = "peer",
) -> Contestant:
    prepared = None if prepare is None else partial(prepare, kind=kind)
    return Contestant(name, role, does, partial(run, kind=kind), prepared, (*NUMPY, *needs))


def _array_file(task: Task, kind: str) -> Any:
    return getattr(import_module("benchmarks.stores.array_files"), kind)(task.directory)


def repeat(task: Task, work: Callable[[], object], between: Callable[[], object] = lambda: None) -> None:
    """The rate of the first time in this process, and the median of the others.

    The first time is slower by what the system does for it alone: it clears memory, and on a virtual machine fetches it
    from the host. Here that can take several times as long as all the rest.
    """
    rates: list[float] = []
    for _ in range(task.sizes["times"]):
        between()
        with task.measured() as clock:
            work()
        rates.append(task.sizes["array_bytes"] / 1e6 / clock.seconds)
    task.figures["first"], task.figures["rate"] = rates[0], statistics.median(rates[1:])


# B7: saving

SAVE = Figure("rate", "save", "MB/s")
FIRST_SAVE = Figure("first", "first save", "MB/s")
EXTRA = Figure("extra_bytes", "extra memory", "bytes", higher_is_better=False)


def write_and_sync(task: Task) -> None:
    array = array_of(task)
    path = task.directory / "array"

    def save() -> None:
        descriptor = os.open(task.directory / "new", os.O_WRONLY | os.O_CREAT)
        data = memoryview(array).cast("B")
        while data:
            data = data[os.write(descriptor, data) :]
        os.fsync(descriptor)
        os.close(descriptor)
        os.rename(task.directory / "new", path)

    repeat(task, save)
    check_array(task, _read(path, array.nbytes), array)


def _read(path: Path, nbytes: int, offset: int = 0) -> Any:
    import numpy as np

    array: Any = np.empty(nbytes // 8)
    with open(path, "rb", buffering=0) as file:
        file.seek(offset)
        view = memoryview(array).cast("B")
        while view and (count := file.readinto(view)):
            view = view[count:]
    return array


def checkpoint_array(task: Task, fast: bool) -> None:
    import trax

    array = array_of(task)
    with trax.Trax(task.directory / "store") as store:
        repeat(task, lambda: store.checkpoint(array=array))
    if fast:
        check_fast()
    with trax.Trax(task.directory / "store", mode="r") as reader:
        check_array(task, reader.recover("array"), array)


def save_file(task: Task, kind: str) -> None:
    array = array_of(task)
    file = _array_file(task, kind)
    repeat(task, lambda: file.save(array))
    check_array(task, file.load(), array)


ENDS = ", fsync, rename, fsync of the directory"
B7 = Case(
    "B7",
    "checkpoint of a float64 array",
    SIZES,
    [
        Contestant(
            "write, fsync", "limit", "os.write of the array into a new file, fsync, rename", write_and_sync, needs=NUMPY
        ),
        *_trax("checkpoint(array=array): checksums, fsync, rename, fsync of the directory", checkpoint_array),
        _peer("np.save", "NumpyFile", f"np.save{ENDS}", save_file, None),
        _peer("pickle 5", "PickleFile", f"pickle.dump, protocol 5{ENDS}", save_file, None),
        _peer("h5py", "Hdf5File", f"create_dataset{ENDS}", save_file, None, "h5py"),
        _peer("safetensors", "SafetensorsFile", f"save_file{ENDS}", save_file, None, "safetensors.numpy"),
        _peer(
            "zarr",
            "ZarrDirectory",
            "chunks of 16 MiB, not compressed; fsync of each, rename",
            save_file,
            None,
            "zarr",
        ),
    ],
    figures=[SAVE, FIRST_SAVE],
    bars=[
        versus(TRAX, "write, fsync", at_least=1.0, figure=SAVE),
        versus(TRAX_FAST, "write, fsync", at_least=1.15, figure=SAVE),
        versus(TRAX, "np.save", at_least=1.1, figure=SAVE),
        no_more_than(TRAX, EXTRA, 8 << 20),
    ],
    tries=3,
)

# B8: loading

LOAD = Figure("rate", "load", "MB/s")
FIRST_LOAD = Figure("first", "first load", "MB/s")


def fill(task: Task, kind: str) -> None:
    _array_file(task, kind).save(array_of(task))


def fill_trax(task: Task) -> None:
    import trax

    with trax.Trax(task.directory / "store") as store:
        store.checkpoint(array=array_of(task))


def _loaded(task: Task, load: Callable[[], Any]) -> None:
    loaded: list[Any] = []
    repeat(task, lambda: loaded.append(load()), between=loaded.clear)
    check_array(task, loaded[0], array_of(task))


def read_blob(task: Task) -> None:
    (blob,) = (task.directory / "store" / "blobs").iterdir()
    nbytes = task.sizes["array_bytes"]
    data = blob.read_bytes()
    offset = data.index(array_of(task)[:8].tobytes())
    del data
    _loaded(task, lambda: _read(blob, nbytes, offset))


def recover_array(task: Task, fast: bool, mmap: bool = False) -> None:
    import trax

    def load() -> Any:
        with trax.Trax(task.directory / "store", mode="r") as reader:
            return reader.recover("array", mmap=mmap)

    _loaded(task, load)
    if fast:
        check_fast()


def load_file(task: Task, kind: str) -> None:
    _loaded(task, _array_file(task, kind).load)


def _mapped() -> list[Contestant]:
    core, fast = _trax(
        'Trax(path, mode="r"), recover(mmap=True): checksums are checked', partial(recover_array, mmap=True), fill_trax
    )
    return [
        Contestant("trax, mapped", "trax", core.does, core.run, core.prepare, core.needs, core.blocks),
        Contestant("trax, mapped, fast", "trax", fast.does, fast.run, fast.prepare, fast.needs),
    ]


UNCHECKED = "nothing is checked"
B8 = Case(
    "B8",
    "loading the array, from the page cache",
    SIZES,
    [
        Contestant("readinto", "limit", "readinto of the same file into a new array", read_blob, fill_trax, NUMPY),
        *_trax('Trax(path, mode="r"), recover: checksums are checked', recover_array, fill_trax),
        *_mapped(),
        _peer("np.load", "NumpyFile", f"np.load; {UNCHECKED}", load_file, fill),
        _peer("np.load, crc32", "CheckedNumpyFile", "np.load, zlib.crc32 over it", load_file, fill),
        _peer("np.load mapped, crc32", "MappedNumpyFile", "np.load(mmap_mode), zlib.crc32 over it", load_file, fill),
        _peer("pickle 5", "PickleFile", f"pickle.load; {UNCHECKED}", load_file, fill),
        _peer("h5py", "Hdf5File", f"read_direct into a new array; {UNCHECKED}", load_file, fill, "h5py"),
        _peer("safetensors", "SafetensorsFile", f"load_file; {UNCHECKED}", load_file, fill, "safetensors.numpy"),
        _peer("zarr", "ZarrDirectory", f"the whole array; {UNCHECKED}", load_file, fill, "zarr"),
    ],
    figures=[LOAD, FIRST_LOAD],
    bars=[
        versus(TRAX, "readinto", at_least=0.95, figure=LOAD),
        versus("trax, mapped, fast", "readinto", at_least=2.5, figure=LOAD),
    ],
    tries=3,
)

# B10: saving what has changed

CHANGED_SHARE = 0.01
PLACES = 50


def change_one_place(array: Any) -> None:
    some = int(len(array) * CHANGED_SHARE)
    array[some : 2 * some] += 1.0


def change_some_places(array: Any) -> None:
    some = max(int(len(array) * CHANGED_SHARE / PLACES), 1)
    for start in range(0, len(array), max(len(array) // PLACES, 1)):
        array[start : start + some] += 1.0


def change_scattered(array: Any) -> None:
    import numpy as np

    array[np.random.default_rng(2).choice(len(array), int(len(array) * CHANGED_SHARE), replace=False)] += 1.0


def change_all(array: Any) -> None:
    array += 1.0


def checkpoint_changed(task: Task, change: Callable[[Any], None], differential: bool) -> None:
    import trax

    array = array_of(task)
    with trax.Trax(task.directory / "store", differential=differential) as store:
        store.checkpoint(array=array)
        repeat(task, lambda: store.checkpoint(array=array), between=lambda: change(array))
    with trax.Trax(task.directory / "store", mode="r") as reader:
        check_array(task, reader.recover("array"), array)


def _changed(what: str, does: str, change: Callable[[Any], None]) -> list[Contestant]:
    """A whole checkpoint and a differential one."""
    return [
        Contestant(
            f"whole{what}",
            "trax",
            f"checkpoint(array=array); {does}",
            partial(checkpoint_changed, change=change, differential=False),
            needs=NUMPY,
        ),
        Contestant(
            f"differential{what}",
            "trax",
            "the same, opened with differential=True",
            partial(checkpoint_changed, change=change, differential=True),
            needs=NUMPY,
        ),
    ]


B10 = Case(
    "B10",
    "checkpoint of an array of which 1 % has changed",
    SIZES,
    [
        *_changed("", "1 % has changed, in one place", change_one_place),
        *_changed(f", {PLACES} places", f"1 % has changed, in {PLACES} places", change_some_places),
        *_changed(", scattered", "1 % of its items have changed, here and there", change_scattered),
        *_changed(", all changed", "every item has changed", change_all),
    ],
    figures=[SAVE, FIRST_SAVE],
    bars=[
        versus("differential", "whole", at_least=3.0, figure=SAVE),
        versus(f"differential, {PLACES} places", f"whole, {PLACES} places", figure=SAVE),
        versus("differential, scattered", "whole, scattered", at_least=1 / 1.3, figure=SAVE),
        versus("differential, all changed", "whole, all changed", at_least=1 / 1.3, figure=SAVE),
    ],
)

# B11: saving while another thread logs

RATE = Figure("rate", "records/s", "records/s")
LONGEST = Figure("longest", "longest log()", "ms", higher_is_better=False)


def log_beside(task: Task, saving: bool) -> None:
    """Log from one thread for some time, in which the main thread sleeps or saves arrays."""
    import trax

    array = array_of(task)
    took: list[float] = []
    ended = threading.Event()
    begun = threading.Event()
    with trax.Trax(task.directory / "store", sync="os") as store:
        logger = threading.Thread(target=_log_until, args=(store.log, ended, begun, took))
        logger.start()
        begun.wait()
        with task.measured() as clock:
            first = len(took)
            until = time.monotonic() + task.sizes["milliseconds"] / 1000
            if saving:
                while True:
                    store.checkpoint_async(array=array).result()
                    if time.monotonic() >= until:
                        break
            else:
                time.sleep(max(until - time.monotonic(), 0))
            last = len(took)
        ended.set()
        logger.join()
    task.figures["rate"] = (last - first) / clock.seconds
    task.figures["longest"] = max(took[first:last], default=0.0) * 1000
    with trax.Trax(task.directory / "store", mode="r") as reader:
        task.check((step for _, step in reader.entries("step")), range(len(took)))
        if saving:
            check_array(task, reader.recover("array"), array)


def _log_until(log: Callable[..., int], ended: threading.Event, begun: threading.Event, took: list[float]) -> None:
    clock = time.perf_counter
    step = 0
    while not ended.is_set():
        start = clock()
        log(step=step)
        took.append(clock() - start)
        step += 1
        begun.set()


B11 = Case(
    "B11",
    "checkpoint_async of the array, while another thread logs",
    {
        "full": {"array_bytes": 1 << 28, "milliseconds": 3000},
        "quick": {"array_bytes": 1 << 25, "milliseconds": 500},
        "tiny": {"array_bytes": 1 << 20, "milliseconds": 20},
    },
    [
        Contestant(
            "logging alone",
            "trax",
            'log(step=step), sync="os"',
            partial(log_beside, saving=False),
            needs=NUMPY,
            blocks=FAST,
        ),
        Contestant(
            "logging beside saves",
            "trax",
            "the same; the main thread calls checkpoint_async(array=array) and waits for it, again and again",
            partial(log_beside, saving=True),
            needs=NUMPY,
            blocks=FAST,
        ),
    ],
    figures=[RATE, LONGEST],
    bars=[
        versus("logging beside saves", "logging alone", at_least=0.7),
        no_more_than("logging beside saves", LONGEST, 50),
    ],
)
