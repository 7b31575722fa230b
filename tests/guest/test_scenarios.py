"""The scenarios on this guest's kernel: everything is prevented, and each exception is one that the table names."""

from collections.abc import Iterator
from typing import Any

import pytest

from hostwarden.cli.scenarios.model import load
from tests.guest.daemon import started
from tests.host.scenario_run import RUN_S, run_scenarios

ROWS = load().rows


@pytest.fixture(scope="module")
def told() -> Iterator[dict[str, Any]]:
    """One run for all rows."""
    with started() as daemon:
        yield run_scenarios(daemon)


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
