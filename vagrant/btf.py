"""The BTF of a kernel image that isn't running, as /sys/kernel/btf/vmlinux would show it there."""

import subprocess
import tempfile
from pathlib import Path

from vagrant.guests import VmError

# How a kernel can be packed: where the packed part begins, and what unpacks it (scripts/extract-vmlinux in the kernel).
PACKERS = [
    (b"\x1f\x8b\x08", "gzip"),
    (b"\xfd7zXZ\x00", "xz"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"\x02\x21\x4c\x18", "lz4"),
]


def extract(vmlinuz: Path, target: Path) -> None:
    """Write the raw BTF of ``vmlinuz`` to ``target``. Raises VmError."""
    with tempfile.NamedTemporaryFile(prefix="vmlinux-", dir=target.parent) as unpacked:
        unpacked.write(_elf(vmlinuz))
        unpacked.flush()
        command = ["objcopy", "--dump-section", f".BTF={target}", unpacked.name, "/dev/null"]
        done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode or not target.exists():
        raise VmError(f"no BTF in {vmlinuz}: {done.stderr.strip()[:200]}")


def _elf(vmlinuz: Path) -> bytes:
    image = vmlinuz.read_bytes()
    for magic, packer in PACKERS:
        start = image.find(magic)
        while start >= 0:  # the magic number occurs by chance, too: the right one unpacks to ELF
            # Junk behind the packed part makes the exit code useless.
            elf = subprocess.run([packer, "-dc"], input=image[start:], capture_output=True).stdout
            if elf.startswith(b"\x7fELF"):
                return elf
            start = image.find(magic, start + 1)
    raise VmError(f"{vmlinuz} is packed in a way that isn't known here: {', '.join(name for _, name in PACKERS)} are")
