"""What an adopted process holds open: real processes with real files, sockets and rings."""

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from hostwarden.daemon import held as module
from hostwarden.daemon.held import held

Holder = Callable[[str], int]


@pytest.fixture
def holder() -> Iterator[Holder]:
    """A process that runs some Python and then waits, holding what it has opened; its pid."""
    started: list[subprocess.Popen[str]] = []

    def start(code: str, *prefix: str) -> int:
        words = [
            *prefix,
            sys.executable,
            "-c",
            f"import os, socket, sys\n{code}\nprint(1, flush=True)\nsys.stdin.read()",
        ]
        child = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        started.append(child)
        assert child.stdout is not None
        assert child.stdout.readline() == "1\n"
        return child.pid

    yield start
    for child in started:
        child.kill()
        child.communicate()


@pytest.fixture
def server() -> Iterator[int]:
    """The port of somebody who listens on both families of loopback."""
    with socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True) as listener:
        yield listener.getsockname()[1]


def by_fd(found: dict[str, Any]) -> dict[int, dict[str, Any]]:
    assert len(orjson.dumps(found)) > 10  # plain
    return {entry["fd"]: entry for entry in found["descriptors"]}


def test_files_and_what_is_none(holder: Holder, tmp_path: Path) -> None:
    odd = os.fsencode(tmp_path) + b"/a b\n\xff"
    pid = holder(
        f"os.dup2(os.open({odd!r}, os.O_RDWR | os.O_CREAT), 10)\n"
        f"os.dup2(os.open({str(tmp_path)!r}, os.O_RDONLY), 11)\n"
        f"os.dup2(os.open({str(tmp_path)!r}, os.O_PATH), 12)\n"
        "os.dup2(os.open('/dev/null', os.O_WRONLY), 13)\n"
        "os.dup2(os.eventfd(0), 14)\n"
        "os.dup2(os.memfd_create('secret'), 15)\n"
    )
    found = held(pid)
    assert found["incomplete"] == [] and found["count"] == len(found["descriptors"])
    entries = by_fd(found)
    assert entries[10] == {
        "fd": 10,
        "type": "path",
        "target": f"{tmp_path}/a b\n\\xff",
        "access": "read and write",
    }
    assert (entries[11]["target"], entries[11]["access"]) == (str(tmp_path), "read")
    assert (entries[12]["type"], entries[12]["access"]) == ("path", "neither")
    assert (entries[13]["target"], entries[13]["access"]) == ("/dev/null", "write")
    assert (entries[14]["type"], entries[14]["target"]) == ("eventfd", "anon_inode:[eventfd]")
    assert (entries[15]["type"], entries[15]["target"]) == ("memfd", "/memfd:secret (deleted)")
    assert (entries[0]["type"], entries[0]["access"]) == ("pipe", "read")


def test_where_sockets_lead(holder: Holder, server: int) -> None:
    pid = holder(
        f"keep = [socket.create_connection((host, {server})) for host in ('127.0.0.1', '::1')]\n"
        "mapped = socket.socket(socket.AF_INET6)\n"
        f"mapped.connect(('::ffff:127.0.0.1', {server}))\n"
        "udp = socket.socket(type=socket.SOCK_DGRAM)\n"
        "udp.connect(('127.0.0.2', 53))\n"
        "free = socket.socket(type=socket.SOCK_DGRAM)\n"
        "free.bind(('127.0.0.1', 0))\n"
        "pair = socket.socketpair()\n"
        "raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, 1)\n"
        "new = socket.socket()\n"
        "listening = socket.create_server(('127.0.0.3', 0))\n"
        "every = [*keep, mapped, udp, free, pair[0], raw, new, listening]\n"
        "for i, one in enumerate(every): os.dup2(one.fileno(), 20 + i)"
    )
    found = held(pid)
    assert found["incomplete"] == []
    entries = by_fd(found)
    assert entries[20] | {"local": 0, "target": 0} == {
        "fd": 20,
        "type": "socket",
        "target": 0,
        "access": "read and write",
        "protocol": "TCP",
        "local": 0,
        "remote": f"127.0.0.1:{server}",
        "state": "established",
    }
    shown = {
        fd: (entry["protocol"], entry.get("remote"), entry.get("state")) for fd, entry in entries.items() if fd >= 20
    }
    assert shown == {
        20: ("TCP", f"127.0.0.1:{server}", "established"),
        21: ("TCPv6", f"[::1]:{server}", "established"),
        22: ("TCPv6", f"127.0.0.1:{server}", "established"),
        23: ("UDP", "127.0.0.2:53", "established"),
        24: ("UDP", "0.0.0.0:0", "unconnected"),
        25: ("UNIX-STREAM", None, None),
        26: ("RAW", None, None),
        27: ("TCP", None, None),  # nowhere yet: the kernel's tables don't have it
        28: ("TCP", "0.0.0.0:0", "listening"),
    }
    assert entries[28]["local"].startswith("127.0.0.3:")


