"""The rules of deciding, one group of rows for each (numbers as in the oracle's docstring)."""

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostwarden.policy.attempts import parse_attempt
from hostwarden.policy.model import Policy
from hostwarden.policy.oracle import Attempt, Ruling, applicable, decide, record_mode
from hostwarden.policy.tables import Reason
from hostwarden.policy.words import Action, Mode, RecordMode, Verdict

MakePolicy = Callable[..., Policy]


def attempt(text: str, uid: int = 0) -> Attempt:
    """``read /x``, ``connect 10.0.0.1:443``, ``exec /bin/x a b``; ``exec /bin/x !`` has an argv that can't be read,
    ``load /x sha256=0a`` a content of such bytes, and `?` is what has no path or address.
    """
    word, target, *argv = text.split(" ")
    action = Action[word.upper()]
    content = None
    if argv and argv[0].startswith("sha256="):
        content = bytes.fromhex(argv.pop(0).removeprefix("sha256=")) * 32
    if target == "?":
        return Attempt(action, uid=uid, sha256=content)
    found = replace(parse_attempt(action, target, uid), sha256=content)
    arguments = None if argv == ["!"] else tuple(argument.encode() for argument in argv)
    return replace(found, argv=arguments) if action is Action.EXEC else found


def ruled(ruling: Ruling) -> tuple[str, str | None]:
    """The enforced verdict and the rule's place ('otherwise', or None for no policy)."""
    reason = ruling.enforced_reason
    return str(ruling.enforced), None if reason.policy is None else reason.location or "otherwise"


ALLOW_GIT = "- allow: exec\n  path: /bin/git"
OF_0A = f"sha256: {'0a' * 32}"
DENY_TMP = "- deny: [read, write]\n  path: [/tmp/**]"
LOCAL = '- allow: connect\n  to: "10.0.0.0/8:443"'


