"""The longest prefix that holds an address says what the oracle says."""

import os
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hostwarden.policy import budget as budgets
from hostwarden.policy import clauses, nets
from hostwarden.policy.address import packed, parse_net
from hostwarden.policy.compile import compile_profile
from hostwarden.policy.evaluate import decide_net, user_class
from hostwarden.policy.globs import parse_unix
from hostwarden.policy.labels import Selector
from hostwarden.policy.model import NetPattern, Policy, Rule, ToPattern, UnixPattern
from hostwarden.policy.oracle import Attempt, Ruling, decide
from hostwarden.policy.tables import Profile
from hostwarden.policy.words import NET_ACTIONS, Action, Mode, Verdict

EXAMPLES = int(os.environ.get("HOSTWARDEN_EXAMPLES", "200"))
MakePolicy = Callable[..., Policy]

NETS = [
    "*",
    "10.0.0.0/8",
    "10.1.0.0/16",
    "10.1.2.3",
    "10.1.2.2/31",
    "0.0.0.0/0",
    "[fd00::/8]",
    "[fd00::1]",
    "[2000::/3]",
]
ADDRESSES = ["10.1.2.3", "10.1.2.2", "10.1.9.9", "10.9.9.9", "11.0.0.1", "fd00::1", "fd00::2", "2000::1", "::1", "::"]
PORTS = [0, 53, 443, 444, 65535]

targets = st.builds("{}:{}".format, st.sampled_from(NETS), st.sampled_from(["*", "53", "443"])).map(
    lambda text: NetPattern(text, 1, 1, parse_net(text))
)
sockets = st.sampled_from(["**", "/x", "@x"]).map(lambda text: UnixPattern(text, 1, 1, tuple(parse_unix(text))))
verdicts = st.sampled_from([Verdict.ALLOW, Verdict.AUDIT, Verdict.DENY, Verdict.KILL])
actions = st.lists(st.sampled_from([*NET_ACTIONS, Action.READ]), min_size=1, max_size=3, unique=True).map(tuple)
users = st.none() | st.lists(st.sampled_from([0, 1000, 1001]), min_size=1, unique=True).map(tuple)


def rule(
    line: int,
    verdict: Verdict,
    named: tuple[Action, ...],
    to: tuple[ToPattern, ...] | None,
    excepted: tuple[ToPattern, ...],
    uids: tuple[int, ...] | None,
) -> Rule:
    """A rule; conditions on addresses only for network actions, as the parser has it."""
    is_net = set(named) <= set(NET_ACTIONS)
    return Rule(
        location=f"p.yaml:{line}",
        line=line,
        column=1,
        verdict=verdict,
        actions=named,
        to=to if is_net else None,
        except_to=excepted if is_net else (),
        users=uids,
    )


rules = st.builds(
    rule,
    st.integers(1, 99),
    verdicts,
    actions,
    st.none() | st.lists(st.one_of(targets, targets, sockets), min_size=1, max_size=3).map(tuple),
    st.lists(st.one_of(targets, targets, sockets), max_size=2).map(tuple),
    users,
)
policies = st.builds(
    Policy,
    name=st.sampled_from(["p", "q"]),
    digest=st.just("0" * 64),
    file=st.just("p.yaml"),
    selector=st.just(Selector()),
    mode=st.sampled_from(Mode),
    rules=st.lists(rules, max_size=4).map(tuple),
    otherwise=st.dictionaries(st.sampled_from(NET_ACTIONS), verdicts),
    record=st.just({}),
    places=st.just({}),
)


def ruling(profile: Profile, uid: int, address: bytes, port: int, action: Action) -> Ruling:
    """What the tables say, in the oracle's words."""
    found = decide_net(profile, user_class(profile, uid), address, port, action)
    return Ruling(
        found.enforced,
        profile.reasons[found.enforced_reason],
        found.observed,
        profile.reasons[found.observed_reason],
    )


@settings(max_examples=EXAMPLES, deadline=None)
@given(st.lists(policies, max_size=3))
def test_longest_match_is_the_oracles_decision(found: list[Policy]) -> None:
    profile = compile_profile(found, [])
    for address in map(packed, ADDRESSES):
        for port in PORTS:
            for uid in (0, 1000, 1001, 7):
                for action in NET_ACTIONS:
                    attempt = Attempt(action, address=address, port=port, uid=uid)
                    assert ruling(profile, uid, address, port, action) == decide(found, attempt)


@settings(max_examples=EXAMPLES, deadline=None)
@given(st.lists(policies, max_size=2))
def test_every_table_has_an_entry_for_everything(found: list[Policy]) -> None:
    profile = compile_profile(found, [])
    ports = {entry.port for entry in profile.net} | {None}
    tops = {(entry.user, entry.port) for entry in profile.net if entry.length == 0}
    assert tops == {(user, port) for user in {0, *profile.users.values()} for port in ports}
    keys = [(entry.user, entry.port, entry.prefix, entry.length) for entry in profile.net]
    assert len(keys) == len(set(keys))
    assert all(set(entry.decisions) == set(NET_ACTIONS) for entry in profile.net)


def prefixes(profile: Profile) -> Sequence[tuple[int | None, int]]:
    """Port and length of the entries."""
    return [(entry.port, entry.length) for entry in profile.net]


def test_entries_of_a_policy(policy: MakePolicy) -> None:
    allow = '- allow: connect\n  to: ["10.0.0.0/8:443", "10.1.0.0/16:443", "[fd00::/8]:*"]\n  except: "10.0.0.1:443"'
    profile = compile_profile([policy(allow, otherwise="{connect: deny}")], [])
    # 10.1.0.0/16 says what 10.0.0.0/8 says, and is left out
    assert prefixes(profile) == [(None, 0), (None, 8), (443, 0), (443, 104), (443, 128), (443, 8)]


def test_too_many_entries_are_refused(policy: MakePolicy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nets, "MAX_ENTRIES", 9)
    with pytest.raises(clauses.CompileError, match="address rules make 10 entries, at most 9 fit"):
        compile_profile([policy('- deny: connect\n  to: ["*:1", "*:2", "10.0.0.0/8:*", "*:3", "*:4"]')], [])


def test_time_is_bounded(policy: MakePolicy) -> None:
    laws = clauses.read([policy("- deny: connect")])
    with pytest.raises(clauses.CompileError, match="too long"):
        nets.net_entries(laws, budgets.Budget(seconds=0))


def test_a_thousand_networks_are_quick(policy: MakePolicy) -> None:
    nets_of_rule = ", ".join(f'"10.{n // 250}.{n % 250}.0/24:{"*" if n % 2 else 1000 + n % 20}"' for n in range(1000))
    profile = compile_profile([policy(f"- allow: connect\n  to: [{nets_of_rule}]", otherwise="{connect: deny}")], [])
    assert len(profile.net) == 11 + 11 * 500 + 500
