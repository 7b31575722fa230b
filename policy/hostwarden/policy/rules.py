"""One rule of a policy file: its verdict and actions, its conditions, its exceptions."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any, TypeVar

import yaml

from hostwarden.policy.address import UNIX, parse_net
from hostwarden.policy.attempts import parse_content
from hostwarden.policy.globs import GlobError, expand, parse_argv, parse_path, parse_unix
from hostwarden.policy.model import ArgvPattern, NetPattern, PathPattern, Rule, ToPattern, UnixPattern
from hostwarden.policy.source import Entry, Reader, place
from hostwarden.policy.vocabulary import (
    LATER_ACTIONS,
    LATER_RULE_KEYS,
    LATER_VERDICTS,
    RULE_KEYS,
    VERDICT_WORDS,
    quote,
    unknown,
)
from hostwarden.policy.words import (
    CONTENT_ACTIONS,
    FILE_ACTIONS,
    NET_ACTIONS,
    PLAIN_ACTIONS,
    POLICY_ACTIONS,
    Action,
    Verdict,
)

G = TypeVar("G")
ResolveUser = Callable[[str], int | None]
ACTION_WORDS = tuple(str(action) for action in POLICY_ACTIONS)
MAX_GLOBS = 16384  # of one file, braces expanded
MAX_GLOB_CHARACTERS = 1 << 21  # the same globs written out: what the model costs in memory
MAX_WHY = 500
MAX_UID = 0xFFFFFFFE  # (uid_t)-1 means "no user"

# Which actions a condition can judge. A rule may name several actions if its condition judges all of them.
JUDGES = {"path": FILE_ACTIONS, "argv": (Action.EXEC,), "to": NET_ACTIONS, "sha256": CONTENT_ACTIONS}
KINDS = ("path", "argv", "to")  # of conditions that can have exceptions


@dataclass
class Context:
    """What the rules of one file share."""

    reader: Reader
    resolve_user: ResolveUser
    globs: int = 0
    characters: int = 0
    users: dict[str, int | None] = field(default_factory=dict)  # asked once per file, however many rules name one


def parse_rule(context: Context, node: yaml.Node) -> Rule | None:
    """One entry of ``rules``; None if it has errors, which the reader then holds."""
    reader = context.reader
    before = len(reader.errors)
    entries = reader.mapping(node, "a rule: `allow: exec` and its conditions")
    if entries is None:
        return None
    for key, entry in entries.items():
        if key not in RULE_KEYS:
            kind = "verdict" if key in LATER_VERDICTS else "key"
            reader.error(entry.key, unknown(kind, key, RULE_KEYS, LATER_RULE_KEYS))
    head = _head(reader, node, entries)
    if head is None:
        return None
    verdict, actions = head
    conditions = _conditions(context, entries, actions)
    if len(reader.errors) > before:
        return None
    line, column = place(node)
    location = f"{PurePath(reader.file).name}:{line}"
    return Rule(location=location, line=line, column=column, verdict=verdict, actions=actions, **conditions)


def parse_actions(reader: Reader, node: yaml.Node) -> tuple[Action, ...]:
    """An action or a list of them, each once."""
    actions: list[Action] = []
    for item, text in reader.one_or_more(node, f"an action or a list of actions ({', '.join(ACTION_WORDS)})"):
        if text not in ACTION_WORDS:
            reader.error(item, unknown("action", text, ACTION_WORDS, LATER_ACTIONS))
        elif Action[text.upper()] in actions:
            reader.error(item, f"action {text} comes twice, expected it once")
        else:
            actions.append(Action[text.upper()])
    return tuple(actions)


def _head(reader: Reader, node: yaml.Node, entries: dict[str, Entry]) -> tuple[Verdict, tuple[Action, ...]] | None:
    verdicts = [word for word in VERDICT_WORDS if word in entries]
    if len(verdicts) > 1:
        reader.error(entries[verdicts[1]].key, f"both {verdicts[0]} and {verdicts[1]}, expected one verdict in a rule")
        return None
    if not verdicts:
        if not any(word in entries for word in LATER_VERDICTS):
            reader.error(node, f"a rule without a verdict, expected one of {', '.join(VERDICT_WORDS)}")
        return None
    actions = parse_actions(reader, entries[verdicts[0]].value)
    return (Verdict[verdicts[0].upper()], actions) if actions else None


def _conditions(context: Context, entries: dict[str, Entry], actions: tuple[Action, ...]) -> dict[str, Any]:
    """The keyword arguments of Rule that follow from a rule's conditions."""
    found: dict[str, Any] = {}
    for kind in JUDGES:
        if kind in entries and _judges(context.reader, kind, entries[kind], actions):
            found[kind] = _PARSERS[kind](context, entries[kind].value)
    if "user" in entries:
        found["users"] = _users(context, entries["user"].value)
    if "except" in entries:
        found.update(_excepts(context, entries, actions))
    if "why" in entries:
        found["why"] = _why(context.reader, entries["why"].value)
    return found


def _judges(reader: Reader, kind: str, entry: Entry, actions: tuple[Action, ...]) -> bool:
    strangers = [str(action) for action in actions if action not in JUDGES[kind]]
    if not strangers:
        return True
    known = ", ".join(str(action) for action in JUDGES[kind])
    fitting = " or ".join(other for other, judged in JUDGES.items() if set(actions) <= set(judged))
    if set(actions) <= set(PLAIN_ACTIONS):
        hint = "no condition but user: it has no target that a rule could name"
    else:
        hint = f"{fitting} for these actions" if fitting else f"{kind} with {known} only (split the rule)"
    reader.error(entry.key, f"{kind} says nothing about {', '.join(strangers)}, expected {hint}")
    return False


