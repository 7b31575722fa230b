"""One automaton of a profile: pieces of rules in, a table out."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from hostwarden.policy.answers import Answers
from hostwarden.policy.automata import (
    BACKSLASH,
    MAX_RAW_STATES,
    SPACE,
    Subsets,
    for_users,
    over_raw_argv,
    tabulate,
    with_idle_nul,
)
from hostwarden.policy.budget import Budget
from hostwarden.policy.clauses import Clause, Clauses
from hostwarden.policy.globs import ArgvGlob, PathGlob
from hostwarden.policy.nfa import GlobTrie
from hostwarden.policy.places import Starts, told_apart
from hostwarden.policy.precedence import Precedence
from hostwarden.policy.tables import Automaton, Place
from hostwarden.policy.words import Action

Glob = PathGlob | ArgvGlob


@dataclass(frozen=True)
class Piece:
    """A part of a rule's path or argv condition: one of its globs, as written in ``text``; None if it asks for none.

    A rule may be split into pieces over several automata: that one of its globs matches and none of its exceptions is
    that one of its pieces does, if each takes all exceptions along. A rule without globs is one piece.
    """

    clause: Clause
    glob: Glob | None
    text: str
    excepts: tuple[Glob, ...] = ()

    @property
    def globs(self) -> tuple[Glob, ...]:
        """All globs that have to be in its automaton."""
        return self.excepts if self.glob is None else (self.glob, *self.excepts)


@dataclass(frozen=True)
class Settings:
    """What all automata of a profile are made for."""

    laws: Clauses
    superblocks: Sequence[Sequence[Place]]
    joint: Mapping[int, int]  # reason of a joint clause → its bit
    budget: Budget


def path_pieces(clauses: Sequence[Clause]) -> list[Piece]:
    """What of these clauses is matched with a path, glob by glob."""
    pieces: list[Piece] = []
    for clause in clauses:
        excepts = clause.rule.except_walked
        if clause.rule.walked is None:
            pieces.append(Piece(clause, None, "", excepts))
        for pattern in clause.rule.walked or ():
            pieces.extend(Piece(clause, glob, pattern.text, excepts) for glob in pattern.globs)
    return pieces


def argv_pieces(clauses: Sequence[Clause]) -> list[Piece]:
    """The argv conditions of these clauses, glob by glob."""
    pieces: list[Piece] = []
    for clause in clauses:
        for pattern in clause.rule.argv or ():
            pieces.extend(Piece(clause, glob, pattern.text, clause.rule.except_argv_globs) for glob in pattern.globs)
    return pieces


def path_automaton(settings: Settings, pieces: Sequence[Piece], folded: frozenset[Action]) -> Automaton:
    """A start row for `@private` and one for each superblock. Raises TooManyStates."""
    trie, answers, beaten = _lay_out(settings, pieces, GlobTrie(), folded)
    subsets = Subsets(trie.nfa(told_apart(settings.superblocks)), settings.budget, beaten=beaten)
    starts = Starts(subsets)
    rows = [starts.private, *(starts.start(places) for places in settings.superblocks)]
    graph = subsets.complete()
    users = range(settings.laws.n_users)
    outputs = [[answers.number(user, tokens) for tokens in graph.outputs] for user in users]
    small, states = for_users(graph, outputs)
    graph, alphabet = with_idle_nul(small, subsets.nfa.alphabet)
    starting = [[states[user][row] for user in users] for row in rows]
    return tabulate(graph, alphabet, answers.rows, starting, answers.denies)


def argv_automaton(settings: Settings, pieces: Sequence[Piece]) -> Automaton:
    """One start row. Raises TooManyStates."""
    trie, answers, beaten = _lay_out(settings, pieces, GlobTrie(separator=None), frozenset())
    subsets = Subsets(trie.nfa([SPACE, BACKSLASH]), settings.budget, beaten=beaten)
    start = subsets.intern(subsets.nfa.start)
    graph, alphabet = over_raw_argv(subsets.complete(), subsets.nfa.alphabet)
    users = range(settings.laws.n_users)
    outputs = [[answers.number(user, tokens) for tokens in graph.outputs] for user in users]
    small, states = for_users(graph, outputs)
    return tabulate(small, alphabet, answers.rows, [[states[user][start] for user in users]])


def raw_states(globs: Sequence[Glob], budget: Budget, limit: int = MAX_RAW_STATES) -> int:
    """States of these globs' automaton before it is minimised. Raises TooManyStates above ``limit``."""
    trie = GlobTrie(separator=None) if isinstance(globs[0], ArgvGlob) else GlobTrie()
    for glob in globs:
        trie.add(glob, 1)
    subsets = Subsets(trie.nfa(), budget, limit)
    subsets.intern(subsets.nfa.start)
    return len(subsets.complete().rows)


def _lay_out(
    settings: Settings, pieces: Sequence[Piece], trie: GlobTrie, folded: frozenset[Action]
) -> tuple[GlobTrie, Answers, Callable[[int], int]]:
    """The pieces' globs in the trie, the answers that read their tokens, and which tokens beat which."""
    positions: dict[int, int] = {}  # reason, which is one clause's alone → position
    clauses: list[Clause] = []
    always: set[int] = set()
    for piece in pieces:
        position = positions.get(piece.clause.reason)
        if position is None:
            position = positions[piece.clause.reason] = len(clauses)
            clauses.append(piece.clause)
            for glob in piece.excepts:
                trie.add(glob, 2 << 2 * position)
        if piece.glob is None:
            always.add(position)
        else:
            trie.add(piece.glob, 1 << 2 * position)
    answers = Answers(settings.laws, clauses, frozenset(always), settings.joint, folded)
    return trie, answers, Precedence(clauses).beaten
