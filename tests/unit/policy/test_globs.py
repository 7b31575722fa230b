"""Globs into their tree: what is read, what is refused and where, and what hostile globs may cost."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostwarden.policy.globs import (
    DEEP,
    MAX_EXPANSIONS,
    MAX_LENGTH,
    SLASH,
    GlobError,
    Node,
    OneOf,
    Wild,
    expand,
    parse_argv,
    parse_path,
    parse_unix,
)
from hostwarden.policy.match import match_path


def spell(nodes: tuple[Node, ...]) -> str:
    """Nodes as text, sets as their members."""
    return "".join(node.value if isinstance(node, Wild) else _members(node) for node in nodes)


def _members(node: OneOf) -> str:
    text = bytes(sorted(node.bytes)).decode("latin-1")
    return text if len(text) == 1 else f"[{text}]"


def components(text: str) -> list[list[str]]:
    return [["**" if part is DEEP else spell(part) for part in glob.components] for glob in parse_path(text)]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # plain, root, deep
        ("/", [[]]),
        ("/etc/shadow", [["etc", "shadow"]]),
        ("**", [["**"]]),
        ("/**", [["**"]]),
        ("**/.env", [["**", ".env"]]),
        ("/srv/**/**/x", [["srv", "**", "x"]]),
        ("/usr/bin/python3*", [["usr", "bin", "python3*"]]),
        # braces are written out first, as shells do
        ("/{usr/,}bin/git", [["usr", "bin", "git"], ["bin", "git"]]),
        ("{/a,/b}/c", [["a", "c"], ["b", "c"]]),
        ("/a{b,{c,d}e}", [["ab"], ["ace"], ["ade"]]),
        ("/a{,.old}", [["a"], ["a.old"]]),
        # sets
        ("/[a-c]", [["[abc]"]]),
        ("/[]a]", [["[]a]"]]),
        ("/[a-]", [["[-a]"]]),
        ("/[*]?", [["*?"]]),
        ("/[{,}]", [["[,{}]"]]),
        ("/[.-0]", [["[.0]"]]),  # the slash in between is no part of a name
    ],
)
def test_paths(text: str, expected: list[list[str]]) -> None:
    assert components(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("git push --force*", ["git push --force*"]),
        ("** rm **", ["* rm *"]),
        ("* rm -rf /*", ["* rm -rf /*"]),
        ("{git,hub} push", ["git push", "hub push"]),
        ("a\\ b", ["a\\ b"]),  # a backslash is a plain character: join_argv writes it
        ("[+-0]", ["[+,-./0]"]),  # no components, so a slash like any other byte
    ],
)
def test_argv(text: str, expected: list[str]) -> None:
    assert [spell(glob.nodes) for glob in parse_argv(text)] == expected


def test_negated_sets_hold_no_slash_within_a_path() -> None:
    [path] = parse_path("/[!a]")
    [argv] = parse_argv("[!a]")
    (in_path,) = path.components[0]  # type: ignore[misc]
    (in_argv,) = argv.nodes
    assert isinstance(in_path, OneOf) and isinstance(in_argv, OneOf)
    assert SLASH not in in_path.bytes and SLASH in in_argv.bytes
    assert in_argv.bytes - in_path.bytes == {SLASH}
    assert max(in_argv.bytes) == 127 and 0 not in in_argv.bytes and ord("a") not in in_argv.bytes


@pytest.mark.parametrize(
    ("text", "offset", "message"),
    [
        ("", 0, "an empty glob"),
        ("etc/shadow", 0, "not anchored"),
        ("**foo/x", 0, "not anchored"),
        ("/etc/", 4, "slash at the end"),
        ("/{a,b}/", 6, "slash at the end"),
        ("//etc", 1, "two slashes"),
        ("/etc//x", 5, "two slashes"),
        ("/a/../b", 3, "resolved paths"),
        ("/a/./b", 3, "resolved paths"),
        ("/a/b**", 4, "** within a name"),
        ("/a**[b]", 2, "** within a name"),
        ("/a/[x", 3, "a [ without"),
        ("/a[]", 2, "a [ without"),
        ("/a/{b,c", 3, "a { without"),
        ("/a/b}", 4, "a } without"),
        ("/a[z-a]", 2, "runs backwards"),
        ("/a[ä]", 2, "ASCII"),
        ("/a[!\x01-\x7f]", 2, "holds nothing"),
        ("/a\0b", 2, "NUL"),
        ("/a\ud800", 2, "surrogate"),
        ("/" + "a" * MAX_LENGTH, MAX_LENGTH, "expected at most"),
        ("/" + "{" * 100, 17, "nest deeper"),
    ],
)
def test_errors(text: str, offset: int, message: str) -> None:
    with pytest.raises(GlobError) as caught:
        parse_path(text)
    assert message in str(caught.value)
    assert caught.value.offset == offset


@pytest.mark.parametrize(
    ("text", "matching", "other"),
    [
        ("/run/*.sock", [b"/run/a.sock"], [b"/run/a/b.sock", b"/./run/a.sock"]),
        ("@x", [b"/./x"], [b"/x", b"/./x/y", b"/./"]),
        ("@/tmp/*", [b"/.//tmp/a"], [b"/./tmp/a", b"/tmp/a", b"/.//tmp/a/b"]),
        ("@a//b", [b"/./a//b"], [b"/./a/b"]),
        ("@..", [b"/./.."], [b"/.."]),
        ("@**", [b"/./x", b"/./x/y"], [b"/x", b"/.x"]),
        ("@x/**", [b"/./x", b"/./x/y"], [b"/./xy"]),
        ("@{a,b}?", [b"/./ax", b"/./bx"], [b"/./a"]),
        ("**", [b"/x", b"/x/y", b"/./x"], [b""]),
        ("/**", [b"/x", b"/./x"], [b""]),
        ("**/x", [b"/x", b"/y/x", b"/./x"], [b"/y"]),
    ],
)
def test_unix_sockets(text: str, matching: list[bytes], other: list[bytes]) -> None:
    globs = parse_unix(text)
    assert [path for path in matching if not any(match_path(glob, path) for glob in globs)] == []
    assert [path for path in other if any(match_path(glob, path) for glob in globs)] == []


@pytest.mark.parametrize("text", ["@", "x", "run/x", "/a/../b", "@a**", "@[x", "{@a,/b}"])
def test_what_is_no_unix_socket(text: str) -> None:
    with pytest.raises(GlobError):
        parse_unix(text)


def test_a_name_that_is_not_utf8_is_its_bytes() -> None:
    [glob] = parse_path("/" + b"\xff\xe4".decode("utf-8", "surrogateescape"))
    assert components_bytes(glob.components[0]) == b"\xff\xe4"  # type: ignore[arg-type]


def components_bytes(nodes: tuple[Node, ...]) -> bytes:
    return bytes(next(iter(node.bytes)) for node in nodes if isinstance(node, OneOf))


def test_braces_cost_no_more_than_their_bound() -> None:
    many = "{" + ",".join("a" * 4 for _ in range(MAX_EXPANSIONS)) + "}"
    assert len(expand(many)) == MAX_EXPANSIONS
    started = time.monotonic()
    for text in (many + "{a,b}", "x" * 3000 + "{" + "a," * 255 + "}" + "{" + "b," * 255 + "}", "{a,b}" * 800):
        with pytest.raises(GlobError, match="too many"):
            expand(text)
    with pytest.raises(GlobError, match="at most"):
        expand("[a]" * 400_000)
    assert time.monotonic() - started < 1


@given(st.text(alphabet="/*?[]{},!-ab.ä\\", max_size=40))
def test_any_text_is_read_or_refused(text: str) -> None:
    for parse in (parse_path, parse_argv):
        try:
            globs = parse(text)
        except GlobError as error:
            assert 0 <= error.offset <= len(text) and str(error)
        else:
            assert 1 <= len(globs) <= MAX_EXPANSIONS