def _excepts(context: Context, entries: dict[str, Entry], actions: tuple[Action, ...]) -> dict[str, Any]:
    """``except`` is of the kind of the rule's condition; with path and argv it is a mapping that names the kinds."""
    reader, node = context.reader, entries["except"].value
    if "path" in entries and "argv" in entries:
        found: dict[str, Any] = {}
        parts = reader.mapping(node, "a mapping {path: [...], argv: [...]} in a rule with path and argv") or {}
        for kind, entry in parts.items():
            if kind in ("path", "argv"):
                found[f"except_{kind}"] = _PARSERS[kind](context, entry.value)
            else:
                reader.error(entry.key, unknown("key", kind, ("path", "argv")))
        return found
    if set(actions) & set(PLAIN_ACTIONS):
        plain = ", ".join(str(action) for action in actions if action in PLAIN_ACTIONS)
        reader.error(entries["except"].key, f"except says nothing about {plain}, expected no condition but user")
        return {}
    kinds = [kind for kind in KINDS if kind in entries]
    kinds = kinds or [kind for kind in ("path", "to") if set(actions) <= set(JUDGES[kind])]
    if not kinds:
        reader.error(node, "exceptions for files and addresses at once, expected one rule for each (split the rule)")
        return {}
    if isinstance(node, yaml.MappingNode):
        reader.error(node, f"a mapping, expected a list of what `{kinds[0]}` takes")
        return {}
    return {f"except_{kinds[0]}": _PARSERS[kinds[0]](context, node)}


def _paths(context: Context, node: yaml.Node) -> tuple[PathPattern, ...]:
    found = []
    for item, text in context.reader.one_or_more(node, "a path glob or a list of them"):
        globs = _globs(context, item, text, parse_path)
        found.append(PathPattern(text, *place(item), tuple(globs)))
    return tuple(found)


def _argvs(context: Context, node: yaml.Node) -> tuple[ArgvPattern, ...]:
    found = []
    for item, text in context.reader.one_or_more(node, "an argv glob or a list of them"):
        globs = _globs(context, item, text, parse_argv)
        found.append(ArgvPattern(text, *place(item), tuple(globs)))
    return tuple(found)


def _globs(
    context: Context, node: yaml.Node, text: str, parse: Callable[[str], list[G]], start: int = 0
) -> tuple[G, ...]:
    """The globs in ``text`` from ``start`` on, within what a file may cost; braces multiply, so it is counted first."""
    if context.characters > MAX_GLOB_CHARACTERS or context.globs > MAX_GLOBS:
        return ()
    try:
        expanded = expand(text[start:])
        context.globs += len(expanded)
        context.characters += sum(len(glob) for glob in expanded)
        if context.characters > MAX_GLOB_CHARACTERS or context.globs > MAX_GLOBS:
            limit = f"expected at most {MAX_GLOBS} globs and {MAX_GLOB_CHARACTERS} characters in a file"
            context.reader.error(node, f"too many globs, braces written out; {limit}")
            return ()
        return tuple(parse(text[start:]))
    except GlobError as error:
        context.reader.error(node, f"glob {quote(text)}: {error}", start + error.offset)
        return ()


def _targets(context: Context, node: yaml.Node) -> tuple[ToPattern, ...]:
    found: list[ToPattern] = []
    for item, text in context.reader.one_or_more(node, "an address or a list of them"):
        if text.startswith(UNIX):
            found.append(UnixPattern(text, *place(item), _globs(context, item, text, parse_unix, len(UNIX))))
            continue
        try:
            found.append(NetPattern(text, *place(item), parse_net(text)))
        except ValueError as error:
            context.reader.error(item, str(error))
    return tuple(found)


def _contents(context: Context, node: yaml.Node) -> tuple[bytes, ...]:
    found: dict[bytes, None] = {}
    for item, text in context.reader.one_or_more(node, "a SHA-256 in 64 hex digits or a list of them"):
        try:
            content = parse_content(text)
        except ValueError as error:
            context.reader.error(item, str(error))
            continue
        if content in found:
            context.reader.error(item, f"sha256 {quote(text)} comes twice, expected it once")
        found[content] = None
    return tuple(found)


_PARSERS: dict[str, Callable[[Context, yaml.Node], tuple[Any, ...]]] = {
    "path": _paths,
    "argv": _argvs,
    "to": _targets,
    "sha256": _contents,
}


def _users(context: Context, node: yaml.Node) -> tuple[int, ...]:
    uids: set[int] = set()
    for item, text in context.reader.one_or_more(node, "a user name or uid, or a list of them"):
        uid = _uid(context, text)
        if uid is None:
            context.reader.error(item, f"no user {quote(text)} here, expected a user's name or uid")
        elif uid in uids:
            context.reader.error(item, f"user {quote(text)} comes twice, expected it once")
        else:
            uids.add(uid)
    return tuple(sorted(uids))


def parse_uid(text: str, resolve_user: ResolveUser) -> int | None:
    """The uid that a number or a user's name stands for; None if there is none."""
    if re.fullmatch(r"[0-9]{1,10}", text):
        return int(text) if int(text) <= MAX_UID else None
    return resolve_user(text) if text and "\0" not in text else None


def _uid(context: Context, text: str) -> int | None:
    if text not in context.users:
        context.users[text] = parse_uid(text, context.resolve_user)
    return context.users[text]


def _why(reader: Reader, node: yaml.Node) -> str | None:
    text = reader.scalar(node, "a sentence for those who are refused")
    if text is not None and (len(text) > MAX_WHY or not text.strip()):
        reader.error(node, f"why has {len(text.strip())} characters, expected 1 to {MAX_WHY}")
    reader.note_comment(node)
    return None if text is None else " ".join(text.split())
