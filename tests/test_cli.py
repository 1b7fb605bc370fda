"""The command line, through real processes: what is printed where, what the exit code says, and what is left alone."""

from __future__ import annotations

import contextlib
import doctest
import fcntl
import itertools
import json
import os
import pty
import select
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import termios
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import trax
from tests.codecs.strategies import identical, values
from tests.helpers import kill
from trax.cli import main
from trax.codecs.json import JsonCodec
from trax.interchange import _Buffers, _Lines, export_store, import_store
from trax.storage.local.fs import LocalFileSystem
from trax.storage.local.layout import Layout
from trax.storage.local.owner import this_process
from trax.storage.local.view import LocalView

TRAX = [sys.executable, "-m", "trax"]
WAIT_S = 30


def environment(**changes: str) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if key not in ("COLUMNS", "LINES", "NO_COLOR")}
    return {**kept, "TERM": "xterm", **changes}


def run(
    *arguments: object, stdin: str = "", cwd: Path | None = None, **changes: str
) -> subprocess.CompletedProcess[str]:
    """A command in a pipe."""
    command = [*TRAX, *map(str, arguments)]
    done = subprocess.run(
        command, input=stdin, capture_output=True, text=True, timeout=WAIT_S, cwd=cwd, env=environment(**changes)
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done


def on_terminal(*arguments: object, columns: int = 80, typed: str = "", **changes: str) -> tuple[int, str]:
    """A command on a terminal: its exit code and what the terminal shows."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
    command = [*TRAX, *map(str, arguments)]
    process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment(**changes))
    os.close(theirs)
    os.write(ours, typed.encode())
    shown = b""
    try:
        while data := os.read(ours, 65536):
            shown += data
    except OSError:  # Linux reports the end of a terminal as EIO
        pass
    os.close(ours)
    code = process.wait(WAIT_S)
    text = shown.decode().replace("\r\n", "\n")
    assert "Traceback" not in text
    return code, text


@pytest.fixture
def no_rich(tmp_path: Path) -> dict[str, str]:
    """An environment in which rich can't be imported."""
    stub = tmp_path / "no-rich" / "rich"
    stub.mkdir(parents=True)
    (stub / "__init__.py").write_text("raise ImportError('not installed')")
    return {"PYTHONPATH": os.pathsep.join([str(stub.parent), *filter(None, [os.environ.get("PYTHONPATH")])])}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A store with names of every kind."""
    path = tmp_path / "store"
    with trax.Trax(path, keep=2) as store:
        store.checkpoint(existence="u", config={"a": (1, 2)})
        for letter in "niverse":
            store.log(existence=letter)
        store.checkpoint({"two words": np.arange(20_000.0), "[red]markup": 1})
        store.log(existence="!", trace=np.arange(30).reshape(5, 6))
        store.log({"two words": "\x1b[31m" + "long " * 60})
        store.checkpoint(config=2)
        store.log(trace={1, 2})
    return path


def all_files(path: Path) -> dict[str, tuple[bytes, int]]:
    return {
        str(file.relative_to(path)): (file.read_bytes(), file.stat().st_mtime_ns)
        for file in path.rglob("*")
        if file.is_file()
    }


def flip(file: Path, offset: int) -> None:
    data = bytearray(file.read_bytes())
    data[offset] ^= 0xFF
    file.write_bytes(data)


def tear(file: Path) -> None:
    """Leave what a crash in the middle of a write leaves."""
    with file.open("ab") as handle:
        handle.write(b"trxR" + os.urandom(60))


# The page about it


def test_the_documentation_shows_what_is_printed(tmp_path: Path) -> None:
    """Runs the page from top to bottom: its Python, and its commands, whose output it shows."""
    page = (Path(__file__).parent.parent / "docs" / "how-to" / "command-line.rst").read_text()
    python: dict[str, Any] = {}
    shown = 0
    with contextlib.chdir(tmp_path):
        for line_number, source, expected in steps_of(page):
            if expected is None:
                exec(source, python)
                continue
            arguments = source.removeprefix("trax ").split()
            done = run(*arguments, cwd=tmp_path)
            printed = done.stdout + done.stderr
            checker = doctest.OutputChecker()
            assert checker.check_output(expected, printed, doctest.ELLIPSIS), (line_number, source, expected, printed)
            shown += 1
    for command in ("info", "log", "verify", "consumer", "export", "import", "repair", "unlock"):
        assert f"$ trax {command} " in page
    assert shown > 12


def steps_of(page: str) -> list[tuple[int, str, str | None]]:
    """Line, Python, None; or line, command, what it prints."""
    steps: list[tuple[int, str, str | None]] = [
        (example.lineno, example.source, None) for example in doctest.DocTestParser().get_examples(page)
    ]
    lines = page.splitlines()
    for number, line in enumerate(lines):
        if line.startswith("   $ "):
            output = itertools.takewhile(lambda one: one.startswith("   ") and one[:5] != "   $ ", lines[number + 1 :])
            steps.append((number, line[5:], "".join(f"{one[3:]}\n" for one in output)))
    return sorted(steps, key=lambda step: step[0])


# What every command keeps to


def test_looking_changes_nothing(path: Path) -> None:
    before = all_files(path)
    for command in (["info"], ["info", "--json"], ["consumer"], ["log"], ["log", "--json"], ["verify"], ["export"]):
        assert run(*command, path).returncode == 0
    assert all_files(path) == before


@pytest.mark.parametrize("command", ["info", "log", "verify", "consumer", "export", "repair", "unlock"])
def test_where_there_is_no_store_it_says_so_in_one_line_and_makes_none(command: str, tmp_path: Path) -> None:
    done = run(command, tmp_path / "nowhere")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"trax: there is no store at {tmp_path / 'nowhere'}\n"
    file = tmp_path / "file"
    file.write_text("something else")
    done = run(command, file)
    assert done.returncode == 1
    assert "is a file, and a store is a directory" in done.stderr
    assert [one.name for one in tmp_path.iterdir()] == ["file"]


def test_wrong_usage_is_2_and_help_lists_the_codes() -> None:
    for arguments in ([], ["nonsense"], ["log", "--after", "x"], ["log", "--after", "-1"], ["repair"], ["import", "x"]):
        done = run(*arguments)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.startswith("usage: trax")
    for arguments in (["--help"], ["repair", "--help"]):
        done = run(*arguments)
        assert done.returncode == 0
        for code in ("0 ", "1 ", "2 ", "3 ", "130 "):
            assert f"\n  {code}" in done.stdout
    assert run("--version").stdout == f"trax {trax.__version__}\n"


def test_errors_are_wrapped_on_a_terminal_and_whole_in_a_pipe(path: Path) -> None:
    (path / "snapshot").unlink()
    done = run("info", path)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    code, shown = on_terminal("info", path, columns=50)
    assert code == 1
    lines = shown.splitlines()
    assert len(lines) > 3
    assert lines[0].startswith("trax: ")
    assert all(len(line) <= 50 or str(path) in line for line in lines)
    assert " ".join(shown.split()) == " ".join(done.stderr.split())


def test_the_entry_point_returns_the_code(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", str(path)]) == 0
    assert main(["verify", str(path.parent / "nowhere")]) == 1
    assert "no store" in capsys.readouterr().err


def test_a_reader_that_has_seen_enough_ends_it_quietly(path: Path) -> None:
    with trax.Trax(path) as store, store.batch() as batch:
        for number in range(20_000):
            batch.log(trace=number)
    for command, code in (("log", 0), ("export", 1)):
        process = subprocess.Popen([*TRAX, command, path], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert process.stdout is not None and process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.wait(WAIT_S) == code
        assert process.stderr.read() == b""
        process.stderr.close()


# info


def test_info_says_what_the_store_is(path: Path) -> None:
    done = run("info", path)
    assert done.returncode == 0
    facts, _, names = done.stdout.partition("\n\n")
    assert facts.splitlines()[:3] == [
        f"Store     {path}",
        "Codec     msgpack; keeps 2 snapshots",
        "Sequence  13; generation 4, epoch 1",
    ]
    assert "10 records" in facts
    assert "1 file of 160,143 bytes" in facts
    assert [line.split(",")[0] for line in facts.splitlines() if " of sequence " in line] == [
        "Snapshot  of sequence 12",
        "          of sequence 9",
    ]
    assert [line.split() for line in names.splitlines()] == [
        ["Name", "Checkpointed", "Value", "bytes", "Cut", "Entries", "Entry", "bytes"],
        ["[red]markup", "yes", "1", "8", "0", "0"],
        ["config", "yes", "1", "11", "0", "0"],
        ["existence", "yes", "2", "0", "8", "16"],
        ["trace", "no", "2", "261"],
        ["'two", "words'", "in", "a", "blob", "160,143", "8", "1", "308"],
    ]


def test_info_as_json(path: Path) -> None:
    found = json.loads(run("info", path, "--json").stdout)
    assert (found["codec"], found["keep"], found["last_sequence"], found["epoch"]) == ("msgpack", 2, 13, 1)
    assert found["log"]["records"] == 10
    assert found["log"]["bytes"] == sum(file.stat().st_size for file in path.glob("log.*"))
    assert found["blobs"] == {"files": 1, "bytes": (path / "blobs" / "00000001").stat().st_size}
    names = {name["name"]: name for name in found["names"]}
    trace = names["trace"]
    assert (trace["checkpointed"], trace["cut"], trace["sequence"], trace["place"]) == (False, 0, None, None)
    assert (trace["nbytes"], trace["entries"]) == (0, 2)
    assert (names["config"]["cut"], names["config"]["sequence"], names["config"]["place"]) == (11, 12, "snapshot")
    assert [snapshot["sequence"] for snapshot in found["snapshots"]] == [9, 12]
    assert (found["torn_tail"], found["problems"], found["removed"]) == (None, [], [])


def test_info_says_who_writes_and_does_not_disturb_them(path: Path) -> None:
    with trax.Trax(path) as store:
        writer = json.loads(run("info", path, "--json").stdout)["writer"]
        assert (writer["guard"], writer["held"], writer["owner"]["pid"]) == ("lock", True, os.getpid())
        assert f"Writer    held by pid {os.getpid()} on " in run("info", path).stdout
        store.log(trace=3)
        store.checkpoint(config=3)
    writer = json.loads(run("info", path, "--json").stdout)["writer"]
    assert (writer["held"], writer["owner"]["pid"]) == (False, os.getpid())
    assert f"Writer    none; last pid {os.getpid()} on " in run("info", path).stdout


def test_info_and_verify_note_a_torn_tail_but_not_that_of_a_live_writer(path: Path) -> None:
    segment = path / "log.00000003"
    tear(segment)
    torn = json.loads(run("info", path, "--json").stdout)["torn_tail"]
    assert (torn["path"], torn["nbytes"]) == (str(segment), 64)
    assert "Torn tail  log.00000003: 64 bytes from byte" in run("info", path).stdout
    done = run("verify", path)
    assert done.returncode == 0
    assert f"note: {segment} has a torn tail" in done.stdout
    (path / "owner").write_text(json.dumps(this_process()))  # a writer that is alive
    assert "torn" not in run("verify", path).stdout
    assert json.loads(run("info", path, "--json").stdout)["torn_tail"] is None


def test_info_shows_what_can_be_read_of_a_damaged_store(path: Path) -> None:
    flip(path / "log.00000001", 300)
    done = run("info", path)
    assert done.returncode == 1
    assert "[red]markup" in done.stdout
    assert (
        "  - log.00000001, byte 246: the frame's payload does not match its checksum (behind sequence 3)" in done.stdout
    )
    assert json.loads(run("info", path, "--json").stdout)["problems"][0]["offset"] == 246


def test_info_of_an_empty_store(tmp_path: Path) -> None:
    trax.Trax(tmp_path / "store").close()
    done = run("info", tmp_path / "store")
    assert done.returncode == 0
    assert done.stdout.endswith("It holds no names.\n")


# On a terminal


def test_tables_are_drawn_by_rich_on_a_terminal_only(path: Path, no_rich: dict[str, str]) -> None:
    piped = run("info", path).stdout
    _, plain = on_terminal("info", path, **no_rich)
    assert plain == piped.replace(str(path), str(path))
    _, drawn = on_terminal("info", path)
    assert "────" in drawn and "────" not in piped
    assert "\x1b[1m" in drawn and "\x1b" not in plain
    for shown in (drawn, plain):
        assert "[red]markup" in shown
        assert "'two words'" in shown
    _, dumb = on_terminal("info", path, TERM="dumb")
    assert dumb == plain


def test_no_color_is_respected(path: Path) -> None:
    _, drawn = on_terminal("info", path, NO_COLOR="1")
    colours = [f"\x1b[{number}m" for number in (*range(31, 39), *range(41, 49), *range(91, 98))]
    assert not any(colour in drawn for colour in colours)


@pytest.mark.parametrize("rich", [True, False])
@pytest.mark.parametrize("columns", [80, 72])
def test_tables_fit_the_terminal(path: Path, columns: int, rich: bool, no_rich: dict[str, str]) -> None:
    with trax.Trax(path) as store:
        store.checkpoint({"n" * 200: 1, "名" * 80: 2})
    _, shown = on_terminal("info", path, columns=columns, **({} if rich else no_rich))
    table = shown[shown.index("Name") :].replace("\x1b[1m", "").replace("\x1b[0m", "").replace("\x1b[39m\x1b[49m", "")
    rows = [line for line in table.splitlines() if "…" in line]
    assert len(rows) == 2
    for line in table.splitlines():
        assert len(line.rstrip()) + sum(one == "名" for one in line) <= columns, line


def test_log_is_cut_to_the_terminal_and_whole_in_a_pipe(path: Path) -> None:
    _, shown = on_terminal("log", path, columns=60)
    assert max(map(len, shown.splitlines())) == 60
    assert [line for line in shown.splitlines() if line.endswith("…")] == [
        line[:59] + "…" for line in run("log", path).stdout.splitlines() if len(line) > 60
    ]
    assert max(map(len, run("log", path).stdout.splitlines())) > 300


# log


def test_log_shows_one_record_a_line_with_all_its_names(path: Path) -> None:
    done = run("log", path)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0] == "       2  existence='n'"
    assert lines[7].startswith("      10  existence='!'  trace=array([[ 0,  1,  2,  3,  4,  5], [ 6,")
    assert lines[8].startswith("      11  'two words'='\\x1b[31mlong long")
    assert lines[9] == "      13  trace={1, 2}"
    assert [int(line.split()[0]) for line in lines] == [2, 3, 4, 5, 6, 7, 8, 10, 11, 13]


def test_log_shows_what_is_behind_each_names_cut(tmp_path: Path) -> None:
    path = tmp_path / "store"
    with trax.Trax(path) as store:
        store.checkpoint(a=0, b=0)
        store.log(a=1, b=1)
        store.checkpoint(a=1)
        store.log(a=2, b=2)
    assert run("log", path).stdout == "       2  b=1\n       4  a=2  b=2\n"
    assert run("log", path, "--name", "a").stdout == "       4  a=2\n"
    assert run("log", path, "--name", "a", "--name", "b").stdout == run("log", path).stdout
    assert run("log", path, "--after", 2).stdout == "       4  a=2  b=2\n"
    done = run("log", path, "--after", 0)
    assert done.stdout == "       4  a=2  b=2\n"
    assert "up to sequence 2 have left the log" in done.stderr
    done = run("log", path, "--after", 0, "--name", "b")
    assert (done.stdout, done.stderr) == ("       2  b=1\n       4  b=2\n", "")


def test_log_begins_behind_a_cut_inside_a_frame(tmp_path: Path) -> None:
    path = tmp_path / "store"
    with trax.Trax(path) as store:
        with store.batch() as batch:
            for number in range(1, 6):
                batch.log(a=number, b=number)
        store.checkpoint_at(3, {"a": 3})
    assert run("log", path).stdout.splitlines() == [
        *("       1  b=1", "       2  b=2", "       3  b=3", "       4  a=4  b=4", "       5  a=5  b=5")
    ]
    assert [json.loads(line) for line in run("export", path).stdout.splitlines()][4] == {
        "sequence": 3,
        "entries": {"b": 3},
    }


def test_log_reaches_back_as_far_as_kept_snapshots_do(tmp_path: Path) -> None:
    path = tmp_path / "store"
    with trax.Trax(path, keep=2) as store:
        store.checkpoint(a=0)
        store.log(a=1)
        store.checkpoint(a=1)
        store.log(a=2)
    assert run("log", path).stdout == "       4  a=2\n"
    done = run("log", path, "--after", 1)
    assert (done.stdout, done.stderr) == ("       2  a=1\n       4  a=2\n", "")


def test_log_of_a_name_that_is_not_there(path: Path) -> None:
    done = run("log", path, "--name", "existence", "--name", "nobody")
    assert done.returncode == 1
    assert "holds nothing of 'nobody'" in done.stderr
    assert run("log", path, "--name", "[red]markup").returncode == 0  # stored, and nothing was logged of it


def test_log_as_json_is_exact(path: Path) -> None:
    with trax.Trax(path) as store:
        store.log({"$tag": (float("nan"), b"\0"), "é": "\ud800"})
    lines = run_bytes("log", path, "--json").splitlines()
    last = JsonCodec().decode(
        lines[-1].replace(b'"$tag"', b'"tag"', 1).replace(b'"entries": {"tag"', b'"entries": {"t"')
    )
    assert last["sequence"] == 14
    assert identical(last["entries"]["t"], (float("nan"), b"\0"))
    assert last["entries"]["é"] == "\ud800"
    array = JsonCodec().decode(lines[7])["entries"]["trace"]
    assert identical(array, np.arange(30).reshape(5, 6))


def run_bytes(*arguments: object) -> bytes:
    return subprocess.run([*TRAX, *map(str, arguments)], capture_output=True, check=True, env=environment()).stdout


# log --follow


class Lines:
    """The lines that a process prints, as they come."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._rest = b""

    def next(self, timeout_s: float = WAIT_S) -> str:
        while b"\n" not in self._rest:
            ready, _, _ = select.select([self._stream], [], [], timeout_s)
            assert ready, "nothing was printed"
            data = os.read(self._stream.fileno(), 65536)
            assert data, "it has ended"
            self._rest += data
        line, _, self._rest = self._rest.partition(b"\n")
        return line.decode()


@contextlib.contextmanager
def following(path: Path, *arguments: str) -> Iterator[tuple[subprocess.Popen[bytes], Lines, Lines]]:
    command = [*TRAX, "log", "--follow", str(path), *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment())
    assert process.stdout is not None and process.stderr is not None
    try:
        yield process, Lines(process.stdout), Lines(process.stderr)
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
        process.stderr.close()


def test_follow_shows_what_is_logged_through_checkpoints_and_reopening(tmp_path: Path) -> None:
    path = tmp_path / "store"
    store = trax.Trax(path)
    store.checkpoint(a=0)
    store.log(a="before")
    with following(path) as (process, out, _):
        assert out.next() == "       2  a='before'"
        for number in range(30):
            sequence = store.log(a=number, b=-number)
            assert out.next() == f"{sequence:>8}  a={number}  b={-number}"
            if number % 7 == 3:
                store.checkpoint(a=number)
            if number % 10 == 9:
                store.sync()
                store.close()
                store = trax.Trax(path)
        process.send_signal(signal.SIGINT)
        assert process.wait(WAIT_S) == 130
        assert process.stderr is not None
        assert process.stderr.read() == b""
    store.close()


@pytest.mark.parametrize("how", ["closed", "killed"])
def test_follow_reads_on_where_the_next_writer_goes_on(tmp_path: Path, how: str) -> None:
    path = tmp_path / "store"
    store = trax.Trax(path)
    store.log(a=1)
    store.sync()
    with following(path, "--json") as (process, out, _):
        assert json.loads(out.next()) == {"sequence": 1, "entries": {"a": 1}}
        if how == "closed":
            store.close()
            wait_until(lambda: has_read_all(process, path / "log.00000001"))
        else:
            kill(store)
        process.send_signal(signal.SIGSTOP)
        os.waitpid(process.pid, os.WUNTRACED)
        with trax.Trax(path) as store:  # it writes the mark at the end of the segment again, and goes on behind it
            for number in range(2, 9):
                assert store.log(a=number) == number
            process.send_signal(signal.SIGCONT)
            for number in range(2, 9):
                assert json.loads(out.next()) == {"sequence": number, "entries": {"a": number}}


def has_read_all(process: subprocess.Popen[bytes], file: Path) -> bool:
    """Whether it sleeps until its next look, and has looked since the file was written last."""
    before = read_calls(process)
    time.sleep(0.3)
    return read_calls(process) > before


def read_calls(process: subprocess.Popen[bytes]) -> int:
    (line,) = [line for line in Path(f"/proc/{process.pid}/io").read_text().splitlines() if line.startswith("syscr")]
    return int(line.split()[1])


def test_follow_of_a_name_that_comes_later(tmp_path: Path) -> None:
    path = tmp_path / "store"
    with trax.Trax(path) as store:
        store.log(a=1)
        with following(path, "--name", "later", "--after", "0") as (process, out, _):
            wait_until(lambda: is_reading(process, path / "log.00000001"))
            store.log(a=2)
            store.log(later=3)
            assert out.next() == "       3  later=3"


def test_follow_says_when_it_was_overtaken_and_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "store"
    with trax.Trax(path) as store:
        store.log(a=1)
        with following(path) as (process, out, err):
            assert out.next() == "       1  a=1"
            process.send_signal(signal.SIGSTOP)
            os.waitpid(process.pid, os.WUNTRACED)
            for number in range(2, 6):
                store.log(a=number)
                store.checkpoint(a=number)
            last = store.log(a="last")
            process.send_signal(signal.SIGCONT)
            seen = [out.next()]
            while "last" not in seen[-1]:
                seen.append(out.next())
            assert seen[-1] == f"{last:>8}  a='last'"
            assert len(seen) < 5, "the test did not overtake it"
            assert "truncated faster than it was read: records between sequence" in err.next()


def test_follow_is_not_overtaken_by_checkpoints_of_what_it_has_seen(tmp_path: Path) -> None:
    path = tmp_path / "store"
    with trax.Trax(path) as store:
        store.log(a=0)
        with following(path) as (process, out, _):
            out.next()
            for number in range(1, 8):
                store.checkpoint(a=number)
                store.checkpoint(a=number)
                store.log(a=number)
                assert out.next().endswith(f"a={number}")
            process.send_signal(signal.SIGINT)
            process.wait(WAIT_S)
            assert process.stderr is not None
            assert process.stderr.read() == b""


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def is_reading(process: subprocess.Popen[bytes], file: Path) -> bool:
    for fd in os.listdir(f"/proc/{process.pid}/fd"):
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            if os.readlink(f"/proc/{process.pid}/fd/{fd}") == os.path.realpath(file):
                return True
    return False


# verify


def test_verify_counts_what_it_has_read(path: Path) -> None:
    done = run("verify", path)
    assert done.returncode == 0
    nbytes = sum(file.stat().st_size for file in [*path.glob("log.*"), *path.glob("blobs/*")])
    assert done.stdout.splitlines() == [
        f"{path}: whole",
        f"  4 names, 2 snapshots, 1 blob, 3 segments, 10 records, {nbytes:,} bytes of blobs and log read",
    ]


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        (lambda path: flip(path / "log.00000001", 300), "log.00000001, byte 246: the frame's payload does not match"),
        (lambda path: flip(path / "blobs" / "00000001", 500), "blobs/00000001, byte 64: a part of its data"),
        (lambda path: (path / "log.00000002").unlink(), "log.00000002: a file is missing"),
        (lambda path: (path / "blobs" / "00000001").unlink(), "blobs/00000001: a file is missing"),
        (lambda path: flip(path / "snapshot", 100), "snapshot, byte 0: its contents do not match their checksum"),
        (lambda path: (path / "snapshot").unlink(), "snapshot: a file is missing"),
        (lambda path: flip(next(path.glob("kept/*")), 100), "kept/00000003, byte 0: its contents do not match"),
        (lambda path: shutil.rmtree(path / "kept"), "kept: the directory is missing"),
    ],
)
def test_verify_names_each_problem_with_file_offset_and_reason(
    path: Path, damage: Callable[[Path], None], problem: str
) -> None:
    damage(path)
    done = run("verify", path)
    assert done.returncode == 1
    assert f"\n  - {problem}" in done.stdout
    assert f"trax repair {path}" in done.stdout


