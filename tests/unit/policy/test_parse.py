"""Policy files: what is read, every kind of mistake and its place, and that no bytes do more than that."""

import hashlib
import re
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hostwarden.policy.globs import PathGlob, parse_argv, parse_path, parse_unix
from hostwarden.policy.labels import Selector
from hostwarden.policy.model import Net, Policy
from hostwarden.policy.parse import PolicyErrors, load_policies, parse_policy
from hostwarden.policy.words import Action, Mode, RecordMode, Verdict

USERS = {"alice": 1000, "root": 0}

EXAMPLE = b"""\
policy: billing-agents
for: {team: billing, stage: "*"}
mode: observe
rules:
  - allow: exec
    path: [/usr/bin/python3*, /usr/bin/git]
  - kill: exec
    argv: ["git push --force*", "* rm -rf /*"]
    why: history rewrites need a person; ask in #releases
  - deny: [read, write]
    path: ["**/.ssh/**", "**/{.env,.envrc}", /etc/shadow]
    except: "**/.ssh/known_hosts"
  - allow: connect
    to: ["10.0.0.0/8:5432", "[fd00::/8]:*"]
    user: [alice, 33]
  - deny: exec
    path: /usr/bin/git
    argv: git push*
    except: {argv: git push --dry-run*}
otherwise: {exec: deny, write: deny, read: allow, connect: deny}
record: {read: denied}
"""


def errors(text: str | bytes, file: str = "p.yaml") -> list[str]:
    data = text.encode() if isinstance(text, str) else text
    with pytest.raises(PolicyErrors) as caught:
        parse_policy(data, file, USERS.get)
    return [str(error) for error in caught.value.errors]


def test_example() -> None:
    policy = parse_policy(EXAMPLE, "/etc/hostwarden/policies.d/billing.yaml", USERS.get)
    assert (policy.name, policy.mode) == ("billing-agents", Mode.OBSERVE)
    assert policy.digest == hashlib.sha256(EXAMPLE).hexdigest()
    assert policy.selector == Selector((("team", "billing"), ("stage", "*")))
    assert policy.otherwise[Action.EXEC] is Verdict.DENY and policy.otherwise[Action.READ] is Verdict.ALLOW
    assert policy.record == {Action.READ: RecordMode.DENIED}
    allow, kill, deny, connect, joint = policy.rules
    assert (allow.location, allow.verdict, allow.actions) == ("billing.yaml:5", Verdict.ALLOW, (Action.EXEC,))
    assert allow.path_globs == (*parse_path("/usr/bin/python3*"), *parse_path("/usr/bin/git"))
    assert allow.argv is None and allow.nets is None and allow.users is None and allow.covers
    assert kill.argv_globs == (*parse_argv("git push --force*"), *parse_argv("* rm -rf /*"))
    assert kill.why == "history rewrites need a person; ask in"  # as YAML has it; the note below says so
    assert deny.actions == (Action.READ, Action.WRITE) and not deny.covers
    assert deny.path is not None and [len(pattern.globs) for pattern in deny.path] == [1, 2, 1]
    assert [(pattern.line, pattern.column) for pattern in deny.path] == [(11, 12), (11, 26), (11, 46)]
    assert deny.except_path_globs == tuple(parse_path("**/.ssh/known_hosts"))
    assert connect.users == (33, 1000)
    assert connect.nets is not None and connect.nets[1] == Net(b"\xfd" + bytes(15), 8, None)
    assert joint.path_globs and joint.argv_globs and joint.except_argv and not joint.except_path
    [(line, column, note)] = policy.notes
    assert (line, column) == (9, 49) and "#releases" in note


