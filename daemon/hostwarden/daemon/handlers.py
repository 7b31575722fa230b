"""What the daemon answers on its sockets: requests checked, the warden asked, errors translated. No decisions here."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import orjson

from hostwarden.daemon import shown
from hostwarden.daemon.doctor import examine
from hostwarden.daemon.generations import PolicyProblem
from hostwarden.daemon.registry import AgentProblem
from hostwarden.daemon.warden import NotReady, Warden
from hostwarden.policy.source import PolicyErrors
from hostwarden.records.reader import LogCursor
from hostwarden.wire import hostwarden_pb2 as pb
from hostwarden.wire.errors import Code, WireError
from hostwarden.wire.roles import Peer, Role
from hostwarden.wire.rpc import Call

FOLLOW_PAUSE_S = 0.02
MAX_TIMEOUT_S = 300.0
DEFAULT_TIMEOUT_S = 10.0
KEPT = "what was in force stays in force"


class Handlers:
    """Implements wire.server.HostHandlers."""

    def __init__(self, warden: Warden) -> None:
        self._warden = warden

    def status(self, request: pb.StatusRequest, peer: Peer, call: Call) -> pb.StatusReply:
        """What is in force, and whether it is ready."""
        found = shown.status(self._warden)
        return pb.StatusReply(
            ready=found["ready"],
            tiers=found["tiers"],
            lost=found["lost"],
            sequence=found["sequence"],
            json=orjson.dumps(found),
        )

    def doctor(self, request: pb.DoctorRequest, peer: Peer, call: Call) -> pb.JsonReply:
        """The matrix action × tier, each proof, what is missing."""
        return pb.JsonReply(json=orjson.dumps(examine(self._warden)))

    def ps(self, request: pb.PsRequest, peer: Peer, call: Call) -> Iterator[pb.JsonReply]:
        """One agent a message."""
        for agent in shown.agents(self._warden):
            yield pb.JsonReply(json=orjson.dumps(agent))

    def events(self, request: pb.EventsRequest, peer: Peer, call: Call) -> Iterator[pb.RecordLine]:
        """Records of the log, ascending; only what is on disk."""
        if request.host and request.host != self._warden.identity.host:
            return
        cursor = LogCursor(self._warden.config.daemon.state_dir, request.since)
        try:
            while call.is_active():
                batch = cursor.read(until=self._warden.synced)
                if not batch.lines:
                    if not request.follow:
                        return
                    time.sleep(FOLLOW_PAUSE_S)
                    continue
                for sequence, line in enumerate(batch.lines, batch.first):
                    if _is_wanted(request, line):
                        yield pb.RecordLine(host=self._warden.identity.host, sequence=sequence, line=line)
        finally:
            cursor.close()

    def bind(self, request: pb.BindRequest, peer: Peer, call: Call) -> pb.BindReply:
        """`run`: the caller's child becomes a member."""
        with _translated():
            agent, joined = self._warden.bind(
                request.agent, dict(request.labels), request.pid, request.start_ticks, peer
            )
        return pb.BindReply(agent=agent, joined=joined)

    def adopt(self, request: pb.AdoptRequest, peer: Peer, call: Call) -> pb.AdoptReply:
        """A running process and its descendants become members."""
        with _translated():
            name, pids, held = self._warden.adopt(request.pid, request.agent, dict(request.labels), peer)
        return pb.AdoptReply(agent=name, processes=len(pids), json=orjson.dumps(held))

    def kill(self, request: pb.KillRequest, peer: Peer, call: Call) -> pb.KillReply:
        """Every process of every agent that carries the labels ends; new ones are refused until release."""
        labels = _labels(request.labels)
        timeout = min(request.timeout_s or DEFAULT_TIMEOUT_S, MAX_TIMEOUT_S)
        with _translated():
            result = self._warden.kill(labels, timeout, peer)
        return pb.KillReply(killed=len(result.done), agents=result.agents, left=sorted(result.left))

    def freeze(self, request: pb.FreezeRequest, peer: Peer, call: Call) -> pb.FreezeReply:
        """Every process of every agent that carries the labels stands still; new ones are refused until release."""
        labels = _labels(request.labels)
        timeout = min(request.timeout_s or DEFAULT_TIMEOUT_S, MAX_TIMEOUT_S)
        with _translated():
            result = self._warden.freeze(labels, timeout, peer)
        return pb.FreezeReply(frozen=len(result.done), agents=result.agents, left=sorted(result.left))

    def release(self, request: pb.ReleaseRequest, peer: Peer, call: Call) -> pb.ReleaseReply:
        """What `kill` shut may start again; what is frozen goes on."""
        labels = dict(request.labels) if request.agent else _labels(request.labels)
        with _translated():
            return pb.ReleaseReply(agents=self._warden.release(labels, request.agent, peer))

    def reload(self, request: pb.ReloadRequest, peer: Peer, call: Call) -> pb.ReloadReply:
        """Policies and agents read again, all or nothing."""
        with _translated():
            generation, policies, warnings = self._warden.reload(peer)
        return pb.ReloadReply(generation=generation, policies=policies, warnings=warnings)

    def arm(self, request: pb.ArmRequest, peer: Peer, call: Call) -> pb.ArmReply:
        """Enforcement on or off; recording goes on either way."""
        if peer.role is not Role.ADMIN:
            raise WireError(Code.NOT_PERMITTED, "only the admin socket arms and disarms")
        with _translated():
            self._warden.arm(request.armed, peer)
        return pb.ArmReply(armed=request.armed)


def _labels(given: Any) -> dict[str, str]:
    labels = dict(given)
    if not labels:
        raise WireError(
            Code.INVALID, "no labels: that would mean every agent", "name at least one: --label team=billing"
        )
    return labels


def _is_wanted(request: pb.EventsRequest, line: bytes) -> bool:
    if not request.agent and not request.verdict:
        return True
    record = orjson.loads(line)
    return (not request.agent or record["agent"] == request.agent) and (
        not request.verdict or record["verdict"] == request.verdict
    )


@contextmanager
def _translated() -> Iterator[None]:
    """Errors of the warden as answers on the wire."""
    try:
        yield
    except AgentProblem as error:
        raise WireError(Code.INVALID, str(error), error.hint) from error
    except PolicyProblem as error:
        raise WireError(Code.INVALID, str(error), KEPT) from error
    except PolicyErrors as error:
        raise WireError(Code.INVALID, "\n".join(map(str, error.errors)), KEPT) from error
    except NotReady as error:
        raise WireError(Code.UNAVAILABLE, str(error)) from error
