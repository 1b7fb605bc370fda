"""Take away one safeguard of the code at a time, and see which test notices: ``python tools/mutants.py [WORD …]``.

Each fsync, each fsync of a directory, each checksum, each comparison of a chain, a salt, an epoch or an owner, and the
order of steps that depend on them. A mutant that no test notices is a missing test, or a superfluous safeguard. With
words, only the mutants whose description has one of them. The tests that are likely to notice run first, then the rest.

Prints what was taken away and the name of the test that noticed. Ends with status 1 if a mutant survived or did not
fit the code.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
LOCAL = "trax/storage/local/"

# What is run in one go, as pytest takes it.
CRASH = "tests/test_crash.py -k every_state"
CORRUPTION = "tests/test_corruption.py"
FAULTS = "tests/test_faults.py"
LOCK = "tests/test_lock.py"
PITFALLS = "tests/test_pitfalls.py"
REPAIR = "tests/test_repair.py"
SAFEGUARDS = "tests/test_safeguards.py"
CHECKS = "tests/test_checks.py"
READER = "tests/test_reader.py"
LIVE = "tests/test_live_copy.py"
CLI = "tests/test_cli.py"
STORE = "tests/test_store.py tests/test_bad_input.py tests/test_golden.py"
AFTER_A_KILL = "tests/test_crash.py -k after_a_kill"
MACHINES = "tests/test_crash_machine.py tests/test_state_machine.py"
REST = (
    SAFEGUARDS,
    CHECKS,
    READER,
    LOCK,
    STORE,
    CRASH,
    PITFALLS,
    CORRUPTION,
    REPAIR,
    FAULTS,
    CLI,
    LIVE,
    AFTER_A_KILL,
    MACHINES,
)


class Mutant(NamedTuple):
    """In ``file``, ``old`` becomes ``new``; ``first`` are the tests that are likely to notice.

    ``also`` are further changes of the same file, where one alone would be no safeguard less.
    """

    what: str
    file: str
    old: str
    new: str
    first: tuple[str, ...]
    also: tuple[tuple[str, str], ...] = ()


MUTANTS = [
    # Fsyncs of files: without them a name leads to a file whose contents are not there.
    Mutant("no fsync of a segment's header", LOCAL + "segment.py", "fs.fsync(fd)  #", "pass  #", (CRASH,)),
    Mutant("no fsync of records", LOCAL + "segment.py", "self.fs.fdatasync(self.fd)", "pass", (CRASH,)),
    Mutant("no fsync in the storage's sync", LOCAL + "directory.py", "            self._writer.sync()\n        self._commit_point.check_owner()", "            pass\n        self._commit_point.check_owner()", (CRASH,)),
    Mutant("no fsync of a mark", LOCAL + "directory.py", "self._writer.sync()  # makes durable: the mark, which", "pass  # the mark, which", (SAFEGUARDS,)),
    Mutant("no fsync of the mark before sealing", LOCAL + "directory.py", "writer.sync()  # makes durable: the mark behind", "pass  # the mark behind", (CRASH,)),
    Mutant("no fsync of the closing mark", LOCAL + "directory.py", "writer.sync()  # makes durable: the mark, which lets", "pass  # the mark, which lets", (SAFEGUARDS,)),
    Mutant("no fsync of what is written ahead", LOCAL + "directory.py", "writer.sync()  # makes durable: what becomes", "pass  # what becomes", (CRASH,)),
    Mutant("no fsync of copied survivors", LOCAL + "directory.py", "copy.sync()", "pass", (CRASH,)),
    Mutant("no fsync of a kept snapshot", LOCAL + "directory.py", "self._fs.fsync(fd)", "pass", (CRASH,)),
    Mutant("no fsync of the new snapshot", LOCAL + "commit_point.py", "self._fs.fsync(fd)", "pass", (CRASH,)),
    Mutant("no fsync of a blob", LOCAL + "blob.py", "fs.fsync(fd)", "pass", (CRASH,)),
    Mutant("no fsync of rewritten records", LOCAL + "opening.py", "writer.sync()  # makes durable: the records", "pass  # the records", (CRASH,)),
    Mutant("no fsync of the first segment's mark", LOCAL + "creation.py", "writer.sync()", "pass", (SAFEGUARDS,)),
    Mutant("no fsync of a copied file", LOCAL + "copying.py", "fs.fsync(copy)", "pass", (CRASH,)),
    Mutant("no fsync of the owner file", LOCAL + "lock.py", "self._fs.fsync(fd)", "pass", (SAFEGUARDS,)),
    Mutant("no fsync of the copies that a repair keeps", "trax/repair.py", "self._fs.fsync(fd)", "pass", (REPAIR,)),
    Mutant("no fsync of the log that a repair puts together", "trax/repair.py", "writer.sync()  # makes durable: the records", "pass  # the records", (REPAIR,)),
    Mutant("no fsync of the mark behind a repair", "trax/repair.py", "writer.sync()  # makes durable: the mark", "pass  # the mark", (REPAIR,)),
    Mutant("no fsync of imported records", "trax/interchange.py", "storage.sync()", "pass", (CRASH,)),
    Mutant("fsync does nothing", LOCAL + "fs.py", "os.fsync(fd)", "pass", (SAFEGUARDS,)),
    Mutant("fdatasync does nothing", LOCAL + "fs.py", "os.fdatasync(fd)", "pass", (SAFEGUARDS,)),
    # Fsyncs of directories: without them a name is not there.
    Mutant("no fsync of the directory after the rename", LOCAL + "commit_point.py", "self._fs.fsync_directory(self._layout.path)", "pass", (CRASH,)),
    Mutant("no fsync of the directory before a publish", LOCAL + "directory.py", "self._fs.fsync_directory(self._layout.path)", "pass", (CRASH,)),
    Mutant("no fsync of the blobs' directory", LOCAL + "directory.py", "self._fs.fsync_directory(self._layout.blobs)", "pass", (CRASH,)),
    Mutant("no fsync of the kept snapshots' directory", LOCAL + "directory.py", "self._fs.fsync_directory(self._layout.kept)", "pass", (CRASH,)),
    Mutant("no fsync of the directory of the rewritten segment", LOCAL + "opening.py", "fs.fsync_directory(layout.path)", "pass", (CRASH,)),
    Mutant("no fsync of new directories' names", LOCAL + "creation.py", "fs.fsync_directory(Layout(path).parent)", "pass", (PITFALLS,)),
    Mutant("no fsync of a directory that was there", LOCAL + "creation.py", "    fs.fsync_directory(layout.parent)", "    pass", (CRASH,)),
    Mutant("no fsync of the first segment's name", LOCAL + "creation.py", "fs.fsync_directory(layout.path)", "pass", (CRASH,)),
    Mutant("no fsync of a copy's names", LOCAL + "copying.py", "fs.fsync_directory(directory)", "pass", (CRASH,)),
    Mutant("no fsync of directories that a repair makes", "trax/repair.py", "self._fs.fsync_directory(self.path)  # makes durable: their", "pass  # their", (REPAIR,)),
    Mutant("no fsync of the names under removed/", "trax/repair.py", "self._fs.fsync_directory(directory)", "pass", (REPAIR,)),
    Mutant("no fsync of the name of removed/", "trax/repair.py", "self._fs.fsync_directory(self.path)  # makes durable: the name of", "pass  # the name of", (REPAIR,)),
    Mutant("no fsync of the name of a repair's directory", "trax/repair.py", "self._fs.fsync_directory(self._layout.removed)", "pass", (REPAIR,)),
    Mutant("no fsync of the name of a repair's segment", "trax/repair.py", "self._fs.fsync_directory(self.path)  # makes durable: the segment's", "pass  # the segment's", (REPAIR,)),
    Mutant("no fsync of an imported store's name", "trax/interchange.py", "fs.fsync_directory(layout.parent)", "pass", (CRASH,)),
    Mutant("no fsync behind an unlock", "trax/unlock.py", "self._fs.fsync_directory(self.store)", "pass", (SAFEGUARDS,)),
    Mutant("an fsync of a directory does nothing", LOCAL + "fs.py", "            self.fsync(fd)\n        finally", "            pass\n        finally", (SAFEGUARDS,)),
    # What an fsync proves, and when it is asked for.
    Mutant("synced moves past what was synced", LOCAL + "segment.py", "self.synced = max(self.synced, offset)", "self.synced = self.tail.offset + 100", (CRASH,)),
    Mutant("synced is where the tail is after the sync", LOCAL + "segment.py", "        offset = self.tail.offset\n        self.fs", "        self.fs", (CHECKS,), (("self.synced = max(self.synced, offset)", "self.synced = self.tail.offset"),)),
    Mutant("log() does not sync", "trax/commit.py", "                        self._bring(sync=self._always)", "                        self._bring(sync=False)", (CRASH,)),
    Mutant("sync() does not sync", "trax/commit.py", "        self._raise(self._bring(sync=True))", "        self._raise(self._bring(sync=False))", (CRASH,)),
    Mutant("the log is not synced before a checkpoint", "trax/commit.py", "self._bring(sync=True, below=first)", "self._bring(sync=False, below=first)", (SAFEGUARDS,)),
    Mutant("a failed sync is forgotten", "trax/commit.py", "        except TraxError as error:\n            self.finish(error)\n            self.check()", "        except TraxError as error:\n            raise", (PITFALLS,)),
    Mutant("a failed commit is forgotten", "trax/commit.py", "            except HandleError as error:\n                self.finish(error)\n                raise\n            self._durable", "            except HandleError:\n                raise\n            self._durable", (PITFALLS,)),
    Mutant("a failed sync before sealing leaves the handle usable", LOCAL + "directory.py", "            raise FinishedError(text, path=writer.path, reason=error.reason) from error", "            raise", (SAFEGUARDS,)),
    Mutant("nothing is rewritten at opening", LOCAL + "opening.py", "            if reason is None and walk.closed:", "            if reason is None:", (CRASH,)),
    Mutant("what is torn is gone on in", LOCAL + "opening.py", "            if reason is None and walk.closed:", "            if walk.closed:", (CRASH,)),
    Mutant("a mark without the writer's end counts as its end", LOCAL + "walk.py", "self.closed = header.kind == MARK and bool(header.flags & WRITER_CLOSED)", "self.closed = header.kind == MARK", (LOCK,)),
    Mutant("a frame proves what lies behind it", LOCAL + "walk.py", "min(header.synced, self.tail.offset)", "header.synced", (CORRUPTION,)),
    Mutant("the mark is not written again", LOCAL + "opening.py", "        writer.cut_back()\n        writer.mark(self._sequence)\n", "        writer.cut_back()\n", (CORRUPTION,)),
    Mutant("a mark is written though not all is synced", LOCAL + "directory.py", "            if writer.provable:\n                writer.mark(self._state.snapshot.sequence, closing=True)", "            if True:\n                writer.mark(self._state.snapshot.sequence, closing=True)", (FAULTS,)),
    Mutant("a mark is written behind a segment that is not synced", LOCAL + "directory.py", "        if new_writer.provable:", "        if True:", (CRASH,)),
    Mutant("files are removed before the commit", LOCAL + "directory.py", "        self._commit_point.replace(new.snapshot)\n", "        for path in no_longer_named(self._layout, old, new):\n            self._remove(path)\n        self._commit_point.replace(new.snapshot)\n", (CRASH,)),
    Mutant("an opening sweeps before its snapshot is durable", LOCAL + "opening.py", "        commit_point.replace(snapshot)\n        manner", "        sweep(fs, layout, snapshot, {one.number for one in snapshot.blobs()})\n        commit_point.replace(snapshot)\n        manner", (PITFALLS,)),
    Mutant("a new segment is removed though it is named", LOCAL + "directory.py", "            if not self._commit_point.unsettled and number not in segment_numbers_of(self._state.snapshot):", "            if not self._commit_point.unsettled:", (FAULTS,)),
    Mutant("a new segment is removed though it may be named", LOCAL + "directory.py", "            if not self._commit_point.unsettled and number not in segment_numbers_of(self._state.snapshot):", "            if number not in segment_numbers_of(self._state.snapshot):", (PITFALLS, FAULTS,)),
    Mutant("discard removes what was published", LOCAL + "directory.py", "            if reference not in named and not self._closed and not self._commit_point.unsettled:", "            if not self._closed and not self._commit_point.unsettled:", (STORE,)),
    Mutant("discard removes what may be published", LOCAL + "directory.py", "            if reference not in named and not self._closed and not self._commit_point.unsettled:", "            if reference not in named and not self._closed:", (PITFALLS, FAULTS,)),
    Mutant("an unsettled commit point is ignored", LOCAL + "commit_point.py", "        if self.unsettled:\n", "        if False:\n", (SAFEGUARDS,)),
    Mutant("a failed write is not cut back", LOCAL + "directory.py", "            except OSError:\n                writer.cut_back()\n                raise", "            except OSError:\n                raise", (FAULTS,)),
    # Checksums.
    Mutant("a segment header's checksum is not checked", LOCAL + "framing.py", "    if version <= FORMAT_VERSION and crc32(data[: _SEGMENT.size]) != checksum:", "    if False:", (CHECKS,)),
    Mutant("a frame header's checksum is not checked", LOCAL + "framing.py", "    if crc32(covered) != checksum:", "    if False:", (CORRUPTION,)),
    Mutant("a frame header's checksum does not cover the salt", LOCAL + "framing.py", "        salt, offset, kind,", "        bytes(8), offset, kind,", (CORRUPTION,), (("    covered = salt + offset", "    covered = bytes(8) + offset"),)),
    Mutant("a frame header's checksum does not cover the offset", LOCAL + "framing.py", "        salt, offset, kind,", "        salt, 0, kind,", (CORRUPTION,), (("    covered = salt + offset.to_bytes(8, \"little\") + covered", "    covered = salt + bytes(8) + covered"),)),
    Mutant("a payload's checksum is not checked", LOCAL + "framing.py", " and crc32(payload) == header.payload_checksum", "", (CORRUPTION,)),
    Mutant("a snapshot header's checksum is not checked", LOCAL + "snapshot.py", "    if crc32(data[: _HEADER.size]) != _CHECKSUM.unpack_from(data, _HEADER.size)[0]:", "    if False:", (CHECKS,)),
    Mutant("a snapshot's checksum is not checked", LOCAL + "snapshot.py", "    if len(body) != body_bytes or crc32(body) != body_checksum:", "    if False:", (CORRUPTION,)),
    Mutant("a blob's chunks are not checked", LOCAL + "blob.py", "        if have != len(target) or crc32(target) != checksum:", "        if have != len(target):", (CORRUPTION,)),
    Mutant("a mapped blob's chunks are not checked", LOCAL + "blob.py", "            if crc32(view[place * _CHUNK_BYTES : (place + 1) * _CHUNK_BYTES]) != checksum:", "            if False:", (CORRUPTION,)),
    Mutant("a blob's seal is not checked", LOCAL + "blob.py", "or crc32(footer[: _FOOTER.size], crc32(header)) != reference.checksum:", "or False:", (CORRUPTION,)),
    Mutant("a blob's head and index are not checked", LOCAL + "blob.py", "        if crc32(data) != checksum:", "        if False:", (CORRUPTION,)),
    # Chains, ends, and what belongs together.
    Mutant("the chain is not checked", LOCAL + "walk.py", "        elif header.chain != self.tail.chain:", "        elif False:", (SAFEGUARDS,)),
    Mutant("a frame's sequence is not checked", LOCAL + "walk.py", "            header.kind != MARK and not self.tail.sequence < header.first_sequence <= MAX_SEQUENCE - header.record_count", "            False", (CORRUPTION,)),
    Mutant("zeros are taken for the end", LOCAL + "walk.py", "            if data.strip(b\"\\0\") or not self._only_zeros(offset):", "            if data.strip(b\"\\0\"):", (CORRUPTION,)),
    Mutant("every bad frame is a torn tail", LOCAL + "walk.py", "    claim = find_later_claim(walk)", "    claim = None", (CORRUPTION,)),
    Mutant("every later frame is a claim", LOCAL + "walk.py", "header.synced > walk.tail.offset:", "True:", (CRASH,)),
    Mutant("a sealed segment's end is not checked", LOCAL + "view.py", "    if walk.tail.offset != offset or end not in (None, walk.tail):", "    if False:", (CORRUPTION,)),
    Mutant("a sealed segment's chain is not checked", LOCAL + "view.py", "    if walk.tail.offset != offset or end not in (None, walk.tail):", "    if walk.tail.offset != offset:", (CORRUPTION,)),
    Mutant("a reader does not look twice", LOCAL + "view.py", "            if walk.tail == failed:", "            if True:", (READER,)),
    Mutant("a reader looks on where it was stuck", LOCAL + "view.py", "segment.reference.salt, segment.start, end)", "segment.reference.salt, failed or segment.start, end)", (READER,)),
    Mutant("a segment's salt is not compared", LOCAL + "walk.py", "    elif (header.store_id, header.number, header.salt) != (store_id, number, salt):", "    elif (header.store_id, header.number) != (store_id, number):", (CHECKS,)),
    Mutant("nothing of a segment is compared", LOCAL + "walk.py", "    elif (header.store_id, header.number, header.salt) != (store_id, number, salt):", "    elif False:", (CORRUPTION,)),
    Mutant("a blob of another value is accepted", LOCAL + "blob.py", "        if _HEADER.unpack_from(header) != (_MAGIC, FORMAT_VERSION, 0, store_id, reference.number):", "        if False:", (CHECKS,)),
    Mutant("another kept snapshot is accepted", LOCAL + "view.py", "    if (kept.store_id, kept.generation) != (store_id, reference.generation):", "    if False:", (CORRUPTION,)),
    Mutant("a reader does not look again when a file has gone", LOCAL + "view.py", "            if state()[0].generation == snapshot.generation:", "            if True:", (LIVE,)),
    Mutant("verify() does not look again when the store has moved on", "trax/inspection.py", "    return bool(problems) and _load(fs, layout).generation != snapshot.generation", "    return False", (CLI,)),
    Mutant("a repair takes a kept snapshot for another", "trax/repair_plan.py", "            if kept.generation == generation:", "            if True:", (REPAIR,)),
    Mutant("a repair reads a segment that was put back", "trax/salvage.py", "    if found.header.salt != reference.salt:", "    if False:", (REPAIR,)),
    Mutant("a repair reads a segment of another store", "trax/salvage.py", "            if header.number != number or store_id not in (None, header.store_id):", "            if False:", (REPAIR,)),
    Mutant("a used first segment is taken for an empty one", LOCAL + "creation.py", "        if number > 1 or _was_used(fs, layout.segment(number)):", "        if number > 1:", (STORE,)),
    Mutant("a mark in the first segment is no use of it", LOCAL + "creation.py", "    return mark is not None and mark.epoch > 0", "    return False", (CHECKS,)),
    # Epochs, and who the owner is.
    Mutant("the epoch is not raised", LOCAL + "opening.py", "epoch=old.epoch + 1", "epoch=old.epoch", (LOCK,)),
    Mutant("a log of a later epoch is accepted", LOCAL + "opening.py", "walk.latest_epoch >= self._manner.epoch or ", "", (CORRUPTION,)),
    Mutant("a mark of a later snapshot is accepted", LOCAL + "opening.py", " or walk.published > self._sequence:", ":", (CORRUPTION,)),
    Mutant("a put back snapshot is not looked for", LOCAL + "opening.py", "        check_is_latest(fs, layout, old)", "        pass", (CORRUPTION,)),
    Mutant("a segment of a later snapshot is not looked for", LOCAL + "opening.py", "                raise _put_back(layout.snapshot, layout.segment(number))", "                pass", (CORRUPTION,)),
    Mutant("a later kept snapshot is not looked for", LOCAL + "opening.py", "            if generation > snapshot.generation:", "            if False:", (CORRUPTION,)),
    Mutant("a mark alone is no use of a segment", LOCAL + "opening.py", "        return walk.proven > start.offset or walk.marks > 0", "        return walk.proven > start.offset", (CORRUPTION,)),
    Mutant("a segment of another store is taken for its own", LOCAL + "opening.py", "        if header is None or header.store_id != snapshot.store_id:", "        if header is None:", (CHECKS,)),
    Mutant("verify() accepts a log of a later epoch", "trax/inspection.py", "        if log.latest_epoch > snapshot.epoch or log", "        if log", (CLI,)),
    Mutant("verify() accepts a mark of a later snapshot", "trax/inspection.py", " or log.published > snapshot.sequence:", ":", (CLI,)),
    Mutant("the owner is not checked after a sync", LOCAL + "directory.py", "            self._writer.sync()\n        self._commit_point.check_owner()", "            self._writer.sync()", (PITFALLS,)),
    Mutant("the owner is not checked before a publish", LOCAL + "commit_point.py", "                if self._fd is not None:\n                    self.check_owner()\n", "", (PITFALLS,)),
    Mutant("the owner is not checked after a publish", LOCAL + "commit_point.py", "            self._fs.fsync_directory(self._layout.path)\n            self.check_owner()", "            self._fs.fsync_directory(self._layout.path)", (CHECKS,)),
    Mutant("the owner is not checked before an opening sweeps", LOCAL + "opening.py", "            commit_point.unsettled = False\n            commit_point.check_owner()", "            commit_point.unsettled = False", (LOCK,)),
    Mutant("the owner is not checked before the last mark is replaced", LOCAL + "opening.py", "        self._check_owner()\n", "", (LOCK,)),
    Mutant("the owner is not checked before a file is removed", LOCAL + "directory.py", "            if not self._closed and self._commit_point.is_ours():", "            if not self._closed:", (CHECKS,)),
    Mutant("the owner is not checked when it lets go", LOCAL + "directory.py", "            if not self._closed and not self._commit_point.unsettled and self._commit_point.is_ours():", "            if not self._closed and not self._commit_point.unsettled:", (LOCK,)),
    Mutant("where locks are real the snapshot's file is not compared", LOCAL + "commit_point.py", "                return self._fs.identity(self._layout.snapshot) == self._fs.identity_of(self._fd)", "                return True", (PITFALLS,)),
    Mutant("where there are no locks the epoch is not compared", LOCAL + "commit_point.py", "            return load_snapshot(self._fs, self._layout.snapshot).epoch == self.snapshot.epoch", "            return True", (PITFALLS,)),
    Mutant("a lock file that was replaced is not noticed", LOCAL + "lock.py", "                if held and self._fs.identity_of(fd) != self._fs.identity(self._layout.lock):", "                if False:", (CHECKS,)),
    Mutant("an owner file is taken over from anybody", LOCAL + "lock.py", "        if not is_gone(found):", "        if False:", (LOCK,)),
    Mutant("an owner file of another is taken over unseen", LOCAL + "lock.py", "            if moved != found:", "            if False:", (CHECKS,)),
    Mutant("an owner file of another is removed at the end", LOCAL + "lock.py", "        elif not self.real and read_owner_file(self._fs, self._layout) == self._owner:", "        elif not self.real:", (LOCK,)),
    Mutant("unlock takes the file of a writer that came meanwhile", "trax/unlock.py", "            if read_owner(self._fs, aside) != self._owner:", "            if False:", (CLI,)),
    # The order of calls.
    Mutant("an older call may overwrite a newer one", "trax/publish.py", "            if self._newest.get(name, 0) > call:\n                continue\n", "", (PITFALLS,)),
    Mutant("a checkpoint takes back what another contains", "trax/publish.py", "            if present is not None and cut < present.cut:", "            if False:", (PITFALLS,)),
    Mutant("what was logged before a deletion comes back", "trax/publish.py", "                cut = max(cut, present.cut)  #", "                pass  #", (STORE,)),
]  # fmt: skip


def apply(mutant: Mutant, text: str) -> str | None:
    """The file's text without the safeguard; None when the mutant does not fit it."""
    for old, new in ((mutant.old, mutant.new), *mutant.also):
        if text.count(old) != 1:
            return None
        text = text.replace(old, new)
    return text


