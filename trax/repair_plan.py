"""What is wrong with a store, what repairing it would make of it, and what that would cost. Nothing is changed here.

The rules:

- The log ends before its first damage. A name whose checkpointed value already contains the log up to there or further
  keeps it; of the others nothing comes back that is younger than the damage.
- Where the snapshot or a blob of it is damaged, the newest kept snapshot that is whole takes its place, for all names,
  and the log is folded on top of it. Where none is, a damaged snapshot can't be repaired, and a name whose blob is
  damaged is dropped: its entries are hidden too, since folding them onto a newly created value would give a state that
  the program never had.
- Going back (``at=``) reaches over no hole: snapshots on the far side of one are dropped.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import takewhile

from trax.errors import CorruptionError, MissingFileError, TraxError
from trax.salvage import FoundLog, FoundSegment, Log, find_segment, scan_found, scan_named
from trax.storage.base import BlobReference, Stored
from trax.storage.local.commit_point import load_snapshot
from trax.storage.local.creation import survey
from trax.storage.local.fs import FileSystem
from trax.storage.local.layout import Layout, file_numbers, segment_numbers
from trax.storage.local.opening import check_is_latest
from trax.storage.local.refusal import asking
from trax.storage.local.snapshot import KeptReference, Snapshot, check_room
from trax.storage.local.view import check_blob, load_kept, stored_names

_SHOWN_NAMES = 12


@dataclass
class Plan:
    """What is to be done. ``repaired`` None: nothing, or nothing can be; ``rewritten``: a log that is put together."""

    problems: list[TraxError] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    stays: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    directories: list[str] = field(default_factory=list)
    dropped: set[str] = field(default_factory=set)
    log: Log = field(default_factory=Log)
    repaired: Snapshot | None = None

    @property
    def rewritten(self) -> FoundLog | None:
        return self.log if isinstance(self.log, FoundLog) else None


@dataclass
class _Older:
    """A snapshot other than the current one, and whether it and all its blobs are whole."""

    snapshot: Snapshot
    whole: bool
    reference: KeptReference | None


class Planner:
    """Makes the plan. The caller holds the lock."""

    def __init__(self, fs: FileSystem, layout: Layout) -> None:
        self._fs, self._layout = fs, layout
        self._plan = Plan()
        self._checked: dict[BlobReference, CorruptionError | None] = {}

    def plan(self) -> Plan:
        """FormatError and StorageError: the store can't be judged by this version, or on this disk."""
        self._find_directories()
        current = self._current()
        if current is not None and self._is_latest(current):
            log = scan_named(self._fs, self._layout, current)
            if not log.later:
                self._plan_around(current, log)
                return self._plan
            text = f"{self._layout.snapshot} is older than the log that it names: an older copy of it was put back."
            reason = "the snapshot is older than the files beside it"
            self._plan.problems.append(CorruptionError(text, path=self._layout.snapshot, reason=reason))
        self._plan_without_snapshot(current)
        return self._plan

    # What is there

    def _current(self) -> Snapshot | None:
        try:
            survey(self._fs, self._layout, create=False)
            with asking("read", self._layout.snapshot):
                snapshot = load_snapshot(self._fs, self._layout.snapshot)
            check_room(snapshot, self._layout.snapshot)
            return snapshot
        except CorruptionError as error:
            self._plan.problems.append(error)
            return None

    def _is_latest(self, snapshot: Snapshot) -> bool:
        try:
            check_is_latest(self._fs, self._layout, snapshot)
        except CorruptionError as error:
            self._plan.problems.append(error)
            return False
        return True

    def _find_directories(self) -> None:
        for path in (self._layout.blobs, self._layout.kept):
            if self._fs.kind(path) == "absent":
                self._plan.directories.append(path)
                text = f"{path} is gone, and the store needs it, though it may be empty."
                self._plan.problems.append(MissingFileError(text, path=path, reason="the directory is missing"))

    def _numbers(self, directory: str) -> set[int]:
        if directory in self._plan.directories:
            return set()
        with asking("list", directory):
            return file_numbers(self._fs.listdir(directory))

    def _entries(self) -> list[str]:
        with asking("list", self._layout.path):
            return self._fs.listdir(self._layout.path)

    def _kept_of(self, current: Snapshot) -> Iterator[_Older]:
        """The snapshots that the current one keeps, the newest first."""
        for reference in reversed(current.kept):
            try:
                kept = load_kept(self._fs, self._layout, current.store_id, reference)
            except CorruptionError as error:
                self._plan.problems.append(error)
                yield _Older(current, False, reference)
            else:
                yield _Older(kept, not self._bad_blobs(kept), reference)

    def _kept_found(self) -> Iterator[_Older]:
        """The snapshots in the directory of the kept ones, the newest first."""
        for generation in sorted(self._numbers(self._layout.kept), reverse=True):
            path = self._layout.kept_snapshot(generation)
            try:
                with asking("read", path):
                    kept = load_snapshot(self._fs, path)
            except CorruptionError as error:
                self._plan.problems.append(error)
                continue
            if kept.generation == generation:
                reference = KeptReference(generation, kept.sequence, kept.created)
                yield _Older(kept, not self._bad_blobs(kept), reference)

    def _bad_blobs(self, snapshot: Snapshot) -> list[str]:
        """The names whose value is in a damaged or missing blob."""
        return [
            name
            for name, stored in sorted(snapshot.names.items())
            if isinstance(stored.value, BlobReference) and self._is_bad(snapshot.store_id, stored.value)
        ]

    def _is_bad(self, store_id: bytes, blob: BlobReference) -> bool:
        if blob not in self._checked:
            self._checked[blob] = None
            try:
                check_blob(self._fs, self._layout, store_id, blob)
            except CorruptionError as error:
                self._checked[blob] = error
                self._plan.problems.append(error)
        return self._checked[blob] is not None

    # With a snapshot

    def _plan_around(self, current: Snapshot, log: Log) -> None:
        bad = self._bad_blobs(current)
        older = list(self._kept_of(current))
        self._plan.log = log
        if log.damage is not None:
            self._plan.problems.append(log.damage)
        if not self._plan.problems:
            return
        base = current
        if bad:
            whole = [one for one in older if one.whole]
            base = whole[0].snapshot if whole else current
            older = older[older.index(whole[0]) :] if whole else older
        names = dict(base.names)
        if base is not current:
            self._say_fallback(current, base)
        else:
            self._drop(names, bad, log)
        kept = [] if log.damage is not None else [*takewhile(lambda one: one.whole, older)]
        if base is not current:
            kept = kept[: current.keep - 1]
        repaired = replace(
            current,
            names=names,
            kept=tuple(one.reference for one in reversed(kept) if one.reference is not None),
            segments=tuple(log.segments),
            sequence=current.sequence if base is current and log.damage is None else _beyond(current, log),
        )
        self._finish(repaired, current, log, older=base is not current)
        self._say_reach(current, repaired)

    def _drop(self, names: dict[str, Stored], bad: Iterable[str], log: Log) -> None:
        for name in bad:
            self._plan.dropped.add(name)
            blob = names[name].value
            assert isinstance(blob, BlobReference), "only such values are in blobs"
            files = ", ".join(f"blobs/{file.number:08}" for file in blob.files)
            text = f"{_quoted([name])}: its value, which was in {files}"
            if name in log.holders:
                # Hidden, not removed: the log stays as it is, and its files are kept among the removed ones too.
                end = max(log.last, log.latest_sequence, names[name].sequence)
                names[name] = Stored(end, end, None)
                text += "; its entries in the log are hidden, since without that value they mean nothing"
            else:
                del names[name]
            self._plan.lost.append(text)

    def _say_fallback(self, current: Snapshot, base: Snapshot) -> None:
        lost, before, after = self._plan.lost, current.names, base.names
        lost.append(
            f"the snapshot of sequence {current.sequence:,}: that of sequence {base.sequence:,} takes its place, and "
            f"what was logged since is folded on top of it"
        )
        stored, older = set(stored_names(before)), set(stored_names(after))
        changed = [name for name in sorted(stored & older) if before[name] != after[name]]
        gone = sorted(stored - older)
        back = sorted(older - stored)
        if changed:
            lost.append(f"{_quoted(changed)}: what was checkpointed since and is not in the log")
        if gone:
            lost.append(
                f"{_quoted(gone)}: the value, which was first stored after that snapshot; entries in the log stay"
            )
        if back:
            self._plan.notes.append(f"{_quoted(back)}: deleted since, comes back")

    # Without one

    def _plan_without_snapshot(self, current: Snapshot | None) -> None:
        older = list(self._kept_found())
        if current is not None:  # an older state of the store that was put back: no more than a kept one
            older.append(_Older(current, not self._bad_blobs(current), None))
            older.sort(key=lambda one: one.snapshot.generation, reverse=True)
        whole = [one for one in older if one.whole]
        if not whole:
            self._say_salvage()
            return
        base = whole[0].snapshot
        log = self._plan.log = scan_found(self._fs, self._layout, base)
        if log.damage is not None:
            self._plan.problems.append(log.damage)
        keeps = whole[0].reference is not None and base.keep > 1 and log.damage is None
        repaired = replace(
            base,
            kept=(whole[0].reference,) if keeps and whole[0].reference is not None else (),
            segments=(),
            sequence=_beyond(base, log) + len(older),
            generation=max(one.snapshot.generation for one in older),
        )
        self._plan.lost.append(
            f"the newest snapshot: that of sequence {base.sequence:,} takes its place, and what was logged since is "
            f"folded on top of it. What was checkpointed since and is not in the log is lost, and names that were "
            f"deleted since come back"
        )
        if log.missing:
            files = ", ".join(f"log.{number:08}" for number in log.missing[:_SHOWN_NAMES])
            self._plan.notes.append(
                f"{files} is not there. Most likely it was not needed any more; if it was lost, what it held is "
                f"missing in the middle of the log, and only the newest snapshot could tell"
            )
        self._finish(repaired, base, log, older=True)
        self._say_reach(base, repaired)

    def _say_salvage(self) -> None:
        self._plan.notes.append("without a snapshot that is whole nobody can say what belongs to the store")
        for number in sorted(segment_numbers(self._entries())):
            found = find_segment(self._fs, self._layout, None, number)
            if isinstance(found, FoundSegment) and found.records:
                self._plan.notes.append(
                    f"log.{number:08} holds {_count(found.records, 'whole record')}, up to sequence {found.last:,}, of "
                    f"{_quoted(sorted(found.names))}"
                )
        for number in sorted(self._numbers(self._layout.blobs)):
            self._plan.notes.append(f"blobs/{number:08} holds a value, and only a snapshot says of which name")
        for path in self._layout.unfinished_snapshots(self._fs.listdir(self._layout.path)):
            self._plan.notes.append(f"{os.path.basename(path)} is a snapshot that was being written when a crash came")

    # What becomes of it

    def _finish(self, repaired: Snapshot, before: Snapshot, log: Log, *, older: bool) -> None:
        generations = [repaired.generation, before.generation, *self._numbers(self._layout.kept)]
        repaired = replace(
            repaired,
            # Above everything that is there, or an opening would take what is left over for a sign of a later snapshot.
            generation=max(generations) + 1,
            epoch=max(repaired.epoch, before.epoch, log.latest_epoch) + 1,
            last_segment=max([repaired.last_segment, before.last_segment, *segment_numbers(self._entries())]),
            last_blob=max([repaired.last_blob, before.last_blob, *self._numbers(self._layout.blobs)]),
        )
        try:
            check_room(repaired, self._layout.snapshot)
        except CorruptionError:
            self._plan.notes.append("what is there has numbers so high that a repaired store would have no room above")
            return
        self._plan.repaired = repaired
        if log.damage is not None:
            self._say_lost_log(repaired.names, log)
        self._say_what_stays(repaired.names, log, older)

    def _say_lost_log(self, names: Mapping[str, Stored], log: Log) -> None:
        behind = log.behind
        first = log.last + 1
        if behind.last < first:
            span = f"sequence {first:,} on"
        else:
            span = f"sequence {first:,} to {'' if behind.complete else 'at least '}{behind.last:,}"
        text = f"the log from {span}"
        if behind.records:
            text += (
                f"; {_count(behind.records, 'whole record')} behind the damage can be found in the removed files only"
            )
        self._plan.lost.append(text)
        counts = {
            name: sum(sequence > (names[name].cut if name in names else 0) for sequence in sequences)
            for name, sequences in sorted(behind.sequences.items())
        }
        self._plan.lost += [
            f"{_quoted([name])}: {_count(count, 'entry', 'entries')} of these"
            for name, count in counts.items()
            if count
        ]

    def _say_what_stays(self, names: Mapping[str, Stored], log: Log, older: bool) -> None:
        by_text: dict[str, list[str]] = {}
        for name in sorted({*stored_names(names), *(log.holders.keys() - names.keys())}):
            by_text.setdefault(_state_text(names.get(name), log, older), []).append(name)
        self._plan.stays = [f"{_quoted(those)}: {text}" for text, those in by_text.items()]

    def _say_reach(self, before: Snapshot, repaired: Snapshot) -> None:
        old = min([before.sequence, *(kept.sequence for kept in before.kept)])
        new = min([repaired.sequence, *(kept.sequence for kept in repaired.kept)])
        if new > old and before.kept:
            self._plan.lost.append(f"going back (at=) to sequences below {new:,}; so far it reached {old:,}")


