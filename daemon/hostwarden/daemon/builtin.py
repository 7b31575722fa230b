"""The policy that every agent is under, root or not, whatever the other policies say: the warden's own things, and the
ways around it, are not for agents. Written in the language, from the configuration and the mount table.

What is here is decided by names. What has none (signals to the warden, bpf(2), modules, privileges, block devices by
their number) the kernel's half refuses by itself, and says so in records of the actions `capability` and `kernel`.
Reading what isn't secret stays allowed, and so does `agent.sock`: an agent may ask why it was refused. The other
sockets need no rule: who is an agent gets at them what `agent.sock` gives, and is recorded.
"""

import json
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import hostwarden.policy
import hostwarden.probes
from hostwarden.daemon.config import Settings
from hostwarden.daemon.mounts import MountPoint
from hostwarden.policy.model import Policy
from hostwarden.policy.parse import parse_policy
from hostwarden.policy.words import POLICY_ACTIONS, Action, Mode, Tier, Verdict

NAME = "built-in"  # of the policy, and of the file that its rules are said to be in
# Capabilities (capability.h) that no agent has: DAC_READ_SEARCH, LINUX_IMMUTABLE, NET_ADMIN, SYS_MODULE, SYS_RAWIO,
# SYS_CHROOT, SYS_PTRACE, SYS_PACCT, SYS_ADMIN, SYS_BOOT, SYS_NICE, SYS_RESOURCE, SYS_TIME, AUDIT_CONTROL,
# MAC_ADMIN, SYSLOG, PERFMON, BPF. (LINUX_IMMUTABLE: a folder of policies could be made so, through a descriptor that
# only reads.)
CAPABILITIES = (2, 9, 12, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 30, 33, 34, 38, 39)
CAPABILITY_MASK = sum(1 << number for number in CAPABILITIES)

# Where systemd finds units and what changes them (man 5 systemd.unit).
UNIT_FOLDERS = (
    "/etc/systemd/system",
    "/etc/systemd/system.control",
    "/run/systemd/system",
    "/run/systemd/system.control",
    "/run/systemd/transient",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
)
# Our units, links that start them at boot, and drop-ins that change every service.
UNIT_GLOBS = ("hostwarden*", "hostwarden*/**", "*.wants/hostwarden*", "*.requires/hostwarden*", "service.d/**")
# Sockets of systemd's: whoever may speak there has others do his work.
MANAGERS = ("/run/systemd/private", "/run/dbus/system_bus_socket")
# Switches of the kernel's.
SWITCHES = (
    "/proc/sys/**",
    "/proc/sysrq-trigger",
    "/sys/kernel/**",
    "/sys/module/**",
    "/sys/power/**",
    "/sys/firmware/**",
    "/sys/fs/bpf/**",
)
# Memory itself.
MEMORY = ("/dev/mem", "/dev/kmem", "/dev/port", "/proc/kcore")
# What decides on the next start of the host, and what every program (the warden too) loads.
BOOT = ("/boot/**", "/etc/ld.so.preload", "/etc/systemd/system.conf", "/etc/systemd/system.conf.d/**")
# What the kernel itself executes or reads for whoever asks it for a key or a module: the helper is nobody's process.
HELPERS = (
    "/sbin/request-key",
    "/etc/request-key.conf",
    "/etc/request-key.d/**",
    "/sbin/modprobe",
    "/etc/modprobe.d/**",
    "/run/modprobe.d/**",
    "/usr/local/lib/modprobe.d/**",
    "/usr/lib/modprobe.d/**",
    "/lib/modules/**",
    "/usr/lib/modules/**",
)
ETC = "/etc/hostwarden"
CACHED = ("headers-*/**", "probes-*")  # what the programs are made from, and what they were compiled to
COLLECTOR_STATE = "/var/lib/hostwarden-collector"  # where it keeps records unless it is told otherwise


def policy(settings: Settings, mounts: Sequence[MountPoint], first: Tier) -> Policy:
    """The policy of a host that is set up, and has mounted, like this. A rule is a line.

    Where ``deny`` was told to be less than a refusal (deny_without_lsm), the warden's own things are kept by `kill`.
    """
    weak = first is Tier.SIGNAL and settings.daemon.deny_without_lsm != "kill"
    verdict = "kill" if weak else "deny"
    rules = [json.dumps({verdict: rule.pop("deny"), **rule}) for rule in _rules(settings, mounts)]
    lines = [f"policy: {NAME}", "for: {}", "rules:", *(f"  - {rule}" for rule in rules)]
    return parse_policy("\n".join(lines).encode(), NAME, lambda name: None)


