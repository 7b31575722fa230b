"""Tables against the oracle: the same verdict and the same reason, for every file action, user, place and argv."""

import os
import time
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hostwarden.policy import automata, partition
from hostwarden.policy.address import parse_net
from hostwarden.policy.compile import CompileError, compile_profile
from hostwarden.policy.evaluate import decide_profile, user_class
from hostwarden.policy.globs import Deep, PathGlob, parse_argv, parse_path, parse_unix
from hostwarden.policy.labels import Selector
from hostwarden.policy.match import match_path
from hostwarden.policy.model import ArgvPattern, NetPattern, PathPattern, Policy, Rule, UnixPattern
from hostwarden.policy.oracle import Attempt, Ruling, decide
from hostwarden.policy.places import host_paths
from hostwarden.policy.tables import PRIVATE, Decision, Place, Profile, Reason
from hostwarden.policy.words import (
    BROADER,
    CONTENT_ACTIONS,
    FILE_ACTIONS,
    NET_ACTIONS,
    PLAIN_ACTIONS,
    POLICY_ACTIONS,
    Action,
    Mode,
    RecordMode,
    Verdict,
)

EXAMPLES = int(os.environ.get("HOSTWARDEN_EXAMPLES", "150"))
MakePolicy = Callable[..., Policy]
T = TypeVar("T")
UIDS = (0, 1000, 1001, 7)

ROOT = [Place(b"", b"")]
SUPERBLOCKS = [
    ROOT,
    [Place(b"", b""), Place(b"/a", b"/b/ab")],
    [Place(b"/a", b"/b"), Place(b"/ab", b"")],
    [Place(b"", b"/a/b")],
    [],
]

PARTS = ["a", "b", "ab", ".e", "aé", "аb"]  # the last one is Cyrillic
path_globs = st.lists(
    st.one_of(st.sampled_from(PARTS), st.sampled_from(["**", "*", "a*", "?b", "*b", "[!a]?"])), min_size=1, max_size=3
).map(lambda parts: "/" + "/".join(parts))
path_patterns = path_globs.map(lambda text: PathPattern(text, 1, 1, tuple(parse_path(text))))
argv_globs = st.lists(st.sampled_from(["a", "b", " ", "*", "?", "\\", "-f"]), min_size=1, max_size=5).map("".join)
argv_patterns = argv_globs.map(lambda text: ArgvPattern(text, 1, 1, tuple(parse_argv(text))))
paths = st.lists(st.sampled_from([*PARTS, "e", "abb", "\udcff"]), max_size=4).map(
    lambda parts: b"".join(b"/" + part.encode("utf-8", "surrogateescape") for part in parts)
)
argvs = st.none() | st.lists(
    st.sampled_from([b"a", b"b", b"a b", b"\\", b"-f", b"a\\ b", b""]), min_size=1, max_size=4
).map(tuple)
verdicts = st.sampled_from([Verdict.ALLOW, Verdict.AUDIT, Verdict.DENY, Verdict.FREEZE, Verdict.KILL])
users = st.none() | st.lists(st.sampled_from([0, 1000, 1001]), min_size=1, unique=True).map(tuple)
unix_globs = st.one_of(path_globs, path_globs.map(lambda text: "@" + text[1:]), st.sampled_from(["@**", "**", "@/a"]))
unix_patterns = unix_globs.map(lambda text: UnixPattern(text, 1, 1, tuple(parse_unix(text))))
net_patterns = st.sampled_from(["*:*", "10.0.0.0/8:*"]).map(lambda text: NetPattern(text, 1, 1, parse_net(text)))
to_patterns = st.one_of(unix_patterns, unix_patterns, net_patterns)
unix_paths = st.one_of(paths.filter(bool), st.sampled_from([b"/./a", b"/./ab", b"/./a/b", b"/.//a", b"/./.e"]))
CONTENTS = [bytes([n]) * 32 for n in range(3)]


def some(elements: st.SearchStrategy[T], size: int) -> st.SearchStrategy[tuple[T, ...]]:
    """One or more."""
    return st.lists(elements, min_size=1, max_size=size).map(tuple)


def named(actions: Sequence[Action]) -> st.SearchStrategy[tuple[Action, ...]]:
    """Actions of a rule, each once."""
    return st.lists(st.sampled_from(actions), min_size=1, max_size=3, unique=True).map(tuple)


