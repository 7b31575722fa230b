"""The daemon's life: take everything that only one may have, begin, loop, end. The loop is the recorder's thread."""

import ctypes
import gc
import logging
import secrets
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import orjson

from hostwarden.daemon import cgroups, tiers
from hostwarden.daemon.acts import Identity, body
from hostwarden.daemon.attach import Attached, Job, attach
from hostwarden.daemon.clock import Clock
from hostwarden.daemon.config import Settings
from hostwarden.daemon.defines import defines
from hostwarden.daemon.enrich import Enricher
from hostwarden.daemon.generations import PolicyProblem
from hostwarden.daemon.handlers import Handlers
from hostwarden.daemon.intake import Intake, read_intake
from hostwarden.daemon.lock import Busy, LockProblem, Locks
from hostwarden.daemon.losses import recorded_losses
from hostwarden.daemon.mounts import MountError, MountWatch, read_mounts
from hostwarden.daemon.processes import ProcessTable
from hostwarden.daemon.proofs import Proof
from hostwarden.daemon.recorder import TAIL_RECORDS, Recorder
from hostwarden.daemon.rehearsal import rehearse
from hostwarden.daemon.shown import describe_start
from hostwarden.daemon.state import State, StateError, load, save
from hostwarden.daemon.teach import Teacher
from hostwarden.daemon.warden import Warden
from hostwarden.policy.source import PolicyErrors
from hostwarden.policy.words import Tier
from hostwarden.probes.pins import Kernel
from hostwarden.probes.rings import Ring, RingError, size_of
from hostwarden.records.key import load_or_create
from hostwarden.records.reader import LogCursor, last_lines
from hostwarden.records.segments import LogError
from hostwarden.records.writer import LogWriter
from hostwarden.wire import hostwarden_pb2 as pb
from hostwarden.wire.errors import SocketInUse, SocketProblem
from hostwarden.wire.notify import sd_notify
from hostwarden.wire.server import Agents
from hostwarden.wire.server import serve as serve_sockets
from hostwarden.wire.uplink import Log, Uplink

log = logging.getLogger("hostwardend")
TIDY_S = 2.0
MOUNTS_NS = 300_000_000  # many mounts at once are one change; until then the mounts themselves say where (path.h)
END_NS = 2_000_000_000
WAIT_S = 0.05  # the kernel doesn't wake us for every event of a flood (emit.h)


class StartError(Exception):
    """The daemon can't start: one line, a hint. What was pinned before decides on."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


def serve(settings: Settings) -> None:
    """Run until told to stop. Raises StartError, AttachError, PolicyErrors, PolicyProblem, all before readiness."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})  # kept for when we can obey it, not our death
    if Tier.CGROUP not in settings.daemon.tiers or not tiers.candidates(settings.daemon.tiers):
        firsts = ", ".join(map(str, tiers.BEST_FIRST))
        raise StartError("daemon.tiers leaves out what is needed", f"expected cgroup, and at least one of {firsts}")
    intake = read_intake(settings)  # first, so that a bad policy changes nothing
    with ExitStack() as stack:
        try:
            daemon = Daemon(settings, intake, stack)
        except (Busy, LockProblem) as error:
            raise StartError(str(error)) from error
        except (LogError, StateError, RingError, MountError, cgroups.CgroupError) as error:
            raise StartError(str(error), getattr(error, "hint", "")) from error
        except (SocketInUse, SocketProblem) as error:
            raise StartError(str(error), "stop the other one, or choose another run_dir") from error
        except OSError as error:
            raise StartError(f"{error.filename or 'the system'}: {error.strerror}") from error
        daemon.loop()


