"""Each tier is proven by actions of the daemon's own that must be refused: attaching proves nothing.

A child of the daemon (attempt.py) becomes a member of the proof's agent, whose built-in policy refuses one of each kind
of action, and tries them. What is looked at is the world: did the program run, was the file read, is the name still
there; and the kernel's own count says that it was us who were asked. Where a tier refuses, one child tries all; where
it can only end who tries, one child a try.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hostwarden.daemon import attempt, tiers
from hostwarden.daemon.members import mark
from hostwarden.daemon.registry import PROOF_SLOT, Agent
from hostwarden.policy.model import Policy
from hostwarden.policy.parse import parse_policy
from hostwarden.policy.words import FILE_ACTIONS, POLICY_ACTIONS, Action, Tier
from hostwarden.probes.pins import Kernel

HANGS_S = 10
TIMEOUT_S = 30  # an emulated guest takes a second to start Python
BUILT_IN = "built-in.yaml"
READY = b"ready\n"
FOLDER = "proof"  # in state_dir
UNIX = "connect unix"
# What each action by path is tried on, below the proof's folder; and what is there after an attempt that was refused.
FILES = {
    Action.EXEC: "program",
    Action.READ: "file",
    Action.WRITE: "file",
    Action.CREATE: "new",
    Action.DELETE: "deleted",
    Action.RENAME: "renamed",
    Action.LINK: "linked",
    Action.CHMOD: "changed",
    Action.LOAD: "library",
    Action.MOUNT: "mount",
}
BYTES = b"bytes"
MADE = ("new", "renamed-to", "linked-to")
EFFECTS: Mapping[Action, Callable[[Path], bool]] = {
    Action.WRITE: lambda folder: (folder / "file").read_bytes() != BYTES,
    Action.CREATE: lambda folder: (folder / "new").exists(),
    Action.DELETE: lambda folder: not (folder / "deleted").exists(),
    Action.RENAME: lambda folder: (folder / "renamed-to").exists(),
    Action.LINK: lambda folder: (folder / "linked-to").exists(),
    Action.CHMOD: lambda folder: (folder / "changed").stat().st_mode & 0o777 != 0o600,
}


@dataclass(frozen=True)
class Proof:
    """What the tier promised for an action, and what was seen. ``what`` is the action, or a part of it."""

    action: Action
    tier: Tier
    proven: bool
    seen: str
    what: str


@dataclass(frozen=True)
class Try:
    """A name of attempt.TRIES, the action that it is, and the tier that must refuse it."""

    what: str
    action: Action
    tier: Tier


def tries(first: Tier) -> list[Try]:
    """What is tried where ``first`` is the first tier: every action, and unix sockets, which cgroups don't see."""
    found = [Try(str(action), action, tier) for action, tier in tiers.promised(first).items()]
    return [*found, Try(UNIX, Action.CONNECT, first)]


def policy(state_dir: Path) -> Policy:
    """The proof's policy: what must be refused."""
    folder = state_dir / FOLDER
    rules: list[dict[str, Any]] = [{"deny": str(action), "path": f"{folder}/{name}"} for action, name in FILES.items()]
    rules += [
        {"deny": ["connect", "send"], "to": [f"{attempt.NOWHERE[0]}:*"]},
        {"deny": "connect", "to": f"unix:{folder}/socket"},
        {"deny": "listen", "to": "*:*"},
        {"deny": ["namespace", "ptrace", "signal"]},
    ]
    record = {str(action): "none" for action in POLICY_ACTIONS}
    text = json.dumps({"policy": "proof", "for": {}, "rules": rules, "record": record})
    return parse_policy(text.encode(), BUILT_IN, lambda name: None)


def prepare(state_dir: Path) -> Path:
    """The folder that the proof's policy names, with its files."""
    folder = state_dir / FOLDER
    folder.mkdir(mode=0o700, exist_ok=True)
    (folder / "mount").mkdir(mode=0o700, exist_ok=True)
    for name in MADE:
        (folder / name).unlink(missing_ok=True)
    for action in FILE_ACTIONS:
        if action not in (Action.CREATE, Action.MOUNT):
            (folder / FILES[action]).write_bytes(BYTES)
            (folder / FILES[action]).chmod(0o600)
    (folder / "program").write_text("#!/bin/sh\necho ran\n")
    (folder / "program").chmod(0o700)
    return folder


