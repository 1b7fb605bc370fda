"""A worker that logs until it is killed, and writes down, outside the store, what it was told is safe.

Run as a program: ``python killing.py STORE LEDGER SYNC``. Four threads log to names of their own and one name in
common, and one of them checkpoints now and then. The ledger is one file a thread, a line before each call (``+``:
issued) and one after it (``=``: acknowledged). Plain writes to it survive SIGKILL, as the records of every policy
must.
"""

from __future__ import annotations

import os
import sys
import threading
import traceback
from pathlib import Path
from typing import Any

import trax

THREADS = 4


def fold(state: list[int], entry: int) -> list[int]:
    state.append(entry)
    return state


def work(*arguments: Any) -> None:
    try:
        log_for_ever(*arguments)
    except BaseException:
        traceback.print_exc()
        os._exit(1)


def log_for_ever(store: trax.Trax, ledger: int, thread: int, state: list[int]) -> None:
    own = f"own{thread}"
    number = state[-1] + 1 if state else 0
    while True:
        os.write(ledger, b"+%d\n" % number)
        store.log({own: number, "both": (thread, number)})
        os.write(ledger, b"=%d\n" % number)
        state.append(number)
        number += 1
        if number % 25 == thread:
            store.checkpoint({own: state})
        if number % 40 == thread:
            store.checkpoint_async({own: state})


def main(path: str, ledger: str, sync: str, keep: int) -> None:
    with trax.Trax(path, sync=sync, sync_interval_s=0.01, keep=keep) as store:  # type: ignore[arg-type]
        states = [store.recover(f"own{thread}", list, fold) for thread in range(THREADS)]
        threads = []
        for thread, state in enumerate(states):
            fd = os.open(Path(ledger, str(thread)), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            threads.append(threading.Thread(target=work, args=(store, fd, thread, state), daemon=True))
        for one in threads:
            one.start()
        print("ready", flush=True)
        for one in threads:
            one.join()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]))
