"""What a hostile store must not do to the process that looks at it: take its memory, its time, or its other files."""

from __future__ import annotations

import os
import re
import resource
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


class HangError(BaseException):
    """It took too long."""


@contextmanager
def bounded(nbytes: int, seconds: float = 10.0) -> Iterator[None]:
    """The block may take so much more memory than there is now, and so much time of the processor.

    Otherwise MemoryError, where the system can tell; AssertionError; or, where it waits for ever, HangError.
    """

    def hang(*_: Any) -> None:
        raise HangError(f"more than {10 * seconds} seconds")

    old_handler = signal.signal(signal.SIGALRM, hang)
    old_limit = resource.getrlimit(resource.RLIMIT_AS)
    if sys.platform == "linux":
        resource.setrlimit(resource.RLIMIT_AS, (_address_space() + nbytes, old_limit[1]))
    signal.setitimer(signal.ITIMER_REAL, 10 * seconds)  # the machine may have other things to do
    began = time.process_time()
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        resource.setrlimit(resource.RLIMIT_AS, old_limit)
        signal.signal(signal.SIGALRM, old_handler)
    # A loop inside C lets no signal through.
    assert time.process_time() - began < seconds, "it took too long"


def _address_space() -> int:
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[0]) * resource.getpagesize()


class Watch:
    """Notes everything below this process's calls that reaches outside of some directories, or runs code.

    The interpreter itself tells (PEP 578), whoever makes the call and however.
    """

    def __init__(self) -> None:
        self.active = False
        self.inside: tuple[str, ...] = ()
        self.seen: list[str] = []
        sys.addaudithook(self._hook)

    @contextmanager
    def over(self, *inside: str) -> Iterator[None]:
        """What is done in the block stays below these directories, or AssertionError."""
        self.inside = tuple(map(os.path.realpath, inside))
        self.seen = []
        self._removing = False
        writes_bytecode, sys.dont_write_bytecode = sys.dont_write_bytecode, True
        self.active = True
        try:
            yield
        finally:
            self.active = False
            sys.dont_write_bytecode = writes_bytecode
        assert self.seen == [], self.seen

    def _hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.active:
            return
        self.active = False  # what is done here is not looked at
        try:
            problem = self._problem(event, arguments)
        finally:
            self.active = True
        if problem is not None:
            self.seen.append(f"{event}: {problem}")

    def _problem(self, event: str, arguments: tuple[Any, ...]) -> str | None:
        if event in _RUNS_CODE:
            return repr(arguments)
        if self._removing and isinstance(arguments[0], str) and os.path.basename(arguments[0]) == arguments[0]:
            return None  # below a directory that was found to be inside, which is open
        if event == "import":
            name = str(arguments[0])
            known = name.partition(".")[0] in sys.stdlib_module_names or _OURS.match(name)
            return None if known else f"the module {name!r}"
        if event == "open":
            return self._opened(*arguments)
        if event in _CHANGES:
            paths = [one for one in arguments[: _CHANGES[event]] if isinstance(one, str | bytes)]
            follows = event in ("os.listdir", "os.scandir")
            paths = [os.fsdecode(one) for one in paths]
            outside = [one for one in paths if not self._is_inside(one, last_link=follows)]
            if follows and all(_READABLE.match(one) or one.startswith(_MODULES) for one in outside):
                return None
            self._removing |= event == "shutil.rmtree" and not outside
            return f"outside: {outside}" if outside else None
        return None

    def _opened(self, path: Any, _: Any, flags: int) -> str | None:
        if not isinstance(path, str | bytes):
            return None
        path = os.fsdecode(path)
        if self._is_inside(path, last_link=not flags & os.O_NOFOLLOW):
            return None
        if flags & os.O_DIRECTORY and any(one.startswith(os.path.join(path, "")) for one in self.inside):
            return None  # above: to bring a name in it to stable storage
        writes = flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND)
        if not writes and _READABLE.match(os.path.realpath(path)):
            return None
        return f"{path!r} for {'writing' if writes else 'reading'}"

    def _is_inside(self, path: str, *, last_link: bool) -> bool:
        """``last_link``: whether the system follows a link that is the last part of the path."""
        path = os.path.abspath(path)
        real = os.path.realpath(os.path.dirname(path)) + os.sep + os.path.basename(path)
        real = os.path.realpath(path) if last_link else real
        return real.startswith(tuple(one + os.sep for one in self.inside)) or real in self.inside


_RUNS_CODE = {
    "pickle.find_class",
    "subprocess.Popen",
    "os.system",
    "os.exec",
    "os.posix_spawn",
    "os.fork",
}
_OURS = re.compile(r"(trax|numpy|tzdata|msgpack|filelock|rich|pygments|tests)(\.|$)")
_CHANGES = {
    "os.rename": 2,
    "os.link": 2,
    "os.symlink": 2,
    "os.remove": 1,
    "os.mkdir": 1,
    "os.rmdir": 1,
    "os.truncate": 1,
    "os.chmod": 1,
    "os.chown": 1,
    "os.utime": 1,
    "shutil.rmtree": 1,
    "os.mkfifo": 1,
    "os.listdir": 1,
    "os.scandir": 1,
}
"""How many of the arguments of an event are paths."""

_MODULES = tuple({sys.prefix, sys.base_prefix, str(Path(__file__).parent.parent)})
"""Where modules are looked for."""

_READABLE = re.compile(r"/(proc|usr/(share|lib)/zoneinfo|etc/zoneinfo|dev/null)(/|$)|.*\.(py|pyc|so)$|.*/tzdata(/|$)")
"""What may be read outside: what the system says of itself, time zones, and modules."""