class Daemon:
    """Everything that lives as long as the process."""

    def __init__(self, settings: Settings, intake: Intake, stack: ExitStack) -> None:
        self._settings, self._stack = settings, stack
        state_dir = settings.daemon.state_dir
        for folder, mode in ((state_dir, 0o700), (settings.daemon.run_dir, 0o755)):
            folder.mkdir(parents=True, exist_ok=True)
            folder.chmod(mode)
        locks = stack.enter_context(Locks())
        locks.take(state_dir)
        state = load(state_dir)
        cgroup = cgroups.find_v2(read_mounts())
        self._teacher = Teacher()
        attached = self._attach(cgroup, locks)
        stack.callback(attached.kernel.close)
        if not attached.adopted:
            state = state.model_copy(update={"instance": secrets.token_hex(4), "agents": ()})
            save(state_dir, state)
        self._identity = Identity.of_this_host()
        self._watch = MountWatch()  # before the table is read: no change is missed
        stack.callback(self._watch.close)
        self.warden = Warden(settings, attached, cgroup, state, self._identity, self._teacher)
        self._begin(attached, state, intake)
        locks.verify()
        self._ask = {"stop": False, "reload": False}
        self._mounts_due = 0
        stack.enter_context(self._signals())  # before anybody can see that we are ready, and send one
        self._open_doors()

    def _attach(self, cgroup: Path, locks: Locks) -> Attached:
        daemon = self._settings.daemon
        flags = defines(daemon.denials_ring_kib, daemon.events_ring_kib)
        job = Job(daemon.bpffs_dir, cgroup, daemon.cache_dir, daemon.state_dir, flags, daemon.tiers)

        def prove(kernel: Kernel, first: Tier) -> list[Proof]:
            return rehearse(kernel, first, daemon.state_dir, self._teacher, daemon.deny_without_lsm == "kill")

        attached = attach(job, lambda: locks.take(daemon.bpffs_dir), prove)
        log.info("probes %s", "adopted" if attached.adopted else "loaded")
        return attached

    def _begin(self, attached: Attached, state: State, intake: Intake) -> None:
        daemon = self._settings.daemon
        key = load_or_create(daemon.state_dir)
        writer = LogWriter(daemon.state_dir, key, segment_bytes=daemon.segment_mib << 20)
        recovery = writer.open()
        self._stack.callback(_close_log, writer)
        warden, kernel = self.warden, attached.kernel
        clock = Clock()
        table = ProcessTable(clock, member=kernel.process)
        enricher = Enricher(self._identity, clock, table, warden.registry, warden.generations, warden.generations)
        rings = (_ring(kernel.maps["denials"]), _ring(kernel.maps["events"]))
        recorder = Recorder(
            writer,
            rings,
            enricher,
            table,
            clock,
            self._identity,
            state.instance,
            on_synced=self._synced,
            on_shared=lambda event: warden.shared_table(event.start),
            on_freeze=warden.freeze_at,
        )
        self._recorder, self._writer, self._key, self._enricher = recorder, writer, key, enricher
        warden.recorder, warden.log = recorder, writer
        self._uplink: Uplink | None = None
        warden.begin(intake)
        lines = last_lines(daemon.state_dir, TAIL_RECORDS)
        recorder.resume(map(orjson.loads, lines))
        if recovery:
            self._act("recovered", detail={"bytes_cut": recovery.bytes_cut, "lines_cut": recovery.lines_cut})
        if attached.adopted:
            self._record_gap(orjson.loads(lines[-1]) if lines else {})
        self._act("start", detail=describe_start(warden, intake, attached.adopted))
        recorder.drain()  # on disk before anybody can see that we are ready, and kill us

    def _record_gap(self, last: dict[str, Any]) -> None:
        """Nobody recorded from the last record to now: what the rings kept follows, what they lost is counted."""
        counts = self.warden.counts()
        if any(sum(map(sum, count.lost)) or count.lost_lifecycle for count in counts.values()):
            self._recorder.ledger.resume(recorded_losses(self._settings.daemon.state_dir, self._identity.boot))
        lost = self._recorder.account(self.warden.counts, at_once=True)
        now = Clock().now().decode()
        self._act("gap", fields={"from": last.get("time", now), "to": now, "lost": lost})

    def _open_doors(self) -> None:
        addresses = self._settings.collector.addresses
        if addresses:
            hello = pb.Hello(host=self._identity.host, log=self._key.fingerprint, public_key=self._key.public)
            state_dir, writer = self._settings.daemon.state_dir, self._writer
            source = Log(hello, lambda since: LogCursor(state_dir, since), lambda: writer.synced_sequence)
            self._uplink = self.warden.uplink = Uplink(addresses, source)
            self._uplink.start()
            self._stack.callback(self._uplink.stop)
        agents = Agents(self.warden.is_agent, self.warden.refused)
        server = serve_sockets(self._settings.daemon.run_dir, Handlers(self.warden), agents)
        self.warden.ready = True
        server.start()
        self._stack.callback(server.stop)

    # the loop

    def loop(self) -> None:
        """Record, follow the mount table, tidy up, obey signals; until told to stop."""
        _settle_memory()
        self._say_ready()
        tidied = Clock.boot_ns()
        while not self._ask["stop"]:
            self._recorder.wait(WAIT_S)
            self._turn()
            if Clock.boot_ns() - tidied > TIDY_S * 1e9:
                self.warden.tidy()
                tidied = Clock.boot_ns()
        self._end()

    def _say_ready(self) -> None:
        """A tier that isn't proven is no readiness (design section 5): systemd hears nothing, people hear which."""
        unproven = [proof for proof in self.warden.proofs if not proof.proven]
        for proof in unproven:
            log.error("not ready: %s isn't proven to be refused by %s: %s", proof.what, proof.tier, proof.seen)
        if not unproven:
            sd_notify("READY=1")
            tiers = ", ".join(f"{action} {tier}" for action, tier in self.warden.tiers().items())
            log.info(
                "ready: %s", tiers if self.warden.is_armed else "disarmed, nothing is enforced until `hostwarden arm`"
            )
            for tier, why in self.warden.choice.declined.items():
                log.info("not tier %s: %s", tier, why)

    def _turn(self) -> None:
        self._recorder.drain()
        self.warden.settle()
        self._recorder.account(self.warden.counts)
        if self._watch.changed():
            self._mounts_due = self._mounts_due or Clock.boot_ns() + MOUNTS_NS
        if 0 < self._mounts_due < Clock.boot_ns():
            self._mounts_due = 0
            self.warden.mounts_changed()
            self._enricher.forget()
        if self._ask["reload"]:
            self._ask["reload"] = False
            self._reload()
            _settle_memory()

    def _reload(self) -> None:
        try:
            generation, policies, warnings = self.warden.reload(None)
            log.info("generation %d in force: %d policies, %d warnings", generation, policies, len(warnings))
        except (PolicyErrors, PolicyProblem) as error:
            for line in getattr(error, "errors", [error]):
                log.error("%s", line)
            log.error("nothing changed: what was in force stays in force")
        self._enricher.forget()

    def _end(self) -> None:
        sd_notify("STOPPING=1")
        self._act("stop", detail={"enforcing": True})
        ends = Clock.boot_ns() + END_NS  # agents go on: what the rings hold then, the next daemon reads
        while self._recorder.drain() and Clock.boot_ns() < ends:
            pass
        self._recorder.close()
        log.info("stopped; what is pinned goes on deciding (hostwardend --off ends that)")

    @contextmanager
    def _signals(self) -> Iterator[None]:
        def ask(what: str) -> Callable[[int, FrameType | None], None]:
            def note(number: int, frame: FrameType | None) -> None:
                self._ask[what] = True
                self._recorder.wake()

            return note

        before = {
            signal.SIGTERM: signal.signal(signal.SIGTERM, ask("stop")),
            signal.SIGINT: signal.signal(signal.SIGINT, ask("stop")),
            signal.SIGHUP: signal.signal(signal.SIGHUP, ask("reload")),
        }
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _act(self, action: str, **fields: Any) -> None:
        self._recorder.act(body(self._identity, action, **fields))

    def _synced(self, sequence: int) -> None:
        if self._uplink:
            self._uplink.wake()


def _settle_memory() -> None:
    """What starting needed goes back to the system; what lives as long as we do isn't looked at again."""
    gc.collect()
    gc.freeze()
    ctypes.CDLL(None).malloc_trim(0)


def _close_log(writer: LogWriter) -> None:
    """The last checkpoint, if the disk has space for it; without one the next start signs what is there."""
    try:
        writer.close()
    except LogError as error:
        log.error("%s", error)


def _ring(fd: int) -> Ring:
    return Ring(fd, size_of(fd))
