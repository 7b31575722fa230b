"""Globs as a small tree: what the oracle turns into regular expressions and the compiler into automata.

``?`` one character, ``*`` any within a component, ``**`` (a component of its own) any number of components, ``[a-z]``
and ``[!a-z]`` one ASCII character of a set, ``{a,b}`` either. Nothing else is special; ``[*]`` is a literal star.
In argv globs there are no components: ``*`` and ``?`` cross everything, and ``**`` is ``*``.
"""

from dataclasses import dataclass
from enum import Enum

MAX_EXPANSIONS = 256
MAX_LENGTH = 4096
SLASH = ord("/")


class GlobError(ValueError):
    """A glob that can't be read: ``offset`` is the character it fails at."""

    def __init__(self, offset: int, message: str) -> None:
        super().__init__(message)
        self.offset = offset


class Wild(Enum):
    """``ONE`` is ``?``: a UTF-8 sequence, or a single byte of any value. ``MANY`` is ``*``: any bytes, none included."""

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
    """A glob over the joined argv (words.join_argv)."""

    nodes: tuple[Node, ...]


def parse_path(text: str) -> list[PathGlob]:
    """The globs that ``text`` stands for, braces expanded. Raises GlobError."""
    _check_length(text)
    if not text.startswith(("/", "**/", "{")) and text != "**":
        raise GlobError(0, "a path glob starts with / or **/")
    return [_path(expanded, text) for expanded in expand(text)]


def parse_argv(text: str) -> list[ArgvGlob]:
    """The argv globs that ``text`` stands for, braces expanded. Raises GlobError."""
    _check_length(text)
    globs = []
    for expanded in expand(text):
        nodes: list[Node] = []
        for node in _nodes(expanded, 0):
            if not (node is Wild.MANY and nodes and nodes[-1] is Wild.MANY):
                nodes.append(node)
        globs.append(ArgvGlob(tuple(nodes)))
    return globs


def expand(text: str) -> list[str]:
    """``a{b,c}d`` as ``abd`` and ``acd``; braces nest; those in brackets are literal. Raises GlobError."""
    options, end = _alternatives(text, 0, nested=False)
    assert end == len(text)
    return options


def _check_length(text: str) -> None:
    if not text:
        raise GlobError(0, "an empty glob matches nothing")
    if "\0" in text:
        raise GlobError(text.index("\0"), "a NUL byte can't be in a path or an argument")
    if len(text) > MAX_LENGTH:
        raise GlobError(MAX_LENGTH, f"longer than {MAX_LENGTH} characters")


def _alternatives(text: str, start: int, *, nested: bool) -> tuple[list[str], int]:
    """Options from ``start`` to the closing brace (nested) or the end, and the offset behind them."""
    done: list[str] = []
    current = [""]
    i = start
    while i < len(text):
        char = text[i]
        if char == "{":
            inner, i = _alternatives(text, i + 1, nested=True)
            current = [left + right for left in current for right in inner]
        elif nested and char == ",":
            done, current, i = done + current, [""], i + 1
        elif nested and char == "}":
            return done + current, i + 1
        elif char == "}":
            raise GlobError(i, "a } without its { (write [}] for a literal one)")
        else:
            end = _end_of_set(text, i) if char == "[" else i + 1
            current = [left + text[i:end] for left in current]
            i = end
        if len(done) + len(current) > MAX_EXPANSIONS:
            raise GlobError(start, f"braces stand for more than {MAX_EXPANSIONS} globs")
    if nested:
        raise GlobError(start - 1, "a { without its } (write [{] for a literal one)")
    return current, i


def _end_of_set(text: str, start: int) -> int:
    body = start + 2 if text[start + 1 : start + 2] == "!" else start + 1
    end = text.find("]", body + 1)  # a ] right at the start is a member
    if end < 0:
        raise GlobError(start, "a [ without its ] (write [[] for a literal one)")
    return end + 1


def _path(expanded: str, original: str) -> PathGlob:
    if not expanded.startswith("/") and not expanded.startswith("**"):
        raise GlobError(0, "a path glob starts with / or **/")
    if expanded != "/" and expanded.endswith("/"):
        raise GlobError(len(original) - 1, "no slash at the end: a directory is named like a file, what is below it is /**")
    components: list[Component] = []
    offset = 0
    for part in expanded.split("/"):
        if part == "**":
            if not (components and components[-1] is DEEP):
                components.append(DEEP)
        elif part:
            if part in (".", ".."):
                raise GlobError(offset, f"{part} never stands in the path of a file: rules see resolved paths")
            if "**" in part and "[" not in part:
                raise GlobError(offset + part.index("**"), "** stands alone between slashes (use * within a name)")
            components.append(tuple(_nodes(part, offset)))
        elif offset not in (0, len(expanded)) and expanded != "/":
            raise GlobError(offset, "an empty component: // never stands in a resolved path")
        offset += len(part) + 1
    return PathGlob(tuple(components))


def _nodes(text: str, offset: int) -> list[Node]:
    nodes: list[Node] = []
    i = 0
    while i < len(text):
        char = text[i]
        if char == "[":
            end = _end_of_set(text, i)
            nodes.append(_set(text[i + 1 : end - 1], offset + i))
            i = end
            continue
        if char == "*":
            nodes.append(Wild.MANY)
        elif char == "?":
            nodes.append(Wild.ONE)
        else:
            nodes.extend(OneOf(frozenset([byte])) for byte in char.encode("utf-8", "surrogateescape"))
        i += 1
    return nodes


def _set(body: str, offset: int) -> OneOf:
    negated = body.startswith("!")
    body = body[1:] if negated else body
    if not body.isascii():
        raise GlobError(offset, "a set [...] holds ASCII characters only (use {a,b} for others)")
    members: set[int] = set()
    i = 0
    while i < len(body):
        if i + 2 < len(body) and body[i + 1] == "-":
            low, high = ord(body[i]), ord(body[i + 2])
            if low > high:
                raise GlobError(offset, f"the range {body[i : i + 3]} runs backwards")
            members.update(range(low, high + 1))
            i += 3
        else:
            members.add(ord(body[i]))
            i += 1
    if negated:
        members = set(range(1, 128)) - members
    return OneOf(frozenset(members))