def test_contents_sockets_and_the_root() -> None:
    text = f"""
paths: root
rules:
  - freeze: [exec, load]
    sha256: [{"0a" * 32}, {"B0" * 32}]
  - deny: [connect, listen]
    to: ["10.0.0.0/8:*", "unix:/run/{{a,b}}.sock", "unix:@x"]
    except: "unix:**/c"
  - audit: [ptrace, namespace, mount]
"""
    policy = parse_policy(f"policy: p\nfor: {{}}{text}".encode(), "p.yaml", USERS.get)
    assert policy.paths == "root"
    by_content, by_socket, plain = policy.rules
    assert by_content.verdict is Verdict.FREEZE
    assert by_content.sha256 == (b"\x0a" * 32, b"\xb0" * 32) and by_content.path is None
    assert by_socket.unix_globs == (*parse_unix("/run/{a,b}.sock"), *parse_unix("@x"))
    assert by_socket.nets is not None and len(by_socket.nets) == 1 and by_socket.path is None
    assert by_socket.except_unix_globs == tuple(parse_unix("**/c")) == by_socket.except_walked
    assert by_socket.walked is not None and [pattern.column for pattern in by_socket.walked] == [26, 50]
    assert plain.walked is None and plain.to is None


def test_globs_are_not_copied_by_the_model() -> None:
    policy = parse_policy(EXAMPLE, "p.yaml", USERS.get)
    assert policy.rules[2].path is not None
    glob = policy.rules[2].path[0].globs[0]
    assert isinstance(glob, PathGlob) and glob.components[0] is parse_path("**")[0].components[0]


@pytest.mark.parametrize(
    "text", ["policy: p\nfor: {}", "policy: 1\nfor: {team: yes, n: 012}\nrules: []", "\ufeffpolicy: p\nfor: {}"]
)
def test_the_least_that_is_a_policy(text: str) -> None:
    policy = parse_policy(text.encode(), "p", USERS.get)
    assert policy.rules == () and policy.mode is Mode.ENFORCE
    assert dict(policy.selector.terms) in ({}, {"team": "yes", "n": "012"})  # text, whatever YAML makes of it


HEAD = "policy: p\nfor: {}\n"


