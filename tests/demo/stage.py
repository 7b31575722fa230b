"""What a scene works with: it lets the agent attempt something, shows what the log says of it, and states facts."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from tests.demo.model import ScriptedModel, ToolCall, ToolResult
from tests.demo.screen import Screen
from tests.demo.world import Listener, World

Record = dict[str, Any]
# Outcomes in which the attempt had no effect (design section 5).
WITHOUT_EFFECT = ("prevented", "killed_before_effect")


@dataclass(frozen=True)
class Expected:
    """A record that an attempt must leave: action, how its command line begins or a part of its target, verdict."""

    action: str
    about: str
    verdict: str

    def matches(self, record: Record) -> bool:
        """Whether ``record`` is of this attempt, whatever its verdict."""
        subject = describe(record)
        # The shell that starts a program has that program's command line among its own arguments.
        is_about = subject.startswith(self.about) if self.action == "exec" else self.about in subject
        return record["action"] == self.action and is_about

    def fulfilled(self, record: Record) -> bool:
        """Whether verdict and outcome are as they must be."""
        wanted = ("observed",) if self.verdict == "allow" else WITHOUT_EFFECT
        return record["verdict"] == self.verdict and record["outcome"] in wanted


class Records(Protocol):
    """Where the records come from (``warden.Follower``)."""

    @property
    def last(self) -> int:
        """The highest sequence seen."""

    def find(self, after: int, matches: Callable[[Record], bool]) -> Record | None:
        """The first record above ``after`` that matches, waiting a moment for it; None if there is none."""


@dataclass
class Stage:
    """One demo's run. ``records`` is None where nothing guards the agent (tests show the harm then)."""

    screen: Screen
    model: ScriptedModel
    world: World
    payments: Listener
    stranger: Listener
    records: Records | None = None
    failures: list[str] = field(default_factory=list)

    def attempt(self, shown: str, call: ToolCall, *expected: Expected) -> ToolResult:
        """Let the agent do one tool call and show the records that it must have left."""
        before = self.records.last if self.records else 0
        self.screen.line("model says", f'"{call.says}"')
        self.screen.line("attempt", shown, "bold")
        result = self.model.turn(call)
        for one in expected if self.records else ():
            assert self.records is not None
            self._show(one, self.records.find(before, one.matches))
        if result.exit != 0:
            self.screen.line("agent got", f"{_ending(result.exit)}; {result.output.strip() or 'no output'}")
        return result

    def fact(self, text: str, holds: bool) -> None:
        """State what was looked up in the world."""
        self.screen.fact(text, holds)
        if not holds:
            self.failures.append(text)

    def _show(self, expected: Expected, record: Record | None) -> None:
        if record is None:
            self.fact(f"no record of {expected.action} {expected.about}", False)
            return
        subject = shorten(describe(record), self.world)
        allowed = record["verdict"] == "allow"
        by = record["rule"] or "otherwise"
        why = f": {record['why']}" if record.get("why") else ""
        if allowed:
            self.screen.line("verdict", f"allow {record['action']} {subject} ({by}), {record['outcome']}")
        else:
            self.screen.line("verdict", f"{record['verdict']} {record['action']} {subject} ({by}{why})", "yellow")
            self.screen.line(
                "outcome", f"{record['outcome']} (tier {record['tier']}, record {record['sequence']})", "yellow"
            )
        if not expected.fulfilled(record):
            wanted = "allow" if expected.verdict == "allow" else f"{expected.verdict} without effect"
            self.fact(f"{wanted} was expected, the record says {record['verdict']}, {record['outcome']}", False)


def _ending(code: int | None) -> str:
    if code is None:
        return "no answer from the tool"
    return f"killed by signal {-code}" if code < 0 else f"exit code {code}"


def describe(record: Record) -> str:
    """What a record is about, in a few words: a program's command line, else the target."""
    process = record.get("process") or {}
    if record["action"] == "exec" and process.get("argv"):
        return " ".join(process["argv"])
    return str(record["target"])


def shorten(text: str, world: World) -> str:
    """``text`` with paths relative to the demo's folder."""
    return text.replace(f"{world.root}/", "")
