"""What a record says: every field, for whoever reads the log.

A record is one JSON object on one line. An action of an agent and an act of the warden have the same envelope: for the
warden's own acts ``process`` is who asked, ``verdict`` is "allow" and ``rule`` is null. A field that doesn't apply is
null where it is listed as always there, and absent where it is listed as optional. Readers ignore fields they don't
know: new ones may come, none changes its meaning.

Bytes that are no UTF-8 (Linux allows them in names and arguments) are written ``\\xNN``. A text that has ``\\x`` or two
backslashes in a row is written so, and in it each backslash is two; any other text is what it is. ``printable`` writes
this, ``raw_bytes`` reads it, and no two names look alike.
"""

import re
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, NotRequired, Required, TypedDict

from hostwarden.policy.words import Action, Mode, Outcome, Tier, Verdict

_ESCAPES = re.compile(r"(\\\\|\\x[0-9a-f]{2})")

# What the warden does itself. Everything else in `action` is a name of policy.words.Action.
OWN_ACTS: dict[str, str] = {
    "start": "the daemon is ready; `detail` has version, tiers, and the policies in force",
    "stop": "the daemon ends; what is pinned goes on deciding",
    "policy": "other policies are in force, or a change was refused; `detail` has names, digests, warnings",
    "config": "the configuration was read again, or refused",
    "run": "a process became an agent's by `hostwarden run`",
    "adopt": "a process became an agent's by `adopt`, by its unit or its exe; `detail` has what it held open",
    "kill": "agents were ended; `detail` has the labels and the count",
    "freeze": "agents were stopped, by a responder or a verdict, until release; `detail` has labels, agents, and why",
    "release": "labels that were shut by `kill` or `freeze` may start again, and what was frozen goes on",
    "arm": "enforcement goes on after `disarm`",
    "disarm": "enforcement is off, recording goes on",
    "refused": "an agent's process asked the warden for what only operators may ask for; `detail` has call and socket",
    "unjudged": "the kernel let actions pass without asking us (tier modify_return); `detail` has how many, by program",
    "gap": "from adoption to adoption nobody recorded; `from`, `to`, and `lost`, which may be 0",
    "loss": "a ring was full: `lost` actions of this agent are counted but not recorded",
    "recovered": "the log's end was repaired at start; `detail` has what was cut, and what is missing that was signed",
}

ACTIONS: dict[str, str] = {
    str(Action.EXEC): "run a program; `target` is its path",
    str(Action.READ): "open a file for reading, or list a directory",
    str(Action.WRITE): "open a file for writing; or truncate it, change its owner, times or attributes",
    str(Action.CREATE): "make a file, a folder, a link by name or a device node",
    str(Action.CONNECT): "connect a socket; `target` is address:port, unix:/path or unix:@name",
    str(Action.SEND): "send an addressed datagram; `target` as for connect",
    str(Action.DELETE): "remove a name of a file, or a folder",
    str(Action.RENAME): "give a file another name; `target` is the old one, `new` the other",
    str(Action.LINK): "give a file one more name; `target` is the file, `new` the name",
    str(Action.CHMOD): "change a file's mode",
    str(Action.LISTEN): "let others connect; `target` is the local address",
    str(Action.MOUNT): "mount, unmount or move a file system; `target` is the mount point",
    str(Action.NAMESPACE): "make or enter a namespace; `target` says which kinds",
    str(Action.PTRACE): "trace a process of somebody else, or read its memory; `target` is pid:N",
    str(Action.SIGNAL): "send a signal to a process of somebody else; `target` is pid:N, `signal` its number",
    str(Action.LOAD): "map a file executable: a library, a plug-in",
    str(Action.CAPABILITY): "use a privilege that the warden keeps from every agent; `target` is its name",
    str(Action.KERNEL): "change the kernel itself: `target` says how (bpf, module, kexec, perf, time …)",
} | OWN_ACTS

VERDICTS = tuple(map(str, Verdict))
MODES = tuple(map(str, Mode))
TIERS = tuple(map(str, Tier))
OUTCOMES = tuple(map(str, Outcome))


class Ancestor(TypedDict):
    """One process of a lineage."""

    pid: int
    exe: str | None