@pytest.mark.parametrize(
    ("rules", "rest", "what", "expected"),
    [
        # 3: action, condition, exception, user
        (DENY_TMP, {}, "read /tmp/x", ("deny", "p.yaml:4")),
        (DENY_TMP, {}, "read /tmp", ("deny", "p.yaml:4")),
        (DENY_TMP, {}, "read /tmpx", ("allow", None)),
        (DENY_TMP, {}, "exec /tmp/x", ("allow", None)),
        (DENY_TMP + "\n  except: /tmp/ok", {}, "read /tmp/ok", ("allow", None)),
        (DENY_TMP + "\n  except: /tmp/ok", {}, "read /tmp/ok/x", ("deny", "p.yaml:4")),
        ("- deny: read\n  path: /x\n  user: alice", {}, "read /x", ("allow", None)),
        ("- deny: read\n  path: /x\n  user: [alice, 0]", {}, "read /x", ("deny", "p.yaml:4")),
        ("- deny: read", {}, "read /anything", ("deny", "p.yaml:4")),
        ("- deny: read\n  except: /ok/**", {}, "read /ok/x", ("allow", None)),
        ("- deny: read\n  except: /ok/**", {}, "read /", ("deny", "p.yaml:4")),
        ("- kill: exec\n  argv: git push*", {}, "exec /bin/git git push -f", ("kill", "p.yaml:4")),
        ("- kill: exec\n  argv: git push*", {}, "exec /bin/git git pull", ("allow", None)),
        ("- kill: exec\n  argv: git push*\n  path: /bin/git", {}, "exec /bin/git git push", ("kill", "p.yaml:4")),
        ("- kill: exec\n  argv: git push*\n  path: /bin/git", {}, "exec /bin/x git push", ("allow", None)),
        (
            "- kill: exec\n  argv: git*\n  path: /bin/*\n  except: {argv: git log*, path: /bin/tig}",
            {},
            "exec /bin/git git log",
            ("allow", None),
        ),
        (
            "- kill: exec\n  argv: git*\n  path: /bin/*\n  except: {argv: git log*, path: /bin/tig}",
            {},
            "exec /bin/tig git push",
            ("allow", None),
        ),
        ('- deny: connect\n  to: "*:*"\n  except: "10.0.0.0/8:*"', {}, "connect 10.0.0.1:1", ("allow", None)),
        ('- deny: connect\n  to: "*:*"\n  except: "10.0.0.0/8:*"', {}, "connect [::1]:1", ("deny", "p.yaml:4")),
        ('- deny: connect\n  except: "10.0.0.0/8:*"', {}, "connect 10.0.0.1:1", ("allow", None)),
        ('- deny: connect\n  to: "10.0.0.0/8:*"', {}, "send 10.0.0.1:1", ("allow", None)),
        # 4: the most severe decides, in whatever order
        ("- allow: read\n- deny: read\n- audit: read", {}, "read /x", ("deny", "p.yaml:5")),
        ("- kill: read\n- deny: read", {}, "read /x", ("kill", "p.yaml:4")),
        ("- allow: read\n- audit: read", {}, "read /x", ("audit", "p.yaml:5")),
        # 5: otherwise
        (ALLOW_GIT, {"otherwise": "{exec: deny}"}, "exec /bin/git git", ("allow", "p.yaml:5")),
        (ALLOW_GIT, {"otherwise": "{exec: deny}"}, "exec /bin/sh sh", ("deny", "otherwise")),
        (ALLOW_GIT, {"otherwise": "{exec: deny}"}, "read /bin/sh", ("allow", None)),
        ("- audit: read\n  path: /x", {"otherwise": "{read: kill}"}, "read /x", ("audit", "p.yaml:5")),
        ("- deny: read\n  path: /x", {"otherwise": "{read: kill}"}, "read /x", ("kill", "otherwise")),
        ("- deny: read\n  path: /x", {"otherwise": "{read: deny}"}, "read /x", ("deny", "p.yaml:5")),
        ("- kill: read\n  path: /x", {"otherwise": "{read: deny}"}, "read /x", ("kill", "p.yaml:5")),
        ("", {"otherwise": "{read: allow}"}, "read /x", ("allow", "otherwise")),
        (LOCAL, {"otherwise": "{connect: deny}"}, "connect 10.0.0.1:80", ("deny", "otherwise")),
        (LOCAL, {"otherwise": "{connect: deny}"}, "connect [::ffff:10.0.0.1]:443", ("allow", "p.yaml:5")),
        # 2: a create is a write, unless create is named
        (DENY_TMP, {}, "create /tmp/x", ("deny", "p.yaml:4")),
        (DENY_TMP, {"otherwise": "{create: allow}"}, "create /tmp/x", ("allow", "otherwise")),
        (DENY_TMP + "\n- audit: create\n  path: /y", {}, "create /tmp/x", ("allow", None)),
        (DENY_TMP, {"record": "{create: none}"}, "create /tmp/x", ("deny", "p.yaml:5")),
        ("- allow: write\n  path: /x", {"otherwise": "{write: deny}"}, "create /x", ("allow", "p.yaml:5")),
        ("- allow: write\n  path: /x", {"otherwise": "{write: deny}"}, "create /y", ("deny", "otherwise")),
        ("- deny: create\n  path: /x", {}, "write /x", ("allow", None)),
        # 6: argv that can't be read
        ("- kill: exec\n  argv: git push*", {}, "exec /bin/ls !", ("kill", "p.yaml:4")),
        ("- audit: exec\n  argv: a\n- deny: exec\n  argv: b", {}, "exec /bin/ls !", ("deny", "p.yaml:6")),
        ("- kill: exec\n  argv: a\n  path: /bin/git", {}, "exec /bin/ls !", ("kill", "p.yaml:4")),
        ("- kill: exec\n  argv: a\n  user: alice", {}, "exec /bin/ls !", ("allow", None)),
        ("- allow: exec\n  argv: a", {}, "exec /bin/ls !", ("allow", None)),
        ("- allow: exec\n  argv: '*'", {"otherwise": "{exec: deny}"}, "exec /bin/ls !", ("deny", "otherwise")),
        ("- audit: exec\n  argv: '*'", {"otherwise": "{exec: deny}"}, "exec /bin/ls !", ("deny", "otherwise")),
        (
            "- audit: exec\n  argv: '*'\n- allow: exec",
            {"otherwise": "{exec: deny}"},
            "exec /x !",
            ("audit", "p.yaml:5"),
        ),
        # 2: what else write is
        (DENY_TMP, {}, "delete /tmp/x", ("deny", "p.yaml:4")),
        (DENY_TMP, {}, "rename /tmp/x", ("deny", "p.yaml:4")),
        (DENY_TMP, {}, "link /tmp/x", ("deny", "p.yaml:4")),
        (DENY_TMP, {}, "chmod /tmp/x", ("deny", "p.yaml:4")),
        (DENY_TMP, {}, "mount /tmp/x", ("allow", None)),
        ("", {"otherwise": "{write: deny, delete: allow}"}, "delete /x", ("allow", "otherwise")),
        ("", {"otherwise": "{write: deny, delete: allow}"}, "rename /x", ("deny", "otherwise")),
        # 3: which rules speak of load
        ("- deny: exec\n  path: /x", {}, "load /x", ("deny", "p.yaml:4")),
        ("- freeze: [exec, read]\n  path: /x", {}, "load /x", ("freeze", "p.yaml:4")),
        ("- kill: exec\n  argv: a*", {}, "load /x", ("allow", None)),
        ("- audit: exec", {}, "load /x", ("allow", None)),
        ("- allow: exec\n  path: /x", {"otherwise": "{exec: deny}"}, "load /x", ("allow", None)),
        ("- allow: exec\n  path: /x", {"otherwise": "{load: deny}"}, "load /x", ("deny", "otherwise")),
        ("- allow: load\n  path: /x", {"otherwise": "{load: deny}"}, "load /x", ("allow", "p.yaml:5")),
        ("- deny: load\n  path: /x", {}, "exec /x x", ("allow", None)),
        # plain actions
        ("- deny: signal\n- allow: ptrace", {"otherwise": "{ptrace: kill}"}, "signal pid:1", ("deny", "p.yaml:5")),
        ("- deny: signal\n- allow: ptrace", {"otherwise": "{ptrace: kill}"}, "ptrace pid:1", ("allow", "p.yaml:6")),
        ("- deny: namespace\n  user: alice", {}, "namespace user", ("allow", None)),
        # 10: sockets
        ("- deny: connect", {}, "connect unix:/x", ("deny", "p.yaml:4")),
        ("- deny: connect", {}, "connect ?", ("deny", "p.yaml:4")),
        ("- deny: connect\n  to: '*:*'", {}, "connect unix:/x", ("allow", None)),
        ("- deny: connect\n  to: '*:*'", {}, "connect ?", ("allow", None)),
        ("- deny: connect\n  to: ['*:*', 'unix:**']", {}, "connect unix:/x", ("deny", "p.yaml:4")),
        ("- deny: connect\n  to: ['*:*', 'unix:**']", {}, "connect unix:@x", ("deny", "p.yaml:4")),
        ("- deny: connect\n  to: ['*:*', 'unix:**']", {}, "connect ?", ("allow", None)),
        ("- deny: connect\n  to: unix:/x\n", {}, "connect 10.0.0.1:1", ("allow", None)),
        ("- deny: connect\n  to: 'unix:@x*'", {}, "connect unix:@xy", ("deny", "p.yaml:4")),
        ("- deny: connect\n  except: unix:/x", {}, "connect unix:/x", ("allow", None)),
        ("- deny: connect\n  except: unix:/x", {}, "connect ?", ("deny", "p.yaml:4")),
        ("- deny: connect\n  except: unix:/x", {}, "connect 10.0.0.1:1", ("deny", "p.yaml:4")),
        ("- allow: connect", {"otherwise": "{connect: deny}"}, "connect ?", ("allow", "p.yaml:5")),
        ("- allow: connect\n  to: '*:*'", {"otherwise": "{connect: deny}"}, "connect ?", ("deny", "otherwise")),
        ("- deny: listen\n  to: '*:80'", {}, "listen 0.0.0.0:80", ("deny", "p.yaml:4")),
        # 11: contents
        (f"- deny: exec\n  {OF_0A}", {}, "exec /x sha256=0a x", ("deny", "p.yaml:4")),
        (f"- deny: exec\n  {OF_0A}", {}, "load /x sha256=0a", ("deny", "p.yaml:4")),
        (f"- deny: exec\n  {OF_0A}", {}, "exec /x sha256=0b x", ("allow", None)),
        (f"- deny: exec\n  {OF_0A}", {}, "exec /x x", ("allow", None)),
        (f"- deny: exec\n  {OF_0A}\n  path: /y", {}, "exec /x sha256=0a x", ("allow", None)),
        (
            f"- allow: exec\n  {OF_0A}",
            {"otherwise": "{exec: deny}"},
            "exec /x sha256=0a x",
            ("allow", "p.yaml:5"),
        ),
        (f"- allow: exec\n  {OF_0A}", {"otherwise": "{exec: deny}"}, "exec /x x", ("deny", "otherwise")),
        (f"- kill: exec\n  {OF_0A}\n  argv: a", {}, "exec /x !", ("kill", "p.yaml:4")),
        # 7: among equals the first rule
        ("- deny: read\n- deny: read", {}, "read /x", ("deny", "p.yaml:4")),
        ("- allow: read\n- allow: read", {"otherwise": "{read: deny}"}, "read /x", ("allow", "p.yaml:5")),
        # the root directory, by both of its names
        ("- deny: read\n  path: /", {}, "read /", ("deny", "p.yaml:4")),
        ("- deny: read\n  path: /**", {}, "read /", ("deny", "p.yaml:4")),
    ],
)
def test_one_policy(
    policy: MakePolicy, rules: str, rest: dict[str, str], what: str, expected: tuple[str, str | None]
) -> None:
    assert ruled(decide([policy(rules, **rest)], attempt(what))) == expected


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        # the most severe across policies; an allow in one doesn't lift another's deny or `otherwise`
        (("- allow: read", {}), ("- deny: read", {}), ("deny", "b.yaml:4")),
        (("- allow: read", {}), ("", {"otherwise": "{read: deny}"}), ("deny", "otherwise")),
        (("- kill: read", {}), ("", {"otherwise": "{read: deny}"}), ("kill", "a.yaml:4")),
        # ties: a rule before an `otherwise`, whichever policy comes first; else the first policy
        (("", {"otherwise": "{read: deny}"}), ("- deny: read", {}), ("deny", "b.yaml:4")),
        (("- deny: read", {}), ("- deny: read", {}), ("deny", "a.yaml:4")),
        (("", {"otherwise": "{read: allow}"}), ("- allow: read", {}), ("allow", "b.yaml:4")),
        # an observing policy changes nothing that is enforced
        (("- kill: read", {"mode": "observe"}), ("- audit: read", {}), ("audit", "b.yaml:4")),
        (("- kill: read", {"mode": "observe"}), ("", {}), ("allow", None)),
        # create: each policy on its own
        (("- deny: create\n  path: /y", {}), ("- deny: write", {}), ("allow", None)),
    ],
)
def test_two_policies(
    policy: MakePolicy,
    first: tuple[str, dict[str, str]],
    second: tuple[str, dict[str, str]],
    expected: tuple[str, str | None],
) -> None:
    policies = [policy(first[0], "a", **first[1]), policy(second[0], "b", **second[1])]
    assert ruled(decide(policies, attempt("read /x"))) == expected


