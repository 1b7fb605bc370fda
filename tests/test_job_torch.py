"""torch's global generator is part of a job's steps: with the real torch, where it is installed."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

import trax
from trax.errors import InvalidArgumentError
from trax.testing import crash_everywhere

numpy = pytest.importorskip("numpy", reason="NumPy is not installed")
torch = pytest.importorskip("torch", reason="torch is not installed")


def train(directory: str) -> list[float]:
    """A job whose only source of chance is torch's: weights, batches and dropout."""
    torch.set_num_threads(1)
    random.seed(5)
    numpy.random.seed(5)  # all global generators are captured
    torch.manual_seed(5)
    with trax.Job(Path(directory, "job.trax")) as job:
        job.capture_global_rng()
        weights = torch.frombuffer(
            bytearray(job.recover("weights", lambda: torch.zeros(4).numpy().tobytes())), dtype=torch.float32
        )
        out = job.open(Path(directory, "losses.txt"))
        for _ in job.loop(range(5)):
            batch = torch.randn(3, 4)
            weights = torch.nn.functional.dropout(weights + batch.mean(0), 0.3)
            out.write(f"{float(weights.sum())!r}\n")
            job.log(weights=weights.numpy().tobytes())
    return weights.tolist()


def test_a_job_on_torch_that_is_killed_everywhere_ends_as_if_it_had_not_been() -> None:
    report = crash_everywhere(train)
    assert report.tried == report.points > 10


def test_the_generator_goes_on_where_the_last_committed_step_left_it(tmp_path: Path) -> None:
    def work(fail: bool) -> list[Any]:
        torch.manual_seed(5)
        drawn = []
        with trax.Job(tmp_path / "job.trax") as job:
            job.capture_global_rng()
            for step in job.loop(range(4)):
                drawn.append((torch.randn(2).tolist(), torch.randint(100, ()).item(), torch.randn(()).item()))
                if fail and step == 2:
                    raise ZeroDivisionError
        return drawn

    torch.manual_seed(5)
    whole = [(torch.randn(2).tolist(), torch.randint(100, ()).item(), torch.randn(()).item()) for _ in range(4)]
    with pytest.raises(ZeroDivisionError):
        work(True)
    assert work(False) == whole[2:]


def test_another_number_of_devices_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def work() -> None:
        with trax.Job(tmp_path / "job.trax") as job:
            job.capture_global_rng()
            for _ in job.loop(range(3)):
                torch.randn(1)
                if len(states) == 2:
                    raise ZeroDivisionError

    states = [torch.get_rng_state(), torch.get_rng_state()]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: len(states))
    monkeypatch.setattr(torch.cuda, "get_rng_state_all", lambda: states)
    monkeypatch.setattr(torch.cuda, "set_rng_state_all", lambda given: None)
    with pytest.raises(ZeroDivisionError):
        work()
    del states[1]
    with pytest.raises(InvalidArgumentError, match="2 CUDA devices are stored, and there are 1 here"):
        work()
