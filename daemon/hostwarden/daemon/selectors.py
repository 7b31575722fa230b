"""agents.d in the kernel: exe globs as a profile of their own, units as names; and the scan for what runs already."""

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from hostwarden.daemon.agentsd import AgentSpec
from hostwarden.policy.match import match_path
from hostwarden.policy.model import Policy
from hostwarden.policy.parse import parse_policy
from hostwarden.probes import bpf
from hostwarden.probes.pins import Kernel

UNIT_BYTES = 64


def policy(specs: Sequence[AgentSpec]) -> tuple[Policy, ...]:
    """The selectors' profile: rule n is the nth agent that has exe globs, so reason n + 1 names it."""
    rules = [{"audit": "exec", "path": [pattern.text for pattern in spec.exes]} for spec in with_exes(specs)]
    if not rules:
        return ()
    text = json.dumps({"policy": "selectors", "for": {}, "rules": rules})
    return (parse_policy(text.encode(), "agents.d", lambda name: None),)


def with_exes(specs: Sequence[AgentSpec]) -> list[AgentSpec]:
    """The agents that are chosen by what they execute."""
    return [spec for spec in specs if spec.exes]


def install(kernel: Kernel, specs: Sequence[AgentSpec], ids: Mapping[str, int]) -> None:
    """Units by name, and which reason of the selectors' profile is which agent. ``ids``: agent name → id."""
    wanted = {
        unit.encode().ljust(UNIT_BYTES, b"\0"): ids[spec.name].to_bytes(4, "little")
        for spec in specs
        for unit in spec.units
    }
    for key in bpf.keys(kernel.maps["units"], UNIT_BYTES):
        if key not in wanted:
            bpf.delete(kernel.maps["units"], key)
    for key, agent_id in wanted.items():
        bpf.update(kernel.maps["units"], key, agent_id)
    for reason, spec in enumerate(with_exes(specs), 1):
        bpf.update(kernel.maps["selected"], reason.to_bytes(4, "little"), ids[spec.name].to_bytes(4, "little"))


def choose(specs: Sequence[AgentSpec], pid: int) -> str | None:
    """The agent that a running process belongs to by agents.d, or None: by its unit first, as in the kernel."""
    try:
        groups = Path(f"/proc/{pid}/cgroup").read_text()
    except OSError:
        return None  # gone
    exe = _exe(pid)
    if exe is None:
        return None  # gone, or a kernel thread
    # The v2 line is 0::/path; names above the process's own cgroup count as well.
    path = next((line[3:] for line in groups.splitlines() if line.startswith("0::")), "")
    parts = path.split("/")
    for spec in specs:
        if any(unit in parts for unit in spec.units):
            return spec.name
    for spec in specs:
        if any(match_path(glob, exe) for pattern in spec.exes for glob in pattern.globs):
            return spec.name
    return None


def _exe(pid: int) -> bytes | None:
    """What a process executes, by the first of its threads that tells: one that has ended, be it the first, doesn't."""
    try:
        threads = sorted(Path(f"/proc/{pid}/task").iterdir(), key=lambda folder: int(folder.name))
    except OSError:
        return None
    for folder in threads:
        with suppress(OSError):
            return bytes((folder / "exe").readlink())
    return None
