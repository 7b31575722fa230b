"""Bodies of records, held to a plain reading of the same events with dictionaries."""

import base64
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hostwarden.daemon import enrich, targets
from hostwarden.daemon.acts import Identity
from hostwarden.daemon.clock import Clock
from hostwarden.daemon.enrich import Enricher
from hostwarden.daemon.processes import ProcessTable, Users
from hostwarden.daemon.program import Program
from hostwarden.policy.tables import Reason
from hostwarden.policy.words import Action, Outcome, Tier, Verdict
from hostwarden.probes.layout import EVENT, EVENT_HEADER, FLAGS, KIND_FORK, Event
from hostwarden.records.model import REQUIRED, printable, rfc3339

MakeEvent = Callable[..., bytes]
OFFSET = 1_790_000_000_000_000_000  # boot's time of day
IDENTITY = Identity('ho"st', "2f0a7f0e-5a43-4f6e-9d4b-0f6b6f3d8b11")
RING = b"events@0123:"
REASONS = {
    0: Reason(),
    1: Reason("billing", "ab" * 32, "billing.yaml:12", 'no "keys"', Verdict.DENY),
    2: Reason("baseline", "cd" * 32, None, None, Verdict.KILL),
    3: Reason("watch", None, "watch.yaml:3", "only looking"),
}


@dataclass
class Agent:
    name: str
    labels: Mapping[str, str]


class Host:
    """Directory, Reasons and Places in one."""

    def __init__(self) -> None:
        self.agents: dict[int, Agent] = {7: Agent("billing-1", {"team": "billing", "env": 'p"rod'})}
        self.mount = b"/mnt"

    def agent(self, agent_id: int) -> Agent | None:
        return self.agents.get(agent_id)

    def reason(self, generation: int, profile: int, index: int) -> Reason:
        return REASONS[index]

    def show(self, generation: int, row: int, dev: int, path: bytes) -> bytes:
        return b"%b/%d%b" % (self.mount, row, path) if row > 2 else path


def user(uid: int) -> Any:
    if uid == 1000:
        return SimpleNamespace(pw_name="someone")
    raise KeyError(uid)


def make_enricher(host: Host) -> Enricher:
    clock = Clock(lambda: (OFFSET, 0))
    table = ProcessTable(clock, probe=lambda pid, start: None, users=Users(user))
    return Enricher(IDENTITY, clock, table, host, host, host)


@pytest.fixture
def host() -> Host:
    return Host()


@pytest.fixture
def enricher(host: Host) -> Enricher:
    return make_enricher(host)


def read(enricher: Enricher, raw: bytes, position: int = 128) -> Any:
    body = enricher.body(raw, RING, position)
    assert b"\n" not in body
    assert body.startswith(b'{"')
    return orjson.loads(body)


# The reference: no memory of words or targets, no bytes, one step after the other.


