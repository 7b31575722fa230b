"""Hostile inputs by the thousand: policy files, messages, names and arguments, for test_hostile.py.

They are the same ones in every run, so that a failure can be had again.
"""

import random
import struct
from collections.abc import Callable
from typing import TypeVar

from google.protobuf.message import DecodeError, Message
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from hostwarden.wire import hostwarden_pb2 as pb

T = TypeVar("T")

POLICY = b"""policy: fuzz
for: {team: test}
mode: enforce
rules:
  - allow: exec
    path: [/usr/bin/python3*, "/usr/bin/{git,ssh}"]
  - kill: exec
    argv: ["git push --force*", "* rm -rf /*"]
    why: "a person; ask"
  - deny: [read, write]
    path: ["**/.ssh/**", "**/.env", /etc/shadow]
    except: ["/home/[a-z]*/.env"]
  - audit: connect
    to: ["10.0.0.0/8:5432", "[fd00::/8]:*"]
    user: root
otherwise: {exec: deny, write: deny, read: allow, connect: deny}
record: {read: denied}
"""
FRAGMENTS = [
    b"policy: ", b"for: ", b"rules:", b"\n", b"\n  - ", b"\n    ", b"\n\t", b"deny: ", b"allow: ", b"kill: ",
    b"exec", b"read", b"[", b"]", b"{", b"}", b", ", b": ", b"path: ", b"argv: ", b"to: ", b"user: ", b"except: ",
    b"otherwise: ", b"record: ", b"why: ", b"mode: ", b"when: x", b"**", b"*", b"?", b"/", b"{a,b}" * 9, b"[a-", b"[^]",
    b"\"", b"'", b"\\", b"\\x00", b"\0", b"\xff", b"\xef\xbb\xbf", b"&a ", b"*a", b"<<: *a", b"!!python/", b"!!binary ",
    b"|\n", b">", b"--- ", b"...\n", b"%YAML 9.9\n", b"1e999", b"0x", b"~", b"null", b"10.0.0.0/33:1", b"::", b"65536",
    b"[fd00::/8]:*", b"-1", b"\xe2\x80\xae", b"\x1b[2J", b"\r", b"\xc2\x85", b"a" * 300, b"[" * 200, b"#",
]  # fmt: skip


def examples(strategy: st.SearchStrategy[T], count: int) -> list[T]:
    """``count`` different ones."""
    found: list[T] = []

    @settings(
        max_examples=count,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(strategy)
    def gather(example: T) -> None:
        found.append(example)

    gather()
    assert len(found) == count
    return found


@st.composite
def mutated(draw: st.DrawFn, seed: bytes) -> bytes:
    """``seed`` with some stretches of it replaced by bytes, repeated, or left out."""
    data = bytearray(seed)
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(data)))
        end = min(len(data), start + draw(st.integers(0, 12)))
        data[start:end] = draw(st.one_of(st.binary(max_size=8), st.just(bytes(data[start:end]) * 2)))
    return bytes(data)


def policy_files() -> st.SearchStrategy[bytes]:
    """Any bytes, words of the language in any order, and policies with something wrong in them."""
    words = st.lists(st.sampled_from(FRAGMENTS), max_size=40).map(b"".join)
    return st.one_of(st.binary(max_size=300), words, words.map(lambda tail: POLICY + tail), mutated(POLICY))


# Nobody's: they name no process, no agent, no label of the tests.
REQUESTS: dict[str, Message] = {
    "Status": pb.StatusRequest(),
    "Doctor": pb.DoctorRequest(),
    "Ps": pb.PsRequest(),
    "Events": pb.EventsRequest(since=1 << 40, agent="nobody", verdict="deny", host="nowhere"),
    "Bind": pb.BindRequest(agent="nobody", labels={"team": "none"}, pid=1 << 30, start_ticks=77),
    "Adopt": pb.AdoptRequest(agent="nobody", labels={"team": "none"}, pid=1 << 30),
    "Kill": pb.KillRequest(labels={"team": "none"}, timeout_s=0.1),
    "Release": pb.ReleaseRequest(labels={"team": "none"}),
    "Reload": pb.ReloadRequest(),
    "Arm": pb.ArmRequest(armed=True),
}
# What a request must not ask for, or a change would be what was asked: by call.
ASKS_FOR_CHANGE: dict[str, Callable[[Message], bool]] = {
    "Adopt": lambda request: 0 < request.pid < 1 << 22,  # type: ignore[attr-defined]
    "Kill": lambda request: "test" in request.labels.values(),  # type: ignore[attr-defined]
    "Release": lambda request: "test" in request.labels.values(),  # type: ignore[attr-defined]
    "Reload": lambda request: True,
    "Arm": lambda request: True,
}


