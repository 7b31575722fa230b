"""How many events a second get from ring bytes to the chained, synced log: one thread, realistic events.

``python tests/bench/bench_records.py [SECONDS]`` prints one JSON object. No root: the ring is a file laid out as one.
"""

import json
import mmap
import os
import struct
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hostwarden.daemon.acts import Identity
from hostwarden.daemon.clock import Clock
from hostwarden.daemon.enrich import Enricher
from hostwarden.daemon.processes import ProcessTable
from hostwarden.daemon.program import Program
from hostwarden.daemon.recorder import Recorder
from hostwarden.policy.tables import Reason
from hostwarden.policy.words import Action, Outcome, Tier, Verdict
from hostwarden.probes.layout import EVENT, KIND_ACTION, KIND_EXIT, KIND_FORK, Event
from hostwarden.probes.rings import Ring
from hostwarden.records.key import load_or_create
from hostwarden.records.writer import LogWriter

RING_BYTES = 4 << 20
BOOT = "2f0a7f0e-5a43-4f6e-9d4b-0f6b6f3d8b11"
DEPTH = 4  # of the lineage
START = 1_000_000_000


class FileRing:
    """A ring in memory, and the kernel's side of it."""

    def __init__(self) -> None:
        page = mmap.PAGESIZE
        self.fd = os.memfd_create("ring")
        os.ftruncate(self.fd, 2 * page + 2 * RING_BYTES)
        self._pages = mmap.mmap(self.fd, 2 * page + 2 * RING_BYTES)
        self._produced = 0
        self.ring = Ring(self.fd, RING_BYTES)

    def put(self, event: bytes) -> None:
        """As bpf_ringbuf_output; both images of the data are written."""
        record = struct.pack("<II", len(event), 0) + event
        base, at = 2 * mmap.PAGESIZE, self._produced & (RING_BYTES - 1)
        self._pages[base + at : base + at + len(record)] = record
        if at + len(record) > RING_BYTES:
            self._pages[base : base + at + len(record) - RING_BYTES] = record[RING_BYTES - at :]
        else:
            self._pages[base + RING_BYTES + at : base + RING_BYTES + at + len(record)] = record
        self._produced += len(record) + 7 & ~7
        struct.pack_into("<Q", self._pages, mmap.PAGESIZE, self._produced)


@dataclass
class Agent:
    """A Directory with one agent in it."""

    name: str = "billing-1"
    labels: Mapping[str, str] = field(default_factory=lambda: {"team": "billing", "env": "prod"})

    def agent(self, agent_id: int) -> "Agent":
        return self


class Reasons:
    """Two rules."""

    def reason(self, generation: int, profile: int, index: int) -> Reason:
        if not index:
            return Reason()
        return Reason("billing-agents", "ab" * 32, "billing.yaml:12", "no keys", Verdict.KILL)


class Places:
    """One file system."""

    def show(self, generation: int, row: int, dev: int, path: bytes) -> bytes:
        return path


def event(action: Action, n: int, path: bytes = b"", **more: Any) -> bytes:
    """An event of one of eight processes."""
    pid = 2000 + n % 8
    zero = Event._make(EVENT.unpack(bytes(EVENT.size)))
    fields: dict[str, Any] = {
        "time": 10**12 + n * 9000, "start": START + pid, "forker_start": START + 1000 + DEPTH - 1,
        "forker": 1000 + DEPTH - 1, "agent": 1026, "tgid": pid, "tid": pid, "uid": 1000, "generation": 3, "profile": 2,
        "row": 2, "path_length": len(path), "action": action, "accesses": 1 << action, "tier": Tier.SIGNAL, "record": 2,
    } | more  # fmt: skip
    header = EVENT.pack(*zero._replace(**fields))
    return header + path


def _read(n: int) -> bytes:
    """A file of 50 bytes' path, one of 5,000."""
    return event(Action.READ, n, b"/srv/customers/2026/%06d/a-file-as-long-as-that.txt" % (n * 7919 % 5000))


def _fresh_read(n: int) -> bytes:
    """A file that nobody opened before."""
    return event(Action.READ, n, b"/srv/customers/2026/%06d/a-file-as-long-as-that.txt" % n)


def _refused(n: int) -> bytes:
    more: dict[str, Any] = {"enforced": Verdict.KILL, "enforced_reason": 4, "outcome": Outcome.KILLED_BEFORE_EFFECT}
    return event(Action.READ, n, b"/home/someone/.ssh/%06d/a-file-as-long-as-that.key" % (n % 5000), **more)


