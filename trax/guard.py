"""A call must not be made in the middle of another one of the same thread: signal handlers can try."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from trax.errors import ReentrantCallError


class CallGuard:
    """Knows which threads are in the middle of a call."""

    def __init__(self) -> None:
        self._threads: set[int] = set()

    @contextmanager
    def inside(self) -> Iterator[None]:
        """This thread is in a call for the length of the block; ReentrantCallError if it is in one already.

        Without it, the inner call would wait for ever for a lock that its own thread holds, or come in between two
        halves of a step.
        """
        thread = threading.get_ident()
        if thread in self._threads:
            text = (
                "a signal handler called the store in the middle of another of its calls. Set a flag in the handler, "
                "and call the store where the program looks at the flag."
            )
            raise ReentrantCallError(text, reason="called from inside a call")
        try:
            self._threads.add(thread)
            yield
        finally:
            self._threads.discard(thread)
