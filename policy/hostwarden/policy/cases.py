"""`policy test`: a file of cases, each an attempt and the verdict that is expected.

.. code-block:: yaml

    cases:
      - labels: {team: billing}         # the agent's; without: an agent without labels
        exec: /usr/bin/git              # one action, and its target as a record has it: here a resolved path
        argv: [git, push, --force]      # exec only; without: the path alone; `unreadable`: can't be read
        sha256: 0fc6…                   # exec and load only: the content; without: one that no rule names
        user: alice                     # a name or uid; without: 65534 (nobody)
        expect: kill                    # of the enforcing policies
        rule: "billing.yaml:7"          # optional: what decides, or `otherwise`, or `none` (no policy)
      - labels: {team: billing}
        connect: "10.0.0.1:443"         # connect, send and listen: one address and port, unix:/path or unix:@name
        expect: allow
        observed: deny                  # optional: of the observing policies
      - rename: /srv/a                  # one of its two names; each is decided
        expect: deny
      - signal: pid:1                   # ptrace likewise; namespace has names: `user,mnt`
        expect: allow

Cases are decided by the oracle, over the policies whose selector picks the labels.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import yaml

from hostwarden.policy.attempts import parse_attempt, parse_content
from hostwarden.policy.explain import describe
from hostwarden.policy.labels import KEY_SHAPE, VALUE_SHAPE, is_key, is_value
from hostwarden.policy.model import Policy
from hostwarden.policy.oracle import Attempt, Ruling, applicable, decide
from hostwarden.policy.rules import ACTION_WORDS, ResolveUser, parse_uid
from hostwarden.policy.source import Entry, Reader, place
from hostwarden.policy.tables import Reason
from hostwarden.policy.vocabulary import LATER_ACTIONS, LATER_VERDICTS, VERDICT_WORDS, quote, unknown
from hostwarden.policy.words import CONTENT_ACTIONS, Action, Verdict

NOBODY = 65534
MAX_CASES = 10_000
UNREADABLE = "unreadable"
TARGETS = "a target: a path, an address and a port, unix:/path or pid:N"
KEYS = (*ACTION_WORDS, "labels", "argv", "sha256", "user", "expect", "observed", "rule")


@dataclass(frozen=True)
class Case:
    """One case; ``observed`` and ``rule`` are None where nothing is expected of them."""

    file: str
    line: int
    column: int
    labels: dict[str, str]
    attempt: Attempt
    expect: Verdict
    observed: Verdict | None = None
    rule: str | None = None


@dataclass(frozen=True)
class Result:
    """A case and what was decided; ``mistakes`` is empty if it is as expected."""

    case: Case
    ruling: Ruling
    mistakes: tuple[str, ...]

    @property
    def passed(self) -> bool:
        """Whether everything was as expected."""
        return not self.mistakes

    def __str__(self) -> str:
        case = self.case
        head = f"{case.file}:{case.line}:{case.column}: {case.attempt.action} {describe(case.attempt)}"
        return f"{head}: {'; '.join(self.mistakes) or f'{self.ruling.enforced}, as expected'}"


def parse_cases(text: bytes, file: str, resolve_user: ResolveUser) -> tuple[Case, ...]:
    """The cases of a file. Raises PolicyErrors with all its mistakes."""
    reader = Reader(file)
    root = reader.compose(text, "`cases:` and a list")
    entries = reader.mapping(root, "`cases:` and a list") or {}
    for key, entry in entries.items():
        if key != "cases":
            reader.error(entry.key, unknown("key", key, ("cases",)))
    if isinstance(root, yaml.MappingNode) and "cases" not in entries:
        reader.error(root, "no `cases`, expected a list of them")
    nodes = reader.items(entries["cases"].value, "a list of cases") or [] if "cases" in entries else []
    if len(nodes) > MAX_CASES:
        reader.error(nodes[MAX_CASES], f"{len(nodes)} cases, expected at most {MAX_CASES} in a file")
        nodes = []
    cases = [_case(reader, node, resolve_user) for node in nodes]
    reader.raise_errors()
    return tuple(case for case in cases if case is not None)


def run_cases(policies: Sequence[Policy], cases: Sequence[Case]) -> list[Result]:
    """What ``policies`` decide in each case."""
    return [_run(policies, case) for case in cases]


def _run(policies: Sequence[Policy], case: Case) -> Result:
    ruling = decide(applicable(policies, case.labels), case.attempt)
    mistakes = []
    by = _name(ruling.enforced_reason)
    if ruling.enforced is not case.expect:
        mistakes.append(f"expected {case.expect}, decided {ruling.enforced} by {by}")
    elif case.rule not in (None, by):
        mistakes.append(f"expected {case.expect} by {case.rule}, decided by {by}")
    if case.observed not in (None, ruling.observed):
        observed = f"observed {ruling.observed} by {_name(ruling.observed_reason)}"
        mistakes.append(f"expected {case.observed} of observing policies, {observed}")
    return Result(case, ruling, tuple(mistakes))


def _name(reason: Reason) -> str:
    if reason.policy is None:
        return "none"
    return reason.location or "otherwise"


def _case(reader: Reader, node: yaml.Node, resolve_user: ResolveUser) -> Case | None:
    before = len(reader.errors)
    entries = reader.mapping(node, "a case: labels, an action and `expect`")
    if entries is None:
        return None
    for key, entry in entries.items():
        if key not in KEYS:
            reader.error(entry.key, unknown("key", key, KEYS, LATER_ACTIONS))
    attempt = _attempt(reader, node, entries)
    if attempt is not None and "user" in entries:
        attempt = replace(attempt, uid=_user(reader, entries["user"].value, resolve_user))
    labels = _labels(reader, entries["labels"].value) if "labels" in entries else {}
    expect = _verdict(reader, entries.get("expect"))
    observed = _verdict(reader, entries.get("observed"))
    rule = reader.scalar(entries["rule"].value, "`file:line`, `otherwise` or `none`") if "rule" in entries else None
    if "expect" not in entries:
        reader.error(node, f"no `expect`, expected one of {', '.join(VERDICT_WORDS)}")
    if len(reader.errors) > before or attempt is None or expect is None:
        return None
    return Case(reader.file, *place(node), labels, attempt, expect, observed, rule)


def _attempt(reader: Reader, node: yaml.Node, entries: dict[str, Entry]) -> Attempt | None:
    words = [word for word in ACTION_WORDS if word in entries]
    if len(words) != 1:
        there = f"the actions {' and '.join(words)}" if words else "no action"
        reader.error(node, f"{there}, expected one of {', '.join(ACTION_WORDS)}")
        return None
    action = Action[words[0].upper()]
    for key, judged in (("argv", (Action.EXEC,)), ("sha256", CONTENT_ACTIONS)):
        if key in entries and action not in judged:
            known = " or ".join(str(one) for one in judged)
            reader.error(entries[key].key, f"{key} says nothing about {action}, expected it with {known}")
            return None
    item = entries[words[0]].value
    text = reader.scalar(item, TARGETS)
    if text is None:
        return None
    try:
        attempt = parse_attempt(action, text, NOBODY)
    except ValueError as error:
        reader.error(item, str(error))
        return None
    if "argv" in entries:
        attempt = replace(attempt, argv=_argv(reader, entries["argv"].value))
    if "sha256" in entries:
        attempt = replace(attempt, sha256=_content(reader, entries["sha256"].value))
    return attempt


def _content(reader: Reader, node: yaml.Node) -> bytes | None:
    text = reader.scalar(node, "a SHA-256")
    try:
        return None if text is None else parse_content(text)
    except ValueError as error:
        reader.error(node, str(error))
        return None


def _argv(reader: Reader, node: yaml.Node) -> tuple[bytes, ...] | None:
    if isinstance(node, yaml.ScalarNode) and node.value == UNREADABLE:
        return None
    what = f"a list of arguments, or {UNREADABLE}"
    texts = [reader.scalar(item, "an argument") for item in reader.items(node, what) or []]
    return tuple(text.encode("utf-8", "surrogateescape") for text in texts if text is not None)


def _labels(reader: Reader, node: yaml.Node) -> dict[str, str]:
    labels = {}
    for key, entry in (reader.mapping(node, "labels like {team: billing}") or {}).items():
        value = reader.scalar(entry.value, f"the value of label {quote(key)}")
        if not is_key(key):
            reader.error(entry.key, f"label {quote(key)}, expected {KEY_SHAPE}")
        elif value is not None and not is_value(value):
            reader.error(entry.value, f"label value {quote(value)}, expected {VALUE_SHAPE}")
        elif value is not None:
            labels[key] = value
    return labels


def _user(reader: Reader, node: yaml.Node, resolve_user: ResolveUser) -> int:
    text = reader.scalar(node, "a user's name or uid")
    uid = None if text is None else parse_uid(text, resolve_user)
    if uid is None and text is not None:
        reader.error(node, f"no user {quote(text)} here, expected a user's name or uid")
    return NOBODY if uid is None else uid


def _verdict(reader: Reader, entry: Entry | None) -> Verdict | None:
    text = None if entry is None else reader.scalar(entry.value, f"one of {', '.join(VERDICT_WORDS)}")
    if entry is None or text is None:
        return None
    if text not in VERDICT_WORDS:
        reader.error(entry.value, unknown("verdict", text, VERDICT_WORDS, LATER_VERDICTS))
        return None
    return Verdict[text.upper()]
