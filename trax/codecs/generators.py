"""NumPy's random generators: the functions behind their rows in :mod:`trax.codecs.table`.

A generator that comes back continues the very stream, and spawns the very children, that it would have had.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.random import bit_generator

from trax.codecs.standard import expect
from trax.errors import UnsupportedValueError

_BIT_GENERATORS: dict[str, Any] = {
    cls.__name__: cls
    for cls in (
        np.random.PCG64,
        np.random.PCG64DXSM,
        np.random.MT19937,
        np.random.Philox,
        np.random.SFC64,
    )
}

SEEDS: tuple[type, ...] = (np.random.SeedSequence,)
BITS: tuple[type, ...] = tuple(_BIT_GENERATORS.values())
GENERATORS: tuple[type, ...] = (np.random.Generator,)
LEGACY: tuple[type, ...] = (np.random.RandomState,)

# NumPy takes positions as they come, and would read beyond its arrays: (where, name, the last one that is valid).
_POSITIONS = {"MT19937": ("pos", 624), "Philox": ("buffer_pos", 4)}

_MAX_POOL_SIZE = 1024  # mixing takes the square of it; the default is 4
_MAX_ENTROPY_BITS = 1 << 16  # NumPy takes an integer apart in the square of its length; the default is 128
_MAX_ENTROPY_ITEMS = 1 << 16


def encode_seed(value: np.random.SeedSequence) -> Any:
    if value.pool_size > _MAX_POOL_SIZE:
        raise UnsupportedValueError(
            f"a SeedSequence with a pool of {value.pool_size} words can't be kept; use at most {_MAX_POOL_SIZE}",
            reason="pool too large",
        )
    if _too_large(value.entropy) or _too_large(value.spawn_key):
        raise UnsupportedValueError(
            f"a SeedSequence of such a large seed can't be kept; use integers of at most {_MAX_ENTROPY_BITS} bits, and "
            f"at most {_MAX_ENTROPY_ITEMS} of them",
            reason="entropy too large",
        )
    return [value.entropy, list(value.spawn_key), value.pool_size, value.n_children_spawned]


def decode_seed(plain: Any) -> np.random.SeedSequence:
    entropy, spawn_key, pool_size, children = plain
    if entropy is None or not 0 < expect(int, pool_size) <= _MAX_POOL_SIZE:
        raise ValueError("not a seed sequence")
    if _too_large(entropy) or _too_large(expect(list, spawn_key)):
        raise ValueError("a seed sequence that is too large")
    return np.random.SeedSequence(
        entropy, spawn_key=tuple(spawn_key), pool_size=pool_size, n_children_spawned=expect(int, children)
    )


def _too_large(entropy: Any) -> bool:
    if isinstance(entropy, int):
        return entropy.bit_length() > _MAX_ENTROPY_BITS
    if not isinstance(entropy, list | tuple):
        return bool(np.size(entropy) > _MAX_ENTROPY_ITEMS)
    return len(entropy) > _MAX_ENTROPY_ITEMS or any(map(_too_large, entropy))


def encode_bits(value: np.random.BitGenerator) -> Any:
    state = dict(value.state)
    name = state.pop("bit_generator")
    return [name, state, value.seed_seq]


def decode_bits(plain: Any) -> np.random.BitGenerator:
    name, state, seed = plain
    if not isinstance(seed, (np.random.SeedSequence, type(None))):
        raise TypeError("not a seed sequence")
    _check_position(name, expect(dict, state))
    value = _BIT_GENERATORS[name](0)
    value.__setstate__(({"bit_generator": name, **state}, seed))
    return _bit_generator(value)


def _check_position(name: str, state: dict[str, Any]) -> None:
    if name in _POSITIONS:
        key, last = _POSITIONS[name]
        position = state[key] if key in state else state["state"][key]
        if not 0 <= expect(int, position) <= last:
            raise ValueError(f"position {position} of {name} is out of bounds")


def encode_generator(value: np.random.Generator) -> Any:
    return value.bit_generator


def decode_generator(plain: Any) -> np.random.Generator:
    return np.random.Generator(_bit_generator(plain))


def encode_legacy(value: np.random.RandomState) -> Any:
    state: Any = value.get_state(legacy=False)
    return [value._bit_generator, state["has_gauss"], state["gauss"]]


def decode_legacy(plain: Any) -> np.random.RandomState:
    bits, has_gauss, gauss = plain
    value = np.random.RandomState(_bit_generator(bits))
    extra = {"has_gauss": expect(int, has_gauss), "gauss": expect(float, gauss)}
    value.set_state({**value.get_state(legacy=False), **extra})
    return value


def _bit_generator(value: Any) -> np.random.BitGenerator:
    if not isinstance(value, bit_generator.BitGenerator):
        raise TypeError("not a bit generator")
    return value
