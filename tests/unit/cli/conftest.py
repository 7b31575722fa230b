"""The command against a real server on real sockets, whose handlers answer what a test wants."""

import os
import pty
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
import pytest

from hostwarden.cli.main import command
from hostwarden.collector.server import CollectorServer
from hostwarden.wire import hostwarden_pb2 as pb
from hostwarden.wire.errors import Code, WireError
from hostwarden.wire.roles import Peer
from hostwarden.wire.rpc import Call
from hostwarden.wire.server import serve

PROGRAM = [sys.executable, "-c", "import sys; from hostwarden.cli.main import main; sys.exit(main())"]
TIMEOUT_S = 30
NOBODY = 65534


@dataclass
class Bound:
    """What the daemon saw of a child when it was asked to bind it."""

    request: pb.BindRequest
    peer: Peer
    parent: int
    start_ticks: int
    has_execed: bool


@dataclass
class Daemon:
    """Handlers. ``calls`` has the requests, by name; ``trouble`` what a call answers instead of its reply."""

    status_json: dict[str, Any] = field(default_factory=dict)
    is_ready: bool = True
    tiers: dict[str, str] = field(default_factory=lambda: {"exec": "signal", "connect": "cgroup"})
    doctor_json: dict[str, Any] = field(default_factory=dict)
    agents: list[dict[str, Any]] = field(default_factory=list)
    records: list[bytes] = field(default_factory=list)
    adopt_json: dict[str, Any] = field(default_factory=dict)
    kill_reply: pb.KillReply = field(default_factory=pb.KillReply)
    freeze_reply: pb.FreezeReply = field(default_factory=pb.FreezeReply)
    released: list[str] = field(default_factory=list)
    trouble: dict[str, WireError] = field(default_factory=dict)
    bind_delay_s: float = 0.0
    calls: dict[str, list[Any]] = field(default_factory=dict)
    bound: list[Bound] = field(default_factory=list)
    stop: Callable[[], None] = lambda: None
    over: threading.Event = field(default_factory=threading.Event)  # the test is: whoever waits need wait no more

    def _note(self, name: str, request: Any) -> None:
        self.calls.setdefault(name, []).append(request)
        if name in self.trouble:
            raise self.trouble[name]

    def status(self, request: pb.StatusRequest, peer: Peer, call: Call) -> pb.StatusReply:
        self._note("status", request)
        shown = {"ready": self.is_ready, "tiers": self.tiers, "lost": 3, "sequence": 41, **self.status_json}
        return pb.StatusReply(ready=self.is_ready, tiers=self.tiers, lost=3, sequence=41, json=orjson.dumps(shown))

    def doctor(self, request: pb.DoctorRequest, peer: Peer, call: Call) -> pb.JsonReply:
        self._note("doctor", request)
        return pb.JsonReply(json=orjson.dumps(self.doctor_json))

    def ps(self, request: pb.PsRequest, peer: Peer, call: Call) -> Iterator[pb.JsonReply]:
        self._note("ps", request)
        yield from (pb.JsonReply(json=orjson.dumps(agent)) for agent in self.agents)

    def events(self, request: pb.EventsRequest, peer: Peer, call: Call) -> Iterator[pb.RecordLine]:
        self._note("events", request)
        for number, line in enumerate(self.records, 1):
            if number > request.since:
                yield pb.RecordLine(host="here", sequence=number, line=line)
        if request.follow:
            gone = threading.Event()
            call.on_end(gone.set)
            gone.wait(TIMEOUT_S)

    def bind(self, request: pb.BindRequest, peer: Peer, call: Call) -> pb.BindReply:
        stat = Path(f"/proc/{request.pid}/stat").read_text().rpartition(")")[2].split()
        # The child is a copy of the command's process for as long as it hasn't execed.
        has_execed = Path(f"/proc/{request.pid}/cmdline").read_bytes() != Path(f"/proc/{peer.pid}/cmdline").read_bytes()
        self.bound.append(Bound(request, peer, int(stat[1]), int(stat[19]), has_execed))
        self.over.wait(self.bind_delay_s)
        self._note("bind", request)
        return pb.BindReply(agent=request.agent)

    def adopt(self, request: pb.AdoptRequest, peer: Peer, call: Call) -> pb.AdoptReply:
        self._note("adopt", request)
        return pb.AdoptReply(agent=request.agent or "found", processes=2, json=orjson.dumps(self.adopt_json))

    def kill(self, request: pb.KillRequest, peer: Peer, call: Call) -> pb.KillReply:
        self._note("kill", request)
        return self.kill_reply

    def freeze(self, request: pb.FreezeRequest, peer: Peer, call: Call) -> pb.FreezeReply:
        self._note("freeze", request)
        return self.freeze_reply

    def release(self, request: pb.ReleaseRequest, peer: Peer, call: Call) -> pb.ReleaseReply:
        self._note("release", request)
        return pb.ReleaseReply(agents=self.released)

    def reload(self, request: pb.ReloadRequest, peer: Peer, call: Call) -> pb.ReloadReply:
        raise WireError(Code.INTERNAL, "no command asks for it yet")

    def stream(self, messages: Iterator[Any], peer: Peer, call: Call) -> Iterator[pb.CollectorMessage]:
        raise WireError(Code.INTERNAL, "a collector's call, and no command asks for it")

    def close(self) -> None:
        """As a collector's service has it."""

    def arm(self, request: pb.ArmRequest, peer: Peer, call: Call) -> pb.ArmReply:
        self._note("arm", request)
        return pb.ArmReply(armed=request.armed)


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    code: int
    out: bytes
    err: str

    @property
    def text(self) -> str:
        return self.out.decode()

    @property
    def objects(self) -> list[Any]:
        """stdout as JSON, one object a line; anything else on it fails the test."""
        assert self.out.endswith(b"\n") or not self.out
        return [orjson.loads(line) for line in self.out.splitlines()]

    @property
    def object(self) -> Any:
        [value] = self.objects
        return value

    @property
    def error(self) -> tuple[str, str]:
        """The error's one line and its hint; stdout is empty."""
        lines = self.err.splitlines()
        assert self.out == b"" and 1 <= len(lines) <= 2 and lines[0].startswith("hostwarden: "), self
        assert "Traceback" not in self.err
        assert all(line.startswith("  ") for line in lines[1:])
        return lines[0].removeprefix("hostwarden: "), lines[1].strip() if lines[1:] else ""


