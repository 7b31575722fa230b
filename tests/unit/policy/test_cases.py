"""`policy test`: files of cases."""

from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hostwarden.policy.cases import NOBODY, parse_cases, run_cases
from hostwarden.policy.model import Policy
from hostwarden.policy.source import PolicyErrors
from hostwarden.policy.words import Action, Verdict

MakePolicy = Callable[..., Policy]
USERS = {"alice": 1000}

CASES = b"""\
cases:
  - labels: {team: billing}
    exec: /usr/bin/git
    argv: [git, push, --force]
    expect: kill
    rule: "billing.yaml:7"
  - labels: {team: billing}
    exec: /usr/bin/git
    expect: allow
    rule: billing.yaml:5
  - {exec: /usr/bin/git, argv: unreadable, labels: {team: billing}, expect: kill}
  - {labels: {team: billing}, exec: /bin/sh, user: alice, expect: deny, rule: otherwise}
  - {read: /, expect: allow, rule: none}
  - {connect: "10.0.0.1:443", expect: allow, observed: deny}
  - {connect: "unix:/run/docker.sock", expect: deny}
  - {listen: "unix:@dbus", expect: freeze}
  - {signal: "pid:1", expect: deny}
  - {namespace: "user,mnt", expect: allow}
  - {rename: /etc/passwd, expect: deny, rule: "doors.yaml:6"}
  - {load: /srv/x.so, sha256: 0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a, expect: deny}
  - {load: /srv/x.so, expect: allow}
"""


DOORS = f"""\
- deny: connect
  to: "unix:/run/*.sock"
- deny: write
  path: /etc/**
- deny: exec
  sha256: {"0a" * 32}
- deny: signal
- freeze: listen
  to: ["unix:@**", "*:1"]"""


def policies(policy: MakePolicy) -> list[Policy]:
    rules = '- allow: exec\n  path: /usr/bin/git\n- kill: exec\n  argv: "git push --force*"'
    return [
        policy(rules, "billing", selector="{team: billing}", otherwise="{exec: deny}"),
        policy('- deny: connect\n  to: "10.0.0.0/8:*"', "trial", mode="observe"),
        policy(DOORS, "doors"),
    ]


def test_example(policy: MakePolicy) -> None:
    cases = parse_cases(CASES, "c.yaml", USERS.get)
    assert [case.attempt.argv for case in cases[:3]] == [(b"git", b"push", b"--force"), (b"/usr/bin/git",), None]
    assert [case.attempt.uid for case in cases[2:4]] == [NOBODY, 1000]
    assert (cases[4].attempt.action, cases[4].labels, cases[5].observed) == (Action.READ, {}, Verdict.DENY)
    results = run_cases(policies(policy), cases)
    assert [str(result) for result in results if not result.passed] == []
    assert str(results[0]) == "c.yaml:2:5: exec `/usr/bin/git` (`git push --force`): kill, as expected"