def test_verify_of_a_snapshot_that_was_put_back(tmp_path: Path) -> None:
    path = tmp_path / "store"
    with trax.Trax(path) as store:
        store.checkpoint(a=1)
        older = (path / "snapshot").read_bytes()
        store.log(a=2)
        store.checkpoint(a=2)
        store.log(a=3)
    (path / "snapshot").write_bytes(older)
    done = run("verify", path)
    assert done.returncode == 1
    assert "the snapshot is older than the files beside it" in done.stdout


def test_verify_beside_a_busy_writer_finds_no_problem(tmp_path: Path) -> None:
    path = tmp_path / "store"
    code = """
        import sys, trax
        with trax.Trax(sys.argv[1], keep=2, sync="os") as store:
            print("ready", flush=True)
            number = 0
            while True:
                number += 1
                store.log(a=number)
                if number % 5 == 0:
                    store.checkpoint(a=b"x" * 20_000)
    """
    with subprocess.Popen([sys.executable, "-c", textwrap.dedent(code), path], stdout=subprocess.PIPE) as writer:
        try:
            assert writer.stdout is not None
            writer.stdout.readline()
            for _ in range(10):
                done = run("verify", path)
                assert (done.returncode, done.stderr) == (0, ""), done.stdout
                assert run("info", path).returncode == 0
                assert run("export", path).stdout.splitlines()[-1].startswith('{"end"')
        finally:
            writer.kill()


