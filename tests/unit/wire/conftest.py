"""A daemon's end of the sockets with handlers that tell what they got, in a short folder that any uid may enter."""

import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hostwarden.wire import hostwarden_pb2 as pb
from hostwarden.wire.errors import Code, WireError
from hostwarden.wire.roles import Peer
from hostwarden.wire.rpc import Call
from hostwarden.wire.server import Server, serve


class Handlers:
    """Answers with what it was asked; ``peers`` has who asked."""

    def __init__(self) -> None:
        self.peers: list[Peer] = []
        self.followers = 0
        self.delay_s = 0.0
        self.ended = threading.Semaphore(0)

    def status(self, request: pb.StatusRequest, peer: Peer, call: Call) -> pb.StatusReply:
        self.peers.append(peer)
        time.sleep(self.delay_s)
        return pb.StatusReply(ready=True, sequence=7, lost=1, json=b"{}", tiers={"exec": "signal"})

    def doctor(self, request: pb.DoctorRequest, peer: Peer, call: Call) -> pb.JsonReply:
        raise ValueError("a secret of the daemon")

    def ps(self, request: pb.PsRequest, peer: Peer, call: Call) -> Iterator[pb.JsonReply]:
        yield from (pb.JsonReply(json=b"%d" % n) for n in range(3))

    def events(self, request: pb.EventsRequest, peer: Peer, call: Call) -> Iterator[pb.RecordLine]:
        if request.verdict == "broken":
            raise ValueError("a secret of the daemon")
        yield pb.RecordLine(sequence=request.since + 1, host=request.host, line=b"{}")
        if request.follow:
            gone = threading.Event()
            call.on_end(gone.set)
            self.followers += 1
            gone.wait(30)
            self.followers -= 1
            self.ended.release()

    def bind(self, request: pb.BindRequest, peer: Peer, call: Call) -> pb.BindReply:
        self.peers.append(peer)
        return pb.BindReply(agent=request.agent, joined=request.pid == peer.pid)

    def adopt(self, request: pb.AdoptRequest, peer: Peer, call: Call) -> pb.AdoptReply:
        raise WireError(Code.NOT_FOUND, f"no process {request.pid}", "see `ps`")

    def kill(self, request: pb.KillRequest, peer: Peer, call: Call) -> pb.KillReply:
        left = call.time_left_s()
        assert left is not None
        return pb.KillReply(killed=round(left), agents=sorted(request.labels))

    def freeze(self, request: pb.FreezeRequest, peer: Peer, call: Call) -> pb.FreezeReply:
        return pb.FreezeReply(frozen=1, agents=sorted(request.labels))

    def release(self, request: pb.ReleaseRequest, peer: Peer, call: Call) -> pb.ReleaseReply:
        return pb.ReleaseReply(agents=["a"])

    def reload(self, request: pb.ReloadRequest, peer: Peer, call: Call) -> pb.ReloadReply:
        raise WireError(Code.INVALID, "\n".join(f"a.yaml:{n}:1: wörd" for n in range(5000)), "fix it – now")

    def arm(self, request: pb.ArmRequest, peer: Peer, call: Call) -> pb.ArmReply:
        return pb.ArmReply(armed=request.armed)


@pytest.fixture
def run_dir() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="hw"))
    folder.chmod(0o755)
    yield folder / "run"
    shutil.rmtree(folder)


@pytest.fixture
def handlers() -> Handlers:
    return Handlers()


@pytest.fixture
def server(run_dir: Path, handlers: Handlers) -> Iterator[Server]:
    made = serve(run_dir, handlers)
    made.start()
    yield made
    made.stop()
