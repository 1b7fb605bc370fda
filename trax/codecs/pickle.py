"""Values to pickles (protocol 5) and back, for whoever asks for it by name.

.. warning::
   Unpickling runs code that the bytes choose. Whoever can write to the store can make the process that opens it do
   anything. Open with ``codec="pickle"`` only stores that nobody else could have written to.

What comes back is what ``pickle`` makes of it: classes are found again by module and name, so a store outlives neither
their renaming nor, at times, a new version of the library they come from.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Any

from trax.codecs import limits
from trax.codecs.base import Buffer, BufferSource, Encoded
from trax.codecs.buffers import MemoryBuffer
from trax.errors import CodecError, CorruptionError, TraxError, UnsupportedValueError

_PROTOCOL = 5

#: Modules whose frames are the pickler's own, not the caller's code.
_PICKLING = ("pickle", "copyreg", "importlib", "importlib._bootstrap", "importlib._bootstrap_external", __name__)


class PickleCodec:
    """Whatever ``pickle`` takes. Read the warning of this module first: decoding runs code that the bytes choose."""

    name = "pickle"

    def encode(self, value: Any, name: str) -> bytes:
        return limits.checked_entry(_encode(value, name, None), name)

    def encode_value(self, value: Any, name: str) -> Encoded:
        buffers: list[Buffer] = []
        return Encoded(_encode(value, name, buffers), tuple(buffers))

    def decode(self, data: bytes) -> Any:
        return _decode(data, None, False)

    def decode_many(self, data: bytes, lengths: Sequence[int]) -> list[Any]:
        if sum(lengths) != len(data):
            raise CorruptionError(f"{len(data)} bytes where {sum(lengths)} were to be", reason="lengths do not add up")
        values, start = [], 0
        for length in lengths:
            values.append(self.decode(data[start : start + length]))
            start += length
        return values

    def decode_value(self, head: bytes, source: BufferSource, *, mmap: bool = False) -> Any:
        return _decode(head, source, mmap)


def _encode(value: Any, name: str, buffers: list[Buffer] | None) -> bytes:
    def in_band(buffer: pickle.PickleBuffer) -> bool:
        view = buffer.raw()  # the pickler has refused what is contiguous in no order
        if buffers is None or view.nbytes < limits.OUT_OF_BAND_BYTES:
            return True
        buffers.append(MemoryBuffer(view))
        return False

    try:
        return pickle.dumps(value, _PROTOCOL, buffer_callback=in_band)
    except RecursionError:
        raise limits.too_deep(name) from None
    except pickle.PicklingError as error:
        raise _unpicklable(name, error) from error
    except Exception as error:
        if _raised_by_caller(error):
            error.add_note(f"raised while trax pickled {name}")
            raise
        raise _unpicklable(name, error) from error


def _unpicklable(name: str, error: Exception) -> UnsupportedValueError:
    return UnsupportedValueError(
        f"{name}: pickle can't keep it: {error}; leave that part out, or give its class a __reduce__",
        location=name,
        reason="unpicklable",
    )


def _decode(data: bytes, source: BufferSource | None, mapped: bool) -> Any:
    try:
        return pickle.loads(data, buffers=_stored(source, mapped) if source is not None else None)
    except (TraxError, OSError, MemoryError, RecursionError):
        raise
    except Exception as error:
        if _raised_by_caller(error):
            error.add_note("raised while trax unpickled a value")
            raise
        if isinstance(error, ImportError | AttributeError):
            raise CodecError(
                f"a pickle in the store names what can't be imported here: {error}; make it importable under that name",
                reason="class not importable",
            ) from error
        raise CorruptionError(
            f"the bytes are no pickle that trax wrote: {error or type(error).__name__}", reason="undecodable pickle"
        ) from error


def _stored(source: BufferSource, mapped: bool) -> Iterator[bytearray | memoryview]:
    index = 0
    while True:  # the pickle knows how many it wants; the source says when there are no more
        if mapped:
            yield source.map(index)
        else:
            memory = bytearray(source.nbytes(index))
            source.readinto(index, memoryview(memory))
            yield memory
        index += 1


def _raised_by_caller(error: Exception) -> bool:
    """Whether Python code other than the pickling machinery raised it. The pickler itself, in C, leaves no frame."""
    trace: TracebackType | None = error.__traceback__
    names = []
    while trace is not None:
        names.append(trace.tb_frame.f_globals.get("__name__"))
        trace = trace.tb_next
    return names[-1] not in _PICKLING
