"""The bounds that every codec keeps, and the errors for what lies beyond them."""

from __future__ import annotations

from trax.errors import UnsupportedValueError, ValueTooLargeError

#: How deep containers and registered types may lie inside one another. Decoding recurses, so without a bound a value
#: that was written from a shallow stack could not be read from a deeper one.
MAX_DEPTH = 100

#: The largest encoding of one log entry. An entry is held in memory whole, and msgpack has 32 bits for a length.
MAX_ENTRY_BYTES = 1 << 30

#: Arrays and ``bytes`` of at least this size leave the head of a checkpointed value and become buffers beside it.
OUT_OF_BAND_BYTES = 16 * 1024


def checked_entry(data: bytes, name: str) -> bytes:
    """``data`` itself, if it is small enough for a log entry."""
    if len(data) > MAX_ENTRY_BYTES:
        raise entry_too_large(name)
    return data


def entry_too_large(name: str) -> ValueTooLargeError:
    return ValueTooLargeError(
        f"{name}: a log entry takes at most {MAX_ENTRY_BYTES >> 30} GiB; checkpoint a value of this size instead of"
        " logging it",
        reason="entry too large",
    )


def head_too_large(name: str) -> ValueTooLargeError:
    return ValueTooLargeError(
        f"{name}: a single string, integer or container in it takes 4 GiB or more beside its arrays and bytes; divide"
        " it, or keep its content as a NumPy array or as bytes",
        reason="value too large",
    )


def too_deep(name: str) -> UnsupportedValueError:
    return UnsupportedValueError(
        f"{name}: nested too deeply or contains itself; at most {MAX_DEPTH} levels can be kept",
        location=name,
        reason="nested too deeply or contains itself",
    )
