"""Real file systems that crash, lose their disk, or are full: nothing acknowledged is lost, and the store opens.

Each trial is a process of its own, in namespaces of its own: when it ends, however it does, the kernel unmounts what it
mounted, detaches its loop devices, and ends its workers.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.counting import count
from tests.surviving import NOT_HERE

SHUTDOWNS = int(os.environ.get("TRAX_SHUTDOWNS", "5"))
SEED = os.environ.get("TRAX_SEED", "20261121")
KINDS = ["ext4", "xfs", "btrfs"]
ROOT = Path(__file__).resolve().parent.parent
NAMESPACES = ["unshare", "--mount", "--propagation", "slave", "--pid", "--fork", "--kill-child", "--mount-proc"]
TOOLS = ["setpriv", "unshare", "mount", "umount", "losetup", "mkfs.ext4"]

pytestmark = pytest.mark.root
Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts a trial; at the end there is nothing left of it."""
    started: list[subprocess.Popen[str]] = []

    def start(what: str, kind: str, rounds: int) -> subprocess.Popen[str]:
        for tool in [*TOOLS, f"mkfs.{kind}"]:
            if shutil.which(tool) is None:
                pytest.skip(f"{tool} is not installed")
        tried = subprocess.run([*NAMESPACES, "true"], capture_output=True, text=True, check=False)
        if tried.returncode:
            pytest.skip(f"no mount namespace can be made here: {tried.stderr.strip()}")
        print(f"TRAX_SEED={SEED}")
        trial = [sys.executable, "-m", "tests.surviving", what, str(tmp_path), kind, str(rounds), SEED]
        command = ["setpriv", "--pdeathsig", "KILL", *NAMESPACES, *trial]  # it ends with us, even if we are killed
        # The checkout comes last, for "tests": the trax that is tested may be an installed one.
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([*sys.path, str(ROOT)])}
        started.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment))
        return started[-1]

    try:
        yield start
    finally:
        for trial in started:
            with trial:
                trial.kill()
        await_release(tmp_path / "beneath.image")
        for image in tmp_path.glob("*.image"):
            image.unlink()


def await_release(image: Path) -> None:
    """Until no loop device has it; that device holds all that was mounted on it."""
    deadline = time.monotonic() + 20
    while image.exists() and (devices := loop_devices(image)):
        assert time.monotonic() < deadline, f"{image} is still attached: {devices}"
        time.sleep(0.02)


def loop_devices(image: Path) -> str:
    return subprocess.run(["losetup", "--associated", image], capture_output=True, text=True, check=True).stdout


def run(trial: subprocess.Popen[str]) -> None:
    said, _ = trial.communicate()
    print(said)
    last = said.splitlines()[-1] if said else ""
    if trial.returncode == NOT_HERE:
        pytest.skip(last)
    assert trial.returncode == 0, "see its traceback"
    for method, cases in json.loads(last).items():
        count(method, cases)


@pytest.mark.parametrize("kind", KINDS)
def test_what_was_acknowledged_survives_the_crash_of_a_file_system(start: Start, kind: str) -> None:
    run(start("crash", kind, SHUTDOWNS))


@pytest.mark.parametrize("kind", KINDS)
def test_a_full_file_system_costs_nothing_acknowledged(start: Start, kind: str) -> None:
    run(start("fill", kind, max(1, SHUTDOWNS // 5)))


def test_a_trial_that_is_killed_leaves_nothing_mounted(start: Start, tmp_path: Path) -> None:
    trial = start("crash", "ext4", 1000)
    assert trial.stdout is not None
    lines = iter(trial.stdout.readline, "")
    if not any(line.startswith("round 1:") for line in lines):
        pytest.skip("ext4 can't be crashed here: see the other tests")
    assert loop_devices(tmp_path / "beneath.image")
    trial.send_signal(signal.SIGKILL)
    await_release(tmp_path / "beneath.image")
    assert not os.path.ismount(tmp_path / "beneath") and not os.path.ismount(tmp_path / "mounted")
