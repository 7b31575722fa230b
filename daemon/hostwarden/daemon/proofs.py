"""Each tier is proven by an action of the daemon's own that must be refused: attaching proves nothing.

A child of the daemon becomes a member of the proof's agent, whose built-in policy refuses one program, one file and
one address, and tries each. What is looked at is the world: did the program run, was the file read, did the call fail.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from hostwarden.daemon.members import mark
from hostwarden.daemon.registry import PROOF_SLOT, Agent
from hostwarden.policy.model import Policy
from hostwarden.policy.parse import parse_policy
from hostwarden.policy.words import Action, Tier
from hostwarden.probes.pins import Kernel

# TEST-NET-1 (RFC 5737): no host has it, and the refusal comes before any packet.
ADDRESS = ("192.0.2.1", 9)
TIMEOUT_S = 10
BUILT_IN = "built-in.yaml"


@dataclass(frozen=True)
class Proof:
    """What the tier promised for an action, and what was seen."""

    action: Action
    tier: Tier
    proven: bool
    seen: str


def policy(folder: Path) -> Policy:
    """The proof's policy: what must be refused."""
    text = f"""
policy: proof
for: {{}}
rules:
  - deny: exec
    path: "{folder}/program"
  - deny: [read, write]
    path: "{folder}/file"
  - deny: create
    path: "{folder}/new"
  - deny: [connect, send]
    to: "{ADDRESS[0]}:*"
record: {{exec: none, read: none, write: none, create: none, connect: none, send: none}}
"""
    return parse_policy(text.encode(), BUILT_IN, lambda name: None)


def prepare(state_dir: Path) -> Path:
    """The folder that the proof's policy names, with its files."""
    folder = state_dir / "proof"
    folder.mkdir(mode=0o700, exist_ok=True)
    program = folder / "program"
    program.write_text("#!/bin/sh\necho ran\n")
    program.chmod(0o700)
    (folder / "file").write_text("bytes")
    return folder


def prove(kernel: Kernel, folder: Path, deny_is_kill: bool) -> list[Proof]:
    """Try every action as a member of the proof's agent."""
    agent = Agent(PROOF_SLOT, 1, "proof", {}, 0)
    kernel.set_agent(agent.slot, agent.id, agent.profile, 0)
    (folder / "new").unlink(missing_ok=True)
    tries: list[tuple[Action, Tier, str]] = [
        (Action.EXEC, Tier.SIGNAL, f"os.execv({str(folder / 'program')!r}, ['program'])"),
        (Action.READ, Tier.SIGNAL, f"print(open({str(folder / 'file')!r}).read())"),
        (Action.WRITE, Tier.SIGNAL, f"open({str(folder / 'file')!r}, 'r+').write('x')"),
        (Action.CREATE, Tier.SIGNAL, f"open({str(folder / 'new')!r}, 'x').write('x')"),
        (Action.CONNECT, Tier.CGROUP, f"socket.socket().connect({ADDRESS!r})"),
        (Action.SEND, Tier.CGROUP, f"socket.socket(type=socket.SOCK_DGRAM).sendto(b'x', {ADDRESS!r})"),
    ]
    return [_prove(kernel, agent, deny_is_kill, *attempt) for attempt in tries]


def _prove(kernel: Kernel, agent: Agent, deny_is_kill: bool, action: Action, tier: Tier, code: str) -> Proof:
    try:
        with _stopped_child(code) as (child, go):
            if not mark(kernel, child.pid, agent):
                return Proof(action, tier, False, "the child that tries was gone before it could be bound")
            go()
            out, _ = child.communicate(timeout=TIMEOUT_S)
    except (OSError, subprocess.TimeoutExpired) as error:
        return Proof(action, tier, False, f"the attempt could not be made: {error}")
    if tier is Tier.CGROUP:
        return Proof(action, tier, out == b"EPERM", f"the call ended with {out.decode(errors='replace') or 'no error'}")
    if not deny_is_kill:
        return Proof(action, tier, True, "deny is audit here, as configured: nothing is refused on this tier")
    killed = child.returncode == -signal.SIGKILL and out == b""
    return Proof(action, tier, killed, "killed before it had the result" if killed else f"it lived: {child.returncode}")


@contextmanager
def _stopped_child(code: str) -> Iterator[tuple["subprocess.Popen[bytes]", Callable[[], None]]]:
    """A Python that waits for a byte before it tries; whatever it prints is a success that must not be."""
    program = f"""
import os, socket, sys
sys.stdin.buffer.read(1)
try:
    {code}
except OSError as error:
    print(__import__('errno').errorcode.get(error.errno, error), end='', flush=True)
"""
    child = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd="/",
        env={"PATH": os.defpath},
    )

    def go() -> None:
        assert child.stdin
        child.stdin.write(b"x")
        child.stdin.flush()

    try:
        yield child, go
    finally:
        if child.poll() is None:
            child.kill()
            child.wait()
        for stream in (child.stdin, child.stdout):
            if stream:
                stream.close()