# export and import


def contents(path: Path, codec: str | None = None) -> tuple[dict[str, Any], dict[str, list[tuple[int, Any]]]]:
    """What a program would get out of a store: the checkpointed values, and the entries behind them."""
    with trax.Trax(path, mode="r", codec=codec) as store:
        fs, layout = LocalFileSystem(), Layout(path)
        snapshot = store._storage._load()  # type: ignore[union-attr]
        with LocalView(fs, layout, snapshot, snapshot, (), None) as view:
            logged = {
                entries.name
                for segment in view.segments
                for frame in view.frames(segment)
                for entries in frame.entries()
            }
        every = [*store.names(), *logged]
        first = {name: store.recover(name, replay_log=lambda state, entry: state) for name in store.names()}
        return first, {name: list(store.entries(name)) for name in every}


def test_export_and_import_give_the_same_store(path: Path, tmp_path: Path) -> None:
    done = run("export", path, "-o", tmp_path / "file.jsonl")
    assert (done.returncode, done.stdout) == (0, "")
    assert "exported 4 names and 10 records" in done.stderr
    done = run("import", tmp_path / "file.jsonl", tmp_path / "copy")
    assert done.returncode == 0
    assert done.stdout == f"imported 4 names and 10 records to {tmp_path / 'copy'}\n"
    assert identical(contents(tmp_path / "copy"), contents(path))
    assert (
        run("export", tmp_path / "copy").stdout == (tmp_path / "file.jsonl").read_text() == run("export", path).stdout
    )
    assert run("verify", tmp_path / "copy").returncode == 0
    assert run("import", "-", tmp_path / "third", stdin=run("export", path).stdout).returncode == 0
    with trax.Trax(tmp_path / "third", mode="r+") as store:
        assert store.stats()["keep"] == 2
        assert store.log(existence="?") == 14


