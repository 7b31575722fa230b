"""hostwardend and the collector as services in a guest, from the tree that is there, on their default configuration."""

import subprocess

from vagrant import machine
from vagrant.guests import Guest, VmError
from vagrant.run import say

# Transient units: what is stopped leaves nothing. The kernel's half goes first, for a changed tree has other programs.
SCRIPT = f"""
set -e
systemctl stop hostwardend hostwarden-collector 2>/dev/null || true
install -d /etc/hostwarden/policies.d /etc/hostwarden/agents.d
hostwardend --off 2>/dev/null || true
unit() {{
    systemctl reset-failed "$1" 2>/dev/null || true
    systemd-run --quiet --unit="$1" --collect --property=Type=notify --property=TimeoutStartSec=600 \
        --working-directory={machine.INSTALLED} "/usr/local/bin/$1"
}}
unit hostwarden-collector
unit hostwardend
hostwarden status >/dev/null
"""


def start(guest: Guest) -> None:
    """Start both anew, and wait until ``hostwarden status`` says ready. Raises VmError with the daemon's last words."""
    command = machine.ssh(guest, "sudo bash -s")
    done = subprocess.run(command, input=SCRIPT, capture_output=True, text=True)
    if done.returncode:
        units = "-u hostwardend -u hostwarden-collector"
        journal = machine.ssh(guest, f"sudo journalctl -q -o cat {units} | grep ^hostwarden | tail -1")
        said = subprocess.run(journal, stdin=subprocess.DEVNULL, capture_output=True, text=True).stdout
        raise VmError(f"hostwardend doesn't start in {guest.name}: {(said or done.stderr).strip()[-300:]}")
    say(f"{guest.name}: hostwardend and hostwarden-collector run")
