"""What a disk may look like after a power loss, given what was asked of it until then.

After ALICE (Pillai et al., OSDI 2014), with the weakest promises that POSIX leaves:

- Of what was written since a file's last fsync, any subset of 512-byte sectors has arrived, each whole or not at all;
  a sector that was never written may hold zeros or what was there in an earlier life of the block.
- A file's size is apart from its contents: it may be any that the file had since its last fsync.
- Of what was done to a directory since its last fsync, any subset has arrived. A rename arrives whole or not at all.
- What was synced stays.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from trax.testing.recording import Image, Operation

SECTOR_BYTES = 512
_GARBAGE = bytes(range(256)) * 2


@dataclass
class _File:
    synced: bytes = b""
    pending: list[Operation] = field(default_factory=list)


@dataclass
class _Disk:
    """The disk and what is on its way there."""

    files: dict[int, _File]
    names: dict[str, int]
    directories: set[str]
    pending: dict[str, list[Operation]] = field(default_factory=dict)

    def apply(self, operation: Operation) -> None:
        if operation.kind in ("write", "truncate", "allocate"):
            self.files[operation.file].pending.append(operation)
        elif operation.kind == "fsync":
            file = self.files[operation.file]
            file.synced, file.pending = _all_of(file), []
        elif operation.kind == "fsync_directory":
            for pending in self.pending.pop(operation.path, []):
                _apply_name(self.names, self.directories, pending)
        elif operation.kind in ("create", "link", "rename", "unlink", "mkdir"):
            if operation.kind == "create":
                self.files[operation.file] = _File()
            self.pending.setdefault(_parent(operation.path), []).append(operation)


def crash_images(
    start: Image, operations: Sequence[Operation], dice: random.Random, samples: int, *, after: int = 0
) -> Iterator[tuple[int, Image]]:
    """For each number of operations done, disks that a power loss may leave; the extremes first, then ``samples``.

    With ``after``, only for numbers from that one on.
    """
    disk = _Disk(
        {number: _File(data) for number, data in start.contents.items()}, dict(start.names), set(start.directories)
    )
    for done in range(len(operations) + 1):
        if done:
            disk.apply(operations[done - 1])
            if operations[done - 1].kind == "note":
                continue
        if done < after:
            continue
        for names_arrive, data_arrives in ((0.0, 0.0), (1.0, 1.0), (1.0, 0.0), (0.0, 1.0)):
            yield done, _image(disk, dice, names_arrive, data_arrives)
        for _ in range(samples):
            yield done, _image(disk, dice, dice.random(), dice.random())


def cached_image(start: Image, operations: Sequence[Operation]) -> Image:
    """What the operating system shows when all of the operations are done: what a killed process leaves behind."""
    disk = _Disk(
        {number: _File(data) for number, data in start.contents.items()}, dict(start.names), set(start.directories)
    )
    for operation in operations:
        disk.apply(operation)
    return _image(disk, random.Random(0), 1.0, 1.0)


def _image(disk: _Disk, dice: random.Random, names_arrive: float, data_arrives: float) -> Image:
    image = Image({}, dict(disk.names), set(disk.directories))
    for pending in disk.pending.values():
        for operation in pending:
            if dice.random() < names_arrive:
                _apply_name(image.names, image.directories, operation)
    for number in set(image.names.values()):
        image.contents[number] = _content(disk.files[number], dice, data_arrives)
    return image


def _content(file: _File, dice: random.Random, arrives: float) -> bytes:
    if not file.pending or arrives == 1.0:
        return _all_of(file)
    sizes = [len(file.synced)]
    for operation in file.pending:
        sizes.append(max(sizes[-1], _end(operation)) if operation.kind != "truncate" else operation.size)
    size = sizes[0] if arrives == 0.0 and dice.random() < 0.5 else dice.choice(sizes)
    content = bytearray(max(sizes))
    content[: len(file.synced)] = file.synced
    fresh = set(range(-(-len(file.synced) // SECTOR_BYTES), -(-len(content) // SECTOR_BYTES)))
    for operation in file.pending:
        if operation.kind == "write":
            fresh -= _write_some(content, operation, dice, arrives)
        elif operation.kind == "truncate" and dice.random() < arrives:
            content[operation.size :] = bytes(len(content) - operation.size)
    if dice.random() < 0.3:
        for sector in fresh:  # a block that the file was given, and that still holds what another had left in it
            start = sector * SECTOR_BYTES
            content[start : start + SECTOR_BYTES] = _GARBAGE[: len(content[start : start + SECTOR_BYTES])]
    return bytes(content[:size])


def _write_some(content: bytearray, operation: Operation, dice: random.Random, arrives: float) -> set[int]:
    """Let some sectors of a write arrive; which ones."""
    arrived = set()
    position = 0
    while position < len(operation.data):
        at = operation.offset + position
        step = min(SECTOR_BYTES - at % SECTOR_BYTES, len(operation.data) - position)
        if dice.random() < arrives:
            content[at : at + step] = operation.data[position : position + step]
            arrived.add(at // SECTOR_BYTES)
        position += step
    return arrived


def _all_of(file: _File) -> bytes:
    if not file.pending:
        return file.synced
    content = bytearray(file.synced)
    for operation in file.pending:
        if operation.kind == "truncate":
            del content[operation.size :]
        content.extend(bytes(max(0, _end(operation) - len(content))))
        if operation.kind == "write":
            content[operation.offset : operation.offset + len(operation.data)] = operation.data
    return bytes(content)


def _end(operation: Operation) -> int:
    return operation.offset + len(operation.data) if operation.kind == "write" else operation.size


def _apply_name(names: dict[str, int], directories: set[str], operation: Operation) -> None:
    if operation.kind == "mkdir":
        directories.add(operation.path)
    elif operation.kind in ("create", "link"):
        names[operation.path] = operation.file
    elif operation.kind == "rename":
        if names.get(operation.path) == operation.file:
            del names[operation.path]
        names[operation.target] = operation.file
    elif names.get(operation.path) == operation.file:
        del names[operation.path]


def _parent(path: str) -> str:
    return path.rpartition("/")[0]
