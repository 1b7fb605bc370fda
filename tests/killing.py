"""A worker that logs until it is killed, and writes down, outside the store, what it was told is safe.

Run as a program: ``python killing.py STORE LEDGER SYNC KEEP``. Four threads log to names of their own and one name in
common, some of it in batches, and checkpoint now and then, also in the background and within a batch. The ledger is one
file a thread, a line for each number before the call (``+``: issued) and one after it (``=``: acknowledged). Plain
writes to it survive SIGKILL, as the records of every policy must.
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


def commit_of(number: int) -> range:
    """The numbers that are committed together with this one: three of every ten are a batch."""
    first = number - number % 10
    return range(first, first + 3) if number < first + 3 else range(number, number + 1)


def log_for_ever(store: trax.Trax, ledger: int, thread: int, state: list[int]) -> None:
    own = f"own{thread}"
    while True:
        numbers = commit_of(len(state))
        os.write(ledger, b"".join(b"+%d\n" % number for number in numbers))
        if len(numbers) == 1:
            store.log({own: numbers[0], "both": (thread, numbers[0])})
        else:
            log_batch(store, thread, state, numbers)
        os.write(ledger, b"".join(b"=%d\n" % number for number in numbers))
        state.extend(numbers)
        if len(state) % 25 == thread:
            store.checkpoint({own: state})
        if len(state) % 40 == thread + 25:
            store.checkpoint_async({own: state})


def log_batch(store: trax.Trax, thread: int, state: list[int], numbers: range) -> None:
    own = f"own{thread}"
    with store.batch() as batch:
        for number in numbers:
            batch.log({own: number, "both": (thread, number)})
            if number == numbers[1] and number % 20 == 11:
                batch.checkpoint({own: [*state, *numbers[:2]]})


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
