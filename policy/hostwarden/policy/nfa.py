"""Globs as one nondeterministic automaton.

Globs are laid into a trie, so that they share what they begin with, and the trie is folded from its leaves, so that
they share what they end with: a thousand globs of one rule that differ in a number are hardly more than one. A state
carries *tokens*, bits that say which side of which rule has matched when a path ends there; what bits mean is the
caller's business.

A path is ``""`` for the root, else components with a slash before each. `**` of no components is an empty step; of
some, it is a slash and then anything: the state behind it is there twice, plain, and as the loop below.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from hostwarden.policy.alphabet import Alphabet, alphabet_of
from hostwarden.policy.budget import TooManyStates
from hostwarden.policy.globs import SLASH, ArgvGlob, Deep, PathGlob, Wild

MAX_NODES = 250_000  # some 150 MB while compiling; a thousand globs of a hundred characters each need a third of it
MAX_TOKEN_BITS = 1 << 31  # nodes × tokens: 256 MB, should every node have a number of that many bits

_SLASH_SET = frozenset([SLASH])
_TAIL = frozenset(range(0x80, 0xC0))
# The first bytes of UTF-8 sequences of 2, 3 and 4 bytes: `?` takes a whole character (RFC 3629, without its finer
# exclusions: an overlong form is then one character and not three, which no rule can be hurt by).
_LEADS = (frozenset(range(0xC2, 0xE0)), frozenset(range(0xE0, 0xF0)), frozenset(range(0xF0, 0xF5)))

Symbol = Wild | Deep | frozenset[int]
NOTHING: frozenset[int] = frozenset()


class _Node:
    """A node of the trie: what follows it, by kind of symbol."""

    __slots__ = ("deep", "edges", "loops", "many", "one", "tokens")

    def __init__(self, *, loops: bool = False) -> None:
        self.tokens = 0
        self.loops = loops  # this node is behind a `*` and takes any byte that the star takes
        self.edges: dict[frozenset[int], _Node] = {}
        self.one: _Node | None = None
        self.many: _Node | None = None
        self.deep: _Node | None = None


class GlobTrie:
    """Collects globs and their tokens; ``nfa()`` makes the automaton. ``separator``: paths have one, argv has none."""

    def __init__(self, separator: int | None = SLASH) -> None:
        self.separator = separator
        self.nodes = [_Node()]  # parents before children
        self._bits = 0

    def add(self, glob: PathGlob | ArgvGlob, tokens: int) -> None:
        """What ``glob`` matches gets ``tokens``. Raises TooManyStates."""
        self._bits = max(self._bits, tokens.bit_length())
        node = self.nodes[0]
        for symbol in _spell(glob):
            node = self._child(node, symbol)
        node.tokens |= tokens

    def _child(self, node: _Node, symbol: Symbol) -> _Node:
        match symbol:
            case Deep():
                node.deep = child = node.deep or self._new()
            case Wild.MANY if node.loops:
                child = node  # two stars are one; a thousand would make a million empty steps
            case Wild.MANY:
                node.many = child = node.many or self._new(loops=True)
            case Wild.ONE:
                node.one = child = node.one or self._new()
            case _:
                found = node.edges.get(symbol)
                node.edges[symbol] = child = found or self._new()
        return child

    def _new(self, *, loops: bool = False) -> _Node:
        if len(self.nodes) >= MAX_NODES or len(self.nodes) * self._bits > MAX_TOKEN_BITS:
            raise TooManyStates
        node = _Node(loops=loops)
        self.nodes.append(node)
        return node

    def sets(self) -> Iterator[frozenset[int]]:
        """Every set of bytes that the automaton's alphabet has to tell apart."""
        if self.separator is not None:
            yield frozenset([self.separator])
        for node in self.nodes:
            yield from node.edges
            if node.one is not None:
                yield from _LEADS
                yield _TAIL

    def nfa(self, told_apart: Iterable[int] = ()) -> "Nfa":
        """The automaton over an alphabet in which each byte of ``told_apart`` has a class of its own, too."""
        alphabet = alphabet_of([*self.sets(), *(frozenset([byte]) for byte in told_apart)])
        return _Folding(self, alphabet).fold()


def _spell(glob: PathGlob | ArgvGlob) -> Iterator[Symbol]:
    if isinstance(glob, ArgvGlob):
        for node in glob.nodes:
            yield node if isinstance(node, Wild) else node.bytes
        return
    for component in glob.components:
        if isinstance(component, Deep):
            yield component
            continue
        yield _SLASH_SET
        for node in component:
            yield node if isinstance(node, Wild) else node.bytes - _SLASH_SET


