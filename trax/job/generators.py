"""The states of random generators: what goes into a commit, and the way back into the very same object.

A state is a plain value: ``["random", state]`` for ``random.Random``, ``["numpy", name, state, seed sequence]`` for a
``numpy.random.Generator`` on any bit generator that NumPy ships, and likewise for the global generators. Two states are
equal exactly when the generators are: that is how a step finds out which of them have changed.
"""

from __future__ import annotations

import importlib
import random
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

from trax.errors import DependencyError, InvalidArgumentError, TraxError

BIT_GENERATORS = ("PCG64", "PCG64DXSM", "MT19937", "Philox", "SFC64")
State = list[Any]


class Tracked(NamedTuple):
    """A generator of a job: how its state is taken, and how it is set.

    ``glance`` gives something that is equal as long as the state is, and takes less time than the state.
    """

    generator: Any
    take: Callable[[], State]
    put: Callable[[State], None]
    glance: Callable[[], Any]


def kind_of(state: State) -> State:
    """What a state must have in common with another one of the same generator."""
    return state[:2] if state[0] == "numpy" else state[:1]


def make(kind: str, seed: Any) -> Tracked:
    """A new generator: ``"random"``, or the name of a bit generator of NumPy."""
    try:
        return _made(kind, seed)
    except (TypeError, ValueError) as error:
        if isinstance(error, TraxError):
            raise
        text = f"a generator of kind {kind!r} can't be made with the seed {seed!r}: {error}."
        raise InvalidArgumentError(text, reason="seed") from error


def _made(kind: str, seed: Any) -> Tracked:
    if kind == "random":
        return of_random(random.Random(seed))
    if kind not in BIT_GENERATORS:
        known = ", ".join(["random", *BIT_GENERATORS])
        raise InvalidArgumentError(f"there is no random generator {kind!r}; choose from {known}.", reason="kind")
    numpy_random = _numpy_random()
    return of_numpy(numpy_random.Generator(getattr(numpy_random, kind)(seed)))


def of_random(generator: Any) -> Tracked:
    """Of a ``random.Random``, or of the module itself."""

    def take() -> State:
        return ["random", generator.getstate()]

    def put(state: State) -> None:
        generator.setstate(state[1])

    return Tracked(generator, take, put, generator.getstate)


def of_numpy(generator: Any) -> Tracked:
    """Of a ``numpy.random.Generator``, with the seed sequence from which it spawns children."""
    bits = generator.bit_generator

    def glance() -> Any:
        return bits.state, bits.seed_seq.n_children_spawned

    def take() -> State:
        return ["numpy", type(bits).__name__, _packed(bits.state), _packed_seed(bits.seed_seq)]

    def put(state: State) -> None:
        name = type(bits).__name__
        seed = _numpy_random().SeedSequence(
            state[3][0], spawn_key=state[3][1], pool_size=state[3][2], n_children_spawned=state[3][3]
        )
        bits.__setstate__((_unpacked(state[2], name), seed))

    # The states of the others hold arrays, which have to be packed before they can be compared.
    return Tracked(generator, take, put, glance if type(bits).__name__ in ("PCG64", "PCG64DXSM") else take)


def of_numpy_global() -> Tracked:
    """Of the generator behind ``numpy.random.seed`` and its like."""
    module = _numpy_random()

    def take() -> State:
        return ["numpy global", _packed(module.get_state(legacy=False))]

    def put(state: State) -> None:
        module.set_state(_unpacked(state[1], state[1]["bit_generator"]))

    return Tracked(module, take, put, take)


def of_torch(torch: Any) -> Tracked:
    """Of torch's global generators: that of the CPU, and those of the CUDA devices."""

    def take() -> State:
        devices = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
        return ["torch", *(bytes(one.numpy()) for one in [torch.get_rng_state(), *devices])]

    def put(state: State) -> None:
        devices = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if len(state) - 2 != devices:
            text = (
                f"the states of torch's generators on {len(state) - 2} CUDA devices are stored, and there are "
                f"{devices} here. Resume on as many."
            )
            raise InvalidArgumentError(text, reason="CUDA devices")
        tensors = [torch.frombuffer(bytearray(one), dtype=torch.uint8) for one in state[1:]]
        torch.set_rng_state(tensors[0])
        if devices:
            torch.cuda.set_rng_state_all(tensors[1:])

    return Tracked(torch, take, put, take)


def global_generators() -> dict[str, Tracked]:
    """Those that are imported: of ``random``, of ``numpy.random``, of torch."""
    found = {"random": of_random(random)}
    if "numpy" in sys.modules:
        found["numpy.random"] = of_numpy_global()
    if "torch" in sys.modules:
        found["torch"] = of_torch(sys.modules["torch"])
    return found


def _numpy_random() -> Any:
    try:
        return importlib.import_module("numpy.random")
    except ImportError as error:
        text = 'this needs NumPy: pip install "trax-log[numpy]"; or take kind="random".'
        raise DependencyError(text, reason="numpy is missing") from error


def _packed(state: Any) -> Any:
    """The same with bytes for arrays, which can be compared with ``==``."""
    if isinstance(state, dict):
        return {key: _packed(value) for key, value in state.items()}
    is_array = hasattr(state, "tobytes") and state.ndim > 0
    return state.tobytes() if is_array else _plain(state)


def _plain(value: Any) -> Any:
    return value.item() if hasattr(value, "item") else value


def _unpacked(state: Any, name: str) -> Any:
    if isinstance(state, dict):
        return {key: _unpacked(value, name) for key, value in state.items()}
    if isinstance(state, bytes):
        numpy = importlib.import_module("numpy")
        return numpy.frombuffer(state, dtype=numpy.uint32 if name == "MT19937" else numpy.uint64)
    return state


def _packed_seed(seed: Any) -> list[Any]:
    entropy = seed.entropy
    entropy = [int(word) for word in entropy] if hasattr(entropy, "__len__") else _plain(entropy)
    return [entropy, tuple(int(word) for word in seed.spawn_key), seed.pool_size, seed.n_children_spawned]
