"""Warnings of `policy check`: each kind, where it must not come, and that what is called superfluous really is."""

import time
from collections.abc import Callable, Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostwarden.policy.address import parse_net
from hostwarden.policy.check import PolicyWarning, check, unreal
from hostwarden.policy.covers import covers_argv, covers_net, covers_path
from hostwarden.policy.globs import parse_argv, parse_path
from hostwarden.policy.match import match_argv, match_path
from hostwarden.policy.model import Policy
from hostwarden.policy.oracle import Attempt, decide
from hostwarden.policy.shadows import shadowed
from hostwarden.policy.words import Action, Tier

MakePolicy = Callable[..., Policy]

CGROUP = {Action.CONNECT: Tier.CGROUP, Action.SEND: Tier.CGROUP}
SIGNAL = dict.fromkeys(Action, Tier.SIGNAL) | CGROUP
HASH = "0f" * 32
LSM = dict.fromkeys(Action, Tier.LSM)


def messages(policy: Policy, tiers: Mapping[Action, Tier] | None = None) -> list[str]:
    return [f"{warning.line}:{warning.column}: {warning.message}" for warning in check([policy], tiers)]


@pytest.mark.parametrize(
    ("rules", "rest", "expected"),
    [
        # can never match
        ("- deny: read\n  path: /a/b\n  except: /a/**", {}, ["4:5: this rule can never match"]),
        ("- deny: read\n  path: [/a/b, /c]\n  except: '**/b'", {}, ["5:12: `/a/b` never matches"]),
        ("- deny: read\n  path: '/a/{b,c}'\n  except: [/a/b, /a/c]", {}, ["4:5: this rule can never match"]),
        ("- deny: read\n  path: '/a/{b,c}'\n  except: [/a/b]", {}, []),
        ("- deny: read\n  path: /a/**\n  except: /a/b/**", {}, []),
        ("- deny: read\n  except: /**", {}, ["4:5: this rule can never match"]),
        ("- deny: connect\n  except: '*:*'", {}, []),  # sockets of other families are left
        ("- deny: connect\n  to: '*:*'\n  except: '*:*'", {}, ["4:5: this rule can never match"]),
        ("- deny: connect\n  except: '*:1'", {}, []),
        ("- deny: send\n  to: '10.1.0.0/16:5'\n  except: '10.0.0.0/8:*'", {}, ["4:5: this rule can never match"]),
        ("- deny: send\n  to: '10.0.0.0/8:*'\n  except: '10.0.0.0/8:5'", {}, []),
        # duplicates
        ("- deny: read\n  path: [/a, /b, /a]", {}, ["5:20: `/a` stands for the same as `/a` before it"]),
        ("- deny: read\n  path: ['/{a,b}', /b]", {}, ["5:22: `/b` stands for the same as `/{a,b}` before it"]),
        ("- deny: read\n  path: ['/{a,a}']", {}, []),
        ("- deny: send\n  to: ['1.2.3.4:5', '[::ffff:1.2.3.4]:5']", {}, ["5:23: `[::ffff:1.2.3.4]:5` stands for"]),
        # shadowed
        (
            "- deny: read\n  path: /a/**\n- audit: read\n  path: /a/b",
            {},
            ["6:5: this audit never decides: the rule in line 4"],
        ),
        (
            "- audit: read\n  path: /a/b\n- deny: read\n  path: /a/**",
            {},
            ["4:5: this audit never decides: the rule in line 6"],
        ),
        (
            "- deny: read\n  path: /a\n- deny: [read, write]\n  path: /a",
            {},
            ["4:5: this deny never decides: the rule in line 6"],
        ),
        ("- deny: read\n  path: /a\n- deny: read\n  path: /a", {}, ["6:5: this deny never decides", "says the same"]),
        ("- kill: read\n- deny: read\n  path: /a", {}, ["5:5: this deny never decides", "line 4 matches", "is a kill"]),
        ("- deny: read\n  path: /a/**\n- kill: read\n  path: /a/b", {}, []),
        ("- deny: read\n  path: /a/b\n- audit: read\n  path: /a/**", {}, []),
        ("- deny: read\n  path: /a*\n- audit: read\n  path: /ab", {}, []),  # true, but more than is looked for
        ("- deny: write\n  path: /a\n- deny: [read, write]\n  path: /a/b", {}, []),
        ("- deny: read\n  path: /a/**\n  except: /a/b\n- audit: read\n  path: /a/b", {}, []),
        ("- deny: read\n  path: /a/**\n  user: 1\n- audit: read\n  path: /a/b", {}, []),
        ("- deny: read\n  path: /a/**\n- audit: read\n  path: /a/b\n  user: 1", {}, ["6:5: this audit never decides"]),
        (
            "- deny: send\n  to: '10.0.0.0/8:*'\n- audit: send\n  to: '10.1.0.0/16:5'",
            {},
            ["6:5: this audit never decides"],
        ),
        ("- deny: send\n  to: '10.0.0.0/8:6'\n- audit: send\n  to: '10.1.0.0/16:5'", {}, []),
        # ... but an allow keeps a severer `otherwise` away
        ("- deny: read\n  path: /a/**\n- audit: read\n  path: /a/b", {"otherwise": "{read: kill}"}, []),
        (
            "- deny: read\n  path: /a/**\n- audit: read\n  path: /a/b",
            {"otherwise": "{read: deny}"},
            ["7:5: this audit never"],
        ),
        # otherwise
        ("", {"otherwise": "{exec: deny}"}, ["3:12: `otherwise: {exec: deny}` and no rule that allows exec"]),
        ("- deny: exec\n  path: /a", {"otherwise": "{exec: kill}"}, ["3:12: `otherwise: {exec: kill}` and no rule"]),
        ("- allow: exec\n  path: /a", {"otherwise": "{exec: deny}"}, []),
        ("", {"otherwise": "{exec: deny}", "mode": "observe"}, []),
        ("- allow: read", {"otherwise": "{read: deny}"}, ["5:5: this allow names no target, so it matches every read"]),
        ("- allow: read\n  user: 5", {"otherwise": "{read: deny}"}, []),
        ("- allow: read", {"otherwise": "{write: deny}"}, []),
        ("", {}, ["1:9: policy p has neither rules nor `otherwise`"]),
        # content
        (f"- deny: exec\n  sha256: {HASH}", {}, ["4:5: this deny is a tripwire, not a wall"]),
        (f"- allow: exec\n  sha256: {HASH}", {"otherwise": "{exec: deny}"}, []),
        (f"- allow: exec\n  sha256: {HASH}\n  argv: git *", {}, []),
        (
            f"- kill: exec\n  path: /a\n- deny: exec\n  path: /a\n  sha256: {HASH}",
            {},
            ["6:5: this deny never", "6:5: this deny is"],
        ),
        (
            f"- kill: load\n  path: /a\n  sha256: {HASH}\n- audit: load\n  path: /a",
            {},
            ["4:5: this kill is a tripwire"],
        ),
        # unix sockets
        ("- deny: connect\n  to: ['unix:/a', 'unix:/a']", {}, ["5:21: `unix:/a` stands for the same"]),
        (
            "- deny: connect\n  to: ['unix:/a/b', '*:*']\n  except: 'unix:/a/**'",
            {},
            ["5:10: `unix:/a/b` never matches"],
        ),
        ("- deny: send\n  to: 'unix:/a/**'\n- audit: send\n  to: 'unix:/a/b'", {}, ["6:5: this audit never decides"]),
        ("- deny: send\n  to: '*:*'\n- audit: send\n  to: 'unix:/a/b'", {}, []),
        ("- deny: send\n- audit: send\n  to: 'unix:/a/b'", {}, ["5:5: this audit never decides"]),
        # what is named is no part of write
        (
            "- deny: write\n  path: /a\n- deny: delete\n  path: /b",
            {},
            ["6:5: delete is named here", "deny in line 4", "`[write, delete]`"],
        ),
        ("- deny: write\n  path: /a", {"otherwise": "{create: deny}"}, ["3:12: create is named here"]),
        ("- deny: [write, delete]\n  path: /a\n- deny: delete\n  path: /b", {}, []),
        ("- allow: write\n  path: /a\n- deny: delete\n  path: /b", {}, []),
        # argv
        ("- allow: exec\n  argv: git *", {}, ["4:5: this allow lets any program pass", "add a `path`"]),
        ("- allow: exec\n  argv: git *\n  path: /bin/git", {}, []),
        # what YAML took for a comment
        ("- deny: exec\n  path: /a\n  why: ask #ops", {}, ["6:14: `#ops` is a YAML comment"]),
        ("- deny: exec\n  path: /a\n  why: 'ask #ops'  # really", {}, []),
    ],
)
def test_warnings(policy: MakePolicy, rules: str, rest: dict[str, str], expected: list[str]) -> None:
    found = messages(policy(rules, **rest))
    assert bool(found) == bool(expected), found
    for part in expected:
        assert any(part in message for message in found), found


