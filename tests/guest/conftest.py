"""Runs in a guest only (./dev vm test): what the guest is called says which kernel and tiers must be there."""

import json
import os
from pathlib import Path

import pytest

from tests.host.conftest import program as program  # the fixture

GUESTS = json.loads((Path(__file__).resolve().parents[2] / "vagrant" / "guests.json").read_text())


def pytest_configure() -> None:
    """Raises UsageError outside a guest: a suite that answers for another kernel answers nothing."""
    if os.environ.get("HOSTWARDEN_GUEST") not in GUESTS:
        raise pytest.UsageError("tests/guest runs in guests, which name themselves; try: ./dev vm test")


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Failures are told as they come: an emulated guest's suite takes long, and may be ended before its summary."""
    if report.failed:
        print(f"\n{report.nodeid}\n{report.longreprtext}", flush=True)


@pytest.fixture(scope="session")
def guest() -> str:
    """The guest's name: 6.1, 6.12 or 6.12-nolsm."""
    return os.environ["HOSTWARDEN_GUEST"]
