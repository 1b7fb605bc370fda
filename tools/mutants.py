"""Take away one safeguard of the code at a time, and see which test notices: ``python tools/mutants.py [WORD …]``.

Each fsync, each fsync of a directory, each checksum, each comparison of a chain, a salt, an epoch or an owner, and the
order of steps that depend on them. A mutant that no test notices is a missing test, or a superfluous safeguard. With
words, only the mutants whose description has one of them; with ``--new``, only those that no test has noticed so far.

The test that noticed last time runs first; ``tools/mutants.json`` remembers it. Then those that are likely to notice, then
the rest. In the end all tests that have noticed something run on the code as it is, where they must pass.

Prints what was taken away and the name of the test that noticed. Ends with status 1 if a mutant survived or did not
fit the code.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
MEMORY = ROOT / "tools" / "mutants.json"
_PATIENCE_S = 200  # with one test
_BEGUN = re.compile(r"(tests/\S+?::[^\[\s]+(?:\[.*?\])?)(?:\s|$)")
LOCAL = "trax/storage/local/"

# What is run in one go, as pytest takes it.
CRASH = "tests/test_crash.py -k every_state"
CORRUPTION = "tests/test_corruption.py"
FAULTS = "tests/test_faults.py"
LOCK = "tests/test_lock.py"
PITFALLS = "tests/test_pitfalls.py"
FUZZ = "tests/test_fuzz.py"
REPAIR = "tests/test_repair.py"
SAFEGUARDS = "tests/test_safeguards.py"
CHECKS = "tests/test_checks.py"
READER = "tests/test_reader.py"
LIVE = "tests/test_live_copy.py"
DIFFERENTIAL = "tests/test_differential.py"
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
    "tests/test_fsync_failures.py",
    "tests/test_interrupts.py",
    CLI,
    LIVE,
    DIFFERENTIAL,
    AFTER_A_KILL,
    MACHINES,
)

CONSUMER = "trax/consumer/"
UNISTREAM = "trax/compat/unistream/"
CONSUMERS = tuple(
    f"tests/consumer/test_{name}.py"
    for name in ("pitfalls", "consumer", "storages", "threads", "signals", "unistream", "crash")
)
EVENTS = ("tests/test_events.py",)
TAKE_OVER = ("tests/test_compat_checkpoint_logger.py",)
POSITIONS = ("tests/test_positions.py",)
JOBS = ("tests/test_job.py", "tests/test_job_ending.py")


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
    Mutant("no fsync of a new or a kept snapshot", LOCAL + "fs.py", "        fs.fsync(fd)  # makes durable: the file's", "        pass  # the file's", (CRASH,)),
    Mutant("no fsync of a blob", LOCAL + "blob.py", "fs.fsync(fd)", "pass", (CRASH,)),
    Mutant("no fsync of rewritten records", LOCAL + "opening.py", "writer.sync()  # makes durable: the records", "pass  # the records", (CRASH,)),
    Mutant("no fsync of the first segment's mark", LOCAL + "creation.py", "writer.sync()", "pass", (SAFEGUARDS,)),
    Mutant("no fsync of a copied file", LOCAL + "copying.py", "fs.fsync(copy)", "pass", (CRASH,)),
    Mutant("no fsync of the owner file", LOCAL + "lock.py", "self._fs.fsync(fd)", "pass", (SAFEGUARDS,)),
    Mutant("no fsync of the copies that a repair keeps", "trax/repair.py", "self._fs.fsync(fd)", "pass", (REPAIR,)),
    Mutant("no fsync of the log that a repair puts together", "trax/repair.py", "writer.sync()  # makes durable: the records", "pass  # the records", (REPAIR,)),
    Mutant("no fsync of the mark behind a repair", "trax/repair.py", "writer.sync()  # makes durable: the mark", "pass  # the mark", (REPAIR,)),
    Mutant("fsync does nothing", LOCAL + "fs.py", "os.fsync(fd)", "pass", (SAFEGUARDS,)),
    Mutant("fdatasync does nothing", LOCAL + "fs.py", "os.fdatasync(fd)", "pass", (SAFEGUARDS,)),
    # Fsyncs of directories: without them a name is not there.
    Mutant("no fsync of the directory after the rename", LOCAL + "commit_point.py", "self._fs.fsync_directory(self._layout.path)", "pass", (CRASH,)),
    Mutant("no fsync of the directory before a publish", LOCAL + "directory.py", "self._fs.fsync_directory(self._layout.path)", "pass", (CRASH,)),
    Mutant("no fsync of the blobs' directory", LOCAL + "directory.py", "self._fs.fsync_directory(self._layout.blobs)", "pass", (CRASH,)),
    Mutant("no fsync of the kept snapshots' directory", LOCAL + "directory.py", "self._fs.fsync_directory(self._layout.kept)", "pass", (CRASH,)),
    Mutant("no fsync of the directory of the rewritten segment", LOCAL + "opening.py", "fs.fsync_directory(layout.path)", "pass", (CRASH,)),
    Mutant("no fsync of new directories' names", LOCAL + "fs.py", "        # crash may have come between another attempt's mkdir and its fsync.\n        fs.fsync_directory(os.path.dirname(path))", "        pass", (PITFALLS, CRASH)),
    Mutant("no fsync of a directory that was there", LOCAL + "fs.py", "may just have made it.\n        fs.fsync_directory(os.path.dirname(path))", "may just have made it.\n        pass", ("tests/test_fsyncs.py", PITFALLS)),
    Mutant("no fsync of the first segment's name", LOCAL + "creation.py", "fs.fsync_directory(layout.path)", "pass", (CRASH,)),
    Mutant("no fsync of a copy's names", LOCAL + "copying.py", "fs.fsync_directory(directory)", "pass", (CRASH,)),
    Mutant("no fsync of the names under removed/", "trax/repair.py", "self._fs.fsync_directory(directory)", "pass", (REPAIR,)),
    Mutant("no fsync of the name of removed/", "trax/repair.py", "self._fs.fsync_directory(self.path)  # makes durable: the name of", "pass  # the name of", (REPAIR,)),
    Mutant("no fsync of the name of a repair's directory", "trax/repair.py", "self._fs.fsync_directory(self._layout.removed)", "pass", (REPAIR,)),
    Mutant("no fsync of the name of a repair's segment", "trax/repair.py", "self._fs.fsync_directory(self.path)  # makes durable: the segment's", "pass  # the segment's", (REPAIR,)),
    Mutant("no fsync of an imported store's name", "trax/interchange.py", "fs.fsync_directory(layout.parent)", "pass", (CRASH,)),
    Mutant("no fsync behind an unlock", "trax/unlock.py", "self._fs.fsync_directory(self.store)", "pass", (SAFEGUARDS,)),
    Mutant("an fsync of a directory does nothing", LOCAL + "fs.py", "            self.fsync(fd)\n        finally", "            pass\n        finally", (SAFEGUARDS,)),
    # What an fsync proves, and when it is asked for.
    Mutant("synced moves past what was synced", LOCAL + "segment.py", "self.synced = max(self.synced, offset)", "self.synced = self.tail.offset + 100", (CRASH,)),
    Mutant("synced is where the tail is after the sync", LOCAL + "segment.py", "        offset = self.tail.offset\n        try:", "        try:", (SAFEGUARDS,), (("self.synced = max(self.synced, offset)", "self.synced = self.tail.offset"),)),
    Mutant("log() does not sync", "trax/commit.py", "                        self._bring(sync=self._always)", "                        self._bring(sync=False)", (SAFEGUARDS,)),
    Mutant("a call without company does not sync", "trax/commit.py", "                    self._sync_appended()\n                return first", "                    pass\n                return first", (SAFEGUARDS,)),
    Mutant("an interrupted leader is waited for for ever", "trax/commit.py", "            heir = next((pending for pending in self._queue if pending.turn is not None), None)", "            heir = next(iter(self._queue), None)", (SAFEGUARDS,)),
    Mutant("who runs out of patience does not pass on", "trax/commit.py", "                leads = True\n", "                pass\n", (SAFEGUARDS,)),
    Mutant("sync() does not sync", "trax/commit.py", "        self._raise(self._bring(sync=True))", "        self._raise(self._bring(sync=False))", (CRASH,)),
    Mutant("the log is not synced before a checkpoint", "trax/commit.py", "self._bring(sync=True, below=first)", "self._bring(sync=False, below=first)", (SAFEGUARDS,)),
    Mutant("a failed sync is forgotten", "trax/commit.py", "        except TraxError as error:\n            self.finish(error)\n            self.check()", "        except TraxError as error:\n            raise", (PITFALLS,)),
    Mutant("a failed commit is forgotten", "trax/commit.py", "            except HandleError as error:\n                self.finish(error)\n                raise\n            self._durable", "            except HandleError:\n                raise\n            self._durable", (PITFALLS,)),
    Mutant("a failed sync before sealing leaves the handle usable", LOCAL + "directory.py", "            raise FinishedError(text, path=writer.path, reason=error.reason) from error", "            raise", (SAFEGUARDS,)),
    Mutant("nothing is rewritten at opening", LOCAL + "opening.py", "            if reason is None and walk.closed:", "            if reason is None:", (CRASH,)),
    Mutant("what is torn is gone on in", LOCAL + "opening.py", "            if reason is None and walk.closed:", "            if walk.closed:", (CRASH,)),
    Mutant("a mark without the writer's end counts as its end", LOCAL + "walk.py", "self.closed = header.kind == MARK and bool(header.flags & WRITER_CLOSED)", "self.closed = header.kind == MARK", (LOCK,)),
    Mutant("a frame proves what lies behind it", LOCAL + "walk.py", "min(header.synced, self.tail.offset)", "header.synced", (CHECKS,)),
    Mutant("the mark is not written again", LOCAL + "opening.py", "        writer.cut_back()\n        writer.mark(self._snapshot.sequence)\n", "        writer.cut_back()\n", (CORRUPTION,)),
    Mutant("a mark is written though not all is synced", LOCAL + "directory.py", "            if writer.provable:\n                writer.mark(self._state.snapshot.sequence, closing=True)", "            if True:\n                writer.mark(self._state.snapshot.sequence, closing=True)", (FAULTS,)),
    Mutant("files are removed before the commit", LOCAL + "directory.py", "        self._commit_point.replace(new.snapshot)\n", "        for path in no_longer_named(self._layout, old, new):\n            self._remove(path)\n        self._commit_point.replace(new.snapshot)\n", (CRASH,)),
    Mutant("an opening sweeps before its snapshot is durable", LOCAL + "opening.py", "        commit_point.replace(snapshot)\n        manner", "        sweep(fs, layout, snapshot, {one.number for one in snapshot.blob_files})\n        commit_point.replace(snapshot)\n        manner", (PITFALLS,)),
    Mutant("a new segment is removed though it is named", LOCAL + "directory.py", "            if not self._commit_point.unsettled and number not in segment_numbers_of(self._state.snapshot):", "            if not self._commit_point.unsettled:", (FAULTS,)),
    Mutant("a new segment is removed though it may be named", LOCAL + "directory.py", "            if not self._commit_point.unsettled and number not in segment_numbers_of(self._state.snapshot):", "            if number not in segment_numbers_of(self._state.snapshot):", (PITFALLS, FAULTS,)),
    Mutant("discard removes what may be published", LOCAL + "directory.py", "        if not self._closed and not self._commit_point.unsettled:\n            self._remove_unnamed()", "        if not self._closed:\n            self._remove_unnamed()", (PITFALLS, FAULTS,)),
    Mutant("an unsettled commit point is ignored", LOCAL + "commit_point.py", "        if self.unsettled:\n", "        if False:\n", (SAFEGUARDS,)),
    Mutant("a failed write is not cut back", LOCAL + "directory.py", "                self._take_back(writer, error)\n", "", (FAULTS,)),
    # Checksums.
    Mutant("a segment header's checksum is not checked", LOCAL + "framing.py", " or crc.crc32(data[: _SEGMENT.size]) != checksum:", ":", (CORRUPTION,)),
    Mutant("a frame header's checksum is not checked", LOCAL + "framing.py", "    if crc.crc32(covered) != checksum:", "    if False:", (CORRUPTION,)),
    Mutant("a frame header's checksum does not cover the salt", LOCAL + "framing.py", "        salt, offset, kind,", "        bytes(8), offset, kind,", (CORRUPTION,), (("    covered = salt + offset", "    covered = bytes(8) + offset"),)),
    Mutant("a frame header's checksum does not cover the offset", LOCAL + "framing.py", "        salt, offset, kind,", "        salt, 0, kind,", (CORRUPTION,), (("    covered = salt + offset.to_bytes(8, \"little\") + covered", "    covered = salt + bytes(8) + covered"),)),
    Mutant("a payload's checksum is not checked", LOCAL + "framing.py", " and crc.crc32(payload) == header.payload_checksum", "", (CORRUPTION,)),
    Mutant("a snapshot header's checksum is not checked", LOCAL + "snapshot.py", "    if crc.crc32(data[: _HEADER.size]) != _CHECKSUM.unpack_from(data, _HEADER.size)[0]:", "    if False:", (CORRUPTION,)),
    Mutant("a snapshot's checksum is not checked", LOCAL + "snapshot.py", "    if len(body) != body_bytes or crc.crc32(body) != body_checksum:", "    if False:", (CORRUPTION,)),
    Mutant("a blob's chunks are not checked", LOCAL + "blob_reader.py", "        if have != len(target) or crc.crc32(target) != chunk.checksum:", "        if have != len(target):", (CORRUPTION,)),
    Mutant("a mapped blob's chunks are not checked", LOCAL + "blob_reader.py", "            if crc.crc32(view[start : start + blob.CHUNK_BYTES]) != entry.checksums[place]:", "            if False:", (CHECKS,)),
    Mutant("a blob's seal is not checked", LOCAL + "blob_reader.py", " or seal != reference.checksum:", ":", (CORRUPTION,)),
    Mutant("a blob's head and index are not checked", LOCAL + "blob_reader.py", "        if crc.crc32(data) != checksum:", "        if False:", (CORRUPTION,)),
    Mutant("a base's seal is not checked", LOCAL + "blob_reader.py", "        for base in bases:\n            self._sealed_footer(base)\n", "", (CORRUPTION,)),
    # Differential checkpoints.
    Mutant("every chunk passes for unchanged", LOCAL + "differential.py", " and stored == given", "", (DIFFERENTIAL,), ((" and crc.crc32(stored) == chunk.checksum:", ":"),)),
    Mutant("damage that equals the value is leant on", LOCAL + "differential.py", " and crc.crc32(stored) == chunk.checksum:", ":", (DIFFERENTIAL,)),
    Mutant("no fsync of a base that this handle has not written", LOCAL + "blob_reader.py", "self._fs.fsync(file.fd)  # makes durable: a base", "pass  # a base", (DIFFERENTIAL,)),
    Mutant("a base whose fsync has failed once is leant on", LOCAL + "directory.py", "        return all(self._on_disk[base.number] for base in foreign)", "        return True", (DIFFERENTIAL,)),
    Mutant("a chunk that can't be read passes for unchanged", LOCAL + "blob_reader.py", "        except OSError:\n            return False", "        except OSError:\n            return True", (DIFFERENTIAL,)),
    Mutant("what can't be leant on is an error", LOCAL + "directory.py", "        except TraxError:\n            return None  # what can't", "        except ZeroDivisionError:\n            return None  # what can't", (DIFFERENTIAL,)),
    Mutant("a value's files may take any room", LOCAL + "differential.py", " or stored_bytes > _MOST_TIMES_THE_VALUE * encoded.nbytes:", ":", (DIFFERENTIAL,)),
    Mutant("a value may lie in any number of files", LOCAL + "differential.py", "    if not 0 < len(bases) <= MAX_BASES or", "    if not bases or", (DIFFERENTIAL,)),
    Mutant("a value leans on the one before whatever has changed", LOCAL + "differential.py", "        if may_change_bytes < 0:", "        if False:", (DIFFERENTIAL,)),
    Mutant("what a value in flight leans on is removed", LOCAL + "directory.py", "            if path not in leant_on:\n                self._remove(path)", "            if True:\n                self._remove(path)", (DIFFERENTIAL,)),
    Mutant("what is named again is removed", LOCAL + "directory.py", "[path for path in self._unnamed if path not in named]", "[*self._unnamed]", (DIFFERENTIAL,)),
    Mutant("what a discarded value leant on stays", LOCAL + "directory.py", "                self._leant_on.pop(reference.number, None)\n", "", (DIFFERENTIAL,)),
    Mutant("what a failed value leant on stays", LOCAL + "directory.py", "                self._leant_on.pop(number, None)\n", "                pass\n", (DIFFERENTIAL,)),
    Mutant("bases are not files of the store", LOCAL + "snapshot.py", "for blob in self.blobs for file in blob.files)", "for blob in self.blobs for file in blob.files[:1])", (DIFFERENTIAL,)),
    Mutant("any list of bases will do", LOCAL + "snapshot.py", "    if not 0 < len(earlier) <= MAX_BASES or numbers != sorted({*numbers}):", "    if False:", (DIFFERENTIAL,)),
    Mutant("a file may be a base of two names", LOCAL + "snapshot.py", "[file.number for blob in blobs for file in blob.files]", "[blob.number for blob in blobs]", (DIFFERENTIAL,)),
    Mutant("bases need not be those of the snapshot", LOCAL + "blob_reader.py", "        if {file for file, _, _ in spans} != {*range(1, len(self._files))}:", "        if False:", (DIFFERENTIAL,)),
    Mutant("a run may lie anywhere", LOCAL + "blob_reader.py", "            if start < blob.HEADER_BYTES or stop > self._files", "            if False and stop > self._files", (DIFFERENTIAL,)),
    Mutant("runs may have any number of chunks", LOCAL + "blob_reader.py", "    if first != count or not runs:", "    if False:", (DIFFERENTIAL,)),
    Mutant("a run may have no chunk", LOCAL + "blob_reader.py", "        if type(chunks) is not int or chunks < 1:", "        if type(chunks) is not int:", (DIFFERENTIAL,)),
    Mutant("a value in several files is mapped", LOCAL + "blob_reader.py", "        if len(entry.runs) > 1 or entry.runs[0].file:", "        if False:", (DIFFERENTIAL,)),
    # Chains, ends, and what belongs together.
    Mutant("the chain is not checked", LOCAL + "walk.py", "        elif header.chain != self.tail.chain:", "        elif False:", (SAFEGUARDS,)),
    Mutant("a frame's sequence is not checked", LOCAL + "walk.py", "            header.kind != MARK and not self.tail.sequence < header.first_sequence <= MAX_SEQUENCE - header.record_count", "            False", (CHECKS,)),
    Mutant("zeros are taken for the end", LOCAL + "walk.py", "            if data.strip(b\"\\0\") or not self._only_zeros(offset):", "            if data.strip(b\"\\0\"):", (CORRUPTION,)),
    Mutant("every bad frame is a torn tail", LOCAL + "walk.py", "(claim := find_later_claim(walk)) is None", "(claim := None) is None", (CORRUPTION,)),
    Mutant("what the snapshot has proven is not looked for", LOCAL + "walk.py", "    if walk.promised is not None:", "    if False:", (CORRUPTION,)),
    Mutant("every later frame is a claim", LOCAL + "walk.py", "header.synced > walk.tail.offset:", "True:", (CRASH,)),
    Mutant("a sealed segment's end is not checked", LOCAL + "view.py", "    if walk.tail.offset != offset or end not in (None, walk.tail):", "    if False:", (CORRUPTION,)),
    Mutant("a sealed segment's chain is not checked", LOCAL + "view.py", "    if walk.tail.offset != offset or end not in (None, walk.tail):", "    if walk.tail.offset != offset:", (CHECKS,)),
    Mutant("a reader does not look twice", LOCAL + "view.py", "            if walk.tail == failed:", "            if True:", (READER,)),
    Mutant("a reader looks on where it was stuck", LOCAL + "view.py", "reference.salt, segment.start, end, reference.proven)", "reference.salt, failed or segment.start, end, reference.proven)", (READER,)),
    Mutant("a segment's salt is not compared", LOCAL + "walk.py", "    elif (header.store_id, header.number, header.salt) != (store_id, number, salt):", "    elif (header.store_id, header.number) != (store_id, number):", (CORRUPTION,)),
    Mutant("nothing of a segment is compared", LOCAL + "walk.py", "    elif (header.store_id, header.number, header.salt) != (store_id, number, salt):", "    elif False:", (CORRUPTION,)),
    Mutant("a blob of another value is accepted", LOCAL + "blob_reader.py", " or owner != [self._store_id, reference.number]:", ":", (CORRUPTION,)),
    Mutant("another kept snapshot is accepted", LOCAL + "view.py", "    if (kept.store_id, kept.generation) != (store_id, reference.generation):", "    if False:", (CORRUPTION,)),
    Mutant("a reader does not look again when a file has gone", LOCAL + "view.py", "            if state()[0].generation == snapshot.generation:", "            if True:", (LIVE,)),
    Mutant("verify() does not look again when the store has moved on", "trax/inspection.py", "    return bool(problems) and _load(fs, layout).generation != snapshot.generation", "    return False", (CHECKS,)),
    Mutant("a repair takes a kept snapshot for another", "trax/repair_plan.py", "            if kept.generation == generation:", "            if True:", (REPAIR,)),
    Mutant("a repair reads a segment that was put back", "trax/salvage.py", "    if found.header.salt != reference.salt:", "    if False:", (REPAIR,)),
    Mutant("a repair reads a segment of another store", "trax/salvage.py", "            if header.number != number or store_id not in (None, header.store_id):", "            if False:", (REPAIR,)),
    Mutant("a used first segment is taken for an empty one", LOCAL + "creation.py", "        if number > 1 or _was_used(fs, layout.segment(number)):", "        if number > 1:", (STORE,)),
    Mutant("a mark in the first segment is no use of it", LOCAL + "creation.py", "    return mark is not None and mark.epoch > 0", "    return False", (CHECKS,)),
    # Epochs, and who the owner is.
    Mutant("the epoch is not raised", LOCAL + "opening.py", "epoch=old.epoch + 1", "epoch=old.epoch", (LOCK,)),
    Mutant("a log of a later epoch is accepted", LOCAL + "opening.py", "walk.latest_epoch > epoch or ", "", (CORRUPTION,)),
    Mutant("a mark of a later snapshot is accepted", LOCAL + "opening.py", " or walk.published > self._snapshot.sequence:", ":", (CORRUPTION,)),
    Mutant("a put back snapshot is not looked for", LOCAL + "opening.py", "    check_is_latest(fs, layout, old)", "    pass", (CORRUPTION,)),
    Mutant("a segment of a later snapshot is not looked for", LOCAL + "opening.py", "                raise _put_back(layout.snapshot, layout.segment(number))", "                pass", (CORRUPTION,)),
    Mutant("a later kept snapshot is not looked for", LOCAL + "opening.py", "            if generation > snapshot.generation:", "            if False:", (CORRUPTION,)),
    Mutant("a mark alone is no use of a segment", LOCAL + "opening.py", "        return walk.proven > start.offset or walk.marks > 0", "        return walk.proven > start.offset", (CORRUPTION,)),
    Mutant("a segment of another store is taken for its own", LOCAL + "opening.py", "        if header is None or header.store_id != snapshot.store_id:", "        if header is None:", (CHECKS,)),
    Mutant("verify() accepts a log of a later epoch", "trax/inspection.py", "        if log.latest_epoch > snapshot.epoch or log", "        if log", (CHECKS,)),
    Mutant("verify() accepts a mark of a later snapshot", "trax/inspection.py", " or log.published > snapshot.sequence:", ":", (CHECKS,)),
    Mutant("the owner is not checked after a sync", LOCAL + "directory.py", "            self._writer.sync()\n        self._commit_point.check_owner()", "            self._writer.sync()", (PITFALLS,)),
    Mutant("the owner is not checked before a publish", LOCAL + "commit_point.py", "                if self._fd is not None:\n                    self.check_owner()\n", "", (PITFALLS,)),
    Mutant("the owner is not checked after a publish", LOCAL + "commit_point.py", "            self._fs.fsync_directory(self._layout.path)\n            self.check_owner()", "            self._fs.fsync_directory(self._layout.path)", (CHECKS,)),
    Mutant("the owner is not checked before an opening sweeps", LOCAL + "opening.py", "            commit_point.unsettled = False\n            commit_point.check_owner()", "            commit_point.unsettled = False", (LOCK,)),
    Mutant("the owner is not checked before the last mark is replaced", LOCAL + "opening.py", "        commit_point.check_owner()\n        writer", "        writer", (LOCK,)),
    Mutant("the owner is not checked before a file is removed", LOCAL + "directory.py", "            if not self._closed and self._commit_point.is_ours():", "            if not self._closed:", (LOCK,)),
    Mutant("a write does not wait for space that is being freed", LOCAL + "fs.py", "errno.EDQUOT) and wait_for_removals()", "errno.EDQUOT) and False", (STORE,)),
    Mutant("closing does not wait until removed files are freed", LOCAL + "directory.py", "        wait_for_removals()  #", "        pass  #", (STORE,)),
    Mutant("the owner is not checked when it lets go", LOCAL + "directory.py", "            if not self._closed and not self._commit_point.unsettled and self._commit_point.is_ours():", "            if not self._closed and not self._commit_point.unsettled:", (LOCK,)),
    Mutant("where locks are real the snapshot's file is not compared", LOCAL + "commit_point.py", "                return self._fs.identity(self._layout.snapshot) == self._identity", "                return True", (PITFALLS,)),
    Mutant("where there are no locks the epoch is not compared", LOCAL + "commit_point.py", "            return load_snapshot(self._fs, self._layout.snapshot).epoch == self.snapshot.epoch", "            return True", (PITFALLS,)),
    Mutant("a lock file that was replaced is not noticed", LOCAL + "lock.py", "                if held and self._fs.identity_of(fd) != self._fs.identity(self._layout.lock):", "                if False:", (CHECKS,)),
    Mutant("an owner file is taken over from anybody", LOCAL + "lock.py", "        if not is_gone(found):", "        if False:", (LOCK,)),
    Mutant("an owner file of another is taken over unseen", LOCAL + "lock.py", "            if moved != found:", "            if False:", (CHECKS,)),
    Mutant("an owner file outlives the lock that took it", LOCAL + "lock.py", '        if self._fd is None and not self.real and self._owner["pid"] == os.getpid():', "        if False:", (LOCK,)),
    Mutant("a lock is left to whoever has the descriptor too", LOCAL + "lock.py", "                    self._fs.unlock(self._fd)  #", "                    pass  #", (LOCK,)),
    Mutant("a forked child removes the owner file of its parent", LOCAL + "lock.py", ' and self._owner["pid"] == os.getpid():', ":", (LOCK,)),
    Mutant("an owner file is there before it says whose it is", LOCAL + "lock.py", "            self._fs.link(written, self._layout.owner)", "            self._create_owner_file_at_once()", (LOCK,)),
    Mutant("an owner file of another is removed at the end", LOCAL + "lock.py", "        elif not self.real and read_owner_file(self._fs, self._layout) == self._owner:", "        elif not self.real:", (LOCK,)),
    Mutant("unlock takes the file of a writer that came meanwhile", "trax/unlock.py", "            if read_owner(self._fs, aside) != self._owner:", "            if False:", (CLI,)),
    # The order of calls.
    Mutant("a chunk is overwritten while it is written", LOCAL + "blob.py", "range(_AHEAD + 1)", "range(_AHEAD)", (SAFEGUARDS,)),
    Mutant("a chunk that others can change is not copied", LOCAL + "blob.py", "if private and len(pieces) == 1:", "if len(pieces) == 1:", (PITFALLS,)),
    Mutant("a save in the background reads the caller's array", "trax/store.py", "Change(for_background(value), cut)", "Change(value, cut)", (SAFEGUARDS,)),
    Mutant("an older call may overwrite a newer one", "trax/publish.py", "            if self._newest.get(name, 0) > call:\n                continue\n", "", (PITFALLS,)),
    Mutant("a checkpoint takes back what another contains", "trax/publish.py", "            if present is not None and cut < present.cut:", "            if False:", (PITFALLS,)),
    Mutant("what was logged before a deletion comes back", "trax/publish.py", "                cut = max(cut, present.cut)  #", "                pass  #", (STORE,)),
    # The layers.
    Mutant("consumer: attempt is not counted by the claim", CONSUMER + "tracker.py", "status=Status.IN_PROGRESS, attempts=self.attempts + 1, lease=lease, due=None)", "status=Status.IN_PROGRESS, lease=lease, due=None)", CONSUMERS),
    Mutant("consumer: attempts begin anew after a crash", CONSUMER + "tracker.py", "return replace(self, status=status, lease=None, errors=errors)", "return replace(self, status=status, lease=None, errors=errors, attempts=0)", CONSUMERS),
    Mutant("consumer: a crashed attempt stays in progress", CONSUMER + "tracker.py", "status = Status.PENDING if self.status is Status.IN_PROGRESS else self.status", "status = self.status", CONSUMERS),
    Mutant("consumer: no last attempt for what kills the process", CONSUMER + "progress.py", "            return tracker.within(self._max_attempts)", "            return tracker", CONSUMERS),
    Mutant("consumer: no lease is respected", CONSUMER + "progress.py", "gone = self._storage.exclusive or tracker.lease.until <= self._clock.now()", "gone = True", CONSUMERS),
    Mutant("consumer: the lease of a crashed process is respected", CONSUMER + "progress.py", "gone = self._storage.exclusive or tracker.lease.until <= self._clock.now()", "gone = tracker.lease.until <= self._clock.now()", CONSUMERS),
    Mutant("consumer: whoever lost the lease may still say", CONSUMER + "checkpoint.py", "lambda tracker: make(tracker) if tracker.is_held_by(token) else None,", "make,", CONSUMERS),
    Mutant("consumer: status, then records, in two commits", CONSUMER + "local.py", "        self._store.checkpoint({self._status: status, self._records: dict(records)})", "        self._store.checkpoint({self._status: status})\n        self._store.checkpoint({self._records: dict(records)})", CONSUMERS),
    Mutant("consumer: records, then status, in two commits", CONSUMER + "local.py", "        self._store.checkpoint({self._status: status, self._records: dict(records)})", "        self._store.checkpoint({self._records: dict(records)})\n        self._store.checkpoint({self._status: status})", CONSUMERS),
    Mutant("consumer: the effect in a commit of its own", CONSUMER + "local.py", "            self._store.log({**_entries(effect), self._status: tracker.as_plain()})", "            self._store.log({self._status: tracker.as_plain()})\n            _entries(effect) and self._store.log(_entries(effect))", CONSUMERS),
    Mutant("consumer: an effect may replace the status", CONSUMER + "local.py", "{**_entries(effect), self._status: tracker.as_plain()}", "{self._status: tracker.as_plain(), **_entries(effect)}", CONSUMERS),
    Mutant("consumer: trackers of an earlier batch are folded", CONSUMER + "local.py", "plain[\"batch\"] == state[\"batch\"][\"sequence\"]", "True", CONSUMERS),
    Mutant("consumer: a change of what is not stored is taken", CONSUMER + "local.py", "if (tracker.batch, tracker.version) != (self._sequence, stored + 1):", "if False:", CONSUMERS),
    Mutant("consumer: a stream is opened twice", CONSUMER + "local.py", "                if stream in streams:", "                if False:", CONSUMERS),
    Mutant("consumer: an id twice in a batch", CONSUMER + "checkpoint.py", "        if record_id in by_id:", "        if False:", CONSUMERS),
    Mutant("consumer: a batch begins too early", CONSUMER + "checkpoint.py", "            if not self.finished:\n", "            if False:\n", CONSUMERS),
    Mutant("consumer: outcomes that were not saved are forgotten", CONSUMER + "consumer.py", "        self.checkpoint.save_outcomes()\n", "", CONSUMERS),
    Mutant("consumer: a failing save is a failure of the record", CONSUMER + "checkpoint.py", "REFUSED = (UnsupportedValueError, ValueTooLargeError, InvalidArgumentError)", "REFUSED = (Exception,)", CONSUMERS),
    Mutant("consumer: exhausted is the end, delivered or not", CONSUMER + "tracker.py", "            return self.delivered is not None", "            return True", CONSUMERS),
    Mutant("consumer: a delivery is tried once", CONSUMER + "consumer.py", "        except Exception as error:\n            return self._fail(claimed, error)\n        except BaseException:", "        except Exception as error:\n            if claimed.status is Status.EXHAUSTED:\n                return self.checkpoint.deliver(claimed)\n            return self._fail(claimed, error)\n        except BaseException:", CONSUMERS),
    Mutant("consumer: the end of the stream is not remembered", CONSUMER + "checkpoint.py", "return batch is not None and batch.next_pointer is None and self.finished", "return False", CONSUMERS),
    Mutant("consumer: an attempt gets the last one's record", CONSUMER + "checkpoint.py", "            return copy.deepcopy(self._records[record_id])", "            return self._records[record_id]", CONSUMERS),
    Mutant("consumer: the backoff is not waited for", CONSUMER + "progress.py", "ready = tracker.lease is None and (tracker.due is None or tracker.due <= self._clock.now())", "ready = tracker.lease is None", CONSUMERS),
    Mutant("consumer: a retry is looked at at once", CONSUMER + "progress.py", "            self._agenda.add(record_id, tracker.due if tracker.lease is None else tracker.lease.until)", "            self._agenda.add(record_id)", CONSUMERS),
    Mutant("consumer: no order", CONSUMER + "agenda.py", "(self._ordered or due, self._places[record_id], due, record_id)", "(due, self._places[record_id], due, record_id)", CONSUMERS),
    Mutant("consumer: an exhausted record does not stop the order", CONSUMER + "consumer.py", "if self.ordered and tracker.status is Status.EXHAUSTED and tracker.ended:", "if False:", CONSUMERS),
    Mutant("consumer: two workers in one record", CONSUMER + "progress.py", "record_id in self._unfinished and record_id not in self._held and self._ready(record_id)", "record_id in self._unfinished and self._ready(record_id)", CONSUMERS),
    Mutant("consumer: leases are not renewed", CONSUMER + "checkpoint.py", "            self._progress.change(record_id, partial(self._renewed, token))", "            pass", CONSUMERS),
    Mutant("consumer: a lease is for days", CONSUMER + "checkpoint.py", "lease = Lease(holder, token, now, now + timedelta(seconds=self.lease_s))", "lease = Lease(holder, token, now, now + timedelta(self.lease_s))", CONSUMERS),
    Mutant("consumer: texts that no file can hold", CONSUMER + "tracker.py", "text = text.encode(\"utf-8\", \"backslashreplace\").decode()", "pass", CONSUMERS),
    Mutant("consumer: signals do nothing", CONSUMER + "background.py", "            signal.signal(number, handle)", "            pass", CONSUMERS),
    Mutant("consumer: the error of a worker is not raised", CONSUMER + "consumer.py", "            raise failures[0]", "            pass", CONSUMERS),
    Mutant("consumer: unreadable records cost an attempt", CONSUMER + "checkpoint.py", "            self._load_records()  # if they", "            pass  # if they", CONSUMERS),
    Mutant("consumer: a batch runs again after its last success", CONSUMER + "local.py", "        self._learn(batch, trackers)\n        return", "        trackers = {} if len(trackers) == len(batch.record_ids) and all(one.ended for one in trackers.values()) else trackers\n        self._learn(batch, trackers)\n        return", CONSUMERS),
    Mutant("consumer: the configuration is that of an earlier run", CONSUMER + "checkpoint.py", "Progress(self._storage, self.clock, max_attempts)", "Progress(self._storage, self.clock, 5)", CONSUMERS),
    Mutant("consumer: fetch gets the stored pointer itself", CONSUMER + "checkpoint.py", "        return copy.deepcopy(self._initial_pointer if batch is None else batch.next_pointer)", "        return self._initial_pointer if batch is None else batch.next_pointer", CONSUMERS),
    Mutant("consumer: the caller's pointer is kept", CONSUMER + "progress.py", "self.take((copy.deepcopy(batch), {}))", "self.take((batch, {}))", CONSUMERS),
    Mutant("consumer: a forked child waits for the parent's threads", CONSUMER + "progress.py", "        self.monitor = threading.Condition()\n        self._changing.clear()\n", "        pass\n", CONSUMERS),
    Mutant("unistream: what is no checkpoint is taken over", UNISTREAM + "checkpoint.py", "                tracker.check()\n", "                pass\n", CONSUMERS),
    Mutant("unistream: a finished handle is given out again", UNISTREAM + "checkpoint.py", "                home.store.sync()\n", "                pass\n", CONSUMERS),
    Mutant("unistream: a line that is being written is read", UNISTREAM + "consumer.py", "for line in lines if line.endswith(\"\\n\")]", "for line in lines]", CONSUMERS),
    Mutant("unistream: a lock of days is believed", UNISTREAM + "storage.py", "if not saved.more:", "if False:", CONSUMERS),
    Mutant("unistream: the configuration of the file", UNISTREAM + "checkpoint.py", "cls.from_dict({**plain, **configuration})", "cls.from_dict({**configuration, **plain})", CONSUMERS),
    Mutant("unistream: what fails is not taken back", UNISTREAM + "storage.py", "            vars(self._checkpoint).update(before)\n", "", CONSUMERS),
    Mutant("unistream: a batch without its records is skipped", UNISTREAM + "storage.py", "if committed or not self._has_its_records(trackers.values()):", "if committed:", CONSUMERS),
    Mutant('events: a follower repeats what the snapshot holds', 'trax/events.py', '            if event[0] > self.sequence:\n', '            if True:\n', EVENTS),
    Mutant('events: a follower that was overtaken skips the snapshot', 'trax/events.py', '        for event in events:\n', '        for event in []:\n', EVENTS),
    Mutant('events: a snapshot that is replaced meanwhile ends a follower', 'trax/events.py', '        except UnreachableError:\n            return  #', '        except KeyError:\n            return  #', EVENTS),
    Mutant('events: a follower does not say that it was overtaken', 'trax/events.py', '            self.overtaken += 1\n', '            pass\n', EVENTS),
    Mutant('events: a checkpoint covers what threads log meanwhile', 'trax/events.py', '                self._store.checkpoint_at(events[-1][0], {NAME: events})', '                self._store.checkpoint({NAME: events})', EVENTS),
    Mutant('events: the index has the order in which threads return', 'trax/events.py', '            events.sort(key=itemgetter(0))', '            pass', EVENTS),
    Mutant('events: the index forgets what an interrupted call has logged', 'trax/events.py', '            self._unsure = True  #', '            pass  #', EVENTS),
    Mutant("events: the index holds the caller's own objects", 'trax/events.py', 'return value if type(value) is str else self._codec.encode(value, "event")', 'return value', EVENTS),
    Mutant('events: writing to a stream that is not open', 'trax/events.py', '        if not isinstance(stream, str) or stream not in self._streams:', '        if False:', EVENTS),
    Mutant('take over: done before it is', 'trax/events.py', '        with self._store.batch() as batch:\n            batch.checkpoint({NAME: []})\n', '        self._store.checkpoint({NAME: []})\n        with self._store.batch() as batch:\n', TAKE_OVER),
    Mutant('take over: at each opening', 'trax/events.py', '            if self._writable and NAME not in self._store:', '            if self._writable:', TAKE_OVER),
    Mutant('take over: the files in the order of their names', 'trax/compat/checkpoint_logger.py', 'key=lambda match: (match["seconds"], match["key"])', 'key=lambda match: match[0]', TAKE_OVER),
    Mutant('take over: an unreadable line is passed over', 'trax/compat/checkpoint_logger.py', '                raise _unreadable(path, number, error) from error', '                pass', TAKE_OVER),
    Mutant('take over: an unfinished line is not reported', 'trax/compat/checkpoint_logger.py', '                _report(path, len(lines) + 1, len(unfinished))', '                pass', TAKE_OVER),
    Mutant('take over: the time may have any length', 'trax/compat/checkpoint_logger.py', '[1-9][0-9]{9}', '[0-9]+', TAKE_OVER),
    Mutant("take over: an old file may be in the way of a store's", 'trax/compat/checkpoint_logger.py', '                self._check_names()\n\n', '                pass\n\n', TAKE_OVER),
    Mutant('positions: no lock', 'trax/positions/file.py', '        self._lock = WriterLock(self._fs, self._place, words)', '        self._lock = type("Lock", (), {"release": lambda self: None, "abandon": lambda self: None})()', POSITIONS),
    Mutant('positions: one temporary name for everybody', 'trax/positions/file.py', '        self._new = f"{self.path}.new.{os.urandom(4).hex()}"', '        self._new = f"{self.path}.new"', POSITIONS),
    Mutant('positions: temporary files stay', 'trax/positions/file.py', '                if self._unfinished.fullmatch(entry):', '                if False:', POSITIONS),
    Mutant('positions: written in place', 'trax/positions/file.py', '        self._fs.rename(self._new, path)', '        self._fs.close(write_file(self._fs, path, data, FILE_MODE))\n        self._fs.unlink(self._new)', POSITIONS),
    Mutant('positions: no fsync of the file', 'trax/storage/local/fs.py', '        fs.fsync(fd)  # makes', '        # makes', POSITIONS),
    Mutant('positions: no fsync of the directory', 'trax/positions/file.py', '            self._fs.fsync_directory(self._directory)', '            pass', POSITIONS),
    Mutant('positions: no previous generation', 'trax/positions/file.py', '                self._put(self._place.previous, self._data)', '                pass', POSITIONS),
    Mutant('positions: an empty file is a fresh start', 'trax/positions/file.py', '        return _contents(self._fs, self.path)', '        return _contents(self._fs, self.path) or None', POSITIONS),
    Mutant('positions: a file that is gone is a fresh start', 'trax/positions/file.py', '        if kinds[0] == "absent":\n            text', '        if False:\n            text', POSITIONS),
    Mutant('positions: the end is not looked for', 'trax/positions/document.py', '        _check_ends(data)\n', '', POSITIONS),
    Mutant('positions: nanoseconds are lost', 'trax/positions/document.py', 'format_time(state.timestamp, state.nanosecond)', 'format_time(state.timestamp)', POSITIONS),
    Mutant('positions: any field is taken', 'trax/positions/document.py', '    if not required <= fields.keys() <= required | optional:', '    if not required <= fields.keys():', POSITIONS),
    Mutant("positions: the final flush's error is swallowed", 'trax/positions/keeper.py', '        self._thread.join()\n        self._write()\n', '        self._thread.join()\n        try:\n            self._write()\n        except Exception:\n            pass\n', POSITIONS),
    Mutant('positions: no final flush', 'trax/positions/keeper.py', '        self._thread.join()\n        self._write()\n', '        self._thread.join()\n', POSITIONS),
    Mutant('positions: an update after the end is dropped', 'trax/positions/keeper.py', '        with self._condition:\n            self._check_open()\n            stored', '        with self._condition:\n            if self._ended is not None:\n                return\n            stored', POSITIONS),
    Mutant('positions: an older number overwrites a newer one', 'trax/positions/keeper.py', 'state.record_number < stored.record_number and not allow_rewind', 'False', POSITIONS),
    Mutant('positions: a failure in the background is only noted', 'trax/positions/keeper.py', '            failure.add_note(f"trax: raised by a flush in the background; {what_now}")\n            raise failure', '            pass', POSITIONS),
    Mutant('positions: a failed flush is not tried again', 'trax/positions/keeper.py', '                    self._due = self._clock.monotonic() + self._interval_s  # when', '                    # when', POSITIONS),
    Mutant('positions: a window that filled during a write waits', 'trax/positions/keeper.py', '                if self._unflushed >= self._max_updates:  # came', '                if False:  # came', POSITIONS),
    Mutant('positions: the last of two fields counts', 'trax/positions/document.py', '        if len(fields) < len(node.value):', '        if False:', POSITIONS),
    Mutant('positions: nobody waits for a slow disk', 'trax/positions/keeper.py', '        if ahead:  #', '        if False:  #', POSITIONS),
    Mutant('positions: the newest update counts, not the oldest', 'trax/positions/keeper.py', '            if self._due is None:\n                self._due', '            if True:\n                self._due', POSITIONS),
    Mutant('positions: an update is counted and not kept', 'trax/positions/keeper.py', '            self._states[state.name] = state\n            self._unflushed += 1\n', '            self._unflushed += 1\n', POSITIONS),
    Mutant("no fsync of what an output file held before", "trax/job/outputs.py", "            self._fs.fsync(self._fd)  # makes durable: what the file held before", "            pass  # what the file held before", JOBS),
    Mutant("no fsync of an output file's name", "trax/job/outputs.py", "            self._fs.fsync_directory(os.path.dirname(self.path))", "            pass", JOBS),
    Mutant("no fsync of an output file", "trax/job/outputs.py", "                self._fs.fsync(self._fd)  # makes durable: contents and length", "                pass  # contents and length", JOBS),
    Mutant("lengths inside msgpack are believed", "trax/lengths.py", "    unpacker.skip()\n", "", (FUZZ,)),
    Mutant("many lengths inside msgpack are believed", "trax/lengths.py", "seen > _FEW_HEADERS or ", "", (FUZZ,)),
    Mutant("great lengths inside msgpack are believed", "trax/lengths.py", " or claimed > _HARMLESS_ITEMS", "", (FUZZ,)),
    Mutant("a last record beyond its frame is believed", LOCAL + "payload.py", "        if last >= record_count:\n", "        if False:\n", (FUZZ,)),
    Mutant("a sealed length beyond the file is believed", LOCAL + "view.py", "        walk_end = min(offset, fs.size(segment.fd))", "        walk_end = offset", (FUZZ,)),
    Mutant("a length in a footer is believed", LOCAL + "blob_reader.py", "        if offset + nbytes > end:\n", "        if False:\n", (FUZZ,)),
    Mutant("a buffer may be used again", "trax/codecs/buffers.py", "        if index != len(self._taken):\n", "        if False:\n", (FUZZ,)),
    Mutant("buffers may lie over one another", LOCAL + "blob_reader.py", "            if any(before > after for", "            if False and any(before > after for", (FUZZ,)),
    Mutant("symbolic links are followed", LOCAL + "creation.py", "    for path in filter(fs.is_link, layout.fixed):", "    for path in ():", (FUZZ,)),
    Mutant("a symbolic link is opened", LOCAL + "fs.py", "os.O_RDONLY) | os.O_NOFOLLOW | os.O_NONBLOCK", "os.O_RDONLY) | os.O_NONBLOCK", (FUZZ,)),
    Mutant("a pipe is waited for", LOCAL + "fs.py", "os.O_RDONLY) | os.O_NOFOLLOW | os.O_NONBLOCK", "os.O_RDONLY) | os.O_NOFOLLOW", (FUZZ,)),
    Mutant("a device is read", LOCAL + "fs.py", "        if not stat.S_ISREG(os.fstat(fd).st_mode):\n            fd.close", "        if False:\n            fd.close", (FUZZ,)),
    Mutant("a frame of no records is read", LOCAL + "walk.py", "        if header.kind != MARK and header.record_count == 0:", "        if False:", (FUZZ,)),
    Mutant("numbers may leave no room", LOCAL + "snapshot.py", "    if snapshot.epoch >= MAX_EPOCH or snapshot.sequence > MAX_SEQUENCE - _ROOM or max", "    if False and max", (FUZZ,)),
    Mutant("numbers may be too large", LOCAL + "snapshot.py", "    if snapshot.epoch > MAX_EPOCH or snapshot.sequence > MAX_SEQUENCE or max", "    if False and max", (CHECKS,)),
    Mutant("the fields of a snapshot need not fit together", LOCAL + "snapshot.py", "    if len(snapshot.store_id) != 16 or snapshot.keep < 1 or sealed != ", "    if False and sealed != ", (FUZZ,)),
    Mutant("pickle need not be asked for", LOCAL + "reader.py", '    if stored == "pickle" and asked is None:', "    if False:", (FUZZ,)),
    Mutant("pickles are imported without being asked for", "trax/interchange.py", '        if self._codec.name != "pickle":', "        if False:", (FUZZ,)),
    Mutant("any number of a file's name is one of ours", LOCAL + "layout.py", '_SEGMENT = re.compile(r"log\\.(\\d{8}|[1-9]\\d{8,18})", re.ASCII)', '_SEGMENT = re.compile(r"log\\.(\\d{8,20})")', (FUZZ,)),
    Mutant("an owner that can't be understood is an error", LOCAL + "owner.py", "    except (ValueError, RecursionError):", "    except ValueError:", (LOCK,)),
]  # fmt: skip


def apply(mutant: Mutant, text: str) -> str | None:
    """The file's text without the safeguard; None when the mutant does not fit it."""
    for old, new in ((mutant.old, mutant.new), *mutant.also):
        if text.count(old) != 1:
            return None
        text = text.replace(old, new)
    return text


