"""The table of roles names every call of the contract, and gives each role what the design says."""

import pytest

from hostwarden.wire import hostwarden_pb2 as pb
from hostwarden.wire.roles import ALL_CALLS, DOORS, Role, refusal

#                              admin responder auditor agent
TABLE = {
    "Status": (True, True, True, True),
    "Doctor": (True, True, True, False),
    "Ps": (True, True, True, False),
    "Events": (True, True, True, False),
    "Kill": (True, True, False, False),
    "Freeze": (True, True, False, False),
    "Release": (True, True, False, False),
    "Bind": (True, False, False, True),
    "Adopt": (True, False, False, False),
    "Reload": (True, False, False, False),
    "Arm": (True, False, False, False),
}


def test_every_call_of_the_contract_is_in_the_table() -> None:
    methods = {method.name for method in pb.DESCRIPTOR.services_by_name["Host"].methods}
    assert methods == ALL_CALLS == set(TABLE)


@pytest.mark.parametrize("call", TABLE)
@pytest.mark.parametrize("role", Role)
def test_who_may_call_what(role: Role, call: str) -> None:
    assert (refusal(role, call) is None) == TABLE[call][list(Role).index(role)]


def test_refusal_says_which_socket_would_do() -> None:
    assert refusal(Role.AUDITOR, "Kill") == (
        "kill is not permitted on auditor.sock",
        "it needs the socket of: admin, responder",
    )


@pytest.mark.parametrize("role", Role)
def test_unary_calls_keep_workers_when_all_streams_are_taken(role: Role) -> None:
    limits = DOORS[role].limits
    assert limits.workers - limits.streams >= 2


def test_one_uid_cannot_take_all_workers_of_agents() -> None:
    limits = DOORS[Role.AGENT].limits
    assert limits.per_uid * limits.calls < limits.workers
    assert limits.max_age_s is not None
