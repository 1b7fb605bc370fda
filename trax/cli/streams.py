"""The command that looks at consumers: consumer."""

from __future__ import annotations

import json
from argparse import Namespace
from datetime import datetime
from typing import Any

from trax.cli.codes import OK
from trax.cli.output import cut, facts, printable, shown_name, table, width
from trax.consumer import Checkpoint, Status, Tracker, streams
from trax.errors import NameNotStoredError
from trax.store import Trax

_ERROR_COLUMNS = 28


def consumer(options: Namespace) -> int:
    with Trax(options.path, mode="r", codec=options.codec) as store:
        found = streams(store)
        if options.stream is not None and options.stream not in found:
            there = f"it has {', '.join(map(shown_name, found))}" if found else "it has no streams"
            text = f"{store.path} holds no stream {options.stream!r}: {there}."
            raise NameNotStoredError(text, path=store.path, reason="no such stream", name=options.stream)
        wanted = found if options.stream is None else [options.stream]
        checkpoints = {stream: Checkpoint(store, stream) for stream in wanted}
        if options.json:
            print(json.dumps({stream: _as_json(one) for stream, one in checkpoints.items()}, indent=2, default=repr))
        elif options.stream is not None:
            _print_one(options.stream, checkpoints[options.stream])
        else:
            _print_all(store.path, checkpoints)
    return OK


def _print_all(path: str, checkpoints: dict[str, Checkpoint]) -> None:
    facts([("Store", path), ("Streams", f"{len(checkpoints):,}")])
    if not checkpoints:
        return
    print()
    headings = ("Stream", "Batch", "Records", "Unfinished", "Exhausted", "Next pointer")
    table(headings, [_row(stream, one) for stream, one in checkpoints.items()], right=frozenset({1, 2, 3, 4}))


def _row(stream: str, checkpoint: Checkpoint) -> tuple[str, ...]:
    trackers = checkpoint.trackers()
    summary = checkpoint.summary()
    batch = 0 if summary is None else summary.sequence
    exhausted = sum(tracker.status is Status.EXHAUSTED for tracker in trackers)
    figures = (batch, len(trackers), len(checkpoint.unfinished()), exhausted)
    return (shown_name(stream), *(f"{figure:,}" for figure in figures), _pointer(checkpoint))


def _print_one(stream: str, checkpoint: Checkpoint) -> None:
    summary = checkpoint.summary()
    assert summary is not None
    counts = [f"{summary.counts[status]:,} {status}" for status in Status if status in summary.counts]
    facts(
        [
            ("Stream", shown_name(stream)),
            ("Batch", f"{summary.sequence:,}, begun {_when(summary.created)}, changed {_when(summary.updated)}"),
            ("From", cut(printable(repr(summary.start_pointer)), 60)),
            ("Next", _pointer(checkpoint)),
            ("Records", ", ".join(counts) or "none"),
        ]
    )
    shown = [tracker for tracker in checkpoint.trackers() if not tracker.ended or tracker.status is Status.EXHAUSTED]
    if shown:
        print()
        room = None if width() is None else _ERROR_COLUMNS
        headings = ("Record", "Status", "Attempts", "Last error")
        table(headings, [_record(tracker, room) for tracker in shown], right=frozenset({2}))


def _record(tracker: Tracker, room: int | None) -> tuple[str, ...]:
    error = tracker.errors[-1].error if tracker.errors else ""
    status = str(tracker.status)
    if tracker.status is Status.EXHAUSTED and not tracker.ended:
        status += ", not delivered"
    return (shown_name(tracker.record_id), status, f"{tracker.attempts:,}", cut(printable(error), room))


def _pointer(checkpoint: Checkpoint) -> str:
    if checkpoint.ended:
        return "the stream has ended"
    return "none: these are the last" if checkpoint.pointer is None else cut(printable(repr(checkpoint.pointer)), 24)


def _when(time: datetime) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S UTC")


def _as_json(checkpoint: Checkpoint) -> dict[str, Any]:
    return {
        "ended": checkpoint.ended,
        "next_pointer": checkpoint.pointer,
        "history": [summary.as_plain() for summary in checkpoint.history()],
        "trackers": [tracker.as_plain() for tracker in checkpoint.trackers()],
    }
