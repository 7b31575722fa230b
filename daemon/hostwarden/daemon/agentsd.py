"""agents.d: which processes of the host are agents, and by which labels policies find them (design section 4).

.. code-block:: yaml

    agent: billing                      # one in a file; the name that records carry
    labels: {team: billing}
    match:                              # a process that runs in one of these units, or executes one of these files
      unit: [billing.service]           # systemd services, scopes and slices
      exe: [/opt/billing/bin/*]         # host paths, globs as in policies

Errors are those of policy files: ``file:line:column: what is wrong, what was expected``, all files' at once.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import yaml

from hostwarden.daemon.files import FileProblem, names_in, read_regular
from hostwarden.policy.globs import DEEP, GlobError, expand, parse_path
from hostwarden.policy.labels import KEY_SHAPE, MAX_LABELS, VALUE_SHAPE, is_key, is_value
from hostwarden.policy.model import PathPattern
from hostwarden.policy.source import MAX_BYTES, Entry, PolicyError, PolicyErrors, Reader, place
from hostwarden.policy.vocabulary import quote, unknown

MAX_AGENTS = 512  # half of the kernel's slots: the rest is for agents that `run` and `adopt` name
MAX_MATCHES = 64  # of one kind, in one file
MAX_GLOB = 1 << 14  # characters of one glob, braces written out
MAX_UNIT = 63  # bytes: the kernel's half compares names of 64 with the terminating zero (select.h)
NAME_SHAPE = "1 to 64 of A-Z a-z 0-9 . _ - that begin with a letter or digit"
KEYS = ("agent", "labels", "match")
SELECTORS = ("unit", "exe")
LATER_KEYS = ("run", "uids", "max")
LATER_SELECTORS = ("cgroup", "user", "sha256", "container")
EXAMPLE = "`agent: NAME`, `labels: {...}`, `match: {...}`"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_UNIT = re.compile(r"[A-Za-z0-9:_.\\@-]+\.(service|scope|slice)")
# What runs pid 1, hostwardend or everything: an agent that the host could not live with.
_TOO_WIDE = ("-.slice", "init.scope", "system.slice")

T = TypeVar("T")


@dataclass(frozen=True)
class AgentSpec:
    """One file: an agent, and what makes a process its own. ``units`` are names, ``exes`` globs of host paths."""

    name: str
    labels: dict[str, str]
    units: tuple[str, ...]
    exes: tuple[PathPattern, ...]
    file: str
    line: int

    @property
    def location(self) -> str:
        """``file:line``, as records name a rule."""
        return f"{Path(self.file).name}:{self.line}"


def is_agent_name(text: str) -> bool:
    """Whether ``text`` can be an agent's name (NAME_SHAPE): for files and for `run` alike."""
    return _NAME.fullmatch(text) is not None


def read_agents(folder: Path) -> tuple[AgentSpec, ...]:
    """The agents of the *.yaml files in ``folder``, by their names; none if there is no folder. Raises PolicyErrors."""
    try:
        names = names_in(folder, ".yaml")
        misnamed = names_in(folder, ".yml")
    except FileProblem as problem:
        raise PolicyErrors([PolicyError(str(folder), 1, 1, str(problem))]) from problem
    errors, files = [], []
    for name in misnamed:  # left out in silence, its agent would run unbound
        errors.append(PolicyError(str(folder / name), 1, 1, "a name that ends in .yml, expected .yaml"))
    for name in names:
        try:
            files.append((str(folder / name), read_regular(folder / name, MAX_BYTES)))
        except FileProblem as problem:
            errors.append(PolicyError(str(folder / name), 1, 1, str(problem)))
    try:
        specs = load_agents(files)
    except PolicyErrors as error:
        raise PolicyErrors(sorted(errors + error.errors, key=lambda each: each.file)) from None
    if errors:
        raise PolicyErrors(errors)
    return specs


def load_agents(files: Sequence[tuple[str, bytes]]) -> tuple[AgentSpec, ...]:
    """The agents of (file, bytes) pairs, in that order. Raises one PolicyErrors with the mistakes of all of them.

    A name, a unit or a glob that two files have is a mistake: a process is in one agent.
    """
    specs: list[AgentSpec] = []
    errors: list[PolicyError] = []
    taken: dict[tuple[str, str], str] = {}
    for file, data in files[:MAX_AGENTS]:
        reader = Reader(file)
        try:
            specs.append(_parse(reader, data, taken))
        except PolicyErrors as error:
            errors += error.errors
    if len(files) > MAX_AGENTS:
        errors.append(PolicyError(files[MAX_AGENTS][0], 1, 1, f"{len(files)} agents, expected at most {MAX_AGENTS}"))
    if errors:
        raise PolicyErrors(errors)
    return tuple(specs)


def parse_agent(data: bytes, file: str) -> AgentSpec:
    """The agent in one file's bytes; ``file`` is how errors name it. Raises PolicyErrors."""
    return _parse(Reader(file), data, {})


