"""Who a writer is, and whether another one is provably gone. Reads the machine's facts, never the store's files."""

from __future__ import annotations

import json
import os
import socket
import time
from typing import Any

Owner = dict[str, Any]
"""host, boot, pid, started (of the process, in the system's ticks), since (text), job, run, handle (random)."""


def this_process() -> Owner:
    """What the lock file says of its holder."""
    return {
        "host": socket.gethostname(),
        "boot": _boot(),
        "pid": os.getpid(),
        "started": _process_start(os.getpid()),
        "since": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "job": os.environ.get("SLURM_JOB_ID"),
        "handle": os.urandom(8).hex(),
        "run": int(os.environ.get("SLURM_RESTART_COUNT", "0") or "0"),
    }


def encode_owner(owner: Owner) -> bytes:
    return json.dumps(owner).encode() + b"\n"


def decode_owner(data: bytes) -> Owner:
    """What the file says; empty when it says nothing that can be understood."""
    try:
        owner = json.loads(data)
    except (ValueError, RecursionError):
        return {}
    return owner if isinstance(owner, dict) else {}


def describe(owner: Owner) -> str:
    """The holder, in words."""
    if not owner:
        return "a process that did not say who it is"
    if is_this_process(owner):
        return f"this very process (pid {owner['pid']}, since {owner.get('since')}); close the other handle first"
    job = f", job {owner['job']}" if owner.get("job") else ""
    return f"pid {owner.get('pid')} on {owner.get('host')}, since {owner.get('since')}{job}"


def is_this_process(owner: Owner) -> bool:
    mine = this_process()
    return bool(owner) and all(owner.get(key) == mine[key] for key in ("host", "boot", "pid", "started"))


def is_gone(owner: Owner) -> bool:
    """Whether the owner has provably ended: on this host and boot no such process, or an earlier run of this job."""
    mine = this_process()
    job, run = owner.get("job"), owner.get("run")
    if mine["job"] is not None and job == mine["job"] and isinstance(run, int) and run < mine["run"]:
        return True
    if owner.get("boot") is None or owner.get("boot") != mine["boot"] or owner.get("host") != mine["host"]:
        return False
    said, found = _started(owner)
    return said is not None and found != said


def is_running(owner: Owner) -> bool:
    """Whether the owner is a process that runs on this host, since this boot."""
    mine = this_process()
    if owner.get("boot") is None or any(owner.get(key) != mine[key] for key in ("boot", "host")):
        return False
    said, found = _started(owner)
    return said is not None and found == said


def _started(owner: Owner) -> tuple[int | None, int | None]:
    """When the owner says that its process began, and when that of this number did; None for what is not known."""
    pid, started = owner.get("pid"), owner.get("started")
    if type(pid) is not int or type(started) is not int or not 0 < pid < 2**31:
        return None, None
    return started, _process_start(pid)


def _boot() -> str | None:
    return _first_line("/proc/sys/kernel/random/boot_id")


def _process_start(pid: int) -> int | None:
    """When a process began, in ticks since boot; None when there is none, or the system does not say."""
    line = _first_line(f"/proc/{pid}/stat")
    # The second field is the program's name in parentheses, and may itself hold spaces and parentheses.
    return int(line.rpartition(")")[2].split()[19]) if line else None


def _first_line(path: str) -> str | None:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.readline().strip()
    except (FileNotFoundError, NotADirectoryError, ProcessLookupError):
        return None