def enforced(policies: Iterable[Policy]) -> frozenset[Action]:
    """Actions that an enforcing one of these can refuse: where that is so, what can't be judged is refused, too. The
    built-in policy doesn't count, or nothing of an agent that is only observed could go on there.
    """
    return frozenset(
        action
        for policy in policies
        if policy.mode is Mode.ENFORCE
        for action in POLICY_ACTIONS
        if _refuses(policy, policy.decided_as(action))
    )


def _refuses(policy: Policy, action: Action) -> bool:
    rules = any(rule.verdict >= Verdict.DENY and rule.decides(action) for rule in policy.rules)
    return rules or policy.otherwise.get(action, Verdict.ALLOW) >= Verdict.DENY


def _rules(settings: Settings, mounts: Sequence[MountPoint]) -> Iterator[dict[str, object]]:
    """As few as can be: each that ends in ** multiplies the states of people's globs that begin with it."""
    daemon = settings.daemon
    collectors = [Path(address.removeprefix("unix:")) for address in settings.collector.addresses]
    ours = [
        *(daemon.run_dir, daemon.policy_dir, daemon.agents_dir, Path(ETC)),
        *(path.parent for path in collectors),
        *_programs(),
    ]
    files = _names([settings.file] if settings.file else [])
    # Not all of the cache: others may keep there what is large, and mount it elsewhere.
    cached = [f"{name}/{made}" for name in _names([daemon.cache_dir]) for made in CACHED]
    units = [f"{folder}/{glob}" for folder in _names(map(Path, UNIT_FOLDERS)) for glob in UNIT_GLOBS]
    helpers = [*HELPERS, *_names(Path(name) for name in HELPERS if "*" not in name)]
    guarded = [*_below(ours), *files, *cached, *units, *_cgroups(mounts), *SWITCHES, *BOOT, *helpers]
    # The pins aren't secret, but who may open their folder could lock it (lock.py), and no warden would start again.
    secret = [*_below([daemon.state_dir, daemon.bpffs_dir, Path(COLLECTOR_STATE)]), *MEMORY]
    managers = [f"unix:{path}" for path in (*MANAGERS, *_names(collectors))]
    yield _rule(["write", "mount"], guarded, "the warden's own, or a way around it")
    yield _rule(["read", "write", "mount"], secret, "secrets of the warden's, or the memory of others")
    yield {"deny": ["connect", "send"], "to": managers, "why": "work handed to a process that is no agent"}


def _rule(actions: list[str], globs: Iterable[str], why: str) -> dict[str, object]:
    return {"deny": actions, "path": list(dict.fromkeys(globs)), "why": why}


def _programs() -> list[Path]:
    """Folders that our programs and the Python that runs them are in, unless they are the system's own."""
    files = [__file__, hostwarden.policy.__file__, hostwarden.probes.__file__]
    packages = dict.fromkeys(Path(file).parents[1] for file in files if file)
    if sys.prefix == sys.base_prefix:
        return list(packages)
    venv = Path(sys.prefix)
    return [venv, *(folder for folder in packages if not folder.is_relative_to(venv))]


def _cgroups(mounts: Sequence[MountPoint]) -> list[str]:
    """Every place of every hierarchy, without those that lie below another one."""
    usual = Path("/sys/fs/cgroup")
    places = {Path(os.fsdecode(mount.mount)) for mount in mounts if mount.fstype in ("cgroup", "cgroup2")}
    return [f"{usual}/**", *_below(sorted(place for place in places if not place.is_relative_to(usual)))]


def _below(folders: Iterable[Path]) -> list[str]:
    """Globs for folders and everything below them."""
    return [f"{name}/**" for name in _names(folders)]


def _names(paths: Iterable[Path]) -> list[str]:
    """Globs for just these paths, as they are written and as they are: the kernel judges by the file, not by a link."""
    return list(dict.fromkeys(literal(str(name)) for path in paths for name in (path, path.resolve())))


def literal(path: str) -> str:
    """A glob that matches this path and no other."""
    return "".join(f"[{character}]" if character in "?*[]{}" else character for character in path)
