"""From an event of a ring to the body of a record: who, what, why, in the words of people.

Every record of a flood pays for what is here, so a body is put together from four pieces of JSON, three of which are
nearly always known already: who acted (kept with the process), what was attempted and decided (kept by the numbers that
mean it), the target (kept by what names it), and the time, which is new each time. A test holds the result to a plain
reading of the same event with dictionaries.
"""

import struct
from binascii import b2a_base64
from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import orjson

from hostwarden.daemon import targets
from hostwarden.daemon.acts import Identity
from hostwarden.daemon.clock import Clock
from hostwarden.daemon.processes import Process, ProcessTable
from hostwarden.daemon.program import Program, text
from hostwarden.policy.tables import Reason
from hostwarden.policy.words import NET_ACTIONS, Action, Mode, Outcome, Tier, Verdict
from hostwarden.probes.layout import EVENT, EVENT_HEADER, FLAGS, SIZES, Event

MAX_KNOWN = 16384  # entries of each memory below; when one is full it is forgotten, not trimmed: it fills in no time
MAX_BYTES = 8 << 20  # of targets: an agent chooses how long its paths are

# The same bytes as layout.EVENT, but only what the common case needs, and what decides the wording as two lumps:
# time start agent tgid tid uid generation dev (profile enforced_reason observed_reason) row path_length script_length
# (flags accesses action enforced observed outcome tier).
_GLANCE = struct.Struct("<QQ8xIII4xII4xI10x6sH2xH2xH2x9s19x")
assert _GLANCE.size == EVENT.size
_PORT_AT, _ACTION_AT = 82, 88

_ROW_PRIVATE, _ROW_HOST = SIZES["ROW_PRIVATE"], SIZES["ROW_HOST"]
_INTERNAL, _UNKNOWN, _PRIVATE, _CHAIN = (FLAGS[name] for name in ("internal", "unknown", "private", "chain"))
_SOCKET, _UNIX, _ABSTRACT, _PLAIN = (FLAGS[name] for name in ("socket", "unix", "abstract", "plain"))
_PROCESSES = (Action.PTRACE, Action.SIGNAL)  # whose targets are processes
_OURS = (Action.CAPABILITY, Action.KERNEL)  # what no policy speaks of: the warden keeps it from every agent
ABSTRACT = b"/./"  # stands before an abstract name where it is judged: no path of a file has such a component
BUILT_IN = "built-in"  # the policy that is said to have decided those


class AgentView(Protocol):
    """An agent as records name it."""

    @property
    def name(self) -> str:
        """Its name."""

    @property
    def labels(self) -> Mapping[str, str]:
        """Its labels."""


class Directory(Protocol):
    """Who the kernel's agent numbers are."""

    def agent(self, agent_id: int) -> AgentView | None:
        """The agent of that number (slot and incarnation), also when it has ended meanwhile; None if unknown."""


class Reasons(Protocol):
    """Why the kernel decided as it did."""

    def reason(self, generation: int, profile: int, index: int) -> Reason:
        """Reason ``index`` of a profile in the tables of ``generation``; Reason() where nothing is known of it."""


class Places(Protocol):
    """Where file systems are mounted."""

    def show(self, generation: int, row: int, dev: int, path: bytes) -> bytes:
        """The host path of ``path``, which counts from the root of the superblock in ``row``. ``dev`` 0: not known."""


class _Words(NamedTuple):
    """JSON before and after the target."""

    before: bytes
    after: bytes
    names: str  # what the target is: "file", "address", "unix", "plain", or "program", which changes the process


