"""Addresses: what may not be reached isn't, by any of the ways to send, and nothing arrives there.

Each row is a way to send the word "leaving". What the kernel answered is one word a step on stdout; what counts is what
the servers, which listen on every loopback address, have seen.
"""

import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.host.conftest import Hostwarden
from tests.host.listeners import Listener, listener
from tests.host.resident import KILLED, MARKER_POLICY, Outsider, Resident

NOBODY = 65534

# Rows name ports: O is open to everybody, C closed, H closed at one address (127.0.0.2), L at IPv4's loopback only. T's
# server is only at 127.0.0.2, and closed there.
POLICIES = {
    "net": """policy: net
for: {{case: net}}
rules:
  - deny: [connect, send]
    to: ["127.0.0.0/8:{C}", "[::1]:{C}", "127.0.0.2:{H}", "127.0.0.2:{T}", "127.0.0.1:{L}", "[fd00::/8]:*"]
    why: closed for agents
""",
    "list": """policy: list
for: {{case: list}}
rules:
  - allow: [connect, send]
    to: ["127.0.0.1:{O}"]
otherwise: {{connect: deny, send: deny}}
""",
    "kill": "policy: kill\nfor: {{case: kill}}\nrules:\n  - kill: [connect, send]\n    to: ['*:{C}']\n",
    "observe": """policy: observe
for: {{case: observe}}
mode: observe
rules:
  - kill: [connect, send]
    to: "*:*"
""",
    "two-a": """policy: two-a
for: {{case: two}}
rules:
  - allow: connect
    to: "*:*"
  - audit: send
    to: "*:*"
""",
    "two-b": "policy: two-b\nfor: {{case: two}}\nrules:\n  - deny: connect\n    to: ['*:{C}']\n",
    "user": "policy: user\nfor: {{case: user}}\nrules:\n  - deny: connect\n    to: ['*:*']\n    user: [nobody]\n",
}
CASES = ("net", "list", "kill", "observe", "two", "user")


@dataclass(frozen=True)
class World:
    """Servers by the letter that rows use, agents by their case, and the program."""

    servers: dict[str, Listener]
    agents: dict[str, Resident]
    program: Path

    def fill_in(self, argv: str) -> list[str]:
        """A row's arguments: letters become ports."""
        return [str(self.servers[word].port) if word in self.servers else word for word in argv.split()]

    def arrived(self) -> str:
        """What the servers have seen since the last time: a letter for each "leaving", small for each connection."""
        seen = ""
        for letter, server in sorted(self.servers.items()):
            connections, data = server.arrived()
            assert data == b"leaving" * data.count(b"leaving")
            seen += letter.lower() * connections + letter * data.count(b"leaving")
        return seen


@pytest.fixture(scope="module")
def world(hostwarden: Hostwarden, program: Callable[[str], Path]) -> Iterator[World]:
    """All of it, under all policies at once: each agent's labels choose its own."""
    with ExitStack() as stack:
        servers = {letter: stack.enter_context(listener()) for letter in "OCHL"}
        servers["T"] = stack.enter_context(listener({socket.AF_INET: "127.0.0.2"}))
        ports = {letter: server.port for letter, server in servers.items()}
        binary = hostwarden.root / "net"  # where other users may execute it, too
        binary.write_bytes(program("net").read_bytes())
        binary.chmod(0o755)
        marker = hostwarden.root / "marker"
        policies = {name: text.format(**ports) for name, text in POLICIES.items()}
        hostwarden.set_policies(marker=MARKER_POLICY.format(marker=marker), **policies)
        agents = {case: Resident(hostwarden, case, f"case={case}", marker) for case in CASES}
        for agent in agents.values():
            stack.callback(agent.close)
        yield World(servers, agents, binary)