def test_export_holds_a_line_for_each_name_and_record(path: Path) -> None:
    lines = [json.loads(line) for line in run("export", path).stdout.splitlines()]
    header = {"trax": "export", "format": 1, "version": trax.__version__}
    assert lines[0] == header | {"codec": "msgpack", "keep": 2, "sequence": 12}
    assert [line["name"] for line in lines[1:5]] == ["[red]markup", "config", "existence", "two words"]
    assert lines[2] == {"name": "config", "cut": 11, "sequence": 12, "value": 2}
    assert [line["sequence"] for line in lines[5:-1]] == [2, 3, 4, 5, 6, 7, 8, 10, 11, 13]
    assert lines[-1] == {"end": {"names": 4, "records": 10}}


names = st.one_of(
    st.sampled_from(["a", "b", "$set", "", " ", '"', "name", "entries", "trax:events/1", "é\n"]).filter(bool),
    st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=6),
)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("log"), st.dictionaries(names, values, min_size=1, max_size=2)),
        st.tuples(st.just("checkpoint"), st.dictionaries(names, values, min_size=1, max_size=2)),
    ),
    max_size=6,
)


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(steps=steps, codec=st.sampled_from(["msgpack", "json"]), other=st.sampled_from([None, "msgpack", "json"]))
def test_whatever_a_store_holds_comes_back_from_its_export(steps: Any, codec: str, other: str | None) -> None:
    memory = "/dev/shm" if os.path.isdir("/dev/shm") else None
    with tempfile.TemporaryDirectory(dir=memory) as directory:
        path, copy, file = Path(directory, "store"), Path(directory, "copy"), Path(directory, "file")
        with trax.Trax(path, codec=codec) as store:
            known = store._encoder._known_names
            known.update(name for _, mapping in steps for name in mapping)  # the layers' names too
            for call, mapping in steps:
                getattr(store, call)(mapping)
        with file.open("wb") as out:
            exported = export_store(path, out)
        with file.open("rb") as source:
            assert import_store(source, copy, codec=other) == exported
        assert same_contents(path, copy)
        assert trax.inspection.verify_store(copy).ok


