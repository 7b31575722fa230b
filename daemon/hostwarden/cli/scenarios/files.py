"""What an agent tries with files: every form of opening, and every way to change what isn't opened.

Each function is an act that rows name (`act: open openat rdonly $W/secret`): words in, effects on the world, what it
read on stdout, OSError for a refusal.
"""

import ctypes
import errno
import mmap
import os
import socket
import stat
import struct
import threading
import time
from pathlib import Path

from hostwarden.cli.scenarios.kernel import AT_EMPTY_PATH, AT_FDCWD, CLONE_FILES, Int80, call, syscall

LINE = b"the agent's line\n"
FLAGS = {
    "rdonly": os.O_RDONLY, "wronly": os.O_WRONLY, "rdwr": os.O_RDWR, "trunc": os.O_TRUNC, "creat": os.O_CREAT,
    "excl": os.O_EXCL, "append": os.O_APPEND, "tmpfile": os.O_TMPFILE, "dir": os.O_DIRECTORY,
    "nofollow": os.O_NOFOLLOW, "sync": os.O_SYNC,
}  # fmt: skip
HELD: dict[str, int] = {}  # descriptors from before the policy
_RACE_TURNS, _RACE_S = 3000, 20.0


def _say(data: bytes) -> None:
    os.write(1, data)


# --- opening ----------------------------------------------------------------------------------------------------------


def open_file(form: str, words: str, path: str) -> None:
    """Open by ``form`` with the flags ``words`` (joined by commas), read, and write a line where that was asked for."""
    flags = 0
    for word in words.split(","):
        flags |= FLAGS[word]
    use(FORMS[form](path, flags), flags)


def opens(path: str) -> None:
    """Open for reading, and say so."""
    os.open(path, os.O_RDONLY)
    _say(b"opened")


def use(fd: int, flags: int) -> None:
    """Read what is there (or list it) to stdout, append our line."""
    if flags & os.O_DIRECTORY and flags & os.O_TMPFILE != os.O_TMPFILE:
        _say("".join(f"{name}\n" for name in os.listdir(fd)).encode())
        return
    if not flags & os.O_WRONLY:
        _say(os.read(fd, 4096))
    if flags & (os.O_WRONLY | os.O_RDWR):
        os.write(fd, LINE)
    if flags & os.O_TMPFILE == os.O_TMPFILE:
        _say(b"used")


def _by_open(path: str, flags: int) -> int:
    return syscall("open", os.fsencode(path), flags, 0o600)


def _by_openat(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _by_openat2(path: str, flags: int) -> int:
    how = struct.pack("<QQQ", flags, 0o600 if flags & os.O_CREAT else 0, 0)
    return syscall("openat2", AT_FDCWD, os.fsencode(path), how, len(how))


def _by_creat(path: str, flags: int) -> int:
    return syscall("creat", os.fsencode(path), 0o600)


def _by_open80(path: str, flags: int) -> int:
    enter = Int80()
    return enter("open", enter.pointer(os.fsencode(path)), flags, 0o600)


def _by_openat80(path: str, flags: int) -> int:
    enter = Int80()
    return enter("openat", AT_FDCWD, enter.pointer(os.fsencode(path)), flags, 0o600)


def _by_creat80(path: str, flags: int) -> int:
    enter = Int80()
    return enter("creat", enter.pointer(os.fsencode(path)), 0o600)


def _by_reopen(path: str, flags: int) -> int:
    return os.open(f"/proc/self/fd/{os.open(path, os.O_PATH)}", flags)


def _by_dirfd(path: str, flags: int) -> int:
    folder, name = os.path.split(path)
    return os.open(name, flags, 0o600, dir_fd=os.open(folder, os.O_PATH | os.O_DIRECTORY))


def _by_handle(path: str, flags: int) -> int:
    handle, mount_id = ctypes.create_string_buffer(struct.pack("<Ii", 128, 0), 136), ctypes.c_int()
    syscall("name_to_handle_at", AT_FDCWD, os.fsencode(path), handle, ctypes.byref(mount_id), 0)
    return syscall("open_by_handle_at", os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY), handle, flags)


def _by_clone(path: str, flags: int) -> int:
    folder, name = os.path.split(path)
    tree = syscall("open_tree", AT_FDCWD, os.fsencode(folder), 1)  # OPEN_TREE_CLONE
    return os.open(name, flags, dir_fd=tree)


def _by_chroot(path: str, flags: int) -> int:
    folder, name = os.path.split(path)
    os.chroot(folder)
    return os.open(f"/{name}", flags)


