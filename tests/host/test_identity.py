"""Nobody gets out: whatever an agent's process becomes, it is bound as its agent is; and whoever becomes an agent's
process is bound from the first instruction on.

The act is always the same: reading a file that may not be read. What counts is what came out on stdout.
"""

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.host.conftest import PROGRAMS, Hostwarden, Record
from tests.host.resident import KILLED, MARKER_POLICY, Outsider, Resident

SECRET = "bytes of the secret"
WAIT_S = 20

POLICIES = {
    "bound": "policy: bound\nfor: {case: bound}\nrules:\n  - deny: read\n    path: R/secret\n",
    "parent": "policy: parent\nfor: {case: parent}\nrules:\n  - deny: read\n    path: R/secret\n",
    "child": """policy: child
for: {case: child}
rules:
  - allow: read
    path: /**
  - deny: read
    path: R/other
""",
    "chosen": """policy: chosen
for: {case: chosen}
rules:
  - deny: read
    path: R/secret
  - deny: exec
    path: R/chosen/refused
""",
}
# Who becomes an agent by what it executes, or by the unit that it runs in.
AGENTS = {
    "by-exe": 'agent: by-exe\nlabels: {case: chosen}\nmatch:\n  exe: ["R/chosen/*", "R/deep/**/agent"]\n',
    "by-unit": "agent: by-unit\nlabels: {case: chosen}\nmatch:\n  unit: [hw-test.service, hw-test.slice]\n",
}


@dataclass(frozen=True)
class World:
    """A daemon, the file, the programs, and an agent."""

    hostwarden: Hostwarden
    root: Path
    agent: Resident
    parent: Resident
    cgroups: Path

    @property
    def secret(self) -> Path:
        """What nobody may read."""
        return self.root / "secret"

    def wait_for(self, since: int, **wanted: Any) -> Record:
        """The first record of that kind."""
        return self.hostwarden.wait_for(since, **wanted)[0]


@pytest.fixture(scope="module")
def cgroups() -> Iterator[Path]:
    """Where cgroup v2 is mounted; below it the units of these tests."""
    mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    found = next(Path(fields[1]) for fields in mounts if fields[2] == "cgroup2")
    units = ("hw-test.service", "hw-test.slice", "hw-test.slice/inner.scope", "hw-test.service.d", "xhw-test.service")
    for name in units:
        (found / name).mkdir()
    yield found
    for name in reversed(units):
        (found / name).rmdir()


@pytest.fixture(scope="module")
def world(
    start_hostwarden: Callable[..., Hostwarden], program: Callable[[str], Path], cgroups: Path
) -> Iterator[World]:
    """Everything in force at once."""
    hostwarden = start_hostwarden(start=False)
    root = hostwarden.root
    for folder in ("chosen", "chosen/inner", "deep/a/b", "other-folder"):
        (root / folder).mkdir(parents=True)
    for name in ("secret", "other"):
        (root / name).write_text(SECRET)
    for name in ("spawn", "chosen/agent", "chosen/refused", "chosen/inner/agent", "deep/a/b/agent", "deep/a/b/agents"):
        shutil.copy(program("spawn"), root / name)
    for name in ("waiter", "other-folder/waiter"):
        shutil.copy(program("waiter"), root / name)
    (root / "chosen/script").write_text(f"#!/bin/sh\nexec cat {root}/secret\n")
    (root / "chosen/script").chmod(0o755)
    for name, text in AGENTS.items():
        (hostwarden.agents_dir / f"{name}.yaml").write_text(text.replace("R/", f"{root}/"))
    hostwarden.start()
    texts = {name: text.replace("R/", f"{root}/") for name, text in POLICIES.items()}
    hostwarden.set_policies(marker=MARKER_POLICY.format(marker=root / "marker"), **texts)
    with ExitStack() as stack:
        made = [Resident(hostwarden, name, f"case={name}", root / "marker") for name in ("bound", "parent")]
        for agent in made:
            stack.callback(agent.close)
        yield World(hostwarden, root, made[0], made[1], cgroups)


def test_before_all(world: World) -> None:
    """Who is no agent reads the file, with this daemon and these policies."""
    assert Outsider().attempt([world.root / "spawn", "now", world.secret]).out == SECRET


# --- what an agent's process can become -------------------------------------------------------------------------------

