"""The attempts that prove a tier: where nobody refuses, each must succeed and have its effect, or it proves nothing.

The kernel's half is a stub that counts; the child, its attempts and the world are real. Root: mounts and namespaces.
"""

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from hostwarden.daemon import attempt, proofs
from hostwarden.policy.oracle import Attempt, decide
from hostwarden.policy.words import NET_ACTIONS, PLAIN_ACTIONS, POLICY_ACTIONS, Action, Tier, Verdict
from hostwarden.probes.pins import Kernel, Member


class Unguarded:
    """What proofs ask of the kernel, on one that refuses nothing."""

    def __init__(self, seen: int = 1) -> None:
        self.seen = seen

    def set_agent(self, *row: int) -> None: ...

    def clear_counts(self, slot: int) -> None: ...

    def mark_process(self, pid: int, member: Member) -> None: ...

    def mark_thread(self, pidfd: int, member: Member) -> None: ...

    def counts(self, slot: int) -> Any:
        return SimpleNamespace(seen=(self.seen,) * len(Action))


def test_where_nobody_refuses_everything_succeeds_and_nothing_is_proven(tmp_path: Path) -> None:
    mounts = Path("/proc/self/mountinfo").read_text()
    found = proofs.prove(cast(Kernel, Unguarded()), tmp_path, Tier.LSM, deny_is_kill=True)
    assert {proof.what for proof in found} == {*map(str, POLICY_ACTIONS), proofs.UNIX}
    assert not any(proof.proven for proof in found)
    reached = {"connect", "send"}  # nobody has the address: how the call ends is the network's business
    assert {proof.seen for proof in found if proof.what not in {"exec", *reached}} == {"the call succeeded"}
    assert [proof.seen for proof in found if proof.what == "exec"] == ["it ran"]
    folder = tmp_path / proofs.FOLDER
    assert all(happened(folder) for happened in proofs.EFFECTS.values())
    assert Path("/proc/self/mountinfo").read_text() == mounts


def test_where_nobody_kills_nothing_is_proven(tmp_path: Path) -> None:
    found = proofs.prove(cast(Kernel, Unguarded()), tmp_path, Tier.SIGNAL, deny_is_kill=True)
    assert {proof.tier for proof in found} == {Tier.SIGNAL, Tier.CGROUP}
    assert not any(proof.proven for proof in found)
    assert {proof.seen for proof in found if proof.tier is Tier.SIGNAL} == {"it lived: 0"}


def test_deny_that_is_audit_is_nothing_to_prove(tmp_path: Path) -> None:
    found = proofs.prove(cast(Kernel, Unguarded()), tmp_path, Tier.SIGNAL, deny_is_kill=False)
    assert all(proof.proven for proof in found if proof.tier is Tier.SIGNAL)


@pytest.mark.parametrize(
    ("code", "effect", "asked", "proven", "seen"),
    [
        ("EPERM", False, True, True, "the call ended with EPERM, without effect"),
        ("EACCES", False, True, True, "the call ended with EACCES, without effect"),
        ("EPERM", True, True, False, "the call ended with EPERM, but had its effect"),
        ("EPERM", False, False, False, "the call ended with EPERM, but not because of us"),
        ("ENOENT", False, True, False, "the call ended with ENOENT"),
        (None, False, True, False, "the call succeeded"),
    ],
)
def test_what_counts_as_refused(
    tmp_path: Path, code: str | None, effect: bool, asked: bool, proven: bool, seen: str
) -> None:
    wanted = proofs.Try("mount", Action.MOUNT, Tier.LSM)
    proof = proofs._judge(wanted, (code, effect), proofs.prepare(tmp_path), asked)
    assert (proof.proven, proof.seen.startswith(seen)) == (proven, True)


def test_an_effect_that_the_world_shows_counts_whatever_the_call_said(tmp_path: Path) -> None:
    folder = proofs.prepare(tmp_path)
    (folder / "deleted").unlink()
    wanted = proofs.Try("delete", Action.DELETE, Tier.LSM)
    assert "had its effect" in proofs._judge(wanted, ("EPERM", False), folder, True).seen
    proofs.prepare(tmp_path)
    assert proofs._judge(wanted, ("EPERM", False), folder, True).proven


def test_the_policy_refuses_every_attempt_and_nothing_that_an_attempt_needs(tmp_path: Path) -> None:
    policy = [proofs.policy(tmp_path)]
    folder = tmp_path / proofs.FOLDER

    def verdict(action: Action, path: Path | None = None, **fields: Any) -> Verdict:
        given = None if path is None else bytes(path)
        return decide(policy, Attempt(action, path=given, **fields)).enforced

    for action, name in proofs.FILES.items():
        assert verdict(action, folder / name) is Verdict.DENY
    for action in PLAIN_ACTIONS:
        assert verdict(action) is Verdict.DENY
    address: dict[str, Any] = {"address": bytes(10) + b"\xff\xff\xc0\x00\x02\x01", "port": attempt.NOWHERE[1]}
    assert {verdict(action, **address) for action in NET_ACTIONS} == {Verdict.DENY}
    assert verdict(Action.CONNECT, folder / "socket") is Verdict.DENY
    needed = [(Action.READ, folder / "library"), (Action.READ, Path("/proc/self/mountinfo")), (Action.READ, folder)]
    assert {verdict(*each) for each in needed} == {Verdict.ALLOW}
    assert set(attempt.TRIES) == {*map(str, POLICY_ACTIONS), proofs.UNIX}
