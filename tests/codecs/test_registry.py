"""Registered types: the defaults, the caller's own functions, and what happens when the class is another one now."""

from __future__ import annotations

import dataclasses
import enum
import functools
from typing import Any, NamedTuple

import numpy as np
import pytest

import trax
from tests.codecs.strategies import identical, through_entry, through_value
from trax.codecs import Codec, get_codec, registry
from trax.codecs.limits import OUT_OF_BAND_BYTES
from trax.errors import CodecError, CorruptionError, RegistrationError, UnsupportedValueError

exact = pytest.mark.parametrize("codec", [get_codec("msgpack"), get_codec("json")], ids=lambda codec: codec.name)


@pytest.fixture(autouse=True)
def _forget(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_by_class", dict(registry._by_class))
    monkeypatch.setattr(registry, "_by_name", dict(registry._by_name))


class Mesh:
    """A class that says for itself how it is kept."""

    def __init__(self, nodes: Any) -> None:
        self.nodes = nodes


def state_of(mesh: Mesh) -> Any:
    return mesh.nodes


@exact
def test_functions_of_the_caller_decide(codec: Codec) -> None:
    assert trax.register(Mesh, name="mesh", encode=state_of, decode=Mesh) is Mesh
    nodes = np.arange(OUT_OF_BAND_BYTES)
    for back in (through_entry(codec, [Mesh(nodes)]), through_value(codec, [Mesh(nodes)])):
        assert type(back[0]) is Mesh
        assert identical(back[0].nodes, nodes)


@exact
def test_register_decorates(codec: Codec) -> None:
    @trax.register
    @dataclasses.dataclass
    class One:
        x: int

    @trax.register(name="number two")
    class Two(NamedTuple):
        x: int

    assert through_entry(codec, [One(1), Two(2)]) == [One(1), Two(2)]
    assert registry.by_name(One.__qualname__).cls is One
    assert registry.by_name("number two").cls is Two


@exact
def test_a_dataclass_is_rebuilt_without_init(codec: Codec) -> None:
    @trax.register
    @dataclasses.dataclass(frozen=True)
    class Counted:
        x: int
        double: int = dataclasses.field(init=False)

        def __post_init__(self) -> None:
            object.__setattr__(self, "double", 2 * self.x)

        @functools.cached_property
        def half(self) -> float:
            return self.x / 2

    value = Counted(4)
    object.__setattr__(value, "double", 9)
    assert value.half == 2
    back = through_entry(codec, value)
    assert (back.x, back.double, back.half) == (4, 9, 2)


@exact
def test_attributes_beside_the_fields_are_refused(codec: Codec) -> None:
    @trax.register
    @dataclasses.dataclass
    class Open:
        x: int

    value = Open(1)
    value.extra = 2  # type: ignore[attr-defined]
    with pytest.raises(
        UnsupportedValueError, match=r"state\[0\]: a .*Open with attributes that are no fields \(extra\)"
    ):
        codec.encode([value], "state")


@exact
def test_an_unregistered_name_says_what_to_write(codec: Codec, monkeypatch: pytest.MonkeyPatch) -> None:
    trax.register(Mesh, encode=state_of, decode=Mesh)
    data = codec.encode(Mesh(1), "state")
    monkeypatch.setattr(registry, "_by_name", {})
    with pytest.raises(CodecError, match=r"'Mesh', which is not registered .*: trax\.register\(Mesh, name='Mesh'\)"):
        codec.decode(data)


@exact
@pytest.mark.parametrize("kind", ["dataclass", "named tuple"])
def test_changed_fields_are_named(codec: Codec, kind: str) -> None:
    if kind == "dataclass":
        old, new = (dataclasses.make_dataclass("Shape", fields) for fields in (["a", "b"], ["b", "c"]))
    else:
        old, new = NamedTuple("Shape", [("a", int), ("b", int)]), NamedTuple("Shape", [("b", int), ("c", int)])  # type: ignore[assignment]
    trax.register(old)
    data = codec.encode(old(1, 2), "state")
    trax.register(new)
    with pytest.raises(CodecError, match="missing fields: c; extra fields: a"):
        codec.decode(data)
    trax.register(new, decode=lambda state: new(state["b"], 0))
    assert codec.decode(data) == new(2, 0)


@exact
def test_fields_that_are_gone_are_named(codec: Codec) -> None:
    old, new = (dataclasses.make_dataclass("Shape", fields) for fields in (["a", "b"], ["b"]))
    trax.register(old)
    data = codec.encode(old(1, 2), "state")
    trax.register(new)
    with pytest.raises(CodecError, match="missing fields: none; extra fields: a"):
        codec.decode(data)


@exact
def test_a_member_that_is_gone_is_named(codec: Codec) -> None:
    make: Any = enum.Enum
    old, new = (make("Phase", names, module=__name__) for names in ("HOT COLD", "HOT"))
    trax.register(old)
    data = codec.encode(old["COLD"], "state")
    trax.register(new)
    with pytest.raises(CodecError, match="the member 'COLD' of Phase"):
        codec.decode(data)


@exact
def test_a_class_defined_again_takes_the_place_of_the_old_one(codec: Codec) -> None:
    def cell() -> Any:
        @trax.register
        @dataclasses.dataclass
        class Result:
            x: int

        return Result

    old, new = cell(), cell()
    assert type(through_entry(codec, new(1))) is new
    with pytest.raises(UnsupportedValueError):
        codec.encode(old(1), "state")


@exact
def test_an_earlier_name_can_still_be_read(codec: Codec) -> None:
    trax.register(Mesh, name="old", encode=state_of, decode=Mesh)
    data = codec.encode(Mesh(1), "state")
    trax.register(Mesh, name="new", encode=state_of, decode=Mesh)
    assert b"new" in codec.encode(Mesh(1), "state")
    assert codec.decode(data).nodes == 1


class Other:
    pass


class Listing(list):  # type: ignore[type-arg]
    pass


@dataclasses.dataclass
class DataListing(list):  # type: ignore[type-arg]
    x: int = 1


@pytest.mark.parametrize(
    ("arguments", "keywords", "message"),
    [
        ((Other,), {}, r"no enum, dataclass or named tuple.*trax\.register\(Other, encode=…, decode=…\)"),
        ((Other,), {"encode": repr}, "no enum, dataclass or named tuple"),
        ((Other,), {"name": "taken", "encode": repr, "decode": repr}, "the name 'taken' already stands for .*Mesh"),
        ((Other,), {"name": "", "encode": repr, "decode": repr}, "a non-empty str"),
        ((Other(),), {}, "a class is registered"),
        ((dict,), {}, "dict is kept exactly without being registered"),
        ((tuple,), {}, "tuple is kept exactly without being registered"),
        ((np.ndarray,), {}, "ndarray is kept exactly without being registered"),
        ((Listing,), {}, "no enum, dataclass or named tuple"),
        ((DataListing,), {}, "DataListing is more than its fields"),
    ],
)
def test_what_can_not_be_registered(arguments: Any, keywords: Any, message: str) -> None:
    trax.register(Mesh, name="taken", encode=state_of, decode=Mesh)
    with pytest.raises(RegistrationError, match=message):
        trax.register(*arguments, **keywords)


@pytest.mark.parametrize("error", [ValueError, TypeError, KeyError, RecursionError, UnicodeEncodeError, EOFError])
@exact
def test_the_callers_own_errors_pass_with_a_note(codec: Codec, error: type[Exception]) -> None:
    arguments = ("utf-8", "x", 0, 1, "mine") if error is UnicodeEncodeError else ("mine",)

    def fail(_: Any) -> Any:
        raise error(*arguments)

    trax.register(Mesh, encode=fail, decode=Mesh)
    for encode in (codec.encode, codec.encode_value):
        with pytest.raises(error, match="mine") as caught:
            encode([Mesh(1)], "state")
        assert type(caught.value) is error
        assert caught.value.__notes__ == ["raised while trax encoded a value of the registered type 'Mesh'"]
    trax.register(Mesh, encode=state_of, decode=fail)
    data = codec.encode([Mesh(1)], "state")
    with pytest.raises(error, match="mine") as caught:
        codec.decode(data)
    assert type(caught.value) is error
    assert caught.value.__notes__ == ["raised while trax decoded a value of the registered type 'Mesh'"]


@exact
def test_a_state_that_can_not_be_kept_is_placed(codec: Codec) -> None:
    trax.register(Mesh, encode=lambda mesh: {"nodes": mesh.nodes}, decode=Mesh)
    with pytest.raises(UnsupportedValueError, match=r"state\[0\]\.nodes: "):
        codec.encode([Mesh(Other())], "state")


@exact
def test_a_state_without_fields_is_placed_where_the_value_is(codec: Codec) -> None:
    trax.register(Mesh, encode=state_of, decode=Mesh)
    for state in (Other(), [1, Other()], {1: Other()}):
        with pytest.raises(UnsupportedValueError, match=r"Other can't be kept") as caught:
            codec.encode([0, Mesh(state)], "state")
        assert caught.value.location.startswith("state[1]")


@exact
def test_a_type_whose_state_is_itself_is_refused(codec: Codec) -> None:
    trax.register(Mesh, encode=lambda mesh: mesh, decode=Mesh)
    with pytest.raises(UnsupportedValueError, match="nested too deeply or contains itself"):
        codec.encode([Mesh(1)], "state")


def test_a_damaged_state_is_not_the_callers_fault() -> None:
    trax.register(Mesh, encode=state_of, decode=Mesh)
    with pytest.raises(CorruptionError):
        get_codec("json").decode(b'{"$type": ["Mesh"]}')
    with pytest.raises(CorruptionError):
        get_codec("json").decode(b'{"$type": [["Mesh"], 1]}')
