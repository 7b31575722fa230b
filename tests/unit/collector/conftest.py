"""Logs made in memory, and collectors that run as real processes on real sockets."""

import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

import orjson
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from hostwarden.records.merkle import Tree
from hostwarden.records.note import Checkpoint, sign_note
from hostwarden.records.segments import fingerprint, origin
from hostwarden.wire import hostwarden_pb2 as pb
from hostwarden.wire import uplink
from hostwarden.wire.client import CollectorClient, connect_collector
from hostwarden.wire.errors import ClientError

VERDICTS = ("allow", "allow", "deny", "kill")


class Log:
    """A host's log: lines chained from record 1, and checkpoints over any number of them."""

    def __init__(self, host: str = "alpha", agents: tuple[str, ...] = ("billing", "research")) -> None:
        self.host, self.agents = host, agents
        self._private = Ed25519PrivateKey.generate()
        self.public = self._private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        self.log = fingerprint(self.public)
        self.name = origin(self.log)
        self.lines: list[bytes] = []
        self.leaves: list[bytes] = []

    def sign(self, message: bytes) -> bytes:
        return self._private.sign(message)

    def grow(self, n: int, padding: int = 0, **fields: object) -> "Log":
        for _ in range(n):
            sequence = len(self.lines) + 1
            record = {
                "sequence": sequence,
                "prev": (self.leaves[-1] if self.leaves else bytes(32)).hex(),
                "time": sequence * 1000,
                "agent": self.agents[sequence % len(self.agents)],
                "verdict": VERDICTS[sequence % len(VERDICTS)],
                **fields,
            }
            if padding:
                record["padding"] = ""
                record["padding"] = "x" * max(0, padding - len(orjson.dumps(record)))
            self.lines.append(orjson.dumps(record))
            self.leaves.append(sha256(b"\0" + self.lines[-1]).digest())
        return self

    def fork(self, keep: int) -> "Log":
        """Another past: the same key, the first ``keep`` records, others after them."""
        other = Log(self.host, self.agents)
        other._private, other.public, other.log, other.name = self._private, self.public, self.log, self.name
        other.lines, other.leaves = self.lines[:keep], self.leaves[:keep]
        return other.grow(len(self.lines) - keep, forked=True)

    def checkpoint(self, size: int | None = None, **changes: object) -> str:
        size = len(self.lines) if size is None else size
        tree = Tree()
        tree.extend(self.leaves[:size])
        head = self.leaves[size - 1] if size else bytes(32)
        values: dict[str, object] = {"origin": self.name, "size": size, "root": tree.root(), "head": head}
        return sign_note(Checkpoint(**{**values, "prev": bytes(32), **changes}).text(), self)  # type: ignore[arg-type]

    @property
    def hello(self) -> pb.Hello:
        return pb.Hello(host=self.host, log=self.log, public_key=self.public)

    def batch(self, first: int, last: int, *notes: str) -> pb.HostMessage:
        lines = self.lines[first - 1 : last]
        return pb.HostMessage(batch=pb.Batch(first=first, lines=lines, checkpoints=notes))

    @property
    def source(self) -> uplink.Log:
        return uplink.Log(self.hello, lambda since: Cursor(self, since), lambda: len(self.lines))


@dataclass
class Portion:
    first: int
    lines: list[bytes] = field(default_factory=list)
    checkpoints: list[str] = field(default_factory=list)


class Cursor:
    """What an uplink reads a Log with."""

    def __init__(self, log: Log, since: int, size: int = 1000) -> None:
        self._log, self._next, self._size = log, since + 1, size

    def read(self, until: int | None = None) -> Portion:
        assert until is not None
        portion = Portion(self._next, self._log.lines[self._next - 1 : min(until, self._next - 1 + self._size)])
        self._next += len(portion.lines)
        return portion

    def close(self) -> None:
        pass


class Collector:
    """A hostwarden-collector process in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.address = f"unix:{folder}/run/collector.sock"
        self.database = folder / "state" / "records.db"
        self.config = folder / "collector.toml"
        self.config.write_text(f'[collector]\nlisten = "{self.address}"\nstore = "sqlite:///{self.database}"\n')
        self.process: subprocess.Popen[str] | None = None

    def spawn(self) -> "subprocess.Popen[str]":
        argv = [sys.executable, "-m", "hostwarden.collector.main", "--config", str(self.config)]
        with (self.folder / "stderr").open("a") as stderr:
            self.process = subprocess.Popen(argv, stderr=stderr, text=True)
        return self.process

    def start(self) -> "Collector":
        process = self.spawn()
        for _ in range(1000):
            assert process.poll() is None, self.stderr
            try:
                with self.client() as client:
                    client.status()
                return self
            except ClientError:
                time.sleep(0.01)
        raise AssertionError(f"the collector doesn't answer: {self.stderr}")

    def client(self) -> CollectorClient:
        return connect_collector(self.address)

    def end(self, how: int = signal.SIGTERM) -> int:
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(how)
        return self.process.wait(20)

    @property
    def stderr(self) -> str:
        return (self.folder / "stderr").read_text()

    def stored(self, host: str) -> list[bytes]:
        """The host's lines, by sequence; asserts that they are numbered from 1 without a hole."""
        database = sqlite3.connect(f"file:{self.database}?mode=ro", uri=True)
        query = "SELECT sequence, line FROM records JOIN logs ON id = log_id WHERE host = ? ORDER BY sequence"
        rows = database.execute(query, (host,)).fetchall()
        database.close()
        assert [sequence for sequence, _ in rows] == list(range(1, len(rows) + 1))
        return [line for _, line in rows]

    def rows(self, sql: str) -> list[tuple[object, ...]]:
        database = sqlite3.connect(f"file:{self.database}?mode=ro", uri=True)
        rows = database.execute(sql).fetchall()
        database.close()
        return rows


@pytest.fixture
def make_log() -> Callable[..., Log]:
    return Log


@pytest.fixture
def collector(tmp_path: Path) -> Iterator[Collector]:
    """A collector that isn't started yet; whatever the test leaves running is killed."""
    made = Collector(tmp_path)
    yield made
    if made.process is not None and made.process.poll() is None:
        os.kill(made.process.pid, signal.SIGKILL)
        made.process.wait()
