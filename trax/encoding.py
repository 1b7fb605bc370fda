"""What a call was given, checked and encoded: nothing is written before that has gone well."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trax.codecs.base import Codec, Encoded
from trax.errors import ValueTooLargeError
from trax.names import LayerName, check_name, named_values

MAX_COMMIT_BYTES = 1 << 30


class Encoder:
    """Names to be checked, values to be encoded. Any number of threads."""

    def __init__(self, codec: Codec, path: str) -> None:
        self._encode = codec.encode
        self._encode_value = codec.encode_value
        self._path = path
        self._known_names: set[str] = set()

    def record(self, mapping: Mapping[str, Any] | None, entries: dict[str, Any]) -> tuple[dict[str, bytes], int]:
        """What ``log`` was given, and the bytes of its entries."""
        named = entries if mapping is None and entries else named_values(mapping, entries, "log")
        known, encode = self._known_names, self._encode
        record: dict[str, bytes] = {}
        nbytes = 0
        for name, entry in named.items():
            if name not in known:
                self._check_name(name)
            record[name] = encoding = encode(entry, name)
            nbytes += len(encoding)
        if nbytes > MAX_COMMIT_BYTES:
            self.check_bytes("record", nbytes)
        return record, nbytes

    def values(self, mapping: Mapping[str, Any] | None, values: dict[str, Any]) -> dict[str, Encoded]:
        """What ``checkpoint`` was given."""
        named = named_values(mapping, values, "checkpoint")
        for name in named:
            if name not in self._known_names:
                self._check_name(name)
        return {name: self._encode_value(value, name) for name, value in named.items()}

    def check_bytes(self, what: str, nbytes: int) -> None:
        """ValueTooLargeError if the entries of one commit have so many bytes that none can hold them."""
        if nbytes > MAX_COMMIT_BYTES:
            text = (
                f"a {what} holds at most {MAX_COMMIT_BYTES:,} bytes of entries, and this one has {nbytes:,}: split it, "
                f"or checkpoint() what is large."
            )
            raise ValueTooLargeError(text, path=self._path, reason=f"{what} too large")

    def _check_name(self, name: str) -> None:
        # A layer's names are not remembered: as a plain str, which is equal, each stays reserved.
        if not isinstance(check_name(name), LayerName):
            self._known_names.add(name)