def test_create_is_decided_by_each_policy_on_its_own(policy: MakePolicy) -> None:
    names_it, does_not = policy("- allow: create\n  path: /y", "a"), policy("- deny: write", "b")
    assert ruled(decide([names_it], attempt("create /x"))) == ("allow", None)
    assert ruled(decide([names_it, does_not], attempt("create /x"))) == ("deny", "b.yaml:4")


def test_reasons_say_everything(policy: MakePolicy) -> None:
    enforcing = policy("- deny: read\n  why: ask first", "a")
    observing = policy("", "b", mode="observe", otherwise="{read: kill}")
    ruling = decide([enforcing, observing], attempt("read /x"))
    assert ruling == Ruling(
        Verdict.DENY,
        Reason("a", enforcing.digest, "a.yaml:4", "ask first", Verdict.DENY, Mode.ENFORCE),
        Verdict.KILL,
        Reason("b", observing.digest, None, None, Verdict.KILL, Mode.OBSERVE),
    )


@pytest.mark.parametrize(
    ("rules", "otherwise", "expected"),
    [
        # 9: rules that ask for no path, and those for every path
        ("- deny: exec", "{}", ("deny", "p.yaml:5")),
        ("- deny: exec\n  path: '**'", "{}", ("deny", "p.yaml:5")),
        ("- deny: exec\n  path: [/x, '/**']", "{}", ("deny", "p.yaml:5")),
        ("- deny: exec\n  path: ['/*', '**/*', '/x/**']", "{}", ("allow", None)),
        ("- deny: exec\n  except: /usr/bin/**", "{}", ("deny", "p.yaml:5")),
        ("- deny: exec\n  except: /**", "{}", ("allow", None)),
        ("- kill: exec\n  argv: a*", "{}", ("kill", "p.yaml:5")),
        ("- kill: exec\n  argv: a*\n  path: /x", "{}", ("allow", None)),
        # nothing keeps `otherwise` away
        ("- allow: exec", "{exec: deny}", ("deny", "otherwise")),
        ("- audit: exec\n  argv: a*", "{exec: deny}", ("deny", "otherwise")),
        ("- audit: exec\n  path: /**", "{exec: allow}", ("audit", "p.yaml:5")),
        ("- kill: exec", "{exec: deny}", ("kill", "p.yaml:5")),
    ],
)
def test_what_has_no_path(policy: MakePolicy, rules: str, otherwise: str, expected: tuple[str, str | None]) -> None:
    laws = [policy(rules, otherwise=otherwise)]
    assert ruled(decide(laws, Attempt(Action.EXEC, path=None, argv=(b"a", b"b")))) == expected