class Process(TypedDict, total=False):
    """Who acted. Numbers are as the host's own namespaces see them."""

    pid: Required[int]  # thread group
    exe: Required[str | None]  # host path of the program; null if the process was gone before it could be read
    argv: Required[list[str] | None]  # as the program got it, cut at the bound of the configuration; null if not read
    uid: Required[int | None]  # effective, at the time of the action
    start: str  # when it started, RFC 3339; with pid and boot it names a process for good
    user: str | None  # the name of uid on this host
    ppid: int  # parent
    tid: int  # the thread that acted, if it isn't the first
    argv_cut: bool  # argv is longer than what is here
    lineage: list[Ancestor]  # parent first, up to the agent's first process


class Record(TypedDict, total=False):
    """A line of the log. ``Required`` fields are always there."""

    # Place in the log
    sequence: Required[int]  # 1, 2, 3 …, no holes
    prev: Required[str]  # leaf hash of the record before, hex
    # When and where
    time: Required[str]  # when it happened in the kernel: RFC 3339, UTC, nanoseconds
    host: Required[str]  # host name
    boot: Required[str]  # /proc/sys/kernel/random/boot_id
    # Who
    agent: Required[str | None]  # null for acts of the warden that concern no agent
    labels: Required[dict[str, str]]
    process: Required[Process | None]
    # What
    action: Required[str]  # a key of ACTIONS
    target: Required[str | None]  # path, address:port, unix:/path, pid:N, or a word (see ACTIONS)
    new: str | None  # rename, link: the second path
    signal: int  # signal: which one
    name: str | None  # connect, send: the host name that the address was bound to
    # What was decided
    verdict: Required[str]  # the rule's, even where the tier made something else of it
    rule: Required[str | None]  # file:line; null where `otherwise` or nothing decided
    policy: Required[str | None]  # name of the policy that decided
    digest: str | None  # SHA-256 of that policy's file, hex
    mode: str  # enforce or observe: whether the verdict was made real
    why: str | None  # what the policy's author wrote for the denied
    observed: dict[str, Any] | None  # what policies in observe mode would have done: verdict, rule, policy
    # What became of it
    tier: Required[str]
    outcome: Required[str]
    error: str | None  # the system call's own error, where it failed for another reason
    # Only for the warden's own acts
    role: str  # admin, responder, auditor, agent: the socket that was used
    detail: dict[str, Any]  # what the act was about, see OWN_ACTS
    lost: int  # gap, loss: actions that the kernel counted and nobody recorded
    # Where recording goes on after a restart
    event: NotRequired[dict[str, int]]  # the kernel event this came from: `ring` and `number` in it


REQUIRED = frozenset(Record.__required_keys__)
# `from` is a keyword of Python, so TypedDict's class form can't have it: gap records have these two as well.
GAP_FIELDS: dict[str, str] = {
    "from": "when recording ended, RFC 3339",
    "to": "when it went on",
}


def rfc3339(time_ns: int) -> str:
    """Nanoseconds since 1970 as ``2026-11-24T07:20:00.000000001Z``. Fast: the seconds are remembered."""
    seconds, rest = divmod(time_ns, 1_000_000_000)
    return f"{_second(seconds)}.{rest:09d}Z"


@lru_cache(maxsize=16)
def _second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def printable(raw: bytes) -> str:
    """Bytes of a path or an argument as text that loses nothing and is always valid UTF-8."""
    if b"\\x" not in raw and b"\\\\" not in raw:
        try:
            return raw.decode()
        except UnicodeDecodeError:
            pass
    return raw.replace(b"\\", b"\\\\").decode(errors="backslashreplace")


def raw_bytes(text: str) -> bytes:
    """The bytes that ``printable`` was given. Raises ValueError for text that it never writes."""
    if "\\x" not in text and "\\\\" not in text:
        return text.encode()
    raw = b"".join(_unescape(part) for part in _ESCAPES.split(text))
    if printable(raw) != text:
        raise ValueError("not how a name is written in a record")
    return raw


def _unescape(part: str) -> bytes:
    if not _ESCAPES.fullmatch(part):
        return part.encode()
    return b"\\" if part == "\\\\" else bytes.fromhex(part[2:])