def try_mutant(mutant: Mutant, known: str | None) -> str:
    """The first test that notices, or "" when none does; ``known`` is the one that did so last time."""
    with tempfile.TemporaryDirectory() as directory:
        copy_to(directory)
        file = Path(directory, mutant.file)
        text = apply(mutant, file.read_text())
        if text is None:
            return "DOES NOT FIT THE CODE"
        file.write_text(text)
        if known is not None and run([known], directory) == known:
            return known
        for tests in dict.fromkeys((*mutant.first, *REST)):
            if failed := run(tests.split(), directory):
                return failed
    return ""


def copy_to(directory: str) -> None:
    for part in ("trax", "tests", "examples", "docs"):
        shutil.copytree(ROOT / part, Path(directory, part), ignore=shutil.ignore_patterns("__pycache__", "_build"))
    for file in ("README.rst", "CHANGELOG.rst", "pyproject.toml", "setup.py"):
        shutil.copy(ROOT / file, directory)


def run(tests: Sequence[str], directory: str) -> str:
    """The first of the tests that fails there, does not end, or ends the interpreter."""
    options = ["-x", "-v", "-p", "no:cacheprovider", "--show-capture=no", "-o", f"faulthandler_timeout={_PATIENCE_S}"]
    command = [sys.executable, "-m", "pytest", *options, "-o", "faulthandler_exit_on_timeout=true", *tests]
    # Little of the search is enough: without a safeguard most states are wrong.
    effort = {"TRAX_CRASH_LIMIT": "30", "TRAX_CRASH_DEEP": "0"}
    environment = {**effort, **os.environ, "PYTHONPATH": directory}
    done = subprocess.run(command, cwd=directory, env=environment, capture_output=True, text=True, check=False)
    if done.returncode == -signal.SIGKILL:
        raise RuntimeError(f"the tests of a mutant were killed, for want of memory perhaps: {tests}")
    lines = done.stdout.splitlines()
    failed = [line for line in lines if line.startswith(("FAILED ", "ERROR "))]
    if failed:
        return failed[0].split(" ", 1)[1].split(" - ")[0]
    begun = [found[1] for line in lines if (found := _BEGUN.match(line))]
    return begun[-1] if done.returncode and begun else f"pytest ends with {done.returncode}" if done.returncode else ""


