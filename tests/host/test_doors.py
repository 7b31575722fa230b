"""The same act through another door: every way to open a file, and every way to execute one, is judged; and the outcome
that the record states is what happened to the world.
"""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.host.conftest import Hostwarden
from tests.host.resident import KILLED, MARKER_POLICY, Attempt, Outsider, Resident

NOBODY = 65534
OLD, LINE = "what was there\n", "the agent's line\n"
BEFORE, AFTER = "killed_before_effect", "killed_after_effect"

# Labels choose which of these binds an agent; R is the test's folder.
POLICIES = {
    "files": """policy: files
for: {case: files}
rules:
  - deny: read
    path: ["R/no-read*", "R/no-read-folder/**"]
  - deny: write
    path: ["R/no-write*", "R/no-write-folder/**"]
  - deny: create
    path: "R/no-create*"
""",
    "programs": """policy: programs
for: {case: programs}
rules:
  - deny: exec
    path: ["R/bin/refused*", "R/interpreters/refused*"]
  - deny: write
    path: "R/no-new*"
""",
    # What has no path is nobody's to allow.
    "listed": """policy: listed
for: {case: listed}
rules:
  - allow: exec
    path: ["/usr/**", "/bin/**", "P/*", "R/bin/*"]
otherwise: {exec: deny}
""",
    "argv": """policy: argv
for: {case: argv}
rules:
  - kill: exec
    argv: ["* *bidden", "* push --force*"]
  - audit: exec
    argv: "* harmless*"
""",
    "user": """policy: user
for: {case: user}
rules:
  - deny: read
    path: R/free
    user: nobody
""",
    "observe": """policy: observe
for: {case: observe}
mode: observe
rules:
  - kill: [read, write, create]
    path: "R/no-*"
  - deny: exec
    path: "R/bin/*"
""",
    "two-lax": "policy: two-lax\nfor: {case: two}\nrules:\n  - allow: [read, exec]\n    path: R/**\n",
    "two-strict": "policy: two-strict\nfor: {case: two}\nrules:\n  - kill: read\n    path: R/no-read\n",
    "two-other": "policy: two-other\nfor: {team: two}\nrules:\n  - deny: [read, exec]\n    path: R/bin/*\n",
}
CASES = {case: f"case={case}" for case in ("files", "programs", "listed", "argv", "user", "observe")}
CASES["two"] = "case=two,team=two"


@dataclass(frozen=True)
class World:
    """A folder laid out anew for each test, agents by their case, and where the programs are."""

    root: Path
    agents: dict[str, Resident]
    programs: Path

    def fill_in(self, argv: str) -> list[str]:
        """A row's arguments."""
        return [part.replace("R/", f"{self.root}/").replace("P/", f"{self.programs}/") for part in argv.split(" ")]


@pytest.fixture(scope="module")
def agents(hostwarden: Hostwarden, program: Callable[[str], Path]) -> Iterator[dict[str, Resident]]:
    """All of them, under all policies at once: each agent's labels choose its own."""
    root, programs = hostwarden.root / "world", hostwarden.root / "programs"
    programs.mkdir()
    for name in ("open", "exec", "spawn", "sharers", "thief", "race"):  # where other users may execute them, too
        shutil.copy(program(name), programs / name)
    marker = hostwarden.root / "marker"
    texts = {name: text.replace("R/", f"{root}/").replace("P/", f"{programs}/") for name, text in POLICIES.items()}
    hostwarden.set_policies(marker=MARKER_POLICY.format(marker=marker), **texts)
    with ExitStack() as stack:
        made = {case: Resident(hostwarden, case, labels, marker) for case, labels in CASES.items()}
        for agent in made.values():
            stack.callback(agent.close)
        yield made


