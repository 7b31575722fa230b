"""Warnings of `policy check`: what is no mistake, but most likely not what its author means, or not what this host can
make real. Mistakes are ``parse``'s business.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from hostwarden.policy.covers import all_covered, covers_argv, covers_net, covers_path
from hostwarden.policy.globs import Wild
from hostwarden.policy.labels import Selector
from hostwarden.policy.model import ArgvPattern, NetPattern, PathPattern, Policy, Rule, ToPattern, UnixPattern
from hostwarden.policy.shadows import shadowed
from hostwarden.policy.source import PolicyError
from hostwarden.policy.tripwire import missed_forms
from hostwarden.policy.vocabulary import quote
from hostwarden.policy.words import BROADER, CONTENT_ACTIONS, POLICY_ACTIONS, Action, Mode, Tier, Verdict

Labels = Mapping[str, str]
REFUSING = (Tier.LSM, Tier.MODIFY_RETURN)  # tiers that refuse whatever the action is
Pattern = TypeVar("Pattern", PathPattern, ArgvPattern, ToPattern)


@dataclass(frozen=True, order=True)
class PolicyWarning:
    """One warning about one place of one file; line and column start at 1."""

    file: str
    line: int
    column: int
    message: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}: warning: {self.message}"


Finding = tuple[int, int, str]  # line, column, message


def check(
    policies: Sequence[Policy],
    tiers: Mapping[Action, Tier] | None = None,
    known_labels: Iterable[Labels] | None = None,
) -> list[PolicyWarning]:
    """All warnings, by file (in the order given), line and column.

    ``tiers``: what this host has for each action; None if it isn't known (on a laptop). ``known_labels``: the labels
    of every agent there is or can be; None if they aren't known.
    """
    agents = None if known_labels is None else list(known_labels)
    found: list[PolicyWarning] = []
    for policy in policies:
        findings = {*policy.notes, *_policy(policy, agents), *_rules(policy), *_tiers(policy, tiers or {})}
        found += [PolicyWarning(policy.file, *finding) for finding in sorted(findings)]
    return found


def _policy(policy: Policy, agents: Sequence[Labels] | None) -> Iterator[Finding]:
    if agents is not None and policy.selector.terms and not any(policy.selector.matches(labels) for labels in agents):
        line, column = policy.places["for"]
        yield line, column, _no_agent(policy.selector, agents)
    if not policy.rules and not policy.otherwise:
        yield (*policy.places["policy"], f"policy {policy.name} has neither rules nor `otherwise`: it decides nothing")
    strict = policy.otherwise.get(Action.EXEC, Verdict.ALLOW) >= Verdict.DENY and policy.mode is Mode.ENFORCE
    if strict and not any(rule.covers and Action.EXEC in rule.actions for rule in policy.rules):
        verdict = policy.otherwise[Action.EXEC]
        yield (
            *policy.places["otherwise"],
            f"`otherwise: {{exec: {verdict}}}` and no rule that allows exec: agents of this policy can't run anything",
        )


def _no_agent(selector: Selector, agents: Sequence[Labels]) -> str:
    """Names the first term that no agent satisfies, for that is where the typing error is."""
    for key, value in selector.terms:
        if not any(Selector(((key, value),)).matches(labels) for labels in agents):
            known = sorted({labels[key] for labels in agents if key in labels})[:5]
            there = f"label {key} is {', '.join(known)}" if known else f"no agent has a label {key}"
            return f"selector {selector} matches no agent: {there}"
    return f"selector {selector} matches no agent"


def _rules(policy: Policy) -> Iterator[Finding]:
    for rule in policy.rules:
        yield from _duplicates(rule)
        yield from _excepted(rule)
        yield from _argv(rule)
        yield from _content(rule)
        yield from _endless(policy, rule)
    yield from _apart(policy)
    for rule, other in shadowed(policy):
        said = "says the same" if rule.verdict is other.verdict else f"is a {other.verdict}"
        message = (
            f"this {rule.verdict} never decides: the rule in line {other.line} matches whenever it does and {said}"
        )
        yield rule.line, rule.column, message


def _duplicates(rule: Rule) -> Iterator[Finding]:
    walked = (rule.path, rule.argv, rule.except_path, rule.except_argv, _unix(rule.to), _unix(rule.except_to))
    for patterns in walked:
        first: dict[object, str] = {}
        for pattern in patterns or ():
            for glob in dict.fromkeys(pattern.globs):  # within one text, braces may well stand for a glob twice
                if glob in first:
                    message = f"{quote(pattern.text)} stands for the same as {quote(first[glob])} before it"
                    yield pattern.line, pattern.column, message
                    break
            first.update((glob, pattern.text) for glob in pattern.globs)
    for nets in (_nets(rule.to), _nets(rule.except_to)):
        known: dict[object, str] = {}
        for net in nets:
            if net.net in known:
                yield (
                    net.line,
                    net.column,
                    f"{quote(net.text)} stands for the same as {quote(known[net.net])} before it",
                )
            known[net.net] = net.text


def _excepted(rule: Rule) -> Iterator[Finding]:
    """Targets that the rule's own exceptions swallow."""
    paths = [p for p in rule.path or () if all_covered(rule.except_path_globs, p.globs, covers_path)]
    argvs = [p for p in rule.argv or () if all_covered(rule.except_argv_globs, p.globs, covers_argv)]
    to: list[ToPattern] = [p for p in _nets(rule.to) if all_covered(rule.except_nets, (p.net,), covers_net)]
    to += [p for p in _unix(rule.to) if all_covered(rule.except_unix_globs, p.globs, covers_path)]
    yield from _swallowed(rule, rule.path, paths)
    yield from _swallowed(rule, rule.argv, argvs)
    yield from _swallowed(rule, rule.to, to)
    if rule.path is None and any(pattern.text in ("**", "/**") for pattern in rule.except_path):
        yield rule.line, rule.column, "this rule can never match: its `except` holds everything"


