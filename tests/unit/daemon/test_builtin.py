"""The policy that every agent is under: what it refuses, and what it leaves alone."""

import sys
from pathlib import Path

import pytest

from hostwarden.daemon import builtin, config
from hostwarden.daemon.mounts import MountPoint
from hostwarden.policy.compile import compile_profile
from hostwarden.policy.globs import parse_path
from hostwarden.policy.match import match_path
from hostwarden.policy.model import Policy
from hostwarden.policy.oracle import Attempt, decide
from hostwarden.policy.parse import parse_policy
from hostwarden.policy.tables import Place
from hostwarden.policy.words import Action, Tier, Verdict

MOUNTS = [
    MountPoint(1, 0, 0, 1, b"/", b"/", "ext4", b"src"),
    MountPoint(2, 1, 0, 2, b"/", b"/sys/fs/cgroup/unified", "cgroup2", b"none"),
    MountPoint(3, 1, 0, 2, b"/", b"/mnt/other[1]", "cgroup2", b"none"),
]
FILES = (Action.WRITE, Action.CREATE, Action.DELETE, Action.RENAME, Action.LINK, Action.CHMOD)


@pytest.fixture
def policy(tmp_path: Path) -> Policy:
    file = tmp_path / "warden.toml"
    file.write_text(f'[daemon]\nstate_dir = "{tmp_path}/state"\n[collector]\naddresses = ["unix:/run/c/c.sock"]\n')
    return builtin.policy(config.load(file), MOUNTS, Tier.LSM)


def verdict(policy: Policy, action: Action, path: str) -> Verdict:
    return decide([policy], Attempt(action, path=path.encode())).enforced


@pytest.mark.parametrize(
    "path",
    [
        # our own
        *("{here}/state/state.json", "{here}/state", "{here}/warden.toml", "/etc/hostwarden/policies.d/x.yaml"),
        *(
            "/run/hostwarden/agent.sock",
            "/sys/fs/bpf/hostwarden/link_x",
            "/var/cache/hostwarden/headers-0/include/vmlinux.h",
        ),
        "/var/cache/hostwarden/probes-0.json",
        *("/var/lib/hostwarden-collector/records.db", "/run/c/c.sock"),
        *(f"{sys.prefix}/bin/hostwardend", builtin.__file__),
        # how we are started
        *("/etc/systemd/system/hostwarden.service", "/usr/lib/systemd/system/hostwarden-collector.service"),
        *("/etc/systemd/system/hostwarden.service.d/x.conf", "/run/systemd/system/hostwarden.service"),
        *("/etc/systemd/system/multi-user.target.wants/hostwarden.service", "/etc/systemd/system/service.d/x.conf"),
        *("/boot/grub/grub.cfg", "/etc/ld.so.preload"),
        # what it executes
        *("/sbin/request-key", "/etc/request-key.conf", "/etc/modprobe.d/x.conf", "/lib/modules/6.1/x.ko"),
        # the kernel's
        *("/proc/sys/kernel/core_pattern", "/proc/sysrq-trigger", "/sys/module/x/parameters/y", "/sys/fs/bpf/x"),
        *("/dev/mem", "/dev/port", "/proc/kcore"),
        # cgroups, wherever they are mounted
        *("/sys/fs/cgroup/unified/cgroup.procs", "/mnt/other[1]/x/cgroup.kill"),
    ],
)
def test_what_is_not_for_agents_to_change(policy: Policy, tmp_path: Path, path: str) -> None:
    path = path.format(here=tmp_path)
    assert {verdict(policy, action, path) for action in FILES} == {Verdict.DENY}


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        # secrets, and other people's memory
        ("{here}/state/key", Verdict.DENY),
        ("/var/lib/hostwarden-collector/records.db", Verdict.DENY),
        ("/proc/kcore", Verdict.DENY),
        ("/dev/mem", Verdict.DENY),
        ("/sys/fs/bpf/hostwarden", Verdict.DENY),  # who may open it may lock it
        # no secrets
        ("/etc/hostwarden/policies.d/x.yaml", Verdict.ALLOW),
        ("/proc/sys/kernel/osrelease", Verdict.ALLOW),
        ("/sys/fs/cgroup/unified/cgroup.procs", Verdict.ALLOW),
        ("/boot/config", Verdict.ALLOW),
    ],
)
def test_reading_what_is_no_secret_is_allowed(policy: Policy, tmp_path: Path, path: str, expected: Verdict) -> None:
    assert verdict(policy, Action.READ, path.format(here=tmp_path)) is expected


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/run/systemd/private", Verdict.DENY),
        ("/run/dbus/system_bus_socket", Verdict.DENY),
        ("/run/c/c.sock", Verdict.DENY),  # who may speak there could invent a host
        ("/run/hostwarden/agent.sock", Verdict.ALLOW),
        ("/run/user/1000/bus", Verdict.ALLOW),
    ],
)
def test_sockets_of_those_who_do_others_work(policy: Policy, path: str, expected: Verdict) -> None:
    assert verdict(policy, Action.CONNECT, path) is verdict(policy, Action.SEND, path) is expected


