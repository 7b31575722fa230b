"""hostwarden itself in the demo: collector and daemon as processes with everything in one folder, and its commands."""

import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.demo.stage import Record
from tests.demo.world import World

PROGRAMS = Path(sys.executable).parent  # of the venv
START_PATIENCE_S = 120  # compiling on a slow machine
STOP_PATIENCE_S = 15
RECORD_PATIENCE_S = 5

DAEMON_CONFIG = """\
[daemon]
state_dir = "{root}/state"
run_dir = "{root}/run"
policy_dir = "{root}/policies.d"
agents_dir = "{root}/agents.d"
cache_dir = "{root}/cache"
bpffs_dir = "{root}/bpf"

[collector]
addresses = ["unix:{root}/collector/socket"]
"""
COLLECTOR_CONFIG = """\
[collector]
listen = "unix:{root}/collector/socket"
store = "sqlite:///{root}/store/records.db"
"""


class WardenError(Exception):
    """hostwarden doesn't run here, or didn't do what it was told; the message is one line."""


class Warden:
    """Collector and daemon below ``root``. ``start``, then ``stop`` whatever happened."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.state_dir = root / "state"
        self.collector_address = f"unix:{root}/collector/socket"
        # A name of this demo's own: an agent's cgroup is named after it, and a real hostwarden may run here as well.
        self.agent = f"billing-{root.name.rpartition('-')[2]}"
        self._cgroups = cgroup_root() / "hostwarden"
        self._had_cgroups = self._cgroups.exists()
        self._config = root / "hostwardend.toml"
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, policies: dict[str, str]) -> None:
        """Write configuration and ``policies`` (file name → text), start both, wait until ready. Raises WardenError."""
        for folder in ("policies.d", "agents.d"):
            (self.root / folder).mkdir()
        for name, text in policies.items():
            (self.root / "policies.d" / name).write_text(text)
        self._config.write_text(DAEMON_CONFIG.format(root=self.root))
        collector_config = self.root / "collector.toml"
        collector_config.write_text(COLLECTOR_CONFIG.format(root=self.root))
        self._spawn("hostwarden-collector", "--config", str(collector_config))
        self._wait("hostwarden-collector", (self.root / "collector" / "socket").exists)
        self._spawn("hostwardend", "--config", str(self._config))
        self._wait("hostwardend", lambda: self.command("status").returncode == 0)

    def command(self, *arguments: str, collector: bool = False) -> subprocess.CompletedProcess[str]:
        """Run ``hostwarden``, against the daemon or the collector."""
        return subprocess.run(
            self._argv(*arguments, collector=collector), stdin=subprocess.DEVNULL, capture_output=True, text=True
        )

    def json_lines(self, *arguments: str, collector: bool = False) -> list[Any]:
        """What a command prints with ``--json``. Raises WardenError if it fails."""
        done = self.command("--json", *arguments, collector=collector)
        if done.returncode != 0:
            raise WardenError(f"hostwarden {arguments[0]}: {first_words(done.stderr)}")
        return [json.loads(line) for line in done.stdout.splitlines()]

    def run(self, command: list[str], world: World, log: Path) -> subprocess.Popen[bytes]:
        """Start ``command`` in the workspace as the agent; its output goes to ``log``."""
        argv = self._argv("run", "--agent", self.agent, "--label", "team=billing", "--", *command)
        with log.open("ab") as output:
            return subprocess.Popen(
                argv,
                cwd=world.workspace,
                env=world.environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,  # ^C is for the demo, which then ends everything in order
            )

    def follow(self) -> "Follower":
        """The records as they come. Close it."""
        return Follower(self._argv("--json", "events", "--follow"))

    def stop_daemon(self) -> None:
        """End hostwardend; what it pinned stays in force until ``stop``."""
        end(self._processes.pop("hostwardend"))

    def stop(self) -> list[str]:
        """End everything and remove every pin; what could not be undone, one line each."""
        problems = []
        while self._processes:
            end(self._processes.popitem()[1])  # the last started first: the daemon before the collector
        if self._config.exists():
            off = subprocess.run(
                [PROGRAMS / "hostwardend", "--off", "--config", self._config], capture_output=True, text=True
            )
            if off.returncode != 0:
                problems.append(f"hostwardend --off: {last_words(off.stderr)}")
        for folder in (self._cgroups / self.agent, *([] if self._had_cgroups else [self._cgroups])):
            with contextlib.suppress(OSError):  # not there, or another hostwarden's agents are in it
                folder.rmdir()
        return problems

    def _argv(self, *arguments: str, collector: bool = False) -> list[str]:
        where = ["--collector", self.collector_address] if collector else ["--run-dir", f"{self.root}/run"]
        return [str(PROGRAMS / "hostwarden"), *where, *arguments]

    def _spawn(self, program: str, *arguments: str) -> None:
        with (self.root / f"{program}.log").open("wb") as log:
            self._processes[program] = subprocess.Popen(
                [PROGRAMS / program, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def _wait(self, program: str, ready: Callable[[], bool]) -> None:
        """Until ``ready``. Raises WardenError with the program's last words if it ends, or is too slow."""
        deadline = time.monotonic() + START_PATIENCE_S
        while not ready():
            if self._processes[program].poll() is not None:
                log = (self.root / f"{program}.log").read_text(errors="replace")
                raise WardenError(f"{program} can't run here: {last_words(log)}")
            if time.monotonic() > deadline:
                raise WardenError(f"{program} isn't ready after {START_PATIENCE_S} s")
            time.sleep(0.1)