def _nets(patterns: Sequence[ToPattern] | None) -> list[NetPattern]:
    return [pattern for pattern in patterns or () if isinstance(pattern, NetPattern)]


def _unix(patterns: Sequence[ToPattern] | None) -> list[UnixPattern]:
    return [pattern for pattern in patterns or () if isinstance(pattern, UnixPattern)]


def _swallowed(rule: Rule, patterns: Sequence[Pattern] | None, swallowed: Sequence[Pattern]) -> Iterator[Finding]:
    if patterns and len(swallowed) == len(patterns):
        yield rule.line, rule.column, "this rule can never match: its `except` holds all that it names"
        return
    for pattern in swallowed:
        yield pattern.line, pattern.column, f"{quote(pattern.text)} never matches: the rule's `except` holds all of it"


def _argv(rule: Rule) -> Iterator[Finding]:
    """A rule about argv is a tripwire: who is judged chooses his argv."""
    if rule.argv is None:
        return
    if rule.covers and rule.path is None and rule.sha256 is None:
        yield (
            rule.line,
            rule.column,
            f"this {rule.verdict} lets any program pass that is started with these arguments (argv is what the caller "
            "says, its first word too): add a `path`",
        )
    if rule.verdict is Verdict.ALLOW:
        return
    for pattern in rule.argv:
        if any(glob.nodes == (Wild.MANY,) for glob in pattern.globs):
            continue  # nothing gets past `*`
        forms = missed_forms(rule, pattern)
        missed = f"; it misses {', '.join(quote(form) for form in forms)}" if forms else ""
        message = f"{quote(pattern.text)} is a tripwire, not a wall: a program can be given other arguments{missed}"
        yield pattern.line, pattern.column, message


def _content(rule: Rule) -> Iterator[Finding]:
    """Who can write a file can make any other content of it."""
    if rule.sha256 is not None and rule.verdict > Verdict.AUDIT:
        message = f"this {rule.verdict} is a tripwire, not a wall: a program with one byte more is another one"
        yield rule.line, rule.column, message


def _endless(policy: Policy, rule: Rule) -> Iterator[Finding]:
    """An allow for everything beside an `otherwise` for what isn't allowed."""
    limits = [rule.path, rule.argv, rule.to, rule.sha256, rule.users]
    limits += [rule.except_path or None, rule.except_to or None]
    if not rule.covers or any(limit is not None for limit in limits):
        return
    for action in rule.actions:
        otherwise = policy.otherwise.get(action, Verdict.ALLOW)
        if otherwise > rule.verdict:
            yield (
                rule.line,
                rule.column,
                f"this {rule.verdict} names no target, so it matches every {action}: `otherwise: {{{action}: "
                f"{otherwise}}}` never applies",
            )


