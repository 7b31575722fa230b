"""The room: network, mount and pid namespaces of this tree's own, with a libvirtd in them, and all guests.

So nothing has to be set up on the host and nothing is left behind: guests, bridge, addresses and sockets are in there,
and end when the room's first process does. It needs no systemd, and a libvirtd of the host stays as it is.
"""

import os
import shutil
import signal
import subprocess
from pathlib import Path

from vagrant.guests import HERE, TREE, VmError
from vagrant.run import wait_for

STATE = TREE / ".vagrant"
LOGS = STATE / "logs"
LOG = LOGS / "room.log"
PID = STATE / "room.pid"

LIBVIRT = {
    # Everything is root's here, and the namespaces are the fence: nothing of the host's is asked for permission.
    "qemu.conf": """user = "root"
group = "root"
security_driver = "none"
namespaces = []
stdio_handler = "file"
""",
    "libvirtd.conf": """auth_unix_rw = "none"
unix_sock_rw_perms = "0700"
""",
}


def first_process() -> int | None:
    """The pid, as the host counts, of the room's first process; None if there is no room."""
    try:
        pid, birth = PID.read_text().split()
        if _birth(int(pid)) != birth:  # the pid is somebody else's by now
            return None
        return int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])
    except (OSError, ValueError, IndexError):
        return None


def command(*argv: str | Path) -> list[str | Path]:
    """``argv``, to be run inside. Raises VmError if there is no room."""
    pid = first_process()
    if pid is None:
        raise VmError("no guest is up; try: ./dev vm up")
    return ["nsenter", "--target", str(pid), "--net", "--mount", "--pid", "--", *argv]


def box() -> Path:
    """The box of the guests inside: who changes what it's made from keeps the old one until then."""
    return (STATE / "box").resolve()


def vagrant(box: Path) -> dict[str, str]:
    """The environment in which ``vagrant`` knows the guests."""
    return {
        "VAGRANT_HOME": str(STATE / "home"),
        "VAGRANT_CWD": str(HERE),
        "VAGRANT_DOTFILE_PATH": str(STATE / "machines"),
        "VAGRANT_DEFAULT_PROVIDER": "libvirt",
        "VAGRANT_NO_COLOR": "1",
        "VAGRANT_CHECKPOINT_DISABLE": "1",
        "HOSTWARDEN_BOX": str(box),
        "HOSTWARDEN_LOGS": str(LOGS),
        "HOSTWARDEN_DRIVER": (STATE / "driver").read_text(),
    }


def open_for(new_box: Path) -> None:
    """Make the room, for guests of that box. Raises VmError."""
    close()
    shutil.rmtree(LOGS, ignore_errors=True)
    for folder in (LOGS, STATE / "home", STATE / "etc" / "libvirt"):
        folder.mkdir(parents=True, exist_ok=True)
    for name, text in LIBVIRT.items():
        (STATE / "etc" / "libvirt" / name).write_text(text)
    (STATE / "driver").write_text("kvm" if kvm_boots(new_box) else "qemu")
    (STATE / "box").symlink_to(new_box)
    (STATE / "home" / "boxes").symlink_to(new_box / "boxes")
    with LOG.open("ab") as log:
        unshare = subprocess.Popen(
            ["unshare", "--net", "--mount", "--mount-proc", "--pid", "--fork", "--kill-child", HERE / "room.sh", STATE],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd="/",
            start_new_session=True,
        )
    PID.write_text(f"{unshare.pid} {_birth(unshare.pid)}")

    def is_answering() -> bool:
        if unshare.poll() is not None:
            raise VmError(f"libvirtd ended at once (see {LOG})")
        probe = command("virsh", "--quiet", "--connect", "qemu:///system", "version")
        return subprocess.run(probe, capture_output=True, cwd="/").returncode == 0

    wait_for("first process of the room", lambda: first_process() is not None, 10, LOG)
    wait_for("libvirtd", is_answering, 60, LOG)


def close() -> None:
    """End what is inside, if anything is, and forget it. Logs stay."""
    if first_process() is not None:
        pid = int(PID.read_text().split()[0])
        os.kill(pid, signal.SIGKILL)  # unshare ignores gentler ones; its child, and so all inside, dies with it
        wait_for("end of the room", lambda: _birth(pid) is None, 30, LOG)
    for path in STATE.glob("*"):
        if path == LOGS:
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def kvm_boots(new_box: Path) -> bool:
    """Whether a kernel gets as far under KVM as to find no root: /dev/kvm alone promises nothing in nested machines."""
    trial = ["qemu-system-x86_64", "-accel", "kvm", "-cpu", "host", "-m", "512", "-nographic", "-no-reboot"]
    trial += ["-kernel", str(new_box / "vmlinuz-6.1"), "-append", "console=ttyS0 panic=-1"]
    try:
        done = subprocess.run(trial, stdin=subprocess.DEVNULL, capture_output=True, timeout=30)
    except subprocess.TimeoutExpired:
        return False
    return b"Unable to mount root fs" in done.stdout


def _birth(pid: int) -> str | None:
    """When the process started, in ticks since boot: with its pid, nobody else's. None if it is gone."""
    try:
        state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if state == "Z" else fields[18]