@pytest.mark.parametrize(
    ("pattern", "missed"),
    [
        (
            "git push --force*",
            ["/usr/bin/git push --force", "git -C x push --force", "git push -f", "git push x --force"],
        ),
        ("* rm -rf /*", ["rm -rf /", "/usr/bin/rm -rf /", "rm -fr /", "rm -r -f /"]),
        ("git push*", ["/usr/bin/git push", "git -C x push", 'sh -c "git push"']),
        ("*git*push*", []),
    ],
)
def test_an_argv_rule_is_a_tripwire(policy: MakePolicy, pattern: str, missed: list[str]) -> None:
    [message] = messages(policy(f'- kill: exec\n  argv: "{pattern}"'))
    assert message.startswith(f"5:11: `{pattern}` is a tripwire, not a wall")
    shown = message.partition("; it misses ")[2]
    assert shown == ", ".join(f"`{form}`" for form in missed)


def test_nothing_gets_past_a_star(policy: MakePolicy) -> None:
    assert messages(policy("- kill: exec\n  argv: ['*']")) == []


def test_forms_that_other_patterns_catch_are_not_missed(policy: MakePolicy) -> None:
    rules = (
        '- kill: exec\n  argv: ["git push --force*", "*/git push --force*", "git push -f*", "git -C * push --force*"]'
    )
    shown = messages(policy(rules))[0]
    assert (
        "/usr/bin/git" not in shown and "push -f" not in shown and "-C" not in shown and "git push x --force" in shown
    )


