"""What must not have changed since the job began.

A job that is started with another configuration, or folds its log with another function, would go on with a state that
no uninterrupted run has ever had. Both are refused, until the user says what is to become of what was stored: see
``upgrade`` of :class:`trax.Job`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import Any

from trax.codecs.base import Codec
from trax.errors import ChangedError, InvalidArgumentError
from trax.job.fingerprints import Fingerprint, key_of
from trax.replay import ReplayLog
from trax.testing.differences import first_difference

_DIGEST_BYTES = 6
Upgrade = bool | Mapping[str, Callable[..., Any]]


class Upgrades:
    """What the user has said about changes, for the job in ``path``."""

    def __init__(self, upgrade: Upgrade, path: str) -> None:
        if not isinstance(upgrade, bool | Mapping):
            text = f"upgrade is True, or a mapping of fingerprints to functions, not {upgrade!r}."
            raise InvalidArgumentError(text, path=path, reason="upgrade")
        self._takes_all = upgrade is True
        self._functions = upgrade if isinstance(upgrade, Mapping) else {}
        self._path = path

    def check_config(self, stored: Any, config: Any, codec: Codec) -> None:
        """ChangedError, which names the first place, unless the change is one that the user has told of."""
        found = first_difference(stored, config, "config")
        if found is None or self._takes_all:
            return
        key = f"config:{hashlib.blake2b(codec.encode(stored, 'config'), digest_size=_DIGEST_BYTES).hexdigest()}"
        if (function := self._functions.get(key)) is not None:
            rest = first_difference(function(stored), config, "config")
            if rest is None:
                return
            text = f"the function that upgrade= has for {key} makes another configuration of the one that is stored: "
            text += f"{rest} (of the function, and now)."
        else:
            text = (
                f"the job in {self._path} began with another configuration: {found} (then, and now). Give it the one "
                f"it had. To go on with another one, let upgrade={{{key!r}: function}} make the new one of the old; "
                f"upgrade=True takes it as it is. Or begin a new job in another store."
            )
        raise ChangedError(text, path=self._path, reason="config")

    def replay_log_for(self, name: str, stored: Fingerprint, now: Fingerprint, given: ReplayLog) -> ReplayLog:
        """The function that folds what was logged under another one; ChangedError if the user has not told of one."""
        if self._takes_all:
            return given
        key = key_of(stored)
        if (function := self._functions.get(key)) is not None:
            return function
        code = ", with another code" if stored[1] == now[1] else ""
        text = (
            f"the replay_log of {name!r} is not the function that the job in {self._path} began with: it was "
            f"{stored[1]}, and is {now[1]}{code}. What is in the log would be folded otherwise than it was. Put it "
            f"back; or let upgrade={{{key!r}: function}} name the one that folds what is in the log, which the new one "
            f"may be; upgrade=True takes the new one for all of them."
        )
        raise ChangedError(text, path=self._path, reason="replay_log")