class Follower:
    """``hostwarden events --follow`` read in a thread."""

    def __init__(self, argv: list[str]) -> None:
        self._arrived = threading.Condition()
        self._records: list[Record] = []
        self._process = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True
        )
        threading.Thread(target=self._read, name="follower", daemon=True).start()

    @property
    def last(self) -> int:
        """The highest sequence seen."""
        with self._arrived:
            return self._records[-1]["sequence"] if self._records else 0

    def find(self, after: int, matches: Callable[[Record], bool]) -> Record | None:
        """The first record above ``after`` that matches, waiting RECORD_PATIENCE_S for it; None if there is none."""
        deadline = time.monotonic() + RECORD_PATIENCE_S
        seen = 0
        with self._arrived:
            while True:
                for record in self._records[seen:]:
                    if record["sequence"] > after and matches(record):
                        return record
                seen = len(self._records)
                if not self._arrived.wait(max(0.0, deadline - time.monotonic())):
                    return None

    def close(self) -> None:
        """End the command."""
        end(self._process)

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            with self._arrived:
                self._records.append(json.loads(line))
                self._arrived.notify_all()


def cgroup_root() -> Path:
    """Where cgroup v2 is mounted (hostwardend says so in its own words if it isn't)."""
    lines = (line.split() for line in Path("/proc/self/mounts").read_text().splitlines())
    return next((Path(fields[1]) for fields in lines if fields[2] == "cgroup2"), Path("/sys/fs/cgroup"))


def end(process: subprocess.Popen[bytes]) -> None:
    """Ask a child to end, then make it."""
    process.terminate()
    try:
        process.wait(STOP_PATIENCE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def first_words(text: str) -> str:
    """Of a command that failed: its message, without program and hint."""
    return next((line.partition(": ")[2] or line for line in text.splitlines() if line.strip()), "it said nothing")


def last_words(text: str) -> str:
    """Of a log whose program ended: message and hint, the last two lines, as one."""
    lines = [line.partition(": ")[2] or line for line in text.splitlines() if line.strip()]
    return "; ".join(lines[-2:]) or "it said nothing"


def pids_below(folder: Path) -> list[int]:
    """Processes whose current folder is ``folder`` or below: every process of the demo's agent, wherever it forked."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            cwd = os.readlink(entry / "cwd")
        except OSError:  # it ended, or is a zombie
            continue
        if Path(cwd) == folder or folder in Path(cwd).parents:
            found.append(int(entry.name))
    return found
