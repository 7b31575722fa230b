"""The guest is what its name says, and has what hostwarden and its agents need."""

import json
import os
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path

import bcc
import pytest

from hostwarden.probes import headers

GUESTS = json.loads((Path(__file__).resolve().parents[2] / "vagrant" / "guests.json").read_text())


def test_kernel_is_the_one_that_the_name_promises(guest: str) -> None:
    assert re.match(re.escape(GUESTS[guest]["series"]) + r"\.\d+", platform.release())


def test_bpf_is_in_the_list_of_security_modules_unless_the_name_says_it_is_not(guest: str) -> None:
    modules = Path("/sys/kernel/security/lsm").read_text().split(",")
    assert ("bpf" in modules) == (not guest.endswith("-nolsm"))


def test_preemption_is_not_full() -> None:
    """The modify_return tier fails open under full preemption: what is shown here must be what users get."""
    modes = Path("/sys/kernel/debug/sched/preempt").read_text()
    chosen = re.search(r"\((\w+)\)", modes)
    assert chosen is not None
    assert chosen[1] in ("none", "voluntary")


def test_emulated_guests_have_one_processor() -> None:
    """With two, attaching BPF under load panics them."""
    if "QEMU TCG" in Path("/proc/cpuinfo").read_text():
        assert os.cpu_count() == 1


def test_header_tree_of_this_kernel_was_made_before_it_booted(tmp_path: Path) -> None:
    """Its name is the digest of the BTF that was taken from the kernel's image."""
    made = Path("/var/cache/hostwarden")
    before = sorted(made.iterdir())
    tree = headers.tree(made)
    assert tree in before
    numbers = [int(number) for number in re.findall(r"\d+", platform.release())[:3]]
    assert f"KERNEL_VERSION({', '.join(map(str, numbers))})" in (tree / "include/linux/version.h").read_text()


def test_bcc_compiles_for_this_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BCC_KERNEL_SOURCE", str(headers.tree(Path("/var/cache/hostwarden"))))
    program = bcc.BPF(text=b"int nothing(struct pt_regs *ctx) { struct task_struct *t = 0; return t != 0; }")
    assert program.load_func(b"nothing", bcc.BPF.KPROBE).fd > 0


@pytest.mark.parametrize("program", ["hostwarden", "hostwardend", "hostwarden-collector"])
def test_programs_start(program: str) -> None:
    done = subprocess.run([Path(sys.prefix) / "bin" / program, "--help"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("tool", ["git", "gcc", "make", "node", "npm", "sqlite3", "strace", "curl", "openssl", "socat"])
def test_tools_of_agents_are_there(tool: str) -> None:
    assert shutil.which(tool) is not None


@pytest.mark.parametrize("kind", ["cgroup2", "bpf", "securityfs", "debugfs"])
def test_file_systems_are_mounted(kind: str) -> None:
    mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    assert kind in {mount[2] for mount in mounts}


def test_nothing_failed_to_start() -> None:
    listed = subprocess.run(["systemctl", "--failed", "--plain", "--no-legend"], capture_output=True, text=True)
    assert listed.stdout == ""