@pytest.mark.parametrize(
    ("rules", "rest", "tiers", "expected"),
    [
        (
            "- deny: write\n  path: /a",
            {},
            SIGNAL,
            [
                "4:5: deny of write, create is a kill after the open",
                "4:5: deny of delete, rename, link, chmod is a kill",
            ],
        ),
        ("- kill: create\n  path: /a", {}, SIGNAL, ["4:5: kill of create is a kill after the open", "O_TRUNC"]),
        ("- deny: read\n  path: /a", {}, SIGNAL, ["4:5: deny of read is a kill after the open", "before it can use"]),
        ("- kill: read\n  path: /a", {}, SIGNAL, []),
        ("- deny: exec\n  path: /a", {}, SIGNAL, []),
        ("- freeze: read\n  path: /a", {}, SIGNAL, ["4:5: freeze of read is a kill after the open"]),
        ("- deny: load\n  path: /a", {}, SIGNAL, ["4:5: deny of load is a kill on this host", "run what it mapped"]),
        ("- deny: signal", {}, SIGNAL, ["4:5: deny of signal is a kill on this host", "has happened by then"]),
        ("- deny: connect\n  to: '*:1'", {}, CGROUP, []),
        ("- deny: connect\n  to: 'unix:/x'", {}, CGROUP, ["4:5: deny of connect to unix sockets can't be"]),
        ("- deny: connect\n  to: 'unix:/x'", {}, LSM | CGROUP, []),
        ("- audit: write\n  path: /a", {}, SIGNAL, []),
        ("", {"otherwise": "{create: deny}"}, SIGNAL, ["3:12: deny of create is a kill after the open"]),
        (
            "- deny: create\n  path: /a\n- deny: create\n  path: /b",
            {},
            SIGNAL,
            ["4:5: deny of create", "(and 1 more in this policy)"],
        ),
        ("- deny: write\n  path: /a", {"mode": "observe"}, SIGNAL, []),
        ("- deny: write\n  path: /a", {}, LSM, []),
        ("- deny: write\n  path: /a", {}, None, []),
        (
            "- deny: send\n  to: '*:1'",
            {},
            {Action.SEND: Tier.NONE},
            ["4:5: deny of send can't be made real on this host"],
        ),
    ],
)
def test_tiers(
    policy: MakePolicy, rules: str, rest: dict[str, str], tiers: Mapping[Action, Tier] | None, expected: list[str]
) -> None:
    found = messages(policy(rules, **rest), tiers)
    assert bool(found) == bool(expected), found
    for part in expected:
        assert any(part in message for message in found), found


