"""Who is never adopted, and what belongs to a process: with real processes, of every kind."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from hostwarden.daemon.protect import _below, _scan, ancestors, read_stat, refusal, tree

# A chain of three processes.
CHAIN = """
import os, sys, time
def fork(depth):
    pid = os.fork()
    if pid: return
    if depth: fork(depth - 1)
    time.sleep(60)
    os._exit(0)
fork(1)
print(os.getpid(), flush=True)
time.sleep(60)
"""


def wait_for(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


OUTSIDER = """
import os, time
pid = os.fork()
if pid:
    print(pid, flush=True)
    os._exit(0)
os.close(1)
time.sleep(60)
"""


@pytest.fixture
def outsider() -> Iterator[int]:
    """A process that sleeps and is no descendant of this one."""
    pid = int(subprocess.run([sys.executable, "-c", OUTSIDER], stdout=subprocess.PIPE, check=True).stdout)
    wait_for(lambda: (stat := read_stat(pid)) is not None and stat.ppid != os.getpid())
    yield pid
    os.kill(pid, signal.SIGKILL)


@pytest.fixture
def chain() -> Iterator[int]:
    """The first of three processes in a row."""
    first = subprocess.Popen([sys.executable, "-c", CHAIN], stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert first.stdout is not None
    first.stdout.readline()
    wait_for(lambda: len(tree(first.pid)) == 3)
    yield first.pid
    os.killpg(first.pid, signal.SIGKILL)
    first.communicate()


def test_a_name_that_lies() -> None:
    """PR_SET_NAME: fields are counted from behind the name, whatever it holds."""
    code = "import ctypes,sys\nctypes.CDLL(None).prctl(15,b') R 1 (x) 7 ')\nprint(flush=True)\nsys.stdin.read()"
    child = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert child.stdout is not None
    child.stdout.readline()
    stat = read_stat(child.pid)
    assert stat is not None and stat.ppid == os.getpid() and not stat.is_kernel_thread
    assert 0 < stat.start / os.sysconf("SC_CLK_TCK") <= time.clock_gettime(time.CLOCK_BOOTTIME)
    child.communicate()
    assert read_stat(child.pid) is None


def test_ancestors() -> None:
    found = ancestors(os.getpid())
    assert found[0] == os.getppid() and found[-1] == 1
    assert ancestors(1) == []
    assert ancestors(1 << 30) == []


def test_who_may_be_adopted(outsider: int) -> None:
    assert refusal(outsider, asker_pid=os.getpid()) is None
    assert refusal(outsider, asker_pid=None) is None


def test_who_is_refused(outsider: int) -> None:
    kernel_thread = next(pid for pid in range(2, 100) if (stat := read_stat(pid)) and stat.is_kernel_thread)
    child = subprocess.Popen(["sleep", "60"])
    cases = {
        (0, None): "there is no process 0",
        (-1, None): "there is no process -1",
        (1 << 30, None): f"there is no process {1 << 30}",
        (1, None): "process 1 starts everything on this host and is never adopted",
        (kernel_thread, None): f"{kernel_thread} is a thread of the kernel's",
        (os.getpid(), None): f"process {os.getpid()} is hostwardend's own",
        (child.pid, None): f"process {child.pid} is hostwardend's own",
        (outsider, outsider): f"process {outsider} is the one that asks, or an ancestor of it",
        (os.getppid(), os.getpid()): f"process {os.getppid()} is the one that asks, or an ancestor of it",
        (outsider, 0): "who asks is in a pid namespace that this one doesn't show: ask from the host's",
    }
    for (pid, asker), reason in cases.items():
        assert refusal(pid, asker) == reason
    child.kill()
    wait_for(lambda: (stat := read_stat(child.pid)) is not None and stat.has_ended)
    assert refusal(child.pid, None) == f"process {child.pid} has ended"
    child.wait()
    assert refusal(child.pid, None) == f"there is no process {child.pid}"


def test_a_process_whose_first_thread_has_ended_is_alive() -> None:
    """Its line in /proc says zombie. It must not be missed: its other threads go on."""
    code = "import ctypes, threading, time; threading.Thread(target=time.sleep, args=(60,)).start()\n"
    code += "ctypes.CDLL(None).syscall(60, 0)"  # exit(2): this thread alone
    child = subprocess.Popen([sys.executable, "-c", code])
    try:
        wait_for(lambda: (stat := read_stat(child.pid)) is not None and stat.state == b"Z")
        stat = read_stat(child.pid)
        assert stat is not None and not stat.has_ended
        assert tree(child.pid) == [child.pid]
    finally:
        child.kill()
        child.wait()


def test_an_ancestor_far_above_who_asks(chain: int) -> None:
    first, second, third = tree(chain)
    assert ancestors(third)[:3] == [second, first, os.getpid()]
    assert refusal(os.getppid(), third) == f"process {os.getppid()} is the one that asks, or an ancestor of it"


def test_a_thread_is_no_process() -> None:
    ready = threading.Event()
    tids: list[int] = []
    end = threading.Event()

    def run() -> None:
        tids.append(threading.get_native_id())
        ready.set()
        end.wait(60)

    thread = threading.Thread(target=run)
    thread.start()
    ready.wait(60)
    assert refusal(tids[0], None) == f"{tids[0]} is a thread of process {os.getpid()}: adopt that"
    end.set()
    thread.join()


def test_a_tree_has_parents_first_and_spares(chain: int) -> None:
    pids = tree(chain)
    assert pids[0] == chain
    for child, parent in zip(pids[1:], pids, strict=False):
        stat = read_stat(child)
        assert stat is not None and stat.ppid == parent
    assert tree(chain, spared=[pids[1]]) == [chain]
    assert tree(chain, spared=[chain]) == []
    assert tree(1 << 30) == []


def test_a_tree_that_grows_while_it_is_looked_at() -> None:
    """What comes is in it, and what has ended is out again."""
    script = "n=0; while [ $n -lt 150 ]; do sleep 0.3 & n=$((n+1)); done; wait; sleep 60"
    first = subprocess.Popen(["sh", "-c", script], start_new_session=True)
    try:
        deadline = time.monotonic() + 5
        while time.monotonic() < deadline and len(tree(first.pid)) < 20:
            time.sleep(0.01)
        assert len(tree(first.pid)) >= 20
        wait_for(lambda: len(tree(first.pid)) == 2)  # the shell and its last sleep
    finally:
        os.killpg(first.pid, signal.SIGKILL)
        first.wait()


def test_an_orphan_that_was_seen_is_kept() -> None:
    """Between two scans the middle of a chain ends: its child has another parent then, and stays in the tree."""
    middle = "import os,time\npid=os.fork()\nprint(pid, flush=True) if pid else None\ntime.sleep(60)"
    code = f"import subprocess,sys,time\nsubprocess.Popen([sys.executable,'-c',{middle!r}])\ntime.sleep(60)"
    first = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert first.stdout is not None
    try:
        last = int(first.stdout.readline())
        found = _below(first.pid, _scan(), {}, ())
        assert len(found) == 3
        os.kill(list(found)[1], signal.SIGKILL)
        wait_for(lambda: last not in tree(first.pid))
        assert last in _scan()
        assert _below(first.pid, _scan(), found, ()) == {}
    finally:
        os.killpg(first.pid, signal.SIGKILL)
        first.communicate()
