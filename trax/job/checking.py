"""What must not have changed since the job began, and what a recovery must give.

A job that is started with another configuration, or folds its log with another function, would go on with a state that
no uninterrupted run has ever had. The configuration is kept and compared as it is; of a function, a digest of its name
and of what it does: its instructions, its constants and the names that it uses, and those of functions inside it, but
not its place in its file. Functions that it calls are not followed, nor what it closes over. Instructions are those of
one version of Python: under another one, functions are not compared.
"""

from __future__ import annotations

import hashlib
import sys
from types import CodeType
from typing import Any

from trax.errors import ChangedError, VerificationError
from trax.replay import ReplayLog
from trax.testing.differences import first_difference

_DIGEST_BYTES = 16


def check_config(stored: Any, config: Any, path: str) -> None:
    """ChangedError, which names the first place, unless the configuration is the one the job began with."""
    found = first_difference(stored, config, "config")
    if found is not None:
        text = (
            f"the job in {path} began with another configuration: {found} (then, and now). Give it the one it had; to "
            f"go on with another one, say so with upgrade=True; or begin a new job in another store."
        )
        raise ChangedError(text, path=path, reason="config")


def check_replay_log(name: str, stored: list[Any], now: list[Any], path: str) -> None:
    """ChangedError unless the function does what the one did that the job began with, as far as can be told."""
    if stored[0] == now[0] and stored != now:
        code = ", with another code" if stored[1] == now[1] else ""
        text = (
            f"the replay_log of {name!r} is not the function that the job in {path} began with: it was {stored[1]}, "
            f"and is {now[1]}{code}. What is in the log would be folded otherwise than it was. Put it back; or, if the "
            f"new one gives the same states, say so with upgrade=True."
        )
        raise ChangedError(text, path=path, reason="replay_log")


def fingerprint(function: ReplayLog) -> list[Any]:
    """The version of Python, the function's name, and a digest of what it does."""
    # Without the module, which is "__main__" or not as the script is started.
    name = getattr(function, "__qualname__", type(function).__qualname__)
    code = getattr(function, "__code__", None)
    digest = hashlib.blake2b(digest_size=_DIGEST_BYTES)
    if isinstance(code, CodeType):
        _add(digest, code)
    return [sys.version_info[:2], name, digest.digest()]


def check_state(name: str, recovered: Any, live: Any, last_sequence: int, path: str) -> None:
    """VerificationError, which names the first place, unless the recovered state is the live one, bit for bit."""
    found = first_difference(recovered, live, name)
    if found is not None:
        text = (
            f"what {path} would give back of {name!r} is not what is checkpointed now: {found} (recovered, and live). "
            f"Log all that changes the state, and let replay_log do to the state what the job does; "
            f"trax.testing.check_replay finds the record. Nothing of this step was stored."
        )
        raise VerificationError(text, path=path, sequence=last_sequence, reason="replay differs")


def _add(digest: Any, code: CodeType) -> None:
    parts = [code.co_code, repr(code.co_names).encode(), repr(code.co_varnames).encode()]
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            _add(digest, constant)
        elif isinstance(constant, frozenset):
            parts.append(repr(sorted(map(repr, constant))).encode())
        else:
            parts.append(f"{type(constant).__name__} {constant!r}".encode())
    for part in parts:
        digest.update(len(part).to_bytes(8, "little") + part)