@pytest.mark.parametrize(
    ("rules", "tiers", "expected"),
    [
        (f"- deny: exec\n  sha256: {HASH}", LSM, []),
        (f"- deny: exec\n  sha256: {HASH}", {}, ["sha256 needs the tier lsm for exec, this host has none"]),
        (f"- allow: exec\n  sha256: {HASH}", SIGNAL, ["sha256 needs the tier lsm for exec, this host has signal"]),
        (f"- deny: load\n  sha256: {HASH}", LSM | {Action.LOAD: Tier.SIGNAL}, ["the tier lsm for load"]),
        (f"- deny: exec\n  sha256: {HASH}", LSM | {Action.LOAD: Tier.SIGNAL}, ["the tier lsm for load"]),
        (f"- allow: exec\n  sha256: {HASH}", LSM | {Action.LOAD: Tier.SIGNAL}, []),
        ("- deny: exec\n  path: /a", {}, []),
    ],
)
def test_contents_are_refused_where_the_kernel_cannot_tell_them(
    policy: MakePolicy, rules: str, tiers: Mapping[Action, Tier], expected: list[str]
) -> None:
    found = unreal([policy(rules)], tiers)
    assert len(found) == len(expected)
    for error, part in zip(found, expected, strict=True):
        assert part in error.message and (error.line, error.column) == (4, 5)


def test_selectors_that_match_no_agent(policy: MakePolicy) -> None:
    made = policy("- deny: read", selector="{team: biling, stage: '*'}")
    agents = [{"team": "billing", "stage": "prod"}, {"team": "sales"}]
    [warning] = check([made], known_labels=agents)
    assert warning == PolicyWarning(
        made.file, 2, 6, "selector {team: biling, stage: *} matches no agent: label team is billing, sales"
    )
    assert check([made], known_labels=None) == []
    assert check([policy("- deny: read", selector="{}")], known_labels=[]) == []
    assert "no agent has a label x" in str(check([policy("- deny: read", selector="{x: y}")], known_labels=agents)[0])


def test_warnings_stand_in_the_order_of_files_and_lines(policy: MakePolicy) -> None:
    first = policy("- deny: read\n- deny: read\n- deny: write\n- deny: write", "b")
    second = policy("", "a")
    assert [(warning.file[-6:], warning.line) for warning in check([first, second])] == [
        ("b.yaml", 5),
        ("b.yaml", 7),
        ("a.yaml", 1),
    ]
    assert str(check([second])[0]).startswith("/etc/hostwarden/a.yaml:1:9: warning: ")


def test_many_rules_are_checked_in_time(policy: MakePolicy) -> None:
    rules = "\n".join(f"- deny: read\n  path: [/srv/{i}/**, '/srv/*/{i}', '**/{i}.key']" for i in range(3000))
    made = policy(rules + "\n- deny: read\n  path: /srv/7/x")
    started = time.monotonic()
    assert len(messages(made)) == 1
    assert time.monotonic() - started < 10


