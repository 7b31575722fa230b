"""Events a second from the ring to the chained, synced log: an agent that opens a file again and again."""

import json
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from hostwarden.records.reader import LogCursor
from hostwarden.wire.client import HostClient, connect
from tests.bench.host import Host
from tests.bench.load import Load

EVENTS = 300_000
STEPS = (
    140_000,
    120_000,
    100_000,
    80_000,
    60_000,
    40_000,
    20_000,
)  # events a second that are tried if full speed is too much, highest first
STEP_S = 3.0
POLL_S = 0.01
SETTLED_S = 0.5  # without a new record: the ring is empty
WAIT_S = 120


@dataclass(frozen=True)
class Flood:
    """One flood, as it was made and as the log has it."""

    made_s: float  # opens a second
    recorded: int
    lost: int
    synced_s: float  # records a second, from the first event to the last one's sync


def flood(host: Host, load: Load, count: int, rate: int) -> Flood:
    """An agent's ``count`` opens at ``rate`` a second (0: as fast as it can). Raises RuntimeError."""
    name = f"flood-{time.monotonic_ns()}"
    lost_before = host.lost()
    argv = [*host.as_agent("ten", name), *map(str, (load.flood, count, rate, load.file))]
    with connect(host.daemon.run_dir) as client:
        since = client.status().sequence
        process = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
        seen = _watch(client, process, name)
    assert process.stdout is not None
    made = count / float(process.stdout.read())
    records = list(_reads(host, since, load))
    lost = host.lost() - lost_before
    if len(records) + lost != count:
        raise RuntimeError(f"{count} opens, {len(records)} records, {lost} counted lost: that isn't all")
    if not records:
        raise RuntimeError("not one open was recorded")
    first, last = records[0], records[-1]
    began = datetime.fromisoformat(str(json.loads(first[1])["time"])[:26] + "+00:00").timestamp()
    synced = next(at for at, sequence in seen if sequence >= last[0])
    return Flood(made, len(records), lost, len(records) / (synced - began))


def _watch(client: HostClient, process: "subprocess.Popen[str]", name: str) -> list[tuple[float, int]]:
    """When what was synced, until the flood has ended and its last event is through. Raises RuntimeError."""
    seen = [(time.time(), 0)]
    ends, settled = time.monotonic() + WAIT_S, 0.0
    while process.poll() is None or time.monotonic() < settled or _is_member(client, name):
        time.sleep(POLL_S)
        synced = json.loads(client.status().json)["synced"]
        if synced != seen[-1][1]:
            seen.append((time.time(), synced))
            settled = time.monotonic() + SETTLED_S
        if time.monotonic() > ends:
            process.kill()
            raise RuntimeError("a flood doesn't end")
    return seen


def _is_member(client: HostClient, name: str) -> bool:
    return any(json.loads(line.json)["agent"] == name for line in client.ps())


def _reads(host: Host, since: int, load: Load) -> Iterator[tuple[int, bytes]]:
    """The flood's records, by sequence. Searched as bytes: to parse 300,000 takes longer than to make them."""
    target = f'"action":"read","target":"{load.file}"'.encode()
    cursor = LogCursor(host.daemon.state_dir, since)
    try:
        while (batch := cursor.read(until=1 << 62)).lines:
            for sequence, line in enumerate(batch.lines, batch.first):
                if target in line:
                    yield sequence, bytes(line)
    finally:
        cursor.close()


@dataclass(frozen=True)
class Rates:
    """``lossless`` is the fastest flood without a loss, None if there is none."""

    full: Flood
    lossless: Flood | None

    def rows(self) -> list[list[str]]:
        """What and how much."""
        full = self.full
        share = full.lost / (full.lost + full.recorded)
        found = [
            ["an agent as fast as it can: opens", f"{full.made_s:,.0f}/s"],
            ["  recorded and synced meanwhile", f"{full.synced_s:,.0f}/s; {share:.1%} counted as lost"],
        ]
        if self.lossless:
            shown = f"{self.lossless.synced_s:,.0f}/s of {self.lossless.made_s:,.0f}/s"
            found.append(["the fastest without a loss: recorded and synced", shown])
        return found


def measure(host: Host, load: Load, events: int = EVENTS) -> Rates:
    """With the daemon's rings at their defaults."""
    full = flood(host, load, events, 0)
    if not full.lost:
        return Rates(full, full)
    for rate in STEPS:
        step = flood(host, load, int(rate * STEP_S), rate)
        if not step.lost:
            return Rates(full, step)
    return Rates(full, None)
