"""Where two values of NumPy part. Imported when there are some."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from trax.codecs import arrays
from trax.errors import TraxError
from trax.testing.differences import Difference, Path, Step, attribute, item, shown

Compare = Callable[[Any, Any, Path], Difference | None]

_KINDS = (
    np.ndarray,
    np.generic,
    np.dtype,
    np.random.BitGenerator,
    np.random.SeedSequence,
    np.random.Generator,
    np.random.RandomState,
)


def is_numpy(value: Any) -> bool:
    return isinstance(value, _KINDS)


def difference(one: Any, other: Any, path: Path, compare: Compare) -> Difference | None:
    """The first difference of two values of the same type; ``compare`` goes on inside them."""
    if isinstance(one, np.ndarray):
        return _arrays(one, other, path, compare)
    if isinstance(one, np.generic):
        return _scalars(one, other, path, compare)
    if isinstance(one, np.dtype):
        return _dtypes(one, other, path)
    if isinstance(one, np.random.Generator):
        return compare(one.bit_generator, other.bit_generator, (*path, attribute("bit_generator")))
    if isinstance(one, np.random.BitGenerator):
        found = compare(one.state, other.state, (*path, attribute("state")))
        return found or compare(one.seed_seq, other.seed_seq, (*path, attribute("seed_seq")))
    if isinstance(one, np.random.SeedSequence):
        found = compare(one.state, other.state, (*path, attribute("state")))
        pool = compare(one.generate_state(4), other.generate_state(4), (*path, attribute("pool")))
        return found or pool
    state = Step(".get_state(legacy=False)", lambda generator: generator.get_state(legacy=False))
    found = compare(state.get(one), state.get(other), (*path, state))
    return found or compare(one._bit_generator, other._bit_generator, (*path, attribute("_bit_generator")))


def _arrays(one: Any, other: Any, path: Path, compare: Compare) -> Difference | None:
    if found := _dtypes(one.dtype, other.dtype, (*path, attribute("dtype"))):
        return found
    if one.shape != other.shape:
        return Difference((*path, attribute("shape")), str(one.shape), str(other.shape))
    if isinstance(one, np.ma.MaskedArray):
        found = _arrays(np.ma.getmaskarray(one), np.ma.getmaskarray(other), (*path, attribute("mask")), compare)
        if found:
            return found
    return _items(np.asarray(one), np.asarray(other), path, compare) or _orders(one, other, path)


def _orders(one: Any, other: Any, path: Path) -> Difference | None:
    """C or Fortran: sums may come out differently. What is contiguous in no order is stored in C order."""
    orders = ["F" if array.flags.f_contiguous and not array.flags.c_contiguous else "C" for array in (one, other)]
    if orders[0] == orders[1] or one.nbytes == 0:
        return None
    return Difference(path, *(f"an array in {order} order" for order in orders))


def _items(one: Any, other: Any, path: Path, compare: Compare) -> Difference | None:
    if one.dtype.names is not None:  # between the fields there may be bytes that mean nothing
        for name in one.dtype.names:
            if found := _items(one[name], other[name], (*path, item(name)), compare):
                return found
        return None
    if one.dtype.hasobject:
        for index in np.ndindex(one.shape):
            if found := compare(one[index], other[index], (*path, _index(index))):
                return found
        return None
    if one.dtype.kind == "T":  # strings of any length: their bytes lie elsewhere
        different = np.asarray(one != other).reshape(-1)
    elif one.nbytes == 0:
        return None
    else:
        different = (_meaningful_bytes(one) != _meaningful_bytes(other)).any(axis=1)
    places = different.nonzero()[0]
    if not places.size:
        return None
    index = tuple(int(part) for part in np.unravel_index(places[0], one.shape))
    note = f" ({places.size:,} of {one.size:,} elements differ)" if one.size > 1 else ""
    return Difference((*path, _index(index)), *_scalar_texts(one[index], other[index]), note)


def _index(index: tuple[int, ...]) -> Any:
    return item(index[0] if len(index) == 1 else index)._replace(text=f"[{', '.join(map(str, index))}]")


def _meaningful_bytes(array: Any) -> Any:
    """A row for each item: the bytes that are its value."""
    rows = np.ascontiguousarray(array).reshape(-1).view(np.uint8).reshape(array.size, array.dtype.itemsize)
    if array.dtype.char in "gG" and np.finfo(np.longdouble).nmant == 63:  # 80 bits in the room of 128
        return rows.reshape(array.size, -1, np.dtype(np.longdouble).itemsize)[:, :, :10].reshape(array.size, -1)
    return rows


def _scalars(one: Any, other: Any, path: Path, compare: Compare) -> Difference | None:
    if found := _dtypes(one.dtype, other.dtype, (*path, attribute("dtype"))):
        return found
    if isinstance(one, str | bytes):
        same = bool(one == other)
    elif one.dtype.names is not None or one.dtype.itemsize == 0:
        same = _items(np.asarray(one), np.asarray(other), path, compare) is None
    else:
        same = bool((_meaningful_bytes(np.asarray(one)) == _meaningful_bytes(np.asarray(other))).all())
    return None if same else Difference(path, *_scalar_texts(one, other))


def _scalar_texts(one: Any, other: Any) -> tuple[str, str]:
    """As Python would write them; in bits when that is the same for both."""
    texts = [shown(value.item() if value.dtype.kind in "biufcSU" else value) for value in (one, other)]
    if texts[0] == texts[1]:
        texts = [
            f"{text} ({np.asarray(value).tobytes().hex()})" for text, value in zip(texts, (one, other), strict=True)
        ]
    return texts[0], texts[1]


def _dtypes(one: Any, other: Any, path: Path) -> Difference | None:
    try:
        same = arrays.encode_dtype(one) == arrays.encode_dtype(other)
    except TraxError:  # one that no store keeps
        same = bool(one == other)
    return None if same else Difference(path, str(one), str(other))