PATH_TEXTS = st.lists(st.sampled_from(["/a", "/b", "/*", "/?", "/**", "/a*", "/[ab]"]), min_size=1, max_size=4).map(
    "".join
)
PATHS = [
    b"",
    *(b"/" + b"/".join(p) for n in (1, 2, 3) for p in [[x] * n for x in (b"a", b"b", b"ab")]),
    b"/a/b",
    b"/b/a/b",
]


@given(PATH_TEXTS, PATH_TEXTS)
def test_what_covers_a_path_glob_matches_all_that_it_matches(wide: str, narrow: str) -> None:
    [left], [right] = parse_path(wide), parse_path(narrow)
    if covers_path(left, right):
        assert [path for path in PATHS if match_path(right, path) and not match_path(left, path)] == []


@given(*[st.text(alphabet="ab *?", min_size=1, max_size=5)] * 2, st.lists(st.binary(max_size=5), max_size=5))
def test_what_covers_an_argv_glob_matches_all_that_it_matches(wide: str, narrow: str, lines: list[bytes]) -> None:
    [left], [right] = parse_argv(wide), parse_argv(narrow)
    if covers_argv(left, right):
        lines += [b"", b"a", b"ab", b"a b", b"b a b", b"aa"]
        assert [line for line in lines if match_argv(right, line) and not match_argv(left, line)] == []


@pytest.mark.parametrize(
    ("wide", "narrow", "expected"),
    [
        ("10.0.0.0/8:*", "10.1.0.0/16:5", True),
        ("10.0.0.0/8:5", "10.1.0.0/16:5", True),
        ("10.0.0.0/8:5", "10.1.0.0/16:*", False),
        ("10.0.0.0/8:5", "10.1.0.0/16:6", False),
        ("10.1.0.0/16:*", "10.0.0.0/8:*", False),
        ("10.0.0.0/8:*", "11.0.0.0/16:5", False),
        ("*:*", "[fd00::/8]:1", True),
        ("*:*", "1.2.3.4:1", True),
        ("*:2", "1.2.3.4:1", False),
    ],
)
def test_what_covers_an_address(wide: str, narrow: str, expected: bool) -> None:
    assert covers_net(parse_net(wide), parse_net(narrow)) is expected


RULES = st.lists(
    st.tuples(
        st.sampled_from(["allow", "audit", "deny", "kill"]),
        st.sampled_from(["read", "write", "[read, write]", "create"]),
        st.sampled_from(["", "\n  path: /a/**", "\n  path: [/a/b, /b]", "\n  path: /**", "\n  path: /a/b"]),
        st.sampled_from(["", "\n  except: /a/b", "\n  except: /a/**"]),
        st.sampled_from(["", "\n  user: 1", "\n  user: [1, 2]"]),
    ).map(lambda parts: "- {}: {}{}{}{}".format(*parts)),
    min_size=2,
    max_size=5,
)


@given(RULES, st.sampled_from(["{}", "{read: deny}", "{read: kill, write: audit}", "{create: deny}"]))
def test_without_a_shadowed_rule_every_verdict_is_the_same(
    policy: MakePolicy, rules: list[str], otherwise: str
) -> None:
    whole = policy("\n".join(rules), otherwise=otherwise)
    for rule, _ in shadowed(whole):
        rest = whole.model_copy(update={"rules": tuple(other for other in whole.rules if other is not rule)})
        if any(rest.decided_as(action) is not whole.decided_as(action) for action in Action):
            continue  # it was what named `create`, so it does change something, but not as a rule
        for action in (Action.READ, Action.WRITE, Action.CREATE):
            for path in (b"", b"/a", b"/a/b", b"/a/c", b"/b"):
                for uid in (0, 1, 2):
                    attempt = Attempt(action, path=path, uid=uid)
                    assert decide([whole], attempt).enforced is decide([rest], attempt).enforced
