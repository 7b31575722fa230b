"""The scenarios on this guest's kernel: everything is prevented, and each exception is one that the table names."""

import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hostwarden.cli.scenarios.model import load
from tests.host.conftest import Hostwarden
from tests.host.scenario_run import RUN_S, run_scenarios

ROWS = load().rows
READY_S = 300  # where the processor is emulated, compiling takes its time


def wait_until_ready(daemon: Hostwarden) -> None:
    """Asks seldom: here each question is work that keeps the daemon from its own."""
    ends = time.monotonic() + READY_S
    while not daemon.is_ready():
        assert time.monotonic() < ends, daemon.log_file.read_text()
        time.sleep(1)


@pytest.fixture(scope="module")
def told() -> Iterator[dict[str, Any]]:
    """One run for all rows, against a daemon in folders of its own."""
    daemon = Hostwarden(Path(tempfile.mkdtemp(prefix="hw-guest-", dir="/var/tmp")))
    daemon.root.chmod(0o755)
    try:
        daemon.spawn()
        wait_until_ready(daemon)
        yield run_scenarios(daemon)
    finally:
        daemon.take_down()
        shutil.rmtree(daemon.root, ignore_errors=True)


@pytest.mark.timeout(RUN_S)
def test_tier_is_what_the_guest_is_for(told: dict[str, Any], guest: str) -> None:
    assert told["kind"] == ("modify_return" if guest.endswith("-nolsm") else "lsm")


@pytest.mark.timeout(RUN_S)
@pytest.mark.parametrize("number", range(len(ROWS)), ids=[f"{row.section}: {row.name}" for row in ROWS])
def test_promise_is_kept(told: dict[str, Any], number: int) -> None:
    scenario = told["scenarios"][number]
    assert scenario["name"] == ROWS[number].name
    assert scenario["problems"] == []


@pytest.mark.timeout(RUN_S)
def test_doctor_says_what_is_not_refused(told: dict[str, Any]) -> None:
    assert told["unsaid"] == []


@pytest.mark.timeout(RUN_S)
def test_nothing_is_left_of_it(told: dict[str, Any]) -> None:
    assert told["left"] == []
