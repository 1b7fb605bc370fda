"""A call must not be made in the middle of another one of the same thread: signal handlers can try."""

from __future__ import annotations

import threading

from trax.errors import ReentrantCallError


class CallGuard:
    """The threads that are in the middle of a call.

    A call takes its thread from ``check()``, adds it to ``threads`` inside a ``try`` and discards it in the
    ``finally``: written out, because an interrupt at the beginning of a context manager's exit would leave the thread
    inside. Without the guard, an inner call would wait for ever for a lock that its own thread holds, or come in
    between two halves of a step.
    """

    def __init__(self) -> None:
        self.threads: set[int] = set()

    def check(self) -> int:
        """The calling thread, to be added; ReentrantCallError if it is inside already."""
        thread = threading.get_ident()
        if thread in self.threads:
            text = (
                "a signal handler called the store in the middle of another of its calls. Set a flag in the handler, "
                "and call the store where the program looks at the flag."
            )
            raise ReentrantCallError(text, reason="called from inside a call")
        return thread
