"""An agent that is root, under no policy but the built-in one, or one that forbids what only policies forbid. Each
attempt is refused with an error and is in the log; the warden, its files and the host are afterwards what they were.
"""

import fcntl
import json
import os
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest

from tests.guest.daemon import start, started
from tests.host.conftest import Hostwarden, Record

ROOT = Path(__file__).resolve().parents[2]
AGENT = ("/usr/bin/python3", "-m", "tests.guest.programs.root_agent")
POLICY = "policy: p\nfor: {team: ruled}\nrules:\n  - deny: [mount, namespace, ptrace, signal]\n"
MARKER = Path("/var/tmp/made-by-a-helper")
DISK = "/dev/vda"
RUN_S = 280
REFUSED = ("EPERM", "EACCES")

# What the log calls it: action and target (`*`: any). Attempts whose names begin with `policy` are the ruled agent's.
EXPECTED = {
    # bpf(2), and what is pinned
    "bpf: a map": "kernel bpf",
    "bpf: take a pin": "kernel bpf",
    "bpf: unlink a link's pin": "delete {bpffs}/link_file_open",
    "bpf: rename a link's pin": "rename {bpffs}/link_file_open",
    "bpf: mkdir among the pins": "create {bpffs}/x",
    "bpf: rename the pins' folder": "* {bpffs}*",
    "bpf: unmount the pins": "mount {bpffs}",
    "bpf: mount over the pins": "mount {bpffs}",
    "bpf: the lock of the next start": "read {bpffs}",
    "bpf: unmount the pins elsewhere, shared": "mount {bpffs}",
    "bpf: unlink a pin under a bind mount": "delete {bpffs}/link_file_open",
    # the warden, as a process
    **dict.fromkeys(
        (
            *("warden: kill", "warden: stop", "warden: hang up", "warden: tgkill"),
            *("warden: tkill", "warden: sigqueue", "warden: pidfd_send_signal", "warden: ptrace attach"),
            *("warden: ptrace seize", "warden: pidfd_getfd", "warden: /proc/PID/mem", "warden: /proc/PID/fd"),
            *("warden: /proc/PID/environ", "warden: limits", "warden: scheduler", "warden: affinity", "warden: nice"),
            *("warden: a thread's scheduler", "warden: a thread's nice", "warden: I/O priority"),
            *("warden: oom_score_adj", "warden: a thread's oom_score_adj", "warden: oom_score_adj below task"),
            *("warden: oom_score_adj in a private procfs", "warden: coredump_filter", "warden: move pages"),
            *("warden: process_madvise", "warden: process_vm_readv", "warden: SIGIO of one's choice"),
        ),
        "* *",
    ),
    # control groups
    "cgroup: cgroup.kill": "* *cgroup.kill",
    "cgroup: cgroup.freeze": "* *cgroup.freeze",
    "cgroup: leave for the root": "* *cgroup.procs",
    "cgroup: make one": "create */mine",
    "cgroup: remove one": "delete *",
    "cgroup: cgroup.kill in a private mount": "* *",
    # the warden's files
    "files: a policy": "create {policies}/x.yaml",
    "files: read the state": "read {state}/state.json",
    "files: list the state": "read {state}",
    "files: rename the state": "* {state}*",
    "files: rename what the state is in": "rename *",
    "files: unlink a socket": "delete {run}/admin.sock",
    "files: mount over the policies": "mount {policies}",
    "files: mount over what is above": "mount /var/tmp",
    "files: bind over what is above": "mount /var",
    "files: remount / read-only": "* *",
    "files: remount the bind read-only": "* *",
    "files: mount_setattr / read-only": "* *",
    "files: reconfigure / read-only": "* *",
    "files: utime of a policy": "write {policies}/p.yaml",
    "files: futime of a policy": "write {policies}/p.yaml",
    "files: chmod of a policy's descriptor": "chmod {policies}/p.yaml",
    "files: chown of a policy": "write {policies}/p.yaml",
    "files: xattr of a policy": "write {policies}/p.yaml",
    "files: hard link to a policy": "* {policies}/p.yaml",
    "files: make policies immutable": "capability CAP_LINUX_IMMUTABLE",
    "files: the state through an overlay": "* *",
    "files: the policies as an overlay's upper folder": "* *",
    "files: mount over what is above, elsewhere, shared": "mount /var/tmp",
    "files: unmount /sys elsewhere, shared": "mount /sys",
    # devices
    "device: the disk": "kernel device",
    "device: the disk, to read": "kernel device",
    "device: the disk under another name": "kernel device",
    "device: the disk in a user namespace": "kernel device",
    "device: /dev/mem": "* *",
    "device: /dev/mem under another name": "* *",
    "device: /dev/port": "* *",
    "device: /proc/kcore": "* *",
    "device: iopl": "capability CAP_SYS_RAWIO",
    "device: ioperm": "capability CAP_SYS_RAWIO",
    # the kernel
    "kernel: sysrq-trigger": "write /proc/sysrq-trigger",
    "kernel: core_pattern": "write /proc/sys/kernel/core_pattern",
    "kernel: core_pattern in a private procfs": "write */sys/kernel/core_pattern",
    "kernel: kexec_load": "capability CAP_SYS_BOOT",
    "kernel: kexec_file_load": "capability CAP_SYS_BOOT",
    "kernel: init_module": "capability CAP_SYS_MODULE",
    "kernel: finit_module": "capability CAP_SYS_MODULE",
    "kernel: delete_module": "capability CAP_SYS_MODULE",
    "kernel: reboot": "capability CAP_SYS_BOOT",
    "kernel: sethostname": "capability CAP_SYS_ADMIN",
    "kernel: clock_settime": "* *",
    "kernel: settimeofday": "* *",
    "kernel: adjtimex": "capability CAP_SYS_TIME",
    "kernel: acct": "capability CAP_SYS_PACCT",
    "kernel: swapoff": "capability CAP_SYS_ADMIN",
    "kernel: syslog clear": "capability CAP_SYSLOG",
    "kernel: chroot": "capability CAP_SYS_CHROOT",
    "kernel: FIFREEZE": "capability CAP_SYS_ADMIN",
    "kernel: setns to pid 1's mounts": "* *",
    "kernel: nice of its own, below 0": "capability CAP_SYS_NICE",
    "kernel: real time of its own": "capability CAP_SYS_NICE",
    "kernel: another program's name": "* *",
    "kernel: perf_event_open": "kernel perf",
    "kernel: fanotify permission events": "capability CAP_SYS_ADMIN",
    "kernel: a private debugfs": "* *",
    "kernel: a private tracefs": "* *",
    "kernel: a private sysfs": "* *",
    "kernel: a format of programs (binfmt_misc)": "* *",
    "kernel: open_by_handle_at": "capability CAP_DAC_READ_SEARCH",
    # what the kernel would execute for it, and who would do its work
    "helper: /sbin/request-key": "create */request-key",
    "helper: modprobe.d": "create /etc/modprobe.d/hostwarden-test.conf",
    "helper: modprobe itself": "write /usr/bin/kmod",
    "others: systemd": "connect unix:/run/systemd/private",
    "others: the system bus": "connect unix:/run/dbus/system_bus_socket",
    "others: typing for a terminal": "kernel tty",
    # policies
    "policy: a mount namespace": "namespace mnt",
    "policy: a user namespace": "namespace user",
    "policy: tmpfs over /mnt": "mount /mnt",
    "policy: bind mount": "mount /mnt",
    "policy: a mount from fsmount": "mount /mnt",
    "policy: a copy of a mount": "mount /mnt",
    "policy: remount / read-only": "mount /",
    "policy: mount_setattr / read-only": "* *",
    "policy: reconfigure / read-only": "* *",
    "policy: kill": "signal pid:{victim}",
    "policy: SIGIO of one's choice": "signal pid:{victim}",
    "policy: SIGIO, the owner told by an ioctl": "signal pid:{victim}",
    "policy: ptrace": "ptrace pid:{victim}",
}