@st.composite
def rules(draw: st.DrawFn, *, argv_users: bool) -> Rule:
    """A rule as the parser can make it."""
    line = draw(st.integers(1, 99))
    kind = draw(st.sampled_from(["file", "file", "any", "socket", "content", "argv", "argv"]))
    found: dict[str, object] = {"actions": (Action.EXEC,), "users": draw(users)}
    if kind == "any":
        found["actions"] = draw(named(POLICY_ACTIONS))
    elif kind == "socket":
        found |= {"actions": draw(named(NET_ACTIONS)), "to": draw(st.none() | some(to_patterns, 3))}
        found["except_to"] = draw(st.just(()) | some(to_patterns, 2))
    else:
        found |= {"path": draw(st.none() | some(path_patterns, 3)), "except_path": draw(excepted)}
    if kind == "file":
        found["actions"] = draw(named(FILE_ACTIONS))
    if kind == "content":
        found |= {"actions": draw(named(CONTENT_ACTIONS)), "sha256": draw(some(st.sampled_from(CONTENTS[:2]), 2))}
    if kind == "argv" or (kind == "content" and found["actions"] == (Action.EXEC,) and draw(st.booleans())):
        found |= {"argv": draw(some(argv_patterns, 2)), "except_argv": draw(st.just(()) | some(argv_patterns, 2))}
        found |= {"users": found["users"] if argv_users else None, "why": draw(st.none() | st.just("because"))}
        found["except_path"] = found["except_path"] if found["path"] else ()
    return Rule(location=f"p.yaml:{line}", line=line, column=1, verdict=draw(verdicts), **found)  # type: ignore[arg-type]


excepted = st.just(()) | some(path_patterns, 2)


@st.composite
def policies(draw: st.DrawFn, *, argv_users: bool = False) -> Policy:
    """A policy for everything."""
    return Policy(
        name=draw(st.sampled_from(["p", "q"])),
        digest="0" * 64,
        file="p.yaml",
        selector=Selector(),
        mode=draw(st.sampled_from(Mode)),
        rules=tuple(draw(st.lists(rules(argv_users=argv_users), max_size=4))),
        otherwise=draw(st.dictionaries(st.sampled_from(POLICY_ACTIONS), verdicts, max_size=6)),
        record={},
        places={},
    )


@dataclass(frozen=True)
class Subject:
    """A target of any action: its path, or of sockets their file or name, and for programs argv and content."""

    path: bytes | None
    unix: bytes | None
    argv: tuple[bytes, ...] | None
    sha256: bytes | None

    def attempt(self, action: Action, uid: int, path: bytes | None = None) -> Attempt:
        """On it, or on the same by another name."""
        known = {"argv": self.argv, "sha256": self.sha256} if action in CONTENT_ACTIONS else {}
        return Attempt(action, path=self.named(action) if path is None else path, uid=uid, **known)  # type: ignore[arg-type]

    def named(self, action: Action) -> bytes | None:
        """What is walked."""
        if action in PLAIN_ACTIONS:
            return None
        return self.unix if action in NET_ACTIONS else self.path


contents = st.sampled_from([None, *CONTENTS])
subjects = st.builds(Subject, paths, unix_paths, argvs, contents)
nameless = st.builds(Subject, st.none(), st.none(), argvs, contents)


def by_tables(
    profile: Profile,
    row: int,
    uid: int,
    path: bytes | None,
    argv: Sequence[bytes] | None,
    action: Action,
    sha256: bytes | None = None,
) -> Ruling:
    """The tables' decision in the oracle's words."""
    raw = None if argv is None else b"\0".join(argv)
    found = decide_profile(profile, row, user_class(profile, uid), path, raw, action, sha256)
    return Ruling(
        found.enforced,
        profile.reasons[found.enforced_reason],
        found.observed,
        profile.reasons[found.observed_reason],
    )


def of_tables(profile: Profile, row: int, uid: int, subject: Subject, action: Action) -> Ruling:
    """The same, of a subject."""
    return by_tables(profile, row, uid, subject.named(action), subject.argv, action, subject.sha256)


EVERYTHING = PathPattern("/**", 1, 1, tuple(parse_path("/**")))
NO_PATH = PathPattern("/impossible", 1, 1, tuple(parse_path("/impossible")))
EVERY_SOCKET = UnixPattern("unix:**", 1, 1, tuple(parse_unix("**")))
NO_SOCKET = UnixPattern("unix:/impossible", 1, 1, tuple(parse_unix("/impossible")))