@pytest.mark.parametrize(
    ("case", "expected"),
    [
        ("{exec: /bin/sh, labels: {team: billing}, expect: allow}", "expected allow, decided deny by otherwise"),
        ("{exec: /bin/sh, expect: deny}", "expected deny, decided allow by none"),
        (
            "{exec: /usr/bin/git, labels: {team: billing}, expect: allow, rule: otherwise}",
            "expected allow by otherwise, decided by billing.yaml:5",
        ),
        (
            "{connect: '10.0.0.1:1', expect: allow, observed: kill}",
            "expected kill of observing policies, observed deny by trial.yaml:5",
        ),
    ],
)
def test_what_is_not_as_expected_is_said(policy: MakePolicy, case: str, expected: str) -> None:
    [result] = run_cases(policies(policy), parse_cases(f"cases: [{case}]".encode(), "c.yaml", USERS.get))
    assert not result.passed and result.mistakes == (expected,)
    assert str(result).startswith("c.yaml:1:9: ") and str(result).endswith(expected)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "1:1: an empty file, expected `cases:` and a list"),
        ("[]", "1:1: a list, expected `cases:`"),
        ("case: []", "1:1: unknown key `case`, did you mean cases?"),
        ("case: []", "1:1: no `cases`"),
        ("cases: {}", "1:8: a mapping, expected a list of cases"),
        ("cases: [x]", "1:9: the text `x`, expected a case"),
        ("cases: [{expect: deny}]", "1:9: no action, expected one of exec"),
        ("cases: [{read: /x, write: /x, expect: deny}]", "1:9: the actions read and write, expected one of"),
        ("cases: [{read: /x}]", "1:9: no `expect`, expected one of allow"),
        ("cases: [{read: /x, expect: dney}]", "1:28: unknown verdict `dney`, did you mean deny?"),
        ("cases: [{read: /x, expect: hold}]", "1:28: verdict `hold` isn't in this version yet"),
        ("cases: [{resolve: x.org, expect: deny}]", "1:10: key `resolve` isn't in this version yet"),
        ("cases: [{raed: /x, expect: deny}]", "1:10: unknown key `raed`, did you mean read?"),
        ("cases: [{read: x, expect: deny}]", "1:16: path `x`, expected an absolute one"),
        ("cases: [{read: /a/../b, expect: deny}]", "1:16: path `/a/../b`, expected an absolute one"),
        ("cases: [{read: /a/, expect: deny}]", "1:16: path `/a/`, expected an absolute one"),
        ("cases: [{read: /a, argv: [a], expect: deny}]", "1:20: argv says nothing about read"),
        (
            "cases: [{exec: /a, argv: a, expect: deny}]",
            "1:26: the text `a`, expected a list of arguments, or unreadable",
        ),
        (
            "cases: [{read: /a, sha256: a, expect: deny}]",
            "1:20: sha256 says nothing about read",
        ),
        ("cases: [{load: /a, sha256: a, expect: deny}]", "1:28: sha256 `a`, expected 64 hex digits"),
        ("cases: [{connect: 'unix:a', expect: deny}]", "1:19: `unix:a`: expected unix: and a resolved path"),
        ("cases: [{ptrace: /a, expect: deny}]", "1:18: `/a`, expected pid:N"),
        ("cases: [{namespace: root, expect: deny}]", "1:21: namespaces `root`, expected some of cgroup"),
        ("cases: [{connect: '*:1', expect: deny}]", "1:19: `*:1`: expected one address and one port"),
        ("cases: [{send: x:1, expect: deny}]", "1:16: `x`: names aren't in this version yet"),
        ("cases: [{read: /a, user: bob, expect: deny}]", "1:26: no user `bob` here"),
        ("cases: [{read: /a, labels: {a: '*'}, expect: deny}]", "1:32: label value `*`, expected"),
        ("cases: [{read: /a, labels: x, expect: deny}]", "1:28: the text `x`, expected labels"),
        ("cases: [{read: /a, rule: [x], expect: deny}]", "1:26: a list, expected `file:line`"),
    ],
)
def test_mistakes(text: str, expected: str) -> None:
    with pytest.raises(PolicyErrors) as caught:
        parse_cases(text.encode(), "c.yaml", USERS.get)
    assert any(str(error).startswith(f"c.yaml:{expected}") for error in caught.value.errors), str(caught.value)


def test_all_mistakes_at_once() -> None:
    with pytest.raises(PolicyErrors) as caught:
        parse_cases(b"cases:\n- {read: x, expect: a}\n- {}\n- {exec: /x, expect: deny}\n- [x]", "c", USERS.get)
    assert [error.line for error in caught.value.errors] == [2, 2, 3, 3, 5]


def test_no_bytes_raise_anything_but_policy_errors(examples: int) -> None:
    pieces = st.sampled_from(
        [b"cases:", b"\n", b"- ", b"  ", b"{", b"}", b"[", b"]", b", ", b"read: /x", b"expect: deny"]
    )
    more = st.sampled_from(
        [b"argv: [a]", b"labels: {a: b}", b"connect: '1.2.3.4:5'", b"user: 5", b"rule: x", b"\xff", b"exec"]
    )

    @settings(max_examples=examples, suppress_health_check=list(HealthCheck))
    @given(
        st.binary(max_size=200)
        | st.lists(pieces | more, max_size=20).map(lambda parts: b"cases:\n- " + b"".join(parts))
    )
    def run(data: bytes) -> None:
        try:
            parse_cases(data, "c.yaml", USERS.get)
        except PolicyErrors as found:
            assert all(len(str(error).splitlines()) == 1 for error in found.errors)

    run()
