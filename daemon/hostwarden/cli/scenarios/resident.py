"""Runs inside an agent (and, for the control, outside of any): orders are JSON lines on stdin, answers go to stdout.

Each attempt is a child made by fork(2) alone, so a row costs milliseconds even where every exec is emulated; a child
that is killed takes only itself along. Before each attempt a mark is read, a file whose name is the row's: records
carry the kernel's own time, so what lies between two marks is what the row caused.
"""

import contextlib
import errno
import json
import os
import pwd
import select
import shlex
import signal
import sys
import time
from typing import Any

from hostwarden.cli.scenarios import files, messages, network, others, programs

ACTS: dict[str, Any] = files.ACTS | programs.ACTS | network.ACTS | others.ACTS | messages.ACTS
KILLED = 128 + signal.SIGKILL
_AFTERMATH_S = 0.5


def perform(kind: str, words: str) -> None:
    """An act by its name, a command, or a line of shell. Raises OSError."""
    if kind == "sh":
        os.execv("/bin/sh", ["sh", "-ec", words])
    elif kind == "bash":
        os.execv("/bin/bash", ["bash", "-ec", words])
    elif kind == "run":
        argv = shlex.split(words)
        os.execvp(argv[0], argv)
    else:
        name, *arguments = shlex.split(words)
        ACTS[name](*arguments)


def _child(order: dict[str, Any], out: int, err: int) -> None:
    """Becomes what the order asks for. Exit code 1 with the error's name on stderr, if that was refused."""
    code = 70
    try:
        os.setsid()
        for target, fd in ((0, os.open(os.devnull, os.O_RDONLY)), (1, out), (2, err)):
            os.dup2(fd, target)
        os.chdir(order["folder"])
        if order.get("user"):
            entry = pwd.getpwnam(order["user"])
            os.setgroups([])
            os.setresgid(entry.pw_gid, entry.pw_gid, entry.pw_gid)
            os.setresuid(entry.pw_uid, entry.pw_uid, entry.pw_uid)
        perform(order["kind"], order["words"])
        code = 0
    except OSError as error:
        name = errno.errorcode.get(error.errno or 0, "?")
        os.write(2, f"{name}: {error.strerror} ({error.filename})\n".encode())
        code = 1
    except Exception as error:  # noqa: BLE001 - told to who judges, who fails the row
        os.write(2, f"{type(error).__name__}: {error}\n".encode())
    finally:
        os._exit(code)


def attempt(order: dict[str, Any]) -> dict[str, Any]:
    """One attempt to its end, or to the end of its time, and whatever of its session is left by then."""
    (out_end, out), (err_end, err) = os.pipe(), os.pipe()
    pid = os.fork()
    if pid == 0:
        _child(order, out, err)
    os.close(out)
    os.close(err)
    ended = select.select([os.pidfd_open(pid)], [], [], order["timeout_s"])[0]
    if not ended:
        os.kill(pid, signal.SIGKILL)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)
    return {
        "code": code if code >= 0 else 128 - code,
        "out": _drained(out_end),
        "err": _drained(err_end),
        "timed_out": not ended,
        "pid": pid,
    }


def _drained(fd: int) -> str:
    """What is in a pipe; not longer than it takes those who were killed to let go of it."""
    data, ends = b"", time.monotonic() + _AFTERMATH_S
    while select.select([fd], [], [], max(0.0, ends - time.monotonic()))[0]:
        more = os.read(fd, 65536)
        if not more:
            break
        data += more
    os.close(fd)
    return data.decode(errors="backslashreplace")


def _mark(path: str) -> None:
    os.close(os.open(path, os.O_RDONLY))


def obey(order: dict[str, Any]) -> dict[str, Any]:
    """One order: marks to read, a descriptor to hold, an attempt."""
    for path in order.get("marks", ()):
        _mark(path)
    if "hold" in order:
        files.HELD[order["hold"]] = os.open(order["path"], files.FLAGS[order["flags"]])
    if "kind" in order:
        return attempt(order)
    return {"pid": os.getpid()}


def main() -> None:
    """Until stdin ends."""
    os.environ["LC_ALL"] = "C"  # messages of commands are read
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    for line in sys.stdin:
        print(json.dumps(obey(json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