def rule(text: str) -> str:
    """A policy whose one rule is ``text``; it begins at 4:5, its second line at 5:5."""
    return HEAD + "rules:\n" + "\n".join(f"  {line}" for line in text.split("\n"))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # no YAML, or more of it than a policy needs
        (b"", ["1:1: an empty file, expected a policy"]),
        (b"# nothing\n", ["1:1: an empty file, expected a policy"]),
        (b"- a", ["1:1: a list, expected a policy"]),
        (b"policy", ["1:1: the text `policy`, expected a policy"]),
        (b"policy: p\nfor: {}\xff", ["2:8: byte 0xff is not UTF-8"]),
        ("policy: p\nfor: {}\nä\x00".encode(), ["3:2: character U+0000"]),
        ("policy: p\u2028for: {}".encode(), ["1:10: character U+2028"]),
        (b"policy: p\rfor: {}", ["1:10: character U+000D"]),
        (b"policy: p\n\tfor: {}", ["2:1: not YAML: found a tab character", "spaces for indentation"]),
        (b"policy: p\nfor: {", ["2:7: not YAML"]),
        (b"policy: p\nfor: {}\npolicy: q", ["3:1: `policy` comes twice", "line 1"]),
        (b"policy: p\nfor: {}\n---\npolicy: q", ["3:1: a second YAML document"]),
        (b"policy: &a p\nfor: {}", ["1:9: a YAML anchor"]),
        (b"policy: *a\nfor: {}", ["1:9: a YAML alias"]),
        (b"policy: **/x\nfor: {}", ["not YAML", 'quotes around a value that begins with * ("**/.env")']),
        (b"policy: !!str p\nfor: {}", ["1:9: a YAML tag"]),
        (b"[" * 100_000, ["1:9: nested deeper than 8"]),
        (b"a: " * 10, ["1:5: not YAML: mapping values are not allowed"]),
        (b"? {a: b}\n: c\npolicy: p\nfor: {}", ["1:3: a mapping as a key"]),
        (b"x" * ((1 << 20) + 1), ["1:1: 1048577 bytes, expected at most 1048576"]),
        # the top
        ("for: {}", ["1:1: no `policy`, expected `policy: NAME`"]),
        ("policy: p", ["1:1: no `for`, expected `for: {team: billing}`"]),
        (HEAD + "fro: {}", ["3:1: unknown key `fro`, did you mean for?"]),
        (HEAD + "paths: rot", ["3:8: unknown paths `rot`, did you mean root?"]),
        (HEAD + "on_record_loss: deny", ["3:1: key `on_record_loss` isn't in this version yet"]),
        (HEAD + "<<: {}", ["3:1: unknown key `<<`"]),
        ("policy: a b\nfor: {}", ["1:9: name `a b`, expected 1 to 64"]),
        ("policy:\nfor: {}", ["1:8: nothing, expected a name"]),
        ("policy: [p]\nfor: {}", ["1:9: a list, expected a name"]),
        ("policy: p\nfor: team", ["2:6: the text `team`, expected a label selector"]),
        ("policy: p\nfor: {team: [a]}", ["2:13: a list, expected the value of label `team`"]),
        ("policy: p\nfor: {a b: c}", ["2:7: label `a b`, expected 1 to 63"]),
        ("policy: p\nfor: {a: b c}", ["2:10: label value `b c`"]),
        (HEAD + "mode: observ", ["3:7: unknown mode `observ`, did you mean observe?"]),
        (HEAD + "rules: {}", ["3:8: a mapping, expected a list of rules"]),
        (HEAD + "rules:", ["3:7: nothing, expected a list of rules"]),
        (HEAD + "rules: [x]", ["3:9: the text `x`, expected a rule"]),
        (HEAD + "otherwise: {exce: deny}", ["3:13: unknown action `exce`, did you mean exec?"]),
        (HEAD + "otherwise: {exec: dney}", ["3:19: unknown verdict `dney`, did you mean deny?"]),
        (HEAD + "otherwise: {exec: hold}", ["3:19: verdict `hold` isn't in this version yet"]),
        (HEAD + "otherwise: {resolve: deny}", ["3:13: action `resolve` isn't in this version yet"]),
        (HEAD + "otherwise: {capability: deny}", ["3:13: unknown action `capability`"]),
        (HEAD + "otherwise: deny", ["3:12: the text `deny`, expected a mapping {action: verdict}"]),
        (HEAD + "record: {read: some}", ["3:16: unknown record mode `some`, expected one of all, denied, none"]),
        # verdicts and actions
        (rule("- path: /x"), ["4:5: a rule without a verdict"]),
        (rule("- deny: exec\n  allow: exec"), ["both allow and deny, expected one verdict"]),
        (rule("- dney: exec"), ["4:5: unknown key `dney`, did you mean deny?", "4:5: a rule without a verdict"]),
        (rule("- hold: connect"), ["4:5: verdict `hold` isn't in this version yet"]),
        (rule("- mark: secret\n  on: read"), ["4:5: verdict `mark` isn't", "5:5: key `on` isn't in this version yet"]),
        (rule("- deny: exec\n  when: secret"), ["5:5: key `when` isn't in this version yet"]),
        (rule("- deny: exec\n  timeout: 10m\n  then: deny"), ["5:5: key `timeout` isn't", "6:5: key `then` isn't"]),
        (rule("- deny: resolve"), ["4:11: action `resolve` isn't in this version yet"]),
        (rule("- deny: mkdir"), ["4:11: unknown action `mkdir`, expected create, of which"]),
        (rule("- deny: kernel"), ["4:11: unknown action `kernel`"]),
        (rule("- deny: [read, raed]"), ["4:18: unknown action `raed`, did you mean read?"]),
        (rule("- deny: [read, read]"), ["4:18: action read comes twice"]),
        (rule("- deny: []"), ["4:11: an empty list, expected an action"]),
        (rule("- deny: READ"), ["4:11: unknown action `READ`, did you mean read?"]),
        # conditions
        (rule("- deny: connect\n  path: /x"), ["5:5: path says nothing about connect, expected to for these actions"]),
        (rule("- deny: read\n  argv: x"), ["5:5: argv says nothing about read, expected path for these actions"]),
        (rule("- deny: [exec, read]\n  argv: x"), ["5:5: argv says nothing about read, expected path"]),
        (rule("- deny: exec\n  to: '*:1'"), ["5:5: to says nothing about exec, expected path or argv"]),
        (rule("- deny: [read, send]\n  path: /x"), ["5:5: path says nothing about send, expected", "split the rule"]),
        (rule("- deny: read\n  path: [/a, x/, /b]"), ["5:16: glob `x/`: not anchored"]),
        (rule("- deny: read\n  path: [/a, /x/, /b]"), ["5:18: glob `/x/`: a slash at the end"]),
        (rule("- deny: read\n  path: '/a/[b'"), ["5:15: glob `/a/[b`: a [ without its ]"]),
        (rule("- deny: read\n  path: []"), ["5:11: an empty list, expected a path glob"]),
        (rule("- deny: read\n  path:"), ["5:10: nothing, expected a path glob"]),
        (rule("- deny: read\n  path: [[/x]]"), ["5:12: a list, expected a path glob"]),
        (rule("- deny: connect\n  to: [10.1.0.0/8:1]"), ["5:10: `10.1.0.0/8` has bits set", "expected 10.0.0.0/8"]),
        (rule("- deny: connect\n  to: pay.internal:443"), ["5:9: `pay.internal`: names aren't in this version yet"]),
        (rule("- deny: exec\n  user: bob"), ["5:11: no user `bob` here"]),
        (rule("- deny: exec\n  user: [alice, 1000]"), ["5:19: user `1000` comes twice"]),
        (rule("- deny: exec\n  user: 4294967295"), ["5:11: no user `4294967295` here"]),
        (rule("- deny: exec\n  why: ' '"), ["5:10: why has 0 characters"]),
        (rule("- deny: exec\n  why: " + "x" * 501), ["5:10: why has 501 characters"]),
        (rule("- deny: exec\n  sha256: abc"), ["5:13: sha256 `abc`, expected 64 hex digits"]),
        (rule(f"- deny: exec\n  sha256: [{'a' * 64}, {'A' * 64}]"), ["5:80: sha256", "comes twice"]),
        (rule(f"- deny: read\n  sha256: {'a' * 64}"), ["5:5: sha256 says nothing about read, expected path"]),
        (rule("- deny: connect\n  to: unix:x"), ["5:14: glob `unix:x`: not anchored"]),
        (rule("- deny: connect\n  to: 'unix:/a/../b'"), ["5:18: glob `unix:/a/../b`: .. as a name"]),
        (rule("- deny: connect\n  to: 'unix:@'"), ["glob `unix:@`: an abstract name without a name"]),
        (rule("- deny: read\n  path: /./x"), ["5:12: glob `/./x`: . as a name"]),
        (rule("- deny: ptrace\n  path: /x"), ["5:5: path says nothing about ptrace, expected no condition but user"]),
        (rule("- deny: [signal, read]\n  path: /x"), ["5:5: path says nothing about signal", "split the rule"]),
        (rule("- deny: signal\n  except: /x"), ["5:5: except says nothing about signal, expected no condition"]),
        (rule("- deny: listen\n  path: /x"), ["5:5: path says nothing about listen, expected to for"]),
        # exceptions
        (rule("- deny: exec\n  path: /x\n  argv: y\n  except: /z"), ["7:13: the text `/z`, expected a mapping {path:"]),
        (rule("- deny: exec\n  path: /x\n  argv: y\n  except: {user: 1}"), ["7:14: unknown key `user`"]),
        (
            rule("- deny: exec\n  path: /x\n  except: {path: /z}"),
            ["6:13: a mapping, expected a list of what `path` takes"],
        ),
        (rule("- deny: [exec, send]\n  except: /z"), ["5:13: exceptions for files and addresses at once"]),
        (rule("- deny: send\n  except: /z"), ["5:13: `/z`: no port"]),
    ],
)
def test_one_mistake(text: str | bytes, expected: list[str]) -> None:
    found = errors(text)
    assert all(line.startswith("p.yaml:") and re.search("expected|did you mean", line) for line in found)
    assert len([part for part in expected if part[0].isdigit()]) <= len(found)
    for part in expected:
        assert any(part in line for line in found), found


