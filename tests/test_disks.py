"""The model of a power loss, tried on protocols that are known to be broken, and on those that are right.

A protocol is what a program asks of the file system. Each broken one must be caught, and the right one must pass, in
every state that the disk may be left in.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from pathlib import Path

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from tests.counting import count
from trax.testing.contents import NOISE, SECTOR_BYTES, FileContents
from trax.testing.disks import Disk, Outcomes, cached_image, crash_images, lost_by_a_failed_fsync, moments
from trax.testing.recording import Image, Operation, RecordingFileSystem

OLD, NEW = b"old" * 100, b"new" * 100
LIMIT = 100_000


class Protocol:
    """Calls of a file system, written down; ``done`` notes that the program was told that its data are safe."""

    def __init__(self, root: Path, **files: bytes) -> None:
        self.root = root
        for name, data in files.items():
            (root / name).write_bytes(data)
        self.fs = RecordingFileSystem(root)

    def path(self, name: str) -> str:
        return str(self.root / name)

    def write(self, name: str, data: bytes, *, offset: int = 0, sync: bool = True, create: bool = True) -> None:
        fd = self.fs.create(self.path(name)) if create else self.fs.open(self.path(name), write=True)
        try:
            self.fs.pwrite(fd, data, offset)
            if sync:
                self.fs.fsync(fd)
        finally:
            self.fs.close(fd)

    def rename(self, source: str, target: str) -> None:
        self.fs.rename(self.path(source), self.path(target))

    def unlink(self, name: str) -> None:
        self.fs.unlink(self.path(name))

    def mkdir(self, name: str) -> None:
        self.fs.mkdir(self.path(name))

    def sync(self, name: str = "") -> None:
        self.fs.fsync_directory(self.path(name))

    def done(self) -> None:
        self.fs.note("done")


Files = dict[str, bytes]
Judge = Callable[[Files, bool], bool]
"""Whether what is found is right; the second argument says whether the program had been told that it is safe."""


def violations(protocol: Protocol, judge: Judge) -> list[Files]:
    """What the power loss may leave and must not, of all that it may leave."""
    fs, bad, tried = protocol.fs, [], 0
    for done, outcomes in moments(fs.start, fs.operations):
        assert outcomes.count <= LIMIT, "a self-test tries everything"
        acknowledged = any(operation.note == "done" for operation in fs.operations[:done])
        for image in outcomes:
            tried += 1
            files = {path: image.contents[file] for path, file in image.names.items()}
            if not judge(files, acknowledged):
                bad.append(files)
    count("states of the disk in the model's own tests", tried)
    return bad


def replaced(files: Files, acknowledged: bool) -> bool:
    """A file is replaced: the old one or the new one, whole, and the new one once that was acknowledged."""
    return files.get("f") == NEW or (not acknowledged and files.get("f") == OLD)


def replace(protocol: Protocol, *, fsync: bool = True, directory: bool = True) -> None:
    protocol.write("f.new", NEW, sync=fsync)
    protocol.rename("f.new", "f")
    if directory:
        protocol.sync()
    protocol.done()


def test_a_file_that_is_replaced_as_it_should_be_is_always_the_old_or_the_new_one(tmp_path: Path) -> None:
    protocol = Protocol(tmp_path, f=OLD)
    replace(protocol)
    assert violations(protocol, replaced) == []


def test_a_rename_without_an_fsync_of_the_file_is_caught(tmp_path: Path) -> None:
    """The rename carries no data: the name leads to an empty, a short, a torn file or one of zeros."""
    protocol = Protocol(tmp_path, f=OLD)
    replace(protocol, fsync=False)
    found = {files["f"] for files in violations(protocol, replaced)}
    assert {b"", bytes(300), NOISE[:300], NEW[:150] + bytes(150)} <= found


def test_a_rename_without_an_fsync_of_the_directory_is_caught(tmp_path: Path) -> None:
    protocol = Protocol(tmp_path, f=OLD)
    replace(protocol, directory=False)
    assert {files["f"] for files in violations(protocol, replaced)} == {OLD}


def test_an_fsync_of_a_new_file_does_not_make_its_name_durable(tmp_path: Path) -> None:
    protocol = Protocol(tmp_path)
    protocol.write("f", NEW)
    protocol.done()
    assert violations(protocol, lambda files, acknowledged: not acknowledged or files == {"f": NEW}) == [{}]
    protocol.sync()
    assert not violations(protocol, lambda files, acknowledged: files in ({}, {"f": NEW}) or not acknowledged)


def appended(files: Files, acknowledged: bool) -> bool:
    """Lines are appended, and one that is torn is known by its missing end."""
    whole = files["log"].startswith(b"first\nsecond\n")
    return files["log"].startswith(b"first\n") and (whole or not acknowledged)


@pytest.mark.parametrize("sync", [False, True])
def test_an_append_is_safe_only_when_it_is_synced(tmp_path: Path, sync: bool) -> None:
    protocol = Protocol(tmp_path, log=b"first\n")
    protocol.write("log", b"second\n", offset=6, sync=sync, create=False)
    protocol.done()
    bad = {files["log"] for files in violations(protocol, appended)}
    assert bad == set() if sync else {b"first\n", b"first\n" + bytes(7), b"first\nsec" + bytes(4)} <= bad


def in_order(files: Files, acknowledged: bool) -> bool:
    """The index names data: what it names must be there."""
    return files.get("index") != b"data" or files.get("data") == NEW


@pytest.mark.parametrize("right", [False, True])
def test_two_files_in_the_wrong_order_are_caught(tmp_path: Path, right: bool) -> None:
    protocol = Protocol(tmp_path, data=OLD)
    order = [("data", NEW), ("index", b"data")]
    for name, data in order if right else reversed(order):
        protocol.write(name, data, create=name == "index")
    protocol.sync()
    assert bool(violations(protocol, in_order)) is not right


def test_two_files_that_are_both_synced_at_the_end_have_no_order(tmp_path: Path) -> None:
    protocol = Protocol(tmp_path, data=OLD, index=b"none")
    for sync in (False, True):
        protocol.write("data", NEW, create=False, sync=sync)
        protocol.write("index", b"data", create=False, sync=sync)
    assert violations(protocol, in_order)


@pytest.mark.parametrize("right", [False, True])
def test_removing_the_old_file_before_the_rename_is_durable_is_caught(tmp_path: Path, right: bool) -> None:
    """``current`` names the file in use; the other one is removed."""
    protocol = Protocol(tmp_path, one=OLD, current=b"one")
    protocol.write("two", NEW)
    protocol.sync()
    protocol.write("current.new", b"two")
    protocol.rename("current.new", "current")
    if right:
        protocol.sync()
    protocol.unlink("one")
    bad = violations(protocol, lambda files, acknowledged: files["current"].decode() in files)
    assert bool(bad) is not right
    assert right or {"current": b"one", "two": NEW} in bad


@pytest.mark.parametrize("right", [False, True])
def test_a_rename_into_another_directory_needs_that_one_synced_first(tmp_path: Path, right: bool) -> None:
    """Either directory may forget its half: the file is under both names, or under none."""
    protocol = Protocol(tmp_path)
    protocol.mkdir("a")
    protocol.mkdir("b")
    protocol.sync()
    protocol.write("a/f", NEW)
    protocol.sync("a")
    protocol.fs.note("begins")
    begins = len(protocol.fs.operations)
    protocol.rename("a/f", "b/f")
    for name in "ba" if right else "ab":
        protocol.sync(name)
    found = set()
    for done, image in crash_images(protocol.fs.start, protocol.fs.operations, random.Random(1), 0, limit=LIMIT):
        if done >= begins:
            found.add(frozenset(image.names))
    both, neither = frozenset({"a/f", "b/f"}), frozenset[str]()
    assert both in found and neither in found, "while neither is synced"
    after_first = Disk(protocol.fs.start)
    for operation in protocol.fs.operations[:-1]:
        after_first.apply(operation)
    lost = any(not image.names for image in after_first.outcomes())
    assert lost is not right, "the directory that it goes to must be synced first, or it may be lost"


def test_what_lies_in_a_renamed_directory_goes_with_it_or_stays(tmp_path: Path) -> None:
    protocol = Protocol(tmp_path)
    protocol.mkdir("a")
    protocol.sync()
    protocol.write("a/f", NEW)
    protocol.sync("a")
    protocol.rename("a", "b")
    protocol.write("b/g", OLD)
    protocol.sync("b")
    disk = Disk(protocol.fs.start)
    for operation in protocol.fs.operations:
        disk.apply(operation)
    assert disk.cached().names.keys() == {"b/f", "b/g"}
    assert {frozenset(image.names) for image in disk.outcomes()} == {
        frozenset({"a/f", "a/g"}),
        frozenset({"b/f", "b/g"}),
    }


def test_a_directory_without_a_name_takes_with_it_what_lies_in_it(tmp_path: Path) -> None:
    protocol = Protocol(tmp_path)
    protocol.mkdir("a")
    protocol.write("a/f", NEW)
    protocol.sync("a")
    assert {frozenset(image.names) for image in outcomes_of(protocol)} == {frozenset(), frozenset({"a/f"})}
    protocol.sync()
    (image,) = outcomes_of(protocol)
    assert image.names.keys() == {"a/f"}


def outcomes_of(protocol: Protocol) -> Outcomes:
    *_, (_, outcomes) = moments(protocol.fs.start, protocol.fs.operations)
    return outcomes


def contents_of(file: FileContents) -> set[bytes]:
    every = list(file.possible())
    assert len(every) <= file.possible().count
    return set(every)


def test_synced_bytes_beside_a_write_are_never_damaged() -> None:
    file = FileContents(b"s" * 700)
    file.write(b"w" * 200, 600)
    for content in contents_of(file):
        assert content[:600] == b"s" * 600
        assert set(content[600:700]) <= set(b"sw")


def test_a_size_comes_without_its_data_and_data_without_their_size() -> None:
    file = FileContents()
    file.write(b"w" * 1100, 0)
    found = contents_of(file)
    assert {len(content) for content in found} == {0, 512, 1024, 1100}
    assert {bytes(1100), b"w" * 512, b"w" * 512 + bytes(512) + b"w" * 76, NOISE + b"w" * 512 + bytes(76)} <= found


def test_an_older_write_may_be_lost_under_a_newer_one() -> None:
    file = FileContents(bytes(2048))
    file.write(b"1" * 2048, 0)
    file.write(b"2" * 512, 512)
    found = contents_of(file)
    assert bytes(512) + b"2" * 512 + bytes(1024) in found
    assert b"1" * 2048 in found and bytes(2048) in found


def test_within_one_sector_too_an_older_write_may_be_lost_beside_a_newer_one() -> None:
    file = FileContents(bytes(512))
    for offset, data in [(0, b"1" * 30), (30, b"2" * 100), (130, b"3" * 10)]:
        file.write(data, offset)
    found = {content[:140] for content in contents_of(file)}
    assert bytes(30) + b"2" * 100 + b"3" * 10 in found and bytes(130) + b"3" * 10 in found
    assert b"1" * 15 + bytes(125) in found, "and a write may be torn"


def test_room_that_was_made_reads_as_zeros_once_it_is_synced() -> None:
    file = FileContents(b"s" * 100)
    file.allocate(2048)
    assert contents_of(file) == {
        b"s" * 100,
        b"s" * 100 + bytes(1948),
        (b"s" * 100).ljust(512, b"\0") + NOISE * 3,
    }
    file.sync()
    file.write(b"w" * 512, 512)
    prefix = (b"s" * 100).ljust(512, b"\0")
    halves = {b"w" * 256 + bytes(256), bytes(256) + b"w" * 256}
    assert contents_of(file) == {prefix + sector + bytes(1024) for sector in {b"w" * 512, bytes(512), *halves}}


def test_what_was_cut_off_may_come_back_when_the_file_grows_again() -> None:
    file = FileContents(b"o" * 1500)
    file.truncate(100)
    file.write(b"w" * 1000, 100)
    found = contents_of(file)
    assert {len(content) for content in found} == {1500, 100, 512, 1024, 1100}
    assert b"o" * 1100 in found, "neither the cut nor the write has arrived, but the size has"
    assert b"o" * 100 + bytes(412) + b"w" * 512 + bytes(76) in found
    assert b"o" * 100 + b"w" * 1000 in found and b"o" * 1500 in found
    assert b"o" * 512 + NOISE + NOISE[:476] in found
    file.sync()
    assert contents_of(file) == {b"o" * 100 + b"w" * 1000}


def test_a_cut_alone_changes_nothing_before_it_and_brings_no_garbage() -> None:
    file = FileContents(b"o" * 600 + bytes(1000))
    file.truncate(600)
    assert contents_of(file) <= {b"o" * 600 + bytes(1000), b"o" * 600}


def test_blocks_are_given_to_new_files_with_what_removed_files_left_in_them(tmp_path: Path) -> None:
    protocol = Protocol(tmp_path, a=OLD)
    protocol.unlink("a")
    protocol.write("b", NEW, sync=False)
    assert OLD in {image.contents[image.names["b"]] for image in outcomes_of(protocol) if "b" in image.names}


def test_of_a_settled_path_nothing_is_lost(tmp_path: Path) -> None:
    protocol = Protocol(tmp_path)
    protocol.write("a", NEW, sync=False)
    protocol.write("b", NEW, sync=False)
    *_, (_, outcomes) = moments(protocol.fs.start, protocol.fs.operations, settled={"a"})
    assert {image.contents[image.names["a"]] for image in outcomes} == {NEW}
    assert len({image.contents[image.names["b"]] for image in outcomes if "b" in image.names}) > 3


def test_what_a_failed_fsync_has_lost_no_later_one_brings_back(tmp_path: Path) -> None:
    protocol = Protocol(tmp_path, f=OLD)
    protocol.write("f", NEW, create=False, sync=False)
    protocol.write("g", NEW)
    seen = set()
    for number in range(40):
        operations = list(protocol.fs.operations)
        for file, directory in ((0, ""), (-1, "")):
            lost, _ = lost_by_a_failed_fsync(protocol.fs.start, operations, random.Random(number), file, directory)
            operations.append(lost)
        operations += [Operation("fsync", file=0), Operation("fsync", file=1), Operation("fsync_directory", path="")]
        *_, (_, outcomes) = moments(protocol.fs.start, operations)
        (image,) = outcomes
        seen.add((image.contents[0] == NEW, image.contents[0] == OLD, "g" in image.names))
    assert {(False, True, False), (True, False, True)} <= seen and len(seen) > 3


def test_a_directory_that_was_removed_may_come_back(tmp_path: Path) -> None:
    protocol = Protocol(tmp_path)
    protocol.mkdir("a")
    protocol.sync()
    protocol.fs.operations.append(Operation("rmdir", path="a"))
    assert {frozenset(image.directories) for image in outcomes_of(protocol)} == {frozenset(), frozenset({"a"})}


def test_two_names_of_one_file_are_laid_out_as_one_file(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    protocol = Protocol(tmp_path / "run", a=OLD)
    protocol.fs.link(protocol.path("a"), protocol.path("b"))
    (tmp_path / "crash").mkdir()
    cached_image(protocol.fs.start, protocol.fs.operations).lay_out(tmp_path / "crash")
    assert (tmp_path / "crash" / "a").samefile(tmp_path / "crash" / "b")
    again = RecordingFileSystem(tmp_path / "crash")
    assert len(again.start.contents) == 1, "it is one file for the next recording too"


actions = st.lists(
    st.one_of(
        st.tuples(st.just("write"), st.sampled_from("abc"), st.integers(0, 1500), st.integers(1, 900)),
        st.tuples(st.just("truncate"), st.sampled_from("abc"), st.integers(0, 1500)),
        st.tuples(st.just("allocate"), st.sampled_from("abc"), st.integers(1, 1500)),
        st.tuples(st.just("fsync"), st.sampled_from("abc")),
        st.tuples(st.just("unlink"), st.sampled_from("abc")),
        st.tuples(st.just("rename"), st.sampled_from("abc"), st.sampled_from("abc")),
        st.tuples(st.just("link"), st.sampled_from("abc"), st.sampled_from("abc")),
        st.tuples(st.just("sync")),
    ),
    max_size=12,
)


def perform(protocol: Protocol, action: tuple, number: int) -> None:  # type: ignore[type-arg]
    kind, *arguments = action
    if kind == "sync":
        return protocol.sync()
    name = arguments[0]
    exists = os.path.exists(protocol.path(name))
    if kind == "write":
        return protocol.write(
            name, bytes([number + 1]) * arguments[2], offset=arguments[1], sync=False, create=not exists
        )
    if not exists:
        return None
    if kind == "unlink":
        return protocol.unlink(name)
    if kind == "rename":
        return protocol.rename(name, arguments[1])
    if kind == "link":
        if not os.path.exists(protocol.path(arguments[1])):
            protocol.fs.link(protocol.path(name), protocol.path(arguments[1]))
        return None
    fd = protocol.fs.open(protocol.path(name), write=True)
    try:
        if kind == "truncate":
            protocol.fs.truncate(fd, arguments[1])
        elif kind == "allocate":
            protocol.fs.allocate(fd, 0, arguments[1])
        else:
            protocol.fs.fsync(fd)
    finally:
        protocol.fs.close(fd)


@settings(max_examples=60, derandomize=True, deadline=None)
@given(actions=actions)
def test_everything_that_arrives_is_what_the_system_shows_and_what_is_synced_stays(
    tmp_path_factory: pytest.TempPathFactory,
    actions: list,  # type: ignore[type-arg]
) -> None:
    root = tmp_path_factory.mktemp("disk")
    protocol = Protocol(root, a=OLD)
    for number, action in enumerate(actions):
        perform(protocol, action, number)
    shown = {entry.name: entry.read_bytes() for entry in root.iterdir()}
    cached = cached_image(protocol.fs.start, protocol.fs.operations)
    assert {path: cached.contents[file] for path, file in cached.names.items()} == shown
    outcomes = outcomes_of(protocol)
    newest = outcomes.choose(lambda kind, count: 0)
    assert newest.key() == cached.key()
    keys = {image.key() for image in outcomes} if outcomes.count <= 3000 else None
    for image in [newest, *outcomes.extremes(), *(outcomes.sample(random.Random(n)) for n in range(5))]:
        assert keys is None or image.key() in keys, "what is chosen is among all that there is"
    for name in shown:
        fd = protocol.fs.open(protocol.path(name))
        protocol.fs.fsync(fd)
        protocol.fs.close(fd)
    protocol.sync()
    (image,) = outcomes_of(protocol)
    assert {path: image.contents[file] for path, file in image.names.items()} == shown


def test_every_image_is_different_and_their_number_is_known_before(tmp_path: Path) -> None:
    protocol = Protocol(tmp_path, a=OLD)
    protocol.write("a", b"x", create=False, sync=False)
    protocol.write("b", b"y" * (SECTOR_BYTES + 1), sync=False)
    protocol.unlink("a")
    outcomes = outcomes_of(protocol)
    images: list[Image] = list(outcomes)
    assert len({image.key() for image in images}) == len(images) <= outcomes.count
    # "a" is there, with the byte or without, or is not; "b" is not there, or has one of its contents.
    b = len({image.contents[image.names["b"]] for image in images if "b" in image.names})
    assert len(images) == (2 + 1) * (1 + b)
