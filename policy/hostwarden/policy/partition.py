"""As few automata as the bounds on states allow: one in the usual case, MAX_AUTOMATA at most.

Globs multiply states if they can be half matched at the same time: those that begin with `**` with all others, and
those with wildcards within. So a set that outgrows its bound is parted there first: what floats from what is anchored,
then the wild half from the tame one.
"""

from collections.abc import Sequence

from hostwarden.policy.budget import Budget, TooManyStates
from hostwarden.policy.build import Glob, Piece, Settings, argv_automaton, argv_pieces, path_automaton, raw_states
from hostwarden.policy.clauses import Clause, CompileError
from hostwarden.policy.globs import ArgvGlob, Deep, Wild
from hostwarden.policy.places import roots_size
from hostwarden.policy.tables import MAX_AUTOMATA, Automaton
from hostwarden.policy.words import Action

NAMED = 3  # globs that an error names
SHOWN = 60  # characters of each
_MANY_ROOTS = 1_000  # states for the mount table that an error mentions
_SUSPECTS = 32  # globs that are measured for it
_SUSPECT_STATES = 5_000
_SUSPECT_SECONDS = 2.0


def path_automata(
    settings: Settings, pieces: Sequence[Piece], folded: frozenset[Action]
) -> tuple[list[Automaton], bool]:
    """The automata of these pieces, and whether ``folded`` actions are: only one automaton can hold `otherwise`.

    Raises CompileError.
    """
    try:
        return [path_automaton(settings, pieces, folded)], True
    except TooManyStates:
        groups = parted(pieces, MAX_AUTOMATA, settings)
    done: list[Automaton] = []
    while groups:
        group = groups.pop(0)
        try:
            done.append(path_automaton(settings, group, frozenset()))
        except TooManyStates:
            room = MAX_AUTOMATA - len(done) - len(groups)
            groups = [*parted(group, room, settings), *groups]
    return done, False


def argv_table(settings: Settings, clauses: Sequence[Clause]) -> Automaton | None:
    """The automaton of the argv conditions; None without any. Raises CompileError."""
    pieces = argv_pieces(clauses)
    if not pieces:
        return None
    try:
        return argv_automaton(settings, pieces)
    except TooManyStates:
        raise too_wild(pieces, "argv globs need more states than one automaton holds") from None


def parted(pieces: Sequence[Piece], room: int, settings: Settings) -> list[list[Piece]]:
    """Two parts of a set that is too large, if there is room for two. Raises CompileError that names the worst."""
    if room < 2 or len(pieces) < 2:
        roots = roots_size(settings.superblocks)
        beside = f", beside {roots} for mounted subtrees" if roots > _MANY_ROOTS else ""
        raise too_wild(pieces, f"path globs need more states than {MAX_AUTOMATA} automata hold{beside}")
    floating = [piece for piece in pieces if _wildness(piece)[0]]
    anchored = [piece for piece in pieces if not _wildness(piece)[0]]
    if floating and anchored:
        return [floating, anchored]
    ordered = sorted(pieces, key=lambda piece: (_wildness(piece), piece.text))
    middle = len(ordered) // 2
    return [ordered[:middle], ordered[middle:]]


def too_wild(pieces: Sequence[Piece], message: str) -> CompileError:
    """The error that names the globs which alone take most states (or time, if that ran out)."""
    budget = Budget(_SUSPECT_SECONDS)
    suspects = sorted(pieces, key=_wildness, reverse=True)[:_SUSPECTS]
    sizes = sorted(((_size(piece, budget), piece) for piece in suspects), key=lambda item: item[0], reverse=True)
    texts = dict.fromkeys(f"{piece.clause.rule.location} {_shown(piece)}" for _, piece in sizes)
    named = ", ".join(list(texts)[:NAMED])
    return CompileError(f"{message}: {len(pieces)} are too many together, the costliest are {named}")


def _shown(piece: Piece) -> str:
    text = piece.text or "(except)"
    return text if len(text) <= SHOWN else text[: SHOWN - 1] + "…"


def _size(piece: Piece, budget: Budget) -> int:
    try:
        return raw_states(piece.globs, budget, _SUSPECT_STATES) if piece.globs else 0
    except TooManyStates:
        return _SUSPECT_STATES


def _wildness(piece: Piece) -> tuple[bool, int]:
    """Whether some glob of the piece floats, and how many wildcards the wildest has."""
    floats = any(not isinstance(glob, ArgvGlob) and glob.components[:1] == (_DEEP,) for glob in piece.globs)
    return floats, max((_wildcards(glob) for glob in piece.globs), default=0)


_DEEP = Deep()


def _wildcards(glob: Glob) -> int:
    if isinstance(glob, ArgvGlob):
        return sum(isinstance(node, Wild) for node in glob.nodes)
    inner = sum(isinstance(part, Deep) for part in glob.components[:-1])
    return inner + sum(isinstance(node, Wild) for part in glob.components if isinstance(part, tuple) for node in part)