WAYS = (
    "now", "fork", "daemon", "deep", "vfork", "clone3", "clonevm", "cloneparent", "posix_spawn", "thread", "threadexec",
    "pidns", "setuid",
)  # fmt: skip


@pytest.mark.parametrize("way", WAYS)
def test_whatever_it_becomes_it_is_bound(world: World, way: str) -> None:
    done = world.agent.attempt([world.root / "spawn", way, world.secret])
    assert done.out == "", done
    (refusal,) = done.refusals
    assert (refusal["action"], refusal["verdict"], refusal["target"]) == ("read", "deny", str(world.secret))
    assert refusal["outcome"] == ("killed_after_effect" if way == "thread" else "killed_before_effect")


@pytest.mark.parametrize("way", WAYS)
def test_who_is_no_agent_becomes_what_it_likes(world: World, way: str) -> None:
    assert Outsider().attempt([world.root / "spawn", way, world.secret]).out == SECRET


@pytest.mark.parametrize(
    "script",
    [
        "sh -c 'sh -c \"cat S\"'",
        "echo S | xargs cat",
        "setsid --wait cat S",
        "nohup cat S",
        "timeout 10 cat S",
        "find S -exec cat {} +",
        "python3 -c 'print(open(\"S\").read())'",
        'perl -e \'open F, "<", "S"; print <F>\'',
        "unshare -pf cat S",
        "unshare -Urmpf --mount-proc cat S",
        "unshare -n -i -u -C cat S",
        "setpriv --reuid 65534 --regid 65534 --clear-groups cat S",
        "setpriv --no-new-privs --bounding-set -all cat S",
        "exec 3<&-; read line <S; echo $line",
        "cp S /dev/stdout",
        "dd if=S status=none",
        "ln -s S R/way; trap 'rm R/way' EXIT; cat R/way",
    ],
)
def test_whatever_it_executes_is_bound(world: World, script: str) -> None:
    line = script.replace("S", str(world.secret)).replace("R/", f"{world.root}/")
    assert "bytes" in Outsider().attempt(["bash", "-c", line]).out
    done = world.agent.attempt(["bash", "-c", line])
    assert "bytes" not in done.out, done
    assert ("read", "deny", str(world.secret)) in done.refused("action", "verdict", "target")
    # Still this agent's, wherever it went.
    assert {record["agent"] for record in done.refusals} == {"bound"}


@pytest.mark.parametrize("place", ["", "hw-test.slice/inner.scope/"])
def test_it_stays_in_its_cgroup(world: World, place: str) -> None:
    """Even where it is root: the built-in policy keeps cgroups from every agent."""
    procs = f"{world.cgroups}/{place}cgroup.procs"
    # Not into the unit's own cgroup: there, who is no agent becomes one.
    harmless = procs.replace("hw-test.slice/inner.scope", "xhw-test.service")
    assert Outsider().attempt(["bash", "-c", f"echo 0 >{harmless}"]).code == 0
    done = world.agent.attempt(["bash", "-c", f"echo 0 >{procs}"])
    assert done.refused("action", "verdict", "target", "policy") == [("write", "deny", procs, "built-in")]
    assert done.pid not in map(int, Path(procs).read_text().split())


def test_orphans_stay_members(world: World) -> None:
    """A daemonised child outlives its parents; its lineage goes back to the agent's first process all the same."""
    flag = world.root / "go"
    script = f"(setsid sh -c 'while [ ! -e {flag} ]; do sleep 0.05; done; cat {world.secret}' >/dev/null 2>&1 &)"
    since = world.hostwarden.sequence
    assert world.agent.attempt(["sh", "-c", script]).code == 0
    flag.touch()
    record = world.wait_for(since, action="read", verdict="deny", agent="bound")
    assert record["outcome"] == "killed_before_effect"
    first = world.hostwarden.agent("bound")
    assert first is not None
    assert record["process"]["lineage"][-1]["pid"] in first["pids"]


# --- an agent that starts an agent ------------------------------------------------------------------------------------


def run_inside(world: World, labels: str, *argv: str | Path, name: str = "") -> list[str | Path]:
    """`hostwarden run` as an agent would call it."""
    command = world.hostwarden.command_line("run")
    return [*command, "--agent", name or f"child-{time.monotonic_ns()}", "--label", labels, "--", *argv]