# way and addresses; the steps' answers, what arrives; the refused action and its target (ports as letters)
REFUSED = {
    "tcp": ("tcp 127.0.0.1 C", "EPERM", "", "connect 127.0.0.1:C"),
    "tcp, another of the range": ("tcp 127.9.8.7 C", "EPERM", "", "connect 127.9.8.7:C"),
    "tcp v6": ("tcp ::1 C", "EPERM", "", "connect [::1]:C"),
    "tcp in a thread": ("thread 127.0.0.1 C", "EPERM", "", "connect 127.0.0.1:C"),
    "tcp in a vfork": ("vfork 127.0.0.1 C", "EPERM", "", "connect 127.0.0.1:C"),
    "fast open by sendto": ("tfo 127.0.0.1 C", "EPERM", "", "connect 127.0.0.1:C"),
    "fast open by sendto, v6": ("tfo ::1 C", "EPERM", "", "connect [::1]:C"),
    "fast open by connect": ("tfo-connect 127.0.0.1 C", "EPERM", "", "connect 127.0.0.1:C"),
    "udp connect": ("udp 127.0.0.1 C", "EPERM", "", "connect 127.0.0.1:C"),
    "udp connect v6": ("udp ::1 C", "EPERM", "", "connect [::1]:C"),
    "udp sendto": ("sendto 127.0.0.1 C", "EPERM", "", "send 127.0.0.1:C"),
    "udp sendto v6": ("sendto ::1 C", "EPERM", "", "send [::1]:C"),
    "udp sendmsg": ("sendmsg 127.0.0.1 C", "EPERM", "", "send 127.0.0.1:C"),
    # the first message goes out, the second doesn't
    "sendmmsg": ("sendmmsg 127.0.0.1 O 127.0.0.1 C", "EPERM", "O", "send 127.0.0.1:C"),
    "sendmmsg v6": ("sendmmsg ::1 O ::1 C", "EPERM", "O", "send [::1]:C"),
    "sendmmsg, the first": ("sendmmsg 127.0.0.1 C 127.0.0.1 O", "EPERM", "", "send 127.0.0.1:C"),
    "connected, sent elsewhere": ("elsewhere 127.0.0.1 O 127.0.0.1 C", "ok EPERM", "", "send 127.0.0.1:C"),
    "connected again": ("reconnect 127.0.0.1 O 127.0.0.1 C", "ok EPERM", "", "connect 127.0.0.1:C"),
    # other ways to write the address
    "mapped v4": ("tcp ::ffff:127.0.0.1 C", "EPERM", "", "connect 127.0.0.1:C"),
    "mapped v4, sendto": ("sendto ::ffff:127.0.0.1 C", "EPERM", "", "send 127.0.0.1:C"),
    "mapped v4, udp": ("udp ::ffff:127.0.0.1 C", "EPERM", "", "connect 127.0.0.1:C"),
    "0.0.0.0": ("tcp 0.0.0.0 C", "EPERM", "", "connect 127.0.0.1:C"),
    "0.0.0.0, sendto": ("sendto 0.0.0.0 C", "EPERM", "", "send 127.0.0.1:C"),
    "0.0.0.0, fast open": ("tfo 0.0.0.0 C", "EPERM", "", "connect 127.0.0.1:C"),
    "::": ("tcp :: C", "EPERM", "", "connect [::1]:C"),
    "::, sendto": ("sendto :: C", "EPERM", "", "send [::1]:C"),
    "::ffff:0.0.0.0": ("tcp ::ffff:0.0.0.0 C", "EPERM", "", "connect 127.0.0.1:C"),
}
# What no hook sees at connect or send isn't given at all where a policy can refuse either: protocol, refused socket
SOCKETS = {
    "mptcp": ("mptcp 127.0.0.1 C", 262),
    "mptcp v6": ("mptcp ::1 C", 262),
    "mapped v4, mptcp": ("mptcp ::ffff:127.0.0.1 C", 262),
    "udp-lite connect": ("udplite 127.0.0.1 C", 136),
    "udp-lite connect v6": ("udplite ::1 C", 136),
    "udp-lite sendto": ("udplite-sendto 127.0.0.1 C", 136),
}


@pytest.mark.parametrize(("argv", "answers", "arrives", "refusal"), REFUSED.values(), ids=REFUSED)
def test_refused_and_nothing_arrives(world: World, argv: str, answers: str, arrives: str, refusal: str) -> None:
    world.arrived()
    done = world.agents["net"].attempt([world.program, *world.fill_in(argv)])
    assert (done.out.split(), world.arrived()) == (answers.split(), arrives), done
    action, target = refusal.split()
    host, _, letter = target.rpartition(":")
    expected = (action, f"{host}:{world.servers[letter].port}", "deny", "cgroup", "prevented", "net.yaml:4")
    # An attempt may be made twice (sendmmsg tells the second message's error only to who sends that again).
    refusals = done.refused("action", "target", "verdict", "tier", "outcome", "rule")
    assert refusals and set(refusals) == {expected}, done.records


