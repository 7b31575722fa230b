"""`policy explain`: every policy, what matched, what decided."""

import json
from collections.abc import Callable

from hostwarden.policy.address import packed
from hostwarden.policy.explain import explain
from hostwarden.policy.model import Policy
from hostwarden.policy.oracle import Attempt
from hostwarden.policy.words import Action

MakePolicy = Callable[..., Policy]

PUSH = Attempt(Action.EXEC, path=b"/usr/bin/git", argv=(b"git", b"push", b"--force"), uid=1000)


def policies(policy: MakePolicy) -> list[Policy]:
    rules = '- allow: exec\n  path: /usr/bin/git\n- kill: exec\n  argv: "git push --force*"\n  why: ask first'
    return [
        policy(rules, "billing", selector="{team: billing}", otherwise="{exec: deny}"),
        policy("- deny: exec", "sales", selector="{team: sales}"),
        policy("", "trial", mode="observe", otherwise="{exec: kill, write: deny}", record="{exec: denied}"),
    ]


def test_lines(policy: MakePolicy) -> None:
    assert explain(policies(policy), {"team": "billing"}, PUSH).lines() == [
        "exec `/usr/bin/git` (`git push --force`) by an agent {team: billing}: kill",
        "  decided by billing.yaml:7 of policy billing",
        "  why: ask first",
        "  recorded: all",
        "  policy billing (enforce, /etc/hostwarden/billing.yaml)",
        "    allow  billing.yaml:5",
        "    kill   billing.yaml:7  <- decides",
        "    `otherwise` (deny) doesn't apply: an allow or audit rule matched",
        "  policy sales (enforce, /etc/hostwarden/sales.yaml): its selector {team: sales} doesn't match",
        "  policy trial (observe, /etc/hostwarden/trial.yaml)",
        "    kill   `otherwise`  <- decides",
    ]


def test_what_is_only_observed_is_said(policy: MakePolicy) -> None:
    lines = explain(policies(policy), {}, Attempt(Action.CREATE, path=b"/x")).lines()
    assert lines == [
        "create `/x` by an agent {}: allow",
        "  decided by no policy: nothing speaks of it, and that is allowed",
        "  observed only, changes nothing: deny",
        "  it would be decided by `otherwise` of policy trial",
        "  recorded: all",
        "  policy billing (enforce, /etc/hostwarden/billing.yaml): its selector {team: billing} doesn't match",
        "  policy sales (enforce, /etc/hostwarden/sales.yaml): its selector {team: sales} doesn't match",
        "  policy trial (observe, /etc/hostwarden/trial.yaml): decides it as write",
        "    deny   `otherwise`  <- decides",
    ]


def test_as_dict_is_json_that_says_the_same(policy: MakePolicy) -> None:
    made = policies(policy)
    said = json.loads(json.dumps(explain(made, {"team": "billing"}, PUSH).as_dict()))
    assert said["action"] == "exec" and said["target"] == "/usr/bin/git" and said["argv"] == ["git", "push", "--force"]
    assert (said["verdict"], said["rule"], said["policy"], said["why"]) == (
        "kill",
        "billing.yaml:7",
        "billing",
        "ask first",
    )
    assert said["digest"] == made[0].digest
    assert said["observed"]["verdict"] == "kill" and said["observed"]["rule"] is None
    assert [view["applies"] for view in said["policies"]] == [True, False, True]
    assert [part["decides"] for part in said["policies"][0]["matched"]] == [False, True]
    assert said["policies"][0]["otherwise_spared"] == "deny" and said["record"] == "all"


def test_hostile_bytes_are_shown_in_one_line(policy: MakePolicy) -> None:
    attempt = Attempt(Action.EXEC, path=b"/a\n\x1b[2J\xff", argv=(b"\r\n", b"\xfe"))
    said = explain(policies(policy), {}, attempt)
    assert said.lines()[0] == r"exec `/a\n\x1b[2J\xff` (`\r\n \xfe`) by an agent {}: allow"
    json.dumps(said.as_dict()).encode()


def test_targets(policy: MakePolicy) -> None:
    for attempt, shown in [
        (Attempt(Action.READ, path=b""), "read `/`"),
        (Attempt(Action.EXEC, path=b"/a"), "exec `/a` (arguments unreadable)"),
        (Attempt(Action.CONNECT, address=packed("10.0.0.1"), port=443), "connect `10.0.0.1:443`"),
        (Attempt(Action.SEND, address=packed("fd00::1"), port=53), "send `[fd00::1]:53`"),
        (Attempt(Action.CONNECT, path=b"/run/x.sock"), "connect `unix:/run/x.sock`"),
        (Attempt(Action.LISTEN, path=b"/./x/y\xff"), r"listen `unix:@x/y\xff`"),
        (Attempt(Action.LISTEN), "listen ``"),
        (Attempt(Action.SIGNAL, object="pid:1"), "signal `pid:1`"),
        (Attempt(Action.LOAD, path=b"/a", sha256=b"\x0a" * 32), "load `/a` (sha256 0a0a0a0a0a0a0a0a…)"),
    ]:
        assert explain([], {}, attempt).lines()[0] == f"{shown} by an agent {{}}: allow"