def test_another_network_namespace_is_said(holder: Callable[..., int]) -> None:
    pid = holder("udp = socket.socket(type=socket.SOCK_DGRAM)", "unshare", "--net")
    found = held(pid)
    assert found["incomplete"] == ["other network namespace: where its sockets lead can't be seen from here"]
    assert [entry["protocol"] for entry in found["descriptors"] if entry["type"] == "socket"] == ["UDP"]
    assert held(holder("pass", "unshare", "--net"))["incomplete"] == []  # it has none that could lead anywhere


def test_sockets_are_not_hidden_behind_many_files(holder: Holder, server: int) -> None:
    pid = holder(
        "import resource\nresource.setrlimit(resource.RLIMIT_NOFILE, (3000, 3000))\n"
        "keep = [os.open('/dev/null', os.O_RDONLY) for _ in range(2000)]\n"
        f"way_out = socket.create_connection(('127.0.0.1', {server}))"
    )
    found = held(pid)
    assert found["count"] == 2004 and len(found["descriptors"]) == 1000
    assert found["incomplete"] == ["2004 descriptors, of which 1000 are listed"]
    assert found["descriptors"][0]["remote"] == f"127.0.0.1:{server}"


def test_too_many_sockets_on_the_host(holder: Holder, server: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "DUMP_S", -1.0)
    found = held(holder(f"one = socket.create_connection(('127.0.0.1', {server}))"))
    assert found["incomplete"] == ["the host has too many sockets to find all of the process's among them"]
    assert found["descriptors"][0]["protocol"] == "TCP"


def test_who_ends_meanwhile() -> None:
    assert held(1 << 30) == {"count": 0, "descriptors": [], "incomplete": [f"process {1 << 30} has ended"]}
    child = subprocess.Popen(["sleep", "60"])
    child.send_signal(signal.SIGKILL)
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # a zombie
    assert held(child.pid) == {"count": 0, "descriptors": [], "incomplete": [f"process {child.pid} has ended"]}
    child.wait()


def test_against_a_process_that_opens_and_closes_all_the_time(holder: Holder) -> None:
    pid = holder(
        "import threading\n"
        "def churn():\n"
        "    while True: [each.close() for each in [socket.socket() for _ in range(20)]]\n"
        "threading.Thread(target=churn, daemon=True).start()"
    )
    for _ in range(20):
        found = held(pid)
        assert by_fd(found)[0]["type"] == "pipe" and found["incomplete"] == []


def test_from_a_thread(holder: Holder, server: int) -> None:
    pid = holder(f"one = socket.create_connection(('127.0.0.1', {server}))")
    found: list[dict[str, Any]] = []
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        thread = threading.Thread(target=lambda: found.append(held(pid)))
        thread.start()
        thread.join()
    assert [result["descriptors"][0]["remote"] for result in found] == [f"127.0.0.1:{server}"] * 3
    assert len(os.listdir("/proc/self/fd")) == before  # nothing of netlink's is left open