@pytest.mark.parametrize(
    "path", ["/home/x/.bashrc", "/var/cache/hostwarden/x", "/etc/hosts", "/sys/class/x", "/proc/self/oom_score_adj"]
)
def test_everything_else_is_the_other_policies_business(policy: Policy, path: str) -> None:
    assert {verdict(policy, action, path) for action in (*FILES, Action.READ, Action.EXEC, Action.LOAD)} == {
        Verdict.ALLOW
    }
    assert decide([policy], Attempt(Action.SIGNAL)).enforced is Verdict.ALLOW


def test_nothing_is_mounted_over_what_is_ours(policy: Policy, tmp_path: Path) -> None:
    assert verdict(policy, Action.MOUNT, f"{tmp_path}/state") is Verdict.DENY
    assert verdict(policy, Action.MOUNT, "/mnt") is Verdict.ALLOW


def test_its_name_its_places_and_its_size(policy: Policy) -> None:
    assert policy.name == "built-in"
    assert [rule.location for rule in policy.rules] == [f"built-in:{line}" for line in range(4, 4 + len(policy.rules))]
    assert all(rule.why for rule in policy.rules)
    profile = compile_profile((policy,), [(Place(b"", b""),)])
    assert sum(automaton.n_states for automaton in profile.paths) < 1000


def test_the_same_host_gives_the_same_policy() -> None:
    made = [builtin.policy(config.Settings(), MOUNTS, Tier.LSM).digest for _ in range(2)]
    assert made[0] == made[1]


@pytest.mark.parametrize(
    ("first", "deny", "verdict"),
    [
        (Tier.SIGNAL, "kill", Verdict.DENY),
        (Tier.SIGNAL, "audit", Verdict.KILL),
        (Tier.SIGNAL, "refuse", Verdict.KILL),
        (Tier.LSM, "audit", Verdict.DENY),
    ],
)
def test_a_deny_that_is_none_keeps_nothing(tmp_path: Path, first: Tier, deny: str, verdict: Verdict) -> None:
    file = tmp_path / "warden.toml"
    file.write_text(f'[daemon]\ndeny_without_lsm = "{deny}"\n')
    assert {rule.verdict for rule in builtin.policy(config.load(file), MOUNTS, first).rules} == {verdict}


USERS = [
    "rules:\n  - deny: [read, connect]\notherwise: {exec: allow}",
    "rules:\n  - allow: write\n    path: /x\notherwise: {write: deny}",
    "rules:\n  - kill: exec\n    path: /x",
    "rules:\n  - freeze: namespace",
    "mode: observe\nrules:\n  - deny: read",
    "rules:\n  - audit: read\n  - deny: delete\n    path: /x",
    "rules: []",
]


@pytest.mark.parametrize("text", USERS)
def test_what_people_can_refuse_is_told_as_the_compiler_tells_it(text: str) -> None:
    theirs = parse_policy(f"policy: p\nfor: {{}}\n{text}\n".encode(), "p.yaml", lambda name: None)
    assert builtin.enforced([theirs]) == compile_profile((theirs,), [(Place(b"", b""),)]).enforced
    assert builtin.enforced([]) == frozenset()


@pytest.mark.parametrize("path", ["/a/b", "/a[b]c", "/a{b,c}", "/a*b?", "/a,b", "/ä/ü"])
def test_a_literal_is_no_glob(path: str) -> None:
    globs = parse_path(builtin.literal(path))
    assert [match_path(glob, path.encode()) for glob in globs] == [True]
    assert not any(match_path(glob, b"/axb") for glob in globs)


def test_the_mask_is_of_the_capabilities_that_reach_beyond_the_agent() -> None:
    assert f"{builtin.CAPABILITY_MASK:#x}" == "0xc643ff1204"