LAST = ("files: a policy", "policy: kill")  # of each agent: when its record is there, so are those before


def is_ruled(name: str) -> bool:
    return name.startswith("policy")


@dataclass(frozen=True)
class Told:
    """What all attempts came to, and what the host and the warden were before and after them."""

    came_to: dict[str, str]
    records: dict[str, list[Record]]
    names: dict[str, str]  # of what {bpffs}, {state}, … stand for
    before: dict[str, object]
    after: dict[str, object]


def standing(daemon: Hostwarden, victim: int) -> dict[str, object]:
    """What no attempt may change."""
    assert daemon.process
    warden = daemon.process.pid
    listed = {str(folder): sorted(os.listdir(folder)) for folder in (daemon.bpffs, daemon.policy_dir, daemon.run_dir)}
    policy = (daemon.policy_dir / "p.yaml").stat()
    return listed | {
        "warden": [_state(warden), *os.sched_getaffinity(warden), os.sched_getscheduler(warden)],
        "nice": {os.getpriority(os.PRIO_PROCESS, int(tid)) for tid in os.listdir(f"/proc/{warden}/task")},
        "oom": Path(f"/proc/{warden}/oom_score_adj").read_text(),
        "victim": _state(victim),
        "policy": (policy.st_mtime, policy.st_uid, policy.st_mode, policy.st_nlink),
        "mounts": sorted(line.split(" - ")[0] for line in Path("/proc/self/mountinfo").read_text().splitlines()),
        "host": socket.gethostname(),
        "core_pattern": Path("/proc/sys/kernel/core_pattern").read_text(),
        "helper": MARKER.exists(),
        "groups": sorted(path.name for path in Path("/sys/fs/cgroup").iterdir() if path.name == "mine"),
    }


