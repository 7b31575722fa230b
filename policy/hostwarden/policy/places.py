"""Where a walk begins: the start state of each superblock, from its places in the host's mount table.

The kernel hands the automaton a path relative to the root of a superblock. A rule speaks of host paths, of which a file
has as many as there are mounts that show it (bind mounts of subtrees, btrfs subvolumes):

* a place with the root ``""`` shows everything: its walk starts where the mount point's own path ends;
* a place with another root shows what is at that root or below it. A small trie of such roots stands in front; at the
  end of a root, on a path boundary, the walk goes on where the mount point's path ends;
* of several places all count: the start is the union of their states. So a glob matches if it matches any of a file's
  host paths, and that goes for every glob: a rule's own (deny and allow alike: "a rule on any of them counts") and its
  `except` (which narrows the rule for the file, by whatever name). `otherwise` is away if an allow matched any name;
* what no place shows has no host path: only globs that begin with `**` hold there, matched on the relative path. So it
  is for a whole superblock without places (row PRIVATE), and for what lies beside the roots of those that have some.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from posixpath import commonprefix

from hostwarden.policy.automata import Subsets
from hostwarden.policy.globs import SLASH
from hostwarden.policy.minimise import Row
from hostwarden.policy.tables import Place


def host_paths(relative: bytes, places: Sequence[Place]) -> list[bytes]:
    """All names that the file at ``relative`` has on the host; none if no place shows it."""
    return [place.mount + relative[len(place.root) :] for place in places if _shows(place.root, relative)]


def told_apart(superblocks: Sequence[Sequence[Place]]) -> set[int]:
    """The bytes that the tries of roots need as classes of their own."""
    return {byte for places in superblocks for place in places for byte in place.root}


def roots_size(superblocks: Sequence[Sequence[Place]]) -> int:
    """How many nodes the tries of roots have: beginnings that several roots share count once."""
    size = 0
    for places in superblocks:
        before = b""
        for root in sorted({place.root for place in places}):
            size += len(root) - len(commonprefix([before, root]))
            before = root
    return size


class Starts:
    """Start states for superblocks, over one automaton."""

    def __init__(self, subsets: Subsets) -> None:
        self._subsets = subsets
        self._known: dict[tuple[Place, ...], int] = {}
        self._initial = subsets.intern(subsets.nfa.start)
        self.private = subsets.intern(subsets.nfa.floating)

    def start(self, places: Sequence[Place]) -> int:
        """The state in which a walk over a path of this superblock begins. Raises TooManyStates."""
        key = tuple(sorted(set(places), key=lambda place: (place.root, place.mount)))
        if key not in self._known:
            self._known[key] = self._front(key) if any(place.root for place in key) else self._plain(key)
        return self._known[key]

    def _plain(self, places: Sequence[Place]) -> int:
        if not places:
            return self.private
        return self._subsets.union(self._at(place) for place in places)

    def _at(self, place: Place) -> int:
        """The state at the mount point itself."""
        return self._subsets.walk(self._initial, place.mount)

    def _front(self, places: Sequence[Place]) -> int:
        """The trie of roots, states from its leaves to its root: a state's row needs those of its children."""
        nodes = _trie(places)
        self._follow(nodes)
        states: dict[int, int] = {}
        for index in reversed(range(len(nodes))):
            states[index] = self._state(nodes[index], states)
        return states[0]

    def _follow(self, nodes: Sequence["_Node"]) -> None:
        """Where the places' walks are at each node, parents before children."""
        subsets = self._subsets
        nodes[0].outside = self.private
        for node in nodes:
            node.shown = node.inside
            if node.ends:
                above = [] if node.inside is None else [node.inside]
                node.shown = subsets.union([*above, *(self._at(place) for place in node.ends)])
            for byte, index in node.children.items():
                child = nodes[index]
                child.outside = subsets.walk(node.outside, bytes([byte]))
                before = node.shown if byte == SLASH else node.inside
                child.inside = None if before is None else subsets.walk(before, bytes([byte]))

    def _state(self, node: "_Node", states: dict[int, int]) -> int:
        subsets = self._subsets
        classes = subsets.nfa.alphabet.classes
        # Roots that end right here show what is behind a slash, not what merely begins with the same letters.
        shown = node.outside if node.shown is None else node.shown
        beside = subsets.row(node.outside if node.inside is None else node.inside)
        explicit = beside.explicit | {classes[SLASH]: subsets.row(shown).target(classes[SLASH])}
        for byte, index in node.children.items():
            explicit[classes[byte]] = states[index]
        return subsets.add(subsets.tokens[shown], Row(beside.default, explicit))


@dataclass
class _Node:
    """A prefix of some root; the three are states of the walks that reach it."""

    children: dict[int, int] = field(default_factory=dict)  # byte → index of a node
    ends: list[Place] = field(default_factory=list)  # whose root this is
    outside: int = 0  # of the relative path itself
    inside: int | None = None  # of the places whose root is above this prefix
    shown: int | None = None  # of those and of the ones whose root it is


def _trie(places: Sequence[Place]) -> list[_Node]:
    """Nodes, parents before children."""
    nodes = [_Node()]
    for place in places:
        index = 0
        for byte in place.root:
            if byte not in nodes[index].children:
                nodes[index].children[byte] = len(nodes)
                nodes.append(_Node())
            index = nodes[index].children[byte]
        nodes[index].ends.append(place)
    return nodes


def _shows(root: bytes, relative: bytes) -> bool:
    return relative == root or relative.startswith(root + b"/")
