"""What a storage is: it takes encoded records and values, and knows neither Python values nor codecs.

The words are those of the documentation: a *record* is what one ``log()`` adds, a *commit* is one or more records that
become durable together, the *snapshot* is the commit point that replaces the one before it as a whole.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import NamedTuple, Protocol

from trax.codecs.base import BufferSource, Encoded

Record = Mapping[str, bytes]
"""Name to encoded entry."""

Commit = Sequence[Record]
"""Records that become durable together or not at all; they have consecutive sequences."""


MAX_SEQUENCE = 2**64 - 1
"""No record has a sequence as high as this."""


class Entries(NamedTuple):
    """The entries of one name within one frame, in the order of their sequences."""

    name: str
    sequences: Sequence[int]
    data: bytes
    lengths: Sequence[int]

    def encodings(self) -> Iterator[bytes]:
        """Each encoded entry by itself."""
        start = 0
        for length in self.lengths:
            yield self.data[start : start + length]
            start += length

    def within(self, after: int, until: int) -> Entries:
        """What lies above ``after`` and not above ``until``."""
        if after < self.sequences[0] and self.sequences[-1] <= until:
            return self
        kept = [
            (sequence, encoding)
            for sequence, encoding in zip(self.sequences, self.encodings(), strict=True)
            if after < sequence <= until
        ]
        encodings = [encoding for _, encoding in kept]
        return Entries(self.name, [sequence for sequence, _ in kept], b"".join(encodings), [*map(len, encodings)])


class BlobReference(NamedTuple):
    """A value in a file of its own: which one, how long in bytes, and the checksum that seals it.

    ``bases`` are the earlier files, each with no bases of its own, that hold the parts which this one does not.
    """

    number: int
    nbytes: int
    checksum: int
    bases: tuple[BlobReference, ...] = ()

    @property
    def files(self) -> tuple[BlobReference, ...]:
        """All files that the value lies in: its own, and its bases in their order."""
        return (self._replace(bases=()), *self.bases) if self.bases else (self,)

    @property
    def stored_bytes(self) -> int:
        """The length of all files that the value lies in."""
        return sum(one.nbytes for one in self.files)


class Stored(NamedTuple):
    """What a snapshot holds of one name.

    ``cut`` is the last sequence that the value already contains; ``sequence`` that of the checkpoint that stored it;
    ``value`` the encoded bytes, a blob, or None for a name that was deleted while the log still held entries of it.
    """

    cut: int
    sequence: int
    value: bytes | BlobReference | None


@dataclass(frozen=True)
class SnapshotInfo:
    """A snapshot that ``at=`` can reach back to.

    ``sequence`` is that of its checkpoint: ``recover(name, at=s)`` works for every ``s`` from there on.
    ``created`` is seconds since 1970 (UTC), by the clock of the machine that wrote it.
    """

    sequence: int
    created: float
    names: tuple[str, ...]


class View(Protocol):
    """One consistent state of a storage, held open for reading: files that are removed meanwhile stay readable."""

    names: Mapping[str, Stored]

    def entries(self, after: Mapping[str, int], until: int) -> Iterator[Entries]:
        """The entries of the given names above each one's sequence and not above ``until``, in the log's order."""

    def value(self, stored: Stored) -> tuple[bytes, BufferSource]:
        """The head of a stored value, verified, and where its buffers are found."""

    def close(self) -> None: ...

    def __enter__(self) -> View: ...

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None: ...


class Storage(Protocol):
    """A place for one store. All calls but ``view`` and ``write_value`` come from one thread at a time."""

    @property
    def codec(self) -> str: ...

    @property
    def keep(self) -> int: ...

    @property
    def epoch(self) -> int:
        """Counts the openings for writing."""

    @property
    def sequence(self) -> int:
        """The last sequence that was appended or published."""

    @property
    def appended(self) -> int:
        """The last sequence in the log."""

    @property
    def names(self) -> Mapping[str, Stored]:
        """What the current snapshot holds."""

    def check(self) -> None:
        """Raise what keeps it from being used, if anything does: it was closed, or a publish was interrupted."""

    def append(self, first_sequence: int, commits: Sequence[Commit]) -> None:
        """Hand records to the operating system. An error leaves the log as it was before the call."""

    def sync(self) -> None:
        """Bring everything appended to stable storage, then make sure that this writer is still the owner.

        Raises FencedError when it is not, and StorageError when the sync failed; the storage can't be used after
        either.
        """

    def mark(self) -> None:
        """Write down, durably, that everything appended so far is on stable storage."""

    def write_value(self, name: str, encoded: Encoded) -> bytes | BlobReference:
        """Bring a value to stable storage, or hand it back when it is small enough to stand in the snapshot.

        A blob may lean on files of what is stored of ``name``; these stay until :meth:`discard` was given it.
        """

    def publish(self, changes: Mapping[str, Stored], sequence: int, ahead: Sequence[tuple[int, Commit]] = ()) -> None:
        """Change what the snapshot holds of some names; the others stay as they are.

        The ``ahead`` records, with their first sequences, become part of the log with it.

        What was appended before is on stable storage with it. StorageError: nothing happened. FinishedError: nobody
        knows what happened.
        """

    def discard(self, values: Iterable[BlobReference]) -> None:
        """The caller is done with the values: remove those that were never published, unless others lean on them."""

    def compact(self, quietly: Callable[[Callable[[], None]], None]) -> None:
        """Remove what the last publish has replaced, and give back what entries that snapshots contain take, if that is
        worth the work.

        Appending may go on meanwhile, but not while ``quietly`` runs what it is given.
        """

    def view(self, names: Collection[str] = (), at: int | None = None) -> View:
        """The state now, or as of the newest snapshot that is not above ``at``; UnreachableError if there is none.

        ``names`` are those whose values will be asked for.
        """

    def lowest_cut(self, name: str) -> int:
        """The lowest cut that a snapshot holds of the name: the log still has its entries behind that."""

    def snapshots(self) -> list[SnapshotInfo]:
        """What ``at=`` can reach, oldest first."""

    def stats(self) -> dict[str, object]:
        """Figures about the storage, by name."""

    def close(self) -> None: ...
