"""Whether a glob matches a path or a joined argv: the plain meaning of ``globs``, which the automata must equal.

The set of all positions that a glob's beginning can have reached is one integer, bit i for "before byte i", and each
node moves the whole set at once. So the time is nodes times length, whatever the glob: as a regular expression,
``?????…`` over two-byte characters or ``*a*a*a…`` would take Python's backtracking matcher years.
"""

import re
from functools import lru_cache

from hostwarden.policy.globs import SLASH, ArgvGlob, Deep, Node, PathGlob, Wild

# RFC 3629's sequences, with lead and continuation bytes only (overlong forms count too: names aren't validated).
_SEQUENCES = (
    (2, re.compile(rb"(?=[\xc2-\xdf][\x80-\xbf])")),
    (3, re.compile(rb"(?=[\xe0-\xef][\x80-\xbf]{2})")),
    (4, re.compile(rb"(?=[\xf0-\xf4][\x80-\xbf]{3})")),
)


class Subject:
    """Bytes to be matched, and the positions of what nodes ask for. ``flat`` is an argv: nothing ends at a slash."""

    def __init__(self, text: bytes, *, flat: bool) -> None:
        self.end = 1 << len(text)
        self.where: dict[int, int] = {}
        for position, byte in enumerate(text):
            self.where[byte] = self.where.get(byte, 0) | 1 << position
        self.slashes = 0 if flat else self.where.get(SLASH, 0)
        self.inside = (self.end - 1) & ~self.slashes  # positions whose byte a wildcard may take
        self.sequences = [
            (width, sum(1 << match.start() for match in pattern.finditer(text))) for width, pattern in _SEQUENCES
        ]

    def step(self, reached: int, node: Node) -> int:
        """The positions behind ``node`` for those before it."""
        if node is Wild.MANY:
            # Adding the starts to the runs of `inside` carries each through to its run's end.
            starts = reached & self.inside
            return reached | starts | ((starts + self.inside) ^ self.inside)
        if node is Wild.ONE:
            after = (reached & self.inside) << 1
            for width, starts in self.sequences:
                after |= (reached & starts) << width
            return after
        assert not isinstance(node, Wild)
        hits = 0
        for byte in node.bytes:
            hits |= self.where.get(byte, 0)
        return (reached & hits & self.inside) << 1


@lru_cache(maxsize=8)  # one attempt meets many globs, one after the other
def _subject(text: bytes, flat: bool) -> Subject:
    return Subject(text, flat=flat)


def match_path(glob: PathGlob, path: bytes) -> bool:
    """Whether ``path`` (absolute, no slash at the end; b"" or b"/" for the root directory) matches."""
    subject = _subject(b"" if path == b"/" else path, False)
    boundaries = subject.slashes | subject.end
    reached = 1
    for component in glob.components:
        if isinstance(component, Deep):
            here = reached & boundaries
            reached = boundaries & -(here & -here)  # the first boundary reached and all behind it
        else:
            reached = (reached & subject.slashes) << 1
            for node in component:
                reached = subject.step(reached, node)
        if not reached:
            return False
    return bool(reached & subject.end)


def match_argv(glob: ArgvGlob, line: bytes) -> bool:
    """Whether a joined argv (``argv.join_argv``) matches."""
    subject = _subject(line, True)
    reached = 1
    for node in glob.nodes:
        reached = subject.step(reached, node)
        if not reached:
            return False
    return bool(reached & subject.end)