@pytest.fixture
def world(hostwarden: Hostwarden, agents: dict[str, Resident]) -> Iterator[World]:
    """Files, folders and programs."""
    root = hostwarden.root / "world"
    for folder in ("bin", "interpreters", "no-read-folder", "no-write-folder"):
        (root / folder).mkdir(parents=True)
    for name in ("free", "no-read", "no-write", "no-read-no-write", "no-read-folder/inside"):
        (root / name).write_text(OLD)
    for name in ("bin/refused", "bin/other", "interpreters/refused"):
        shutil.copy("/bin/echo", root / name)
    shutil.copy("/bin/sh", root / "interpreters/refused-sh")
    scripts = {
        "refused-script": "/bin/sh", "script": "/bin/sh", "script-of-refused": f"{root}/interpreters/refused-sh",
        "env-script": "/usr/bin/env sh", "refused-env-script": "/usr/bin/env sh",
        "env-of-refused": f"/usr/bin/env {root}/interpreters/refused-sh",
    }  # fmt: skip
    for name, interpreter in scripts.items():
        (root / "bin" / name).write_text(f"#!{interpreter}\necho ran\n")
        (root / "bin" / name).chmod(0o755)
    (root / "bin/nested-script").write_text(f"#!{root}/bin/refused-script\n")
    (root / "bin/nested-script").chmod(0o755)
    yield World(root, agents, hostwarden.root / "programs")
    shutil.rmtree(root)


def bytes_at(path: Path) -> str | None:
    """What is in a file; None if there is none."""
    return path.read_text() if path.exists() else None


def one_refusal(done: Attempt) -> tuple[str, str, str]:
    """Action, verdict, outcome of the only refusal."""
    (refusal,) = done.refusals
    return refusal["action"], refusal["verdict"], refusal["outcome"]


# --- open, in all its forms -------------------------------------------------------------------------------------------

FORMS = ("open", "openat", "openat2", "open80", "openat80")
# form, flags, file below R: what of it came out, what is in the file afterwards, the refused action, the outcome
OPENS = [
    # reading
    *((form, "rdonly", "no-read", OLD, "read", BEFORE) for form in FORMS),
    ("open", "rdonly,sync", "no-read", OLD, "read", BEFORE),
    ("openat", "rdonly,nofollow", "no-read", OLD, "read", BEFORE),
    ("reopen", "rdonly", "no-read", OLD, "read", BEFORE),
    ("open", "rdwr", "no-read", OLD, "read", BEFORE),
    ("open80", "rdwr,append", "no-read", OLD, "read", BEFORE),
    ("openat", "rdonly,dir", "no-read-folder", None, "read", BEFORE),
    ("openat2", "rdonly,dir", "no-read-folder", None, "read", BEFORE),
    # writing
    *((form, "wronly", "no-write", OLD, "write", BEFORE) for form in FORMS),
    ("open", "rdwr", "no-write", OLD, "write", BEFORE),
    ("open", "wronly,append", "no-write", OLD, "write", BEFORE),
    ("openat", "rdwr,append", "no-write", OLD, "write", BEFORE),
    ("reopen", "wronly", "no-write", OLD, "write", BEFORE),
    ("open", "wronly,creat", "no-write", OLD, "write", BEFORE),  # it was there
    # truncating: the bytes are gone, and the record says so
    *((form, "wronly,trunc", "no-write", "", "write", AFTER) for form in FORMS),
    ("creat", "", "no-write", "", "write", AFTER),
    ("creat80", "", "no-write", "", "write", AFTER),
    ("open", "rdwr,trunc", "no-write", "", "write", AFTER),
    ("openat", "wronly,creat,trunc", "no-write", "", "write", AFTER),
    ("reopen", "wronly,trunc", "no-write", "", "write", AFTER),
    # creating: the empty file is there, nothing is in it
    *((form, "wronly,creat", "no-create", "", "create", AFTER) for form in FORMS),
    ("open", "wronly,creat,excl", "no-create", "", "create", AFTER),
    ("open", "rdwr,creat,append", "no-create", "", "create", AFTER),
    ("openat", "rdonly,creat", "no-create", "", "create", AFTER),
    ("creat", "", "no-create", "", "create", AFTER),
    ("creat80", "", "no-create", "", "create", AFTER),
    # a new file that may be created, but not written: the policy names `create`, so it isn't part of `write`
    ("openat", "wronly,creat", "no-write-new", "", "write", AFTER),
    ("dirfd", "wronly,creat", "no-write-new", "", "write", AFTER),
    # without a name: nothing is left of it
    ("open", "rdwr,tmpfile", "no-write-folder", None, "write", BEFORE),
]  # fmt: skip


@pytest.mark.parametrize(("form", "flags", "file", "left", "action", "outcome"), OPENS)
def test_open(world: World, form: str, flags: str, file: str, left: str | None, action: str, outcome: str) -> None:
    path = world.root / file
    done = world.agents["files"].attempt([world.programs / "open", form, flags, path])
    assert (done.out, done.code) == ("", KILLED), done
    assert path.is_dir() if left is None else bytes_at(path) == left
    assert one_refusal(done) == (action, "deny", outcome)
    assert done.refusals[0]["target"].startswith(str(path))