def try_mutant(mutant: Mutant) -> str:
    """The first test that notices, or "" when none does."""
    with tempfile.TemporaryDirectory() as directory:
        for part in ("trax", "tests"):
            shutil.copytree(ROOT / part, Path(directory, part), ignore=shutil.ignore_patterns("__pycache__"))
        file = Path(directory, mutant.file)
        text = apply(mutant, file.read_text())
        if text is None:
            return "DOES NOT FIT THE CODE"
        file.write_text(text)
        for tests in dict.fromkeys((*mutant.first, *REST)):
            if failed := run(tests, directory):
                return failed
    return ""


def run(tests: str, directory: str) -> str:
    """The first of the tests that fails there."""
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-x",
        "-q",
        "-p",
        "no:cacheprovider",
        "--show-capture=no",
        *tests.split(),
    ]
    # Little of the search is enough: without a safeguard most states are wrong.
    effort = {"TRAX_CRASH_LIMIT": "30", "TRAX_CRASH_DEEP": "0"}
    environment = {**effort, **os.environ, "PYTHONPATH": directory}
    try:
        done = subprocess.run(
            command, cwd=directory, env=environment, capture_output=True, text=True, check=False, timeout=1800
        )
    except subprocess.TimeoutExpired:
        return f"{tests} does not end"
    failed = [line for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    if done.returncode and not failed:
        return f"pytest ends with {done.returncode} at {tests}"
    return failed[0].split(" - ")[0].split("::", 1)[-1] if failed else ""


def main(words: list[str]) -> int:
    chosen = [mutant for mutant in MUTANTS if not words or any(word in mutant.what for word in words)]
    bad = []
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for mutant, killer in zip(chosen, pool.map(try_mutant, chosen), strict=True):
            print(f"{mutant.what:60} {killer or 'SURVIVED'}", flush=True)
            if not killer or killer.startswith("DOES NOT FIT"):
                bad.append(mutant.what)
    print(f"{len(chosen)} mutants, {len(chosen) - len(bad)} noticed", *bad, sep="\n  ")
    return 1 if bad or not chosen else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
