"""A worker that uses all of a store until the file system beneath it fails, and writes down what it was told is safe.

Run as a program: ``python -m tests.working '{"store": …, "ledger": …, …}'``. Four threads log to names of their own and
one name in common, batch, checkpoint, checkpoint in the background and sync, at random. The ledger is a directory
elsewhere, with one file a thread:

=====================  =================================================================
``+ first last``       issued: the entries of these numbers, as one commit
``= last sequence``    returned, with the commit's sequence
``- first last``       refused by an error after which nothing of it may be in the store
``! last``             told that everything up to this number of the thread is durable
``~ sequence``         ``durable_sequence``, as it was read
``# number``           told that the value that was made at this number is durable
``? kind message``     an error of trax, and what caused it
=====================  =================================================================

It ends by itself, with status 0, when the store lets no thread go on, and every error that it met was one of trax.
"""

from __future__ import annotations

import errno
import json
import os
import random
import sys
import threading
import traceback
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import trax

THREADS = 4
PATIENCE = 6
"""After so many errors a thread gives up, even if the store does not."""
MIXTURES = [(60, 12, 6, 8, 8, 6), (800, 150, 2, 3, 3, 2)]
"""How often the calls of a thread are made. Where all others are rare, none syncs by chance what a log() has not."""


def fold(state: list[Any], entry: Any) -> list[Any]:
    state.append(entry)
    return state


def ballast(number: int) -> dict[str, Any]:
    """A value that shows what it was made of, too large to stand in the snapshot."""
    return {"number": number, "filling": f"{number} " * 3000}


def kind_of(error: BaseException | None) -> str:
    """What it is, and what caused it: ``FinishedError-DiskFullError-ENOSPC``."""
    kinds = []
    while isinstance(error, trax.TraxError):
        kinds.append(type(error).__name__)
        error = error.__cause__
    if isinstance(error, OSError):
        kinds.append(errno.errorcode[error.errno])
    return "-".join(dict.fromkeys(kinds))


@dataclass
class Thread:
    """One of those that use the store."""

    store: trax.Trax
    always: bool
    number: int
    ledger: int
    dice: random.Random
    padding_bytes: int
    mixture: tuple[int, ...]
    state: list[int]
    errors: list[trax.TraxError] = field(default_factory=list)
    background: tuple[int, Future[int]] | None = None

    def run(self) -> None:
        calls = [self.log, self.batch, self.batch_with_checkpoint, self.checkpoint, self.checkpoint_async, self.sync]
        while len(self.errors) < PATIENCE:
            try:
                self.look_at_background()
                self.dice.choices(calls, self.mixture)[0]()
            except trax.TraxError as error:
                self.errors.append(error)
                self.say("?", kind_of(error), repr(str(error)))
                if isinstance(error, trax.errors.HandleError):
                    return

    def say(self, kind: str, *words: object) -> None:
        os.write(self.ledger, f"{kind} {' '.join(map(str, words))}\n".encode())

    def log(self) -> None:
        number = len(self.state)
        self.commit(1, lambda: self.store.log(self.record(number)), durable=self.always)

    def batch(self) -> None:
        first, count = len(self.state), self.dice.randint(2, 5)

        def call() -> int:
            with self.store.batch() as batch:
                for number in range(first, first + count):
                    batch.log(self.record(number))
            return batch.sequence or 0

        self.commit(count, call, durable=self.always)

    def batch_with_checkpoint(self) -> None:
        first = len(self.state)

        def call() -> int:
            with self.store.batch() as batch:
                batch.log(self.record(first))
                batch.checkpoint({f"own{self.number}": [*self.state, first]})
                batch.log(self.record(first + 1))
            return batch.sequence or 0

        self.commit(2, call, durable=True)

    def checkpoint(self) -> None:
        count = len(self.state)
        self.store.checkpoint(self.values())
        self.say("!", count - 1)
        self.say("#", count)

    def checkpoint_async(self) -> None:
        if self.background is None:
            self.background = len(self.state), self.store.checkpoint_async(self.values())

    def look_at_background(self) -> None:
        if self.background is not None and self.background[1].done():
            (count, future), self.background = self.background, None
            future.result()
            self.say("!", count - 1)
            self.say("#", count)

    def sync(self) -> None:
        count = len(self.state)
        self.store.sync()
        self.say("!", count - 1)

    def record(self, number: int) -> dict[str, Any]:
        padding = "." * self.dice.randint(0, self.padding_bytes)
        return {f"own{self.number}": number, "both": [self.number, number], "padding": padding}

    def values(self) -> dict[str, Any]:
        values = {f"own{self.number}": self.state, f"ballast{self.number}": ballast(len(self.state))}
        if self.number == 0:
            values["padding"] = ""  # otherwise it would pin the whole log; "both" does, and makes it worth compacting
        return values

    def commit(self, count: int, call: Callable[[], int], *, durable: bool) -> None:
        first, last = len(self.state), len(self.state) + count - 1
        self.say("+", first, last)
        try:
            sequence = call()
        except trax.errors.HandleError:
            raise
        except trax.TraxError:
            self.say("-", first, last)
            raise
        self.say("=", last, sequence)
        self.state.extend(range(first, last + 1))
        if durable:
            self.say("!", last)
        self.say("~", self.store.durable_sequence)


def run_thread(thread: Thread) -> None:
    try:
        thread.run()
    except BaseException:
        traceback.print_exc()
        os._exit(1)


def work(store: trax.Trax, *, sync: str, ledger: str, seed: str, padding_bytes: int) -> list[Thread]:
    threads = []
    mixture = random.Random(seed).choice(MIXTURES)
    for number in range(THREADS):
        fd = os.open(Path(ledger, str(number)), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        dice = random.Random(f"{seed}-{number}")
        state = store.recover(f"own{number}", list, fold)
        threads.append(Thread(store, sync == "always", number, fd, dice, padding_bytes, mixture, state))
    running = [threading.Thread(target=run_thread, args=(thread,), daemon=True) for thread in threads]
    for one in running:
        one.start()
    print("ready", flush=True)
    for one in running:
        one.join()
    return threads


def main(*, store: str, options: dict[str, Any], **how: Any) -> None:
    print("opening", flush=True)
    try:
        with trax.Trax(store, **options) as opened:
            threads = work(opened, sync=options["sync"], **how)
    except trax.TraxError as error:  # anything else is a fault, and ends with a traceback
        print(f"{kind_of(error)} {error}")
        return
    # It was closed, and so all that returned is durable, unless it had to be given up before.
    if not any(isinstance(error, trax.errors.HandleError) for thread in threads for error in thread.errors):
        for thread in threads:
            thread.say("!", len(thread.state) - 1)


if __name__ == "__main__":
    main(**json.loads(sys.argv[1]))
