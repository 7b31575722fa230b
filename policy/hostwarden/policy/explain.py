"""Why an attempt is decided as it is: every policy, what matched in it, and what decided (`policy explain`)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hostwarden.policy.address import show, show_unix
from hostwarden.policy.model import Policy
from hostwarden.policy.oracle import Attempt, Contribution, Ruling, applicable, contributions, decide, decisive
from hostwarden.policy.oracle import record_mode as most_recorded
from hostwarden.policy.tables import Reason
from hostwarden.policy.vocabulary import quote
from hostwarden.policy.words import NET_ACTIONS, PLAIN_ACTIONS, Action, Mode, RecordMode, Verdict


@dataclass(frozen=True)
class Part:
    """One rule that matched, or a policy's `otherwise` (``location`` None) that applies."""

    location: str | None
    verdict: Verdict
    why: str | None
    decides: bool


@dataclass(frozen=True)
class PolicyView:
    """What one policy made of the attempt. ``decided_as`` differs from the action where a create is decided as a write.

    ``spared`` is an `otherwise` that doesn't apply because an allow or audit rule matched.
    """

    name: str
    file: str
    mode: Mode
    selector: str
    applies: bool
    decided_as: Action
    parts: tuple[Part, ...]
    spared: Verdict | None


@dataclass(frozen=True)
class Explanation:
    """The ruling and how it came about."""

    labels: Mapping[str, str]
    attempt: Attempt
    ruling: Ruling
    record: RecordMode
    policies: tuple[PolicyView, ...]

    def lines(self) -> list[str]:
        """For people: the verdict, what decided, then every policy."""
        labels = "{" + ", ".join(f"{key}: {value}" for key, value in self.labels.items()) + "}"
        lines = [f"{self.attempt.action} {describe(self.attempt)} by an agent {labels}: {self.ruling.enforced}"]
        lines += _decided(self.ruling.enforced_reason, "decided by")
        if self.ruling.observed > self.ruling.enforced:
            lines += [f"  observed only, changes nothing: {self.ruling.observed}"]
            lines += _decided(self.ruling.observed_reason, "it would be decided by")
        lines += [f"  recorded: {self.record}"]
        for view in self.policies:
            lines += _view_lines(view, self.attempt.action)
        return lines

    def as_dict(self) -> dict[str, object]:
        """For JSON: text, lists and mappings only."""
        attempt = self.attempt
        argv = None if attempt.argv is None else [_text(argument) for argument in attempt.argv]
        return {
            "action": str(attempt.action),
            "target": target(attempt),
            "argv": argv,
            "sha256": None if attempt.sha256 is None else attempt.sha256.hex(),
            "uid": attempt.uid,
            "labels": dict(self.labels),
            "verdict": str(self.ruling.enforced),
            **_reason_dict(self.ruling.enforced_reason),
            "observed": {"verdict": str(self.ruling.observed), **_reason_dict(self.ruling.observed_reason)},
            "record": str(self.record),
            "policies": [_view_dict(view) for view in self.policies],
        }


def explain(policies: Sequence[Policy], labels: Mapping[str, str], attempt: Attempt) -> Explanation:
    """How ``policies`` (those that don't apply are said to) decide an attempt of an agent with ``labels``."""
    applying = applicable(policies, labels)
    found = {policy.name: list(contributions(policy, attempt)) for policy in applying}
    everything = [contribution for policy in applying for contribution in found[policy.name]]
    deciding = [decisive(everything, mode) for mode in Mode]
    views = tuple(_view(policy, found.get(policy.name), attempt, deciding) for policy in policies)
    return Explanation(labels, attempt, decide(applying, attempt), most_recorded(applying, attempt.action), views)


def target(attempt: Attempt) -> str:
    """The target as records tell it: a path, ``address:port``, ``unix:/path``, ``unix:@name``, ``pid:N``."""
    if attempt.action in PLAIN_ACTIONS:
        return attempt.object
    if attempt.action in NET_ACTIONS and attempt.path is None:
        return "" if attempt.address is None else show(attempt.address, attempt.port or 0)
    if attempt.action in NET_ACTIONS and attempt.path is not None:
        return show_unix(attempt.path)
    return "" if attempt.path is None else _text(attempt.path) or "/"


def describe(attempt: Attempt) -> str:
    """The target, its content if that is known, and the argv of an exec, in one line for people."""
    shown = quote(target(attempt))
    shown += "" if attempt.sha256 is None else f" (sha256 {attempt.sha256.hex()[:16]}…)"
    if attempt.action is not Action.EXEC:
        return shown
    if attempt.argv is None:
        return f"{shown} (arguments unreadable)"
    return f"{shown} ({quote(' '.join(_text(argument) for argument in attempt.argv))})"


def _view(
    policy: Policy, found: list[Contribution] | None, attempt: Attempt, deciding: Sequence[Contribution | None]
) -> PolicyView:
    action = policy.decided_as(attempt.action)
    parts = tuple(
        Part(entry.reason.location, entry.verdict, entry.reason.why, any(entry is one for one in deciding))
        for entry in found or ()
    )
    applied = any(part.location is None for part in parts)
    spared = None if applied or found is None else policy.otherwise.get(action)
    selector = str(policy.selector)
    return PolicyView(policy.name, policy.file, policy.mode, selector, found is not None, action, parts, spared)


def _decided(reason: Reason, what: str) -> list[str]:
    if reason.policy is None:
        return [f"  {what} no policy: nothing speaks of it, and that is allowed"]
    place = reason.location or "`otherwise`"
    why = [f"  why: {reason.why}"] if reason.why else []
    return [f"  {what} {place} of policy {reason.policy}", *why]


def _view_lines(view: PolicyView, action: Action) -> list[str]:
    head = f"  policy {view.name} ({view.mode}, {view.file})"
    if not view.applies:
        return [f"{head}: its selector {view.selector} doesn't match"]
    lines = [f"{head}: decides it as {view.decided_as}" if view.decided_as is not action else head]
    for part in view.parts:
        mark = "  <- decides" if part.decides else ""
        lines.append(f"    {part.verdict!s:<5}  {part.location or '`otherwise`'}{mark}")
    if view.spared is not None:
        lines.append(f"    `otherwise` ({view.spared}) doesn't apply: an allow or audit rule matched")
    if not view.parts:
        lines.append("    nothing in it matches")
    return lines


def _reason_dict(reason: Reason) -> dict[str, object]:
    return {"policy": reason.policy, "digest": reason.digest, "rule": reason.location, "why": reason.why}


def _view_dict(view: PolicyView) -> dict[str, object]:
    return {
        "policy": view.name,
        "file": view.file,
        "mode": str(view.mode),
        "selector": view.selector,
        "applies": view.applies,
        "decided_as": str(view.decided_as),
        "matched": [
            {"rule": part.location, "verdict": str(part.verdict), "why": part.why, "decides": part.decides}
            for part in view.parts
        ],
        "otherwise_spared": None if view.spared is None else str(view.spared),
    }


def _text(raw: bytes) -> str:
    """Bytes of an agent as text that every encoder takes: what isn't UTF-8 becomes ``\\xff``."""
    return raw.decode("utf-8", "backslashreplace")
