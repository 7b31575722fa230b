"""The policy that every agent is under, enforced: an agent that is root, under no other policy or one that observes."""

import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from hostwarden.daemon.cgroups import find_v2
from hostwarden.daemon.mounts import read_mounts
from tests.host.conftest import PROGRAMS, Hostwarden

KILLED = 128 + 9
POLICIES = {
    "none": {},
    "observing": {"p": "policy: p\nfor: {}\nmode: observe\nrules:\n  - deny: exec\n    path: /none\n"},
}
PYTHON = "/usr/bin/python3"

Where = Callable[[Hostwarden], Path]


@pytest.fixture(params=POLICIES)
def unbound(request: pytest.FixtureRequest, hostwarden: Hostwarden) -> Hostwarden:
    """A daemon whose policies refuse nothing."""
    hostwarden.set_policies(**POLICIES[request.param])
    return hostwarden


# what, where, and what tells that nothing came of it
TRIES: list[tuple[str, str, Where]] = [
    ("write", "echo x >> {path}", lambda daemon: daemon.config),
    ("create", "echo x > {path}", lambda daemon: daemon.policy_dir / "mine.yaml"),
    ("create", "echo x > {path}", lambda daemon: daemon.agents_dir / "mine.yaml"),
    ("write", "echo x >> {path}", lambda daemon: daemon.state_dir / "state.json"),
    ("create", "echo x > {path}", lambda daemon: daemon.run_dir / "other.sock"),
    ("write", "echo 1 > {path}", lambda daemon: find_v2(read_mounts()) / "hostwarden" / "cgroup.freeze"),
    ("write", "cat /proc/sys/kernel/core_pattern > {path}", lambda daemon: Path("/proc/sys/kernel/core_pattern")),
    ("write", "echo x >> {path}", lambda daemon: PROGRAMS / "hostwardend"),
    ("create", "echo x > {path}", lambda daemon: Path("/etc/systemd/system/hostwarden.service")),
    ("read", "cat {path}", lambda daemon: daemon.state_dir / "state.json"),
]


@pytest.mark.parametrize(("action", "command", "where"), TRIES)
def test_what_is_the_wardens_is_not_for_agents(unbound: Hostwarden, action: str, command: str, where: Where) -> None:
    path = where(unbound)
    before = path.read_bytes() if action == "write" else b""
    since = unbound.sequence
    done = unbound.run(["sh", "-c", command.format(path=path)])
    assert done.returncode == KILLED and done.stdout == ""
    record = unbound.wait_for(since, policy="built-in")[0]
    assert (record["action"], record["target"], record["verdict"]) == (action, str(path), "deny")
    assert record["rule"].startswith("built-in:") and record["why"] and record["mode"] == "enforce"
    if path.parent != unbound.state_dir:  # there the daemon itself writes
        assert action != "write" or path.read_bytes() == before
    if action == "create":
        # The open has made it before its process died, and nothing was written: that is this tier's limit.
        assert not path.exists() or path.read_bytes() == b""
        path.unlink(missing_ok=True)


def test_it_is_nobodys_policy_that_people_see(unbound: Hostwarden) -> None:
    assert "built-in" not in unbound.status()["policies"]


@pytest.mark.parametrize(
    "argv",
    [
        ["sh", "-c", "cat {policies}/* {config} > /dev/null"],
        ["sh", "-c", "cat /proc/sys/kernel/osrelease > /dev/null; ls /sys/fs/cgroup > /dev/null"],
        [str(PROGRAMS / "hostwarden"), "--run-dir", "{run}", "run", "--agent", "below", "--label", "x=y", "--", "true"],
    ],
)
def test_what_an_agent_may_do_with_it(unbound: Hostwarden, argv: list[str]) -> None:
    (unbound.policy_dir / "z.yaml").write_text("policy: z\nfor: {team: nobody}\nrules: []\n")
    places = {"policies": unbound.policy_dir, "config": unbound.config, "run": unbound.run_dir}
    since = unbound.sequence
    done = unbound.run([word.format(**places) for word in argv])
    assert (done.returncode, done.stderr) == (0, "")
    assert unbound.events(since, policy="built-in") == []


def test_a_policy_of_that_name_is_refused(hostwarden: Hostwarden) -> None:
    hostwarden.set_policies()
    (hostwarden.policy_dir / "x.yaml").write_text("policy: built-in\nfor: {}\nrules: []\n")
    since = hostwarden.sequence
    assert hostwarden.process is not None
    hostwarden.process.send_signal(signal.SIGHUP)
    record = hostwarden.wait_for(since, action="policy")[0]
    assert "policy built-in is the warden's own" in record["detail"]["refused"][0]
    (hostwarden.policy_dir / "x.yaml").unlink()