@pytest.mark.parametrize(("argv", "answers", "arrives", "refusal"), REFUSED.values(), ids=REFUSED)
def test_who_is_no_agent_reaches_it(world: World, argv: str, answers: str, arrives: str, refusal: str) -> None:
    world.arrived()
    done = Outsider().attempt([world.program, *world.fill_in(argv)])
    seen = world.arrived()
    letter = refusal[-1]
    assert "EPERM" not in done.out and letter in seen, (done, seen)


@pytest.mark.parametrize(("way", "action"), [("connect", "connect"), ("sendto", "send")])
def test_io_uring_goes_through_the_same_hooks(
    world: World, program: Callable[[str], Path], way: str, action: str
) -> None:
    argv = [str(program("uring")), *world.fill_in(f"{way} 127.0.0.1 C")]
    world.arrived()
    assert Outsider().attempt(argv).out == "ok\n"
    assert "C" in world.arrived()
    done = world.agents["net"].attempt(argv)
    assert (done.out, world.arrived()) == ("EPERM\n", ""), done
    assert done.refused("action", "verdict", "outcome") == [(action, "deny", "prevented")]


@pytest.mark.parametrize(("argv", "protocol"), SOCKETS.values(), ids=SOCKETS)
def test_sockets_that_could_not_be_judged(world: World, argv: str, protocol: int) -> None:
    world.arrived()
    done = world.agents["net"].attempt([world.program, *world.fill_in(argv)])
    assert (done.out.split(), world.arrived()) == (["EPERM"], ""), done
    refusals = done.refused("action", "target", "verdict", "tier", "outcome")
    family = "inet6" if "::" in argv else "inet"
    assert refusals == [("connect", f"socket:{family}:{protocol}", "deny", "cgroup", "prevented")]
    world.arrived()
    assert Outsider().attempt([world.program, *world.fill_in(argv)]).code == 0
    assert "C" in world.arrived()


@pytest.mark.parametrize(("way", "action"), [("bound", "connect"), ("bound-sendto", "send")])
def test_zero_is_loopback_wherever_the_socket_is_bound(world: World, way: str, action: str) -> None:
    """The kernel takes 0.0.0.0 for the address that a socket is bound to. What is judged, loopback, is reached."""
    argv = [str(world.program), *world.fill_in(f"{way} 0.0.0.0 T 127.0.0.2 0")]
    world.arrived()
    Outsider().attempt(argv)
    assert "T" in world.arrived()
    done = world.agents["net"].attempt(argv)
    assert world.arrived() == "", done
    (record,) = done.of(action=action)
    assert record["target"] == f"127.0.0.1:{world.servers['T'].port}"


def test_zero_of_one_family_is_no_way_to_the_other(world: World) -> None:
    """A socket that is bound to a mapped IPv4 address takes :: for IPv4's loopback; judged it is, and stays, IPv6's."""
    argv = [str(world.program), *world.fill_in("bound :: L ::ffff:127.0.0.1 0")]
    world.arrived()
    Outsider().attempt(argv)
    assert "L" in world.arrived()
    done = world.agents["net"].attempt(argv)
    assert world.arrived() == "", done
    (record,) = done.of(action="connect")
    assert record["target"] == f"[::1]:{world.servers['L'].port}"


