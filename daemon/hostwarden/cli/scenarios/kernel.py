"""System calls that Python doesn't have, by number, for what agents try. Standard library only.

Failures are OSError, as from ``os``. Numbers of x86-64 stand here; from 424 on they are the same on every machine.
"""

import ctypes
import mmap
import os
from typing import Any

AT_FDCWD, AT_EMPTY_PATH = -100, 0x1000
CLONE_FILES, CLONE_NEWNS, CLONE_NEWUSER, CLONE_NEWNET, CLONE_NEWPID = 0x400, 0x20000, 1 << 28, 1 << 30, 1 << 29

NUMBERS = {
    "open": 2, "clone": 56, "creat": 85, "ptrace": 101, "tgkill": 234, "name_to_handle_at": 303,
    "open_by_handle_at": 304, "sendmmsg": 307, "process_vm_writev": 311, "renameat2": 316, "execveat": 322,
    "io_uring_setup": 425, "io_uring_enter": 426, "open_tree": 428, "clone3": 435, "openat2": 437, "pidfd_getfd": 438,
}  # fmt: skip
# The 32-bit table, which 64-bit code may enter as well.
NUMBERS_80 = {"open": 5, "creat": 8, "unlink": 10, "execve": 11, "chmod": 15, "rename": 38, "openat": 295}

_libc = ctypes.CDLL(None, use_errno=True)


def syscall(name: str, *arguments: Any) -> int:
    """``syscall("openat2", AT_FDCWD, b"/path", …)``: bytes and ctypes' objects go as pointers. Raises OSError."""
    converted = [ctypes.c_long(value) if isinstance(value, int) else value for value in arguments]
    result = int(_libc.syscall(ctypes.c_long(NUMBERS[name]), *converted))
    return _checked(result, name)


def call(name: str, *arguments: Any) -> int:
    """A function of libc. Raises OSError where it returns -1."""
    return _checked(int(getattr(_libc, name)(*arguments)), name)


def _checked(result: int, name: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), name)
    return result


# push rbx; mov eax, edi; mov ebx, esi; mov esi, r8d; mov r9d, ecx; mov ecx, edx; mov edx, r9d; int 0x80; cdqe; pop rbx;
# ret
_INT80 = bytes.fromhex("5389f889f34489c64189c989d14489cacd8048985bc3")
_MAP_32BIT = 0x40


class Int80:
    """`int $0x80` from 64-bit code, as a program that wants to be missed would enter the kernel."""

    def __init__(self) -> None:
        code = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
        code.write(_INT80)
        prototype = ctypes.CFUNCTYPE(ctypes.c_long, *[ctypes.c_long] * 5)
        self._code = code
        self._enter = prototype(ctypes.addressof(ctypes.c_char.from_buffer(code)))
        # Pointers are 32 bits there, so what they point to lies low.
        self._low = mmap.mmap(-1, 8192, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_32BIT)
        self._address = ctypes.addressof(ctypes.c_char.from_buffer(self._low))
        self._used = 0

    def pointer(self, data: bytes) -> int:
        """Where ``data`` lies, with a NUL behind it."""
        start, self._used = self._used, self._used + len(data) + 8 & ~7
        self._low[start : start + len(data) + 1] = data + b"\0"
        return self._address + start

    def __call__(self, name: str, *arguments: int) -> int:
        """Up to four arguments. Raises OSError."""
        padded = [*arguments, 0, 0, 0, 0][:4]
        result = int(self._enter(NUMBERS_80[name], *padded))
        if result < 0:
            raise OSError(-result, os.strerror(-result), name)
        return result
