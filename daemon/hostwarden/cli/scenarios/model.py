"""A scenario as it stands in `tests/scenarios/*.yaml`: what is tried, what it would do to the world, who refuses it.

`tests/scenarios/README.md` has every word. Loading checks all files and raises ScenarioError with the place.
"""

import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from hostwarden.policy.words import Outcome, Verdict

# How verdicts are made real on a host, by what decides about files there; a row's promise is one of each.
KINDS = ("lsm", "modify_return", "signal")
ACT_KINDS = ("act", "run", "sh", "bash")
EFFECTS = ("gives", "left", "arrives", "victim", "typed")
_ROW = frozenset(
    {"name", "agent", "world", "later", "early", "user", "machine", "refused", "works", "observed", "verdict",
     "meanwhile", "scratch", *KINDS, *ACT_KINDS, *EFFECTS}
)  # fmt: skip
_FILE = frozenset({"section", "agent", "world", "rows"})
ALLOWED, OBSERVED = "allowed", "observed"
# The key of the limits for agents whose rules ask for content, where the kernel can't vouch for any.
NO_CONTENT = "no-content"
AGENTS_FILE, LIMITS_FILE = "agents.yaml", "limits.yaml"
# Found beside the sources, else where an installation puts them.
_PLACES = (Path(__file__).resolve().parents[4] / "tests" / "scenarios", Path(__file__).resolve().parent / "data")


class ScenarioError(Exception):
    """A file of scenarios that can't be used; the message has its name and the row's."""


@dataclass(frozen=True)
class Row:
    """One scenario.

    ``answer``: refused, works or observed, where nothing stands in the way. ``promises`` has, for each kind of host, an
    outcome's name, ``allowed``, or a key of the limits.
    """

    file: str
    section: str
    name: str
    agent: str
    kind: str
    words: str
    world: Mapping[str, Any]
    later: Mapping[str, Any]
    early: Sequence[Mapping[str, str]]
    effects: Mapping[str, Any]
    actions: tuple[str, ...]
    target: str | None
    verdict: str
    answer: str
    promises: Mapping[str, str]
    user: str | None = None
    machine: str | None = None
    meanwhile: str | None = None
    scratch: tuple[str, ...] = ()

    @property
    def is_here(self) -> bool:
        """Whether this machine has what the row is about (a 32-bit table of system calls)."""
        return self.machine in (None, platform.machine())


@dataclass(frozen=True)
class Scenarios:
    """All files. ``agents``: an agent's policies, as mappings without `policy` and `for`."""

    rows: tuple[Row, ...]
    agents: Mapping[str, Sequence[Mapping[str, Any]]]
    limits: Mapping[str, str] = field(default_factory=dict)


def folder() -> Path:
    """Where the scenarios are. Raises ScenarioError."""
    for place in _PLACES:
        if (place / LIMITS_FILE).exists():
            return place
    raise ScenarioError(f"no scenarios in {' or '.join(map(str, _PLACES))}")


def load(place: Path | None = None) -> Scenarios:
    """Every file in ``place``, in the order of their names. Raises ScenarioError."""
    place = place or folder()
    shared = _yaml(place / LIMITS_FILE)
    limits: dict[str, str] = {key: " ".join(text.split()) for key, text in shared["limits"].items()}
    agents = {name: _listed(policies) for name, policies in _yaml(place / AGENTS_FILE)["agents"].items()}
    rows: list[Row] = []
    for path in sorted(place.glob("*.yaml")):
        if path.name in (AGENTS_FILE, LIMITS_FILE):
            continue
        content = _yaml(path)
        _known(content, _FILE, path.name)
        rows += [_row(path.name, content, raw, agents, shared["promises"], limits) for raw in content["rows"]]
    _check(rows)
    return Scenarios(tuple(rows), agents, limits)


