"""Globs as a small tree: what the oracle turns into regular expressions and the compiler into automata.

``?`` one character, ``*`` any within a component, ``**`` (a component of its own) any number of components, ``[a-z]``
and ``[!a-z]`` one ASCII character of a set, ``{a,b}`` either. Nothing else is special; ``[*]`` is a literal star.
In argv globs there are no components: ``*`` and ``?`` cross everything, and ``**`` is ``*``.
"""

import re
from dataclasses import dataclass
from enum import Enum
from itertools import pairwise

MAX_EXPANSIONS = 256
MAX_LENGTH = 4096
MAX_NESTING = 16  # braces in braces
SLASH = ord("/")
_SPECIAL = re.compile(r"[][{},]")
_ANCHOR = "not anchored, expected / or **/ at the start"


class GlobError(ValueError):
    """A glob that can't be read: ``offset`` is the character it fails at."""

    def __init__(self, offset: int, message: str) -> None:
        super().__init__(message)
        self.offset = offset


class Wild(Enum):
    """``ONE`` is ``?``: a UTF-8 sequence, or a single byte of any value. ``MANY`` is ``*``: any bytes, none too."""

    ONE = "?"
    MANY = "*"


@dataclass(frozen=True)
class OneOf:
    """One byte of a set (a literal is a set of one)."""

    bytes: frozenset[int]


Node = Wild | OneOf


@dataclass(frozen=True)
class Deep:
    """``**``: any number of components, none included."""


DEEP = Deep()
_LITERALS = tuple(OneOf(frozenset([byte])) for byte in range(256))  # shared: a policy holds a million of them
Component = Deep | tuple[Node, ...]


@dataclass(frozen=True)
class PathGlob:
    """The components between the slashes of an absolute path: ``/usr/**/*.so`` is ``usr``, DEEP, ``*.so``.

    It matches a path whose components match one by one. `x/**` includes `x` itself, for DEEP may stand for nothing.
    The root directory has no components; ``/**`` includes it. Nodes within a component never match a slash.
    """

    components: tuple[Component, ...]


@dataclass(frozen=True)
class ArgvGlob:
    """A glob over the joined argv (``hostwarden.policy.argv.join_argv``)."""

    nodes: tuple[Node, ...]


def parse_path(text: str) -> list[PathGlob]:
    """The globs that ``text`` stands for, braces expanded. Raises GlobError."""
    _check_text(text)
    if not text.startswith(("/", "**/", "{")) and text != "**":
        raise GlobError(0, _ANCHOR)
    return [_path(expanded, text) for expanded in expand(text)]


def parse_unix(text: str) -> list[PathGlob]:
    """The globs of a unix socket, written as its path or as ``@name`` (Linux's abstract names, unix(7)): the name is
    then the path ``/./name``, which no file has. Raises GlobError.

    A glob for everything is one for every *named* socket: it must not hold for what is no unix socket at all.
    """
    if not text.startswith("@"):
        found = parse_path(text)
    elif len(text) == 1:
        raise GlobError(0, "an abstract name without a name, expected @NAME, or @** for all")
    else:
        found = [_abstract(expanded) for expanded in expand(text[1:])]
    return [PathGlob((DEEP, (Wild.MANY,))) if glob.components == (DEEP,) else glob for glob in found]


def parse_argv(text: str) -> list[ArgvGlob]:
    """The argv globs that ``text`` stands for, braces expanded. Raises GlobError."""
    globs = []
    for expanded in expand(text):
        nodes: list[Node] = []
        for node in _nodes(expanded, 0 if expanded == text else None, members=_ARGV_BYTES):
            if not (node is Wild.MANY and nodes and nodes[-1] is Wild.MANY):
                nodes.append(node)
        globs.append(ArgvGlob(tuple(nodes)))
    return globs


def expand(text: str) -> list[str]:
    """``a{b,c}d`` as ``abd`` and ``acd``; braces nest; those in brackets are literal. Raises GlobError."""
    _check_text(text)
    options, end = _alternatives(text, 0, nesting=0)
    assert end == len(text)
    return options


_ARGV_BYTES = frozenset(range(1, 128))
_PATH_BYTES = _ARGV_BYTES - {SLASH}


def _check_text(text: str) -> None:
    if not text:
        raise GlobError(0, "an empty glob, expected at least one character")
    if "\0" in text:
        raise GlobError(text.index("\0"), "a NUL byte, expected what a path or an argument can hold")
    if len(text) > MAX_LENGTH:
        raise GlobError(MAX_LENGTH, f"{len(text)} characters, expected at most {MAX_LENGTH}")
    try:
        text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as error:
        raise GlobError(error.start, "a surrogate, expected text in UTF-8") from None