@dataclass
class Nfa:
    """States are numbers into the lists. Sets of targets are closed: empty steps are already taken."""

    alphabet: Alphabet
    separator: int | None  # the separator's class
    narrow: list[dict[int, frozenset[int]]] = field(default_factory=list)  # class → targets
    within: list[frozenset[int]] = field(default_factory=list)  # targets on every byte but the separator
    always: list[frozenset[int]] = field(default_factory=list)  # targets on every byte
    tokens: list[int] = field(default_factory=list)
    reach: list[int] = field(default_factory=list)  # tokens of all states that can still be reached, its own included
    local: list[bool] = field(default_factory=list)  # whether all that can still be reached lies before a separator
    start: frozenset[int] = NOTHING
    floating: frozenset[int] = NOTHING  # start of the globs that begin with `**` alone: they hold wherever a path hangs

    def add(self, tokens: int = 0) -> int:
        """A new state without moves."""
        self.narrow.append({})
        self.within.append(NOTHING)
        self.always.append(NOTHING)
        self.tokens.append(tokens)
        self.reach.append(tokens)
        self.local.append(True)
        return len(self.tokens) - 1


class _Folding:
    """The trie from its leaves to the root: equal subtrees become one state."""

    def __init__(self, trie: GlobTrie, alphabet: Alphabet) -> None:
        separator = None if trie.separator is None else alphabet.classes[trie.separator]
        self.trie = trie
        self.nfa = Nfa(alphabet, separator)
        self.states: dict[_Node, int] = {}
        self.known: dict[object, int] = {}
        self.closures: list[frozenset[int]] = []  # of every state: itself and what empty steps reach

    def fold(self) -> Nfa:
        for node in reversed(self.trie.nodes):
            self.states[node] = self._state(node)
        root = self.trie.nodes[0]
        self.nfa.start = self.closures[self.states[root]]
        if root.deep is not None:
            floating = _Node()
            floating.deep = root.deep
            self.nfa.floating = self.closures[self._state(floating)]
        return self.nfa

    def _state(self, node: _Node) -> int:
        empty_steps = [self.states[child] for child in (node.many, node.deep) if child is not None]
        below = None if node.deep is None else self._below(self.states[node.deep])
        one = None if node.one is None else self.states[node.one]
        edges = frozenset((members, self.states[child]) for members, child in node.edges.items())
        key = (node.tokens, node.loops, tuple(empty_steps), below, one, edges)
        if key not in self.known:
            self.known[key] = self._new(node, empty_steps, below, one)
        return self.known[key]

    def _new(self, node: _Node, empty_steps: list[int], below: int | None, one: int | None) -> int:
        nfa = self.nfa
        state = self._add(node.tokens, empty_steps)
        moves: dict[int, frozenset[int]] = nfa.narrow[state]
        for members, child in node.edges.items():
            for number in nfa.alphabet.of(members):
                moves[number] = moves.get(number, NOTHING) | self.closures[self.states[child]]
        wide = self.closures[state] if node.loops else NOTHING
        if one is not None:
            wide |= self.closures[one]
            for number, target in self._sequences(one).items():
                moves[number] = moves.get(number, NOTHING) | {target}
        if below is not None:
            assert nfa.separator is not None
            moves[nfa.separator] = moves.get(nfa.separator, NOTHING) | self.closures[below]
        (nfa.always if nfa.separator is None else nfa.within)[state] = wide
        self._sum_up(state)
        return state

    def _add(self, tokens: int, empty_steps: Iterable[int] = ()) -> int:
        state = self.nfa.add(tokens)
        self.closures.append(frozenset([state]).union(*(self.closures[step] for step in empty_steps)))
        return state

    def _below(self, plain: int) -> int:
        """The state ``plain`` behind a `**` that took components: it stays there whatever comes."""
        key = ("below", plain)
        if key not in self.known:
            state = self._add(self.nfa.tokens[plain])
            self.nfa.narrow[state] = self.nfa.narrow[plain]
            self.nfa.always[state] = frozenset([state])
            self._sum_up(state)
            self.known[key] = state
        return self.known[key]

    def _sequences(self, behind: int) -> dict[int, int]:
        """What the first byte of a UTF-8 character leads to, so that its last one leads to ``behind``."""
        alphabet = self.nfa.alphabet
        moves: dict[int, int] = {}
        targets = self.closures[behind]
        for length, leads in enumerate(_LEADS, start=1):
            key = ("tail", length, behind)
            if key not in self.known:
                state = self.known[key] = self._add(0)
                self.nfa.narrow[state] = dict.fromkeys(alphabet.of(_TAIL), targets)
                self._sum_up(state)
            targets = frozenset([self.known[key]])
            moves |= dict.fromkeys(alphabet.of(leads), self.known[key])
        return moves

    def _sum_up(self, state: int) -> None:
        nfa = self.nfa
        targets = self.closures[state].union(nfa.within[state], nfa.always[state], *nfa.narrow[state].values())
        for target in targets:
            nfa.reach[state] |= nfa.reach[target]
        crosses = nfa.separator in nfa.narrow[state]
        nfa.local[state] = not crosses and all(nfa.local[target] for target in targets)
