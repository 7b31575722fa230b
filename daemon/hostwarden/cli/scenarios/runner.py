"""All scenarios against a running daemon, through its sockets and commands only: `hostwarden policy test --host`.

In order: every row's world is laid out twice, agents start, descriptors are opened that a policy will come too late
for, the policies come into force, each row is tried by who is no agent (it must succeed, or the row proves nothing) and
by its agent, the log is read once, and rows are judged. Whatever happens, policies, agents, mounts and folders go away.
"""

import contextlib
import json
import os
import re
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from hostwarden.cli.scenarios import policies
from hostwarden.cli.scenarios.judge import Finding, Record, Seen, judge
from hostwarden.cli.scenarios.model import KINDS, NO_CONTENT, Row, ScenarioError, Scenarios
from hostwarden.cli.scenarios.residents import Resident
from hostwarden.cli.scenarios.servers import Servers
from hostwarden.cli.scenarios.world import Snapshot, World
from hostwarden.wire.client import HostClient

ROW_S = 60.0  # longest that one attempt may take: on an emulated guest, with thousands of turns
LOG_S = 60.0
_PROGRESS = 50
_LOG_PAUSE_S = 0.1
_WORLDS = "/var/tmp"  # noqa: S108 - a file system of the host's own; the folder is made by mkdtemp

_WORDS = re.compile(r"\$([ACFHOPW])\b")

Told = Callable[[str], None]


@dataclass
class Place:
    """A row's two worlds, and what they looked like when it was its turn."""

    row: Row
    number: int
    control: World
    agent: World
    seen: dict[str, Seen] = field(default_factory=dict)


