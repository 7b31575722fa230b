"""Rings overflow at full rate: what is recorded and what is counted lost are what was done, exactly, for each agent."""

import os
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.host.conftest import Hostwarden, Record

PORT = 9  # nobody need listen there: what is denied never leaves
POLICY = "policy: p\nfor: {team: test}\nrules:\n  - deny: connect\n    to: '*:*'\n"


@dataclass(frozen=True)
class Done:
    """What a flood says of itself."""

    opens: int
    refused: int
    passed: int

    @property
    def actions(self) -> Counter[str]:
        """As they must be in the log."""
        return Counter(read=self.opens, connect=self.refused + self.passed)


class Flood:
    """One agent that waits for ``go``, then does what it can as fast as it can (programs/flood.c)."""

    def __init__(self, hostwarden: Hostwarden, name: str, file: Path, argv: list[str]) -> None:
        self.hostwarden, self.name, self.file = hostwarden, name, file
        self.since = hostwarden.sequence
        self.done = Done(0, 0, 0)
        pipe = subprocess.PIPE
        self._process = hostwarden.spawn_agent(argv, agent=name, stdin=pipe, stdout=pipe, stderr=pipe)
        hostwarden.wait_for(self.since, agent=name, action="exec")

    def go(self) -> None:
        """From here on."""
        assert self._process.stdin
        self._process.stdin.close()

    def end(self) -> Done:
        """To its end; what it did."""
        assert self._process.stdout and self._process.stderr
        out, error = self._process.stdout.read(), self._process.stderr.read()
        assert self._process.wait(timeout=60) == 0, error
        self.done = Done(*map(int, out.split()))
        return self.done

    def counted(self, records: list[Record] | None = None) -> tuple[Counter[str], Counter[str]]:
        """Action → how many are recorded so far, and how many are said to be lost."""
        recorded: Counter[str] = Counter()
        lost: Counter[str] = Counter()
        for record in self.hostwarden.events(self.since) if records is None else records:
            if record["agent"] != self.name:
                continue
            if record["action"] == "loss":
                lost += losses(record)
            elif record["target"] == str(self.file) or record["action"] == "connect":
                recorded[record["action"]] += 1
        return recorded, lost

    def settled(self) -> tuple[Counter[str], Counter[str]]:
        """``counted``, as soon as all is there that must be there."""
        ends = time.monotonic() + 30
        recorded, lost = self.counted()
        while not recorded + lost >= self.done.actions and time.monotonic() < ends:
            recorded, lost = self.counted()
        assert recorded + lost == self.done.actions
        return recorded, lost


def losses(record: Record) -> Counter[str]:
    """Action → lost, of one loss record."""
    rows = {action: sum(row.values()) for action, row in record["detail"]["lost"].items()}
    assert record["lost"] == sum(rows.values())
    return Counter(rows)


@contextmanager
def standing_still(hostwarden: Hostwarden) -> Iterator[None]:
    """The daemon reads nothing meanwhile."""
    assert hostwarden.process
    hostwarden.process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        hostwarden.process.send_signal(signal.SIGCONT)


@pytest.fixture(scope="module")
def small(start_hostwarden: Callable[..., Hostwarden]) -> Hostwarden:
    """A daemon with the smallest rings; reads are allowed and recorded, connects denied."""
    daemon = start_hostwarden("events_ring_kib = 64\ndenials_ring_kib = 64", start=False)
    (daemon.policy_dir / "p.yaml").write_text(POLICY)
    daemon.start()
    return daemon


@pytest.fixture(scope="module")
def floods() -> list[Flood]:
    """All of this file's, for the last test."""
    return []


MakeFlood = Callable[..., Flood]


@pytest.fixture
def flood(small: Hostwarden, program: Callable[[str], Path], folder: Path, floods: list[Flood]) -> MakeFlood:
    """``flood(opens, processes=1, connects=0)``: an agent of its own."""
    file = folder / "public"
    file.write_text("bytes")

    def make(opens: int, *, processes: int = 1, connects: int = 0) -> Flood:
        argv = [str(each) for each in (program("flood"), file, opens, processes, PORT, connects)]
        floods.append(Flood(small, f"flood-{os.getpid()}-{len(floods)}", file, argv))
        return floods[-1]

    return make


