"""The rules of a profile's policies, made ready for compiling: numbered reasons, user classes, what counts for what.

Reasons are numbered so that of two equally severe contributions the one with the lower number decides: all rules
first, by policy and place in the file, then every `otherwise`, by policy. That is rule 7 of ``oracle``.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hostwarden.policy.model import Policy, Rule
from hostwarden.policy.tables import MAX_POLICIES, MAX_USERS, Otherwise, Reason
from hostwarden.policy.words import POLICY_ACTIONS, Action, Mode, Verdict


class CompileError(Exception):
    """Policies that the kernel's tables can't hold; the message is one line for the person who wrote them."""


@dataclass(frozen=True)
class Clause:
    """One rule of one policy. ``actions`` are those that it decides: a write rule decides creates, too, in a policy
    that doesn't name them.
    """

    policy: int
    rule: Rule
    mode: Mode
    reason: int
    actions: frozenset[Action]
    users: frozenset[int] | None  # user classes, None for all

    @property
    def covered(self) -> int:
        """The policy's bit if a match keeps its `otherwise` away, else 0."""
        return 1 << self.policy if self.rule.covers else 0

    @property
    def asks_path(self) -> bool:
        """Whether it has a say only for some paths, or unix sockets."""
        return self.rule.walked is not None or bool(self.rule.except_walked)

    @property
    def asks_argv(self) -> bool:
        """Whether it has a say only for some argv."""
        return self.rule.argv is not None

    @property
    def is_joint(self) -> bool:
        """Whether two look-ups have to agree: path, argv and content are looked up apart, and each gives its bit.
        Content is only ever one of them: it has no decision of its own.
        """
        return self.rule.sha256 is not None or (self.asks_path and self.asks_argv)

    def counts(self, action: Action, user: int) -> bool:
        """Whether it has a say in ``action`` of somebody of this user class."""
        return action in self.actions and (self.users is None or user in self.users)


@dataclass(frozen=True)
class Clauses:
    """All that is compiled. ``users`` maps uids to classes, ``otherwise`` is by severity, most severe first."""

    clauses: Sequence[Clause]
    reasons: Sequence[Reason]
    otherwise: Mapping[Action, Sequence[Otherwise]]
    users: Mapping[int, int]

    @property
    def n_users(self) -> int:
        """User classes, those whom no rule names (class 0) included."""
        return max(self.users.values(), default=0) + 1

    def of(self, *actions: Action) -> list[Clause]:
        """The clauses that have a say in any of ``actions``."""
        return [clause for clause in self.clauses if not clause.actions.isdisjoint(actions)]


def read(policies: Sequence[Policy]) -> Clauses:
    """The clauses of these policies. Raises CompileError."""
    if len(policies) > MAX_POLICIES:
        raise CompileError(f"{len(policies)} policies apply to one agent, at most {MAX_POLICIES} can")
    users = _user_classes(policies)
    reasons = [Reason()]
    clauses = []
    for number, policy in enumerate(policies):
        decided = {action: policy.decided_as(action) for action in POLICY_ACTIONS}
        for rule in policy.rules:
            actions = frozenset(action for action in POLICY_ACTIONS if rule.decides(decided[action]))
            classes = None if rule.users is None else frozenset(users[uid] for uid in rule.users)
            clauses.append(Clause(number, rule, policy.mode, len(reasons), actions, classes))
            reasons.append(
                Reason(policy.name, policy.digest, rule.location, rule.why, rule.verdict, policy.mode),
            )
    return Clauses(clauses, reasons, _otherwise(policies, reasons), users)


def _otherwise(policies: Sequence[Policy], reasons: list[Reason]) -> dict[Action, list[Otherwise]]:
    """Every `otherwise`; appends to ``reasons`` one reason for each policy and verdict."""
    found: dict[Action, list[Otherwise]] = {action: [] for action in POLICY_ACTIONS}
    for number, policy in enumerate(policies):
        known: dict[Verdict, int] = {}
        for action in POLICY_ACTIONS:
            verdict = policy.otherwise.get(policy.decided_as(action))
            if verdict is None:
                continue
            if verdict not in known:
                known[verdict] = len(reasons)
                reasons.append(Reason(policy.name, policy.digest, verdict=verdict, mode=policy.mode))
            found[action].append(Otherwise(number, verdict, policy.mode, known[verdict]))
    for entries in found.values():
        entries.sort(key=lambda entry: (-entry.verdict, entry.reason))
    return found


def _user_classes(policies: Sequence[Policy]) -> dict[int, int]:
    """uid → class: users of whom the same rules speak share one. Class 0 is for those of whom none speaks by name."""
    spoken_of: dict[int, list[tuple[int, int]]] = {}
    for number, policy in enumerate(policies):
        for index, rule in enumerate(policy.rules):
            for uid in sorted(set(rule.users or ())):
                spoken_of.setdefault(uid, []).append((number, index))
    numbers: dict[tuple[tuple[int, int], ...], int] = {}
    classes = {uid: numbers.setdefault(tuple(spoken_of[uid]), len(numbers) + 1) for uid in sorted(spoken_of)}
    if len(numbers) >= MAX_USERS:
        raise CompileError(
            f"rules with `user` tell {len(numbers)} groups of users apart, at most {MAX_USERS - 1} can be: "
            "name the same users in more of them"
        )
    return classes
