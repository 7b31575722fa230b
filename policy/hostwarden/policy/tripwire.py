"""What an argv rule misses. The process that is judged chooses its own argv, so such a rule catches the honest and the
careless; `policy check` says so and shows other ways to write the same command, each tried against the rule.
"""

import re
from collections.abc import Iterator

from hostwarden.policy.argv import join_argv
from hostwarden.policy.globs import ArgvGlob, Wild
from hostwarden.policy.match import match_argv
from hostwarden.policy.model import ArgvPattern, Rule

MAX_FORMS = 4  # shown for one pattern
MAX_WORDS = 12
# Global options that take a place between the command and its verb.
_BETWEEN = {"git": ["-C", "x"], "docker": ["--context", "x"], "kubectl": ["-n", "x"], "npm": ["--prefix", "x"]}


def missed_forms(rule: Rule, pattern: ArgvPattern) -> list[str]:
    """Ways to write a command of ``pattern`` that no pattern of ``rule`` matches, the likeliest first."""
    if not pattern.globs:
        return []
    words = _sample(pattern.globs[0])
    found: list[str] = []
    for form in _forms(words):
        line = join_argv([word.encode("utf-8", "surrogateescape") for word in form])
        shown = " ".join(f'"{word}"' if " " in word else word for word in form)
        if shown not in found and not any(match_argv(glob, line) for glob in rule.argv_globs or ()):
            found.append(shown)
        if len(found) == MAX_FORMS:
            break
    return found


def _sample(glob: ArgvGlob) -> list[str]:
    """The words of a short command that the glob is about: `*` is nothing, `?` and sets are one character."""
    text = bytearray()
    for node in glob.nodes:
        if isinstance(node, Wild):
            text += b"x" if node is Wild.ONE else b""
        else:
            text.append(max(node.bytes))
    return text.decode("utf-8", "surrogateescape").split()[:MAX_WORDS]


def _forms(words: list[str]) -> Iterator[list[str]]:
    if not words or not re.fullmatch(r"[A-Za-z0-9._+-]+", words[0]):
        return
    command, rest = words[0], words[1:]
    yield words
    yield [f"/usr/bin/{command}", *rest]
    if command in _BETWEEN:
        yield [command, *_BETWEEN[command], *rest]
    for i, word in enumerate(rest):
        for other in _spellings(word):
            yield [command, *rest[:i], *other, *rest[i + 1 :]]
    options = [word for word in rest if word.startswith("-")]
    others = [word for word in rest if not word.startswith("-")]
    if options:
        yield [command, *others, "x", *options]
    yield ["sh", "-c", " ".join(words)]


def _spellings(word: str) -> Iterator[list[str]]:
    """Other ways to write an option: `--force` as `-f`, `-rf` as `-fr` and as `-r -f`."""
    if re.fullmatch(r"--[a-z][a-z-]+", word):
        yield ["-" + word[2]]
    elif re.fullmatch(r"-[A-Za-z]{2,4}", word):
        yield ["-" + word[:0:-1]]
        yield ["-" + letter for letter in word[1:]]