@pytest.mark.parametrize(
    ("form", "flags", "file", "out", "left"),
    [
        ("open", "rdonly", "free", OLD, OLD),
        ("open80", "rdonly", "free", OLD, OLD),
        ("openat2", "rdwr,append", "free", OLD, OLD + LINE),
        ("open", "wronly,trunc", "free", "", LINE),
        ("creat", "", "new", "", LINE),
        ("creat80", "", "new", "", LINE),
        ("openat", "wronly,creat,excl", "new", "", LINE),
        ("open", "rdonly", "no-write", OLD, OLD),
        ("open", "wronly,append", "no-read", "", OLD + LINE),
        ("openat", "path,dir", "no-read-folder", "", None),  # a descriptor that can't list
        ("open", "rdwr,tmpfile", "bin", "", None),
    ],
)
def test_open_that_no_rule_refuses(world: World, form: str, flags: str, file: str, out: str, left: str | None) -> None:
    done = world.agents["files"].attempt([world.programs / "open", form, flags, world.root / file])
    assert (done.out, done.code, done.refusals) == (out, 0, []), done
    assert left is None or bytes_at(world.root / file) == left


@pytest.mark.parametrize("form", FORMS)
def test_failed_open_is_nothing(world: World, form: str) -> None:
    """A denied name that isn't there: the agent gets the kernel's own answer, and there is nothing to record."""
    done = world.agents["files"].attempt([world.programs / "open", form, "rdonly", world.root / "no-read-absent"])
    assert (done.code, done.refusals, done.of(action="read", target=f"{world.root}/no-read-absent")) == (1, [], [])


def test_creating_is_writing_where_nobody_names_it(world: World) -> None:
    done = world.agents["programs"].attempt([world.programs / "open", "open", "rdonly,creat", world.root / "no-new"])
    assert (done.out, done.code, bytes_at(world.root / "no-new")) == ("", KILLED, "")
    assert one_refusal(done) == ("create", "deny", AFTER)


def test_open_for_both_is_one_record_of_both(world: World) -> None:
    done = world.agents["files"].attempt([world.programs / "open", "open", "rdwr", world.root / "no-read-no-write"])
    (refusal,) = done.refusals
    assert set(refusal["accesses"]) == {"read", "write"}
    assert bytes_at(world.root / "no-read-no-write") == OLD


# --- threads and shared tables: the descriptor is there before its process dies, the record says so -------------------


@pytest.mark.parametrize("way", ["busy", "asleep", "threads"])
def test_every_sharer_of_a_descriptor_table_dies(world: World, way: str) -> None:
    """CLONE_FILES without CLONE_THREAD. What a sharer reads meanwhile can't be prevented here; that it lives can."""
    done = world.agents["files"].attempt([world.programs / "sharers", way, world.root / "no-read"], timeout_s=30)
    assert not done.timed_out
    assert (done.out, done.code) == ("", KILLED), done
    assert ("read", "deny", AFTER) in done.refused("action", "verdict", "outcome")
    # With threads that have tables of their own the numbers don't tell the one from the other.
    assert {"shared", "threads"} & set(done.refusals[0]["flags"])


def test_descriptor_of_who_dies_is_nobodys(world: World) -> None:
    """Until a killed process is gone, who may trace it can take its descriptors (pidfd_getfd): judged like opens."""
    done = world.agents["files"].attempt([world.programs / "thief", world.root / "no-read", "200"])
    assert done.out == "", done
    assert set(done.refused("action", "verdict")) == {("read", "deny")}


def test_thread_opens(world: World) -> None:
    done = world.agents["files"].attempt([world.programs / "spawn", "thread", world.root / "no-read"])
    assert (done.out, done.code) == ("", KILLED)
    assert one_refusal(done) == ("read", "deny", AFTER)
    assert "threads" in done.refusals[0]["flags"]


# --- exec, in all its forms -------------------------------------------------------------------------------------------