def messages(call: str) -> st.SearchStrategy[bytes]:
    """Bytes that are no request of this call, or one that asks for nothing that could be had."""
    any_bytes = st.binary(max_size=120)
    seed = REQUESTS[call].SerializeToString()
    return st.one_of(any_bytes, mutated(seed), any_bytes.map(lambda tail: seed + tail)).filter(
        lambda data: not _asks_for_change(call, data)
    )


def _asks_for_change(call: str, data: bytes) -> bool:
    request = type(REQUESTS[call])()
    try:
        request.ParseFromString(data)
    except DecodeError:
        return False
    return call in ASKS_FOR_CHANGE and ASKS_FOR_CHANGE[call](request)


PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"  # RFC 9113, 3.4
SETTINGS = b"\0\0\0\4\0\0\0\0\0"


def connections() -> st.SearchStrategy[bytes]:
    """What somebody sends who speaks no HTTP/2, or speaks it badly."""
    any_bytes = st.binary(max_size=200)
    frames = st.lists(st.tuples(st.integers(0, 255), st.integers(0, 255), st.binary(max_size=30)), max_size=5)
    return st.one_of(
        any_bytes,
        any_bytes.map(lambda tail: PREFACE + SETTINGS + tail),
        frames.map(lambda found: PREFACE + SETTINGS + b"".join(_frame(*each) for each in found)),
        mutated(PREFACE + SETTINGS),
    )


def _frame(kind: int, flags: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + b"\0\0\0\1" + payload


# Pieces of names and arguments that somebody downstream could trip over: terminals, JSON, shells, our own escapes.
NASTY = [
    b"\n", b"\r", b"\t", b"\x1b]0;title\x07", b"\x1b[2J\x1b[1;1H", b"\x7f", b"\x9b31m", b"\xc2\x9b", b"\xe2\x80\xae",
    b"\xe2\x80\xa8", b"\"", b"'", b"\\", b"\\x41", b"\\\\", b"\\n", b"\"},{\"verdict\":\"allow\"", b"$(id)", b"`id`",
    b";", b" ", b"-", b"--json", b"%s%n", b"\xff", b"\xc3", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xf0\x9f\x98\x80",
    b"..", b"*", b"[a", b"**", b"\x01", b"\xef\xbb\xbf", b"\xc2\x85", b"NaN", b"null",
]  # fmt: skip


def _text(random_: random.Random, length: int, without: bytes) -> bytes:
    kind = random_.randrange(3) if length < 1000 else 0
    if kind == 0:
        raw = random_.randbytes(length)
    elif kind == 1:
        raw = b"".join(random_.choice(NASTY) for _ in range(length // 2 + 1))
    else:
        raw = random_.randbytes(length // 2) + random_.choice(NASTY) + b"a" * (length // 2)
    return raw.translate(None, without)[:length]


def file_names(count: int) -> list[bytes]:
    """Different names of up to 255 bytes: all but a slash and NUL."""
    random_ = random.Random(8)
    found: dict[bytes, None] = {}
    while len(found) < count:
        name = _text(random_, random_.choice((1, 2, 8, 30, 254, 255)), b"\0/")
        if name not in (b"", b".", b".."):
            found[name] = None
    return list(found)


def argument_lists(count: int) -> list[list[bytes]]:
    """None, one, a dozen; empty, short, long ones, and some beyond what is matched and shown."""
    random_ = random.Random(9)
    lengths = (0, 1, 3, 10, 60, 300, 4096, 100_000)
    often = (50, 30, 30, 60, 40, 20, 4, 1)
    return [
        [_text(random_, length, b"\0") for length in random_.choices(lengths, often, k=random_.choice(HOW_MANY))]
        for _ in range(count)
    ]


HOW_MANY = (0, 1, 1, 2, 3, 12)


def as_list_file(names: list[bytes], arguments: list[list[bytes]]) -> bytes:
    """As programs/hostile.c reads it."""

    def number(value: int) -> bytes:
        return struct.pack("=I", value)

    def texts(found: list[bytes]) -> bytes:
        return number(len(found)) + b"".join(number(len(each)) + each for each in found)

    return texts(names) + number(len(arguments)) + b"".join(map(texts, arguments))
