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
EVENTS = ("tests/test_events.py",)
TAKE_OVER = ("tests/test_compat_checkpoint_logger.py",)
POSITIONS = ("tests/test_positions.py",)


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
    Mutant("no fsync of the new snapshot or of a kept one", LOCAL + "fs.py", "        fs.fsync(fd)  # makes", "        # makes"),
    Mutant("no fsync of the directory after the rename", LOCAL + "commit_point.py", "            self._fs.fsync_directory(self._layout.path)\n            self.check_owner()", "            self.check_owner()"),
    Mutant("no fsync of a blob", LOCAL + "blob.py", "    fs.fsync(fd)  # makes", "    # makes"),
    Mutant("no fsync of the blobs' directory", LOCAL + "directory.py", "                self._fs.fsync_directory(self._layout.blobs)\n", "                pass\n"),
    Mutant("no fsync of the directory before a publish", LOCAL + "directory.py", "            self._fs.fsync_directory(self._layout.path)\n        self._commit_point.replace(new", "            pass\n        self._commit_point.replace(new"),
    Mutant("no fsync of the kept snapshots' directory", LOCAL + "directory.py", "            self._fs.fsync_directory(self._layout.kept)  #", "            #"),
    Mutant("no fsync of what is written ahead", LOCAL + "directory.py", "            writer.sync()  # makes durable: what becomes", "            # makes durable: what becomes"),
    Mutant("no fsync of copied survivors", LOCAL + "directory.py", "                copy.sync()  #", "                #"),
    Mutant("no fsync of rewritten records", LOCAL + "opening.py", "            writer.sync()  # makes durable: the records", "            # makes durable: the records"),
    Mutant("no fsync of the directory of the rewritten segment", LOCAL + "opening.py", "                    fs.fsync_directory(layout.path)  # makes durable: the new segment's name", "                    pass"),
    Mutant("the mark is not written again", LOCAL + "opening.py", "        writer.cut_back()\n        writer.mark(self._snapshot.sequence)\n", "        writer.cut_back()\n", (CORRUPTION,)),
    Mutant("no fsync of new directories' names", LOCAL + "fs.py", "    fs.fsync_directory(os.path.dirname(path))\n\n\ndef make_missing", "\n\ndef make_missing"),
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
    Mutant("consumer: the error of a worker is not raised", CONSUMER + "consumer.py", "            raise self._failures[0]", "            pass", CONSUMERS),
    Mutant("consumer: unreadable records cost an attempt", CONSUMER + "checkpoint.py", "            self._load_records()  # if they", "            pass  # if they", CONSUMERS),
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
    Mutant('positions: nobody waits for a slow disk', 'trax/positions/keeper.py', '        if ahead:  #', '        if False:  #', POSITIONS),
    Mutant('positions: the newest update counts, not the oldest', 'trax/positions/keeper.py', '            if self._due is None:\n                self._due', '            if True:\n                self._due', POSITIONS),
    Mutant('positions: an update is counted and not kept', 'trax/positions/keeper.py', '            self._states[state.name] = state\n            self._unflushed += 1\n', '            self._unflushed += 1\n', POSITIONS),
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