EXECS = {
    "execve": ("P/exec execve R/bin/refused ran", "R/bin/refused"),
    "shell": ("sh -c R/bin/refused\tran", "R/bin/refused"),
    "fexecve": ("P/exec fexecve R/bin/refused ran", "R/bin/refused"),
    "AT_EMPTY_PATH": ("P/exec empty R/bin/refused ran", "R/bin/refused"),
    "/proc/self/fd": ("P/exec procfd R/bin/refused ran", "R/bin/refused"),
    "no arguments": ("P/exec noargs R/bin/refused", "R/bin/refused"),
    "vfork": ("P/exec vfork R/bin/refused ran", "R/bin/refused"),
    "thread": ("P/exec thread R/bin/refused ran", "R/bin/refused"),
    "deleted meanwhile": ("P/exec unlinked R/bin/refused ran", "R/bin/refused"),
    "script": ("P/exec execve R/bin/refused-script", "R/bin/refused-script"),
    "script by fexecve": ("P/exec fexecve R/bin/refused-script", "R/bin/refused-script"),
    "script by AT_EMPTY_PATH": ("P/exec empty R/bin/refused-script", "R/bin/refused-script"),
    "script by /proc/self/fd": ("P/exec procfd R/bin/refused-script", "R/bin/refused-script"),
    "script in a vfork": ("P/exec vfork R/bin/refused-script", "R/bin/refused-script"),
    "script in a thread": ("P/exec thread R/bin/refused-script", "R/bin/refused-script"),
    "script deleted meanwhile": ("P/exec unlinked R/bin/refused-script", "R/bin/refused-script"),
    "script behind 300 descriptors": ("P/exec crowd R/bin/refused-script", "R/bin/refused-script"),
    "script with env": ("P/exec execve R/bin/refused-env-script", "R/bin/refused-env-script"),
    "interpreter": ("P/exec execve R/bin/script-of-refused", "R/bin/script-of-refused"),
    "interpreter by env": ("P/exec execve R/bin/env-of-refused", "R/interpreters/refused-sh"),
    "interpreter, by itself": ("R/interpreters/refused-sh -c echo\tran", "R/interpreters/refused-sh"),
}


@pytest.mark.parametrize(("argv", "target"), EXECS.values(), ids=EXECS)
def test_exec(world: World, argv: str, target: str) -> None:
    done = world.agents["programs"].attempt([part.replace("\t", " ") for part in world.fill_in(argv)])
    assert (done.out, done.code) == ("", KILLED), done
    assert one_refusal(done) == ("exec", "deny", BEFORE)
    assert done.refusals[0]["target"] == world.fill_in(target)[0]


def test_script_is_found_whatever_else_waits_for_its_process(world: World) -> None:
    """A timer tick in the middle of exec queues work of its own where the script's file waits to be freed."""
    done = world.agents["programs"].attempt([world.programs / "exec", "young", world.root / "bin/refused-script"])
    assert (done.out, done.code, len(done.refusals)) == ("", KILLED, 300)


@pytest.mark.parametrize(("argv", "target"), EXECS.values(), ids=EXECS)
def test_who_is_no_agent_executes_it(world: World, argv: str, target: str) -> None:
    done = Outsider().attempt([part.replace("\t", " ") for part in world.fill_in(argv)])
    assert (done.out.strip(), done.code) == ("" if "noargs" in argv else "ran", 0)


@pytest.mark.parametrize(
    ("argv", "target"),
    [
        ("P/exec execve R/bin/other ran", "R/bin/other"),
        ("P/exec execve R/bin/script", "R/bin/script"),
        ("P/exec crowd R/bin/script", "R/bin/script"),
        ("P/exec execve R/bin/env-script", "R/bin/env-script"),
        ("P/exec fexecve R/bin/other ran", "R/bin/other"),
    ],
)
def test_exec_that_no_rule_refuses(world: World, argv: str, target: str) -> None:
    done = world.agents["programs"].attempt(world.fill_in(argv))
    assert (done.out, done.code, done.refusals) == ("ran\n", 0, [])
    (record,) = done.of(action="exec", target=world.fill_in(target)[0])
    assert (record["verdict"], record["outcome"]) == ("allow", "observed")
    if "script" in target:
        assert record["interpreter"] == os.path.realpath("/usr/bin/env" if "env" in target else "/bin/sh")


# --- programs without a path ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["memfd", "copy"])
@pytest.mark.parametrize("file", ["other", "script"])
def test_what_has_no_path_is_not_on_the_list(world: World, way: str, file: str) -> None:
    done = world.agents["listed"].attempt([world.programs / "exec", way, world.root / "bin" / file, "ran"])
    assert (done.out, done.code) == ("", KILLED), done
    assert one_refusal(done) == ("exec", "deny", BEFORE)


