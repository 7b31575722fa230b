"""hostwarden under the load: a daemon in folders of its own, policies of 10 and 1,000 globs, agents bound by them."""

import json
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from hostwarden.daemon.losses import recorded_losses
from hostwarden.records.segments import LogError
from tests.bench.load import Load
from tests.bench.tables import Costs
from tests.host.conftest import PROGRAMS, Hostwarden

NON_AGENT = "hostwarden, no agent"
AGENTS = {"ten": "hostwarden, agent, 10 globs", "thousand": "hostwarden, agent, 1,000 globs"}
GLOBS = {"ten": 10, "thousand": 1000}
READY_S = 60
BOOT = Path("/proc/sys/kernel/random/boot_id")


def globs(count: int) -> list[str]:
    """Such as people write: names anywhere, files below folders, a few folders whole."""
    found = ["**/.ssh/**", "**/.env", "/etc/shadow", "**/*.pem"]
    for n in range(count - len(found)):
        below = f"/srv/team-{n % 37}/project-{n}/**/secrets/*.{('key', 'pem', 'txt')[n % 3]}"
        found.append(below if n % 2 else f"**/vault-{n}/**")
    return found


def policy(name: str, count: int) -> str:
    """A policy with ``count`` globs for agents that carry ``team=NAME``; the load does nothing that it refuses."""
    return f"""policy: {name}
for: {{team: {name}}}
rules:
  - deny: [read, write]
    path: {json.dumps(globs(count))}
  - allow: exec
    path: ["/usr/**", "/bin/**", "/var/tmp/**", "/tmp/**"]
  - kill: exec
    argv: ["git push --force*", "* rm -rf /*"]
  - deny: [connect, send]
    to: ["192.0.2.0/24:*", "[2001:db8::/32]:*"]
otherwise: {{exec: deny, read: allow, write: allow, connect: allow}}
"""


class Host:
    """The daemon, as the bench needs it."""

    name = "hostwarden"

    def __init__(self, root: Path, repetitions: int) -> None:
        root.mkdir(mode=0o755)
        self.daemon = Hostwarden(root, settings=f'cache_dir = "{root}/cache"')
        self._repetitions = repetitions
        self._runs = 0
        self.programs: set[int] = set()  # ids of those that this daemon has loaded
        self.start_s = 0.0  # what the last start took, and the daemon's memory then
        self.idle: dict[str, float] = {}

    @contextmanager
    def running(self) -> Iterator["Host"]:
        """Loaded and bound; afterwards nothing of it is in the kernel. The log goes on from one to the next."""
        before = set(programs())
        try:
            self.start_s = self.start()
            self.idle = self.resident()
            self.programs = programs().keys() - before
            self.daemon.set_policies(**{name: policy(name, count) for name, count in GLOBS.items()})
            yield self
        finally:
            self.daemon.take_down()

    def start(self) -> float:
        """Seconds from the start of the process to its READY=1 (sd_notify), which `status` must confirm."""
        path = self.daemon.root / "notify"
        path.unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ears:
            ears.bind(str(path))
            ears.settimeout(0.5)
            os.environ["NOTIFY_SOCKET"] = str(path)
            began = time.monotonic()
            try:
                process = self.daemon.spawn()
            finally:
                del os.environ["NOTIFY_SOCKET"]
            while not _is_said(ears, b"READY=1"):
                if process.poll() is not None or time.monotonic() - began > READY_S:
                    raise RuntimeError("hostwardend isn't ready: " + self.daemon.log_file.read_text()[-500:])
            took = time.monotonic() - began
        if self.daemon.command("status").returncode:
            raise RuntimeError("hostwardend says that it is ready, and `hostwarden status` that it isn't")
        return took

    def measure(self, load: Load) -> dict[str, list[Costs]]:
        """The load by nobody's process and by agents of both policies, in turns."""
        found: dict[str, list[Costs]] = {NON_AGENT: [], **{name: [] for name in AGENTS.values()}}
        for _ in range(self._repetitions):
            found[NON_AGENT].append(load.run())
            for label, name in AGENTS.items():
                found[name].append(load.run(self.as_agent(label)))
        return found

    def as_agent(self, label: str, name: str = "") -> list[str]:
        """What makes a command an agent of that policy."""
        self._runs += 1
        command = [str(PROGRAMS / "hostwarden"), "--run-dir", str(self.daemon.run_dir), "run"]
        return [*command, "--agent", name or f"bench-{self._runs}", "--label", f"team={label}", "--"]

    def lost(self) -> int:
        """Actions that the log says were lost."""
        with suppress(LogError):
            return sum(record["lost"] for record in recorded_losses(self.daemon.state_dir, BOOT.read_text().strip()))
        return 0

    def resident(self) -> dict[str, float]:
        """MB of the daemon's memory: all of it, what is its own, what is files (libraries, rings)."""
        assert self.daemon.process is not None
        status = Path(f"/proc/{self.daemon.process.pid}/status").read_text()
        pairs = dict(line.split(":", 1) for line in status.splitlines() if line.startswith(("VmRSS", "Rss")))
        size = {key: int(value.split()[0]) * 1024 / 1e6 for key, value in pairs.items()}
        return {"all": size["VmRSS"], "own": size["RssAnon"], "files": size["RssFile"] + size["RssShmem"]}


def _is_said(ears: socket.socket, word: bytes) -> bool:
    """Whether ``word`` comes within the socket's time-out."""
    with suppress(TimeoutError):
        return word in ears.recv(4096)
    return False


def programs() -> dict[int, dict[str, int | str]]:
    """All BPF programs in the kernel: id → what bpftool says."""
    out = subprocess.run(["bpftool", "-j", "prog", "show"], capture_output=True, text=True, check=True).stdout
    return {program["id"]: program for program in json.loads(out)}


def others() -> int:
    """How many daemons' programs are attached here that aren't the bench's: then "nothing" isn't nothing."""
    return sum(program.get("name") == "open_signal" for program in programs().values())