def same_contents(one: Path, other: Path) -> bool:
    return identical(exported_values(one), exported_values(other))


def exported_values(path: Path) -> list[tuple[str, Any]]:
    """The lines of a store's export, the values decoded: a set may come in another order, and be the same."""
    with tempfile.TemporaryFile() as file:
        export_store(path, file)
        file.seek(0)
        lines = _Lines(file, "")
        lines.header()
        found: list[tuple[str, Any]] = []
        for line in lines:
            text = line.pop("value", "null").encode("utf-8", "surrogatepass")
            value = JsonCodec().decode_value(text, _Buffers(lines.texts(line.pop("buffers", "[]"))))
            entries = lines.members(line.pop("entries", "{}"), quoted=True)
            every = [(name, JsonCodec().decode(one.encode("utf-8", "surrogatepass"))) for name, one in entries.items()]
            found.append((repr(line), [value, every]))
        return found


def test_large_arrays_come_back_with_their_layout(tmp_path: Path) -> None:
    value = {
        "fortran": np.asfortranarray(np.arange(12_000.0).reshape(30, 400)),
        "strided": np.arange(100_001, dtype=">i4")[::7],
        "bytes": os.urandom(100_000),
        "empty": np.zeros((0, 3)),
    }
    with trax.Trax(tmp_path / "store") as store:
        store.checkpoint(state=value)
    (tmp_path / "file").write_bytes(run_bytes("export", tmp_path / "store"))
    assert run("import", tmp_path / "file", tmp_path / "copy").returncode == 0
    with trax.Trax(tmp_path / "copy", mode="r") as copy, trax.Trax(tmp_path / "store", mode="r") as store:
        assert identical(copy.recover("state"), store.recover("state"))