def _yaml(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_text())
    except (OSError, yaml.YAMLError) as error:
        raise ScenarioError(f"{path}: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise ScenarioError(f"{path}: expected a mapping")
    return content


def _known(mapping: Mapping[str, Any], keys: frozenset[str], where: str) -> None:
    strange = sorted(set(mapping) - keys)
    if strange:
        raise ScenarioError(f"{where}: unknown key {strange[0]}, expected one of {', '.join(sorted(keys))}")


def _row(
    file: str,
    content: Mapping[str, Any],
    raw: Mapping[str, Any],
    agents: Mapping[str, Sequence[Mapping[str, Any]]],
    promises: Mapping[str, Mapping[str, str]],
    limits: Mapping[str, str],
) -> Row:
    where = f"{file}: {raw.get('name', 'a row without a name')}"
    _known(raw, _ROW, where)
    kinds = [kind for kind in ACT_KINDS if kind in raw]
    effects = {key: raw[key] for key in EFFECTS if key in raw}
    answers = [key for key in ("refused", "works", "observed") if key in raw]
    if raw.get("meanwhile") not in (None, "reload", "release"):
        raise ScenarioError(f"{where}: meanwhile is reload or release")
    if len(kinds) != 1 or not effects or len(answers) != 1:
        raise ScenarioError(f"{where}: expected one of act, run, sh, bash; an effect; one of refused, works, observed")
    actions, target = _refusal(raw.get("refused", raw.get("observed")))
    agent = raw.get("agent") or content["agent"]
    if agent not in agents:
        raise ScenarioError(f"{where}: no agent {agent} in {AGENTS_FILE}")
    content_asked = asks_content(agents[agent])
    row = Row(
        file, content["section"], raw["name"], agent, kinds[0], raw[kinds[0]],
        {**content.get("world", {}), **raw.get("world", {})}, raw.get("later", {}), raw.get("early", []),
        effects, actions, target, raw.get("verdict", str(Verdict.DENY)), answers[0],
        {kind: _promise(raw, answers[0], actions, kind, promises, content_asked) for kind in KINDS},
        raw.get("user"), raw.get("machine"), raw.get("meanwhile"), tuple(raw.get("scratch", ())),
    )  # fmt: skip
    for promise in row.promises.values():
        if promise not in limits and promise not in (*map(str, Outcome), ALLOWED):
            raise ScenarioError(f"{where}: {promise} is neither an outcome nor in {LIMITS_FILE}")
    return row


def _refusal(value: object) -> tuple[tuple[str, ...], str | None]:
    """``read``, ``read $W/secret`` or a list of actions, of which any will do."""
    if isinstance(value, str):
        action, _, target = value.partition(" ")
        return (action,), target or None
    return (tuple(value), None) if isinstance(value, list) else ((), None)


def _promise(
    raw: Mapping[str, Any],
    answer: str,
    actions: Sequence[str],
    kind: str,
    promises: Mapping[str, Mapping[str, str]],
    asks_content: bool,
) -> str:
    if kind != "lsm" and asks_content:
        return NO_CONTENT
    if kind in raw:
        return str(raw[kind])
    if kind == "modify_return" and "lsm" in raw:
        return str(raw["lsm"])
    if answer != "refused":
        return ALLOWED if answer == "works" else OBSERVED
    table = promises[kind]
    if raw.get("verdict") == str(Verdict.KILL):
        return {"prevented": str(Outcome.KILLED_BEFORE_EFFECT)}.get(table[actions[0]], table[actions[0]])
    return table[actions[0]]


def asks_content(policies: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a rule has a `sha256` condition."""
    return any("sha256" in rule for policy in policies for rule in policy.get("rules", ()))


def _listed(policies: Any) -> list[Mapping[str, Any]]:
    return policies if isinstance(policies, list) else [policies]


def _check(rows: Sequence[Row]) -> None:
    seen: set[tuple[str, str]] = set()
    for row in rows:
        if (row.file, row.name) in seen:
            raise ScenarioError(f"{row.file}: {row.name}: twice")
        seen.add((row.file, row.name))
