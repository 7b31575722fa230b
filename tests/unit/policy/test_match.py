"""Matching against regular expressions: a second, independent reading of the glob tree."""

import re
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hostwarden.policy.globs import ArgvGlob, Deep, GlobError, Node, PathGlob, Wild, parse_argv, parse_path
from hostwarden.policy.match import match_argv, match_path

SEQUENCE = rb"[\xc2-\xdf][\x80-\xbf]|[\xe0-\xef][\x80-\xbf]{2}|[\xf0-\xf4][\x80-\xbf]{3}"


def node_regex(node: Node, any_byte: bytes) -> bytes:
    if node is Wild.MANY:
        return any_byte + b"*"
    if node is Wild.ONE:
        return b"(?:" + SEQUENCE + b"|" + any_byte + b")"
    assert not isinstance(node, Wild)
    return b"[" + b"".join(b"\\x%02x" % byte for byte in sorted(node.bytes)) + b"]"


def path_regex(glob: PathGlob) -> bytes:
    parts = []
    for component in glob.components:
        if isinstance(component, Deep):
            parts.append(rb"(?:/[^/]+)*")
        else:
            parts.append(b"/" + b"".join(node_regex(node, b"[^/]") for node in component))
    return b"".join(parts)


def argv_regex(glob: ArgvGlob) -> bytes:
    return b"".join(node_regex(node, rb"[\x00-\xff]") for node in glob.nodes)


PATTERN_PIECES = st.sampled_from(["/", "/", "*", "?", "**/", "/**", "a", "b", "ä", "[ab]", "[!a]", "{a,/b}", ".", "😀"])
NAMES = st.sampled_from([b"a", b"b", b"ab", b"\xc3\xa4", "😀".encode(), b"\xff", b"\xc3", b".", b" ", b"\n", b"b\xf0a"])
PATHS = st.lists(NAMES, max_size=4).map(lambda names: b"".join(b"/" + name for name in names))


@settings(max_examples=2000)
@given(st.lists(PATTERN_PIECES, min_size=1, max_size=6).map("".join), st.lists(PATHS, min_size=1, max_size=8))
def test_paths_match_as_regular_expressions_do(text: str, paths: list[bytes]) -> None:
    try:
        globs = parse_path(text)
    except GlobError:
        return
    for glob in globs:
        regex = re.compile(path_regex(glob), re.DOTALL)
        for path in paths:
            assert match_path(glob, path) == bool(regex.fullmatch(path)), (text, path)


@settings(max_examples=1000)
@given(st.lists(PATTERN_PIECES, max_size=5).map(lambda parts: "x" + "".join(parts)), st.lists(NAMES, max_size=5))
def test_argv_matches_as_regular_expressions_do(text: str, parts: list[bytes]) -> None:
    line = b"x" + b"/".join(parts)
    for glob in parse_argv(text):
        assert match_argv(glob, line) == bool(re.fullmatch(argv_regex(glob), line, re.DOTALL)), (text, line)


@pytest.mark.parametrize(
    ("text", "matching", "other"),
    [
        # boundaries, never byte prefixes
        ("/srv", [b"/srv"], [b"/srv/a", b"/srv2", b"/", b""]),
        ("/srv/**", [b"/srv", b"/srv/a", b"/srv/a/b"], [b"/srv2", b"/sr", b""]),
        ("/", [b"", b"/"], [b"/a"]),
        ("/**", [b"", b"/", b"/a/b"], []),
        ("**", [b"", b"/a"], []),
        ("/*", [b"/a"], [b"", b"/a/b"]),
        ("**/.env", [b"/.env", b"/a/b/.env"], [b"/.env/a", b"/a.env", b"/.environment"]),
        ("/a/**/b", [b"/a/b", b"/a/x/b", b"/a/x/y/b"], [b"/ab", b"/a/xb", b"/a/b/c"]),
        ("**/.ssh/**", [b"/home/a/.ssh", b"/home/a/.ssh/id"], [b"/home/a/.sshd", b"/home/a/x.ssh"]),
        # characters and bytes
        ("/?", [b"/a", "/ä".encode(), "/€".encode(), "/😀".encode(), b"/\xff", b"/\xc3"], [b"/", b"/aa", b"/\xff\xff"]),
        ("/??", ["/ä".encode(), "/ää".encode(), b"/\xff\xff"], [b"/a"]),
        ("/*a*", [b"/a", b"/xax", b"/\n\xffa"], [b"/x", b"/x/a"]),
        # look-alikes must not match
        ("/etc/passwd", [b"/etc/passwd"], ["/etc/рasswd".encode(), "/etc/passwd\u200b".encode(), b"/ETC/passwd"]),
    ],
)
def test_table(text: str, matching: list[bytes], other: list[bytes]) -> None:
    [glob] = parse_path(text)
    assert [path for path in matching if not match_path(glob, path)] == []
    assert [path for path in other if match_path(glob, path)] == []


def test_no_glob_takes_more_than_its_length_times_the_paths() -> None:
    started = time.monotonic()
    name = "ä".encode() * 1000
    for text in ("/" + "?" * 1200 + "b", "/" + "*a" * 500, "/" + "*?" * 500 + "b", "/**" * 50 + "/b"):
        assert not match_path(parse_path(text)[0], b"/" + name)
        assert not match_path(parse_path(text)[0], b"/" + b"a" * 400 + b"/x" * 1000)
    assert time.monotonic() - started < 2
