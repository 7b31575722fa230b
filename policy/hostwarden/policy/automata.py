"""From an NFA to a deterministic automaton, and from that to the table that the kernel walks.

Subset construction, with three things that keep it small and quick: rows hold only the classes at which something
other than the default happens (``minimise``); what matched for good (behind a final `**`, or up to the next slash
behind a final `*`) makes states that can add nothing to it needless, and they are dropped (``Subsets.intern``); and
states and time are bounded while it runs, so that a hostile policy costs a bounded amount of either.
"""

from array import array
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache

from hostwarden.policy.alphabet import OTHER, Alphabet
from hostwarden.policy.budget import Budget, TooManyStates
from hostwarden.policy.globs import SLASH
from hostwarden.policy.minimise import Graph, Row, minimised, reachable
from hostwarden.policy.nfa import Nfa
from hostwarden.policy.tables import MAX_DECISIONS, MAX_TRANSITIONS, Automaton, Decision
from hostwarden.policy.words import Action

MAX_RAW_STATES = 50_000  # of one automaton before it is minimised: a second or two, and up to 100 MB
MAX_RAW_MOVES = 2_000_000  # their explicit moves
MAX_RAW_MEMBERS = 4_000_000  # and the members of their sets
MAX_STATES = 0xFFFF  # states are u16 in the table
NUL, SPACE, BACKSLASH = 0, ord(" "), ord("\\")

Subset = tuple[int, frozenset[int]]  # tokens that hold whatever follows, NFA states that are still open
Rows = Sequence[Mapping[Action, Decision]]


class Subsets:
    """The deterministic automaton of an NFA, built as far as it is asked for; ``complete`` builds all of it."""

    def __init__(
        self, nfa: Nfa, budget: Budget, max_states: int = MAX_RAW_STATES, beaten: Callable[[int], int] = lambda _: 0
    ) -> None:
        """``beaten`` gives the tokens that can't matter beside the given ones."""
        self.nfa = nfa
        self.tokens: list[int] = []
        self._beaten = lru_cache(maxsize=4096)(beaten)
        self._budget = budget
        self._max_states = max_states
        self._moves = 0
        self._members = 0
        self._fronts = 0
        self._ids: dict[Subset, int] = {}
        self._subsets: list[Subset] = []
        self._rows: list[Row | None] = []

    def intern(self, states: Iterable[int], settled: int = 0) -> int:
        """The number of a set of NFA states. Raises TooManyStates."""
        subset = self._essential(frozenset(states), settled)
        if subset not in self._ids:
            tokens = subset[0]
            for state in subset[1]:
                tokens |= self.nfa.tokens[state]
            self._ids[subset] = self._add(subset, tokens & ~self._beaten(tokens))
        return self._ids[subset]

    def _essential(self, opened: frozenset[int], settled: int) -> Subset:
        """Without states that can add no token but those that hold anyway, or that are beaten by them.

        `settled` tokens hold for good; those of states that loop within a component hold up to its end, and make only
        states needless that end there as well (else two dozen `**/*word*` would have 2^24 states).
        """
        nfa = self.nfa
        held = 0
        for state in opened:
            if state in nfa.always[state]:
                settled |= nfa.tokens[state]
            elif state in nfa.within[state]:
                held |= nfa.tokens[state]
        beaten = self._beaten(settled)
        known = settled | beaten
        opened = frozenset(state for state in opened if nfa.reach[state] & ~known)
        if held & ~known:
            known |= self._beaten(held)
            opened = frozenset(
                state
                for state in opened
                if not nfa.local[state] or nfa.reach[state] & ~(known if state in nfa.within[state] else known | held)
            )
        return settled & ~beaten, opened

    def add(self, tokens: int, row: Row) -> int:
        """A state that is no set: ``places`` puts such in front, and bounds how many."""
        self._fronts += 1
        return self._append((tokens, frozenset()), tokens, row)

    def union(self, states: Iterable[int]) -> int:
        """The state that matches what any of ``states`` (numbers of sets) matches."""
        settled = 0
        opened: set[int] = set()
        for state in states:
            settled |= self._subsets[state][0]
            opened.update(self._subsets[state][1])
        return self.intern(opened, settled)

    def row(self, state: int) -> Row:
        """Where ``state`` goes."""
        row = self._rows[state]
        if row is None:
            row = self._rows[state] = self._row(self._subsets[state])
            self._moves += len(row.explicit)
            if self._moves > MAX_RAW_MOVES or self._budget.is_spent:
                raise TooManyStates
        return row

    def walk(self, state: int, text: bytes) -> int:
        """The state after ``text``."""
        for byte in text:
            state = self.row(state).target(self.nfa.alphabet.classes[byte])
        return state

    def complete(self) -> Graph:
        """All that is reachable from what was interned; the outputs are the tokens. Raises TooManyStates."""
        state = 0
        while state < len(self._rows):
            self.row(state)
            state += 1
        return Graph([row for row in self._rows if row is not None], self.tokens)

    def _add(self, subset: Subset, tokens: int) -> int:
        self._members += len(subset[1])
        if len(self._rows) - self._fronts >= self._max_states or self._members > MAX_RAW_MEMBERS:
            raise TooManyStates
        return self._append(subset, tokens, None)

    def _append(self, subset: Subset, tokens: int, row: Row | None) -> int:
        self._subsets.append(subset)
        self._rows.append(row)
        self.tokens.append(tokens)
        return len(self._rows) - 1

    def _row(self, subset: Subset) -> Row:
        nfa = self.nfa
        settled, opened = subset
        always: set[int] = set()
        within: set[int] = set()
        explicit: dict[int, set[int]] = {}
        for state in opened:
            always |= nfa.always[state]
            within |= nfa.within[state]
            for number, targets in nfa.narrow[state].items():
                explicit.setdefault(number, set()).update(targets)
        if within and nfa.separator is not None:
            explicit.setdefault(nfa.separator, set())
        within |= always
        default = self.intern(within, settled)
        moves: dict[int, int] = {}
        for number, narrow in explicit.items():
            target = self.intern(narrow | (always if number == nfa.separator else within), settled)
            if target != default:
                moves[number] = target
        return Row(default, moves)


