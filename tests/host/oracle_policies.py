"""Policies that hypothesis makes, as sketches: names of places are filled in when a world is there.

Globs are put together from parts, of which each brings names that it matches, or nearly, so that attempts can be made
that touch some rule (oracle_attempts.py).
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

from hypothesis import strategies as st

from hostwarden.policy.model import Policy
from hostwarden.policy.parse import parse_policy

T = TypeVar("T")
ESCAPED = {char: f"[{char}]" for char in "*?[{},"}
UIDS = (0, 1000, 1001, 7)

# Names that a policy may have in mind, and what might pass for them.
NAMES = (
    "a", "b", "ab", "A", "aB", "a.txt", ".env", ".ENV", ".env.", ".ssh", "id_rsa", "id_rsa.pub", "secret", "secrets",
    "Secret", "secret ", " secret", "sеcret", "a\u0301", "á", "日本", "日", "😀", "𝔞", "*", "?", "[a]", "a\\b", "\\",
    "{a,b}", "a\nb", "\t", "~", "...", "x" * 255, "é" * 127, "lost+found",
)  # fmt: skip


class Part(NamedTuple):
    """A component as a glob has it, and names that it matches, or nearly."""

    text: str
    names: tuple[bytes, ...]


def literal(name: str) -> str:
    """The glob that matches just ``name``."""
    return "".join(ESCAPED.get(char, char) for char in name)


def _part(text: str, *names: str | bytes) -> Part:
    return Part(text, tuple(name.encode() if isinstance(name, str) else name for name in names))


DEEP = Part("**", ())
WILD = (
    _part("*", "a", "x" * 255, b"\xff", "é", "*"),
    _part("a*", "a", "ab", b"a\xff", "a" + "x" * 254, "A"),
    _part("*b", "b", "ab", b"\xffb", "bb", "bа"),
    _part("*.txt", "a.txt", ".txt", "a.txt.txt", "a.TXT", "atxt"),
    _part("*a*b*", "ab", "xaxbx", "ba", "aab", "a\nb"),
    _part("?", "a", "é", "日", "😀", b"\xff", b"\xc3", "á", "ab"),
    _part("??", "ab", "éa", "日本", b"\xff\xfe", b"\xe6\x97", "é", "a", "😀"),
    _part("a?", "ab", "aé", b"a\xe6\x97\xa5", b"a\xff", "a", "a\u0301"),
    _part("?b", "ab", "éb", "b", b"\x80b"),
    _part("????????", "abcdefgh", "éééééééé", "éééé", "😀😀"),
    _part("[ab]", "a", "b", "c", "A", "ab"),
    _part("[!a]", "b", "a", "é", b"\xff", "!"),
    _part("[a-c]x", "ax", "cx", "dx", "-x"),
    _part("[]]", "]", "a"),
    _part("{a,b}", "a", "b", "{a,b}", "c"),
    _part("{a,ab}{,b}", "a", "ab", "abb", "b"),
    _part("secret{,s}", "secret", "secrets", "secre", "sеcret"),
    _part("[.]*", ".env", ".ssh", "env", "..."),
    _part("id_*", "id_rsa", "id_", "id-rsa"),
)
LITERALS = tuple(Part(literal(name), (name.encode(),)) for name in NAMES)
PARTS = (*LITERALS, *WILD, DEEP, DEEP, DEEP, DEEP)


@dataclass(frozen=True)
class Glob:
    """``home`` is the place below which it is anchored ("" for the host's root, None for none: it begins with `**`)."""

    home: str | None
    parts: tuple[Part, ...]

    def text(self, homes: Mapping[str, str]) -> str:
        """As a policy has it."""
        parts = "/".join(part.text for part in self.parts)
        if self.home is None:
            return "**" + ("/" + parts if parts else "")
        return (literal(homes[self.home]) + ("/" + parts if parts else "")) or "/"

    def sample(self, salt: "Salt") -> list[bytes]:
        """The components of a path that it matches, or nearly."""
        found: list[bytes] = []
        for part in self.parts:
            found += salt.choose(((), (b"q",), (b"q", b"r"))) if part is DEEP else (salt.choose(part.names),)
        return found


class Salt:
    """Choices out of a number, which then is smaller."""

    def __init__(self, number: int) -> None:
        self.number = number

    def below(self, limit: int) -> int:
        """A number below ``limit``."""
        self.number, found = divmod(self.number, limit)
        return found

    def choose(self, options: Sequence[T]) -> T:
        """One of them; the first when nothing is left to choose with."""
        return options[self.below(len(options))]


# Not of the policy: what else could be there.
STRANGERS = tuple(Glob(None, (part, DEEP, LITERALS[5])) for part in LITERALS) + tuple(
    Glob(None, (part,)) for part in WILD
)
STRANGER = Glob(None, (WILD[0], DEEP, WILD[1]))
HOMES = ("disk", "memory", "twice", "again", "part", "late")
globs = st.builds(
    Glob,
    st.sampled_from([*HOMES, *HOMES, None, None, None, ""]),
    st.lists(st.sampled_from(PARTS), max_size=3).map(tuple),
)
argv_globs = st.lists(
    st.sampled_from(["a", "b", " ", " ", "*", "*", "?", "\\", "\\ ", "-f", "[ab]", "é", "{a,b}", "z", "push"]),
    min_size=1,
    max_size=6,
).map("".join)
VERDICTS = ("allow", "allow", "audit", "deny", "deny", "deny", "kill", "freeze")
DEADLY = ("kill", "freeze")
CONTENTS = ("0a" * 32, "B0" * 32)  # of no file


@dataclass(frozen=True)
class Rule:
    """A rule's parts. ``to`` and ``argv`` are texts already."""

    verdict: str
    actions: tuple[str, ...]
    path: tuple[Glob, ...] = ()
    argv: tuple[str, ...] = ()
    to: tuple[str, ...] = ()
    except_path: tuple[Glob, ...] = ()
    except_argv: tuple[str, ...] = ()
    except_to: tuple[str, ...] = ()
    users: tuple[int, ...] = ()
    sha256: tuple[str, ...] = ()

    def lines(self, homes: Mapping[str, str]) -> list[str]:
        """As YAML."""
        path, but = [glob.text(homes) for glob in self.path], [glob.text(homes) for glob in self.except_path]
        fields: list[tuple[str, Sequence[object]]] = [("path", path), ("argv", self.argv), ("to", self.to)]
        fields += [("user", [str(uid) for uid in self.users]), ("sha256", self.sha256)]
        lines = [f"  - {self.verdict}: [{', '.join(self.actions)}]"]
        lines += [f"    {key}: {quoted(texts)}" for key, texts in fields if texts]
        if self.path and self.argv and (but or self.except_argv):
            parts = [f"{key}: {quoted(texts)}" for key, texts in (("path", but), ("argv", self.except_argv)) if texts]
            lines.append(f"    except: {{{', '.join(parts)}}}")
        elif but or self.except_argv or self.except_to:
            lines.append(f"    except: {quoted([*but, *self.except_argv, *self.except_to])}")
        return lines


def quoted(texts: Sequence[object]) -> str:
    """A list of double-quoted YAML scalars. JSON's escapes are YAML's, but for characters beyond the first plane."""
    return "[" + ", ".join(json.dumps(text, ensure_ascii=False) for text in texts) + "]"


@dataclass(frozen=True)
class Sketch:
    """A policy without its name and places."""

    mode: str
    rules: tuple[Rule, ...]
    otherwise: tuple[tuple[str, str], ...]

    @property
    def kills(self) -> bool:
        """Whether it could end or stop the member."""
        return any(word in DEADLY for word in (*(rule.verdict for rule in self.rules), *dict(self.otherwise).values()))

    def text(self, name: str, homes: Mapping[str, str]) -> str:
        """The policy file."""
        lines = [f"policy: {name}", "for: {}", f"mode: {self.mode}"]
        if self.rules:
            lines += ["rules:", *(line for rule in self.rules for line in rule.lines(homes))]
        if self.otherwise:
            lines.append("otherwise: {" + ", ".join(f"{action}: {word}" for action, word in self.otherwise) + "}")
        return "\n".join(lines) + "\n"


def parsed(sketches: Sequence[Sketch], homes: Mapping[str, str]) -> tuple[list[Policy], str]:
    """The policies, and their files' text for whoever reads a failure."""
    texts = [sketch.text(f"p{number}", homes) for number, sketch in enumerate(sketches)]
    policies = [parse_policy(text.encode(), f"p{n}.yaml", lambda name: None) for n, text in enumerate(texts)]
    return policies, "\n".join(texts)


def some(elements: st.SearchStrategy[T], least: int, most: int) -> st.SearchStrategy[tuple[T, ...]]:
    """A tuple of so many."""
    return st.lists(elements, min_size=least, max_size=most).map(tuple)


# Those that are attempted, and some that rules speak of beside them.
FILE_WORDS = ("read", "write", "create", "exec", "delete", "load")
NET_WORDS = ("connect", "send", "listen")
SOCKETS = ("unix:**", "unix:/run/*", "unix:@a")
users = st.one_of(st.just(()), st.just(()), st.lists(st.sampled_from(UIDS[:3]), min_size=1, unique=True).map(tuple))
verdicts = st.sampled_from(VERDICTS)


def actions(words: Sequence[str]) -> st.SearchStrategy[tuple[str, ...]]:
    """One or more of them, each once."""
    return st.lists(st.sampled_from(words), min_size=1, unique=True).map(tuple)


path_rules = st.builds(
    Rule,
    verdicts,
    actions(FILE_WORDS),
    path=some(globs, 0, 3),
    except_path=st.one_of(st.just(()), some(globs, 1, 2)),
    users=users,
)
exec_rules = st.builds(
    Rule,
    verdicts,
    st.sampled_from([("exec",), ("exec",), ("exec", "load")]),
    path=some(globs, 0, 2),
    # Seldom: where nobody can vouch for contents, it makes a denial of everything.
    sha256=st.one_of(*[st.just(())] * 7, some(st.sampled_from(CONTENTS), 1, 1)),
    except_path=st.one_of(st.just(()), some(globs, 1, 1)),
    users=users,
)
# Without `user`: rules of other users count, too, where argv can't be read (compile.py, `_unread`).
argv_rules = st.builds(
    lambda rule, path: rule if path else Rule(**{**rule.__dict__, "path": (), "except_path": ()}),
    st.builds(
        Rule,
        verdicts,
        st.just(("exec",)),
        path=some(globs, 1, 2),
        argv=some(argv_globs, 1, 2),
        except_path=st.one_of(st.just(()), some(globs, 1, 1)),
        except_argv=st.one_of(st.just(()), some(argv_globs, 1, 1)),
    ),
    st.booleans(),
)


def sketches(rules: st.SearchStrategy[Rule], words: Sequence[str], most: int = 3) -> st.SearchStrategy[list[Sketch]]:
    """Sets of policies that apply to one agent at the same time."""
    otherwise = st.dictionaries(st.sampled_from(words), verdicts).map(lambda found: tuple(sorted(found.items())))
    one = st.builds(Sketch, st.sampled_from(["enforce", "enforce", "observe"]), some(rules, 1, 4), otherwise)
    return st.lists(one, min_size=1, max_size=most)