def resolved(policy: Policy, places: Sequence[Place], relative: bytes) -> Policy:
    """The policy whose path conditions are answered already, for a file with any number of names: so the oracle, which
    knows one name, can be asked about it.
    """
    names = host_paths(relative, places)

    def is_met(globs: Sequence[PathGlob]) -> bool:
        floating = [glob for glob in globs if isinstance(glob.components[0], Deep)]
        return any(match_path(glob, name) for glob in globs for name in names) or (
            not names and any(match_path(glob, relative) for glob in floating)
        )

    answered = []
    for rule in policy.rules:
        change: dict[str, object] = {}
        if rule.path is not None or rule.except_path:
            met = (rule.path_globs is None or is_met(rule.path_globs)) and not is_met(rule.except_path_globs)
            change = {"path": (EVERYTHING if met else NO_PATH,), "except_path": ()}
        if rule.to is not None or rule.except_to:
            met = (rule.unix_globs is None or is_met(rule.unix_globs)) and not is_met(rule.except_unix_globs)
            change = {"to": (EVERY_SOCKET if met else NO_SOCKET,), "except_to": ()}
        answered.append(rule.model_copy(update=change))
    return policy.model_copy(update={"rules": tuple(answered)})


@settings(max_examples=EXAMPLES, deadline=None)
@given(st.lists(policies(), max_size=3), st.lists(subjects, min_size=1, max_size=6))
def test_host_paths_are_decided_as_by_the_oracle(found: list[Policy], some_subjects: list[Subject]) -> None:
    profile = compile_profile(found, [ROOT])
    for subject in some_subjects:
        for action in POLICY_ACTIONS:
            for uid in UIDS:
                attempt = subject.attempt(action, uid)
                assert of_tables(profile, 1, uid, subject, action) == decide(found, attempt), attempt


@settings(max_examples=EXAMPLES, deadline=None)
@given(st.lists(policies(argv_users=True), max_size=3), st.lists(subjects, min_size=1, max_size=3))
def test_other_names_and_no_names(found: list[Policy], some_subjects: list[Subject]) -> None:
    profile = compile_profile(found, SUPERBLOCKS)
    for subject in some_subjects:
        for row, places in enumerate([[], *SUPERBLOCKS]):
            for action in POLICY_ACTIONS:
                name = subject.named(action)
                answered = found if name is None else [resolved(policy, places, name) for policy in found]
                for uid in UIDS:
                    if subject.argv is None and action is Action.EXEC:
                        continue  # rules of other users count, too: see test_unread_argv_for_users
                    attempt = subject.attempt(action, uid, None if name is None else b"/x")
                    assert of_tables(profile, row, uid, subject, action) == decide(answered, attempt), attempt


@settings(max_examples=EXAMPLES, deadline=None)
@given(st.lists(policies(), max_size=3), st.lists(nameless, min_size=1, max_size=4))
def test_what_has_no_path_is_decided_as_by_the_oracle(found: list[Policy], some_subjects: list[Subject]) -> None:
    """Memory that is executed, files that are none, sockets of other families."""
    profile = compile_profile(found, SUPERBLOCKS)
    for subject in some_subjects:
        for action in POLICY_ACTIONS:
            for uid in UIDS:
                attempt = subject.attempt(action, uid)
                assert of_tables(profile, 1, uid, subject, action) == decide(found, attempt), attempt