@pytest.mark.parametrize(
    ("labels", "file", "policy"),
    [("case=child", "secret", "parent"), ("case=child", "other", "child"), ("case=nobodys", "secret", "parent")],
)
def test_child_agent_is_bound_by_its_parents_policies(world: World, labels: str, file: str, policy: str) -> None:
    name = f"child-of-{policy}-{labels.partition('=')[2]}"
    done = world.parent.attempt(run_inside(world, labels, "cat", world.root / file, name=name))
    assert (done.out, done.code) == ("", KILLED), done
    record = world.wait_for(0, action="read", verdict="deny", agent=name)
    assert (record["policy"], record["target"]) == (policy, str(world.root / file))


def test_child_of_a_child_is_bound_by_all(world: World) -> None:
    inner = run_inside(world, "case=nobodys", "cat", world.secret)
    done = world.parent.attempt(run_inside(world, "case=child", *inner))
    assert (done.out, done.code) == ("", KILLED), done


def test_agent_cannot_join_one_that_is_bound_by_less(world: World) -> None:
    """Another agent's name and labels don't help: it was started by somebody else."""
    other = Resident(world.hostwarden, "lax", "case=lax", world.root / "marker")
    try:
        assert other.attempt(["cat", world.secret]).out == SECRET  # it is there, and would be worth joining
        done = world.parent.attempt(run_inside(world, "case=lax", "cat", world.secret, name="lax"))
    finally:
        other.close()
    assert (done.out, done.code) == ("", 2), done


# --- the warden's own sockets, as an agent sees them ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "call"),
    [
        (("disarm",), "Arm"),
        (("release", "--label", "case=bound"), "Release"),
        (("kill", "--label", "case=parent"), "Kill"),
        (("adopt", "--pid", "P", "--agent", "lax", "--label", "case=lax"), "Adopt"),
    ],
    ids=lambda value: value if isinstance(value, str) else value[0],
)
def test_agent_that_is_root_is_no_operator(world: World, arguments: tuple[str, ...], call: str) -> None:
    """The admin socket is root's, not an agent's: whatever its uid, it may start agents below itself and no more."""
    since = world.hostwarden.sequence
    sleeper = subprocess.Popen(["sleep", "60"])
    try:
        command = world.hostwarden.command_line(*arguments)
        done = world.agent.attempt([str(sleeper.pid) if part == "P" else part for part in command])
        assert (done.code, done.out) == (4, ""), done
        record = world.wait_for(since, action="refused")
        assert (record["agent"], record["verdict"], record["detail"]) == (
            "bound", "deny", {"call": call, "socket": "admin"},
        )  # fmt: skip
        assert world.hostwarden.status()["armed"] is True
        assert world.hostwarden.agent("lax") is None
        assert world.parent.attempt(["echo", "there"]).out == "there\n"
        assert world.agent.attempt(["cat", world.secret]).out == ""
    finally:
        sleeper.kill()
        sleeper.wait()


def test_agent_that_is_root_cannot_end_its_guard(world: World) -> None:
    done = world.agent.attempt([PROGRAMS / "hostwardend", "--config", world.hostwarden.config, "--off"])
    assert (done.code, done.out) == (4, ""), done
    assert world.agent.attempt(["cat", world.secret]).out == ""


# --- agents.d: members from the first instruction ---------------------------------------------------------------------


def test_chosen_by_exe(world: World) -> None:
    since = world.hostwarden.sequence
    done = Outsider().attempt([world.root / "chosen/agent", "now", world.secret])
    assert (done.out, done.code) == ("", KILLED)
    record = world.wait_for(since, action="read", verdict="deny", agent="by-exe")
    assert record["labels"] == {"case": "chosen"}
    assert record["process"]["exe"] == str(world.root / "chosen/agent")


@pytest.mark.parametrize("way", ["fork", "daemon", "posix_spawn", "thread", "threadexec"])
def test_what_the_chosen_becomes_is_bound(world: World, way: str) -> None:
    assert Outsider().attempt([world.root / "chosen/agent", way, world.secret]).out == ""