class Enricher:
    """Makes bodies: for one thread."""

    def __init__(
        self,
        identity: Identity,
        clock: Clock,
        table: ProcessTable,
        directory: Directory,
        reasons: Reasons,
        places: Places,
    ) -> None:
        self._clock, self._table = clock, table
        self._directory, self._reasons, self._places = directory, reasons, places
        self._envelope = _members({"host": identity.host, "boot": identity.boot})
        self._words: dict[tuple[int, bytes, bytes], _Words] = {}
        self._targets: dict[tuple[int, int, int, int, bytes], bytes] = {}
        self._targets_bytes = 0
        self._addresses: dict[bytes, bytes] = {}  # by the header from the port on
        self._agents: dict[int, bytes] = {}

    def forget(self) -> None:
        """Mounts, agents or labels aren't what they were: look everything up again."""
        self._words.clear()
        self._targets.clear()
        self._targets_bytes = 0
        self._agents.clear()
        self._table.forget_heads()

    def body(self, raw: bytes, ring: bytes, position: int) -> bytes:
        """The record of an ACTION event. ``ring`` is the ring's name with its colon, escaped as in a JSON string."""
        time, start, agent, tgid, tid, uid, generation, dev, rules, row, path_length, second, what = (
            _GLANCE.unpack_from(raw)
        )
        words = self._words.get((generation, rules, what))
        if words is None:
            words = self._wording(raw, (generation, rules, what))
        if words.names == "program":
            return self._exec(raw, words, ring, position)
        process = self._table.find((tgid, start))
        if process is None or process.uid != uid or process.agent != agent:
            process = self._table.acting(Event._make(EVENT.unpack_from(raw)))
        if words.names == "address":
            target = self._addresses.get(raw[_PORT_AT:EVENT_HEADER]) or self._address(raw)
        elif words.names != "file" or second:
            target = self._seldom(raw, words)
        else:
            path = raw[EVENT_HEADER : EVENT_HEADER + path_length]
            flags = what[0] | what[1] << 8
            target = self._targets.get((generation, row, dev, flags, path)) or self._target(
                generation, row, dev, flags, path
            )
        head = process.head or self._head(process)
        if tid != tgid:
            head = _with_thread(head, tid)
        return b'{"time":"%b",%b%b%b%b,"ring":"%b%d"}' % (
            self._clock.stamp(time), head, words.before, target, words.after, ring, position,
        )  # fmt: skip

    def about_agent(self, agent_id: int) -> dict[str, Any]:
        """The fields that name an agent; where the directory doesn't know it, its number."""
        agent = self._directory.agent(agent_id)
        if agent is None:
            return {"agent": None, "labels": {}, "agent_id": agent_id}
        return {"agent": agent.name, "labels": dict(agent.labels)}

    def bare(self, raw: bytes, ring: bytes, position: int) -> bytes:
        """The record of an event that body() failed on: numbers as they are, nothing looked up, all bytes kept."""
        event = Event._make(EVENT.unpack_from(raw.ljust(EVENT_HEADER, b"\0")))
        members: dict[str, Any] = {
            "agent": None,
            "labels": {},
            "process": {"pid": event.tgid, "exe": None, "argv": None, "uid": event.uid},
            "action": _word(Action, event.action),
            "target": None,
        }
        unknown = Reason()
        members |= decided(event, unknown, unknown)
        members |= {"agent_id": event.agent, "event_b64": b2a_base64(raw, newline=False).decode()}
        return b'{"time":"%b",%b,%b,"ring":"%b%d"}' % (
            self._clock.stamp(event.time), self._envelope, _members(members), ring, position,
        )  # fmt: skip

    def relearn(self, raw: bytes) -> None:
        """An ACTION event whose record is in the log already: only what it says about its process counts."""
        if raw[_ACTION_AT] == Action.EXEC:
            self._executed(Event._make(EVENT.unpack_from(raw)), raw)

    def _executed(self, event: Event, raw: bytes) -> tuple[Process, bytes, bytes]:
        """The process after an exec, and the target: its path, or a script's and then more members."""
        argv_at = EVENT_HEADER + event.path_length
        script_at = argv_at + event.argv_length
        script = raw[script_at : script_at + event.script_length]
        path = self._show(event.generation, event.row, event.superblock_dev, event.flags, raw[EVENT_HEADER:argv_at])
        program = Program.of(path, raw[argv_at:script_at], is_cut=bool(event.flags & FLAGS["argv_cut"]))
        more = b',"argv_total":%d' % event.argv_total if program.is_cut else b""
        if script:
            # Its location has a row, but no flags of its own.
            flags = _PRIVATE if event.script_row == _ROW_PRIVATE else 0
            path = self._show(event.generation, event.script_row, 0, flags, script)
            more = b',"interpreter":%b%b' % (program.exe, more)
        return self._table.executed(event, program), _target_members(path), more

    def _exec(self, raw: bytes, words: _Words, ring: bytes, position: int) -> bytes:
        event = Event._make(EVENT.unpack_from(raw))
        process, target, more = self._executed(event, raw)
        head = process.head or self._head(process)
        if event.tid != event.tgid:
            head = _with_thread(head, event.tid)
        return b'{"time":"%b",%b%b%b%b%b,"ring":"%b%d"}' % (
            self._clock.stamp(event.time), head, words.before, target, words.after, more, ring, position,
        )  # fmt: skip

    def _head(self, process: Process) -> bytes:
        """Everything from ``host`` to ``process``."""
        agent = self._agents.get(process.agent) or self._agent(process.agent)
        head = b'%b,%b,"process":%b' % (self._envelope, agent, self._table.describe(process))
        if process.agent in self._agents:  # else it may be known the next time
            self._table.keep_head(process, head)
        return head

    def _agent(self, agent_id: int) -> bytes:
        about = self.about_agent(agent_id)
        members = _members(about)
        if about["agent"] is not None:
            if len(self._agents) >= MAX_KNOWN:
                self._agents.clear()
            self._agents[agent_id] = members
        return members

    def _wording(self, raw: bytes, key: tuple[int, bytes, bytes]) -> _Words:
        event = Event._make(EVENT.unpack_from(raw))
        enforced = self._reasons.reason(event.generation, event.profile, event.enforced_reason)
        observed = self._reasons.reason(event.generation, event.profile, event.observed_reason)
        names = _names(event)
        before = b',"action":%b,"target":' % orjson.dumps(_word(Action, event.action))
        words = _Words(before, b"," + _members(decided(event, enforced, observed)), names)
        if len(self._words) >= MAX_KNOWN:
            self._words.clear()
        self._words[key] = words
        return words

    def _target(self, generation: int, row: int, dev: int, flags: int, path: bytes) -> bytes:
        if len(self._targets) >= MAX_KNOWN or self._targets_bytes >= MAX_BYTES:
            self._targets.clear()
            self._targets_bytes = 0
        target = _target_members(self._show(generation, row, dev, flags, path))
        self._targets[generation, row, dev, flags, path] = target
        self._targets_bytes += len(path) + len(target)
        return target

    def _show(self, generation: int, row: int, dev: int, flags: int, path: bytes) -> bytes:
        """What people call the file. Only a real host path begins with a slash."""
        if flags & _INTERNAL:
            return b"internal:" + path
        if flags & _UNKNOWN:
            return b"@unknown" + (path or b"/")
        if flags & _PRIVATE:
            return b"@private" + (path or b"/")
        if flags & _CHAIN or row == _ROW_HOST:
            return path or b"/"
        return self._places.show(generation, row, dev, path) or b"/"

    def _address(self, raw: bytes) -> bytes:
        if len(self._addresses) >= MAX_KNOWN:
            self._addresses.clear()
        event = Event._make(EVENT.unpack_from(raw))
        target = b'"%b"' % targets.address_text(event.address, event.port).encode()
        self._addresses[raw[_PORT_AT:EVENT_HEADER]] = target
        return target

    def _seldom(self, raw: bytes, words: _Words) -> bytes:
        """Targets that no flood is made of: unix sockets, files that get another name, and what has neither path nor
        address. JSON, and more members where the target alone doesn't say it.
        """
        event = Event._make(EVENT.unpack_from(raw))
        path_end = EVENT_HEADER + event.path_length
        path = raw[EVENT_HEADER:path_end]
        shown = self._show(event.generation, event.row, event.superblock_dev, event.flags, path)
        if words.names == "plain":
            target = _plain_text(event).encode()
            if event.action == Action.KERNEL and path:
                target += b":" + shown
            return text(target) + (b',"signal":%d' % event.detail if event.action == Action.SIGNAL else b"")
        if words.names == "unix":
            name = b"@" + path.removeprefix(ABSTRACT) if event.flags & _ABSTRACT else shown
            return _target_members(b"unix:" + name)
        new_at = path_end + event.argv_length
        flags = _PRIVATE if event.script_row == _ROW_PRIVATE else 0
        new = self._show(event.generation, event.script_row, 0, flags, raw[new_at : new_at + event.script_length])
        return b'%b,"new":%b' % (_target_members(shown), text(new))