def _beyond(snapshot: Snapshot, log: Log) -> int:
    """A sequence above all that were given out, as far as anyone can know; a record takes more than a byte."""
    cuts = [stored.cut for stored in snapshot.names.values()]
    known = max([snapshot.sequence, log.last, log.latest_sequence, log.behind.last, *cuts])
    return known + log.behind.unknown_bytes


def _state_text(stored: Stored | None, log: Log, older: bool) -> str:
    if log.damage is None and stored is None:
        return "entries in the log"
    if log.damage is None and stored is not None:
        value = f"its value of sequence {stored.sequence:,}" if older else "its value"
        return f"{value}, with all that was logged since"
    if stored is None:
        return f"entries in the log, up to sequence {log.last:,}"
    if stored.cut > log.last:
        return f"as of sequence {stored.cut:,}, which its checkpointed value contains"
    return f"as of sequence {log.last:,}"


def _quoted(names: list[str]) -> str:
    shown = ", ".join(map(repr, names[:_SHOWN_NAMES]))
    return shown if len(names) <= _SHOWN_NAMES else f"{shown} and {len(names) - _SHOWN_NAMES:,} more"


def _count(number: int, what: str, plural: str = "") -> str:
    return f"{number:,} {what if number == 1 else plural or what + 's'}"
