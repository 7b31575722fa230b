"""What the attempts of root_agent.py are made with."""

import ctypes
import errno
import json
import os
import struct
import sys
from collections.abc import Callable
from typing import Any

libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
IT: dict[str, Any] = json.loads(sys.argv[1])
WARDEN, VICTIM, THREAD = IT["warden"], IT["victim"], IT["threads"][-1]
AT_FDCWD = -100
Attempt = Callable[[], object]
ATTEMPTS: dict[str, Attempt] = {}


def call(number: int, *arguments: object) -> int:
    """A system call by its number on x86-64. Raises OSError."""
    plain = [ctypes.c_long(each) if isinstance(each, int) else each for each in arguments]
    result = int(libc.syscall(ctypes.c_long(number), *plain))
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


def attempt(name: str) -> Callable[[Attempt], Attempt]:
    """The function below is the attempt of this name."""

    def kept(function: Attempt) -> Attempt:
        ATTEMPTS[name] = function
        return function

    return kept


def packed(layout: str, *values: object) -> "ctypes.Array[ctypes.c_char]":
    """What a system call takes as a struct, and room behind it."""
    return ctypes.create_string_buffer(struct.pack(layout, *values) + bytes(140))


def text(path: str) -> ctypes.c_char_p:
    return ctypes.c_char_p(path.encode())


def write(path: str, content: str, flags: int = 0) -> None:
    """Raises OSError."""
    fd = os.open(path, os.O_WRONLY | flags)
    os.write(fd, content.encode())
    os.close(fd)


def mount(source: str, target: str, kind: str, flags: int = 0, options: str = "") -> None:
    call(165, text(source), text(target), text(kind), flags, text(options))


def alone() -> None:
    """A mount namespace of its own, nothing of which comes back to the host."""
    call(272, 0x20000)
    mount("none", "/", "", 0x44000)


def private(kind: str, options: str = "") -> None:
    alone()
    mount("none", "/mnt", kind, 0, options)


def unmount(path: str) -> None:
    """What got through is taken back at once, so that the next attempt has a world."""
    call(166, text(path), 2)


def in_child(name: str) -> None:
    """One attempt, in a child that nothing outlives."""
    there, here = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            ATTEMPTS[name]()
            came_to = "DONE"
        except OSError as error:
            came_to = errno.errorcode.get(error.errno or 0, str(error.errno))
        except BaseException as error:
            came_to = repr(error)
        os.write(here, came_to.encode())
        os._exit(0)
    os.close(here)
    came_to = os.read(there, 1000).decode()
    os.close(there)
    os.waitpid(pid, 0)
    print(json.dumps({"name": name, "pid": pid, "came_to": came_to or "ended"}), flush=True)
