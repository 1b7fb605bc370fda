"""Fixtures for pytest, which finds them by itself where trax is installed; ``-p no:trax`` leaves them out.

``trax_directory``    an empty directory, as a ``str``
``trax_store``        an open store in it, which is read back and verified when the test has ended
``crash_everywhere``  :func:`trax.testing.crash_everywhere`
``check_replay``      :func:`trax.testing.check_replay`

Nothing is imported here that a test session without these fixtures would not need.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from trax import Trax
    from trax.testing import CrashReport, ReplayReport


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("trax")
    group.addoption(
        "--trax-seed",
        default=0,
        metavar="SEED",
        help="what crash_everywhere() chooses by chance: other disks after a power loss, other second crashes",
    )


@pytest.fixture
def trax_directory(tmp_path: Path) -> str:
    """An empty directory for stores and whatever else a job writes, as a ``str``."""
    path = tmp_path / "trax"
    path.mkdir()
    return str(path)


@pytest.fixture
def trax_store(trax_directory: str) -> Iterator[Trax]:
    """An open store in ``trax_directory``. When the test has ended it is closed, and every byte of it verified."""
    import trax
    from trax.inspection import verify_store

    path = f"{trax_directory}/store.trax"
    with trax.Trax(path) as store:
        yield store
    problems = verify_store(path).problems
    assert not problems, f"the store was damaged: {problems[0]}"


@pytest.fixture
def crash_everywhere(pytestconfig: pytest.Config) -> Callable[..., CrashReport]:
    """:func:`trax.testing.crash_everywhere`, which also prints its report; the seed comes from ``--trax-seed``."""
    from trax import testing

    def crash_everywhere(job: Callable[[str], Any], **options: Any) -> CrashReport:
        __tracebackhide__ = True
        report = testing.crash_everywhere(job, **{"seed": pytestconfig.getoption("trax_seed"), **options})
        print(report)
        return report

    return crash_everywhere


@pytest.fixture
def check_replay() -> Callable[..., ReplayReport]:
    """:func:`trax.testing.check_replay`."""
    from trax import testing

    return testing.check_replay