class Reference:
    """What a record of an event has to say, in the log's order."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.programs: dict[tuple[int, int], dict[str, Any]] = {}

    def record(self, raw: bytes, position: int) -> dict[str, Any]:
        event = Event._make(EVENT.unpack_from(raw))
        texts, at = [], EVENT_HEADER
        for length in (event.path_length, event.argv_length, event.script_length):
            texts.append(raw[at : at + length])
            at += length
        path, argv, script = texts
        target, more = self.target(event, path, script)
        if event.action == Action.EXEC:
            self.execute(event, self.shown(event, event.row, path, event.flags), argv)
        record: dict[str, Any] = {"time": rfc3339(event.time + OFFSET), "host": IDENTITY.host, "boot": IDENTITY.boot}
        record |= self.about(event)
        record |= {
            "process": self.process(event),
            "action": Action(event.action).name.lower(),
            "target": printable(target),
        }
        try:
            target.decode()
        except UnicodeDecodeError:
            if self.plain(event) is None or event.action == Action.EXEC:
                record["target_b64"] = base64.b64encode(target).decode()
        is_exec = event.action == Action.EXEC
        record |= (more if not is_exec else {}) | self.decision(event) | (more if is_exec else {})
        if event.action == Action.EXEC and event.flags & FLAGS["argv_cut"]:
            record["argv_total"] = event.argv_total
        return record | {"ring": f"events@0123:{position}"}

    def about(self, event: Event) -> dict[str, Any]:
        agent = self.host.agents.get(event.agent)
        if agent is None:
            return {"agent": None, "labels": {}, "agent_id": event.agent}
        return {"agent": agent.name, "labels": agent.labels}

    def shown(self, event: Event, row: int, path: bytes, flags: int) -> bytes:
        if flags & FLAGS["internal"]:
            return b"internal:" + path
        for name in ("unknown", "private"):
            if flags & FLAGS[name]:
                return b"@" + name.encode() + (path or b"/")
        if flags & FLAGS["chain"] or row == 1:
            return path or b"/"
        return self.host.show(0, row, 0, path) or b"/"

    def target(self, event: Event, path: bytes, second: bytes) -> tuple[bytes, dict[str, Any]]:
        shown = self.shown(event, event.row, path, event.flags)
        other = self.shown(event, event.script_row, second, 0 if event.script_row else FLAGS["private"])
        if event.action == Action.EXEC:
            return (other, {"interpreter": printable(shown)}) if second else (shown, {})
        plain = self.plain(event)
        if plain is not None:
            if event.action == Action.KERNEL and path:
                return plain.encode() + b":" + shown, {}
            return plain.encode(), {"signal": event.detail} if event.action == Action.SIGNAL else {}
        if event.flags & FLAGS["abstract"]:
            return b"unix:@" + path.removeprefix(b"/./"), {}
        if event.flags & FLAGS["unix"]:
            return b"unix:" + shown, {}
        if event.action in (Action.CONNECT, Action.SEND, Action.LISTEN):
            return targets.address_text(event.address, event.port).encode(), {}
        return shown, {"new": printable(other)} if second else {}

    def plain(self, event: Event) -> str | None:
        if event.flags & FLAGS["socket"]:
            return targets.socket_text(event.object, event.port)
        texts = {
            Action.PTRACE: f"pid:{event.object}",
            Action.SIGNAL: f"pid:{event.object}",
            Action.NAMESPACE: targets.namespace_text(event.detail),
            Action.CAPABILITY: targets.capability_text(event.object),
            Action.KERNEL: targets.kernel_text(event.detail),
        }
        if event.flags & FLAGS["plain"] and event.action not in texts:
            return targets.kernel_text(event.detail)
        return texts.get(Action(event.action))

    def execute(self, event: Event, path: bytes, argv: bytes) -> None:
        program: dict[str, Any] = {"exe": printable(path), "argv": None}
        if argv:
            program["argv"] = [printable(part) for part in argv.removesuffix(b"\0").split(b"\0")]
        if event.flags & FLAGS["argv_cut"]:
            program["argv_cut"] = True
        self.programs[event.tgid, event.start] = program

    def process(self, event: Event) -> dict[str, Any]:
        key = (event.tgid, event.start)
        process = {"pid": event.tgid, "start": rfc3339(event.start + OFFSET)} | self.programs.get(
            key, {"exe": None, "argv": None}
        )
        process |= {"uid": event.uid, "user": "someone" if event.uid == 1000 else None, "ppid": event.forker}
        process["lineage"] = []
        if key not in self.programs:
            process["partial"] = True
        if event.tid != event.tgid:
            process["tid"] = event.tid
        return process

    def decision(self, event: Event) -> dict[str, Any]:
        enforced, observed = REASONS[event.enforced_reason], REASONS[event.observed_reason]
        speaks = observed if event.enforced == 0 and event.observed > 0 else enforced
        said: dict[str, Any] = {"verdict": Verdict(event.enforced or event.observed).name.lower()}
        ours = event.action in (Action.CAPABILITY, Action.KERNEL)
        said |= {"rule": speaks.location, "policy": "built-in" if ours else speaks.policy}
        said |= {"digest": speaks.digest} if speaks.digest else {}
        said |= {"mode": "observe" if speaks is observed and not event.enforced and event.observed else "enforce"}
        said |= {"why": speaks.why} if speaks.why else {}
        said |= {"tier": Tier(event.tier).name.lower(), "outcome": Outcome(event.outcome).name.lower()}
        if event.enforced and event.observed > event.enforced:
            verdict = Verdict(event.observed).name.lower()
            said["observed"] = {"verdict": verdict, "rule": observed.location, "policy": observed.policy}
        if event.accesses not in (0, 1 << event.action):
            said["accesses"] = [a.name.lower() for a in Action if event.accesses & 1 << a]
        if event.flags:
            said["flags"] = [name for name, bit in FLAGS.items() if event.flags & bit]
        return said


BYTES = st.binary(max_size=60)
V4 = bytes(10) + b"\xff\xff\x0a\0\0"
events = st.fixed_dictionaries(
    {
        "action": st.sampled_from(list(Action)),
        "path": BYTES | st.just(b"") | st.text(max_size=60).map(lambda t: t.encode(errors="replace")),
        "argv": BYTES,
        "script": st.just(b"") | BYTES,
        "flags": st.just(0) | st.integers(0, sum(FLAGS.values())),
        "row": st.integers(0, 4),
        "script_row": st.integers(0, 4),
        "time": st.integers(0, 10**15),
        "pid": st.integers(100, 103),
        "uid": st.sampled_from([0, 1000]),
        "agent": st.sampled_from([7, 8]),
        "enforced": st.sampled_from(list(Verdict)),
        "observed": st.sampled_from(list(Verdict)),
        "enforced_reason": st.integers(0, 3),
        "observed_reason": st.integers(0, 3),
        "outcome": st.sampled_from(list(Outcome)),
        "tier": st.sampled_from(list(Tier)),
        "accesses": st.integers(0, 0xFFFF),
        "object": st.integers(0, 50),
        "detail": st.integers(0, 50) | st.integers(0, 2**32 - 1),
        "argv_total": st.integers(0, 10**6),
        "superblock_dev": st.integers(0, 3),
        "address": st.binary(min_size=16, max_size=16) | st.integers(0, 3).map(lambda n: b"%b%c" % (V4, n)),
        "port": st.integers(0, 65535),
    }
)  # fmt: skip


@given(st.lists(st.tuples(events, st.booleans(), st.integers(0, 2**63)), min_size=1, max_size=12))
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_bodies_equal_a_plain_reading_of_the_events(make_event: MakeEvent, course: list[Any]) -> None:
    host = Host()
    enricher, reference = make_enricher(host), Reference(host)
    newest: dict[int, int] = {}  # of execs: older ones that come late don't count
    for fields, is_thread, position in course:
        if fields["action"] == Action.EXEC:
            fields["time"] = max(fields["time"], newest.get(fields["pid"], 0))
            newest[fields["pid"]] = fields["time"]
        raw = make_event(**fields, tid=fields["pid"] + 5 * is_thread)
        made = enricher.body(raw, RING, position)
        expected = reference.record(raw, position)
        record = orjson.loads(made)
        assert record == expected
        assert list(record) == list(expected), "members in the log's order"
        assert set(record) >= REQUIRED - {"sequence", "prev"}
        assert b"\n" not in made


# What single events say


def test_a_read_that_is_allowed(enricher: Enricher, make_event: MakeEvent) -> None:
    enricher.body(make_event(action=Action.EXEC, path=b"/usr/bin/cat", argv=b"cat\0/etc/hosts\0"), RING, 0)
    record = read(enricher, make_event(path=b"/etc/hosts"))
    assert record == {
        "time": rfc3339(5_000_000_000 + OFFSET),
        "host": 'ho"st',
        "boot": IDENTITY.boot,
        "agent": "billing-1",
        "labels": {"team": "billing", "env": 'p"rod'},
        "process": {
            "pid": 100,
            "start": rfc3339(100_000_000 + OFFSET),
            "exe": "/usr/bin/cat",
            "argv": ["cat", "/etc/hosts"],
            "uid": 1000,
            "user": "someone",
            "ppid": 1,
            "lineage": [],
        },
        "action": "read",
        "target": "/etc/hosts",
        "verdict": "allow",
        "rule": None,
        "policy": None,
        "mode": "enforce",
        "tier": "signal",
        "outcome": "observed",
        "ring": "events@0123:128",
    }


ENFORCED = {"verdict": "deny", "rule": "billing.yaml:12", "policy": "billing", "mode": "enforce", "why": 'no "keys"'}
LOOKED_AT = {"verdict": "kill", "rule": "watch.yaml:3", "policy": "watch"}
OBSERVED = LOOKED_AT | {"mode": "observe", "why": "only looking"}
BASELINE = {"verdict": "kill", "rule": None, "policy": "baseline", "mode": "enforce"}


@pytest.mark.parametrize(
    ("enforced", "observed", "expected"),
    [
        # nothing but allow
        ((Verdict.ALLOW, 0), (Verdict.ALLOW, 0), {"verdict": "allow", "rule": None, "mode": "enforce"}),
        ((Verdict.ALLOW, 1), (Verdict.ALLOW, 3), {"verdict": "allow", "rule": "billing.yaml:12", "mode": "enforce"}),
        # the enforced one speaks
        ((Verdict.DENY, 1), (Verdict.ALLOW, 0), ENFORCED),
        ((Verdict.DENY, 1), (Verdict.DENY, 3), ENFORCED),
        ((Verdict.DENY, 1), (Verdict.KILL, 3), ENFORCED | {"observed": LOOKED_AT}),
        ((Verdict.KILL, 2), (Verdict.ALLOW, 0), BASELINE),
        # the observed one does
        ((Verdict.ALLOW, 1), (Verdict.KILL, 3), OBSERVED),
    ],
)  # fmt: skip
def test_whose_verdict_speaks(
    enricher: Enricher, make_event: MakeEvent, enforced: Any, observed: Any, expected: dict[str, Any]
) -> None:
    fields = {"enforced": enforced[0], "enforced_reason": enforced[1]}
    fields |= {"observed": observed[0], "observed_reason": observed[1]}
    record = read(enricher, make_event(path=b"/x", **fields))
    assert {key: record[key] for key in expected} == expected
    assert ("observed" in record) is ("observed" in expected)


@pytest.mark.parametrize(
    ("fields", "target"),
    [
        ({"path": b""}, "/"),
        ({"path": b"/a", "row": 3}, "/mnt/3/a"),
        ({"path": b"/a", "row": 1}, "/a"),
        ({"path": b"/a", "row": 3, "flags": FLAGS["chain"]}, "/a"),
        ({"path": b"/tmp/x", "row": 0, "flags": FLAGS["private"]}, "@private/tmp/x"),
        ({"path": b"", "row": 0, "flags": FLAGS["private"]}, "@private/"),
        ({"path": b"/x", "row": 0, "flags": FLAGS["unknown"]}, "@unknown/x"),
        ({"path": b"memfd:sh", "row": 0, "flags": FLAGS["internal"] | FLAGS["deleted"]}, "internal:memfd:sh"),
        ({"path": b"", "row": 0, "flags": FLAGS["internal"]}, "internal:"),
        ({"action": Action.CONNECT, "address": bytes(10) + b"\xff\xff\x0a\0\0\1", "port": 443}, "10.0.0.1:443"),
        ({"action": Action.SEND, "address": bytes(15) + b"\1", "port": 53}, "[::1]:53"),
        ({"action": Action.CONNECT, "address": bytes(16), "port": 0}, "[::]:0"),
    ],
)
def test_targets(enricher: Enricher, make_event: MakeEvent, fields: dict[str, Any], target: str) -> None:
    for _ in range(2):  # the second time it is remembered
        assert read(enricher, make_event(**fields))["target"] == target


def test_a_script_is_the_target_and_its_interpreter_the_program(enricher: Enricher, make_event: MakeEvent) -> None:
    raw = make_event(
        action=Action.EXEC, path=b"/usr/bin/bash", argv=b"/bin/bash\0/srv/x.sh\0", script=b"/srv/x.sh", script_row=2
    )
    record = read(enricher, raw)
    assert (record["target"], record["interpreter"]) == ("/srv/x.sh", "/usr/bin/bash")
    assert record["process"]["exe"] == "/usr/bin/bash"


def test_argv_that_is_cut_says_how_long_it_was(enricher: Enricher, make_event: MakeEvent) -> None:
    raw = make_event(action=Action.EXEC, path=b"/bin/x", argv=b"x\0lon", argv_total=9000, flags=FLAGS["argv_cut"])
    record = read(enricher, raw)
    assert (record["argv_total"], record["process"]["argv"], record["process"]["argv_cut"]) == (
        9000,
        ["x", "lon"],
        True,
    )
    assert record["flags"] == ["argv_cut"]
    assert read(enricher, make_event(path=b"/etc/hosts"))["process"]["argv_cut"]


def test_hostile_names_lose_nothing(enricher: Enricher, make_event: MakeEvent) -> None:
    path = b'/a"\n\x1b[31m\xff\\'
    record = read(enricher, make_event(path=path))
    assert record["target"] == printable(path)
    assert base64.b64decode(record["target_b64"]) == path
    assert "target_b64" not in read(enricher, make_event(path="/ünïcode\u2028".encode()))


def test_what_a_process_was_is_not_told_of_what_it_became(enricher: Enricher, make_event: MakeEvent) -> None:
    assert read(enricher, make_event(path=b"/x"))["process"]["exe"] is None
    enricher.body(make_event(action=Action.EXEC, path=b"/bin/one", argv=b"one\0"), RING, 0)
    assert read(enricher, make_event(path=b"/x"))["process"]["exe"] == "/bin/one"
    enricher.body(make_event(action=Action.EXEC, path=b"/bin/two", argv=b"two\0", time=6_000_000_000), RING, 0)
    record = read(enricher, make_event(path=b"/x", uid=0))
    assert (record["process"]["exe"], record["process"]["uid"], record["process"]["user"]) == ("/bin/two", 0, None)


def test_an_agent_that_is_not_known_yet_is_asked_for_again(host: Host, make_event: MakeEvent) -> None:
    enricher = make_enricher(host)
    record = read(enricher, make_event(path=b"/x", agent=9))
    assert (record["agent"], record["agent_id"]) == (None, 9)
    host.agents[9] = Agent("late", {})
    assert read(enricher, make_event(path=b"/x", agent=9))["agent"] == "late"


def test_after_forget_all_is_looked_up_again(host: Host, make_event: MakeEvent) -> None:
    enricher = make_enricher(host)
    raw = make_event(path=b"/x", row=3)
    assert read(enricher, raw)["target"] == "/mnt/3/x"
    host.mount, host.agents[7] = b"/media", Agent("renamed", {})
    assert read(enricher, raw)["target"] == "/mnt/3/x"
    enricher.forget()
    record = read(enricher, raw)
    assert (record["target"], record["agent"]) == ("/media/3/x", "renamed")


def test_words_of_a_newer_kernel_half_are_numbers(enricher: Enricher, make_event: MakeEvent) -> None:
    record = read(enricher, make_event(path=b"/x", action=Action.WRITE, outcome=99, tier=77))
    assert (record["outcome"], record["tier"]) == ("outcome:99", "tier:77")


def test_an_event_that_cannot_be_explained_keeps_its_bytes(enricher: Enricher, make_event: MakeEvent) -> None:
    raw = make_event(path=b"/x", enforced=Verdict.DENY, enforced_reason=1, outcome=Outcome.PREVENTED)
    record = orjson.loads(enricher.bare(raw, RING, 8))
    assert base64.b64decode(record["event_b64"]) == raw
    assert (record["verdict"], record["outcome"], record["action"]) == ("deny", "prevented", "read")
    assert record["ring"] == "events@0123:8"
    assert set(record) >= REQUIRED - {"sequence", "prev"}
    assert orjson.loads(enricher.bare(b"short", RING, 8))["verdict"] == "allow"


def test_memories_are_bounded(host: Host, make_event: MakeEvent, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(enrich, "MAX_KNOWN", 10)
    enricher = make_enricher(host)
    for n in range(200):
        read(enricher, make_event(path=b"/%d" % n, accesses=n % 64))
        read(enricher, make_event(action=Action.CONNECT, address=bytes(16), port=n))
    assert max(len(enricher._targets), len(enricher._words), len(enricher._addresses)) <= 10
    monkeypatch.setattr(enrich, "MAX_BYTES", 10_000)
    for n in range(200):
        read(enricher, make_event(path=b"/%04d" % n + b"x" * 3000))
        assert sum(map(len, enricher._targets.values())) < 20_000


def test_a_lineage_is_in_the_record(enricher: Enricher, make_event: MakeEvent) -> None:
    table = enricher._table
    run = make_event(action=Action.EXEC, path=b"/bin/sh", argv=b"sh\0")
    table.executed(Event._make(EVENT.unpack_from(run)), Program.of(b"/bin/sh", b"sh\0"))
    fork = make_event(pid=101, forker=100, forker_start=100_000_000, kind=KIND_FORK)
    table.forked(Event._make(EVENT.unpack_from(fork)))
    process = read(enricher, make_event(pid=101, forker=100, forker_start=100_000_000, path=b"/x"))["process"]
    assert (process["ppid"], process["lineage"]) == (100, [{"pid": 100, "exe": "/bin/sh"}])


# Actions on what is no file


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        # another name
        ({"action": Action.RENAME, "path": b"/a", "script": b"/b", "script_row": 2}, {"target": "/a", "new": "/b"}),
        ({"action": Action.LINK, "path": b"/a", "script": b"/b", "script_row": 3}, {"target": "/a", "new": "/mnt/3/b"}),
        ({"action": Action.RENAME, "path": b"/a", "script": b"/b"}, {"target": "/a", "new": "@private/b"}),
        # unix sockets
        ({"action": Action.CONNECT, "path": b"/run/x.sock", "flags": FLAGS["unix"]}, {"target": "unix:/run/x.sock"}),
        ({"action": Action.SEND, "path": b"/./x", "flags": FLAGS["unix"] | FLAGS["abstract"]}, {"target": "unix:@x"}),
        # sockets without an address
        ({"action": Action.CONNECT, "flags": FLAGS["socket"], "object": 17, "port": 3}, {"target": "socket:packet:3"}),
        ({"action": Action.CONNECT, "flags": FLAGS["socket"], "object": 99}, {"target": "socket:99:0"}),
        ({"action": Action.LISTEN, "address": V4 + b"\x01", "port": 80}, {"target": "10.0.0.1:80"}),
        # processes
        ({"action": Action.SIGNAL, "object": 4711, "detail": 9}, {"target": "pid:4711", "signal": 9}),
        ({"action": Action.PTRACE, "object": 4711, "detail": 2}, {"target": "pid:4711"}),
        ({"action": Action.NAMESPACE, "detail": 0x10020000}, {"target": "user,mnt"}),
        # what no policy speaks of
        ({"action": Action.CAPABILITY, "object": 21}, {"target": "CAP_SYS_ADMIN", "policy": "built-in", "rule": None}),
        ({"action": Action.CAPABILITY, "object": 77}, {"target": "CAP_77"}),
        ({"action": Action.KERNEL, "detail": 1, "enforced": Verdict.DENY}, {"target": "bpf", "policy": "built-in"}),
        ({"action": Action.KERNEL, "detail": 7, "path": b"/dev/vda"}, {"target": "device:/dev/vda"}),
        ({"action": Action.KERNEL, "detail": 99}, {"target": "kernel:99"}),
    ],
)  # fmt: skip
def test_what_is_no_file(
    enricher: Enricher, make_event: MakeEvent, fields: dict[str, Any], expected: dict[str, Any]
) -> None:
    record = read(enricher, make_event(**fields))
    assert {key: record.get(key) for key in expected} == expected
