"""Automata against two other readings of the same globs: Python's ``re`` and greenery's finite automata."""

import os
import re
import time
from collections.abc import Sequence

import greenery
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hostwarden.policy.argv import join_argv
from hostwarden.policy.automata import MAX_RAW_STATES, Subsets, for_users, over_raw_argv, tabulate, with_idle_nul
from hostwarden.policy.budget import Budget, TooManyStates
from hostwarden.policy.globs import ArgvGlob, Deep, Node, OneOf, PathGlob, Wild, parse_argv, parse_path
from hostwarden.policy.match import match_argv
from hostwarden.policy.nfa import GlobTrie
from hostwarden.policy.tables import Automaton, Decision
from hostwarden.policy.words import Action

EXAMPLES = int(os.environ.get("HOSTWARDEN_EXAMPLES", "200"))
CHARACTER = rb"(?:[\xc2-\xdf][\x80-\xbf]|[\xe0-\xef][\x80-\xbf]{2}|[\xf0-\xf4][\x80-\xbf]{3}|%s)"


def table(globs: Sequence[PathGlob | ArgvGlob], tokens: Sequence[int]) -> Automaton:
    """The whole way to a table, for one user; the tokens of a final state come out as `joint`."""
    is_argv = bool(globs) and isinstance(globs[0], ArgvGlob)
    trie = GlobTrie(separator=None) if is_argv else GlobTrie()
    for glob, token in zip(globs, tokens, strict=True):
        trie.add(glob, token)
    subsets = Subsets(trie.nfa(b" \\" if is_argv else b""), Budget())
    start = subsets.intern(subsets.nfa.start)
    raw = subsets.complete()
    alphabet = subsets.nfa.alphabet
    if is_argv:
        raw, alphabet = over_raw_argv(raw, alphabet)
    decisions = [{Action.READ: Decision(joint=token)} for token in sorted(set(raw.outputs))]
    number = {row[Action.READ].joint: index for index, row in enumerate(decisions)}
    graph, states = for_users(raw, [[number[token] for token in raw.outputs]])
    if not is_argv:
        graph, alphabet = with_idle_nul(graph, alphabet)
    return tabulate(graph, alphabet, decisions, [[states[0][start]]])


def tokens_of(automaton: Automaton, text: bytes) -> int:
    """What ``text`` matches."""
    state = automaton.run(text, automaton.starts[0][0])
    return automaton.decisions[automaton.output[state]][Action.READ].joint


def regex_of_nodes(nodes: Sequence[Node], any_byte: bytes) -> bytes:
    """A component, or a whole argv glob, as a regular expression."""
    parts = []
    for node in nodes:
        if node is Wild.MANY:
            parts.append(any_byte + b"*")
        elif node is Wild.ONE:
            parts.append(CHARACTER % any_byte)
        else:
            assert not isinstance(node, Wild)
            allowed = re.compile(any_byte, re.DOTALL)
            singles = [bytes([byte]) for byte in sorted(node.bytes)]
            members = b"|".join(re.escape(single) for single in singles if allowed.fullmatch(single))
            parts.append(b"(?:" + (members or b"(?!)") + b")")
    return b"".join(parts)


def regex_of(glob: PathGlob) -> re.Pattern[bytes]:
    """A path glob as a regular expression."""
    parts = []
    for component in glob.components:
        if isinstance(component, Deep):
            parts.append(rb"(?:/[^/]*)*")
        else:
            parts.append(b"/" + regex_of_nodes(component, b"[^/]"))
    return re.compile(b"".join(parts), re.DOTALL)


def assert_minimal(automaton: Automaton) -> None:
    """No two states answer alike (Moore's table filling, the slow and plain way), and all can be reached."""
    width = 1 << automaton.shift
    used = sorted(set(automaton.classes))
    n_states = automaton.n_states
    block = list(automaton.output)
    while True:
        keys = [
            (block[state], *(block[automaton.next[state * width + number]] for number in used))
            for state in range(n_states)
        ]
        numbers = {key: index for index, key in enumerate(dict.fromkeys(keys))}
        if len(numbers) == len(set(block)):
            break
        block = [numbers[key] for key in keys]
    assert len(set(block)) == n_states
    seen = {start for row in automaton.starts for start in row}
    todo = list(seen)
    while todo:
        state = todo.pop()
        for number in used:
            target = automaton.next[state * width + number]
            if target not in seen:
                seen.add(target)
                todo.append(target)
    assert seen == set(range(n_states))


PIECES = ["a", "b", "ab", ".", "*", "?", "[ab]", "[!a]", "é", "а", "😀", "[a-c.]"]
components = st.one_of(st.just("**"), st.lists(st.sampled_from(PIECES), min_size=1, max_size=4).map("".join)).filter(
    lambda part: part == "**" or ("**" not in part and part not in (".", ".."))
)
path_globs = st.lists(components, min_size=1, max_size=4).map(lambda parts: "/" + "/".join(parts))
names = st.lists(
    st.sampled_from([b"a", b"b", b"c", b".", "é".encode(), "а".encode(), "😀".encode(), b"\xc3", b"\xa9", b"\xff"]),
    min_size=1,
    max_size=4,
).map(b"".join)
paths = st.lists(names, max_size=5).map(lambda parts: b"".join(b"/" + part for part in parts))


