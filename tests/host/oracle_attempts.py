"""Attempts near what policies name: numbers that are taken apart into choices.

Which glob the path is sampled from, with which names, and what is changed about it: case, look-alikes, a byte more or
less, a component more or less, and lengths and depths around every limit.
"""

from collections.abc import Callable, Mapping, Sequence

from tests.host.oracle_policies import DEEP, LITERALS, NAMES, WILD, Glob, Salt

MAX_NAME = 255
# Not of the policy: what else could be there.
STRANGERS = (*(Glob(None, (part, DEEP, LITERALS[5])) for part in LITERALS), *(Glob(None, (part,)) for part in WILD))
STRANGER = Glob(None, (WILD[0], DEEP, WILD[1]))
LOOK_ALIKES = str.maketrans(
    {"a": "а", "e": "е", "c": "с", "o": "о", "p": "р", "s": "ѕ", "é": "e\u0301", "á": "a\u0301"}
)
# Bytes from the superblock's root on: around every power of two that a walk could trip over, and around the limit.
LENGTHS = (
    2, 3, 4, 5, 6, 7, 8, 9, 15, 16, 17, 18, 19, 20, 21, 31, 32, 33, 63, 64, 65, 127, 128, 129, 255, 256, 257, 511, 512,
    513, 1023, 1024, 1025, 2047, 2048, 2049, 4000, 4079, 4080, 4081, 4092, 4093, 4094, 4095, 4096, 4097, 4112, 5000,
)  # fmt: skip
DEPTHS = (61, 62, 63, 64, 65, 66, 80)

Change = Callable[[list[bytes], Salt, int], list[bytes]]


def stretched(names: list[bytes], length: int) -> list[bytes]:
    """Folders in front, so that the path has ``length`` bytes; the last name alone, and cut, if it is too long."""
    missing = length - sum(len(name) + 1 for name in names)
    if missing < 0:
        names = [(names[-1] * 255)[: max(1, min(length - 1, MAX_NAME))]]
        missing = length - len(names[0]) - 1
    while missing > 0:
        if missing == 1:
            names = [*names[:-1], (names[-1] + b"p")[:MAX_NAME]]
            break
        take = min(missing, MAX_NAME + 1)
        take -= missing - take == 1
        names, missing = [b"p" * (take - 1), *names], missing - take
    return names


def deepened(names: list[bytes], depth: int) -> list[bytes]:
    """Folders in front, so that the path has ``depth`` components."""
    return [b"d"] * (depth - len(names)) + names


def _last(change: Callable[[bytes], bytes]) -> Change:
    return lambda names, salt, below: [*names[:-1], change(names[-1])]


def _look_alike(name: bytes) -> bytes:
    return name.decode(errors="surrogateescape").translate(LOOK_ALIKES).encode(errors="surrogateescape")


SAME: Change = lambda names, salt, below: names  # noqa: E731
CHANGES: tuple[Change, ...] = (
    *(SAME,) * 8,
    lambda names, salt, below: [*names, salt.choose((b"q", b"a", b".env"))],
    lambda names, salt, below: names[:-1],
    lambda names, salt, below: names[1:],
    lambda names, salt, below: [*names[:1], b"q", *names[1:]],
    lambda names, salt, below: [*names, *names],
    lambda names, salt, below: names[::-1],
    _last(bytes.swapcase),
    _last(_look_alike),
    _last(lambda name: name + b"x"),
    _last(lambda name: name + b" "),
    _last(lambda name: b"x" + name),
    _last(lambda name: name[:-1]),
    _last(lambda name: name[1:]),
    _last(lambda name: name[:-1] + b"\xff"),
    _last(lambda name: name + name),
    _last(lambda name: (name * MAX_NAME)[:MAX_NAME]),
    _last(lambda name: (name * MAX_NAME)[: MAX_NAME - 1]),
    lambda names, salt, below: stretched(names, salt.choose(LENGTHS) - below),
    lambda names, salt, below: stretched(names, salt.choose(LENGTHS) - below),
    lambda names, salt, below: stretched(names, salt.choose(LENGTHS[-14:]) - below),
    lambda names, salt, below: deepened(names, salt.choose(DEPTHS)),
    lambda names, salt, below: [name.encode() for name in (salt.choose(NAMES), salt.choose(NAMES))],
)


def nameable(names: Sequence[bytes]) -> list[bytes]:
    """Names that a file can have: what a change has spoilt is mended."""
    cut = [name.replace(b"/", b"_").replace(b"\0", b"_")[:MAX_NAME] for name in names]
    return [b"q" if name in (b"", b".", b"..") else name for name in cut]


def path_of(salt: Salt, known: Sequence[Glob], below: Mapping[str, int]) -> tuple[str, bytes]:
    """A place (one of ``below``, which has the length of each place's own path) and a path below it."""
    glob = salt.choose((*known, STRANGER)) if salt.below(8) else salt.choose(STRANGERS)
    place = glob.home if glob.home else salt.choose(tuple(below))
    names = glob.sample(salt) or [b"q"]
    change = salt.choose(CHANGES)
    inside = {"again": [b"a"], "part": [b"a"]}.get(place, [])  # what is shown there is the folder `a`
    place = "twice" if place == "again" else place
    # (Salt's small remainder: sometimes beside the folder that is shown.)
    inside = inside if salt.below(4) else []
    names = nameable([*inside, *change(names, salt, below[place] + 2 * len(inside))]) if names else []
    return place, b"/".join(names)


# argv

ARGUMENTS = (
    b"a", b"b", b"-f", b"a b", b"\\", b"a\\ b", b"", "é".encode(), b"\xff", b"push", b"z", b" ", b"[ab]", b"a\nb",
    b"\\ ",
)  # fmt: skip
ARGV_LENGTHS = (4094, 4095, 4096, 4097, 4098, 5000)  # each argument's NUL included
FILLINGS = {"*": ("", "x", " ", "a b", "\\"), "?": ("a", " ", "é", ""), "[ab]": ("a", "c"), "{a,b}": ("a", "b", "ab")}


def argv_of(salt: Salt, known: Sequence[str]) -> tuple[bytes, ...]:
    """An argument vector that a glob of ``known`` matches, or nearly, or one of anything; sometimes a long one."""
    if known and salt.below(3):
        found = split(sample_line(salt, salt.choose(known)))
    else:
        found = [salt.choose(ARGUMENTS) for _ in range(salt.below(5))]
    if salt.below(4) == 0:
        found = [*found, salt.choose(ARGUMENTS)]
    if salt.below(8) == 0:
        missing = salt.choose(ARGV_LENGTHS) - sum(len(argument) + 1 for argument in found)
        found = [*found, b"z" * (missing - 1)] if missing > 0 else found
    return tuple(found)


def sample_line(salt: Salt, glob: str) -> str:
    """A joined argv that the glob matches, or nearly."""
    line = ""
    while glob:
        special = next((text for text in FILLINGS if glob.startswith(text)), None)
        line += salt.choose(FILLINGS[special]) if special else glob[0]
        glob = glob[len(special or glob[0]) :]
    return line


def split(line: str) -> list[bytes]:
    r"""The arguments that join to ``line`` (``policy/argv.py``); a ``\`` that escapes nothing is one of an argument."""
    arguments: list[str] = []
    current, i = "", 0
    while i < len(line):
        if line[i] == "\\" and line[i + 1 : i + 2] in (" ", "\\"):
            current, i = current + line[i + 1], i + 2
        elif line[i] == " ":
            arguments, current, i = [*arguments, current], "", i + 1
        else:
            current, i = current + line[i], i + 1
    return [argument.encode() for argument in (*arguments, current)]
