"""A guest's life: boot, copy the tree, reach it by ssh, end it."""

import fcntl
import os
import shlex
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from vagrant import box, compiled, room
from vagrant.guests import GUESTS, HERE, TREE, Guest, VmError
from vagrant.run import logged, say

BOOTS = 2  # a boot may be tried again, a verdict never
INSTALLED = "/opt/hostwarden"  # where the tree is in a guest


def up(guest: Guest) -> None:
    """Boot the guest if it isn't running, and copy the tree there. Raises VmError."""
    began = time.monotonic()
    with _lock():
        if room.first_process() is None:
            room.open_for(box.folder())
    if not is_up(guest):
        for left in reversed(range(BOOTS)):
            try:
                _boot(guest)
                break
            except VmError as error:
                if not left:
                    raise VmError(f"{error}; what its kernel said: {console(guest)}") from error
                say(f"{guest.name}: {error}; once more")
    sync(guest)
    say(f"{guest.name}: up, with this tree in {INSTALLED} ({time.monotonic() - began:.0f} s)")


def sync(guest: Guest) -> None:
    """Copy the tree, but for what git ignores, as root's, and what its probes compile to. Raises VmError."""
    # What git ignores stays as it is on both sides; .venv by name, since the guest may not have our .gitignore yet.
    _copy(guest, TREE, INSTALLED, "--delete", "--exclude=/.venv", "--exclude=/.git", "--filter=:- .gitignore")
    probes = compiled.probes(guest, room.box(), room.STATE, log_of(guest))
    _copy(guest, probes, compiled.CACHE, "--include=probes-*", "--exclude=*")


def ssh(guest: Guest, line: str) -> list[str | Path]:
    """The command that runs ``line`` in the guest's shell, as vagrant. Raises VmError if no guest is up."""
    return room.command("ssh", *_options(guest), guest.name, *([line] if line else []))


def is_up(guest: Guest) -> bool:
    """Whether the guest answers."""
    if room.first_process() is None or not _config(guest).exists():
        return False
    return subprocess.run(ssh(guest, "true"), stdin=subprocess.DEVNULL, capture_output=True).returncode == 0


def down(guests: Sequence[Guest]) -> None:
    """End those guests, and the room with the last one. Raises VmError."""
    with _lock():
        if room.first_process() is not None:
            for guest in guests:
                _destroy(guest)
        if not any(_config(guest).exists() for guest in GUESTS.values()):
            room.close()


def log_of(guest: Guest) -> Path:
    """Where Vagrant's words about a guest are."""
    return room.LOGS / f"{guest.name}.log"


def console(guest: Guest) -> str:
    """Path of what the guest's kernel said."""
    return str(room.LOGS / f"{guest.name}-console.log")


def _copy(guest: Guest, source: Path, target: str, *what: str) -> None:
    by = shlex.join(["ssh", *_options(guest)])
    how = ["--archive", "--chown=root:root", "--rsync-path=sudo rsync", "--rsh", by, *what]
    logged(room.command("rsync", *how, f"{source}/", f"{guest.name}:{target}/"), log_of(guest))


def _boot(guest: Guest) -> None:
    environment = room.vagrant(room.box())
    log = log_of(guest)
    with _lock():  # vagrant-libvirt guards the upload of the box's disk within one process only
        _destroy(guest)
        logged(room.command("vagrant", "up", guest.name), log, environment, timeout_s=600)
        said = subprocess.run(
            room.command("vagrant", "ssh-config", guest.name),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            env=os.environ | environment,
            cwd="/",
        )
    if said.returncode:
        raise VmError(f"vagrant ssh-config failed: {said.stderr.strip()[-200:]}")
    _config(guest).parent.mkdir(exist_ok=True)
    _config(guest).write_text(said.stdout)


def _destroy(guest: Guest) -> None:
    _config(guest).unlink(missing_ok=True)
    if (room.STATE / "machines" / "machines" / guest.name).exists():
        destroy = room.command("vagrant", "destroy", "--force", guest.name)
        logged(destroy, log_of(guest), room.vagrant(room.box()))


def _config(guest: Guest) -> Path:
    """ssh's configuration for the guest: there while it is up."""
    return room.STATE / "ssh" / guest.name


def _options(guest: Guest) -> list[str]:
    if not _config(guest).exists():
        raise VmError(f"{guest.name} isn't up; try: ./dev vm up {guest.name}")
    return ["-F", str(_config(guest)), "-o", "ServerAliveInterval=20", "-o", "ServerAliveCountMax=15"]


@contextmanager
def _lock() -> Iterator[None]:
    """One at a time changes the room, whoever runs ./dev vm in this tree."""
    room.STATE.mkdir(exist_ok=True)
    folder = os.open(HERE, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)
