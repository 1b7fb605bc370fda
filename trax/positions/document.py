"""States to a YAML document and back: pure functions.

The document is winlogbeat's: ``update_time`` and ``event_logs``, a list sorted by name. What is written here stands
between the marks of a document's beginning and end, ``---`` and ``...``, so that a file of ours that was cut short is
found out wherever it was cut. Go writes no marks; a cut between two of its entries can't be seen.

Nothing is left to YAML's guesses: every scalar is read as text, and its field says what the text must be.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from trax.errors import CorruptionError, DependencyError
from trax.positions.states import MAX_RECORD_NUMBER, EventLogState, PersistedState, format_time, parse_time

_BEGINNING, _END = b"---\n", b"\n...\n"
_ONE_LINE = 1 << 30


class _Time(str):
    """A text that YAML takes for a time, and so needs no quotes."""


def encode(persisted: PersistedState) -> bytes:
    """The document, as UTF-8."""
    yaml, dumper, _ = _yaml()
    logs = []
    for _, state in sorted(persisted.states.items()):
        time = _Time(format_time(state.timestamp, state.nanosecond))
        log = {"name": state.name, "record_number": state.record_number, "timestamp": time}
        logs.append(log | ({"bookmark": state.bookmark} if state.bookmark else {}))
    document = {"update_time": _Time(format_time(persisted.update_time)), "event_logs": logs}
    data: bytes = yaml.dump(
        document,
        Dumper=dumper,
        encoding="utf-8",
        sort_keys=False,
        allow_unicode=True,
        explicit_start=True,
        explicit_end=True,
        width=_ONE_LINE,
    )
    return data


def decode(data: bytes, path: str) -> PersistedState:
    """What the document says; CorruptionError if it is not one, or not a whole one."""
    yaml, _, loader = _yaml()
    try:
        _check_ends(data)
        document = _fields(yaml.load(data, Loader=loader), {"update_time", "event_logs"})
        states = [_state(log) for log in _expect(list, document["event_logs"])]
        update_time, _ = parse_time(_expect(str, document["update_time"]))
    except (ValueError, RecursionError, yaml.YAMLError) as error:
        raise _damaged(path, " ".join(str(error).split()) or type(error).__name__) from error
    found = {state.name: state for state in states}
    if len(found) < len(states):
        raise _damaged(path, "an event log stands in it twice")
    return PersistedState(update_time, found)


def _check_ends(data: bytes) -> None:
    if not data.strip():
        raise ValueError("it is empty")
    if not data.endswith(b"\n") or (data.startswith(_BEGINNING) and not data.endswith(_END)):
        raise ValueError("its end is missing")


def _state(log: Any) -> EventLogState:
    fields = _fields(log, {"name", "record_number", "timestamp"}, {"bookmark"})
    name, number = _expect(str, fields["name"]), _expect(str, fields["record_number"])
    if not (number.isascii() and number.isdigit() and len(number) <= 20 and int(number) <= MAX_RECORD_NUMBER):
        raise ValueError(f"{number!r} is not a record number")
    time, nanosecond = parse_time(_expect(str, fields["timestamp"]))
    return EventLogState(name, int(number), time, _expect(str, fields.get("bookmark", "")), nanosecond)


def _fields(value: Any, required: set[str], optional: frozenset[str] | set[str] = frozenset()) -> dict[str, Any]:
    fields: dict[str, Any] = _expect(dict, value)
    if not required <= fields.keys() <= required | optional:
        raise ValueError(f"it has the fields {sorted(map(str, fields))} where there are {sorted(required | optional)}")
    return fields


def _expect(kind: type, value: Any) -> Any:
    if type(value) is not kind:
        raise ValueError(f"{value!r} stands where there is a {kind.__name__}")
    return value


@cache
def _yaml() -> tuple[Any, Any, Any]:
    """PyYAML, what writes with it, and what reads: the loader that makes nothing but texts, lists and dicts."""
    try:
        import yaml
    except ImportError as error:
        text = "positions are kept as YAML, and PyYAML can't be imported here; install it: pip install PyYAML"
        raise DependencyError(text, reason="PyYAML is missing") from error
    dumper: Any = type("Dumper", (getattr(yaml, "CSafeDumper", yaml.SafeDumper),), {})
    dumper.add_representer(_Time, lambda self, time: self.represent_scalar("tag:yaml.org,2002:timestamp", str(time)))
    dumper.add_representer(str, _represent_text)
    base: Any = getattr(yaml, "CBaseLoader", yaml.BaseLoader)
    loader = type("Loader", (base,), {"construct_mapping": _construct_fields(base)})
    return yaml, dumper, loader


def _construct_fields(base: Any) -> Any:
    """A mapping, of which YAML would take the last of two fields with one name, without a word."""

    def construct_mapping(loader: Any, node: Any, deep: bool = False) -> Any:
        fields = base.construct_mapping(loader, node, deep)
        if len(fields) < len(node.value):
            raise ValueError(f"a field stands twice in the entry that begins in line {node.start_mark.line + 1}")
        return fields

    return construct_mapping


def _represent_text(dumper: Any, text: str) -> Any:
    # In double quotes every character can be written in ASCII, on one line. PyYAML's other styles change a few of them.
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=None if text.isprintable() else '"')


def _damaged(path: str, reason: str) -> CorruptionError:
    text = (
        f"{path} holds no positions that can be relied on: {reason}. Nothing was changed. If there is a file "
        f"{path}.previous, it holds the state before: copy it over this one. To start afresh, remove both."
    )
    return CorruptionError(text, path=path, reason=reason)