def decided(event: Event, enforced: Reason, observed: Reason) -> dict[str, Any]:
    """What was decided and what became of it: the members of a record from ``verdict`` on, in the log's order.

    The enforced verdict speaks, unless it is allow and an observing policy would have done more.
    """
    speaks_observed = event.observed > event.enforced == Verdict.ALLOW
    reason = observed if speaks_observed else enforced
    members: dict[str, Any] = {
        "verdict": _word(Verdict, event.observed if speaks_observed else event.enforced),
        "rule": reason.location,
        "policy": BUILT_IN if event.action in _OURS else reason.policy,
    }
    if reason.digest is not None:
        members["digest"] = reason.digest
    members["mode"] = str(Mode.OBSERVE if speaks_observed else Mode.ENFORCE)
    if reason.why is not None:
        members["why"] = reason.why
    members["tier"] = _word(Tier, event.tier)
    members["outcome"] = _word(Outcome, event.outcome)
    if not speaks_observed and event.observed > event.enforced:
        members["observed"] = {
            "verdict": _word(Verdict, event.observed), "rule": observed.location, "policy": observed.policy,
        }  # fmt: skip
    if event.accesses & ~(1 << event.action):
        members["accesses"] = [str(action) for action in Action if event.accesses & 1 << action]
    if event.flags:
        members["flags"] = [name for name, bit in FLAGS.items() if event.flags & bit]
    return members