def check_killers(killers: Iterable[str]) -> str:
    """The first of the tests that fails although nothing was taken away."""
    with tempfile.TemporaryDirectory() as directory:
        copy_to(directory)
        by_file = defaultdict(list)
        for killer in sorted(set(killers)):
            if "::" in killer:
                by_file[killer.split("::")[0]].append(killer)
        return next(filter(None, (run(tests, directory) for tests in by_file.values())), "")


def main(words: list[str]) -> int:
    known: dict[str, str] = json.loads(MEMORY.read_text()) if MEMORY.exists() else {}
    only_new = "--new" in words
    words = [word for word in words if word != "--new"]
    chosen = [mutant for mutant in MUTANTS if not words or any(word in mutant.what for word in words)]
    chosen = [mutant for mutant in chosen if not (only_new and mutant.what in known)]
    killers = {}
    bad = []
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        outcomes = pool.map(try_mutant, chosen, [known.get(mutant.what) for mutant in chosen])
        for mutant, killer in zip(chosen, outcomes, strict=True):
            print(f"{mutant.what:60} {killer.split('::', 1)[-1] or 'SURVIVED'}", flush=True)
            if not killer or killer.startswith("DOES NOT FIT"):
                bad.append(mutant.what)
            elif "::" in killer:
                known[mutant.what] = killers[mutant.what] = killer
                MEMORY.write_text(json.dumps(known, indent=1, sort_keys=True) + "\n")
    if false_alarm := check_killers(killers.values()):
        bad.append(f"{false_alarm} fails on the code as it is")
    print(f"{len(chosen)} mutants, {len(chosen) - len(bad)} noticed", *bad, sep="\n  ")
    return 1 if bad or not chosen else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