class Cli:
    """Runs the command; ``run_dir`` is where it looks for a daemon.

    Called, in this process, for most of a process's time is Python's start; ``process``, ``start`` and ``on_terminal``
    are for what only a process of its own can show.
    """

    def __init__(self, run_dir: Path, capture: pytest.CaptureFixture[bytes]) -> None:
        self.run_dir = run_dir
        self._capture = capture

    def __call__(self, *args: str) -> Done:
        self._capture.readouterr()
        code = command(list(args))
        captured = self._capture.readouterr()
        return Done(code, captured.out, captured.err.decode())

    def environment(self, changes: Mapping[str, str] | None = None) -> dict[str, str]:
        kept = {key: os.environ[key] for key in ("PATH", "HOME", "LANG") if key in os.environ}
        return {**kept, "HOSTWARDEN_RUN_DIR": str(self.run_dir), "LC_ALL": "C.UTF-8", **(changes or {})}

    def process(self, *args: str | bytes, env: Mapping[str, str] | None = None, **options: Any) -> Done:
        done = subprocess.run(
            [*PROGRAM, *args], capture_output=True, env=self.environment(env), timeout=TIMEOUT_S, **options
        )
        return Done(done.returncode, done.stdout, done.stderr.decode())

    def start(self, *args: str, **options: Any) -> "subprocess.Popen[bytes]":
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
        return subprocess.Popen([*PROGRAM, *args], env=self.environment(), **pipes)

    def on_terminal(
        self, *args: str, env: Mapping[str, str] | None = None, act: Callable[[int, int], None] | None = None
    ) -> Done:
        """On a terminal of its own, where ``act(master, pid)`` may type. ``out`` has all that was on it."""
        pid, master = pty.fork()
        if pid == 0:
            os.execve(sys.executable, [*PROGRAM, *args], self.environment({"TERM": "xterm", **(env or {})}))
        shown = b""
        watchdog = threading.Timer(TIMEOUT_S, os.kill, (pid, signal.SIGKILL))
        watchdog.start()
        if act is not None:
            act(master, pid)
        while True:
            try:
                chunk = os.read(master, 65536)
            except OSError:  # EIO: nobody has the other end any more
                break
            if not chunk:
                break
            shown += chunk
        _, status = os.waitpid(pid, 0)
        watchdog.cancel()
        os.close(master)
        return Done(os.waitstatus_to_exitcode(status), shown.replace(b"\r\n", b"\n"), "")


@pytest.fixture
def run_dir() -> Iterator[Path]:
    """Short, for a socket's path has 107 bytes, and open to any uid."""
    folder = Path(tempfile.mkdtemp(prefix="hw"))
    folder.chmod(0o755)
    yield folder / "run"
    shutil.rmtree(folder)


@pytest.fixture
def cli(run_dir: Path, capfdbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch) -> Cli:
    monkeypatch.setenv("HOSTWARDEN_RUN_DIR", str(run_dir))
    return Cli(run_dir, capfdbinary)


@pytest.fixture
def daemon(run_dir: Path) -> Iterator[Daemon]:
    """A daemon in ``run_dir``, ready."""
    handlers = Daemon()
    server = serve(run_dir, handlers)
    handlers.stop = server.stop
    server.start()
    yield handlers
    handlers.over.set()
    server.stop()


@pytest.fixture
def collector(run_dir: Path) -> Iterator[tuple[Daemon, str]]:
    """A collector's server with the same handlers, and its address."""
    path = run_dir.parent / "collector.sock"
    handlers = Daemon()
    server = CollectorServer(path, "", handlers)  # type: ignore[arg-type]
    server.start()
    yield handlers, f"unix:{path}"
    server.stop()


@pytest.fixture
def as_stranger(daemon: Daemon, run_dir: Path) -> dict[str, Any]:
    """Options for a call by somebody whom only agent.sock is open to."""
    if os.geteuid() == 0:
        return {"user": NOBODY, "group": NOBODY, "extra_groups": []}
    for name in ("admin", "responder", "auditor"):
        (run_dir / f"{name}.sock").chmod(0)
    return {}


def wait_for(condition: Callable[[], Any], what: str) -> Any:
    """What ``condition`` returns, as soon as that is true."""
    end = time.monotonic() + TIMEOUT_S
    while time.monotonic() < end:
        found = condition()
        if found:
            return found
        time.sleep(0.01)
    raise AssertionError(f"{what}: not within {TIMEOUT_S} s")


@pytest.fixture(name="wait_for")
def wait_for_fixture() -> Callable[[Callable[[], Any], str], Any]:
    return wait_for
