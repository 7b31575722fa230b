"""Address rules as prefixes of which the longest that holds an address is the whole answer.

For each user class and each port that some rule names, and for all ports that none names: an entry for every prefix
that a rule (or its `except`) has for that port. Between two entries of one table lies no boundary of any rule, so all
addresses whose longest entry is the same are matched by the same rules. Entries that say what the next shorter one
says are left out.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from hostwarden.policy.budget import Budget
from hostwarden.policy.clauses import Clause, Clauses, CompileError
from hostwarden.policy.evaluate import combine, say
from hostwarden.policy.model import Net
from hostwarden.policy.tables import Decision, NetEntry
from hostwarden.policy.words import NET_ACTIONS, Action

MAX_ENTRIES = 1 << 17  # of one profile, before redundant ones are left out: about 10 MB of kernel memory
EVERYWHERE = (bytes(16), 0)

Prefix = tuple[bytes, int]


@dataclass
class _Sides:
    """Clauses by number: those that name a prefix, and those that except it."""

    named: set[int] = field(default_factory=set)
    excepted: set[int] = field(default_factory=set)


def net_entries(clauses: Clauses, budget: Budget) -> list[NetEntry]:
    """The entries of all users and ports. Raises CompileError if there are too many."""
    speaking = clauses.of(*NET_ACTIONS)
    ports = sorted({net.port for net in _nets(speaking) if net.port is not None})
    _check(speaking, ports, clauses.n_users)
    entries = []
    for user in range(clauses.n_users):
        for port in (None, *ports):
            for entry in _Table(clauses, speaking, user, port).entries():
                entries.append(entry)
                if budget.is_spent:
                    raise CompileError(f"{len(speaking)} address rules take too long to compile: name fewer ports")
    return entries


def _nets(speaking: Iterable[Clause]) -> Iterator[Net]:
    for clause in speaking:
        yield from clause.rule.nets or ()
        yield from clause.rule.except_nets


def _check(speaking: Sequence[Clause], ports: Sequence[int], n_users: int) -> None:
    shared = {EVERYWHERE, *((net.prefix, net.length) for net in _nets(speaking) if net.port is None)}
    own = {net for net in _nets(speaking) if net.port is not None and (net.prefix, net.length) not in shared}
    count = n_users * (len(own) + (len(ports) + 1) * len(shared))
    if count > MAX_ENTRIES:
        raise CompileError(
            f"address rules make {count} entries, at most {MAX_ENTRIES} fit: every port that is named ({len(ports)}) "
            f"takes all prefixes without a port ({len(shared)}), for each of {n_users} groups of users"
        )


class _Table:
    """The entries of one user class and one port."""

    def __init__(self, clauses: Clauses, speaking: Sequence[Clause], user: int, port: int | None) -> None:
        self._clauses = clauses
        self._user = user
        self._port = port
        self._speaking = [clause for clause in speaking if any(clause.counts(action, user) for action in NET_ACTIONS)]
        self._known: dict[frozenset[int], dict[Action, Decision]] = {}

    def entries(self) -> Iterator[NetEntry]:
        """Prefixes in order, so that those that hold one stand before it: they are the stack."""
        prefixes = self._prefixes()
        stack: list[tuple[Prefix, frozenset[int], frozenset[int], dict[Action, Decision] | None]] = []
        for prefix in sorted(prefixes):
            while stack and not _holds(stack[-1][0], prefix):
                stack.pop()
            _, named, excepted, above = stack[-1] if stack else (None, frozenset[int](), frozenset[int](), None)
            named |= prefixes[prefix].named
            excepted |= prefixes[prefix].excepted
            decisions = self._decide(named - excepted)
            stack.append((prefix, named, excepted, decisions))
            if decisions != above:
                yield NetEntry(self._user, self._port, *prefix, decisions)

    def _prefixes(self) -> dict[Prefix, _Sides]:
        prefixes = {EVERYWHERE: _Sides()}
        for number, clause in enumerate(self._speaking):
            if clause.rule.nets is None:
                prefixes[EVERYWHERE].named.add(number)
            for net in self._fitting(clause.rule.nets or ()):
                prefixes.setdefault((net.prefix, net.length), _Sides()).named.add(number)
            for net in self._fitting(clause.rule.except_nets):
                prefixes.setdefault((net.prefix, net.length), _Sides()).excepted.add(number)
        return prefixes

    def _fitting(self, nets: Iterable[Net]) -> Iterator[Net]:
        return (net for net in nets if net.port is None or net.port == self._port)

    def _decide(self, matched: frozenset[int]) -> dict[Action, Decision]:
        if matched not in self._known:
            clauses = [self._speaking[number] for number in sorted(matched)]
            self._known[matched] = {action: self._decision(clauses, action) for action in NET_ACTIONS}
        return self._known[matched]

    def _decision(self, matched: Sequence[Clause], action: Action) -> Decision:
        counting = [clause for clause in matched if clause.counts(action, self._user)]
        covered = 0
        for clause in counting:
            covered |= clause.covered
        rest = (entry for entry in self._clauses.otherwise[action] if not covered >> entry.policy & 1)
        rules = (say(clause.rule.verdict, clause.reason, clause.mode) for clause in counting)
        return combine([*rules, *(say(entry.verdict, entry.reason, entry.mode) for entry in rest)])


def _holds(outer: Prefix, inner: Prefix) -> bool:
    shift = 128 - outer[1]
    return outer[1] <= inner[1] and int.from_bytes(outer[0], "big") >> shift == int.from_bytes(inner[0], "big") >> shift