class Run:
    """One run. ``hostwarden``: the command that starts agents, with its --run-dir."""

    def __init__(self, scenarios: Scenarios, client: HostClient, hostwarden: Sequence[str], tell: Told) -> None:
        self._scenarios, self._client, self._hostwarden, self._tell = scenarios, client, hostwarden, tell
        self._token = f"{os.getpid()}"
        self._stack = contextlib.ExitStack()
        status = client.status()
        self.kind = dict(status.tiers).get("read", "none")
        self._since = status.sequence
        told = json.loads(status.json)
        self._policy_dir, self._daemon = Path(told["policy_dir"]), str(told["pid"])
        if not status.ready or self.kind not in KINDS:
            raise ScenarioError(f"nothing is enforced here: reads are decided by the tier {self.kind}")

    def findings(self) -> list[Finding]:
        """Every row's, in order. Raises ScenarioError where the run itself can't be made."""
        rows = [row for row in self._scenarios.rows if row.is_here and row.promises[self.kind] != NO_CONTENT]
        with self._stack:
            self._prepare()
            refused = self._content_refused()
            places = [self._place(number, row) for number, row in enumerate(rows)]
            names = list(dict.fromkeys(row.agent for row in rows))
            outsider = self._resident([], "nobody's", [place.control for place in places])
            agents = {
                name: self._resident(
                    self._run_command(name), name, [place.agent for place in places if place.row.agent == name]
                )
                for name in names
            }
            for place in places:
                self._hold(place, outsider, agents[place.row.agent])
            self._stack.enter_context(policies.in_force(self._client, self._policy_dir, self._texts(names)))
            for place in places:
                self._try(place, outsider, "control")
                self._try(place, agents[place.row.agent], "agent")
                if (place.number + 1) % _PROGRESS == 0:
                    self._tell(f"{place.number + 1} of {len(places)} tried")
            records = self._records(agents)
            for agent in agents.values():
                agent.end()
        found = {place.number: self._judged(place, records[place.row.agent]) for place in places}
        by_row = {id(place.row): found[place.number] for place in places}
        return [by_row.get(id(row)) or self._untried(row, refused) for row in self._scenarios.rows]

    # before

    def _prepare(self) -> None:
        self._root = Path(tempfile.mkdtemp(prefix="hostwarden-scenarios-", dir=_WORLDS))
        self._stack.callback(shutil.rmtree, self._root, ignore_errors=True)
        self._root.chmod(0o755)
        self._marks = self._root / "marks"
        self._marks.mkdir()
        for name in ("plain", "audited"):
            (self._marks / name).touch()
        self._servers = Servers(self._token)
        self._stack.callback(self._servers.close)

    def _place(self, number: int, row: Row) -> Place:
        (self._marks / str(number)).touch()
        worlds: list[World] = []
        for letter in "ca":
            folder = self._root / f"{number:03d}{letter}"
            world = World(folder, self._servers, lambda text, folder=folder: self._word(text, str(folder)))  # type: ignore[misc]
            self._stack.callback(world.close)
            try:
                world.lay_out(row.world)
            except OSError as error:
                raise ScenarioError(f"{row.file}: {row.name}: its world can't be made: {error}") from None
            worlds.append(world)
        return Place(row, number, worlds[0], worlds[1])

    def _word(self, text: str, folder: str) -> str:
        """``$W`` the row's folder, ``$A`` the abstract socket, ``$P`` the daemon's pid, ``$C`` and so on ports."""
        words = {letter: str(port.number) for letter, port in self._servers.ports.items()}
        words |= {"W": folder, "A": self._servers.abstract, "F": str(self._servers.free), "P": self._daemon}
        return _WORDS.sub(lambda match: words[match[1]], text)

    def _rule_word(self, text: str) -> str:
        return self._word(text, f"{self._root}/*")

    def _run_command(self, name: str) -> list[str]:
        label = f"{policies.LABEL}={self._label(name)}"
        return [*self._hostwarden, "run", "--agent", self._agent_name(name), "--label", label, "--"]

    def _label(self, name: str) -> str:
        return f"{name}-{self._token}"

    def _agent_name(self, name: str) -> str:
        return f"scenario-{name}-{self._token}"

    def _resident(self, command: list[str], name: str, worlds: Sequence[World]) -> Resident:
        inherited = [fd for world in worlds for fd in world.inherited]
        resident = Resident(command, name, self._root / f"{name}.log", inherited)
        self._stack.callback(resident.close)
        resident.order()  # one after the other: a host takes few who ask to become agents at once
        return resident

    def _hold(self, place: Place, outsider: Resident, agent: Resident) -> None:
        for early in place.row.early:
            for resident, world in ((outsider, place.control), (agent, place.agent)):
                filled = {key: self._word(text, str(world.folder)) for key, text in early.items()}
                resident.hold({**filled, "hold": f"{world.folder}:{early['hold']}"})

    def _content_refused(self) -> frozenset[str]:
        """The agents whose policies ask for content and are refused, where content can't be had."""
        asking = {row.agent for row in self._scenarios.rows if row.promises[self.kind] == NO_CONTENT}
        texts = {name: self._texts([name]) for name in asking}
        return frozenset(name for name in asking if policies.are_refused(self._client, self._policy_dir, texts[name]))

    def _texts(self, names: Iterable[str]) -> dict[str, str]:
        chosen = {name: self._scenarios.agents[name] for name in names}
        return policies.texts(chosen, self._token, self._rule_word, self._marks)

    def _untried(self, row: Row, refused: frozenset[str]) -> Finding:
        finding = Finding(row, row.promises[self.kind])
        if row.is_here:
            finding.found = "policy refused"
            finding.demand(row.agent in refused, "its policy asks for content, and isn't refused here")
        return finding

    # a row

    def _try(self, place: Place, resident: Resident, who: str) -> None:
        row, world = place.row, place.control if who == "control" else place.agent
        world.lay_out(row.later)
        before = self._snapshot(row, world)
        folder = str(world.folder)
        words = self._word(row.words, folder)
        with self._meanwhile(row, who):
            attempt = resident.attempt(
                [str(self._marks / str(place.number))] if who == "agent" else [],
                row.kind, words, folder, user=row.user, timeout_s=ROW_S,
            )  # fmt: skip
        place.seen[who] = Seen(attempt, world.has(row.effects, attempt.out), before != self._snapshot(row, world))
        if who == "agent":
            place.agent.close()  # made last
            place.control.close()

    def _snapshot(self, row: Row, world: World) -> Snapshot:
        return world.snapshot(row.scratch) if "left" in row.effects else {}

    @contextlib.contextmanager
    def _meanwhile(self, row: Row, who: str) -> Iterator[None]:
        """What the operator does while the agent tries: ``reload`` all the time; ``release`` it, once it is frozen."""
        over = threading.Event()
        works = {"reload": self._reload, "release": self._release}
        thread = threading.Thread(target=lambda: works[row.meanwhile or ""](over, row.agent))
        if row.meanwhile is not None and who == "agent":
            thread.start()
        try:
            yield
        finally:
            over.set()
            if thread.ident is not None:
                thread.join()

    def _reload(self, over: threading.Event, _: str) -> None:
        while not over.is_set():
            self._client.reload()

    def _release(self, _: threading.Event, agent: str) -> None:
        """It may be frozen only after the attempt has come to its end."""
        ends = time.monotonic() + ROW_S
        while time.monotonic() < ends:
            time.sleep(_LOG_PAUSE_S)
            states = {each["agent"]: each["state"] for each in (json.loads(reply.json) for reply in self._client.ps())}
            if states.get(self._agent_name(agent)) == "frozen":
                self._client.release({policies.LABEL: self._label(agent)})
                return

    # afterwards

    def _records(self, agents: Mapping[str, Resident]) -> dict[str, list[Record]]:
        """Each agent's records by the kernel's time, once the marks at the end are in the log."""
        ends = {str(self._marks / "plain"), str(self._marks / "audited")}
        for agent in agents.values():
            agent.order(marks=sorted(ends))
        found: dict[str, list[Record]] = {self._agent_name(name): [] for name in agents}
        missing = {(name, end) for name in found for end in ends}
        deadline = time.monotonic() + LOG_S
        since = self._since
        while missing:
            for line in self._client.events(since):
                since = line.sequence
                record: Record = json.loads(line.line)
                if record["agent"] in found:
                    found[record["agent"]].append(record)
                    missing.discard((record["agent"], str(record["target"])))
            if time.monotonic() > deadline:
                raise ScenarioError(f"the records of {min(missing)[0]} didn't come within {LOG_S:.0f} s")
            time.sleep(_LOG_PAUSE_S if missing else 0)
        return {name: sorted(found[self._agent_name(name)], key=_time_of) for name in agents}

    def _judged(self, place: Place, records: Sequence[Record]) -> Finding:
        agent = place.seen["agent"]
        own = between_marks(records, str(self._marks), str(place.number))
        row = place.row
        if row.target is not None:
            folder = str(place.agent.folder)
            row = replace(row, target=self._word(row.target, folder))
        seen = Seen(agent.attempt, agent.effect, agent.changed, own)
        finding = judge(row, self.kind, self._scenarios.limits, place.seen["control"], seen)
        self._tell(f"{'ok  ' if finding.passed else 'FAIL'} {row.section}: {row.name}: {finding.found}")
        return finding