@pytest.mark.parametrize(("way", "flag"), [("memfd", "internal"), ("copy", "deleted")])
def test_what_has_no_path_runs_where_nothing_is_listed(world: World, way: str, flag: str) -> None:
    done = world.agents["programs"].attempt([world.programs / "exec", way, world.root / "bin/other", "ran"])
    assert (done.out, done.code, done.refusals) == ("ran\n", 0, [])
    (record,) = [record for record in done.of(action="exec") if flag in record.get("flags", ())]
    assert record["process"]["argv"][-1] == "ran"


DEEP_SCRIPT = """
import os, sys
for name in sys.argv[1:]:
    os.mkdir(name)
    os.chdir(name)
with open("script", "w") as script:
    script.write("#!/bin/sh\\necho ran\\n")
os.chmod("script", 0o755)
os.execv("./script", ["script"])
"""


@pytest.mark.parametrize("names", [["x" * 250] * 20, ["x"] * 70], ids=["4,096 bytes", "64 components"])
def test_script_whose_path_is_too_long_is_not_on_the_list(world: World, names: list[str]) -> None:
    argv = ["sh", "-c", f'cd {world.root}; exec /usr/bin/python3 -c "$0" "$@"', DEEP_SCRIPT, *names]
    assert Outsider().attempt(argv).out == "ran\n"
    shutil.rmtree(world.root / names[0])
    done = world.agents["listed"].attempt(argv)
    assert (done.out, done.code) == ("", KILLED), done
    assert one_refusal(done) == ("exec", "deny", BEFORE)
    assert done.refusals[0]["process"]["argv"] == ["/bin/sh", "./script"]


def test_private_file_system_is_not_on_the_list(world: World) -> None:
    """What an agent mounts over a listed folder isn't that folder."""
    script = "mount -t tmpfs none {0}; cp /bin/echo {0}/other; exec {0}/other ran".format(world.root / "bin")
    assert Outsider().attempt(["unshare", "-m", "sh", "-ec", script]).out == "ran\n"
    done = world.agents["listed"].attempt(["unshare", "-m", "sh", "-ec", script])
    assert (done.out, done.code) == ("", KILLED), done
    assert one_refusal(done) == ("exec", "deny", BEFORE)


def test_what_is_listed_runs(world: World) -> None:
    done = world.agents["listed"].attempt([world.programs / "exec", "execve", world.root / "bin/script"])
    assert (done.out, done.code, done.refusals) == ("ran\n", 0, [])


