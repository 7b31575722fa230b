"""The one evaluator: what policies say about an attempt. `policy test`, explain and replay use it, and kernel verdicts
are compared with it.

The rules of deciding (design section 6); the compiler must give the same verdict *and* the same reason:

1.  Enforcing and observing policies are decided apart; each side has one verdict and one reason.
2.  A policy that names `create` in no rule and not in `otherwise` decides a create as a write (``Policy.decided_as``;
    likewise delete, rename, link and chmod).
3.  A rule matches if it speaks of the action (``Rule.decides``), the user is among its users, every condition matches
    and no exception does.
4.  Every rule that matches contributes its verdict, in whatever order rules and files stand.
5.  A policy's ``otherwise[action]`` contributes too, unless an allow or audit rule of that policy matched. A deny or
    kill rule that matched doesn't keep it away. An action that `otherwise` doesn't name contributes nothing.
6.  argv that can't be read (``Attempt.argv`` None): no rule with an argv condition matches, none keeps `otherwise`
    away; but each whose users include the attempt's contributes its verdict if that is more severe than allow, its
    path condition and its exceptions notwithstanding.
7.  The most severe contribution of all policies of a side is its verdict. Its reason is, among contributions of that
    severity, a rule before an `otherwise`; then the one of the earlier policy, as given; then the earlier in its file.
8.  No contribution: allow, and the reason is ``Reason()``.
9.  What has no path (``Attempt.path`` None for a file action: a memfd, a deleted program) is met by rules that ask for
    none, and by the glob for every path (`**`, `/**`), as condition and as exception; no other glob matches. And no
    rule keeps `otherwise` away from an exec or load of it: what is let through by name has one.
10. A socket is met by the rules without `to`, whatever its family; an internet address by those of `to`'s addresses
    that hold it, a unix socket by the globs behind `unix:`, any other family by neither.
11. A content that isn't known (``Attempt.sha256`` None) is none that a rule could name.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from hostwarden.policy.address import contains
from hostwarden.policy.argv import join_argv
from hostwarden.policy.globs import DEEP, PathGlob
from hostwarden.policy.match import match_argv, match_path
from hostwarden.policy.model import Policy, Rule
from hostwarden.policy.tables import Reason
from hostwarden.policy.words import CONTENT_ACTIONS, NET_ACTIONS, PLAIN_ACTIONS, Action, Mode, RecordMode, Verdict


@dataclass(frozen=True)
class Attempt:
    """What an agent tries. ``path`` for file actions, ``address`` (16 bytes) and ``port`` for network actions, or the
    ``path`` of a unix socket (`/./name` for an abstract one), or neither for any other family.

    A file action whose ``path`` is None is one on a file without any (rule 9). ``argv`` is exec's; None means that it
    couldn't be read, or is longer than the probes read. ``sha256`` (32 bytes) is the content of what is executed or
    mapped. ``object`` is for people: what a plain action is about, which no rule can name.
    """

    action: Action
    path: bytes | None = None
    argv: tuple[bytes, ...] | None = None
    address: bytes | None = None
    port: int | None = None
    uid: int = 0
    sha256: bytes | None = None
    object: str = ""


@dataclass(frozen=True)
class Ruling:
    """The verdicts of the enforcing and of the observing policies."""

    enforced: Verdict
    enforced_reason: Reason
    observed: Verdict
    observed_reason: Reason


@dataclass(frozen=True)
class Contribution:
    """One rule, or (None) one policy's `otherwise`, that has a say in an attempt."""

    policy: Policy
    rule: Rule | None
    verdict: Verdict

    @property
    def reason(self) -> Reason:
        """As records and tables tell it."""
        location, why = (self.rule.location, self.rule.why) if self.rule else (None, None)
        return Reason(self.policy.name, self.policy.digest, location, why, self.verdict, self.policy.mode)


def applicable(policies: Iterable[Policy], labels: Mapping[str, str]) -> tuple[Policy, ...]:
    """The policies whose selector picks an agent with these labels, in the order given."""
    return tuple(policy for policy in policies if policy.selector.matches(labels))


