"""The scenarios on this kernel: each row's promise for its kind of host is what happens (tests/scenarios/README.md)."""

from collections.abc import Callable
from typing import Any

import pytest

from hostwarden.cli.scenarios.model import load
from tests.host.conftest import Hostwarden
from tests.host.scenario_run import RUN_S, run_scenarios

ROWS = load().rows


@pytest.fixture(scope="module")
def told(start_hostwarden: Callable[..., Hostwarden]) -> dict[str, Any]:
    """One run for all rows."""
    return run_scenarios(start_hostwarden())


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
