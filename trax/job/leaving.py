"""How a loop was left: by ``break`` or ``return``, or by an exception.

A generator is told of neither. When the ``for`` statement lets go of it, it is closed, with a GeneratorExit that looks
the same in both cases; and an exception on its way up can't be seen before somebody handles it. But the instruction at
which the frame of the ``for`` stands tells them apart: ``break`` and ``return`` take the iterator off the stack, with
an instruction that does nothing else and can't raise. That must be the frame that asked for the item of this step: the
traceback of an exception may hold the loop as well, and be let go of by any other. Wherever that is not certain, the
answer is "by an exception", which commits nothing.
"""

from __future__ import annotations

import dis
import sys
from inspect import CO_GENERATOR
from types import FrameType

_TAKES_OFF = {dis.opmap[name] for name in ("POP_TOP", "POP_ITER") if name in dis.opmap}
_SUSPENDED = {dis.opmap[name] for name in ("YIELD_VALUE", "RESUME") if name in dis.opmap}


def asking() -> list[int]:
    """For a generator that is about to yield: which frames may be those of the ``for`` that asks for the item."""
    frame: FrameType | None = sys._getframe(2)
    frames = [id(frame)]
    while frame is not None and frame.f_code.co_flags & CO_GENERATOR:  # one around ours, or the user's own
        frame = frame.f_back
        frames.append(id(frame))
    return frames


def left_by_break(asking: list[int]) -> bool:
    """For a generator that is being closed: whether the loop over it is left by ``break`` or ``return``."""
    frame: FrameType | None = sys._getframe(1).f_back  # None while the interpreter ends
    while frame is not None and _instruction(frame) in _SUSPENDED:
        frame = frame.f_back  # a generator around ours, such as tqdm's, which is being closed itself
    return frame is not None and id(frame) in asking and _instruction(frame) in _TAKES_OFF


def _instruction(frame: FrameType) -> int:
    return frame.f_code.co_code[frame.f_lasti]
