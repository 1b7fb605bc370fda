"""What goes on beside the workers: the leases are renewed, and signals are heard."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import FrameType

from trax.consumer.clock import Clock


@contextmanager
def repeating(action: Callable[[], None], interval_s: float, clock: Clock) -> Iterator[None]:
    """In a thread of its own, repeat an action until the block ends; ``action`` keeps its errors to itself."""
    condition = threading.Condition()
    ended = False

    def repeat() -> None:
        while True:
            with condition:
                if not ended:
                    clock.wait(condition, interval_s)
                if ended:
                    return
            action()

    thread = threading.Thread(target=repeat, name="trax-leases", daemon=True)
    thread.start()
    try:
        yield
    finally:
        with condition:
            ended = True
            condition.notify_all()
        thread.join()


@contextmanager
def hearing(signals: Iterable[signal.Signals], stop: Callable[[], None]) -> Iterator[None]:
    """Call ``stop`` at the first of these signals; a second one does what it did before the block.

    Only the main thread hears signals; in another one nothing is changed. ``stop`` may set a flag and no more: the
    handler has interrupted the thread anywhere, perhaps while it held the very lock that a longer ``stop`` would need.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    previous = {number: signal.getsignal(number) for number in signals}

    def restore() -> None:
        for number, handler in previous.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def handle(number: int, frame: FrameType | None) -> None:
        restore()
        stop()

    try:
        for number in previous:
            signal.signal(number, handle)
        yield
    finally:
        restore()