def _apart(policy: Policy) -> Iterator[Finding]:
    """Actions that are no part of `write` any more, for they are named, while a rule about write that may mean them as
    well isn't.
    """
    for action, broader in BROADER.items():
        named = [rule for rule in policy.rules if action in rule.actions]
        mute = [rule for rule in policy.rules if broader in rule.actions and action not in rule.actions]
        severe = [rule for rule in mute if rule.verdict >= Verdict.DENY]
        if not severe or policy.decided_as(action) is broader:
            continue
        line, column = (named[0].line, named[0].column) if named else policy.places["otherwise"]
        message = f"{action} is named here, so it is no part of write in this policy: the {severe[0].verdict} in line"
        yield line, column, f"{message} {severe[0].line} doesn't speak of it (expected `[{broader}, {action}]` there)"


def _tiers(policy: Policy, tiers: Mapping[Action, Tier]) -> Iterator[Finding]:
    """What this host can't prevent: one warning for each group of actions that are alike, at the first place of the
    policy that asks for them.
    """
    if policy.mode is Mode.OBSERVE:
        return
    alike: dict[tuple[Limited, ...], list[Action]] = {}
    for action in POLICY_ACTIONS:
        limited = tuple(_limited(policy, action, tiers))
        if limited:
            alike.setdefault(limited, []).append(action)
    for (first, *others), actions in alike.items():
        line, column, verdict, limit = first
        more = f" (and {len(others)} more in this policy)" if others else ""
        yield line, column, f"{verdict} of {', '.join(map(str, actions))} {limit}{more}"


Limited = tuple[int, int, Verdict, str]  # line, column, verdict, and what becomes of it


def _limited(policy: Policy, action: Action, tiers: Mapping[Action, Tier]) -> Iterator[Limited]:
    """The places at which ``policy`` asks for what can't be done about ``action``."""
    decided_as, tier = policy.decided_as(action), tiers.get(action)
    for rule in policy.rules:
        if decided_as in rule.actions and rule.verdict >= Verdict.DENY:
            limit = _limit(action, rule.verdict, tier) or _unix_limit(rule, action, tiers)
            if limit:
                yield rule.line, rule.column, rule.verdict, limit
    otherwise = policy.otherwise.get(decided_as, Verdict.ALLOW)
    limit = _limit(action, otherwise, tier) if otherwise >= Verdict.DENY else ""
    if limit:
        yield (*policy.places["otherwise"], otherwise, limit)


def _limit(action: Action, verdict: Verdict, tier: Tier | None) -> str:
    """What becomes of a denial of ``action`` on ``tier``, if it isn't what the word promises; else nothing."""
    if tier is Tier.NONE:
        return "can't be made real on this host (no tier for it): it would only be recorded"
    if tier is not Tier.SIGNAL or action is Action.EXEC:
        return ""
    after = "is a kill after the open on this host (tier signal)"
    if action is Action.READ:
        return f"{after}: the process dies before it can use the file" if verdict < Verdict.KILL else ""
    if action in (Action.WRITE, Action.CREATE):
        return f"{after}: with O_TRUNC or O_CREAT the file has changed by then"
    if action is Action.LOAD:
        return "is a kill on this host (tier signal): the process dies before it can run what it mapped"
    return "is a kill on this host (tier signal): what the call did has happened by then"


def _unix_limit(rule: Rule, action: Action, tiers: Mapping[Action, Tier]) -> str:
    """Cgroup programs see internet addresses only: unix sockets are the business of the tier that has `listen`."""
    if not rule.unix_globs or tiers.get(action) is not Tier.CGROUP or tiers.get(Action.LISTEN) in REFUSING:
        return ""
    return "to unix sockets can't be made real on this host (tier cgroup doesn't see them): it would only be recorded"


def unreal(policies: Sequence[Policy], tiers: Mapping[Action, Tier]) -> list[PolicyError]:
    """What must not be put in force on a host with these tiers: rules about contents where the kernel can't vouch for
    any (only an LSM program may ask it). Such an allow would allow nothing, and such a deny nothing deny.
    """
    found = []
    for policy in policies:
        for rule in policy.rules:
            lacking = [a for a in CONTENT_ACTIONS if rule.decides(a) and tiers.get(a, Tier.NONE) is not Tier.LSM]
            if rule.sha256 is not None and lacking:
                needed = f"sha256 needs the tier lsm for {lacking[0]}"
                message = f"{needed}, this host has {tiers.get(lacking[0], Tier.NONE)}: expected a rule by path"
                found.append(PolicyError(policy.file, rule.line, rule.column, message))
    return found
