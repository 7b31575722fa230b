"""Logs made in memory, and collectors that run as real processes on real sockets."""

import os
import queue
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import grpc
import orjson
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from hostwarden.collector.server import CollectorServer
from hostwarden.collector.service import CollectorService
from hostwarden.collector.store import Store
from hostwarden.records.merkle import Tree
from hostwarden.records.note import Checkpoint, sign_note
from hostwarden.records.segments import fingerprint, origin
from hostwarden.wire import hostwarden_pb2 as pb
from hostwarden.wire import uplink
from hostwarden.wire.client import OPTIONS, CollectorClient, connect_collector
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

    def checkpoint(self, n: int | None = None, **changes: object) -> str:
        """Over the first ``n`` records, or all; ``changes`` are lies that are signed."""
        size = len(self.lines) if n is None else n
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


@pytest.fixture(scope="session")
def shared_log() -> Log:
    """A log that nobody changes, for examples by the hundred."""
    return Log().grow(100)


@pytest.fixture
def collector(tmp_path: Path) -> Iterator[Collector]:
    """A collector that isn't started yet; whatever the test leaves running is killed."""
    made = Collector(tmp_path)
    yield made
    if made.process is not None and made.process.poll() is None:
        os.kill(made.process.pid, signal.SIGKILL)
        made.process.wait()


class Host:
    """A host's end of one stream, by hand."""

    def __init__(self, address: str) -> None:
        self._channel = grpc.insecure_channel(address, options=OPTIONS)
        self._requests: queue.Queue[pb.HostMessage | bytes | None] = queue.Queue()
        method: Any = self._channel.stream_stream(
            "/hostwarden.v1.Collector/Stream",
            lambda message: message if isinstance(message, bytes) else message.SerializeToString(),
            pb.CollectorMessage.FromString,
        )
        self._call = method(iter(self._requests.get, None))

    def __enter__(self) -> "Host":
        return self

    def __exit__(self, *exception: object) -> None:
        self._requests.put(None)
        self._channel.close()

    def say(self, message: pb.HostMessage | bytes) -> None:
        self._requests.put(message)

    def ask(self, message: pb.HostMessage | bytes) -> pb.CollectorMessage:
        """What the collector answers; raises grpc's error, or StopIteration."""
        self.say(message)
        answer: pb.CollectorMessage = next(self._call)
        return answer

    def hello(self, log: Log) -> pb.Welcome:
        answer = self.ask(pb.HostMessage(hello=log.hello))
        assert answer.WhichOneof("kind") == "welcome", answer
        return answer.welcome

    def store(self, log: Log, first: int, last: int, *notes: str) -> int:
        """Sends lines that must be taken; returns the acknowledged sequence."""
        answer = self.ask(log.batch(first, last, *notes))
        assert answer.WhichOneof("kind") == "ack", answer
        return answer.ack.stored

    def refused(self, message: pb.HostMessage) -> str:
        """Sends what must be refused; returns why."""
        answer = self.ask(message)
        assert answer.WhichOneof("kind") == "refusal", answer
        assert list(self._call) == []
        return answer.refusal.reason

    def failed(self, message: pb.HostMessage | bytes) -> tuple[grpc.StatusCode, str]:
        """Sends what must end the stream with an error; returns it."""
        with pytest.raises(grpc.RpcError) as caught:
            self.ask(message)
        assert isinstance(caught.value, grpc.Call)
        return caught.value.code(), caught.value.details() or ""


@dataclass
class Inside:
    """A collector in this process: its parts can be broken on purpose."""

    store: Store
    address: str

    def client(self) -> CollectorClient:
        return connect_collector(self.address)


@pytest.fixture
def inside(tmp_path: Path) -> Iterator[Inside]:
    store = Store(tmp_path / "state" / "records.db")
    server = CollectorServer(tmp_path / "run" / "c.sock", "", CollectorService(store))
    server.start()
    yield Inside(store, f"unix:{tmp_path}/run/c.sock")
    server.stop()
    store.close()


@pytest.fixture
def host(inside: Inside) -> Callable[[], Host]:
    return lambda: Host(inside.address)


@pytest.fixture
def run_dir() -> Iterator[Path]:
    """A folder that any uid may enter; tmp_path is root's alone."""
    folder = Path(tempfile.mkdtemp(prefix="hw"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def make_collector() -> Iterator[Callable[[Path], Collector]]:
    made: list[Collector] = []

    def make(folder: Path) -> Collector:
        made.append(Collector(folder))
        return made[-1]

    yield make
    for collector in made:
        collector.end(signal.SIGKILL)