def over_raw_argv(graph: Graph, alphabet: Alphabet) -> tuple[Graph, Alphabet]:
    r"""An automaton over joined arguments (``argv.join_argv``) as one over the raw argument area.

    There a NUL stands between arguments and nothing is escaped, so NUL steps as the space, a space as ``\ ``, and a
    backslash as two. Needs an alphabet in which space and backslash stand alone.
    """
    space, backslash, nul = alphabet.classes[SPACE], alphabet.classes[BACKSLASH], alphabet.size
    rows = []
    for state, row in enumerate(graph.rows):
        escaped = graph.step(state, backslash)
        explicit = dict(row.explicit)
        explicit[nul] = graph.step(state, space)
        explicit[space] = graph.step(escaped, space)
        explicit[backslash] = graph.step(escaped, backslash)
        rows.append(Row(row.default, explicit))
    return Graph(rows, graph.outputs), alphabet.with_own_class(NUL)


def with_idle_nul(graph: Graph, alphabet: Alphabet) -> tuple[Graph, Alphabet]:
    """The automaton in which a NUL changes nothing: the kernel walks four bytes a turn and pads paths with NUL."""
    nul = alphabet.size
    rows = [Row(row.default, {**row.explicit, nul: state}) for state, row in enumerate(graph.rows)]
    return Graph(rows, graph.outputs), alphabet.with_own_class(NUL)


def for_users(graph: Graph, outputs: Sequence[Sequence[int]]) -> tuple[Graph, list[list[int]]]:
    """One copy of the graph for every user class, minimised; and for every class, old state → new state.

    ``outputs[user][state]``: which rules count differs between classes, which globs match does not.
    """
    alike: dict[tuple[int, ...], int] = {}
    vectors = [alike.setdefault(tuple(column), len(alike)) for column in zip(*outputs, strict=True)]
    shared, blocks = minimised(Graph(graph.rows, vectors))
    by_number = list(alike)
    rows: list[Row] = []
    answers: list[int] = []
    for user in range(len(outputs)):
        base = len(rows)
        for row, vector in zip(shared.rows, shared.outputs, strict=True):
            rows.append(Row(row.default + base, {number: to + base for number, to in row.explicit.items()}))
            answers.append(by_number[vector][user])
    small, again = minimised(Graph(rows, answers))
    size = len(shared.rows)
    return small, [[again[user * size + block] for block in blocks] for user in range(len(outputs))]


def tabulate(
    graph: Graph,
    alphabet: Alphabet,
    decisions: Rows,
    starts: Sequence[Sequence[int]],
    denies: Callable[[int], bool] = lambda _: False,
) -> Automaton:
    """The table of a minimal graph whose outputs are indices into ``decisions``; ``denies`` says which of those deny.

    Raises TooManyStates if it outgrows a bound of ``tables``.
    """
    graph, numbers = reachable(graph, [start for row in starts for start in row])
    columns = _columns(graph, alphabet)
    representatives = sorted(set(columns))
    position = {number: index for index, number in enumerate(representatives)}
    shift = (len(representatives) - 1).bit_length()
    used = sorted(set(graph.outputs))
    if len(graph.rows) << shift > MAX_TRANSITIONS or len(graph.rows) > MAX_STATES or len(used) > MAX_DECISIONS:
        raise TooManyStates
    table = array("H")
    for row in graph.rows:
        line = [row.default] * (1 << shift)
        for number, target in row.explicit.items():
            if number in position:
                line[position[number]] = target
        table.extend(line)
    renumbered = {output: index for index, output in enumerate(used)}
    return Automaton(
        classes=bytes(position[number] for number in columns),
        shift=shift,
        next=table,
        output=array("H", [renumbered[output] for output in graph.outputs]),
        decisions=[decisions[output] for output in used],
        starts=[[numbers[start] for start in row] for row in starts],
        denial_below=_denial_below(graph, alphabet, {output for output in used if denies(output)}),
    )


def _denial_below(graph: Graph, alphabet: Alphabet, denied: set[int]) -> bytes:
    """For each state 1 if a slash, and then anything or nothing, leads to one whose output is ``denied``."""
    sources: list[list[int]] = [[] for _ in graph.rows]
    for state, row in enumerate(graph.rows):
        for target in {row.default, *row.explicit.values()}:
            sources[target].append(state)
    leading = {state for state, output in enumerate(graph.outputs) if output in denied}
    queue = list(leading)
    for state in queue:  # grows while it is read
        fresh = [source for source in sources[state] if source not in leading]
        leading.update(fresh)
        queue.extend(fresh)
    slash = alphabet.classes[SLASH]
    return bytes(row.target(slash) in leading for row in graph.rows)


def _columns(graph: Graph, alphabet: Alphabet) -> list[int]:
    """For each byte the class whose column it uses: of classes that move alike in every state, the first."""
    columns: dict[int, list[tuple[int, int]]] = {number: [] for number in range(alphabet.size)}
    for state, row in enumerate(graph.rows):
        for number, target in row.explicit.items():
            if target != row.default:
                columns[number].append((state, target))
    first: dict[tuple[tuple[int, int], ...], int] = {(): OTHER}
    merged = {number: first.setdefault(tuple(moves), number) for number, moves in sorted(columns.items())}
    return [merged[number] for number in alphabet.classes]