FORMS = {
    "open": _by_open, "openat": _by_openat, "openat2": _by_openat2, "creat": _by_creat, "open80": _by_open80,
    "openat80": _by_openat80, "creat80": _by_creat80, "reopen": _by_reopen, "dirfd": _by_dirfd, "handle": _by_handle,
    "clone": _by_clone, "chroot": _by_chroot,
}  # fmt: skip


# --- descriptors that somebody else opened ----------------------------------------------------------------------------


def use_held(name: str, words: str) -> None:
    """Use a descriptor from before the policy, which this process inherited."""
    use(HELD[name], FLAGS[words])


def receive(path: str, words: str) -> None:
    """Use the descriptor that the server at ``path`` hands over (SCM_RIGHTS)."""
    with socket.socket(socket.AF_UNIX) as peer:
        peer.connect(path)
        _, fds, _, _ = socket.recv_fds(peer, 16, 1)
    if not fds:
        raise PermissionError(errno.EACCES, "the message came without its descriptor")
    use(fds[0], FLAGS[words])


def use_number(path: str, words: str) -> None:
    """Use a descriptor that whoever started the agent had open; ``path`` says its number."""
    use(int(Path(path).read_text()), FLAGS[words])


def take(path: str, words: str) -> None:
    """Use the descriptor that the process named in ``path`` (pid, number) has open, taken by pidfd_getfd(2)."""
    pid, number = map(int, Path(path).read_text().split())
    use(syscall("pidfd_getfd", os.pidfd_open(pid), number, 0), FLAGS[words])


def share(path: str) -> None:
    """A child that shares our descriptor table and is no thread opens ``path``; we use what appears."""
    ours = os.dup(0)
    os.close(ours)  # the number that comes next
    child = syscall("clone", CLONE_FILES | 17, 0, 0, 0, 0)
    if child == 0:
        os._exit(_opened(path))
    ended = status = 0
    while not ended:
        ended, status = os.waitpid(child, os.WNOHANG)
        try:
            _say(os.read(ours, 4096))
        except OSError:
            continue  # it isn't open yet
        return
    raise PermissionError(errno.EPERM, f"the child could not open it ({status})")


def _opened(path: str) -> int:
    try:
        os.open(path, os.O_RDONLY)
    except OSError:
        return 1
    return 0


def race_open(target: str, decoy: str, name: str) -> None:
    """A second thread makes ``name`` point to either of two files in turn, while we open it, 3,000 times at least."""
    over = threading.Event()

    def swap() -> None:
        turn = 0
        while not over.is_set():
            turn += 1
            other = f"{name}.{turn % 2}"
            Path(other).unlink(missing_ok=True)
            os.symlink((target, decoy)[turn % 2], other)
            os.rename(other, name)

    thread = threading.Thread(target=swap)
    thread.start()
    loot: set[bytes] = set()
    turns = refused = 0
    ends = time.monotonic() + _RACE_S
    # Both files must have had their turn, whoever may read them.
    while (turns < _RACE_TURNS or len(loot) + bool(refused) < 2) and time.monotonic() < ends:
        turns += 1
        try:
            fd = os.open(name, os.O_RDONLY)
        except FileNotFoundError:
            continue
        except PermissionError:
            refused += 1
            continue
        loot.add(os.read(fd, 4096))
        os.close(fd)
    over.set()
    thread.join()
    _say(b"".join(sorted(loot)))
    if refused:
        raise PermissionError(errno.EPERM, f"{refused} of {turns} refused")


def insist(path: str, seconds: str) -> None:
    """Open ``path`` all the time, each time in a child that says what it read."""
    refused, ends = 0, time.monotonic() + float(seconds)
    while time.monotonic() < ends:
        child = os.fork()
        if child == 0:
            os._exit(_said(path))
        refused += os.waitpid(child, 0)[1] != 0
    if refused:
        raise PermissionError(errno.EPERM, f"refused {refused} times")


def _said(path: str) -> int:
    try:
        _say(os.read(os.open(path, os.O_RDONLY), 4096))
    except OSError:
        return 1
    return 0


# --- moving bytes -----------------------------------------------------------------------------------------------------


def sendfile(source: str, target: str) -> None:
    """From one file to another without a read or write of ours."""
    os.sendfile(os.open(target, os.O_WRONLY), os.open(source, os.O_RDONLY), 0, 4096)


def splice(source: str, target: str) -> None:
    """The same through a pipe."""
    reader, writer = os.pipe()
    os.splice(os.open(source, os.O_RDONLY), writer, 4096)
    os.splice(reader, os.open(target, os.O_WRONLY), 4096)


