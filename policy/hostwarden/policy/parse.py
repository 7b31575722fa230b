"""Policy files into policies: ``parse_policy`` for one file, ``load_policies`` for all that are to be in force at once.

Every mistake is reported, not the first only, each as ``file:line:column: what is wrong, what was expected``; a file
with a mistake gives no policy at all (design section 6). Nothing but PolicyErrors is ever raised, whatever the bytes.
"""

import hashlib
import re
from collections.abc import Sequence
from typing import TypeVar

import yaml

from hostwarden.policy.labels import ANY, KEY_SHAPE, VALUE_SHAPE, Selector, is_key, is_value
from hostwarden.policy.model import Paths, Policy, Rule
from hostwarden.policy.rules import ACTION_WORDS, Context, ResolveUser, parse_rule
from hostwarden.policy.source import Entry, PolicyError, PolicyErrors, Reader, place
from hostwarden.policy.vocabulary import (
    LATER_ACTIONS,
    LATER_TOP_KEYS,
    LATER_VERDICTS,
    TOP_KEYS,
    VERDICT_WORDS,
    quote,
    unknown,
)
from hostwarden.policy.words import Action, Mode, RecordMode, Verdict, Word

__all__ = ["PolicyError", "PolicyErrors", "load_policies", "parse_policy"]

MAX_RULES = 4096  # of one file
MAX_TERMS = 32  # of a selector
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_NAME_SHAPE = "1 to 64 of A-Z a-z 0-9 . _ - that begin with a letter or digit"

W = TypeVar("W", bound=Word)


def parse_policy(text: bytes, file: str, resolve_user: ResolveUser) -> Policy:
    """The policy in a file's bytes; ``file`` is how errors and records name it. Raises PolicyErrors.

    ``resolve_user`` gives the uid of a user name, or None (the host's user database is not this package's business).
    """
    reader = Reader(file)
    root = reader.compose(text, "a policy (`policy: NAME`, `for: {...}`, ...)")
    entries = reader.mapping(root, "a policy (`policy: NAME`, `for: {...}`, ...)") or {}
    for key, entry in entries.items():
        if key not in TOP_KEYS:
            reader.error(entry.key, unknown("key", key, TOP_KEYS, LATER_TOP_KEYS))
    for key, example in (("policy", "`policy: NAME`"), ("for", "`for: {team: billing}`, or `for: {}` for every agent")):
        if isinstance(root, yaml.MappingNode) and key not in entries:
            reader.error(root, f"no `{key}`, expected {example}")
    name = _name(reader, entries["policy"].value) if "policy" in entries else None
    selector = _selector(reader, entries["for"].value) if "for" in entries else Selector()
    mode = _word(reader, entries["mode"].value, "mode", Mode, MODE_WORDS) if "mode" in entries else Mode.ENFORCE
    rules = _rules(Context(reader, resolve_user), entries["rules"].value) if "rules" in entries else ()
    otherwise = _per_action(reader, entries.get("otherwise"), "verdict", Verdict, VERDICT_WORDS)
    record = _per_action(reader, entries.get("record"), "record mode", RecordMode, RECORD_WORDS)
    paths = _paths(reader, entries["paths"].value) if "paths" in entries else "host"
    reader.raise_errors()
    assert name is not None and mode is not None
    return Policy(
        name=name,
        digest=hashlib.sha256(text).hexdigest(),
        file=file,
        selector=selector,
        mode=mode,
        rules=rules,
        otherwise=otherwise,
        record=record,
        paths=paths,
        places={key: place(entry.value) for key, entry in entries.items()},
        notes=tuple((note.line, note.column, note.message) for note in reader.notes),
    )


def load_policies(files: Sequence[tuple[str, bytes]], resolve_user: ResolveUser) -> tuple[Policy, ...]:
    """The policies of (file, bytes) pairs, in that order. Raises one PolicyErrors with the mistakes of all of them.

    Two policies with the same name are a mistake: records could not tell which one decided.
    """
    policies: list[Policy] = []
    errors: list[PolicyError] = []
    first: dict[str, str] = {}
    for file, text in files:
        try:
            policy = parse_policy(text, file, resolve_user)
        except PolicyErrors as error:
            errors += error.errors
            continue
        if policy.name in first:
            message = f"policy {policy.name} is also in {first[policy.name]}, expected a name of its own"
            errors.append(PolicyError(file, *policy.places["policy"], message))
        first.setdefault(policy.name, file)
        policies.append(policy)
    if errors:
        raise PolicyErrors(errors)
    return tuple(policies)


MODE_WORDS = ("enforce", "observe")
RECORD_WORDS = ("all", "denied", "none")


def _name(reader: Reader, node: yaml.Node) -> str | None:
    text = reader.scalar(node, "a name")
    if text is not None and not _NAME.fullmatch(text):
        reader.error(node, f"name {quote(text)}, expected {_NAME_SHAPE}")
    return text


def _paths(reader: Reader, node: yaml.Node) -> Paths:
    """Whose `/` the globs of the policy begin at."""
    text = reader.scalar(node, "one of host, root")
    if text == "root":
        return "root"
    if text not in ("host", None):
        reader.error(node, unknown("paths", text, ("host", "root")))
    return "host"


def _selector(reader: Reader, node: yaml.Node) -> Selector:
    entries = reader.mapping(node, "a label selector like {team: billing}, or {} for every agent") or {}
    terms = []
    if len(entries) > MAX_TERMS:
        reader.error(node, f"{len(entries)} labels, expected at most {MAX_TERMS}")
    for key, entry in entries.items():
        value = reader.scalar(entry.value, f'the value of label {quote(key)}, or "*" for any')
        if not is_key(key):
            reader.error(entry.key, f"label {quote(key)}, expected {KEY_SHAPE}")
        elif value is not None and value != ANY and not is_value(value):
            reader.error(entry.value, f'label value {quote(value)}, expected {VALUE_SHAPE}, or "*" for any')
        elif value is not None:
            terms.append((key, value))
    return Selector(tuple(terms))


def _rules(context: Context, node: yaml.Node) -> tuple[Rule, ...]:
    nodes = context.reader.items(node, "a list of rules") or []
    if len(nodes) > MAX_RULES:
        context.reader.error(nodes[MAX_RULES], f"{len(nodes)} rules, expected at most {MAX_RULES} in a file")
        return ()
    rules = [parse_rule(context, rule) for rule in nodes]
    return tuple(rule for rule in rules if rule is not None)


def _per_action(
    reader: Reader, entry: Entry | None, what: str, kind: type[W], words: tuple[str, ...]
) -> dict[Action, W]:
    """``otherwise`` and ``record``: a mapping from actions to words."""
    found: dict[Action, W] = {}
    entries = {} if entry is None else reader.mapping(entry.value, f"a mapping {{action: {what}}}") or {}
    for text, item in entries.items():
        if text not in ACTION_WORDS:
            reader.error(item.key, unknown("action", text, ACTION_WORDS, LATER_ACTIONS))
        word = _word(reader, item.value, what, kind, words)
        if text in ACTION_WORDS and word is not None:
            found[Action[text.upper()]] = word
    return found


def _word(reader: Reader, node: yaml.Node, what: str, kind: type[W], words: tuple[str, ...]) -> W | None:
    text = reader.scalar(node, f"one of {', '.join(words)}")
    if text is None:
        return None
    if text not in words:
        reader.error(node, unknown(what, text, words, LATER_VERDICTS if kind is Verdict else ()))
        return None
    return kind[text.upper()]