def test_import_never_changes_a_store(path: Path, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text(run("export", path).stdout)
    before = all_files(path)
    done = run("import", file, path)
    assert done.returncode == 1
    assert "there is a store at" in done.stderr
    assert all_files(path) == before
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / ".hidden").write_text("mine")
    done = run("import", file, tmp_path / "other")
    assert (done.returncode, (tmp_path / "other" / ".hidden").read_text()) == (1, "mine")
    (tmp_path / "empty").mkdir()
    assert run("import", file, tmp_path / "empty").returncode == 0


def one_more(lines: list[str]) -> list[str]:
    return [*lines[:-1], lines[-1].replace('"records": 10', '"records": 11')]


def broken_exports() -> dict[str, Callable[[list[str]], list[str]]]:
    return {
        "the last line is missing": lambda lines: lines[:-1],
        "a record is missing": lambda lines: lines[:6] + lines[7:],
        "a name is missing": lambda lines: lines[:2] + lines[3:],
        "the last line is cut": lambda lines: [*lines[:-1], lines[-1][:-6]],
        "a record is twice there": lambda lines: one_more([*lines[:6], lines[5], *lines[6:]]),
        "records are in another order": lambda lines: [*lines[:5], lines[6], lines[5], *lines[7:]],
        "a name is twice there": lambda lines: [*lines[:3], lines[2], *lines[3:]],
        "something follows": lambda lines: [*lines, lines[-1]],
        "it is empty": lambda lines: [],
        "it is something else": lambda lines: ["hello"],
        "it is newer": lambda lines: [lines[0].replace('"format": 1', '"format": 2'), *lines[1:]],
        "a value is nonsense": lambda lines: [
            *lines[:2],
            lines[2].replace('"value": 2', '"value": {"$set": 1}'),
            *lines[3:],
        ],
        "a cut is nonsense": lambda lines: [*lines[:2], lines[2].replace('"cut": 11', '"cut": 99'), *lines[3:]],
        "a name is nonsense": lambda lines: [*lines[:2], lines[2].replace('"config"', '""'), *lines[3:]],
        "a record is not behind the cut": lambda lines: one_more(
            [*lines[:5], '{"sequence": 1, "entries": {"config": 1}}', *lines[5:]]
        ),
        "a buffer is missing": lambda lines: [
            line.replace('"buffers": ["', '"buffers": [], "more": ["') for line in lines
        ],
        "a buffer is short": lambda lines: [line.replace('"buffers": ["AAAA', '"buffers": ["') for line in lines],
    }