def test_all_mistakes_of_all_files_at_once() -> None:
    good = b"policy: a\nfor: {}\n"
    files = [
        ("1.yaml", b"policy: b c\nmode: x\nfor: {}\nrules: [{deny: reed}, {kill: [], path: x}]"),
        ("2.yaml", good),
        ("3.yaml", good),
        ("4.yaml", b"\xfe"),
    ]
    with pytest.raises(PolicyErrors) as caught:
        load_policies(files, USERS.get)
    places = [(error.file, error.line, error.column) for error in caught.value.errors]
    assert places == [
        ("1.yaml", 1, 9),
        ("1.yaml", 2, 7),
        ("1.yaml", 4, 16),
        ("1.yaml", 4, 30),
        ("3.yaml", 1, 9),
        ("4.yaml", 1, 1),
    ]
    assert "policy a is also in 2.yaml" in str(caught.value)
    assert len(str(caught.value).splitlines()) == 6


def test_load_keeps_the_order_of_files() -> None:
    files = [(f"{name}.yaml", f"policy: {name}\nfor: {{}}".encode()) for name in "bca"]
    assert [policy.name for policy in load_policies(files, USERS.get)] == ["b", "c", "a"]
    assert load_policies([], USERS.get) == ()


def test_limits() -> None:
    one_more = HEAD + "rules:\n" + "- deny: exec\n" * 4097
    assert errors(one_more) == ["p.yaml:4100:3: 4097 rules, expected at most 4096 in a file"]
    assert len(parse_policy((HEAD + "rules:\n" + "- deny: exec\n" * 4096).encode(), "p", USERS.get).rules) == 4096
    braces = "{" + "a," * 255 + "}" + "x" * 3000
    many = HEAD + "rules:\n" + "".join(f"- {{deny: read, path: '/{i}{braces}'}}\n" for i in range(200))
    assert ["too many globs" in line for line in errors(many)] == [True]
    assert len(errors(HEAD + "x: 1\n".join(f"k{i}: 1\n" for i in range(5000)))) <= 200


