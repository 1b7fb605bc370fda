"""The commands that only look: info, log, verify."""

from __future__ import annotations

import json
import os
import sys
import time
from argparse import Namespace
from typing import Any

from trax.cli.codes import FAILED, OK
from trax.cli.output import (
    complain,
    count,
    cut,
    facts,
    items,
    paragraph,
    printable,
    problem_text,
    shown_name,
    table,
    width,
)
from trax.cli.values import codec_of, import_modules
from trax.codecs.base import Codec
from trax.errors import NameNotStoredError, TraxError
from trax.inspection import NameInfo, StoreInfo, WriterInfo, describe_store, verify_store
from trax.interchange import entry_text, record_line
from trax.records import Follower, LogRecord, Wanted, reachable_floor
from trax.replay import decode_entries
from trax.storage.base import Entries
from trax.storage.local.commit_point import load_snapshot
from trax.storage.local.creation import survey
from trax.storage.local.fs import FileSystem, LocalFileSystem
from trax.storage.local.layout import Layout
from trax.storage.local.owner import describe
from trax.storage.local.refusal import asking
from trax.storage.local.snapshot import Snapshot

_POLL_S = 0.1


# info


def info(options: Namespace) -> int:
    found = describe_store(options.path)
    if options.json:
        print(json.dumps(_as_json(found), indent=2))
    else:
        _print_info(found)
    return FAILED if found.problems else OK


def _print_info(found: StoreInfo) -> None:
    snapshot = found.snapshot
    pairs = [
        ("Store", found.path),
        ("Codec", f"{snapshot.codec}; keeps {count(snapshot.keep, 'snapshot')}"),
        ("Sequence", f"{found.last_sequence:,}; generation {snapshot.generation:,}, epoch {snapshot.epoch:,}"),
        (
            "Log",
            f"{count(len(snapshot.segments), 'segment')} of {count(found.log_bytes, 'byte')}; "
            f"{count(found.records, 'record')}",
        ),
        ("Blobs", f"{count(found.blobs, 'file')} of {count(found.blob_bytes, 'byte')}" if found.blobs else "none"),
        *(
            (("Snapshot" if place == 0 else ""), _snapshot_text(one.sequence, one.created, len(one.names)))
            for place, one in enumerate(reversed(found.snapshots))
        ),
        ("Writer", _writer_text(found.writer)),
    ]
    if found.torn is not None:
        torn = found.torn
        pairs.append(
            (
                "Torn tail",
                f"{os.path.basename(torn.path)}: {count(torn.nbytes, 'byte')} from byte "
                f"{torn.offset:,} on ({torn.reason}); a crash cut them off, and the next writer "
                f"leaves them out",
            )
        )
    if found.removed:
        pairs.append(
            (
                "Removed",
                f"{count(len(found.removed), 'directory', 'directories')} of files that repairs left "
                f"out, under {os.path.join(found.path, 'removed')}",
            )
        )
    facts(pairs)
    print()
    if found.names:
        headings = ("Name", "Checkpointed", "Value bytes", "Cut", "Entries", "Entry bytes")
        table(headings, [_name_row(name) for name in found.names], right=frozenset({2, 3, 4, 5}))
    else:
        print("It holds no names.")
    if found.problems:
        print()
        paragraph(f"{count(len(found.problems), 'problem')}; 'trax verify' looks for all of them:")
        items([problem_text(problem, found.path) for problem in found.problems])


def _name_row(name: NameInfo) -> tuple[str, ...]:
    if name.checkpointed:
        stored = ("in a blob" if name.place == "blob" else "yes", f"{name.nbytes:,}", f"{name.cut:,}")
    else:
        stored = ("no", "", "")
    return (shown_name(name.name), *stored, f"{name.entries:,}", f"{name.entry_bytes:,}")


def _snapshot_text(sequence: int, created: float, names: int) -> str:
    return f"of sequence {sequence:,}, {_when(created)}, with {count(names, 'name')}"


def _when(seconds: float) -> str:
    try:
        return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(seconds))
    except (OverflowError, ValueError, OSError):  # beyond the years that the system knows
        return f"{seconds:g} seconds after 1970"


def _writer_text(writer: WriterInfo) -> str:
    guard = "" if writer.guard == "lock" else ", by an owner file"
    if not writer.owner and not writer.held:
        return "none" if writer.held is False else "it can't be told"
    who = describe(writer.owner)
    if writer.held is None:
        return f"it can't be told whether {who} still holds it"
    if writer.held:
        return f"held{guard} by {who}"
    return f"none; last {who}" if writer.guard == "lock" else f"left behind{guard} of {who}, which has ended"


