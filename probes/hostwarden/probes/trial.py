"""Would this kernel take programs of a tier at all? Answered in milliseconds, with a program that does nothing, before
the real ones are compiled for nothing. A yes proves nothing (an LSM program attaches, and is never called, where `lsm=`
lacks bpf): only a refusal that was tried and seen does.
"""

import ctypes
import os

from hostwarden.probes import bpf

# mov r0, 0; exit: an LSM or fmod_ret program that lets everything pass.
NOTHING = bytes.fromhex("b7000000000000009500000000000000")
# The hook that every tier needs, as each tier finds it; libbpf puts `bpf_lsm_` in front of an LSM hook's name.
HOOKS = {
    "lsm": (bpf.ProgramType.LSM, bpf.LSM_MAC, "file_open"),
    "modify_return": (bpf.ProgramType.TRACING, bpf.MODIFY_RETURN, "security_file_open"),
}


def refusal(tier: str) -> str | None:
    """Why this kernel takes no programs of ``tier`` (a key of HOOKS), in a few words; None if it takes them."""
    kind, attach_type, hook = HOOKS[tier]
    libbpf = ctypes.CDLL("libbpf.so.1")
    libbpf.libbpf_set_print(None)  # what it would print is what we return
    number: int = libbpf.libbpf_find_vmlinux_btf_id(hook.encode(), attach_type)
    if number <= 0:
        return f"this kernel has no {hook} to attach to"
    try:
        program = bpf.prog_load(bpf.Code(NOTHING), f"trial_{tier}", kind, attach_type, number)
    except bpf.VerifierError as error:
        return f"the kernel refuses to load such programs ({_reason(error.__cause__)})"
    try:
        link = bpf.attach_in_kernel(program)
    except OSError as error:
        return f"the kernel refuses to attach such programs ({_reason(error)})"
    finally:
        os.close(program)
    os.close(link)
    return None


def _reason(error: BaseException | None) -> str:
    return os.strerror(error.errno) if isinstance(error, OSError) and error.errno else str(error)
