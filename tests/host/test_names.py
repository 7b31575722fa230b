"""The same object under another name: every name that the kernel gives a protected file or folder leads to the same
verdict, and what merely looks like it is left alone.

Two files are protected, ``secret`` and ``tree/sub/key``. A row is a way to get at one of them; what came out on the
agent's stdout is what got out. The same rows, executed by a process that is no agent, give the file's bytes.
"""

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.host.conftest import Hostwarden
from tests.host.resident import KILLED, MARKER_POLICY, Outsider, Resident

SECRET, KEY = "bytes of the secret", "bytes of the key"

# `deny: write` is here so that every open for writing is one, too. The last rule is about the fresh procfs.
POLICY = """policy: names
for: {{case: names}}
rules:
  - deny: [read, write]
    path: ["{root}/secret", "{root}/tree/**"]
    why: not for agents
  - deny: read
    path: /proc/version
"""

# Bind mounts that are there before the daemon starts, and one that comes between its start and a reload.
EARLY = (("secret", "bound-file"), ("tree", "bound-tree"))
LATE = ("tree/sub", "bound-late")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Everything that the rows name, with the early bind mounts."""
    path = Path("/var/tmp") / f"hw-names-{os.getpid()}"
    lay_out(path)
    mounted = []
    try:
        for source, target in EARLY:
            subprocess.run(["mount", "--bind", path / source, path / target], check=True)
            mounted.append(path / target)
        yield path
    finally:
        for mount_point in (path / LATE[1], *mounted):
            subprocess.run(["umount", mount_point], capture_output=True)
        subprocess.run(["rm", "-rf", "--one-file-system", path])


def lay_out(path: Path) -> None:
    """Files, folders, links and mount points."""
    for name in ("tree/sub", "tree2/sub", "tree.d", "other", "bound-tree", "bound-late", "mnt", "upper", "work"):
        (path / name).mkdir(parents=True)
    path.chmod(0o755)
    (path / "bound-file").touch()
    (path / "secret").write_text(SECRET)
    (path / "tree/sub/key").write_text(KEY)
    (path / "link").symlink_to("secret")
    (path / "tree-link").symlink_to(path / "tree")
    (path / "tree2/up").symlink_to("../tree/sub")
    for number in range(5):
        (path / f"chain{number}").symlink_to(path / (f"chain{number + 1}" if number < 4 else "secret"))
    (path / "hard").hardlink_to(path / "secret")
    (path / "other/hard-key").hardlink_to(path / "tree/sub/key")
    for name in LOOK_ALIKES:
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_text("bytes of another file")


@pytest.fixture(scope="module")
def agent(root: Path, hostwarden: Hostwarden) -> Iterator[Resident]:
    """An agent under the policy. The hard links are older than the policy, the late mount is older than the reload."""
    subprocess.run(["mount", "--bind", root / LATE[0], root / LATE[1]], check=True)
    hostwarden.set_policies(names=POLICY.format(root=root), marker=MARKER_POLICY.format(marker=root / "marker"))
    resident = Resident(hostwarden, "names", "case=names", root / "marker")
    yield resident
    resident.close()


def shell(script: str) -> list[str]:
    """``sh -c``, with R for the folder and P for the programs."""
    return ["sh", "-ec", script]


def unshared(script: str) -> list[str]:
    """The same as root of a mount namespace of its own."""
    return ["unshare", "-m", *shell(script)]


# way: argv (R is the folder, P/x a program), which of the two files
WAYS: dict[str, tuple[list[str], str]] = {
    # names that path walking resolves
    "its name": (["cat", "R/secret"], "secret"),
    "symlink": (["cat", "R/link"], "secret"),
    "symlink to a folder": (["cat", "R/tree-link/sub/key"], "key"),
    "symlink with ..": (["cat", "R/tree2/up/key"], "key"),
    "chain of symlinks": (["cat", "R/chain0"], "secret"),
    "..": (["cat", "R/tree/sub/../../other/../secret"], "secret"),
    "//": (["cat", "R////secret"], "secret"),
    "/./": (["cat", "R/./././tree/./sub/./key"], "key"),
    "relative": (shell("cd R/tree/sub; cat key"), "key"),
    "relative with ..": (shell("cd R/other; cat ../secret"), "secret"),
    # names that procfs gives
    "/proc/self/root": (["cat", "/proc/self/rootR/secret"], "secret"),
    "/proc/self/cwd": (shell("cd R/; cat /proc/self/cwd/secret"), "secret"),
    "/proc/PID/root": (shell("cat /proc/$PPID/rootR/tree/sub/key"), "key"),
    "/proc/thread-self/root": (["cat", "/proc/thread-self/rootR/secret"], "secret"),
    "O_PATH, then /proc/self/fd": (["P/open", "reopen", "rdonly", "R/secret"], "secret"),
    "O_PATH of the folder": (["P/open", "dirfd", "rdonly", "R/tree/sub/key"], "key"),
    "folder's descriptor in /proc": (shell("exec 7<R/other; cat /proc/self/fd/7/../secret"), "secret"),
    "file handle": (["P/open", "handle", "rdonly", "R/secret"], "secret"),
    # hard links
    "hard link": (["cat", "R/hard"], "secret"),
    "hard link in another folder": (["cat", "R/other/hard-key"], "key"),
    # mounts that the host has
    "bind mount of the file": (["cat", "R/bound-file"], "secret"),
    "bind mount of the folder": (["cat", "R/bound-tree/sub/key"], "key"),
    "bind mount after the start": (["cat", "R/bound-late/key"], "key"),
    # mounts that the agent makes
    "bind mount by the agent": (shell("mount --bind R/tree R/mnt; trap 'umount R/mnt' EXIT; cat R/mnt/sub/key"), "key"),
    "file bound by the agent": (unshared("mount --bind R/secret R/marker; cat R/marker"), "secret"),
    "bind mount of the bind mount": (unshared("mount --bind R/bound-tree R/mnt; cat R/mnt/sub/key"), "key"),
    "bind mount, private namespace": (unshared("mount --bind R/tree/sub R/mnt; cat R/mnt/key"), "key"),
    "root bound, private namespace": (unshared("mount --rbind / R/mnt; cat R/mntR/secret"), "secret"),
    "user namespace": (["unshare", "-Urm", *shell("mount --bind R/tree R/mnt; cat R/mnt/sub/key")], "key"),
    "folder moved away under a mount": (
        unshared("mount --bind R/tree R/mnt; mount -t tmpfs none R/tree; cat R/mnt/sub/key"),
        "key",
    ),
    "detached copy of a mount": (["P/open", "clone", "rdonly", "R/tree/sub/key"], "key"),
    "chroot": (["P/open", "chroot", "rdonly", "R/secret"], "secret"),
    "chroot into a bind mount": (
        unshared("mount --bind R/tree R/mnt; P/open chroot rdonly R/mnt/sub/key"),
        "key",
    ),
    "chroot, private namespace": (["unshare", "-m", "P/open", "chroot", "rdonly", "R/tree/sub/key"], "key"),
    "root of another namespace": (
        shell(
            "unshare -m sh -c 'mount --bind R/tree R/mnt; exec sleep 20 >&-' & "
            "until [ -e /proc/$!/rootR/mnt/sub ]; do :; done; "
            'trap "kill $!" EXIT; cat /proc/$!/rootR/mnt/sub/key'
        ),
        "key",
    ),
}


def fill_in(argv: list[str], root: Path, program: Callable[[str], Path]) -> list[str]:
    """R and P of a row."""
    programs = program("open").parent
    return [part.replace("R/", f"{root}/").replace("P/", f"{programs}/") for part in argv]


@pytest.mark.parametrize(("argv", "file"), WAYS.values(), ids=WAYS)
def test_no_name_leads_around_a_verdict(
    agent: Resident, root: Path, program: Callable[[str], Path], argv: list[str], file: str
) -> None:
    done = agent.attempt(fill_in(argv, root, program))
    assert (done.out, done.code) == ("", KILLED), done
    refusals = done.refused("action", "verdict", "outcome", "rule", "why")
    assert refusals == [("read", "deny", "killed_before_effect", "names.yaml:4", "not for agents")], done.records


def test_a_hard_link_is_judged_when_it_is_made(agent: Resident, root: Path) -> None:
    """It needs what reading and writing the file would need. On this tier it is there when the process dies."""
    try:
        done = agent.attempt(["ln", str(root / "secret"), str(root / "mine")])
        assert done.code == KILLED
        refused = done.refused("action", "verdict", "outcome", "target", "new")
        assert refused == [("link", "deny", "killed_after_effect", str(root / "secret"), str(root / "mine"))]
    finally:
        (root / "mine").unlink(missing_ok=True)


@pytest.mark.parametrize(("argv", "file"), WAYS.values(), ids=WAYS)
def test_who_is_no_agent_reads_by_every_name(
    agent: Resident, root: Path, program: Callable[[str], Path], argv: list[str], file: str
) -> None:
    done = Outsider().attempt(fill_in(argv, root, program))
    assert done.out == {"secret": SECRET, "key": KEY}[file], done.err


# The record says which host path it was, whatever it was called.
@pytest.mark.parametrize(
    ("way", "target", "flag"),
    [
        ("symlink", "R/secret", None),
        ("/proc/self/root", "R/secret", None),
        ("bind mount, private namespace", "R/tree/sub/key", None),
        ("chroot", "R/secret", None),
        ("hard link", "R/hard", "linked"),
    ],
)
def test_record_names_the_host_path(
    agent: Resident, root: Path, program: Callable[[str], Path], way: str, target: str, flag: str | None
) -> None:
    done = agent.attempt(fill_in(WAYS[way][0], root, program))
    (refusal,) = done.refusals
    # A file that stands in several places has several host paths: the record gives the shortest.
    names = {target.replace("R", str(root)), f"{root}/bound-late/key", f"{root}/bound-file"}
    assert refusal["target"] in names
    assert flag is None or flag in refusal["flags"]


# Not the same object, however much it looks like it: prefixes, case, Unicode, blanks, components
LOOK_ALIKES = (
    "secret2",
    "secre",
    "secret.bak",
    "secret ",
    " secret",
    "Secret",
    "SECRET",
    "\N{CYRILLIC SMALL LETTER DZE}ecret",
    "secre\N{COMBINING ACUTE ACCENT}t",
    "secret\N{ZERO WIDTH SPACE}",
    "\N{FULLWIDTH LATIN SMALL LETTER S}ecret",
    "other/secret",
    "secretly/secret",
    "tree2/sub/key",
    "tree.d/key",
    "treex",
    "other/tree/sub/key",
    "sec*ret",
)


@pytest.mark.parametrize("name", LOOK_ALIKES)
def test_look_alikes_are_left_alone(agent: Resident, root: Path, name: str) -> None:
    done = agent.attempt(["cat", root / name])
    assert (done.code, done.out) == (0, "bytes of another file")
    assert done.refusals == []


# What an agent has of its own works: a file system that only its namespace shows isn't the host's.
@pytest.mark.parametrize(
    ("argv", "out"),
    [
        (unshared("mount -t tmpfs none R/mnt; echo mine >R/mnt/secret; cat R/mnt/secret"), "mine\n"),
        (
            unshared("mount -t tmpfs none R/tree; cd R/tree; mkdir sub; echo mine >sub/key; cat R/tree/sub/key"),
            "mine\n",
        ),
        (unshared("mount -t ramfs none R/mnt; cp /bin/true R/mnt/t; R/mnt/t && echo ran"), "ran\n"),
        (["unshare", "-Urm", *shell("mount -t tmpfs none R/mnt; echo mine >R/mnt/f; cat R/mnt/f")], "mine\n"),
        (["unshare", "-pf", "--mount-proc", "sh", "-c", "cat /proc/self/comm; echo $$ >/dev/null"], "cat\n"),
        (["unshare", "-pf", "--mount-proc", "readlink", "/proc/self"], "1\n"),
        (shell("echo mine >/dev/shm/hw-names; cat /dev/shm/hw-names; rm /dev/shm/hw-names"), "mine\n"),
    ],
    ids=[
        "tmpfs",
        "tmpfs over the tree",
        "ramfs",
        "tmpfs, user namespace",
        "fresh procfs",
        "pids anew",
        "/dev/shm",
    ],
)
def test_own_file_systems_work(agent: Resident, root: Path, argv: list[str], out: str) -> None:
    done = agent.attempt([part.replace("R/", f"{root}/") for part in argv])
    assert (done.code, done.out, done.refusals) == (0, out, []), done


def test_fresh_procfs_is_judged_as_the_hosts(agent: Resident) -> None:
    done = agent.attempt(["unshare", "-pf", "--mount-proc", "cat", "/proc/version"])
    assert done.out == ""
    assert done.refused("action", "verdict", "rule") == [("read", "deny", "names.yaml:7")]


def test_overlay_of_the_protected_is_no_way_in(agent: Resident, root: Path) -> None:
    """A file system that the host doesn't show and that may have the host's files behind it is denied."""
    script = f"mount -t overlay none -o lowerdir={root}/tree,upperdir={root}/upper,workdir={root}/work {root}/mnt"
    done = agent.attempt(unshared(f"{script}; cat {root}/mnt/sub/key"))
    assert done.out == ""
    assert done.refused("action", "verdict", "outcome") == [("read", "deny", "killed_before_effect")]
    assert "unknown" in done.refusals[0]["flags"]


@pytest.mark.parametrize(
    "argv", [["ls", "R/tree"], ["ls", "R/tree-link/"], ["ls", "R/bound-tree/sub"], ["find", "R/tree"]]
)
def test_listing_a_protected_folder_is_reading_it(agent: Resident, root: Path, argv: list[str]) -> None:
    argv = [part.replace("R/", f"{root}/") for part in argv]
    assert "sub" in Outsider().attempt(argv).out or "key" in Outsider().attempt(argv).out
    done = agent.attempt(argv)
    assert "key" not in done.out and "sub\n" not in done.out
    assert done.refused("action", "verdict") == [("read", "deny")]


def test_listing_the_folder_above_is_allowed(agent: Resident, root: Path) -> None:
    done = agent.attempt(["ls", root])
    assert "secret" in done.out.splitlines()
    assert done.refusals == []
