"""A tree of headers that lets bcc compile without the distribution's kernel headers: the running kernel's own types.

bcc asks for a kernel source tree but reads only a few files of it. They are made from /sys/kernel/btf/vmlinux, so
offsets are right by construction and nothing has to match a package (measured: kernel-facts, "bcc without kernel
headers"). Cached by the BTF's digest.
"""

import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

BTF = Path("/sys/kernel/btf/vmlinux")
# Helper ids that bcc 0.26's headers name and older kernels' BTF lacks.
LATE_HELPERS = {
    "BPF_FUNC_user_ringbuf_drain": 209,
    "BPF_FUNC_cgrp_storage_get": 210,
    "BPF_FUNC_cgrp_storage_delete": 211,
}
MOVED_MEMBERS = ("f_task_work",)  # exec.h
KCONFIG = """#ifndef HOSTWARDEN_KCONFIG
#define HOSTWARDEN_KCONFIG
#define _UAPI__LINUX_BPF_H__
#define __LINUX_BPF_H__
#define CONFIG_BPF_SYSCALL 1
#define BPF_NO_PRESERVE_ACCESS_INDEX
#include <vmlinux.h>
{late}
#endif
"""
EMPTY = [f"include/linux/{name}.h" for name in ("types", "bpf_common", "log2", "skbuff")] + [
    f"include/uapi/linux/{name}.h"
    for name in ("bpf", "if_packet", "if_ether", "if_vlan", "ptrace", "ip", "ipv6", "tcp", "udp")
]


class HeadersError(Exception):
    """The tree can't be made: the message says what is missing and how to get it."""


def tree(cache: Path, btf: Path = BTF, release: str | None = None) -> Path:
    """The header tree for the running kernel, made if it isn't cached. Raises HeadersError.

    With ``btf`` (a file of raw BTF) and ``release`` (as uname says it) for another kernel: trees for guests are made
    before they boot.
    """
    try:
        digest = hashlib.sha256(btf.read_bytes()).hexdigest()[:16]
    except OSError as error:
        raise HeadersError(
            f"no BTF at {btf} ({error.strerror}): hostwarden needs a kernel with CONFIG_DEBUG_INFO_BTF=y"
        ) from error
    target = cache / f"headers-{digest}"
    if not target.is_dir():
        cache.mkdir(parents=True, exist_ok=True, mode=0o755)
        scratch = Path(tempfile.mkdtemp(prefix="headers-", dir=cache))
        try:
            _write_tree(scratch, btf, release or os.uname().release)
            scratch.chmod(0o755)
            scratch.rename(target)
        except OSError as error:
            if not target.is_dir():  # somebody else may have been faster
                raise HeadersError(f"the kernel header cache {cache} can't be written: {error.strerror}") from error
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    return target


def _write_tree(root: Path, btf: Path, release: str) -> None:
    try:
        dump = subprocess.run(
            ["bpftool", "btf", "dump", "file", str(btf), "format", "c"],
            capture_output=True,
            text=True,
            check=True,
            env=os.environ | {"PATH": os.environ.get("PATH", "") + ":/usr/sbin:/sbin"},
        ).stdout
    except FileNotFoundError as error:
        raise HeadersError("bpftool isn't installed: apt install bpftool") from error
    except subprocess.CalledProcessError as error:
        raise HeadersError(f"bpftool can't read {btf}: {error.stderr.strip().splitlines()[-1:]}") from error
    late = "\n".join(f"#define {name} {number}" for name, number in LATE_HELPERS.items() if name not in dump)
    files = dict.fromkeys(EMPTY, "")
    files["include/vmlinux.h"] = dump
    files["include/linux/kconfig.h"] = KCONFIG.format(late=late)
    files["include/linux/version.h"] = _version_header(release)
    for name in ("arch/x86/include/asm/page.h", "include/asm/page.h"):
        files[name] = f"#define PAGE_SIZE {os.sysconf('SC_PAGE_SIZE')}\n"
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def _version_header(release: str) -> str:
    numbers = [int(number) for number in re.findall(r"\d+", release)[:3]] + [0, 0, 0]
    return (
        "#define KERNEL_VERSION(a, b, c) (((a) << 16) + ((b) << 8) + ((c) > 255 ? 255 : (c)))\n"
        f"#define LINUX_VERSION_CODE KERNEL_VERSION({numbers[0]}, {numbers[1]}, {numbers[2]})\n"
    )


def defines(root: Path) -> dict[str, int]:
    """-D flags for what kernels call differently: HAS_MEMBER where the types have such a member."""
    types = (root / "include/vmlinux.h").read_text()
    return {f"HAS_{member.upper()}": 1 for member in MOVED_MEMBERS if f" {member};" in types}
