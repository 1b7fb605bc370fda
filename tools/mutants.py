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
CONSUMER = "trax/consumer/"
UNISTREAM = "trax/compat/unistream/"
CONSUMERS = tuple(
    f"tests/consumer/test_{name}.py"
    for name in ("pitfalls", "consumer", "storages", "threads", "signals", "unistream", "crash")
)
TIMEOUT_S = 1200


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
    Mutant("the mark is not written again", LOCAL + "opening.py", "        writer.cut_back()\n        writer.mark(self._sequence)\n", "        writer.cut_back()\n", (CORRUPTION,)),
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
    Mutant("every bad frame is a torn tail", LOCAL + "walk.py", "    claim = find_later_claim(walk)", "    claim = None"),
    Mutant("a sealed segment's end is not checked", LOCAL + "view.py", "    if walk.tail.offset != offset or end not in (None, walk.tail):", "    if False:"),
    Mutant("a snapshot's checksum is not checked", LOCAL + "snapshot.py", "    if len(body) != body_bytes or crc32(body) != body_checksum:", "    if False:"),
    Mutant("a blob's chunks are not checked", LOCAL + "blob.py", "        if have != len(target) or crc32(target) != checksum:", "        if have != len(target):"),
    Mutant("a put back snapshot is not looked for", LOCAL + "opening.py", "        check_is_latest(fs, layout, old)", "        pass"),
    Mutant("a log that is newer than the snapshot is accepted", LOCAL + "opening.py", "            if walk.latest_epoch >= self._manner.epoch or", "            if False and"),
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
    Mutant("unistream: a line that is being written is read", UNISTREAM + "consumer.py", "for line in lines if line.endswith(\"\\n\")]", "for line in lines]", CONSUMERS),
    Mutant("unistream: a lock of days is believed", UNISTREAM + "storage.py", "if not saved.more:", "if False:", CONSUMERS),
    Mutant("unistream: the configuration of the file", UNISTREAM + "checkpoint.py", "cls.from_dict({**plain, **configuration})", "cls.from_dict({**configuration, **plain})", CONSUMERS),
    Mutant("unistream: what fails is not taken back", UNISTREAM + "storage.py", "            vars(self._checkpoint).update(before)\n", "", CONSUMERS),
    Mutant("unistream: a batch without its records is skipped", UNISTREAM + "storage.py", "if committed or not self._has_its_records(trackers.values()):", "if committed:", CONSUMERS),
]  # fmt: skip


def try_mutant(mutant: Mutant) -> str:
    """The first test that fails, or "" when none does."""
    with tempfile.TemporaryDirectory() as directory:
        shutil.copytree(ROOT / "trax", Path(directory, "trax"))
        shutil.copytree(ROOT / "tests", Path(directory, "tests"))
        shutil.copytree(ROOT / "examples", Path(directory, "examples"))
        file = Path(directory, mutant.file)
        text = file.read_text()
        if text.count(mutant.old) != 1:
            return f"NOT APPLICABLE: {text.count(mutant.old)} places"
        file.write_text(text.replace(mutant.old, mutant.new))
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *mutant.tests]
        environment = {**os.environ, "PYTHONPATH": directory, "TRAX_CRASH_RUNS": os.environ.get("TRAX_CRASH_RUNS", "6")}
        try:
            run = subprocess.run(
                command, cwd=directory, env=environment, capture_output=True, text=True, check=False, timeout=TIMEOUT_S
            )
        except subprocess.TimeoutExpired:
            return "it hangs"
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