def test_without_policies_everything_is_allowed_and_recorded() -> None:
    for action in Action:
        nothing = Ruling(Verdict.ALLOW, Reason(), Verdict.ALLOW, Reason())
        assert decide([], Attempt(action, path=b"/x", address=bytes(16), port=1)) == nothing
        assert record_mode([], action) is RecordMode.ALL


@pytest.mark.parametrize(
    ("records", "action", "expected"),
    [
        (["{read: denied}"], "read", "denied"),
        (["{read: denied}", "{read: none}"], "read", "denied"),
        (["{read: none}", "{}"], "read", "all"),
        (["{read: none}"], "write", "all"),
        (["{write: none}"], "create", "none"),
        (["{write: none, create: denied}"], "create", "denied"),
        (["{create: none}"], "write", "all"),
    ],
)
def test_record_mode(policy: MakePolicy, records: list[str], action: str, expected: str) -> None:
    policies = [policy(name=f"p{i}", record=record) for i, record in enumerate(records)]
    assert str(record_mode(policies, Action[action.upper()])) == expected


def test_a_policy_that_names_create_records_it_apart_from_write(policy: MakePolicy) -> None:
    assert record_mode([policy("- deny: create", record="{write: none}")], Action.CREATE) is RecordMode.ALL


def test_applicable(policy: MakePolicy) -> None:
    everyone, billing = policy(name="a"), policy(name="b", selector="{team: billing}")
    assert applicable([everyone, billing], {"team": "billing"}) == (everyone, billing)
    assert applicable([billing, everyone], {"team": "sales"}) == (everyone,)