def prove(kernel: Kernel, state_dir: Path, first: Tier, deny_is_kill: bool) -> list[Proof]:
    """Try everything as a member of the proof's agent. What the attempts leave behind is taken away by the next."""
    folder = prepare(state_dir)
    agent = Agent(PROOF_SLOT, 1, "proof", {}, 0)
    kernel.set_agent(agent.slot, agent.id, agent.profile, 0)
    kernel.clear_counts(agent.slot)
    wanted = tries(first)
    refused = [each for each in wanted if each.tier in tiers.REFUSING]
    deadly = [each for each in wanted if each.tier not in tiers.REFUSING]
    return [*_refused(kernel, agent, folder, refused), *_killed(kernel, agent, folder, deny_is_kill, deadly)]


def _refused(kernel: Kernel, agent: Agent, folder: Path, wanted: Sequence[Try]) -> list[Proof]:
    """One child tries all: each call must end with EPERM, without an effect."""
    try:
        with _child(folder, [each.what for each in wanted]) as child:
            _, out = _run(kernel, agent, child)
    except (OSError, subprocess.TimeoutExpired) as error:
        return [_proof(each, False, f"the attempt could not be made: {error}") for each in wanted]
    results = dict(filter(None, map(_result, out.splitlines())))
    asked = kernel.counts(agent.slot).seen
    return [_judge(each, results.get(each.what), folder, asked[each.action] > 0) for each in wanted]


def _result(line: bytes) -> tuple[str, tuple[str | None, bool]] | None:
    """None: not a line of attempt.py's, so the program that must not run has run."""
    try:
        name, code, effect = json.loads(line)
    except ValueError:
        return None
    return name, (code, effect)


def _judge(wanted: Try, result: tuple[str | None, bool] | None, folder: Path, asked: bool) -> Proof:
    if result is None:
        ran = wanted.action is Action.EXEC
        return _proof(wanted, False, "it ran" if ran else "the child ended before it could try")
    code, effect = result
    if code is None:
        return _proof(wanted, False, "the call succeeded")
    if effect or (wanted.action in EFFECTS and EFFECTS[wanted.action](folder)):
        return _proof(wanted, False, f"the call ended with {code}, but had its effect")
    if code not in ("EPERM", "EACCES"):
        return _proof(wanted, False, f"the call ended with {code}")
    if not asked:
        return _proof(wanted, False, f"the call ended with {code}, but not because of us: our program wasn't called")
    return _proof(wanted, True, f"the call ended with {code}, without effect")


def _killed(kernel: Kernel, agent: Agent, folder: Path, deny_is_kill: bool, wanted: Sequence[Try]) -> Iterator[Proof]:
    """A child of its own for each: it must die before it has the result. They start side by side."""
    if not deny_is_kill:
        audited = "deny is audit here, as configured: nothing is refused on this tier"
        yield from (_proof(each, True, audited) for each in wanted)
        return
    with ExitStack() as stack:
        children = [stack.enter_context(_child(folder, [each.what])) for each in wanted]
        for each, child in zip(wanted, children, strict=True):
            try:
                try:
                    code, out = _run(kernel, agent, child, HANGS_S)
                except subprocess.TimeoutExpired:  # no verdict: the attempt is made anew, once
                    code, out = _run(kernel, agent, stack.enter_context(_child(folder, [each.what])))
            except (OSError, subprocess.TimeoutExpired) as error:
                yield _proof(each, False, f"the attempt could not be made: {error}")
                continue
            killed = code == -signal.SIGKILL and out == b""
            yield _proof(each, killed, "killed before it had the result" if killed else f"it lived: {code}")


def _proof(wanted: Try, proven: bool, seen: str) -> Proof:
    return Proof(wanted.action, wanted.tier, proven, seen, wanted.what)


def _run(
    kernel: Kernel, agent: Agent, child: "subprocess.Popen[bytes]", timeout_s: float = TIMEOUT_S
) -> tuple[int, bytes]:
    """The child tries as a member: its exit code, and what it printed. Raises OSError, TimeoutExpired."""
    assert child.stdout
    if child.stdout.read(len(READY)) != READY:
        raise OSError("the child that tries could not make what it needs")
    if not mark(kernel, child.pid, agent):
        raise ProcessLookupError("the child that tries was gone before it could be bound")
    out, _ = child.communicate(b"\n", timeout=timeout_s)
    return child.returncode, out


@contextmanager
def _child(folder: Path, names: Sequence[str]) -> Iterator["subprocess.Popen[bytes]"]:
    """attempt.py, which makes what it needs, says READY, and waits for a byte before it tries."""
    child = subprocess.Popen(
        [sys.executable, "-I", "-S", attempt.__file__],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        bufsize=0,
        cwd="/",
        env={"PATH": os.defpath},
    )
    try:
        assert child.stdin
        child.stdin.write(json.dumps({"folder": str(folder), "tries": list(names)}).encode() + b"\n")
        yield child
    finally:
        if child.poll() is None:
            child.kill()
            child.wait()
        for stream in (child.stdin, child.stdout):
            if stream:
                stream.close()
