"""What all tests share: threads, plots without a screen, property-test settings, shared data."""

from __future__ import annotations

import os
from pathlib import Path

# Before anything imports torch or matplotlib. Each xdist worker has one core to itself.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("MKL_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "Agg")

import pytest
from hypothesis import settings

REPOSITORY = Path(__file__).resolve().parent.parent
SHARED_DATA = "MSR_D2_SHARED_DATA"

# No deadline: a busy machine is not a failure. Derandomised: a red run stays red when repeated.
settings.register_profile("repository", deadline=None, derandomize=True)
settings.load_profile("repository")


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the repository."""
    return REPOSITORY


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data sets; the test is skipped on a machine that does not have it."""
    folder = Path(os.environ.get(SHARED_DATA, REPOSITORY.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no shared data at {folder}; set {SHARED_DATA} to the folder that has it")
    return folder