def test_a_user_is_asked_for_once() -> None:
    asked = []

    def resolve(name: str) -> int | None:
        asked.append(name)
        return 7

    parse_policy((HEAD + "rules:\n" + "- {deny: exec, user: carol}\n" * 3).encode(), "p", resolve)
    assert asked == ["carol"]


LINES = """\
policy: p|for: {}|for: {team: billing}|mode: observe|rules:|  - allow: exec|  - deny: [read, write]|    path: /x
    path: ["**/.env", /etc/{a,b}]|    argv: [git push*]|    to: "10.0.0.0/8:*"|  - kill:|    except: /y
    user: [root, 5]|    except: {path: [/a], argv: b}|    why: because
otherwise: {exec: deny}|record: {read: none}|  - hold: connect
---|&a x|*a|!!map|{|}|[|]|- |: |'|"|? |>|%YAML 1.2|#|\\|ä😀|<<: *a|!|~|,|..."""
FRAGMENTS = st.sampled_from([*re.split("[|\n]", LINES), "|", "\t", "\0", "\u2028", "\x85", "x" * 5000, "{" * 40])
NEAR_VALID = st.lists(st.tuples(FRAGMENTS, st.sampled_from(["\n", "\n", "\n", " ", "", "\r\n"])), max_size=25).map(
    lambda parts: "".join(text + end for text, end in parts).encode()
)


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """The example with a few bytes replaced, cut out or put in."""
    data = bytearray(EXAMPLE)
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(data)))
        data[start : start + draw(st.integers(0, 6))] = draw(st.binary(max_size=4) | FRAGMENTS.map(str.encode))
    return bytes(data)


@pytest.mark.parametrize(
    "inputs", [st.binary(max_size=400), NEAR_VALID, mutated()], ids=["bytes", "fragments", "mutated"]
)
def test_no_input_raises_anything_but_policy_errors(inputs: st.SearchStrategy[bytes], examples: int) -> None:
    @settings(max_examples=examples, suppress_health_check=list(HealthCheck), deadline=None)
    @given(inputs)
    def run(data: bytes) -> None:
        try:
            policy = parse_policy(data, "fuzz.yaml", USERS.get)
        except PolicyErrors as found:
            assert found.errors
            for error in found.errors:
                assert str(error).splitlines() == [str(error)] and error.line >= 1 and error.column >= 1
        else:
            assert isinstance(policy, Policy)

    run()


def test_the_parser_takes_the_whole_of_a_large_policy(policy: Callable[..., Policy]) -> None:
    globs = ", ".join(f"/srv/{i}/**" for i in range(1000))
    made = policy(f"- deny: read\n  path: [{globs}]")
    assert made.rules[0].path_globs is not None and len(made.rules[0].path_globs) == 1000