@settings(max_examples=EXAMPLES, deadline=None)
@given(
    st.lists(st.tuples(path_globs, st.integers(0, 2)), min_size=1, max_size=5),
    st.lists(paths, min_size=1, max_size=20),
)
def test_paths_match_as_regular_expressions_say(owned: list[tuple[str, int]], subjects: list[bytes]) -> None:
    globs = [parse_path(text)[0] for text, _ in owned]
    automaton = table(globs, [1 << owner for _, owner in owned])
    assert_minimal(automaton)
    for subject in subjects:
        owners = {owner for glob, (_, owner) in zip(globs, owned, strict=True) if regex_of(glob).fullmatch(subject)}
        expected = sum(1 << owner for owner in owners)
        assert tokens_of(automaton, subject) == expected, (owned, subject)
        assert tokens_of(automaton, subject + b"\0\0\0") == expected


argv_globs = st.lists(
    st.sampled_from(["a", "b", " ", "*", "?", "\\", "[a ]", "[!a]", "é", "/"]), min_size=1, max_size=4
).map("".join)
arguments = st.lists(st.sampled_from([b"a", b"b", b" ", b"\\", b"/", "é".encode(), b"\xc3"]), max_size=2)
argvs = st.lists(arguments.map(b"".join), max_size=3)


@settings(max_examples=EXAMPLES, deadline=None)
@given(st.lists(argv_globs, min_size=1, max_size=4), st.lists(argvs, min_size=1, max_size=20))
def test_raw_arguments_match_as_the_joined_line_does(texts: list[str], subjects: list[list[bytes]]) -> None:
    globs = [parse_argv(text)[0] for text in texts]
    automaton = table(globs, [1 << index for index in range(len(globs))])
    assert_minimal(automaton)
    for argv in subjects:
        line = join_argv(argv)
        by_regex = [re.compile(regex_of_nodes(glob.nodes, rb"[\x00-\xff]"), re.DOTALL) for glob in globs]
        expected = sum(1 << index for index, pattern in enumerate(by_regex) if pattern.fullmatch(line))
        assert expected == sum(1 << index for index, glob in enumerate(globs) if match_argv(glob, line))
        assert tokens_of(automaton, b"\0".join(argv)) == expected, (texts, argv)


@pytest.mark.parametrize(
    ("texts", "path", "is_match"),
    [
        # globs of one rule: what the first holds up to the next slash makes the second needless only up to there
        (["/a*", "/ab/c"], b"/ab/c", True),
        (["/a*", "/ab/c"], b"/ab/d", False),
        (["/a*", "/ab/**"], b"/ab/d", True),
        (["/a*", "/*b"], b"/cb", True),
        (["/a/**", "/a/b/*c"], b"/a/b/d", True),
        (["/a/**", "/*/b/c"], b"/d/b/c", True),
        (["/**/a*", "/ab/c"], b"/ab/c", True),
    ],
)
def test_globs_of_one_rule(texts: list[str], path: bytes, is_match: bool) -> None:
    globs = [parse_path(text)[0] for text in texts]
    assert bool(tokens_of(table(globs, [1] * len(globs)), path)) is is_match


@pytest.mark.parametrize(
    ("glob", "argv", "is_match"),
    [
        ("rm *", [b"rm", b"-rf", b"/"], True),
        ("rm *", [b"rm"], False),
        ("rm -rf", [b"rm -rf"], False),
        (r"rm\ -rf", [b"rm -rf"], True),
        (r"rm\ -rf", [b"rm", b"-rf"], False),
        (r"a\\b", [b"a\\b"], True),
        (r"a\b", [b"a\\b"], False),
        ("*", [], True),
        ("a  b", [b"a", b"", b"b"], True),
        ("a", [b"a", b""], False),
        ("a ", [b"a", b""], True),
        ("* /etc/*", [b"cat", b"/etc/ssl/x"], True),
        ("a?b", ["aéb".encode()], True),
    ],
)
def test_boundaries_of_arguments(glob: str, argv: list[bytes], is_match: bool) -> None:
    assert bool(tokens_of(table(parse_argv(glob), [1]), b"\0".join(argv))) is is_match