# policy; way; answers, arrives, exit; records of connect and send (verdict, mode, outcome)
OTHERS = {
    "allowed": ("net", "tcp 127.0.0.1 O", "ok ok", "oO", 0, ["allow enforce observed"]),
    "allowed, send": ("net", "sendto ::1 O", "ok", "O", 0, ["allow enforce observed"]),
    "the same port elsewhere": ("net", "tcp 127.0.0.1 H", "ok ok", "hH", 0, ["allow enforce observed"]),
    "the other family": ("net", "tcp ::1 L", "ok ok", "lL", 0, ["allow enforce observed"]),
    "bound elsewhere": ("net", "bound 0.0.0.0 H 127.0.0.3 0", "ok ok ok", "hH", 0, ["allow enforce observed"]),
    "listed": ("list", "tcp 127.0.0.1 O", "ok ok", "oO", 0, ["allow enforce observed"]),
    "listed, mapped": ("list", "tcp ::ffff:127.0.0.1 O", "ok ok", "oO", 0, ["allow enforce observed"]),
    "not listed: address": ("list", "tcp 127.0.0.3 O", "EPERM", "", 1, ["deny enforce prevented"]),
    "not listed: family": ("list", "sendto ::1 O", "EPERM", "", 1, ["deny enforce prevented"]),
    "not listed: port": ("list", "tcp 127.0.0.1 C", "EPERM", "", 1, ["deny enforce prevented"]),
    "killed": ("kill", "tcp 127.0.0.1 C", "", "", KILLED, ["kill enforce killed_before_effect"]),
    "killed, sendto": ("kill", "sendto ::1 C", "", "", KILLED, ["kill enforce killed_before_effect"]),
    "killed, fast open": ("kill", "tfo 127.0.0.1 C", "", "", KILLED, ["kill enforce killed_before_effect"]),
    "killed in a thread": ("kill", "thread 127.0.0.1 C", "", "", KILLED, ["kill enforce killed_before_effect"]),
    "killed in a vfork": ("kill", "vfork 127.0.0.1 C", "", "", KILLED, ["kill enforce killed_before_effect"]),
    "killed at the second": (
        "kill", "elsewhere 127.0.0.1 O 127.0.0.1 C", "ok", "", KILLED,
        ["allow enforce observed", "kill enforce killed_before_effect"],
    ),
    "observed": ("observe", "tcp 127.0.0.1 C", "ok ok", "cC", 0, ["kill observe observed"]),
    "observed, mptcp": ("observe", "mptcp 127.0.0.1 C", "ok ok", "cC", 0, ["kill observe observed"]),
    "observed, sendto": ("observe", "sendto 127.0.0.1 C", "ok", "C", 0, ["kill observe observed"]),
    "two policies, the stricter": ("two", "tcp 127.0.0.1 C", "EPERM", "", 1, ["deny enforce prevented"]),
    "two policies, audited": ("two", "sendto 127.0.0.1 C", "ok", "C", 0, ["audit enforce observed"]),
    "another user, udp-lite": ("user", "udplite-sendto ::1 C", "EPERM", "", 6, ["deny enforce prevented"]),
    "another user": ("user", "tcp 127.0.0.1 C", "ok ok", "cC", 0, ["allow enforce observed"]),
}  # fmt: skip


@pytest.mark.parametrize(("case", "argv", "answers", "arrives", "code", "records"), OTHERS.values(), ids=OTHERS)
def test_verdicts(
    world: World, case: str, argv: str, answers: str, arrives: str, code: int, records: list[str]
) -> None:
    world.arrived()
    done = world.agents[case].attempt([world.program, *world.fill_in(argv)])
    assert (done.out.split(), world.arrived(), done.code) == (answers.split(), arrives, code), done
    seen = [record for record in done.records if record["action"] in ("connect", "send")]
    assert [f"{record['verdict']} {record['mode']} {record['outcome']}" for record in seen] == records


def test_deny_by_user(world: World) -> None:
    world.arrived()
    done = world.agents["user"].attempt([world.program, *world.fill_in("tcp 127.0.0.1 O")], uid=NOBODY)
    assert (done.out.split(), world.arrived()) == (["EPERM"], "")
    (refusal,) = done.refusals
    assert (refusal["verdict"], refusal["process"]["uid"]) == ("deny", NOBODY)


@pytest.mark.parametrize(
    "script",
    [
        "exec unshare -n sh -c 'ip link set lo up; {net} tcp 127.0.0.1 {port}'",
        "exec unshare -Urn sh -c 'ip link set lo up; {net} sendto 127.0.0.1 {port}'",
        "exec setpriv --reuid 65534 --clear-groups {net} tcp 127.0.0.1 {port}",
    ],
    ids=["another network namespace", "a user namespace", "another user"],
)
def test_no_place_is_outside(world: World, script: str) -> None:
    world.arrived()
    line = script.format(net=world.program, port=world.servers["C"].port)
    done = world.agents["net"].attempt(["sh", "-ec", line])
    assert (done.out.split(), world.arrived()) == (["EPERM"], ""), done
    assert done.refused("verdict", "outcome") == [("deny", "prevented")]