# --- argv -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argv", "verdict"),
    [
        (["/bin/echo", "forbidden"], "kill"),
        (["/bin/echo", "a", "b", "forbidden"], "kill"),
        (["sh", "-c", "/bin/echo forbidden"], "kill"),
        (["git", "push", "--force", "origin"], "kill"),
        (["/bin/echo", "forbidden", "x" * 5000], "kill"),  # longer than what is matched: the severest of all rules
        (["/bin/echo", "x" * 5000], "kill"),
        (["/bin/echo", *["x"] * 3000], "kill"),
        (["/bin/echo", "harmless"], "audit"),
        (["/bin/echo", "Forbidden", "x" * 3000], None),
        (["/bin/echo", "forbidden "], None),
        (["/bin/echo", "--force", "push"], None),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_argv(world: World, argv: list[str], verdict: str | None) -> None:
    done = world.agents["argv"].attempt(argv)
    if verdict == "kill":
        assert (done.out, done.code) == ("", KILLED), done
        assert one_refusal(done) == ("exec", "kill", BEFORE)
    else:
        assert (done.out, done.code) == (" ".join(argv[1:]) + "\n", 0)
        assert [record["verdict"] for record in done.of(action="exec")] == [verdict or "allow"]


def test_argv_rewritten_during_exec(world: World) -> None:
    """A thread changes the argument in the memory that exec copies from: what counts is what the new program gets."""
    loot = world.root / "loot"
    runner = world.root / "bin/append"
    runner.write_text(f'#!/bin/sh\nprintf "%s\n" "$1" >>{loot}\n')
    runner.chmod(0o755)
    done = world.agents["argv"].attempt([world.programs / "race", runner, "forbidden", "400"], timeout_s=60)
    ran, killed, other = map(int, done.out.split())
    assert (ran + killed, other) == (400, 0)
    words = loot.read_text().split() if loot.exists() else []
    assert len(words) == ran and set(words) <= {"forbiddez"}, "a refused program has run"
    assert len(done.refusals) == killed
    assert ran and killed, "the race was none: one side always won"


# --- users, observing, several policies -------------------------------------------------------------------------------


@pytest.mark.parametrize(("uid", "out"), [(None, OLD), (NOBODY, "")])
def test_deny_by_user(world: World, uid: int | None, out: str) -> None:
    done = world.agents["user"].attempt([world.programs / "open", "open", "rdonly", world.root / "free"], uid=uid)
    assert done.out == out
    assert [record["process"]["uid"] for record in done.refusals] == ([] if out else [NOBODY])


@pytest.mark.parametrize(
    ("argv", "out", "file", "left", "record"),
    [
        ("P/open open rdonly R/no-read", OLD, "no-read", OLD, ("read", "kill")),
        ("P/open open wronly,trunc R/no-write", "", "no-write", LINE, ("write", "kill")),
        ("P/open openat wronly,creat R/no-create", "", "no-create", LINE, ("create", "kill")),
        ("R/bin/other ran", "ran\n", "free", OLD, ("exec", "deny")),
        ("R/bin/script", "ran\n", "free", OLD, ("exec", "deny")),
    ],
)
def test_observing_changes_nothing(
    world: World, argv: str, out: str, file: str, left: str, record: tuple[str, str]
) -> None:
    done = world.agents["observe"].attempt(world.fill_in(argv))
    assert (done.out, done.code, bytes_at(world.root / file)) == (out, 0, left)
    (refusal,) = done.refusals
    assert (refusal["action"], refusal["verdict"]) == record
    assert (refusal["mode"], refusal["outcome"], refusal["policy"]) == ("observe", "observed", "observe")


@pytest.mark.parametrize(
    ("argv", "out", "policy"),
    [
        ("P/open open rdonly R/no-read", "", ("kill", "two-strict")),
        ("P/open open rdonly R/bin/script", "", ("deny", "two-other")),
        ("R/bin/other ran", "", ("deny", "two-other")),
        ("P/open open rdonly R/free", OLD, ("allow", "two-lax")),
    ],
)
def test_of_several_policies_the_strictest_counts(world: World, argv: str, out: str, policy: tuple[str, str]) -> None:
    done = world.agents["two"].attempt(world.fill_in(argv))
    assert done.out == out
    named = [(record["verdict"], record["policy"]) for record in done.records]
    assert policy in named
    assert done.refusals == [] if out else done.refused("verdict", "policy") == [policy]


# --- what must go on working ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", ["files", "programs", "listed"])
@pytest.mark.parametrize(
    ("script", "out"),
    [
        ("cat <(echo through a pipe)", "through a pipe\n"),
        ("diff <(echo a) <(echo a) && echo same", "same\n"),
        ("echo to a pipe > >(cat); wait", "to a pipe\n"),
        ("cat <<<'a here-string'", "a here-string\n"),
        ("echo x | cat /dev/stdin", "x\n"),
        ("cat /dev/fd/3 3< <(echo third)", "third\n"),
        ("mkfifo R/fifo; echo y >R/fifo & cat R/fifo", "y\n"),
        ("mkdir R/git && cd R/git && echo x >x && git init -q . && git add x && git status --porcelain", "A  x\n"),
    ],
)
def test_what_shells_do_works(world: World, case: str, script: str, out: str) -> None:
    done = world.agents[case].attempt(["bash", "-ec", " ".join(world.fill_in(script))])
    assert (done.code, done.refusals) == (0, []), done
    assert done.out == out


# --- what isn't prevented is said -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words",
    [
        ["truncates", "creates", "killed_after_effect"],
        ["descriptor table", "CLONE_FILES", "killed_after_effect"],
        ["io_uring", "renames", "links", "deletes"],
        ["isn't an open", "killed_after_effect"],
        ["mprotect"],
        ["SCM_RIGHTS"],
        ["unix datagrams"],
        ["packet sockets", "vsock"],
        ["IPV6_RTHDR"],
        ["hard link"],
        ["a copy of a program"],
    ],
    ids=lambda words: words[0],
)
def test_doctor_says_what_is_not_prevented(hostwarden: Hostwarden, words: list[str]) -> None:
    (found,) = hostwarden.json_lines("doctor")
    assert any(all(word in limit for word in words) for limit in found["limits"]), found["limits"]