@pytest.mark.parametrize(
    ("glob", "pattern"),
    [
        # greenery knows no bytes, so these are ASCII without sets that exclude
        ("/a/b", "/a/b"),
        ("/a/*", "/a/[^/]*"),
        ("/a/**", "/a(/[^/]*)*"),
        ("/**/a", "(/[^/]*)*/a"),
        ("/usr/**/lib*/*.so", "/usr(/[^/]*)*/lib[^/]*/[^/]*\\.so"),
        ("/**/.env/**", "(/[^/]*)*/\\.env(/[^/]*)*"),
        ("/[ab]c/*x*y", "/[ab]c/[^/]*x[^/]*y"),
    ],
)
def test_as_many_states_as_greenery_and_the_same_language(glob: str, pattern: str) -> None:
    automaton = table([parse_path(glob)[0]], [1])
    theirs = greenery.parse(pattern).to_fsm().reduce()
    # greenery may leave the dead state out; ours has it wherever something is refused for good
    live = {state for state in theirs.states if theirs.islive(state)}
    dead = 1 if len(live) < len(theirs.states) else 0
    assert automaton.n_states == len(live) + dead
    for length in range(5):
        for index in range(6**length):
            text = "".join("/ab.xy"[index // 6**place % 6] for place in range(length))
            assert bool(tokens_of(automaton, text.encode())) == theirs.accepts(text), text


@pytest.mark.parametrize(
    ("glob", "path", "is_match"),
    [
        ("/x/**", b"/x", True),
        ("/x/**", b"/x/y/z", True),
        ("/x/**", b"/xy", False),
        ("/x/**", b"", False),
        ("/**", b"", True),
        ("/*/**", b"/a", True),
        ("/*/**", b"/ab/c", True),
        ("/*/**", b"", False),
        ("/a*/**/b", b"/ac/b", True),
        ("/", b"", True),
        ("/", b"/a", False),
        ("**/y", b"/y", True),
        ("**/y", b"/a/b/y", True),
        ("**/y", b"/a/xy", False),
        ("/a?b", "/aéb".encode(), True),
        ("/a?b", "/a😀b".encode(), True),
        ("/a?b", b"/a\xffb", True),
        ("/a?b", b"/a/b", False),
        ("/a?b", "/aéеb".encode(), False),
        ("/etc/passwd", "/etc/pаsswd".encode(), False),  # a Cyrillic letter
        ("/A", b"/a", False),
        ("/" + "a" * 255, b"/" + b"a" * 255, True),
        ("/" + "a" * 255, b"/" + b"a" * 254, False),
    ],
)
def test_boundaries(glob: str, path: bytes, is_match: bool) -> None:
    assert bool(tokens_of(table(parse_path(glob), [1]), path)) is is_match


def thousand(count: int) -> list[str]:
    """Globs like those of issue 3's bench."""
    kinds = ("/srv/app/customer-{:04d}/**", "/opt/tool{}/lib*/plugin-*.so", "**/.secret-{}")
    return [kind.format(index) for index in range(count // 3 + 1) for kind in kinds][:count]


@pytest.mark.parametrize(("count", "limit_s"), [(10, 0.1), (1000, 3.0)])
def test_many_globs_compile_in_time(count: int, limit_s: float) -> None:
    globs = [parse_path(text)[0] for text in thousand(count)]
    begin = time.perf_counter()
    automaton = table(globs, [1 << index % 3 for index in range(count)])
    assert time.perf_counter() - begin < limit_s
    assert tokens_of(automaton, b"/srv/app/customer-0001/a/.secret-2") == 0b101
    assert automaton.shift <= 5


def test_every_byte_in_a_class_of_its_own() -> None:
    globs = [PathGlob((parse_path("/x")[0].components[0], (OneOf(frozenset([byte])),))) for byte in range(1, 256)]
    automaton = table(globs, [1 << index for index in range(255)])
    assert automaton.shift == 8
    for byte in range(1, 256):
        assert tokens_of(automaton, b"/x/" + bytes([byte])) == (0 if byte == ord("/") else 1 << byte - 1)


def test_same_globs_make_the_same_table() -> None:
    first, second = (table([parse_path(text)[0] for text in thousand(30)], [1] * 30) for _ in range(2))
    assert (first.classes, first.next, first.output) == (second.classes, second.next, second.output)


@pytest.mark.parametrize(
    "texts",
    [
        ["/**/*a" + "[ab]" * 40],
        ["/*a*b*c*d" + "?" * 60],
        [f"/*{chr(97 + i)}{chr(97 + j)}*" for i in range(20) for j in range(20)],
    ],
)
def test_what_explodes_is_stopped(texts: list[str]) -> None:
    globs = [parse_path(text)[0] for text in texts]
    begin = time.perf_counter()
    with pytest.raises(TooManyStates):
        table(globs, [1 << index for index in range(len(globs))])
    assert time.perf_counter() - begin < 30


def test_time_is_bounded() -> None:
    trie = GlobTrie()
    trie.add(parse_path("/**/*a" + "[ab]" * 40)[0], 1)
    ticks = iter(range(MAX_RAW_STATES))
    subsets = Subsets(trie.nfa(), Budget(seconds=50, clock=lambda: next(ticks)))
    subsets.intern(subsets.nfa.start)
    with pytest.raises(TooManyStates):
        subsets.complete()
    assert len(subsets.tokens) < 200