@settings(max_examples=EXAMPLES // 4 + 1, deadline=None)
@given(st.lists(policies(), min_size=1, max_size=2), st.lists(subjects, min_size=1, max_size=5), st.integers(8, 40))
def test_several_automata_decide_as_one(found: list[Policy], some_subjects: list[Subject], bound: int) -> None:
    whole = compile_profile(found, [ROOT])
    original = automata.MAX_STATES
    automata.MAX_STATES = bound
    try:
        parts = compile_profile(found, [ROOT])
    except CompileError:
        return  # so small a bound is too small for one glob
    finally:
        automata.MAX_STATES = original
    for subject in some_subjects:
        for action in POLICY_ACTIONS:
            for uid in UIDS:
                expected = of_tables(whole, 1, uid, subject, action)
                assert of_tables(parts, 1, uid, subject, action) == expected


@settings(max_examples=EXAMPLES // 4 + 1, deadline=None)
@given(st.lists(policies(), max_size=2))
def test_tables_hold_together(found: list[Policy]) -> None:
    profile = compile_profile(found, SUPERBLOCKS)
    n_users = max(profile.users.values(), default=0) + 1
    for automaton in [*profile.paths, *([profile.argv] if profile.argv else [])]:
        assert len(automaton.classes) == 256
        assert len(automaton.next) == automaton.n_states << automaton.shift
        assert max(automaton.next) < automaton.n_states
        assert max(automaton.output) < len(automaton.decisions)
        assert isinstance(automaton.next, array)
        assert automaton.next.typecode == "H"
        assert len(automaton.denial_below) == automaton.n_states
        assert all(set(row) == set(POLICY_ACTIONS) for row in automaton.decisions)
        assert all(len(row) == n_users for row in automaton.starts)
    for automaton in profile.paths:
        assert len(automaton.starts) == 1 + len(SUPERBLOCKS)
        nul = automaton.classes[0]
        assert all(
            automaton.next[(state << automaton.shift) | nul] == state for state in range(automaton.n_states)
        )  # the kernel pads with NUL


@pytest.mark.parametrize(
    ("rules", "rest", "below", "not_below"),
    [
        ("- deny: read\n  path: /a/b", {}, ["", "/a"], ["/a/b", "/b", "/ab"]),
        ("- deny: read\n  path: /a/*", {}, ["", "/a"], ["/a/b", "/b"]),
        ("- deny: read\n  path: /a/**", {}, ["", "/a", "/a/b"], ["/b", "/ab"]),
        ("- deny: read\n  path: '**/.env'", {}, ["", "/a", "/a/.env"], []),
        ("- deny: read\n  path: '**/.env'\n  except: /a/**", {}, ["", "/b"], ["/a", "/a/.env"]),
        ("- audit: read\n  path: /a/b", {}, [], ["", "/a", "/a/b"]),
        ("- kill: read\n  path: /a/b", {"mode": "observe"}, [], ["", "/a"]),
        *(
            (f"- freeze: {action}\n  path: /a/b", {}, ["", "/a"], ["/a/b"])
            for action in ("write", "exec", "link", "chmod")
        ),
        *((f"- deny: {action}\n  path: /a/b", {}, [], ["", "/a"]) for action in ("load", "mount")),
        ("- deny: connect\n  to: unix:/a/b", {}, [], ["", "/a"]),
        ("- allow: write\n  path: /a/**", {"otherwise": "{write: deny}"}, ["", "/b"], ["/a", "/a/b"]),
        ("- allow: write\n  path: /a/*", {"otherwise": "{write: deny}"}, ["", "/b", "/a/b"], []),
        ("- allow: exec\n  path: /a/**", {"otherwise": "{exec: deny}"}, ["", "/b"], ["/a", "/a/b"]),
        ("- allow: exec\n  path: /a/**", {"otherwise": "{load: deny}"}, [], ["", "/b", "/a"]),
        ("- deny: exec\n  path: /a/b\n  argv: x*", {}, ["", "/a"], ["/a/b"]),
        (f"- deny: exec\n  path: /a/b\n  sha256: {'0a' * 32}", {}, ["", "/a"], ["/a/b"]),
        ("- deny: exec\n  argv: x*", {}, [], ["", "/a"]),
    ],
)
def test_what_is_below(
    policy: MakePolicy, rules: str, rest: dict[str, str], below: list[str], not_below: list[str]
) -> None:
    [automaton] = compile_profile([policy(rules, **rest)], [ROOT]).paths

    def is_below(path: str) -> bool:
        return bool(automaton.denial_below[automaton.run(path.encode(), automaton.starts[1][0])])

    assert [path for path in below if not is_below(path)] == []
    assert [path for path in not_below if is_below(path)] == []


@settings(max_examples=EXAMPLES // 4 + 1, deadline=None)
@given(st.lists(policies(), min_size=1, max_size=2), st.lists(paths, min_size=1, max_size=4), paths.filter(bool))
def test_whatever_is_denied_is_below(found: list[Policy], folders: list[bytes], name: bytes) -> None:
    profile = compile_profile(found, [ROOT])
    for folder in folders:
        for uid in UIDS:
            user = user_class(profile, uid)
            ends = [(one, one.run(folder, one.starts[1][user])) for one in profile.paths]
            is_below = any(one.denial_below[state] for one, state in ends)
            for action in set(FILE_ACTIONS) - {Action.EXEC, Action.LOAD, Action.MOUNT}:
                denied = by_tables(profile, 1, uid, folder + name, None, action).enforced >= Verdict.HOLD
                assert is_below or not denied


def only(decision: Decision) -> tuple[Verdict, int]:
    """The enforced half."""
    return decision.enforced, decision.enforced_reason


def test_otherwise_is_folded_where_one_walk_decides(policy: MakePolicy) -> None:
    plain = policy("- allow: read\n  path: /a/**", otherwise="{read: deny, exec: kill}")
    profile = compile_profile([plain], [ROOT])
    folded = [action for action in POLICY_ACTIONS if action not in CONTENT_ACTIONS]
    assert all(profile.otherwise[action] == [] for action in folded)
    assert [entry.verdict for entry in profile.otherwise[Action.EXEC]] == [Verdict.KILL]  # for what has no path, too
    assert len(profile.paths) == 1
    assert all(row[action].covered == 0 for row in profile.paths[0].decisions for action in folded)
    with_argv = policy("- kill: exec\n  argv: a*", otherwise="{read: deny, exec: deny}")
    profile = compile_profile([with_argv], [ROOT])
    assert [entry.verdict for entry in profile.otherwise[Action.EXEC]] == [Verdict.DENY]
    assert profile.otherwise[Action.READ] == []


def test_otherwise_is_by_severity(policy: MakePolicy) -> None:
    laws = [
        policy("- kill: exec\n  argv: a*", name="p0", otherwise="{exec: audit}"),
        policy(name="p1", otherwise="{exec: kill}"),
        policy(name="p2", otherwise="{exec: deny}"),
    ]
    profile = compile_profile(laws, [ROOT])
    assert [entry.policy for entry in profile.otherwise[Action.EXEC]] == [1, 2, 0]


@pytest.mark.parametrize(
    ("first", "second", "action", "uid", "line"),
    [
        # both match /x/y, the first for all of /x; which of them decides there
        ("deny: [read]", "deny: [read]", Action.READ, 0, 5),
        ("deny: [read]", "kill: [read]", Action.READ, 0, 7),
        ("audit: [read]", "deny: [read]", Action.READ, 0, 7),
        ("deny: [read]", "deny: [write]", Action.WRITE, 0, 7),
        ("deny: [read]", "deny: [read, write]", Action.WRITE, 0, 7),
        ("user: alice, deny: [read]", "deny: [read]", Action.READ, 0, 7),
        ("user: alice, deny: [read]", "deny: [read]", Action.READ, 1000, 5),
        ("deny: [read]", "user: alice, deny: [read]", Action.READ, 1000, 5),
        ("except: [/x/y], deny: [read]", "deny: [read]", Action.READ, 0, 7),
        ("deny: [read]", "except: [/x/y], deny: [read]", Action.READ, 0, 5),
        ("argv: a*, deny: [exec]", "deny: [exec]", Action.EXEC, 0, 7),
        ("argv: b*, deny: [exec]", "deny: [exec]", Action.EXEC, 0, 5),
        ("deny: [exec]", "argv: b*, kill: [exec]", Action.EXEC, 0, 7),
        ("argv: b*, allow: [exec]", "argv: c*, deny: [exec]", Action.EXEC, 0, 5),
    ],
)
def test_which_of_two_rules_decides(
    policy: MakePolicy, first: str, second: str, action: Action, uid: int, line: int
) -> None:
    laws = [policy(f"- {{path: [/x/**], {first}}}\n\n- {{path: [/x/y], {second}}}", otherwise="{exec: audit}")]
    profile = compile_profile(laws, [ROOT])
    found = by_tables(profile, 1, uid, b"/x/y", (b"b",), action)
    attempt = Attempt(action, path=b"/x/y", argv=(b"b",), uid=uid)
    assert found == decide(laws, attempt)
    assert found.enforced_reason.location == f"p.yaml:{line}"


def test_an_excepted_socket_leaves_the_next_rule_its_say(policy: MakePolicy) -> None:
    laws = [policy("- deny: send\n  to: 'unix:/x/**'\n  except: unix:/x/y\n- deny: send\n  to: 'unix:/x/*'")]
    profile = compile_profile(laws, [ROOT])
    for path, line in ((b"/x/y", 7), (b"/x/z", 4), (b"/x/y/z", 4)):
        found = by_tables(profile, 1, 0, path, None, Action.SEND)
        assert found == decide(laws, Attempt(Action.SEND, path=path))
        assert found.enforced_reason.location == f"p.yaml:{line}"


def test_an_excepted_argv_rule_leaves_the_next_one_its_say(policy: MakePolicy) -> None:
    laws = [policy("- deny: exec\n  argv: a*\n  except: '* -n'\n- deny: exec\n  argv: ab*")]
    profile = compile_profile(laws, [ROOT])
    for argv, line in (((b"ab", b"-n"), 7), ((b"ab", b"-f"), 4), ((b"a", b"-n"), None)):
        found = by_tables(profile, 1, 0, b"/x", argv, Action.EXEC)
        assert found == decide(laws, Attempt(Action.EXEC, path=b"/x", argv=argv))
        assert found.enforced_reason.location == (f"p.yaml:{line}" if line else None)


def test_reasons(policy: MakePolicy) -> None:
    first = policy("- deny: read\n  path: /x\n  why: no", name="first", otherwise="{read: deny, write: kill}")
    second = policy("- deny: read\n  path: /x", name="second", mode="observe")
    profile = compile_profile([first, second], [ROOT])
    assert [(reason.policy, reason.location, reason.verdict) for reason in profile.reasons] == [
        (None, None, Verdict.ALLOW),
        ("first", "first.yaml:5", Verdict.DENY),
        ("second", "second.yaml:5", Verdict.DENY),
        ("first", None, Verdict.DENY),
        ("first", None, Verdict.KILL),
    ]
    assert profile.reasons[0] == Reason()
    assert profile.reasons[1].why == "no"


def test_joint_rules_are_by_severity(policy: MakePolicy) -> None:
    rules = "- allow: exec\n  path: /a\n  argv: a*\n- kill: exec\n  path: /b\n  argv: b*\n- deny: exec\n  argv: c*"
    profile = compile_profile([policy(rules)], [ROOT])
    assert [(joint.verdict, joint.covers) for joint in profile.joint] == [(Verdict.KILL, 0), (Verdict.ALLOW, 1)]
    assert only(profile.argv_unread) == (Verdict.KILL, 2)


def test_unread_argv_for_users(policy: MakePolicy) -> None:
    rules = "- kill: exec\n  argv: a*\n  user: alice\n- allow: exec\n  argv: b*"
    profile = compile_profile([policy(rules)], [ROOT])
    for uid in UIDS:
        assert only(decide_profile(profile, 1, user_class(profile, uid), b"/x", None, Action.EXEC)) == (Verdict.KILL, 1)
    no_severe = compile_profile([policy("- allow: exec\n  argv: b*")], [ROOT])
    assert no_severe.argv_unread == Decision()


def test_record_modes_and_enforced_actions(policy: MakePolicy) -> None:
    first = policy(
        "- deny: write\n  path: /x\n- audit: exec", otherwise="{connect: kill}", record="{read: none, write: none}"
    )
    second = policy("- kill: read", name="q", mode="observe", record="{read: denied}")
    profile = compile_profile([first], [])
    assert profile.enforced == {Action.WRITE, Action.CONNECT, *BROADER}
    assert profile.record[Action.READ] is RecordMode.NONE
    assert profile.record[Action.CREATE] is RecordMode.NONE
    assert profile.record[Action.EXEC] is RecordMode.ALL
    both = compile_profile([first, second], [])
    assert both.enforced == profile.enforced
    assert both.record[Action.READ] is RecordMode.DENIED
    assert both.record[Action.WRITE] is RecordMode.ALL


def test_no_policies_allow_everything() -> None:
    profile = compile_profile([], [ROOT])
    assert profile.paths[0].n_states == 1
    for action in POLICY_ACTIONS:
        assert decide_profile(profile, PRIVATE, 0, b"/x", None, action) == Decision()


def test_users_with_the_same_rules_share_a_class(policy: MakePolicy) -> None:
    rules = "- deny: read\n  path: /x\n  user: [1, 2, 3]\n- deny: write\n  path: /y\n  user: [3, 4]"
    profile = compile_profile([policy(rules)], [ROOT])
    assert profile.users == {1: 1, 2: 1, 3: 2, 4: 3}


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ("\n".join(f"- deny: read\n  path: /{uid}\n  user: {uid}" for uid in range(8)), "8 groups of users"),
        (
            "\n".join(f"- deny: exec\n  path: /{n}\n  argv: a*" for n in range(65)),
            "65 rules with sha256, or",
        ),
        ('- deny: exec\n  argv: "*a' + "[ab]" * 30 + '*"', "argv globs need more states.* p.yaml:4 "),
        ("- deny: read\n  path: [/ok, '**/*a" + "[ab]" * 30 + "', /fine]", "costliest are p.yaml:4 .*a.ab"),
    ],
)
def test_what_does_not_fit_is_named(policy: MakePolicy, rules: str, message: str) -> None:
    with pytest.raises(CompileError, match=message) as caught:
        compile_profile([policy(rules)], [ROOT])
    assert "\n" not in str(caught.value)


def test_too_many_policies_and_file_systems(policy: MakePolicy) -> None:
    with pytest.raises(CompileError, match="33 policies apply to one agent, at most 32"):
        compile_profile([policy("- deny: read")] * 33, [])
    with pytest.raises(CompileError, match="256 file systems are mounted, at most 255"):
        compile_profile([], [ROOT] * 256)
    with pytest.raises(CompileError, match="paths have 30005 different beginnings, at most 30000"):
        compile_profile([], [[Place(b"/%s/%s" % (letter * 15_000, letter), b"/m") for letter in (b"a", b"b")]])


def bench_rules(count: int, kinds: Sequence[str]) -> str:
    """A rule for each glob: the worst case, for each has a reason of its own."""
    globs = [kinds[index % len(kinds)].format(index) for index in range(count)]
    return "\n".join(f"- deny: read\n  path: '{glob}'" for glob in globs)


def test_a_thousand_rules(policy: MakePolicy) -> None:
    kinds = ("/srv/app/customer-{:04d}/**", "/opt/tool{}/lib*/plugin-*.so", "**/.secret-{}")
    laws = policy(bench_rules(999, kinds), otherwise="{read: kill}")
    begin = time.perf_counter()
    profile = compile_profile([laws], [ROOT])
    assert time.perf_counter() - begin < 10
    for path in (b"/srv/app/customer-0003/.secret-5", b"/opt/tool4/lib64/plugin-x.so", b"/x"):
        assert by_tables(profile, 1, 0, path, None, Action.READ) == decide([laws], Attempt(Action.READ, path=path))


def test_allows_of_many_policies_are_parted(policy: MakePolicy) -> None:
    """Each allow keeps its own policy's `otherwise` away, so none beats another: 2^14 states in one automaton."""
    laws = [
        policy(f"- allow: read\n  path: '/*{chr(97 + n)}{chr(98 + n)}*'", name=f"p{n}", otherwise="{read: deny}")
        for n in range(16)
    ]
    profile = compile_profile(laws, [ROOT])
    assert 2 <= len(profile.paths) <= 8
    assert [entry.policy for entry in profile.otherwise[Action.READ]] == list(range(16))
    for path in (b"/abcdefghijklmnopq", b"/ab", b"/x", b"/abcdefghijklmnop", b"/qponm"):
        assert by_tables(profile, 1, 0, path, None, Action.READ) == decide(laws, Attempt(Action.READ, path=path))


def test_words_of_many_rules_do_not_multiply(policy: MakePolicy) -> None:
    laws = policy("\n".join(f"- deny: read\n  path: '**/*word{n:02d}*'" for n in range(40)), otherwise="{read: audit}")
    profile = compile_profile([laws], [ROOT])
    assert len(profile.paths) == 1
    for path in (b"/word39/x", b"/x/word39word02", b"/word01/word00-word07", b"/x/word03/word01"):
        assert by_tables(profile, 1, 0, path, None, Action.READ) == decide([laws], Attempt(Action.READ, path=path))


def test_room_for_eight_automata_only(policy: MakePolicy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(partition, "MAX_AUTOMATA", 1)
    laws = policy("\n".join(f"- deny: read\n  path: '/**/a{n}/**/b{n}/*'\n  except: /{n}" for n in range(100)))
    with pytest.raises(CompileError, match="100 are too many together"):
        compile_profile([laws], [ROOT])
