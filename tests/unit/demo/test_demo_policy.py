"""The demo's policy: it parses without a mistake, and decides its cases as they say."""

import pytest

from hostwarden.policy.cases import Result, parse_cases, run_cases
from hostwarden.policy.check import check
from hostwarden.policy.parse import parse_policy
from tests.demo.main import POLICY

CASES = POLICY.parent.parent / "cases.yaml"
BILLING = parse_policy(POLICY.read_bytes(), POLICY.name, lambda _: None)
RESULTS = run_cases([BILLING], parse_cases(CASES.read_bytes(), CASES.name, lambda _: None))


@pytest.mark.parametrize("result", RESULTS, ids=lambda result: f"line{result.case.line}")
def test_case(result: Result) -> None:
    assert result.mistakes == ()


def test_only_warnings_are_that_argv_rules_are_tripwires() -> None:
    strangers = [warning for warning in check([BILLING]) if "tripwire" not in warning.message]
    assert strangers == []


def test_observe_is_one_word_away() -> None:
    assert POLICY.read_text().count("mode: enforce\n") == 1  # what ./dev demo --observe replaces
