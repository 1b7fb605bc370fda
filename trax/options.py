"""The options of a store, checked before anything is opened."""

from __future__ import annotations

from trax.codecs import get_codec
from trax.errors import InvalidArgumentError


def check_options(
    mode: str,
    sync: str,
    codec: str | None,
    keep: int | None,
    sync_interval_s: float,
    buffer_bytes: int,
    differential: bool,
) -> None:
    """InvalidArgumentError for an option that means nothing."""
    if mode not in ("a", "r+", "r"):
        raise InvalidArgumentError(f"mode is 'a', 'r+' or 'r', not {mode!r}.", reason="mode")
    if sync not in ("always", "interval", "os"):
        raise InvalidArgumentError(f"sync is 'always', 'interval' or 'os', not {sync!r}.", reason="sync")
    if codec is not None:
        get_codec(codec)
    if keep is not None and (isinstance(keep, bool) or not isinstance(keep, int) or not 1 <= keep < 2**63):
        raise InvalidArgumentError(f"keep is the number of snapshots to hold, 1 or more, not {keep!r}.", reason="keep")
    if not sync_interval_s > 0:
        raise InvalidArgumentError(f"sync_interval_s is above 0, not {sync_interval_s!r}.", reason="sync_interval_s")
    if buffer_bytes < 0 or (buffer_bytes and sync == "always"):
        text = (
            f"buffer_bytes={buffer_bytes} holds records back in the process, which sync={sync!r} rules out: use "
            f"sync='interval' or 'os', or 0 bytes."
        )
        raise InvalidArgumentError(text, reason="buffer_bytes")
    if type(differential) is not bool:
        text = f"differential is True or False, not {differential!r}."
        raise InvalidArgumentError(text, reason="differential")