@pytest.mark.parametrize("what", broken_exports())
def test_a_broken_export_leaves_no_store(path: Path, tmp_path: Path, what: str) -> None:
    lines = run("export", path).stdout.splitlines()
    broken = broken_exports()[what](lines)
    assert broken != lines
    file = tmp_path / "file"
    file.write_text("".join(f"{line}\n" for line in broken))
    done = run("import", file, tmp_path / "copy")
    assert done.returncode == 1
    assert done.stderr.startswith(f"trax: {file} ")
    assert sorted(one.name for one in tmp_path.iterdir()) == ["file", "store"]


def test_an_export_that_fails_leaves_the_old_file(path: Path, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("the old one")
    flip(path / "log.00000002", 300)
    assert run("export", path, "-o", file).returncode == 1
    assert file.read_text() == "the old one"
    assert sorted(one.name for one in tmp_path.iterdir()) == ["file", "store"]
    assert '"end"' not in run("export", path).stdout


OWN_TYPES = """
import dataclasses, trax

@trax.register(name="shape")
@dataclasses.dataclass
class Shape:
    sides: int

    def __repr__(self):
        return f"\\x1b[31mShape\\n{self.sides}"
"""


def test_registered_types_need_the_module_that_registers_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "shapes.py").write_text(OWN_TYPES)
    code = (
        "import shapes, trax\nwith trax.Trax('store') as s: s.checkpoint(a=shapes.Shape(3)); s.log(a=shapes.Shape(4))"
    )
    path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, env=environment(PYTHONPATH=path))
    monkeypatch.setenv("PYTHONSAFEPATH", "1")  # as with the command itself, where no module is found beside the caller
    for command in ("export", "log"):
        done = run(command, "store", cwd=tmp_path)
        assert done.returncode == 1
        assert "'shape', which is not registered" in done.stderr
        assert "--import-module" in done.stderr
    module = ("--import-module", "shapes")
    assert run("log", "store", *module, cwd=tmp_path).stdout == "       2  a=\\x1b[31mShape 4\n"
    exported = run("export", "store", *module, cwd=tmp_path).stdout
    assert '"value": {"$type": ["shape", {"sides": 3}]}' in exported
    done = run("import", "-", "copy", stdin=exported, cwd=tmp_path)
    assert (done.returncode, (tmp_path / "copy").exists()) == (1, False)
    assert run("import", "-", "copy", *module, stdin=exported, cwd=tmp_path).returncode == 0
    assert run("export", "copy", *module, cwd=tmp_path).stdout == exported
    done = run("log", "store", "--import-module", "no_such_module", cwd=tmp_path)
    assert done.returncode == 1
    assert "--import-module no_such_module: it can't be imported" in done.stderr