def _names(event: Event) -> str:
    """What the target of an event is (see _Words)."""
    if event.action == Action.EXEC:
        return "program"
    if event.flags & (_SOCKET | _PLAIN) or event.action in (*_PROCESSES, *_OURS, Action.NAMESPACE):
        return "plain"
    if event.flags & (_UNIX | _ABSTRACT):
        return "unix"
    return "address" if event.action in NET_ACTIONS else "file"


def _plain_text(event: Event) -> str:
    """A target that has neither path nor address."""
    if event.flags & _SOCKET:
        return targets.socket_text(event.object, event.port)
    if event.action in _PROCESSES:
        return f"pid:{event.object}"
    if event.action == Action.NAMESPACE:
        return targets.namespace_text(event.detail)
    if event.action == Action.CAPABILITY:
        return targets.capability_text(event.object)
    return targets.kernel_text(event.detail)


def _target_members(shown: bytes) -> bytes:
    """A path as a JSON string, and the bytes themselves where they are no UTF-8."""
    try:
        shown.decode()
    except UnicodeDecodeError:
        return b'%b,"target_b64":"%b"' % (text(shown), b2a_base64(shown, newline=False))
    return text(shown)


def _members(members: Mapping[str, Any]) -> bytes:
    """The inside of a JSON object."""
    return orjson.dumps(members)[1:-1]


def _with_thread(head: bytes, tid: int) -> bytes:
    """``head`` ends with the process's closing brace."""
    return b'%b,"tid":%d}' % (head[:-1], tid)


def _word(words: type[Action | Verdict | Tier | Outcome], number: int) -> str:
    """The word for a number; a kernel half that is newer than this may have more."""
    try:
        return str(words(number))
    except ValueError:
        return f"{words.__name__.lower()}:{number}"
