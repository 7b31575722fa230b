"""Helpers of the policy language's tests."""

import os
from collections.abc import Callable

import pytest
from hypothesis import settings

from hostwarden.policy.model import Policy
from hostwarden.policy.parse import parse_policy

# Two cores are shared with everything else that runs: an example's wall-clock time says nothing.
settings.register_profile("shared-machine", deadline=None)
settings.load_profile("shared-machine")

USERS = {"alice": 1000, "bob": 1001, "root": 0}

MakePolicy = Callable[..., Policy]


@pytest.fixture(scope="session")
def policy() -> MakePolicy:
    """Makes a policy from the YAML of its rules and the rest: ``policy("- deny: exec", otherwise="{exec: deny}")``."""

    def make(rules: str = "", name: str = "p", **rest: str) -> Policy:
        lines = [f"policy: {name}", f"for: {rest.pop('selector', '{}')}"]
        lines += [f"{key}: {value}" for key, value in rest.items()]
        if rules:
            lines += ["rules:", *(f"  {line}" for line in rules.splitlines())]
        return parse_policy("\n".join(lines).encode(), f"/etc/hostwarden/{name}.yaml", USERS.get)

    return make


@pytest.fixture(scope="session")
def examples() -> int:
    """How many inputs a fuzz test makes; the acceptance run sets HOSTWARDEN_EXAMPLES."""
    return int(os.environ.get("HOSTWARDEN_EXAMPLES", "1000"))
