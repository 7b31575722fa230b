"""Policies to the kernel's tables: ``compile_profile``.

The oracle states how is decided, ``tables`` what the kernel combines, and this package's tests hold both to the same
answers. Where one path automaton is walked, `otherwise` is already in its states; else the kernel adds it, for it then
depends on what the other walks cover. For exec and load the kernel always adds it: argv and content may cover, and what
has no path (memfd, a deleted file) is let through by no rule.
"""

from collections.abc import Iterable, Sequence

from hostwarden.policy.budget import Budget
from hostwarden.policy.build import Settings, path_pieces
from hostwarden.policy.clauses import Clause, Clauses, CompileError, read
from hostwarden.policy.evaluate import combine, say
from hostwarden.policy.model import Policy
from hostwarden.policy.nets import net_entries
from hostwarden.policy.oracle import record_mode
from hostwarden.policy.partition import argv_table, path_automata
from hostwarden.policy.places import roots_size
from hostwarden.policy.tables import MAX_HASHES, MAX_JOINT, MAX_SUPERBLOCKS, Decision, Joint, Place, Profile
from hostwarden.policy.words import CONTENT_ACTIONS, POLICY_ACTIONS, Action, Mode, Verdict

__all__ = ["CompileError", "compile_profile"]

MAX_ROOTS_SIZE = 30_000  # some 500 mounted subtrees with long names of their own: each byte of theirs can be a state


def compile_profile(policies: Sequence[Policy], superblocks: Sequence[Sequence[Place]]) -> Profile:
    """The tables of agents to which ``policies`` apply, in this order, on a host with these superblocks.

    Raises CompileError if they outgrow a bound of ``tables`` or take too long.
    """
    _check_mounts(superblocks)
    laws = read(policies)
    budget = Budget()
    joint = _joint(laws)
    settings = Settings(laws, superblocks, {clause.reason: bit for bit, clause in enumerate(joint)}, budget)
    argv_clauses = [clause for clause in laws.clauses if clause.asks_argv]
    path_clauses = [clause for clause in laws.clauses if clause.is_joint or not clause.asks_argv]
    argv = argv_table(settings, argv_clauses)
    foldable = frozenset(POLICY_ACTIONS) - set(CONTENT_ACTIONS)
    paths, is_folded = path_automata(settings, path_pieces(path_clauses), foldable)
    left = [action for action in POLICY_ACTIONS if not is_folded or action not in foldable]
    return Profile(
        reasons=laws.reasons,
        paths=paths,
        argv=argv,
        joint=[_joint_rule(clause) for clause in joint],
        otherwise={action: laws.otherwise[action] if action in left else [] for action in POLICY_ACTIONS},
        net=net_entries(laws, budget),
        users=laws.users,
        record={action: record_mode(policies, action) for action in POLICY_ACTIONS},
        enforced=frozenset(action for action in POLICY_ACTIONS if _is_enforced(laws, action)),
        has_roots=any(policy.paths == "root" for policy in policies),
        root_row=_root_row(superblocks),
        hashes=_hashes(joint),
        joint_without_argv=_bits(not clause.asks_argv for clause in joint),
        joint_without_hash=_bits(clause.rule.sha256 is None for clause in joint),
        argv_unread=_unread(argv_clauses),
    )


def _check_mounts(superblocks: Sequence[Sequence[Place]]) -> None:
    if len(superblocks) >= MAX_SUPERBLOCKS:
        raise CompileError(f"{len(superblocks)} file systems are mounted, at most {MAX_SUPERBLOCKS - 1} fit")
    if roots_size(superblocks) > MAX_ROOTS_SIZE:
        raise CompileError(
            f"the mount table shows subtrees (bind mounts, subvolumes) whose paths have {roots_size(superblocks)} "
            f"different beginnings, at most {MAX_ROOTS_SIZE} fit: unmount what isn't needed"
        )


def _joint(laws: Clauses) -> list[Clause]:
    """The clauses of which several parts have to match, most severe first: their places are their bits."""
    joint = [clause for clause in laws.clauses if clause.is_joint]
    if len(joint) > MAX_JOINT:
        last = sorted(joint, key=lambda clause: clause.reason)[MAX_JOINT].rule.location
        raise CompileError(
            f"{len(joint)} rules with sha256, or with both path and argv, at most {MAX_JOINT} fit: {last} is too many"
        )
    return sorted(joint, key=lambda clause: (-clause.rule.verdict, clause.reason))


def _joint_rule(clause: Clause) -> Joint:
    actions = clause.actions.intersection(CONTENT_ACTIONS)
    return Joint(clause.rule.verdict, clause.mode, clause.reason, clause.covered, actions)


def _bits(found: Iterable[bool]) -> int:
    return sum(1 << bit for bit, holds in enumerate(found) if holds)


def _root_row(superblocks: Sequence[Sequence[Place]]) -> int:
    """The start row of the file system that the host's root is on; the first of ``superblocks`` is the host's paths."""
    rows = (row for row, places in enumerate(superblocks, 1) if row > 1 and Place(b"", b"") in places)
    return next(rows, 0)


def _hashes(joint: Sequence[Clause]) -> dict[bytes, int]:
    """Content → bits of the joint clauses that name it."""
    found: dict[bytes, int] = {}
    for bit, clause in enumerate(joint):
        for content in clause.rule.sha256 or ():
            found[content] = found.get(content, 0) | 1 << bit
    if len(found) > MAX_HASHES:
        raise CompileError(f"rules with sha256 name {len(found)} contents, at most {MAX_HASHES} fit")
    return found


def _unread(argv_clauses: Sequence[Clause]) -> Decision:
    """The severest verdict of rules that ask for an argv that can't be read, whoever the user is.

    An allow is none: nobody is let through by hiding his arguments. Rules for other users count as well (the oracle
    leaves them out): the table has one such decision, and this is the side on which it may be wrong.
    """
    severe = [clause for clause in argv_clauses if clause.rule.verdict > Verdict.ALLOW]
    return combine(say(clause.rule.verdict, clause.reason, clause.mode) for clause in severe)


def _is_enforced(laws: Clauses, action: Action) -> bool:
    """Whether an enforcing policy can deny or kill for this action."""
    rules = [(clause.mode, clause.rule.verdict) for clause in laws.of(action)]
    rest = [(entry.mode, entry.verdict) for entry in laws.otherwise[action]]
    return any(mode is Mode.ENFORCE and verdict >= Verdict.DENY for mode, verdict in [*rules, *rest])