def _as_json(found: StoreInfo) -> dict[str, Any]:
    snapshot, torn = found.snapshot, found.torn
    return {
        "path": found.path,
        "store_id": snapshot.store_id.hex(),
        "codec": snapshot.codec,
        "keep": snapshot.keep,
        "generation": snapshot.generation,
        "epoch": snapshot.epoch,
        "last_sequence": found.last_sequence,
        "log": {"segments": len(snapshot.segments), "bytes": found.log_bytes, "records": found.records},
        "blobs": {"files": found.blobs, "bytes": found.blob_bytes},
        "names": [vars(name) for name in found.names],
        "snapshots": [vars(one) for one in found.snapshots],
        "writer": vars(found.writer),
        "torn_tail": None if torn is None else torn._asdict(),
        "removed": found.removed,
        "problems": [_problem_json(problem) for problem in found.problems],
    }


# log


def log(options: Namespace) -> int:
    import_modules(options.modules)
    fs, layout = LocalFileSystem(), Layout(options.path)
    survey(fs, layout, create=False)
    with asking("read", layout.snapshot):
        snapshot = load_snapshot(fs, layout.snapshot)
    codec = codec_of(snapshot, options.codec, layout.path)
    wanted = Wanted(options.name, snapshot.names, _reachable_after(fs, layout, snapshot, options))
    follower = Follower(fs, layout, wanted, wanted.after, _say_overtaken)
    show = _json_line if options.json else _text_line
    unseen = set(options.name or ()) - snapshot.names.keys()
    try:
        while True:
            for record in follower.poll():
                unseen -= record.entries.keys()
                sys.stdout.buffer.write(show(record, codec, layout.path))
            if not options.follow:
                break
            sys.stdout.flush()
            time.sleep(_POLL_S)
    finally:
        follower.close()
    if unseen:
        raise _unknown_names(unseen, layout.path)
    return OK


def _reachable_after(fs: FileSystem, layout: Layout, snapshot: Snapshot, options: Namespace) -> int | None:
    if options.after is None:
        return None
    floor = reachable_floor(fs, layout, snapshot, Wanted(options.name, {}, 0))
    if floor > options.after:
        complain(f"entries up to sequence {floor} have left the log, or may have: it is shown from there on")
    return max(floor, int(options.after))


def _say_overtaken(after: int, until: int) -> None:
    sys.stdout.flush()
    complain(
        f"the log was truncated faster than it was read: records between sequence {after} and {until} may be missing"
    )


def _text_line(record: LogRecord, codec: Codec, path: str) -> bytes:
    values = (
        f"{shown_name(name)}={printable(_shown(_decoded(codec, name, record.sequence, data, path)))}"
        for name, data in record.entries.items()
    )
    line = cut(f"{record.sequence:>8}  {'  '.join(values)}", width())
    return f"{line}\n".encode(sys.stdout.encoding, "backslashreplace")


def _shown(value: Any) -> str:
    try:
        return repr(value)
    except (ValueError, RecursionError) as error:  # an integer of too many digits; too many levels
        return f"<{type(value).__name__}: {error}>"


def _json_line(record: LogRecord, codec: Codec, path: str) -> bytes:
    texts = {
        name: entry_text(codec, _decoded(codec, name, record.sequence, data, path), name)
        for name, data in record.entries.items()
    }
    return record_line(record.sequence, texts)


def _decoded(codec: Codec, name: str, sequence: int, data: bytes, path: str) -> Any:
    (value,) = decode_entries(codec, [Entries(name, [sequence], data, [len(data)])], path)
    return value


def _unknown_names(names: set[str], path: str) -> TraxError:
    which = ", ".join(map(repr, sorted(names)))
    text = f"{path} holds nothing of {which}. 'trax info' lists the names."
    return NameNotStoredError(text, path=path, reason="not stored", name=min(names))


# verify


def verify(options: Namespace) -> int:
    found = verify_store(options.path)
    verdict = "whole" if found.ok else count(len(found.problems), "problem")
    paragraph(f"{found.path}: {verdict}")
    figures = (
        count(found.names, "name"),
        count(found.snapshots, "snapshot"),
        count(found.blobs, "blob"),
        count(found.segments, "segment"),
        count(found.records, "record"),
        f"{count(found.nbytes, 'byte')} of blobs and log read",
    )
    paragraph(", ".join(figures), "  ", "  ")
    items([problem_text(problem, found.path) for problem in found.problems])
    items([f"note: {note}" for note in found.notes])
    if not found.ok:
        paragraph(f"Restore the store from a copy, or see what can be saved: trax repair {found.path}")
    return OK if found.ok else FAILED


def _problem_json(problem: TraxError) -> dict[str, Any]:
    return {
        "path": problem.path,
        "offset": problem.offset,
        "sequence": problem.sequence,
        "reason": problem.reason,
        "message": problem.message,
    }
