"""Take away one safeguard of the code at a time, and see which test notices: ``python tools/mutants.py [WORD …]``.

A mutant that no test notices is a missing test, or a superfluous safeguard. With words, only the mutants whose
description has one of them. Prints a table; the exit code is the number of survivors.
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
CRASH = "tests/test_crash.py"
CORRUPTION = "tests/test_corruption.py"
PITFALLS = "tests/test_pitfalls.py"


class Mutant(NamedTuple):
    what: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...] = (CORRUPTION, PITFALLS, CRASH)


MUTANTS = [
    Mutant("no fsync of a segment's header", LOCAL + "segment.py", "        fs.fsync(fd)  # makes durable: the header", "        # makes durable: the header"),
    Mutant("no fsync of records", LOCAL + "segment.py", "        self.fs.fdatasync(self.fd)", "        pass"),
    Mutant("synced moves past what was synced", LOCAL + "segment.py", "self.synced = max(self.synced, offset)", "self.synced = self.tail.offset + 100"),
    Mutant("no fsync of the new snapshot", LOCAL + "commit_point.py", "                self._fs.fsync(fd)  # makes", "                # makes"),
    Mutant("no fsync of the directory after the rename", LOCAL + "commit_point.py", "            self._fs.fsync_directory(self._layout.path)\n            self.check_owner()", "            self.check_owner()"),
    Mutant("no fsync of a blob", LOCAL + "blob.py", "    fs.fsync(fd)  # makes", "    # makes"),
    Mutant("no fsync of the blobs' directory", LOCAL + "directory.py", "                self._fs.fsync_directory(self._layout.blobs)\n", "                pass\n"),
    Mutant("no fsync of the directory before a publish", LOCAL + "directory.py", "            self._fs.fsync_directory(self._layout.path)\n        self._commit_point.replace(new", "            pass\n        self._commit_point.replace(new"),
    Mutant("no fsync of a kept snapshot", LOCAL + "directory.py", "                self._fs.fsync(fd)  # makes durable: the older", "                # makes durable: the older"),
    Mutant("no fsync of the kept snapshots' directory", LOCAL + "directory.py", "            self._fs.fsync_directory(self._layout.kept)  #", "            #"),
    Mutant("no fsync of what is written ahead", LOCAL + "directory.py", "            writer.sync()  # makes durable: what becomes", "            # makes durable: what becomes"),
    Mutant("no fsync of copied survivors", LOCAL + "directory.py", "                copy.sync()  #", "                #"),
    Mutant("no fsync of rewritten records", LOCAL + "opening.py", "            writer.sync()  # makes durable: the records", "            # makes durable: the records"),
    Mutant("no fsync of the directory of the rewritten segment", LOCAL + "opening.py", "                    fs.fsync_directory(layout.path)  # makes durable: the new segment's name", "                    pass"),
    Mutant("the mark is not written again", LOCAL + "opening.py", "        writer.cut_back()\n        writer.mark(self._snapshot.sequence)\n", "        writer.cut_back()\n", (CORRUPTION,)),
    Mutant("no fsync of new directories' names", LOCAL + "creation.py", "        fs.fsync_directory(Layout(path).parent)\n    fs", "        pass\n    fs"),
    Mutant("no fsync of the first segment's name", LOCAL + "creation.py", "        fs.fsync_directory(layout.path)  # makes durable: the segment's name", "        pass"),
    Mutant("nothing is rewritten at opening", LOCAL + "opening.py", "            if reason is None and walk.closed:", "            if reason is None:"),
    Mutant("the log is not synced before a checkpoint", "trax/commit.py", "            self._raise(self._bring(sync=True, below=first))", "            self._raise(self._bring(sync=False, below=first))"),
    Mutant("files are removed before the commit", LOCAL + "directory.py", "        self._commit_point.replace(new.snapshot)\n", "        for path in no_longer_named(self._layout, old, new):\n            self._remove(path)\n        self._commit_point.replace(new.snapshot)\n"),
    Mutant("a frame's header checksum is not checked", LOCAL + "framing.py", "    if crc32(covered) != checksum:\n        return None\n    return FrameHeader", "    return FrameHeader"),
    Mutant("the salt is not covered", LOCAL + "framing.py", "    covered = salt + offset.to_bytes(8, \"little\") + covered\n    if crc32(covered) != checksum:", "    covered = salt + offset.to_bytes(8, \"little\") + covered\n    if False:"),
    Mutant("a payload's checksum is not checked", LOCAL + "framing.py", "len(payload) == header.payload_bytes and crc32(payload) == header.payload_checksum", "len(payload) == header.payload_bytes"),
    Mutant("the chain is not checked", LOCAL + "walk.py", "        elif header.chain != self.tail.chain:", "        elif False:"),
    Mutant("zeros are taken for the end", LOCAL + "walk.py", "            if data.strip(b\"\\0\") or not self._only_zeros(offset):", "            if data.strip(b\"\\0\"):"),
    Mutant("every bad frame is a torn tail", LOCAL + "walk.py", "    elif (claim := find_later_claim(walk)) is None:", "    elif (claim := 0) == 0:"),
    Mutant("what a snapshot says of the active segment is not checked", LOCAL + "walk.py", "    if walk.promised is not None:\n", "    if False:\n", (CORRUPTION,)),
    Mutant("a version is looked at before the checksum", LOCAL + "snapshot.py", "    if crc32(data[: _HEADER.size]) !=", "    check_version(version, path)\n    if crc32(data[: _HEADER.size]) !=", (CORRUPTION, "tests/test_golden.py")),
    Mutant("a sealed segment's end is not checked", LOCAL + "view.py", "    if walk.tail.offset != offset or end not in (None, walk.tail):", "    if False:"),
    Mutant("a snapshot's checksum is not checked", LOCAL + "snapshot.py", "    if len(body) != body_bytes or crc32(body) != body_checksum:", "    if False:"),
    Mutant("a blob's chunks are not checked", LOCAL + "blob.py", "        if have != len(target) or crc32(target) != checksum:", "        if have != len(target):"),
    Mutant("a put back snapshot is not looked for", LOCAL + "opening.py", "    check_is_latest(fs, layout, old)\n", ""),
    Mutant("a log that is newer than the snapshot is accepted", LOCAL + "opening.py", "        if walk.latest_epoch > epoch or", "        if False and"),
    Mutant("a mark is sealed without a sync", LOCAL + "directory.py", "        if not writer.empty and writer.synced != writer.tail.offset:", "        if False:"),
    Mutant("a new segment is removed though it is named", LOCAL + "directory.py", "            if not self._commit_point.unsettled and number not in segment_numbers_of(self._state.snapshot):", "            if not self._commit_point.unsettled:", ("tests/test_faults.py",)),
    Mutant("a blob's seal is not checked", LOCAL + "blob.py", "if len(footer) != _FOOTER_BYTES or crc32(footer[: _FOOTER.size], crc32(header)) != reference.checksum:", "if len(footer) != _FOOTER_BYTES:"),
    Mutant("a segment's salt is not compared", LOCAL + "walk.py", "    elif (header.store_id, header.number, header.salt) != (store_id, number, salt):", "    elif False:"),
    Mutant("the owner is not checked after a sync", LOCAL + "directory.py", "            self._writer.sync()\n        self._commit_point.check_owner()", "            self._writer.sync()"),
    Mutant("the owner is not checked before a publish", LOCAL + "commit_point.py", "                if self._fd is not None:\n                    self.check_owner()\n", ""),
    Mutant("an unsettled commit point is ignored", LOCAL + "commit_point.py", "        if self.unsettled:\n", "        if False:\n"),
    Mutant("a failed sync is forgotten", "trax/commit.py", "        except TraxError as error:\n            self.finish(error)\n            self.check()", "        except TraxError as error:\n            raise"),
    Mutant("an older call may overwrite a newer one", "trax/publish.py", "            if self._newest.get(name, 0) > call:\n                continue\n", ""),
    Mutant("discard removes what was published", LOCAL + "directory.py", "            if reference not in named and not self._closed and not self._commit_point.unsettled:", "            if True:"),
]  # fmt: skip


def try_mutant(mutant: Mutant) -> str:
    """The first test that fails, or "" when none does."""
    with tempfile.TemporaryDirectory() as directory:
        shutil.copytree(ROOT / "trax", Path(directory, "trax"))
        shutil.copytree(ROOT / "tests", Path(directory, "tests"))
        file = Path(directory, mutant.file)
        text = file.read_text()
        if text.count(mutant.old) != 1:
            return f"NOT APPLICABLE: {text.count(mutant.old)} places"
        file.write_text(text.replace(mutant.old, mutant.new))
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *mutant.tests]
        environment = {**os.environ, "PYTHONPATH": directory, "TRAX_CRASH_RUNS": os.environ.get("TRAX_CRASH_RUNS", "6")}
        run = subprocess.run(command, cwd=directory, env=environment, capture_output=True, text=True, check=False)
        failed = [line for line in run.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
        return failed[0].split(" - ")[0].split("::", 1)[-1] if failed else ""


def main(words: list[str]) -> int:
    chosen = [mutant for mutant in MUTANTS if not words or any(word in mutant.what for word in words)]
    survivors = 0
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for mutant, killer in zip(chosen, pool.map(try_mutant, chosen), strict=True):
            survivors += not killer or killer.startswith("NOT")
            print(f"{mutant.what:55} {killer or 'SURVIVED'}", flush=True)
    print(f"{len(chosen)} mutants, {survivors} survived")
    return min(survivors, 100)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