def _alternatives(text: str, start: int, *, nesting: int) -> tuple[list[str], int]:
    """Options from ``start`` to the closing brace (if nested) or the end, and the offset behind them."""
    if nesting > MAX_NESTING:
        raise GlobError(start - 1, f"braces nest deeper, expected at most {MAX_NESTING} levels")
    done: list[str] = []
    current = [""]
    i = start
    while i < len(text):
        char = text[i]
        if char == "{":
            inner, i = _alternatives(text, i + 1, nesting=nesting + 1)
            # Counted before they are made: two braces of 256 options each would be 65,536 strings already.
            _check_expansions(start, len(done) + len(current) * len(inner))
            current = [left + right for left in current for right in inner]
        elif nesting and char == ",":
            done, current, i = done + current, [""], i + 1
            _check_expansions(start, len(done) + 1)
        elif nesting and char == "}":
            return done + current, i + 1
        elif char == "}":
            raise GlobError(i, "a } without its {, expected [}] for a literal one")
        else:
            end = _end_of_set(text, i) if char == "[" else _end_of_run(text, i)
            current = [left + text[i:end] for left in current]
            i = end
    if nesting:
        raise GlobError(start - 1, "a { without its }, expected [{] for a literal one")
    return current, i


def _check_expansions(offset: int, count: int) -> None:
    if count > MAX_EXPANSIONS:
        raise GlobError(offset, f"braces stand for too many globs, expected at most {MAX_EXPANSIONS}")


def _end_of_run(text: str, start: int) -> int:
    """The offset of the next brace, comma or bracket behind ``start``."""
    found = _SPECIAL.search(text, start + 1)
    return found.start() if found else len(text)


def _end_of_set(text: str, start: int) -> int:
    body = start + 2 if text[start + 1 : start + 2] == "!" else start + 1
    end = text.find("]", body + 1)  # a ] right at the start is a member
    if end < 0:
        raise GlobError(start, "a [ without its ], expected [[] for a literal one")
    return end + 1


def _path(expanded: str, original: str) -> PathGlob:
    """One glob without braces. Offsets are those of ``original`` as long as it had none, else its start."""
    if not expanded.startswith(("/", "**")):
        raise GlobError(0, _ANCHOR)
    if expanded == "/":
        return PathGlob(())
    if expanded.endswith("/"):
        message = "a slash at the end, expected a directory to be named like a file (what is below it is /**)"
        raise GlobError(len(original) - 1, message)
    components: list[Component] = []
    offset: int | None = 0 if expanded == original else None
    for i, part in enumerate(expanded.split("/")):
        if part == "**":
            if not (components and components[-1] is DEEP):
                components.append(DEEP)
        elif part or i:
            components.append(_component(part, offset))
        offset = None if offset is None else offset + len(part) + 1
    return PathGlob(tuple(components))


def _abstract(expanded: str) -> PathGlob:
    """Any bytes may stand in such a name: slashes with nothing between them, too."""
    components: list[Component] = [tuple(_nodes(".", None, members=_PATH_BYTES))]
    for part in expanded.split("/"):
        if part == "**":
            if components[-1] is not DEEP:
                components.append(DEEP)
        else:
            components.append(_name(part, None))
    return PathGlob(tuple(components))


def _component(part: str, offset: int | None) -> tuple[Node, ...]:
    if not part:
        raise GlobError(offset or 0, "two slashes, expected one: rules see resolved paths")
    if part in (".", ".."):
        raise GlobError(offset or 0, f"{part} as a name, expected none: rules see resolved paths")
    return _name(part, offset)


def _name(part: str, offset: int | None) -> tuple[Node, ...]:
    nodes = tuple(_nodes(part, offset, members=_PATH_BYTES))
    if any(left is right is Wild.MANY for left, right in pairwise(nodes)):
        raise GlobError(
            0 if offset is None else offset + part.find("**"), "** within a name, expected it alone between slashes"
        )
    return nodes


def _nodes(text: str, offset: int | None, *, members: frozenset[int]) -> list[Node]:
    """The nodes of a text without braces; a set may hold ``members``. ``offset`` None: where it stands is unknown."""
    nodes: list[Node] = []
    i = 0
    while i < len(text):
        char = text[i]
        if char == "[":
            end = _end_of_set(text, i)
            nodes.append(_set(text[i + 1 : end - 1], 0 if offset is None else offset + i, members))
            i = end
            continue
        if char == "*":
            nodes.append(Wild.MANY)
        elif char == "?":
            nodes.append(Wild.ONE)
        else:
            nodes.extend(_LITERALS[byte] for byte in char.encode("utf-8", "surrogateescape"))
        i += 1
    return nodes


def _set(body: str, offset: int, members: frozenset[int]) -> OneOf:
    """The set between the brackets, within ``members`` (a range may span the slash, which no component holds)."""
    negated = body.startswith("!")
    body = body[1:] if negated else body
    if not body.isascii():
        raise GlobError(offset, "a set [...] with other than ASCII characters, expected {a,b} for those")
    named: set[int] = set()
    i = 0
    while i < len(body):
        if i + 2 < len(body) and body[i + 1] == "-":
            low, high = ord(body[i]), ord(body[i + 2])
            if low > high:
                raise GlobError(offset, f"the range {body[i : i + 3]} runs backwards, expected {body[i + 2]}-{body[i]}")
            named.update(range(low, high + 1))
            i += 3
        else:
            named.add(ord(body[i]))
            i += 1
    found = members - named if negated else members & named
    if not found:
        raise GlobError(offset, "a set that holds nothing, expected at least one character")
    return OneOf(found)
