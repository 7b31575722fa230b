"""One run of `policy test --host` against a daemon that has policies of its own, and what is left of it afterwards."""

import json
from pathlib import Path
from typing import Any

from tests.host.conftest import Hostwarden

OWN = "policy: own\nfor: {team: billing}\nrules:\n  - deny: read\n    path: /etc/shadow\n"
RUN_S = 900


def run_scenarios(hostwarden: Hostwarden) -> dict[str, Any]:
    """The command's JSON, with its exit code and what it left behind."""
    hostwarden.set_policies(own=OWN)
    done = hostwarden.command("--json", "policy", "test", "--host", timeout_s=RUN_S)
    assert done.returncode in (0, 1), done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    left = [
        *(path.name for path in hostwarden.policy_dir.iterdir() if path.name != "own.yaml"),
        *(name for name in hostwarden.status()["policies"] if name != "own"),
        *(line["agent"] for line in hostwarden.json_lines("ps") if line["pids"]),
        *map(str, Path("/var/tmp").glob("hostwarden-scenarios-*")),
        *(line for line in Path("/proc/self/mountinfo").read_text().splitlines() if "hostwarden-scenarios-" in line),
    ]
    return {**found, "exit": done.returncode, "left": left}
