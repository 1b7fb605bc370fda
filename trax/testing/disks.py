"""What a disk may look like after a power loss, given what was asked of it until then.

After ALICE (Pillai et al., OSDI 2014), with the weakest promises that POSIX and the file systems in use leave:

- what was synced stays, and nothing else has to;
- of what was not synced, each sector, each size and each name may have arrived or not, by itself and in any order:
  :mod:`trax.testing.contents` and :mod:`trax.testing.names` say what that means for a file and for a directory.

A recording has so many *moments* as operations, and one more. At each the power may fail, and leave any of its
*outcomes*, which can be tried all or, where they are too many, sampled::

    for done, image in crash_images(fs.start, fs.operations, random.Random(seed), samples=20, limit=1000):
        image.lay_out(directory)
        ...  # open what lies there, and check it against what had been promised after ``done`` operations
"""

from __future__ import annotations

import random
from collections.abc import Collection, Iterator, Sequence
from itertools import product
from math import prod
from typing import NamedTuple

from trax.testing.contents import TOO_MANY, Choose, FileContents, PossibleContents
from trax.testing.names import Found, Names, PossibleNames
from trax.testing.recording import Image, Operation

_MANY_CHANGES = 12
_LEFT_BEHIND = 4


class Disk:
    """A disk, and what is on its way there."""

    def __init__(self, start: Image) -> None:
        self._files = {number: FileContents(data) for number, data in start.contents.items()}
        self._names = Names(start)
        self._left_behind: tuple[bytes, ...] = ()

    def apply(self, operation: Operation) -> None:
        """One more operation is done."""
        if operation.kind == "lost":
            self._lose(operation)
        elif operation.kind in ("write", "truncate", "allocate", "fsync"):
            self._change_file(self._files[operation.file], operation)
        elif operation.kind == "fsync_directory":
            self._names.sync(operation.path)
        elif operation.kind != "note":
            if operation.kind == "create":
                self._files[operation.file] = FileContents()
            self._leave_behind(operation.path if operation.kind == "unlink" else operation.target)
            self._names.apply(operation)

    def outcomes(self, settled: Collection[str] = ()) -> Outcomes:
        """What a power loss now may leave. Of the paths in ``settled`` nothing is lost: they multiply nothing."""
        found = self._names.cached().files
        certain = {found[path] for path in settled if path in found}
        files = {
            number: file.possible(self._left_behind) if file.pending and number not in certain else file.cached()
            for number, file in self._files.items()
        }
        return Outcomes(files, self._names.possible(settled))

    def lost_by_a_failed_fsync(self, dice: random.Random, file: int, directory: str) -> Operation:
        """What an fsync that fails now leaves of a file, or of a directory when ``file`` is -1: an operation to apply.

        Some of what was to be synced may have arrived. The rest is gone: no later fsync brings it to the disk.
        """
        arrives = dice.choice((0.0, 0.0, 0.5))
        if file < 0:
            changes = range(len(self._names.pending_in(directory)))
            return Operation("lost", path=directory, note=tuple(one for one in changes if dice.random() < arrives))
        possible = self._files[file].possible(self._left_behind)
        data = possible.choose(lambda kind, count: 0 if dice.random() < arrives else min(1, count - 1))
        return Operation("lost", file=file, data=data)

    def _lose(self, operation: Operation) -> None:
        if operation.file >= 0:
            self._files[operation.file].lose(operation.data)
        else:
            self._names.lose(operation.path, operation.note)

    def cached(self) -> Image:
        """What the operating system shows: what a killed process leaves behind."""
        found = self._names.cached()
        contents = {number: self._files[number].cached() for number in found.files.values()}
        return Image(contents, found.files, set(found.directories))

    @staticmethod
    def _change_file(file: FileContents, operation: Operation) -> None:
        if operation.kind == "write":
            file.write(operation.data, operation.offset)
        elif operation.kind == "truncate":
            file.truncate(operation.size)
        elif operation.kind == "allocate":
            file.allocate(operation.size)
        else:
            file.sync()

    def _leave_behind(self, path: str) -> None:
        """The file at the path is about to be removed or replaced: its blocks go to others, with what is in them."""
        number = self._names.lookup(path)
        if number in self._files and (data := self._files[number].cached()):
            self._left_behind = (data, *self._left_behind)[:_LEFT_BEHIND]


