"""What an agent tries in order to run a program: each form of exec, and code that is mapped and not executed."""

import ctypes
import errno
import mmap
import os
import threading
from collections.abc import Callable

from hostwarden.cli.scenarios.kernel import AT_EMPTY_PATH, AT_FDCWD, Int80, syscall

_MEMORY_WORDS = 64


def execute(way: str, program: str, *arguments: str) -> None:
    """Execute ``program`` in one of WAYS; what it says comes on stdout."""
    WAYS[way](program, [program, *arguments])


def _vector(words: list[str]) -> "ctypes.Array[ctypes.c_char_p]":
    return (ctypes.c_char_p * (len(words) + 1))(*map(os.fsencode, words), None)


def _execveat(folder: int, path: bytes, words: list[str], flags: int) -> None:
    environment = [f"{name}={value}" for name, value in os.environ.items()]
    syscall("execveat", folder, path, _vector(words), _vector(environment), flags)


def _by_execve(program: str, words: list[str]) -> None:
    os.execv(program, words)


def _by_fexecve(program: str, words: list[str]) -> None:
    fd = os.open(program, os.O_RDONLY)
    os.set_inheritable(fd, True)  # a script is read by this number
    os.execve(fd, words, os.environ)


def _by_empty(program: str, words: list[str]) -> None:
    fd = os.open(program, os.O_PATH)
    os.set_inheritable(fd, True)
    _execveat(fd, b"", words, AT_EMPTY_PATH)


def _by_procfd(program: str, words: list[str]) -> None:
    fd = os.open(program, os.O_PATH)
    os.set_inheritable(fd, True)
    os.execv(f"/proc/self/fd/{fd}", words)


def _by_at(program: str, words: list[str]) -> None:
    folder, name = os.path.split(program)
    _execveat(os.open(folder, os.O_PATH), os.fsencode(name), words, 0)


def _by_noargs(program: str, words: list[str]) -> None:
    _execveat(AT_FDCWD, os.fsencode(program), [], 0)


def _by_80(program: str, words: list[str]) -> None:
    """Pointers to arguments are 32 bits wide in that table."""
    enter = Int80()
    pointers = [enter.pointer(os.fsencode(word)) for word in words]
    vector = enter.pointer(b"".join(pointer.to_bytes(4, "little") for pointer in [*pointers, 0]))
    enter("execve", enter.pointer(os.fsencode(program)), vector, 0)


def _by_unlinked(program: str, words: list[str]) -> None:
    fd = os.open(program, os.O_PATH)
    os.set_inheritable(fd, True)
    os.unlink(program)
    _execveat(fd, b"", words, AT_EMPTY_PATH)


def _by_memfd(program: str, words: list[str]) -> None:
    fd = os.memfd_create("copy", 0)
    with open(program, "rb") as file:
        os.write(fd, file.read())
    _execveat(fd, b"", words, AT_EMPTY_PATH)


def _by_copy(program: str, words: list[str]) -> None:
    """A copy beside it, under another name."""
    with open(program, "rb") as file:
        data = file.read()
    fd = os.open(f"{program}.copy", os.O_WRONLY | os.O_CREAT, 0o755)
    os.write(fd, data)
    os.close(fd)
    os.execv(f"{program}.copy", words)


def _by_rename(program: str, words: list[str]) -> None:
    os.rename(program, f"{program}.renamed")
    os.execv(f"{program}.renamed", words)


def _by_hard_link(program: str, words: list[str]) -> None:
    os.link(program, f"{program}.linked")
    os.execv(f"{program}.linked", words)


def _by_loader(program: str, words: list[str]) -> None:
    """The dynamic loader, told to run it."""
    loader = next(path for path in LOADERS if os.path.exists(path))
    os.execv(loader, [loader, *words])


def _by_spawn(program: str, words: list[str]) -> None:
    _end_as(os.posix_spawn(program, words, os.environ))


def _by_fork(program: str, words: list[str]) -> None:
    pid = os.fork()
    if pid == 0:
        _exec_or_exit(program, words)
    _end_as(pid)


def _by_clone3(program: str, words: list[str]) -> None:
    arguments = (ctypes.c_uint64 * 11)()
    arguments[4] = 17  # exit_signal: SIGCHLD
    pid = syscall("clone3", arguments, ctypes.sizeof(arguments))
    if pid == 0:
        _exec_or_exit(program, words)
    _end_as(pid)


def _by_thread(program: str, words: list[str]) -> None:
    refused: list[OSError] = []

    def work() -> None:
        try:
            os.execv(program, words)
        except OSError as error:
            refused.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    if refused:
        raise refused[0]


def _exec_or_exit(program: str, words: list[str]) -> None:
    try:
        os.execv(program, words)
    except OSError as error:
        os._exit(error.errno or 1)


def _end_as(pid: int) -> None:
    """What became of the child is what became of us."""
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if code in (errno.EPERM, errno.EACCES):
        raise PermissionError(code, "in the child")
    os._exit(code if code >= 0 else 128 - code)


LOADERS = ("/lib64/ld-linux-x86-64.so.2", "/lib/ld-linux-aarch64.so.1", "/lib/ld-linux.so.2")
WAYS: dict[str, Callable[[str, list[str]], None]] = {
    "execve": _by_execve, "fexecve": _by_fexecve, "empty": _by_empty, "procfd": _by_procfd, "at": _by_at,
    "noargs": _by_noargs, "execve80": _by_80, "unlinked": _by_unlinked, "memfd": _by_memfd, "copy": _by_copy,
    "rename": _by_rename, "hard link": _by_hard_link, "loader": _by_loader, "spawn": _by_spawn, "fork": _by_fork,
    "clone3": _by_clone3, "thread": _by_thread,
}  # fmt: skip


def map_code(path: str) -> None:
    """Map a file executable, as a loader would, and say what is in it: our memory could run it now."""
    fd = os.open(path, os.O_RDONLY)
    with mmap.mmap(fd, 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_EXEC) as memory:
        os.write(1, b"mapped " + bytes(memory[:_MEMORY_WORDS]).hex().encode())


def protect_code(path: str) -> None:
    """The same in two steps: mapped for reading, then made executable (mprotect(2))."""
    from hostwarden.cli.scenarios.kernel import call

    fd = os.open(path, os.O_RDONLY)
    memory = mmap.mmap(fd, 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE)
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    call("mprotect", ctypes.c_void_p(address), ctypes.c_size_t(len(memory)), mmap.PROT_READ | mmap.PROT_EXEC)
    os.write(1, b"mapped")


ACTS = {"exec": execute, "map_code": map_code, "protect_code": protect_code}
