"""What a user of a store sees: saving, recovering, options, refusals."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import trax
from tests import reseal
from tests.helpers import reopen_and_check
from trax import errors

EXAMPLE = """
import trax
logger = trax.Trax()
hello = logger.recover("hello", create=lambda: "world")
logger.checkpoint(existence="u")
for c in "niverse":
    logger.log(existence=c)
existence = logger.recover("existence", create=lambda: "u", replay_log=lambda state, entry: state + entry)
assert existence == "universe"
"""


def concatenate(state: str, entry: str) -> str:
    return state + entry


class TestTheExample:
    @pytest.mark.parametrize(
        "end", ["", "logger.close()", "import os; os._exit(0)", "import os; os.kill(os.getpid(), 9)"]
    )
    def test_holds_in_this_and_every_later_process(self, tmp_path: Path, end: str) -> None:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        subprocess.run([sys.executable, "-c", EXAMPLE + end], cwd=tmp_path, env=environment, check=end.find("kill") < 0)
        again = EXAMPLE.split("logger.checkpoint")[0] + EXAMPLE[EXAMPLE.index("existence =") :]
        subprocess.run([sys.executable, "-c", again], cwd=tmp_path, env=environment, check=True)

    def test_runs_twice(self, tmp_path: Path) -> None:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        for _ in range(3):
            subprocess.run([sys.executable, "-c", EXAMPLE], cwd=tmp_path, env=environment, check=True)

    def test_killed_between_any_two_calls(self, tmp_path: Path) -> None:
        lines = EXAMPLE.strip().splitlines()
        loop = [f"logger.log(existence={c!r})" for c in "niverse"]
        calls = [*lines[:4], *loop]
        expected = [None, None, None, "u"]
        for place in range(2, len(calls) + 1):
            directory = tmp_path / str(place)
            directory.mkdir()
            script = "\n".join([*calls[:place], "import os; os.kill(os.getpid(), 9)"])
            environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
            subprocess.run([sys.executable, "-c", script], cwd=directory, env=environment, check=False)
            with reopen_and_check(directory / ".trax") as store:
                assert store.recover("existence", lambda: "?", concatenate) == (
                    "?" if place < len(expected) else "universe"[: place - 3]
                )
                if place > 2:
                    assert store.recover("hello") == "world"


class TestSaving:
    def test_both_calls_return_sequences_in_one_order(self, tmp_path: Path) -> None:
        with trax.Trax(tmp_path / "s") as store:
            assert [store.log(a=1), store.checkpoint(a=2), store.log(b=3), store.log(a=4, b=5)] == [1, 2, 3, 4]
            assert store.last_sequence == store.durable_sequence == 4

    def test_a_checkpoint_of_some_names_leaves_the_entries_of_the_others(self, tmp_path: Path) -> None:
        with trax.Trax(tmp_path / "s") as store:
            store.checkpoint(a="a", b="b")
            store.log(a="1", b="2")
            store.checkpoint(a="A")
            store.log(a="3", b="4")
            assert store.recover("a", None, concatenate) == "A3"
            assert store.recover("b", None, concatenate) == "b24"
            assert list(store.entries("b")) == [(2, "2"), (4, "4")]
        with reopen_and_check(tmp_path / "s") as store:
            assert store.recover_many(["a", "b"], None, concatenate) == {"a": "A3", "b": "b24"}

    def test_any_string_can_be_a_name(self, tmp_path: Path) -> None:
        names = ["self", "mapping", "name", "ünï 世界", " ", "a/b", "..", "x" * 255, "\0", "snapshot"]
        with trax.Trax(tmp_path / "s") as store:
            for name in names:
                store.log({name: name})
                store.checkpoint({name: name})
            store.log(self=1, mapping=2, name=3, create=4)
        with reopen_and_check(tmp_path / "s") as store:
            assert store.names() == sorted(names)
            assert store.recover("mapping") == 2

    @pytest.mark.parametrize("name", ["", "x" * 256, "é" * 128, "trax:loop", "\ud800", 3, None, b"a"])
    def test_what_is_no_name_is_refused_before_anything_is_written(self, tmp_path: Path, name: object) -> None:
        with trax.Trax(tmp_path / "s") as store:
            for call in (store.log, store.checkpoint, store.checkpoint_async):
                with pytest.raises(errors.InvalidNameError):
                    call({"good": 1, name: 2})  # type: ignore[dict-item]
            with pytest.raises(ValueError, match=r"name|bytes|UTF-8"):
                store.recover(name)  # type: ignore[arg-type]
            assert store.last_sequence == 0

    def test_empty_and_doubtful_calls_are_value_errors(self, tmp_path: Path) -> None:
        with trax.Trax(tmp_path / "s") as store:
            for call in (store.log, store.checkpoint):
                for arguments, keywords in [((), {}), (({},), {}), (([1],), {}), (({"a": 1},), {"a": 2})]:
                    with pytest.raises(ValueError, match=r"given|takes"):
                        call(*arguments, **keywords)
            with pytest.raises(ValueError, match="no name"):
                store.delete()

    def test_the_caller_may_go_on_changing_what_it_logged(self, tmp_path: Path) -> None:
        with trax.Trax(tmp_path / "s", sync="os", buffer_bytes=1 << 16) as store:
            value = [1]
            store.log(a=value)
            future = store.checkpoint_async(b=value, c=np.arange(10_000))
            value.append(2)
            assert next(store.entries("a")) == (1, [1])
            future.result()
            assert store.recover("b") == [1]

    def test_what_recover_returns_is_the_callers_own(self, tmp_path: Path) -> None:
        with trax.Trax(tmp_path / "s") as store:
            first = store.recover("a", lambda: [1])
            first.append(2)
            array = store.recover("b", lambda: np.zeros(100_000))
            array[:] = 1
            assert store.recover("a") == [1]
            assert store.recover("b").sum() == 0

    def test_an_unsupported_value_leaves_the_store_as_it_was(self, tmp_path: Path) -> None:
        with trax.Trax(tmp_path / "s") as store:
            for call in (store.log, store.checkpoint, store.checkpoint_async):
                with pytest.raises(errors.UnsupportedValueError, match=r"b\[1\]\['x'\]") as caught:
                    call(a=1, b=[0, {"x": object()}])
                assert caught.value.location == "b[1]['x']"
            assert store.last_sequence == 0
            assert store.names() == []

    def test_checkpoint_at_takes_a_state_of_the_past(self, tmp_path: Path) -> None:
        with trax.Trax(tmp_path / "s") as store:
            store.checkpoint(a="")
            for c in "abc":
                store.log(a=c)
            store.checkpoint_at(3, {"a": "ab"})
            assert store.recover("a", None, concatenate) == "abc"
            with pytest.raises(ValueError, match="between 0 and"):
                store.checkpoint_at(99, {"a": "abc"})
            with pytest.raises(ValueError, match="take that back"):
                store.checkpoint_at(2, {"a": "a"})
        with reopen_and_check(tmp_path / "s") as store:
            assert store.recover("a", None, concatenate) == "abc"


class TestRecover:
    def test_create_is_stored_before_it_is_returned(self, tmp_path: Path) -> None:
        with trax.Trax(tmp_path / "s") as store:
            assert store.recover("a", create=lambda: 5) == 5
            assert store.recover("a", create=lambda: 6) == 5
        with trax.Trax(tmp_path / "s", mode="r") as reader:
            assert reader.recover("a") == 5

    def test_entries_logged_before_the_creation_are_folded_on_top(self, tmp_path: Path) -> None:
        with trax.Trax(tmp_path / "s") as store:
            store.log(a="x")
            store.checkpoint(b=1)
            store.log(a="y")
            assert store.recover("a", lambda: "-", concatenate) == "-xy"
        with reopen_and_check(tmp_path / "s") as store:
            assert store.recover("a", None, concatenate) == "-xy"

    def test_an_absent_name_is_a_readable_key_error(self, tmp_path: Path) -> None:
        with trax.Trax(tmp_path / "s") as store:
            store.log(a=1)
            with pytest.raises(KeyError) as caught:
                store.recover("a")
            assert str(caught.value).startswith(str(tmp_path)) and "'a'" in str(caught.value)
            assert "a" not in store

    def test_a_forgotten_return_names_the_fix(self, tmp_path: Path) -> None:
        with trax.Trax(tmp_path / "s") as store:
            store.checkpoint(a=[])
            store.log(a=1)
            with pytest.raises(errors.ReplayError, match="Return the new state") as caught:
                store.recover("a", None, lambda state, entry: state.append(entry))
            assert caught.value.sequence == 2
            store.log(b=None)
            assert store.recover("b", lambda: 1) is None
            assert store.recover("b", None, lambda state, entry: None) is None

    def test_an_error_of_the_callback_comes_as_it_is_with_a_note(self, tmp_path: Path) -> None:
        with trax.Trax(tmp_path / "s") as store:
            store.checkpoint(a=0)
            store.log(a=1)
            with pytest.raises(ZeroDivisionError) as caught:
                store.recover("a", None, lambda state, entry: entry / 0)
            assert "sequence 2 of 'a'" in caught.value.__notes__[0]

    def test_several_names_have_callbacks_of_their_own(self, tmp_path: Path) -> None:
        with trax.Trax(tmp_path / "s") as store:
            store.log(a=1, b=2)
            found = store.recover_many(
                ["a", "b"], {"a": lambda: 10, "b": list}, {"a": lambda s, e: s + e, "b": lambda s, e: [*s, e]}
            )
            assert found == {"a": 11, "b": [2]}
            assert store.recover_many([]) == {}

    def test_create_together_with_at_is_an_error(self, tmp_path: Path) -> None:
        with trax.Trax(tmp_path / "s") as store, pytest.raises(ValueError, match="give one of them"):
            store.recover("a", create=int, at=0)

    def test_large_arrays_can_be_mapped(self, tmp_path: Path) -> None:
        array = np.random.default_rng(1).standard_normal((300, 500))
        with trax.Trax(tmp_path / "s") as store:
            store.checkpoint(a={"x": array, "n": 3})
            mapped = store.recover("a", mmap=True)["x"]
            assert not mapped.flags.writeable and not mapped.flags.owndata
            store.delete("a")
            assert mapped.tobytes() == array.tobytes()


class TestBatch:
    def test_entries_alone_are_one_commit(self, tmp_path: Path) -> None:
        with trax.Trax(tmp_path / "s") as store:
            with store.batch() as b:
                b.log(a=1)
                b.log(a=2, b=3)
                assert b.sequence is None
                assert list(store.entries("a")) == []
            assert b.sequence == 2
            assert list(store.entries("a")) == [(1, 1), (2, 2)]

    def test_the_order_in_the_program_decides_what_a_checkpoint_contains(self, tmp_path: Path) -> None:
        with trax.Trax(tmp_path / "s") as store:
            store.log(a="0")
            with store.batch() as b:
                b.log(a="1", b="1")
                b.checkpoint(a="A")
                b.log(a="2", b="2")
                b.checkpoint(c="C")
            assert b.sequence == 5
            assert list(store.entries("a")) == [(4, "2")]
            assert list(store.entries("b")) == [(2, "1"), (4, "2")]
        with reopen_and_check(tmp_path / "s") as store:
            assert store.recover("a", None, concatenate) == "A2"
            assert store.recover("b", lambda: "", concatenate) == "12"
            assert store.recover("c") == "C"
            assert store.log(a=1) > 5

    def test_an_exception_leaves_nothing(self, tmp_path: Path) -> None:
        with trax.Trax(tmp_path / "s") as store:
            with pytest.raises(ZeroDivisionError), store.batch() as b:
                b.log(a=1)
                b.checkpoint(b=2)
                raise ZeroDivisionError
            assert store.last_sequence == 0 and store.names() == []
            with pytest.raises(errors.ClosedError):
                b.log(a=1)

    def test_an_empty_one_is_nothing(self, tmp_path: Path) -> None:
        with trax.Trax(tmp_path / "s") as store:
            with store.batch() as b:
                pass
            assert b.sequence is None and store.last_sequence == 0


class TestGoingBack:
    def test_every_sequence_behind_the_oldest_snapshot_is_reachable(self, tmp_path: Path) -> None:
        states: dict[int, str] = {}
        with trax.Trax(tmp_path / "s", keep=3) as store:
            state = ""
            for number in range(40):
                if number % 7 == 0:
                    states[store.checkpoint(a=state)] = state
                else:
                    state += chr(65 + number % 26)
                    states[store.log(a=state[-1])] = state
        with reopen_and_check(tmp_path / "s") as store:
            snapshots = store.snapshots()
            assert [s.sequence for s in snapshots] == [22, 29, 36]
            assert snapshots[0].names == ("a",) and snapshots[0].created <= snapshots[1].created
            for sequence, expected in states.items():
                if sequence >= 22:
                    assert store.recover("a", None, concatenate, at=sequence) == expected
                else:
                    with pytest.raises(errors.UnreachableError, match="sequence 22") as caught:
                        store.recover("a", None, concatenate, at=sequence)
                    assert caught.value.oldest == 22

    def test_every_record_of_a_frame_is_reachable(self, tmp_path: Path) -> None:
        with trax.Trax(tmp_path / "s", keep=2, sync="os", buffer_bytes=10_000) as store:
            store.checkpoint(a="", b="")
            for letter in "abcd":
                store.log(a=letter)
                store.log(b=letter)
            store.sync()
            found = [store.recover("a", replay_log=concatenate, at=sequence) for sequence in range(1, 10)]
            assert found == ["", "a", "a", "ab", "ab", "abc", "abc", "abcd", "abcd"]

    def test_deleted_names_can_be_reached_while_they_are_kept(self, tmp_path: Path) -> None:
        with trax.Trax(tmp_path / "s", keep=2) as store:
            saved = store.checkpoint(a="x" * 10_000)
            store.log(a="y")
            deleted = store.delete("a")
            assert store.recover("a", None, concatenate, at=deleted - 1) == "x" * 10_000 + "y"
            assert len(store.recover("a", at=saved)) == 10_000
            with pytest.raises(KeyError, match="as of sequence"):
                store.recover("a", at=deleted)

    def test_one_snapshot_gives_the_space_back(self, tmp_path: Path) -> None:
        with trax.Trax(tmp_path / "s", sync="os") as store:
            for _ in range(3):
                for _ in range(1000):
                    store.log(a=bytes(100), b=bytes(100))
                store.checkpoint(a=bytes(10_000), b=bytes(10_000))
                assert sum(f.stat().st_size for f in (tmp_path / "s").rglob("*") if f.is_file()) < 25_000

    def test_a_new_number_is_kept_in_the_store(self, tmp_path: Path) -> None:
        trax.Trax(tmp_path / "s", keep=2).close()
        with trax.Trax(tmp_path / "s") as store:
            assert store.stats()["keep"] == 2
        with trax.Trax(tmp_path / "s", keep=1) as store:
            for number in range(3):
                store.checkpoint(a=number)
            assert len(store.snapshots()) == 1


class TestDelete:
    def test_takes_the_entries_along(self, tmp_path: Path) -> None:
        with trax.Trax(tmp_path / "s") as store:
            store.checkpoint(a="a", b="b")
            store.log(a="1", b="1")
            store.delete("a")
            assert "a" not in store and store.names() == ["b"]
            assert list(store.entries("a")) == []
            store.log(a="2")
            assert store.recover("a", lambda: "new", concatenate) == "new2"
        with reopen_and_check(tmp_path / "s") as store:
            assert store.recover("a", None, concatenate) == "new2"
            assert store.recover("b", None, concatenate) == "b1"

    def test_an_absent_name_is_a_key_error(self, tmp_path: Path) -> None:
        with trax.Trax(tmp_path / "s") as store, pytest.raises(KeyError):
            store.delete("a")


class TestModes:
    def test_reading_takes_no_lock_and_changes_nothing(self, tmp_path: Path) -> None:
        with trax.Trax(tmp_path / "s") as store:
            store.checkpoint(a="a")
            with trax.Trax(tmp_path / "s", mode="r") as reader:
                before = {f: f.read_bytes() for f in (tmp_path / "s").rglob("*") if f.is_file()}
                assert reader.recover("a", None, concatenate) == "a"
                with pytest.raises(KeyError):
                    reader.recover("absent", create=lambda: 1)
                for call in (lambda: reader.log(a=1), lambda: reader.checkpoint(a=1), lambda: reader.sync()):
                    with pytest.raises(errors.ReadOnlyError, match="mode='r'"):
                        call()
                assert before == {f: f.read_bytes() for f in (tmp_path / "s").rglob("*") if f.is_file()}
                store.log(a="b")
                assert reader.recover("a", None, concatenate) == "ab"
                store.checkpoint(a="AB", b="x" * 10_000)
                store.log(a="c")
                assert reader.recover("a", None, concatenate) == "ABc"
                assert reader.verify().ok and reader.names() == ["a", "b"]

    def test_a_follower_that_was_overtaken_is_told(self, tmp_path: Path) -> None:
        with trax.Trax(tmp_path / "s") as store, trax.Trax(tmp_path / "s", mode="r") as reader:
            store.checkpoint(a=0)
            last = store.log(a=1)
            assert list(reader.entries("a", after=last)) == []
            store.log(a=2)
            store.checkpoint(a=2)
            with pytest.raises(errors.OvertakenError) as caught:
                list(reader.entries("a", after=last))
            assert list(reader.entries("a", after=caught.value.oldest)) == []

    @pytest.mark.parametrize("mode", ["r", "r+"])
    def test_what_must_exist_is_not_created(self, tmp_path: Path, mode: str) -> None:
        with pytest.raises(FileNotFoundError, match="mode='a' creates one"):
            trax.Trax(tmp_path / "s", mode=mode)  # type: ignore[arg-type]
        assert not (tmp_path / "s").exists()
        (tmp_path / "s").mkdir()
        with pytest.raises(FileNotFoundError):
            trax.Trax(tmp_path / "s", mode=mode)  # type: ignore[arg-type]

    @pytest.mark.parametrize(
        "options",
        [
            {"mode": "w"},
            {"sync": "never"},
            {"codec": "yaml"},
            {"keep": 0},
            {"keep": True},
            {"sync_interval_s": 0},
            {"buffer_bytes": -1},
            {"buffer_bytes": 10},
        ],
    )
    def test_options_that_mean_nothing_are_refused(self, tmp_path: Path, options: dict[str, object]) -> None:
        with pytest.raises(ValueError, match=next(iter(options))):
            trax.Trax(tmp_path / "s", **options)  # type: ignore[arg-type]
        assert not (tmp_path / "s").exists()

    def test_the_directories_above_are_made(self, tmp_path: Path) -> None:
        with trax.Trax(tmp_path / "a" / "b" / "s") as store:
            store.checkpoint(a=1)
        reopen_and_check(tmp_path / "a" / "b" / "s").close()

    def test_codec_is_kept_and_another_is_refused(self, tmp_path: Path) -> None:
        trax.Trax(tmp_path / "j", codec="json").close()
        with trax.Trax(tmp_path / "j") as store:
            store.log(energy={"a": (1, 2)})
            assert b'{"energy": {"a": ' in (tmp_path / "j" / "log.00000001").read_bytes()
        with pytest.raises(errors.CodecError, match="json"):
            trax.Trax(tmp_path / "j", codec="msgpack")
        trax.Trax(tmp_path / "p", codec="pickle").close()
        for mode in ("a", "r"):
            with pytest.raises(errors.CodecError, match="unpickling runs"):
                trax.Trax(tmp_path / "p", mode=mode)  # type: ignore[arg-type]


class TestHandles:
    def test_a_closed_one_says_so(self, tmp_path: Path) -> None:
        store = trax.Trax(tmp_path / "s")
        store.close()
        store.close()
        for call in (lambda: store.log(a=1), lambda: store.recover("a"), store.names, store.sync, lambda: "a" in store):
            with pytest.raises(errors.ClosedError, match="was closed"):
                call()

    def test_two_writers_are_refused_and_the_holder_is_named(self, tmp_path: Path) -> None:
        with trax.Trax(tmp_path / "s"):
            with pytest.raises(errors.StoreLockedError, match="this very process") as caught:
                trax.Trax(tmp_path / "s")
            assert caught.value.owner["pid"] == os.getpid()
            script = f"import trax; trax.Trax({str(tmp_path / 's')!r})"
            environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
            found = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True)
            assert f"pid {os.getpid()} on" in found.stderr
        trax.Trax(tmp_path / "s").close()

    def test_a_dropped_one_is_closed_with_a_warning(self, tmp_path: Path) -> None:
        store = trax.Trax(tmp_path / "s", sync="os", buffer_bytes=1 << 16)
        store.checkpoint(a="a")
        store.log(a="b")
        with pytest.warns(ResourceWarning, match="dropped"):
            del store
        with reopen_and_check(tmp_path / "s") as store:
            assert store.recover("a", None, concatenate) == "ab"

    def test_a_forked_child_holds_a_dead_one_and_leaves_the_lock_to_its_parent(self, tmp_path: Path) -> None:
        with trax.Trax(tmp_path / "s", sync="os", buffer_bytes=1 << 16) as store:
            store.checkpoint(a="a")
            store.log(a="b")
            child = os.fork()
            if child == 0:
                try:
                    store.log(a="x")
                except errors.ForkedError:
                    store.close()
                    os._exit(7)
                os._exit(1)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
            with pytest.raises(errors.StoreLockedError):
                trax.Trax(tmp_path / "s")
            store.log(a="c")
        with reopen_and_check(tmp_path / "s") as store:
            assert store.recover("a", None, concatenate) == "abc"

    def test_a_forked_child_does_not_keep_the_lock(self, tmp_path: Path) -> None:
        store = trax.Trax(tmp_path / "s")
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(write)
            os.read(read, 1)
            os._exit(0)
        store.close()
        with trax.Trax(tmp_path / "s") as another:
            assert another.names() == [], "it was opened while the child lives"
        os.close(write)
        os.waitpid(child, 0)
        os.close(read)

    def test_threads_share_one(self, tmp_path: Path) -> None:
        with trax.Trax(tmp_path / "s") as store:

            def work(thread: int) -> None:
                for number in range(50):
                    store.log({f"t{thread}": number, "all": (thread, number)})

            threads = [threading.Thread(target=work, args=(thread,)) for thread in range(8)]
            for one in threads:
                one.start()
            for one in threads:
                one.join()
            assert store.durable_sequence == 400
        with reopen_and_check(tmp_path / "s") as store:
            entries = list(store.entries("all"))
            assert [sequence for sequence, _ in entries] == list(range(1, 401))
            for thread in range(8):
                assert [n for _, (t, n) in entries if t == thread] == list(range(50))

    def test_a_copy_is_consistent_and_opens(self, tmp_path: Path) -> None:
        with trax.Trax(tmp_path / "s", keep=2) as store:
            store.checkpoint(a="x" * 10_000)
            store.checkpoint(a="y" * 10_000)
            store.log(a="b")
            store.copy_to(tmp_path / "copy")
            store.log(a="c")
            with pytest.raises(ValueError, match="already"):
                store.copy_to(tmp_path / "copy")
        with reopen_and_check(tmp_path / "copy") as copy:
            assert copy.recover("a", None, concatenate) == "y" * 10_000 + "b"
            assert len(copy.snapshots()) == 2

    def test_background_checkpoints_overlap_with_logging(self, tmp_path: Path) -> None:
        array = np.zeros(1 << 20)
        with trax.Trax(tmp_path / "s") as store:
            futures = []
            for number in range(5):
                array[:] = number
                futures.append(store.checkpoint_async(a=array, n=number))
                store.log(n=f"after {number}")
            assert [future.result() for future in futures] == sorted(future.result() for future in futures)
            assert store.recover("n") == "after 4"
            assert (store.recover("a") == 4).all()
        reopen_and_check(tmp_path / "s").close()


def test_every_error_can_be_pickled_and_is_a_built_in(tmp_path: Path) -> None:
    tree = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.TraxError)]
    assert len(tree) > 20
    for kind in tree:
        error = kind("what happened", path="p", offset=1, sequence=2, reason="r")
        error.add_note("n")
        copy = pickle.loads(pickle.dumps(error))
        assert (type(copy), str(copy), copy.path, copy.offset, copy.sequence) == (kind, "what happened", "p", 1, 2)
        if kind not in (errors.TraxError, errors.HandleError):
            assert any(base.__module__ == "builtins" and base is not Exception for base in kind.__mro__[1:-3])


class TestLargeValuesOfBatches:
    def blobs(self, tmp_path: Path) -> list[str]:
        return sorted(file.name for file in (tmp_path / "s" / "blobs").iterdir())

    @pytest.mark.parametrize("differential", [False, True])
    def test_what_happens_to_an_array_after_its_checkpoint_is_not_in_it(
        self, tmp_path: Path, differential: bool
    ) -> None:
        def add(state: Any, entry: int) -> Any:
            state += entry
            return state

        array = np.zeros(100_000)
        with trax.Trax(tmp_path / "s", differential=differential) as store:
            with store.batch() as batch:
                batch.checkpoint(x=array)
                batch.log(x=1)
                array += 1
                assert "x" not in store
        with reopen_and_check(tmp_path / "s") as store:
            assert np.array_equal(store.recover("x", None, add), array)

    def test_large_arrays_begin_where_the_system_writes_them_fast(self, tmp_path: Path) -> None:
        small, large = np.ones(20_001, dtype=np.uint8), np.ones((1 << 20) + 1, dtype=np.uint8)
        with trax.Trax(tmp_path / "s") as store:
            store.checkpoint(x=[small, large, small, large])
        blob = reseal.Blob.parse((tmp_path / "s" / "blobs" / "00000001").read_bytes())
        behind = 65_536 + len(large)
        assert [place for place, *_ in blob.index] == [64, 65_536, behind + 63, 2 * 65_536 + (1 << 20)]
        with reopen_and_check(tmp_path / "s") as store:
            assert [len(one) for one in store.recover("x", mmap=True)] == [20_001, (1 << 20) + 1] * 2

    def test_a_batch_that_fails_leaves_no_file(self, tmp_path: Path) -> None:
        with trax.Trax(tmp_path / "s") as store:
            with pytest.raises(KeyError), store.batch() as batch:
                batch.checkpoint(x=bytes(100_000))
                assert self.blobs(tmp_path) == ["00000001"]
                raise KeyError
            assert self.blobs(tmp_path) == []
            with store.batch() as batch:
                batch.checkpoint(x=bytes(100_000))
                batch.checkpoint(x=bytes(200_000), y=1)
                assert self.blobs(tmp_path) == ["00000003"]
            assert len(store.recover("x")) == 200_000
            with store.batch() as batch:
                batch.checkpoint(x=1)
            assert self.blobs(tmp_path) == []

    def test_a_batch_that_outlives_its_handle_raises_what_the_block_raised(self, tmp_path: Path) -> None:
        store = trax.Trax(tmp_path / "s")
        with pytest.raises(KeyError), store.batch() as batch:
            batch.checkpoint(x=bytes(100_000))
            store.close()
            raise KeyError
        store = trax.Trax(tmp_path / "s")
        with pytest.raises(trax.errors.ClosedError), store.batch() as batch:
            batch.checkpoint(x=bytes(100_000))
            store.close()
        reopen_and_check(tmp_path / "s").close()
        assert self.blobs(tmp_path) == []