def _state(pid: int) -> bool:
    """Whether it goes on: not stopped, not traced, not dead."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in ("S", "R", "D")


def asked(daemon: Hostwarden, victim: int) -> dict[str, Any]:
    """What root_agent.py is told."""
    assert daemon.process
    warden = daemon.process.pid
    group = Path(f"/proc/{warden}/cgroup").read_text().split("::")[1].strip()
    disk = os.stat(DISK).st_rdev
    return {
        "warden": warden,
        "threads": sorted(map(int, os.listdir(f"/proc/{warden}/task"))),
        "victim": victim,
        "bpffs": str(daemon.bpffs),
        "link": str(daemon.bpffs / "link_file_open"),
        "state": str(daemon.state_dir),
        "policies": str(daemon.policy_dir),
        "run": str(daemon.run_dir),
        "cgroup": f"/sys/fs/cgroup{group}",
        "disk": [os.major(disk), os.minor(disk)],
        "disk_path": DISK,
        "marker": str(MARKER),
    }


def refusals(daemon: Hostwarden, agent: str, last: int) -> list[Record]:
    """All of an agent's, as soon as one of the process ``last`` is there."""
    found: list[Record] = []

    def has_come() -> bool:
        found[:] = [record for record in daemon.events(agent=agent) if record["verdict"] in ("deny", "kill")]
        return any(record["process"]["pid"] == last for record in found)

    daemon.wait_until(has_come, daemon.wait_s)
    return found


@pytest.fixture(scope="module")
def daemon() -> Iterator[Hostwarden]:
    with started(p=POLICY) as made:
        yield made


@pytest.fixture(scope="module")
def told(daemon: Hostwarden) -> Iterator[Told]:
    """Two agents, each of which makes all its attempts."""
    MARKER.unlink(missing_ok=True)
    with subprocess.Popen(["sleep", "600"], start_new_session=True) as victim:
        try:
            question = asked(daemon, victim.pid)
            before = standing(daemon, victim.pid)
            came_to: dict[str, str] = {}
            records: dict[str, list[Record]] = {}
            for team in ("ruled", "free"):
                names = [name for name in EXPECTED if is_ruled(name) == (team == "ruled")]
                names.sort(key=LAST.__contains__)
                argv = [*AGENT, json.dumps(question | {"names": names})]
                done = daemon.run(argv, agent=team, labels=f"team={team}", timeout_s=RUN_S, cwd=ROOT)
                assert done.returncode == 0, done.stderr
                lines = [json.loads(line) for line in done.stdout.splitlines()]
                found = refusals(daemon, team, lines[-1]["pid"])
                for line in lines:
                    came_to[line["name"]] = line["came_to"]
                    records[line["name"]] = [r for r in found if r["process"]["pid"] == line["pid"]]
            plain = {key: str(value) for key, value in question.items()}
            yield Told(came_to, records, plain, before, standing(daemon, victim.pid))
        finally:
            victim.kill()


@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", EXPECTED)
def test_is_refused_and_recorded(told: Told, name: str) -> None:
    refused = [record for record in told.records[name] if record["outcome"] == "prevented"]
    seen = [f"{record['action']} {record['target']}" for record in refused]
    assert told.came_to[name] in REFUSED, seen
    assert any(fnmatchcase(each, EXPECTED[name].format(**told.names)) for each in seen), seen


@pytest.mark.timeout(600)
def test_the_world_is_what_it_was(told: Told) -> None:
    assert told.after == told.before


@pytest.mark.timeout(600)
def test_nobody_keeps_the_next_warden_from_its_place(daemon: Hostwarden, told: Told) -> None:
    """An agent that waits for the lock on the pins doesn't get it when the warden dies."""
    held = f"import fcntl, os; fcntl.flock(os.open('{daemon.bpffs}', os.O_RDONLY), fcntl.LOCK_EX)"
    assert daemon.run(["/usr/bin/python3", "-I", "-c", held], labels="team=free").returncode == 1
    daemon.stop(9)
    folder = os.open(daemon.bpffs, os.O_RDONLY)
    fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(folder)
    start(daemon)
