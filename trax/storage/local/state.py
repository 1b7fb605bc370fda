"""One generation of a store that is held for writing, and what follows from one generation to the next.

Pure functions of states: which files belong to one, which are no longer named after the next.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from trax.storage.base import BlobReference, Stored
from trax.storage.local.layout import Layout
from trax.storage.local.segment import SegmentWriter, Summary
from trax.storage.local.snapshot import KeptReference, SegmentReference, Snapshot


class State(NamedTuple):
    """One generation: its snapshot, the older ones it keeps, the active segment, and what the sealed ones hold."""

    snapshot: Snapshot
    kept: list[Snapshot]
    writer: SegmentWriter
    summaries: Mapping[int, Summary]

    def sealed(self) -> tuple[list[SegmentReference], dict[int, Summary]]:
        """The sealed segments once the active one has been sealed too, unless it is empty."""
        *sealed, active = self.snapshot.segments
        if self.writer.empty:
            return sealed, dict(self.summaries)
        reference = active.ending(self.writer.tail)
        return [*sealed, reference], {**self.summaries, active.number: self.writer.summary}

    def kept_beside_the_next(self) -> list[tuple[KeptReference, Snapshot]]:
        """The snapshots that stay beside the next one, oldest first; the last of them may be the present one."""
        now = self.snapshot
        every = [*zip(now.kept, self.kept, strict=True)]
        if now.sequence > 0:
            every.append((KeptReference(now.generation, now.sequence, now.created), now))
        return every[max(0, len(every) - now.keep + 1) :]

    def without_forgotten_summaries(self) -> State:
        """The same, without the summaries of segments that the snapshot does not name."""
        numbers = segment_numbers_of(self.snapshot)
        return self._replace(summaries={number: one for number, one in self.summaries.items() if number in numbers})


def no_longer_named(layout: Layout, old: State, new: State) -> Iterator[str]:
    """The files that only the old state named."""
    before, after = old.snapshot, new.snapshot
    yield from map(layout.segment, segment_numbers_of(before) - segment_numbers_of(after))
    for blob in blobs_of(before, old.kept) - blobs_of(after, new.kept):
        yield layout.blob(blob.number)
    for kept in {one.generation for one in before.kept} - {one.generation for one in after.kept}:
        yield layout.kept_snapshot(kept)


def blobs_of(snapshot: Snapshot, kept: Iterable[Snapshot]) -> frozenset[BlobReference]:
    """The files that their large values lie in, each by itself."""
    return snapshot.blob_files.union(*(one.blob_files for one in kept))


def segment_numbers_of(snapshot: Snapshot) -> set[int]:
    return {segment.number for segment in snapshot.segments}


def without_dead_markers(
    old: Snapshot, changes: Mapping[str, Stored], summaries: Sequence[Summary]
) -> dict[str, Stored | None]:
    """The changes to what is stored of names; None for a deleted one, once the log holds no entries it must hide."""
    deleted = old.deleted - changes.keys() | {name for name, stored in changes.items() if stored.value is None}
    dead = [name for name in deleted if not any(name in summary.last_sequence for summary in summaries)]
    return {**changes, **dict.fromkeys(dead)}
