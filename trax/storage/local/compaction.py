"""Which segments the log still needs, and when copying what is left of them is worth it.

A segment goes as soon as no name has an entry in it above that name's *floor*: the lowest cut that the current and the
kept snapshots hold of it. A name that is never checkpointed would keep every segment for ever, so what survives is
copied out of segments that are mostly dead, or many.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from trax.storage.base import Stored
from trax.storage.local.segment import SegmentWriter, Summary
from trax.storage.local.snapshot import SegmentReference
from trax.storage.local.walk import Frame

LARGE_BYTES = 1 << 20
MANY_SEGMENTS = 32
_DEAD_SHARE = 0.75


class Floors:
    """Name to the highest sequence that no snapshot needs any more."""

    def __init__(self, current: Mapping[str, Stored], kept: Iterable[Mapping[str, Stored]]) -> None:
        self._snapshots = [current, *kept]

    def __getitem__(self, name: str) -> int:
        # A name that only an older snapshot holds was deleted, and its marker pruned: that one still needs it.
        return min((names[name].cut for names in self._snapshots if name in names), default=0)

    def needs(self, summary: Summary) -> bool:
        return any(last > self[name] for name, last in summary.last_sequence.items())

    def dead_bytes(self, summary: Summary) -> int:
        """At least so many bytes of the segment's entries are needed no more."""
        return sum(nbytes for name, nbytes in summary.nbytes.items() if summary.last_sequence[name] <= self[name])


def needed(
    sealed: Iterable[SegmentReference], summaries: Mapping[int, Summary], floors: Floors
) -> tuple[SegmentReference, ...]:
    return tuple(reference for reference in sealed if floors.needs(summaries[reference.number]))


def worth_copying(
    sealed: Sequence[SegmentReference], summaries: Mapping[int, Summary], floors: Floors
) -> list[SegmentReference]:
    """The last sealed segments, if what survives of them should be copied together; empty when it is not worth it."""
    run: list[SegmentReference] = []
    for reference in reversed(sealed):
        summary = summaries[reference.number]
        total = sum(summary.nbytes.values())
        if total >= LARGE_BYTES and floors.dead_bytes(summary) < _DEAD_SHARE * total:
            break  # large and mostly alive: copying it again and again would cost more than it gives back
        run.insert(0, reference)
    total = sum(sum(summaries[reference.number].nbytes.values()) for reference in run)
    dead = sum(floors.dead_bytes(summaries[reference.number]) for reference in run)
    large_and_dead = total >= LARGE_BYTES and dead >= _DEAD_SHARE * total
    return run if large_and_dead or len(run) > MANY_SEGMENTS else []


def copy_survivors(frames: Iterable[Frame], floors: Floors, writer: SegmentWriter) -> None:
    """Append what is still needed of each frame, with the sequences it has."""
    for frame in frames:
        survivors: dict[int, dict[str, bytes]] = {}
        for entries in frame.entries():
            floor = floors[entries.name]
            for sequence, encoding in zip(entries.sequences, entries.encodings(), strict=True):
                if sequence > floor:
                    survivors.setdefault(sequence, {})[entries.name] = encoding
        if survivors:
            sequences = sorted(survivors)
            writer.append_survivors(sequences, [survivors[sequence] for sequence in sequences])