@pytest.mark.parametrize(
    ("argv", "out"),
    [
        (["R/deep/a/b/agent", "now", "R/secret"], ""),
        (["sh", "-c", "cd R/chosen && exec ./../chosen/./agent now R/secret"], ""),
        (["unshare", "-m", "sh", "-c", "mount --bind R/chosen /mnt && exec /mnt/agent now R/secret"], ""),
        (["R/chosen/refused", "now", "R/other"], ""),  # its own exec is judged, too
        # not chosen: another folder, a deeper one, a longer name
        (["R/spawn", "now", "R/secret"], SECRET),
        (["R/chosen/inner/agent", "now", "R/secret"], SECRET),
        (["R/deep/a/b/agents", "now", "R/secret"], SECRET),
    ],
)
def test_who_is_chosen_by_exe(world: World, argv: list[str], out: str) -> None:
    done = Outsider().attempt([part.replace("R/", f"{world.root}/") for part in argv])
    assert (done.out, done.code) == (out, 0 if out else KILLED)


@pytest.mark.parametrize(
    ("unit", "agent"),
    [
        ("hw-test.service", "by-unit"),
        ("hw-test.slice", "by-unit"),
        ("hw-test.slice/inner.scope", "by-unit"),  # a unit above counts
        ("hw-test.service.d", None),
        ("xhw-test.service", None),
    ],
)
def test_chosen_by_unit(world: World, unit: str, agent: str | None) -> None:
    """A process that is moved there becomes a member with its next exec, before the program's first instruction."""
    since = world.hostwarden.sequence
    script = f"echo 0 >{world.cgroups}/{unit}/cgroup.procs && exec {world.root}/spawn now {world.secret}"
    done = Outsider().attempt(["sh", "-c", script])
    assert (done.out, done.code) == (("", KILLED) if agent else (SECRET, 0))
    if agent:
        assert world.wait_for(since, action="read", verdict="deny", agent=agent)["target"] == str(world.secret)


# --- adopting what runs already ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["main", "old", "new", "exec", "child", "orphan"])
def test_adopted_threads_are_bound(world: World, way: str) -> None:
    """All threads of an adopted process: those that were there, new ones, one that executes itself, forks, or outlived
    the first."""
    name = f"adopted-{way}"
    process = subprocess.Popen(
        [world.root / "waiter", way, world.secret], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with process:
        assert process.stdin is not None and process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        adopted = world.hostwarden.command("adopt", "--pid", str(process.pid), "--agent", name, "--label", "case=bound")
        assert adopted.returncode == 0, adopted.stderr
        since = world.hostwarden.sequence
        out, _ = process.communicate("go\n", timeout=WAIT_S)
    assert out == "", "it has read the file"
    record = world.wait_for(since, action="read", verdict="deny", agent=name)
    assert record["target"] == str(world.secret)
    assert process.returncode in (-9, KILLED)


def test_whole_tree_is_adopted(world: World) -> None:
    """Children too, and the child whose first thread has ended: it looks like a zombie and isn't one."""
    fifo = world.root / "tree-fifo"
    os.mkfifo(fifo)
    process = subprocess.Popen(
        ["sh", "-c", f"{world.root}/waiter orphan {world.secret} <{fifo} & wait"], stdout=subprocess.PIPE, text=True
    )
    with process:
        assert process.stdout is not None
        with fifo.open("w") as order:
            assert process.stdout.readline() == "ready\n"
            adopted = world.hostwarden.command(
                "adopt", "--pid", str(process.pid), "--agent", "adopted-tree", "--label", "case=bound"
            )
            assert adopted.returncode == 0, adopted.stderr
            order.write("go\n")
        out = process.stdout.read()
    with suppress(FileNotFoundError):
        fifo.unlink()
    assert out == "", "it has read the file"


def test_who_runs_already_is_chosen_at_reload(world: World) -> None:
    """An agent that comes to agents.d later: the scan of what runs finds its processes, whatever their threads do."""
    program = world.root / "other-folder/waiter"
    file = world.hostwarden.agents_dir / "late.yaml"
    with ExitStack() as stack:
        running = [
            stack.enter_context(
                subprocess.Popen([program, way, world.secret], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            )
            for way in ("main", "old", "exec", "orphan")
        ]
        for process in running:
            assert process.stdout is not None and process.stdout.readline() == "ready\n"
        file.write_text(f"agent: late\nlabels: {{case: chosen}}\nmatch:\n  exe: {program}\n")
        stack.callback(file.unlink)
        world.hostwarden.reload()
        since = world.hostwarden.sequence
        assert [process.communicate("go\n", timeout=WAIT_S)[0] for process in running] == [""] * len(running)
        world.hostwarden.wait_for(since, action="read", verdict="deny", agent="late", count=len(running))
