"""Rules that change nothing because another rule of the same policy decides wherever they match.

Candidates come from an index over targets, so that a policy of thousands of rules isn't compared pair by pair.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

from hostwarden.policy.covers import covers_rule, is_deep, stem
from hostwarden.policy.model import Net, Policy, Rule
from hostwarden.policy.words import Action, Verdict

MAX_CANDIDATES = 64  # rules tried for each rule; a policy where more share a target is told of the first ones only

Key = tuple[object, ...]


@dataclass
class _Index:
    """Which rules have a target, by the target; ``everywhere`` are those that match every target of their actions."""

    rules: tuple[Rule, ...]
    by_target: dict[Key, list[int]] = field(default_factory=dict)
    everywhere: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        for number, rule in enumerate(self.rules):
            if rule.path is None and rule.argv is None and rule.to is None and rule.sha256 is None:
                self.everywhere.append(number)
            for key in _own_keys(rule):
                self.by_target.setdefault(key, []).append(number)

    def candidates(self, rule: Rule) -> list[int]:
        """Numbers of the rules that may cover ``rule``."""
        found = dict.fromkeys(self.everywhere[:MAX_CANDIDATES])
        for key in _wider_keys(rule):
            found.update(dict.fromkeys(self.by_target.get(key, ())[:MAX_CANDIDATES]))
        return list(found)[:MAX_CANDIDATES]


def shadowed(policy: Policy) -> Iterator[tuple[Rule, Rule]]:
    """Pairs of a rule that never changes anything and the one that decides instead; each rule at most once."""
    index = _Index(policy.rules)
    for number, rule in enumerate(policy.rules):
        for other in index.candidates(rule):
            if other != number and _shadows(policy, other, number):
                yield rule, policy.rules[other]
                break


def _shadows(policy: Policy, wide_number: int, narrow_number: int) -> bool:
    wide, narrow = policy.rules[wide_number], policy.rules[narrow_number]
    if wide.verdict < narrow.verdict or not covers_rule(wide, narrow, narrow.actions):
        return False
    if narrow.covers and not wide.covers and any(_is_kept_away(policy, action, wide) for action in narrow.actions):
        return False
    # Of two that say the same the later one is superfluous.
    same = wide.verdict is narrow.verdict and covers_rule(narrow, wide, wide.actions)
    return wide_number < narrow_number if same else True


def _is_kept_away(policy: Policy, action: Action, wide: Rule) -> bool:
    """Whether an allow or audit rule for ``action`` matters beside ``wide``: it keeps a severer `otherwise` away."""
    return policy.otherwise.get(action, Verdict.ALLOW) > wide.verdict


def _own_keys(rule: Rule) -> Iterator[Key]:
    for glob in (*(rule.path_globs or ()), *(rule.unix_globs or ())):
        yield ("path", glob.components)
        if is_deep(glob):
            yield ("below", stem(glob))
    for line in rule.argv_globs or ():
        yield ("argv", line.nodes)
    for net in rule.nets or ():
        yield ("net", net)
    for content in rule.sha256 or ():
        yield ("content", content)


def _wider_keys(rule: Rule) -> Iterator[Key]:
    """Keys that a rule which covers ``rule`` has at least one of: all that may cover the first of each condition."""
    for glob in (*(rule.path_globs or ())[:1], *(rule.unix_globs or ())[:1]):
        yield ("path", glob.components)
        for length in range(len(glob.components) + 1):
            yield ("below", glob.components[:length])
    for line in (rule.argv_globs or ())[:1]:
        yield ("argv", line.nodes)
    for net in (rule.nets or ())[:1]:
        whole = int.from_bytes(net.prefix, "big")
        for length in range(net.length + 1):
            prefix = (whole >> (128 - length) << (128 - length)).to_bytes(16, "big")
            yield ("net", Net(prefix, length, net.port))
            yield ("net", Net(prefix, length, None))
    for content in (rule.sha256 or ())[:1]:
        yield ("content", content)