@pytest.mark.parametrize(
    "processes",
    [1, 8],  # one process, and one that forks while the ring is full
)
def test_reads_while_nobody_listens(small: Hostwarden, flood: MakeFlood, processes: int) -> None:
    agent = flood(4000, processes=processes)
    with standing_still(small):
        agent.go()
        assert agent.end().opens == 4000
    recorded, lost = agent.settled()
    assert recorded["read"] > 0 and lost["read"] > 0


def test_two_agents_at_once_are_told_apart(small: Hostwarden, flood: MakeFlood) -> None:
    agents = [flood(3000, processes=2), flood(1000)]
    with standing_still(small):
        for agent in agents:
            agent.go()
        for agent in agents:
            agent.end()
    for agent in agents:
        assert agent.settled()[1]["read"] > 0


def test_at_full_rate_beside_a_running_daemon(flood: MakeFlood) -> None:
    """The daemon reads as fast as it can; whatever it can't keep up with is counted."""
    agent = flood(20_000, processes=2)
    agent.go()
    assert agent.end().opens == 20_000
    agent.settled()


def test_flood_of_reads_loses_no_denial(small: Hostwarden, flood: MakeFlood) -> None:
    agent = flood(20_000, processes=2, connects=300)
    with standing_still(small):
        agent.go()
        assert agent.end() == Done(opens=20_000, refused=300, passed=0)
    recorded, lost = agent.settled()
    assert lost["read"] > 0
    assert (recorded["connect"], lost["connect"]) == (300, 0)
    denied = small.events(agent.since, agent=agent.name, action="connect", verdict="deny", outcome="prevented")
    assert len(denied) == 300


def test_denials_that_nobody_can_record_are_refused_all_the_same(small: Hostwarden, flood: MakeFlood) -> None:
    agent = flood(0, connects=3000)
    with standing_still(small):
        agent.go()
        assert agent.end() == Done(opens=0, refused=3000, passed=0)
    recorded, lost = agent.settled()
    assert recorded["connect"] > 0 and lost["connect"] > 0
    said = small.events(agent.since, agent=agent.name, action="loss")
    assert {verdict for record in said for verdict in record["detail"]["lost"]["connect"]} == {"deny"}


def test_overflow_while_the_daemon_is_dead(small: Hostwarden, flood: MakeFlood) -> None:
    """The gap record says how many are lost, the agent's loss record whose they were."""
    agent = flood(4000, processes=2)
    small.stop(signal.SIGKILL)
    agent.go()
    agent.end()
    small.start()
    lost = agent.settled()[1]
    gap = small.wait_for(agent.since, action="gap")[0]
    assert gap["lost"] == lost["read"] > 0


def test_what_is_not_to_be_recorded_is_counted(small: Hostwarden, flood: MakeFlood) -> None:
    """`record: {read: none}`: no record and no loss; the number is in `ps`."""
    small.set_policies(p=POLICY + "record: {read: none}\n")
    agent = flood(3000, connects=1)
    beside = small.spawn_agent(["sleep", "60"], agent=agent.name)  # so that it is there to be asked about
    small.wait_for(agent.since, agent=agent.name, action="exec", count=2)
    agent.go()
    agent.end()
    counts = small.agent(agent.name)
    beside.kill()
    small.command("kill", "--label", "team=test")
    small.command("release", "--label", "team=test")
    beside.wait()
    assert counts and counts["lost"] == 0
    assert 3000 <= counts["unrecorded"]["read"] == counts["actions"]["read"] < 3100  # sleep opens a few libraries
    assert agent.counted() == (Counter(connect=1), Counter())
    agent.done = Done(0, 1, 0)  # of which records are expected


def test_in_the_end_all_numbers_are_still_exact(small: Hostwarden, floods: list[Flood]) -> None:
    """Nothing was counted or recorded a second time later; the log is whole."""
    records = small.events()
    for agent in floods:
        recorded, lost = agent.counted(records)
        assert recorded + lost == agent.done.actions
    assert [record["sequence"] for record in records] == list(range(1, len(records) + 1))
    rings = [record["ring"] for record in records if "ring" in record]
    assert len(rings) == len(set(rings))
    verified = small.command("audit", "verify", str(small.state_dir))
    assert verified.returncode == 0, verified.stdout + verified.stderr