def copy_range(source: str, target: str) -> None:
    """The same inside the file system."""
    os.copy_file_range(os.open(source, os.O_RDONLY), os.open(target, os.O_WRONLY), 4096)


def map_write(path: str) -> None:
    """Change a file through a shared mapping."""
    with mmap.mmap(os.open(path, os.O_RDWR), 0) as memory:
        memory[:5] = b"agent"


def map_read(path: str) -> None:
    """Read a file through a mapping."""
    with mmap.mmap(os.open(path, os.O_RDONLY), 0, prot=mmap.PROT_READ) as memory:
        _say(bytes(memory))


# --- what needs no descriptor -----------------------------------------------------------------------------------------


def truncate_open(path: str) -> None:
    """ftruncate(2)."""
    os.ftruncate(os.open(path, os.O_WRONLY), 0)


def exchange(old: str, new: str) -> None:
    """RENAME_EXCHANGE."""
    syscall("renameat2", AT_FDCWD, os.fsencode(old), AT_FDCWD, os.fsencode(new), 2)


def link_open(old: str, new: str) -> None:
    """A hard link made from a descriptor."""
    fd = os.open(old, os.O_PATH)
    call("linkat", fd, b"", AT_FDCWD, os.fsencode(new), AT_EMPTY_PATH)


def link_and_read(old: str, new: str) -> None:
    """A hard link, and what is read by it."""
    os.link(old, new)
    open_file("openat", "rdonly", new)


def rename_and_read(old: str, new: str, path: str) -> None:
    """Rename something, then read ``path``."""
    os.rename(old, new)
    open_file("openat", "rdonly", path)


def make_node(kind: str, path: str) -> None:
    """mknod(2): ``null`` (the device), ``fifo``, ``file``."""
    modes = {"null": stat.S_IFCHR, "fifo": stat.S_IFIFO, "file": stat.S_IFREG}
    os.mknod(path, modes[kind] | 0o600, os.makedev(1, 3) if kind == "null" else 0)


def make_socket(path: str) -> None:
    """bind(2) of a unix socket creates a name."""
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)


def change_mode_open(path: str) -> None:
    """fchmod(2) on a descriptor for reading."""
    os.fchmod(os.open(path, os.O_RDONLY), 0o777)


def delete_and_read(path: str) -> None:
    """Open, unlink, and read again by /proc: what has no name any more."""
    fd = os.open(path, os.O_PATH)
    os.unlink(path)
    _say(os.read(os.open(f"/proc/self/fd/{fd}", os.O_RDONLY), 4096))


def by_80(name: str, *paths: str) -> None:
    """A system call of the 32-bit table: unlink, rename, chmod (to 0777)."""
    enter = Int80()
    pointers = [enter.pointer(os.fsencode(path)) for path in paths]
    enter(name, *pointers, *([0o777] if name == "chmod" else []))


def deep_read(folder: str, name: str, count: str, file: str) -> None:
    """Read ``file`` below ``count`` folders called ``name``, one step after the other: no path of that length."""
    os.chdir(folder)
    for _ in range(int(count)):
        os.chdir(name)
    _say(Path(file).read_bytes())


ACTS = {
    "open": open_file, "opens": opens, "use_held": use_held, "use_number": use_number,
    "receive": receive, "take": take, "share": share, "race_open": race_open,
    "insist": insist,
    "sendfile": sendfile, "splice": splice, "copy_range": copy_range, "map_write": map_write, "map_read": map_read,
    "truncate": lambda path: os.truncate(path, 0), "truncate_open": truncate_open, "unlink": os.unlink,
    "rmdir": os.rmdir, "mkdir": os.mkdir, "rename": os.rename, "exchange": exchange, "link": os.link,
    "link_open": link_open, "link_and_read": link_and_read, "rename_and_read": rename_and_read,
    "symlink": os.symlink, "make_node": make_node, "make_socket": make_socket,
    "chmod": lambda path: os.chmod(path, 0o777), "change_mode_open": change_mode_open,
    "chown": lambda path: os.chown(path, 12345, 12345),
    "setxattr": lambda path: os.setxattr(path, "user.agent", b"was here"),
    "removexattr": lambda path: os.removexattr(path, "user.kept"), "utime": lambda path: os.utime(path, (1, 1)),
    "delete_and_read": delete_and_read, "by_80": by_80, "deep_read": deep_read,
}  # fmt: skip