def decide(policies: Sequence[Policy], attempt: Attempt) -> Ruling:
    """What these policies (all of them: see ``applicable``) say about ``attempt``."""
    found = [contribution for policy in policies for contribution in contributions(policy, attempt)]
    enforced = decisive(found, Mode.ENFORCE)
    observed = decisive(found, Mode.OBSERVE)
    return Ruling(
        enforced=enforced.verdict if enforced else Verdict.ALLOW,
        enforced_reason=enforced.reason if enforced else Reason(),
        observed=observed.verdict if observed else Verdict.ALLOW,
        observed_reason=observed.reason if observed else Reason(),
    )


def contributions(policy: Policy, attempt: Attempt) -> Iterator[Contribution]:
    """What a policy's rules, in their order, and then its `otherwise` contribute."""
    action = policy.decided_as(attempt.action)
    is_nameless = action in CONTENT_ACTIONS and attempt.path is None
    covered = False
    for rule in policy.rules:
        if matches(rule, action, attempt):
            covered = covered or (rule.covers and not is_nameless)
            yield Contribution(policy, rule, rule.verdict)
        elif is_unread(rule, action, attempt):
            yield Contribution(policy, rule, rule.verdict)
    if action in policy.otherwise and not covered:
        yield Contribution(policy, None, policy.otherwise[action])


def decisive(found: Iterable[Contribution], mode: Mode) -> Contribution | None:
    """The contribution that decides for the policies of one mode; ``found`` is in the order of policies and rules."""
    side = (contribution for contribution in found if contribution.policy.mode is mode)
    return max(side, key=lambda contribution: (contribution.verdict, contribution.rule is not None), default=None)


def matches(rule: Rule, action: Action, attempt: Attempt) -> bool:
    """Whether ``rule`` matches, for a policy that decides the attempt as ``action``."""
    if not rule.decides(action) or not _user_matches(rule, attempt):
        return False
    if action in NET_ACTIONS:
        return _net_matches(rule, attempt)
    if action in PLAIN_ACTIONS:
        return True
    return _path_matches(rule, attempt) and _argv_matches(rule, attempt) and _content_matches(rule, attempt)


def is_unread(rule: Rule, action: Action, attempt: Attempt) -> bool:
    """Whether ``rule`` counts because it asks for an argv that couldn't be read."""
    unread = action is Action.EXEC and attempt.argv is None and rule.argv is not None
    return unread and action in rule.actions and _user_matches(rule, attempt) and rule.verdict > Verdict.ALLOW


def record_mode(policies: Sequence[Policy], action: Action) -> RecordMode:
    """Which decisions of ``action`` become records: what the most curious of the policies wants, all without any."""
    return max((policy.record_mode(action) for policy in policies), default=RecordMode.ALL)


def _user_matches(rule: Rule, attempt: Attempt) -> bool:
    return rule.users is None or attempt.uid in rule.users


def _path_matches(rule: Rule, attempt: Attempt) -> bool:
    globs, path = rule.path_globs, attempt.path
    if globs is None and not rule.except_path:
        return True
    wanted = globs is None or any(_holds(glob, path) for glob in globs)
    return wanted and not any(_holds(glob, path) for glob in rule.except_path_globs)


def _holds(glob: PathGlob, path: bytes | None) -> bool:
    return glob.components == (DEEP,) if path is None else match_path(glob, path)


def _argv_matches(rule: Rule, attempt: Attempt) -> bool:
    if rule.argv_globs is None:
        return True
    if attempt.argv is None:
        return False
    line = join_argv(attempt.argv)
    wanted = any(match_argv(glob, line) for glob in rule.argv_globs)
    return wanted and not any(match_argv(glob, line) for glob in rule.except_argv_globs)


def _content_matches(rule: Rule, attempt: Attempt) -> bool:
    return rule.sha256 is None or attempt.sha256 in rule.sha256


def _net_matches(rule: Rule, attempt: Attempt) -> bool:
    path, address, port = attempt.path, attempt.address, attempt.port
    if path is not None:
        named = rule.unix_globs is None or any(match_path(glob, path) for glob in rule.unix_globs)
        return named and not any(match_path(glob, path) for glob in rule.except_unix_globs)
    if address is None or port is None:
        return rule.to is None
    wanted = rule.nets is None or any(contains(net, address, port) for net in rule.nets)
    return wanted and not any(contains(net, address, port) for net in rule.except_nets)