RULES = st.lists(
    st.tuples(
        st.sampled_from(["allow", "audit", "deny", "kill"]),
        st.sampled_from(["read", "write", "create", "[read, create]"]),
        st.sampled_from(["", "/a/**", "/a/b", '"**/b"']),
    ),
    max_size=5,
)


@given(st.data())
def test_neither_the_order_of_rules_nor_of_files_changes_a_verdict(policy: MakePolicy, data: st.DataObject) -> None:
    def build(rules: list[tuple[str, str, str]], name: str, rest: dict[str, str]) -> Policy:
        lines = [f"- {verdict}: {action}" + (f"\n  path: {path}" if path else "") for verdict, action, path in rules]
        return policy("\n".join(lines), name, **rest)

    files = []
    for name in "abc":
        rest = {"otherwise": data.draw(st.sampled_from(["{}", "{read: deny}", "{write: kill, create: audit}"]))}
        rest["mode"] = data.draw(st.sampled_from(["enforce", "observe"]))
        files.append((data.draw(RULES), name, rest))
    shuffled = [
        (data.draw(st.permutations(rules)), name, rest) for rules, name, rest in data.draw(st.permutations(files))
    ]
    one = [build(*file) for file in files]
    other = [build(*file) for file in shuffled]
    for action in ("read", "write", "create"):
        for path in ("/", "/a", "/a/b", "/b", "/c"):
            left, right = (decide(policies, attempt(f"{action} {path}")) for policies in (one, other))
            assert (left.enforced, left.observed) == (right.enforced, right.observed)
