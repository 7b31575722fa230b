"""The peers, started and stopped by the bench with all that belongs to them: auditd and bpftrace, recording the load.

Each records what hostwarden does: every open, exec and connect, of nobody but the load (by its uid).
"""

import re
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.bench.load import UID, Load

START_S = 30
AUDITD_CONF = Path("/etc/audit/auditd.conf")
BACKLOG = 8192  # Debian's rules set it
CALLS = "open,openat,openat2,execve,execveat,connect"
# bpftrace's own uid test, before anything is copied.
BPFTRACE = "\n".join(
    f"tracepoint:syscalls:sys_enter_{call} /uid == {UID}/ {{ printf({form}); }}"
    for call, form in {
        "open": '"%d open %s\\n", pid, str(args->filename)',
        "openat": '"%d openat %s\\n", pid, str(args->filename)',
        "execve": '"%d execve %s\\n", pid, str(args->filename)',
        "connect": '"%d connect %d\\n", pid, args->fd',
    }.items()
)


class Unusable(Exception):
    """This peer can't be measured here: why, in a line."""


class Auditd:
    """auditd with Debian's settings and a log of its own."""

    name = "auditd, all recorded"

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "auditd"
        self._lost = 0

    def check(self) -> None:
        """Raises Unusable."""
        status = _auditctl("-s")
        if int(status.get("pid", 0)):
            raise Unusable("auditd runs on this host already, and is left alone")
        if int(status.get("enabled", 0)) == 2:
            raise Unusable("the audit rules are locked until the next boot")
        if _rules() != ["No rules"]:
            raise Unusable("there are audit rules on this host, and they are left alone")
        self._backlog = status["backlog_limit"]

    @contextmanager
    def absent(self) -> Iterator[None]:
        """Once audit was on, the kernel gives every new process an audit context, rules or none, until the next boot;
        with this rule it doesn't. For what is compared with a host on which audit never was."""
        _auditctl("-a", "task,never")
        try:
            yield
        finally:
            _auditctl("-d", "task,never")

    @contextmanager
    def running(self, load: Load) -> Iterator[None]:
        """Recording ``load``. Raises Unusable."""
        (self._folder / "plugins.d").mkdir(parents=True, exist_ok=True)
        self._folder.chmod(0o750)
        text = re.sub(r"(?m)^log_file = .*$", f"log_file = {self._folder}/audit.log", AUDITD_CONF.read_text())
        text = re.sub(r"(?m)^plugin_dir = .*$", f"plugin_dir = {self._folder}/plugins.d", text)
        conf = self._folder / "auditd.conf"
        conf.write_text(text)
        conf.chmod(0o640)
        process = subprocess.Popen(["auditd", "-n", "-c", str(self._folder)], stderr=subprocess.DEVNULL)
        try:
            _wait_until(lambda: _auditctl("-s").get("pid") == str(process.pid), process, "auditd")
            before = int(_auditctl("-b", str(BACKLOG))["lost"])
            _auditctl("-a", "always,exit", "-F", "arch=b64", "-S", CALLS, "-F", f"uid={UID}")
            yield
            self._lost += int(_auditctl("-s")["lost"]) - before
        finally:
            _auditctl("-D")
            _stop(process)
            _auditctl("-e", "0")
            _auditctl("-b", self._backlog)

    def lost(self) -> str:
        """In words."""
        return str(self._lost)


class Bpftrace:
    """bpftrace, one line for each event into a file."""

    name = "bpftrace, all printed"

    def __init__(self, folder: Path) -> None:
        self._out = folder / "bpftrace.out"
        self._lost = 0

    def check(self) -> None:
        """Raises Unusable."""
        done = subprocess.run(["bpftrace", "--version"], capture_output=True, text=True)
        if done.returncode:
            raise Unusable("bpftrace doesn't start: " + done.stderr.strip().partition("\n")[0])

    @contextmanager
    def running(self, load: Load) -> Iterator[None]:
        """Recording ``load``. Raises Unusable."""
        self._out.write_bytes(b"")
        with self._out.open("ab") as out, _tracefs():
            process = subprocess.Popen(["bpftrace", "-e", BPFTRACE], stdout=out, stderr=out)
            try:
                # It says that it attaches, not that it has: so until it sees what it should.
                _wait_until(lambda: self._sees(load), process, "bpftrace")
                yield
            finally:
                _stop(process)
        self._lost += sum(map(int, re.findall(rb"Lost (\d+) events", self._out.read_bytes())))

    def _sees(self, load: Load) -> bool:
        load.run(batches=1)
        return b" openat " in self._out.read_bytes() and b" connect " in self._out.read_bytes()

    def lost(self) -> str:
        """In words."""
        return str(self._lost)


def _auditctl(*arguments: str) -> dict[str, str]:
    """What it prints as pairs. Raises Unusable."""
    done = subprocess.run(["auditctl", *arguments], capture_output=True, text=True, timeout=30)
    if done.returncode:
        raise Unusable(f"auditctl {' '.join(arguments)}: {(done.stderr or done.stdout).strip().partition(chr(10))[0]}")
    return dict(line.split(maxsplit=1) for line in done.stdout.splitlines() if len(line.split()) == 2)


def _rules() -> list[str]:
    return subprocess.run(["auditctl", "-l"], capture_output=True, text=True, timeout=30).stdout.splitlines()


@contextmanager
def _tracefs() -> Iterator[None]:
    """Mounted, and not left behind where it wasn't."""
    folder = Path("/sys/kernel/tracing")
    if (folder / "events").is_dir():
        yield
        return
    subprocess.run(["mount", "-t", "tracefs", "tracefs", folder], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", folder], check=True)


def _wait_until(is_so: Callable[[], bool], process: "subprocess.Popen[bytes]", name: str) -> None:
    ends = time.monotonic() + START_S
    while not is_so():
        if process.poll() is not None or time.monotonic() > ends:
            raise Unusable(f"{name} doesn't start here (exit code {process.poll()})")
        time.sleep(0.1)


def _stop(process: "subprocess.Popen[bytes]") -> None:
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(timeout=20)
    process.kill()
    process.wait()
