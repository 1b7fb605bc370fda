"""What every case of a search is watched for: that it ends, and that it leaves nothing open behind it."""

from __future__ import annotations

import faulthandler
import gc
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

DEADLINE_S = 60.0


def within(action: Callable[[], None], seconds: float = DEADLINE_S) -> None:
    """Do something, in a thread of its own: if it does not end in time, the error says where every thread stands."""
    raised: list[BaseException] = []

    def run() -> None:
        try:
            action()
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=run, name="case", daemon=True)
    thread.start()
    thread.join(seconds)
    if thread.is_alive():
        raise AssertionError(f"it hangs:\n{_stacks()}")
    if raised:
        raise raised[0]


def assert_nothing_left(path: Path) -> None:
    """No descriptor of a file below ``path`` is open, and no thread of a store runs."""
    for generation in range(3):
        if open_files(path):
            gc.collect(generation)  # an exception that is part of a cycle keeps its frames, and what they hold
    assert open_files(path) == []
    deadline = time.monotonic() + DEADLINE_S
    while threads := [one for one in threading.enumerate() if one.name.startswith("trax-")]:
        threads[0].join(max(0.0, deadline - time.monotonic()))
        assert not threads[0].is_alive(), f"{threads[0].name} goes on:\n{_stacks()}"


def open_files(path: Path) -> list[str]:
    """Where the descriptors of this process lead, if below ``path``; nothing where the system doesn't say."""
    found = []
    for fd in os.listdir("/proc/self/fd") if sys.platform == "linux" else ():
        try:
            target = os.readlink(f"/proc/self/fd/{fd}")
        except FileNotFoundError:  # the descriptor of the listing itself
            continue
        if target.startswith(f"{path}{os.sep}"):
            found.append(target)
    return found


def _stacks() -> str:
    with tempfile.TemporaryFile("w+") as file:
        faulthandler.dump_traceback(file, all_threads=True)
        file.seek(0)
        return file.read()