def _time_of(record: Record) -> str:
    return str(record["time"])


def between_marks(records: Sequence[Record], marks: str, number: str) -> list[Record]:
    """The records from a row's mark to the next mark, neither with them."""
    found: list[Record] = []
    is_ours = False
    for record in records:
        folder, _, name = str(record["target"]).rpartition("/")
        if folder == marks:
            is_ours = name == number
        elif is_ours:
            found.append(record)
    return found


def only(scenarios: Scenarios, text: str) -> Scenarios:
    """Those rows whose file, section or name contains ``text``."""
    rows = tuple(row for row in scenarios.rows if text.lower() in f"{row.file} {row.section}: {row.name}".lower())
    if not rows:
        raise ScenarioError(f"no scenario is called {text!r}")
    return Scenarios(rows, scenarios.agents, scenarios.limits)


def unsaid(scenarios: Scenarios, kind: str, said: Sequence[str]) -> list[str]:
    """Limits that rows rest on and that `doctor` (``said``) doesn't say."""
    used = {row.promises[kind] for row in scenarios.rows} & set(scenarios.limits)
    return sorted(key for key in used if not any(scenarios.limits[key] in line for line in said))


def as_dict(finding: Finding) -> dict[str, Any]:
    """For `--json`."""
    row = finding.row
    return {
        "section": row.section,
        "name": row.name,
        "passed": finding.passed,
        "promised": finding.promised,
        "found": finding.found,
        "problems": finding.problems,
    }


def command_line(run_dir: Path) -> list[str]:
    """How agents are started: the command that runs us."""
    own = Path(sys.executable).with_name("hostwarden")
    return [str(own if own.exists() else Path(sys.argv[0]).resolve()), "--run-dir", str(run_dir)]


def run(
    scenarios: Scenarios, client: HostClient, run_dir: Path, tell: Told
) -> tuple[str, list[Finding], Mapping[str, Any]]:
    """The kind of host, every row's finding, and what `doctor` says. Raises ScenarioError."""
    one = Run(scenarios, client, command_line(run_dir), tell)
    findings = one.findings()
    return one.kind, findings, json.loads(client.doctor().json)