def test_pickle_stores_must_be_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "store"
    with trax.Trax(path, codec="pickle") as store:
        store.checkpoint(plain=[1, (2,)], odd=ValueError("x"), array=np.arange(30_000))
        store.log(odd=slice(1, 2), plain=3)
    for command in ("export", "log"):
        done = run(command, path)
        assert (done.returncode, done.stdout) == (1, "")
        assert "--codec pickle" in done.stderr
    assert run("info", path).returncode == run("verify", path).returncode == 0
    assert run("log", path, "--codec", "pickle").stdout == "       2  odd=slice(1, 2, None)  plain=3\n"
    exported = run("export", path, "--codec", "pickle").stdout
    assert '"value": [1, {"$tuple": [2]}]' in exported
    assert '"value": {"$pickle": "' in exported
    done = run("import", "-", tmp_path / "copy", stdin=exported)
    assert done.returncode == 1
    assert "--codec pickle" in done.stderr
    assert run("import", "-", tmp_path / "copy", "--codec", "msgpack", stdin=exported).returncode == 1
    assert not (tmp_path / "copy").exists()
    assert run("import", "-", tmp_path / "copy", "--codec", "pickle", stdin=exported).returncode == 0
    with trax.Trax(tmp_path / "copy", codec="pickle", mode="r") as store:
        assert (
            repr(store.recover("odd", replay_log=lambda state, entry: [state, entry]))
            == "[ValueError('x'), slice(1, 2, None)]"
        )
        assert store.recover("plain", replay_log=lambda state, entry: state) == [1, (2,)]
        assert identical(store.recover("array"), np.arange(30_000))


def test_the_wrong_codec_is_refused(path: Path) -> None:
    done = run("export", path, "--codec", "json")
    assert done.returncode == 1
    assert "was created with codec='msgpack'" in done.stderr


# unlock


def test_unlock_has_nothing_to_do_where_there_are_locks(path: Path) -> None:
    done = run("unlock", path, "--yes")
    assert done.returncode == 1
    assert "nobody holds it, and there is nothing to unlock" in done.stdout
    with trax.Trax(path) as store:
        done = run("unlock", path, "--yes")
        assert done.returncode == 1
        assert f"It is held by pid {os.getpid()}" in " ".join(done.stdout.split())
        store.log(trace=1)


def owner_file(path: Path, **changes: Any) -> None:
    (path / "owner").write_text(json.dumps(this_process() | changes))


def test_unlock_says_whose_lock_it_is_and_asks(path: Path) -> None:
    owner_file(path, host="elsewhere", pid=4711)
    done = run("unlock", path)
    assert done.returncode == 3
    assert "names pid 4711 on elsewhere" in done.stdout
    assert "can't be told from here" in done.stdout
    assert "--yes" in done.stderr
    assert (path / "owner").exists()
    for typed, code in (("n\n", 3), ("\n", 3), ("\x04", 3), ("y\n", 0)):
        assert (path / "owner").exists()
        got, shown = on_terminal("unlock", path, typed=typed)
        assert got == code
        assert "4711" in shown and "[y/N]" in shown
    assert not (path / "owner").exists()
    assert not list(path.glob("owner*"))


def test_unlock_of_an_owner_that_is_gone(path: Path) -> None:
    owner_file(path, pid=2**22 + 1)
    done = run("unlock", path, "--yes")
    assert done.returncode == 0
    assert "which has ended" in done.stdout
    assert not (path / "owner").exists()


def test_unlock_never_frees_a_store_whose_writer_runs(path: Path) -> None:
    owner_file(path)
    done = run("unlock", path, "--yes")
    assert done.returncode == 1
    assert "which is running. End it first" in done.stdout
    assert (path / "owner").exists()
    assert f"held, by an owner file by pid {os.getpid()}" in run("info", path).stdout


def test_unlock_of_an_owner_file_that_says_nothing(path: Path) -> None:
    (path / "owner").write_bytes(b"")
    done = run("unlock", path, "--yes")
    assert done.returncode == 0
    assert "a process that did not say who it is" in done.stdout


def test_unlock_does_not_take_the_file_of_a_writer_that_came_meanwhile(path: Path) -> None:
    from trax.unlock import OwnerFile

    owner_file(path, host="elsewhere")
    file = OwnerFile(LocalFileSystem(), Layout(path))
    owner_file(path, host="yet another")
    with pytest.raises(trax.TraxError, match="another writer has taken over"):
        file.remove()
    assert json.loads((path / "owner").read_text())["host"] == "yet another"
    assert not list(path.glob("owner.*"))