def _connect(n: int) -> bytes:
    address = bytes(10) + b"\xff\xff\x0a\0" + (n % 500).to_bytes(2, "big")
    return event(Action.CONNECT, n, tier=Tier.CGROUP, port=443, address=address)


def _exec(n: int) -> bytes:
    argv = b"git\0commit\0--message=%d\0" % n
    path = b"/usr/bin/git"
    return event(Action.EXEC, n, path, argv_length=len(argv), argv_total=len(argv)) + argv


def _life(n: int) -> list[bytes]:
    """A fork, an exec, an exit, of a new process each."""
    pid, start = 10_000 + n, 10**12 + n * 9000
    fork = event(Action.EXEC, n, kind=KIND_FORK, tgid=pid, tid=pid, start=start)
    argv = b"git\0commit\0--message=%d\0" % n
    path = b"/usr/bin/git"
    more: dict[str, Any] = {"argv_length": len(argv), "argv_total": len(argv), "tgid": pid, "tid": pid, "start": start}
    run = event(Action.EXEC, n, path, kind=KIND_ACTION, **more) + argv
    return [fork, run, event(Action.EXEC, n, kind=KIND_EXIT, tgid=pid, tid=pid, start=start)]


LOADS = {
    "reads of files seen before": lambda n: [_read(n)],
    "reads of new files": lambda n: [_fresh_read(n)],
    "kills, in the denials ring": lambda n: [_refused(n)],
    "connects": lambda n: [_connect(n)],
    "execs": lambda n: [_exec(n)],
    "fork, exec, exit": _life,
}


@dataclass
class Bench:
    """A recorder with all that it needs, in a folder of its own."""

    folder: Path

    def __post_init__(self) -> None:
        identity = Identity("build-host-17", BOOT)
        clock = Clock()
        table = ProcessTable(clock, probe=lambda pid, start: Program.of(b"/usr/bin/python3.11", b"python3\0agent.py\0"))
        enricher = Enricher(identity, clock, table, Agent(), Reasons(), Places())
        self.denials, self.events = FileRing(), FileRing()
        self.log = LogWriter(self.folder, load_or_create(self.folder))
        self.log.open()
        rings = (self.denials.ring, self.events.ring)
        self.recorder = Recorder(self.log, rings, enricher, table, clock, identity, "0123456789abcdef")
        for depth in range(DEPTH):
            forker = (1000 + depth - 1, START + 1000 + depth - 1) if depth else (1, 0)
            more: dict[str, Any] = {"kind": KIND_FORK, "tgid": 1000 + depth, "start": START + 1000 + depth}
            self.events.put(event(Action.EXEC, 0, forker=forker[0], forker_start=forker[1], **more))
        self.recorder.drain()

    def run(self, name: str, seconds: float) -> dict[str, float]:
        """One load until the time is over; filling the ring isn't counted."""
        make = LOADS[name]
        ring = self.denials if "denials" in name else self.events
        n = records = 0
        busy = processor = 0.0
        first_bytes = self._log_bytes()
        while busy < seconds:
            while ring.ring.waiting < RING_BYTES * 3 // 4:
                for raw in make(n):
                    ring.put(raw)
                n += 1
            began, used = time.perf_counter(), time.process_time()
            while ring.ring.waiting:
                records += self.recorder.drain()
            busy += time.perf_counter() - began
            processor += time.process_time() - used
        return {
            "records_per_s": round(records / busy),
            "us_per_record": round(busy / records * 1e6, 2),
            "cpu_us_per_record": round(processor / records * 1e6, 2),  # without the disk, and whoever else runs here
            "bytes_per_record": round((self._log_bytes() - first_bytes) / records),
        }

    def _log_bytes(self) -> int:
        return sum(path.stat().st_size for path in (self.folder / "log").iterdir())


def measure(seconds: float = 2.0) -> dict[str, dict[str, float]]:
    """By load: records a second from ring to synced log, what each cost, how long each was."""
    with tempfile.TemporaryDirectory(prefix="bench-records-", dir="/var/tmp") as folder:
        bench = Bench(Path(folder))
        return {name: bench.run(name, seconds) for name in LOADS}


if __name__ == "__main__":
    print(json.dumps(measure(float(sys.argv[1]) if len(sys.argv) > 1 else 2.0), indent=2))