class Outcomes:
    """The disks that a power loss may leave at one moment. Iterate for all that differ, or choose some."""

    def __init__(self, files: dict[int, PossibleContents | bytes], names: PossibleNames) -> None:
        self._files = files
        self._names = names

    @property
    def count(self) -> int:
        """How many ways there are of losing something; ``TOO_MANY`` at most. Some may come to the same image."""
        if self._names.changes > _MANY_CHANGES:
            return TOO_MANY
        return min(TOO_MANY, sum(prod(map(self._ways, set(found.files.values()))) for found in self._names))

    def __iter__(self) -> Iterator[Image]:
        """All images that differ. Look at ``count`` before."""
        contents: dict[int, list[bytes]] = {}
        seen = set()
        for found in self._names:
            numbers = sorted(set(found.files.values()))
            for number in numbers:
                if number not in contents:
                    possible = self._files[number]
                    contents[number] = [possible] if isinstance(possible, bytes) else list(dict.fromkeys(possible))
            for picks in product(*(contents[number] for number in numbers)):
                image = _image(found, dict(zip(numbers, picks, strict=True)))
                if (key := image.key()) not in seen:
                    seen.add(key)
                    yield image

    def choose(self, choose: Choose) -> Image:
        """The image that ``choose(kind, number)`` leads to, which picks one of so many possibilities, counted from 0.

        ``kind`` is "name", "size" or "sector". 0 is always what the operating system shows, so a search that shrinks
        numbers loses as little as it takes; 1 is what was durable before, where that differs.
        """
        found = self._names.choose(choose)
        contents = {}
        for number in sorted(set(found.files.values())):
            possible = self._files[number]
            contents[number] = possible if isinstance(possible, bytes) else possible.choose(choose)
        return _image(found, contents)

    def extremes(self) -> Iterator[Image]:
        """All of the names, the sizes, the sectors has arrived, or nothing of it: the eight combinations."""
        for kinds in product((False, True), repeat=3):
            lost = dict(zip(("name", "size", "sector"), kinds, strict=True))
            yield self.choose(lambda kind, count, lost=lost: min(lost[kind], count - 1))  # type: ignore[misc]

    def sample(self, dice: random.Random) -> Image:
        """One of them, at random: now much is lost, now little."""
        arrives = {"name": dice.random(), "size": dice.random(), "sector": dice.random()}
        return self.choose(lambda kind, count: 0 if dice.random() < arrives[kind] else dice.randrange(count))

    def _ways(self, number: int) -> int:
        possible = self._files[number]
        return 1 if isinstance(possible, bytes) else possible.count


class Moment(NamedTuple):
    """``done`` operations were done when the power failed."""

    done: int
    outcomes: Outcomes


def moments(
    start: Image, operations: Sequence[Operation], *, after: int = 0, settled: Collection[str] = ()
) -> Iterator[Moment]:
    """Every moment at which the power may fail, from ``after`` operations on.

    Notes change nothing on a disk: a moment comes after those that follow an operation, not before them.
    """
    disk = Disk(start)
    for done in range(len(operations) + 1):
        if done:
            disk.apply(operations[done - 1])
        if done >= after and (done == len(operations) or operations[done].kind != "note"):
            yield Moment(done, disk.outcomes(settled))


def crash_images(
    start: Image,
    operations: Sequence[Operation],
    dice: random.Random,
    samples: int,
    *,
    limit: int = 0,
    after: int = 0,
    settled: Collection[str] = (),
) -> Iterator[tuple[int, Image]]:
    """For each moment the disks that a power loss may leave, each with the number of operations done.

    All that differ where there are at most ``limit`` ways to them; otherwise the extremes, then ``samples`` of them.
    """
    for done, outcomes in moments(start, operations, after=after, settled=settled):
        if limit and outcomes.count <= limit:
            yield from ((done, image) for image in outcomes)
        else:
            yield from ((done, image) for image in outcomes.extremes())
            yield from ((done, outcomes.sample(dice)) for _ in range(samples))


def cached_image(start: Image, operations: Sequence[Operation]) -> Image:
    """What the operating system shows when all of the operations are done: what a killed process leaves behind."""
    disk = Disk(start)
    for operation in operations:
        disk.apply(operation)
    return disk.cached()


def lost_by_a_failed_fsync(
    start: Image, operations: Sequence[Operation], dice: random.Random, file: int, directory: str
) -> tuple[Operation, Image]:
    """What an fsync that fails leaves of a file, or of a directory when ``file`` is -1, and the disk behind it."""
    disk = Disk(start)
    for operation in operations:
        disk.apply(operation)
    lost = disk.lost_by_a_failed_fsync(dice, file, directory)
    disk.apply(lost)
    return lost, disk.outcomes().choose(lambda kind, count: min(1, count - 1))


def _image(found: Found, contents: dict[int, bytes]) -> Image:
    return Image(contents, found.files, set(found.directories))