def _parse(reader: Reader, data: bytes, taken: dict[tuple[str, str], str]) -> AgentSpec:
    """``taken`` has what other files named, (kind, text) → file:line, and is added to."""
    root = reader.compose(data, f"an agent ({EXAMPLE})")
    entries = reader.mapping(root, f"an agent ({EXAMPLE})") or {}
    _report_unknown(reader, "key", entries, KEYS, LATER_KEYS)
    for key, example in (("agent", "`agent: NAME`"), ("match", "`match: {unit: [...], exe: [...]}`")):
        if isinstance(root, yaml.MappingNode) and key not in entries:
            reader.error(root, f"no `{key}`, expected {example}")
    here: dict[tuple[str, str], str] = {}
    claim = _Claims(reader, taken, here)
    name = _name(claim, entries["agent"].value) if "agent" in entries else ""
    labels = _labels(reader, entries["labels"].value) if "labels" in entries else {}
    units, exes = _match(claim, entries["match"].value) if "match" in entries else ((), ())
    taken.update(here)  # of broken files too: their duplicates are reported at once with the rest
    reader.raise_errors()
    return AgentSpec(name, labels, units, exes, reader.file, place(entries["agent"].value)[0])


@dataclass
class _Claims:
    """Who named what first."""

    reader: Reader
    taken: dict[tuple[str, str], str]
    here: dict[tuple[str, str], str]

    def add(self, kind: str, text: str, node: yaml.Node) -> bool:
        """Claim ``text``; False, and an error, if another file or this one already has it."""
        first = self.taken.get((kind, text)) or self.here.get((kind, text))
        if first:
            self.reader.error(node, f"{kind} {quote(text)} is also at {first}, expected it once on a host")
            return False
        self.here[kind, text] = f"{self.reader.file}:{place(node)[0]}"
        return True


def _report_unknown(
    reader: Reader, kind: str, entries: dict[str, Entry], known: tuple[str, ...], later: tuple[str, ...]
) -> None:
    for key, entry in entries.items():
        if key not in known:
            reader.error(entry.key, unknown(kind, key, known, later))


def _name(claim: _Claims, node: yaml.Node) -> str:
    text = claim.reader.scalar(node, "a name")
    if text is not None and not is_agent_name(text):
        claim.reader.error(node, f"name {quote(text)}, expected {NAME_SHAPE}")
    elif text is not None:
        claim.add("agent", text, node)
    return text or ""


def _labels(reader: Reader, node: yaml.Node) -> dict[str, str]:
    labels: dict[str, str] = {}
    entries = reader.mapping(node, "labels like {team: billing}") or {}
    if len(entries) > MAX_LABELS:
        reader.error(node, f"{len(entries)} labels, expected at most {MAX_LABELS}")
    for key, entry in entries.items():
        value = reader.scalar(entry.value, f"the value of label {quote(key)}")
        if not is_key(key):
            reader.error(entry.key, f"label {quote(key)}, expected {KEY_SHAPE}")
        elif value is not None and not is_value(value):
            reader.error(entry.value, f"label value {quote(value)}, expected {VALUE_SHAPE}")
        elif value is not None:
            labels[key] = value
    return labels


def _match(claim: _Claims, node: yaml.Node) -> tuple[tuple[str, ...], tuple[PathPattern, ...]]:
    reader = claim.reader
    before = len(reader.errors)
    entries = reader.mapping(node, "`unit: [...]`, `exe: [...]` or both") or {}
    _report_unknown(reader, "selector", entries, SELECTORS, LATER_SELECTORS)
    if not entries and len(reader.errors) == before:
        reader.error(node, "matches nothing, expected `unit: [...]`, `exe: [...]` or both")
    units = _each(claim, entries.get("unit"), "unit", "a unit like billing.service", _unit)
    exes = _each(claim, entries.get("exe"), "exe", "a path glob like /opt/billing/bin/*", _exe)
    return units, exes


def _each(
    claim: _Claims, entry: Entry | None, kind: str, what: str, parse: Callable[[Reader, yaml.Node, str], T | None]
) -> tuple[T, ...]:
    """The values of one selector that are right, and that nobody else has."""
    found: list[T] = []
    items = [] if entry is None else claim.reader.one_or_more(entry.value, f"{what}, or a list of them")
    if len(items) > MAX_MATCHES:
        claim.reader.error(items[MAX_MATCHES][0], f"{len(items)} of {kind}, expected at most {MAX_MATCHES}")
    for node, text in items[:MAX_MATCHES]:
        value = parse(claim.reader, node, text)
        if value is not None and claim.add(kind, text, node):
            found.append(value)
    return tuple(found)


def _unit(reader: Reader, node: yaml.Node, text: str) -> str | None:
    message = ""
    if not _UNIT.fullmatch(text):
        message = "expected the name of a systemd service, scope or slice, like billing.service"
    elif text in _TOO_WIDE:
        message = "expected a narrower unit: this one holds what the host itself needs, hostwardend too"
    elif "@." in text:
        message = f"expected an instance of the template, like {text.replace('@.', '@1.')}"
    elif len(text) > MAX_UNIT:
        message = f"expected a name of at most {MAX_UNIT} bytes"
    if message:
        reader.error(node, f"unit {quote(text)}, {message}")
    return None if message else text


def _exe(reader: Reader, node: yaml.Node, text: str) -> PathPattern | None:
    try:
        if sum(len(glob) for glob in expand(text)) > MAX_GLOB:
            raise GlobError(0, f"braces stand for too much, expected at most {MAX_GLOB} characters written out")
        globs = tuple(parse_path(text))
    except GlobError as error:
        reader.error(node, f"exe {quote(text)}: {error}", error.offset)
        return None
    if any(set(glob.components) == {DEEP} for glob in globs):
        reader.error(node, f"exe {quote(text)} is every program of the host, hostwardend too, expected a narrower glob")
        return None
    return PathPattern(text, *place(node), globs)
