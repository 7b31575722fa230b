"""Mistakes and troubles: one clear line each, the right exit code, and what was in force stays in force.

All of it happens beside one agent that reads a forbidden file all the time, and never succeeds.
"""

import os
import re
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.host.attempts import Attempts, attempting
from tests.host.conftest import PROGRAMS, Hostwarden

NOBODY = 65534
INVALID, FAILED, NO_DAEMON, NOT_PERMITTED = 2, 1, 3, 4
Start = Callable[..., Hostwarden]

HEAD = "policy: {name}\nfor: {{team: test}}\nrules:\n"
# What is wrong → a policy file with it. `{name}` is the file's own.
BAD_POLICIES = {
    "not-yaml": "policy: [\n",
    "not-a-mapping": "- a\n- b\n",
    "empty": "",
    "no-policy": "for: {{team: test}}\nrules: []\n",
    "unknown-key": HEAD + "  - deny: read\n    path: /x\nwhatever: 1\n",
    "unknown-verdict": HEAD + "  - forbid: read\n    path: /x\n",
    "unknown-action": HEAD + "  - deny: reading\n    path: /x\n",
    "later-verdict": HEAD + "  - hold: connect\n    to: ['10.0.0.1:1']\n",
    "bad-glob": HEAD + "  - deny: read\n    path: '/x/[a'\n",
    "relative-path": HEAD + "  - deny: read\n    path: x/y\n",
    "bad-address": HEAD + "  - deny: connect\n    to: ['10.0.0.300:1']\n",
    "bad-label": "policy: {name}\nfor: {{'te am': test}}\nrules:\n  - deny: read\n    path: /x\n",
    "bad-mode": "policy: {name}\nmode: maybe\nfor: {{team: test}}\nrules:\n  - deny: read\n    path: /x\n",
    "wrong-condition": HEAD + "  - deny: connect\n    path: /x\n",
    "same-key-twice": HEAD + "  - deny: read\n    path: /x\n    path: /y\n",
    "same-name": "policy: p\nfor: {{team: test}}\nrules:\n  - deny: read\n    path: /x\n",
    "not-utf8": None,
}


@pytest.fixture(scope="module")
def secret(hostwarden: Hostwarden) -> Path:
    """What agents of team=test may not read."""
    path = hostwarden.root / "secret"
    path.write_text("bytes")
    return path


@pytest.fixture(scope="module")
def good(secret: Path) -> str:
    """The policy that is in force."""
    return f"policy: p\nfor: {{team: test}}\nrules:\n  - deny: read\n    path: {secret}\n"


@pytest.fixture(scope="module", autouse=True)
def attempts(hostwarden: Hostwarden, program: Callable[[str], Path], secret: Path, good: str) -> Iterator[Attempts]:
    """The agent that tries from the first test to the last."""
    hostwarden.set_policies(p=good)
    file = hostwarden.root / "counters"
    with attempting(hostwarden, program, "read", secret, file, agent=f"tries-{os.getpid()}") as attempts:
        yield attempts


@pytest.fixture(autouse=True)
def never_a_success(attempts: Attempts) -> Iterator[None]:
    """Whatever a test does."""
    yield
    attempts.go_on(5)


def daemon(config: Path, *arguments: str, **options: object) -> "subprocess.CompletedProcess[str]":
    """A second hostwardend, to its end."""
    argv: list[str] = [str(PROGRAMS / "hostwardend"), "--config", str(config), *arguments]
    return subprocess.run(argv, capture_output=True, text=True, timeout=90, **options)  # type: ignore[call-overload, no-any-return]


def errors(done: "subprocess.CompletedProcess[str]", code: int) -> list[str]:
    """The lines of an error, each the program's own; never a trace."""
    assert (done.returncode, done.stdout) == (code, ""), done.stderr
    lines = done.stderr.splitlines()
    assert lines and all(line.startswith("hostwardend: ") for line in lines), done.stderr
    return [line.removeprefix("hostwardend: ") for line in lines]


def configured(hostwarden: Hostwarden, folder: Path, **other: Path) -> Path:
    """The running daemon's configuration, with other values for some keys, as a file of its own."""
    text = hostwarden.config.read_text()
    for key, value in other.items():
        text, n = re.subn(rf"^{key} = .*$", f'{key} = "{value}"', text, flags=re.MULTILINE)
        assert n == 1
    config = folder / "other.toml"
    config.write_text(text)
    return config


def elsewhere(hostwarden: Hostwarden, folder: Path, *but: str) -> Path:
    """A configuration that shares nothing with the running daemon ``but`` these keys."""
    keys = {"state_dir": "state", "run_dir": "run", "bpffs_dir": "bpf"}
    return configured(hostwarden, folder, **{key: folder / name for key, name in keys.items() if key not in but})


# policies


def write_bad_policies(folder: Path) -> None:
    for name, text in BAD_POLICIES.items():
        path = folder / f"{name}.yaml"
        path.write_bytes(b"policy: \xff\n" if text is None else text.format(name=name).encode())
    (folder / "misnamed.yml").write_text("policy: x\n")
    (folder / "a-folder.yaml").mkdir()
    os.mkfifo(folder / "a-fifo.yaml")
    (folder / "nowhere.yaml").symlink_to(folder / "missing")


@pytest.fixture
def bad_policies(hostwarden: Hostwarden) -> Iterator[list[str]]:
    """A bad file of each kind beside the good one; their names. Afterwards the good one alone is in force again."""
    before = set(hostwarden.policy_dir.iterdir())
    write_bad_policies(hostwarden.policy_dir)
    added = set(hostwarden.policy_dir.iterdir()) - before
    yield sorted(path.name for path in added)
    for path in added:
        path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
    hostwarden.reload()


def check_all_are_named(lines: list[str], names: list[str]) -> None:
    """Every bad file has a line with its place; nothing is said of the good one but that another has its name."""
    places = [re.match(r"(?:\S*/)?([^/\s]+\.ya?ml):[0-9]+:[0-9]+: \S", line) for line in lines]
    assert all(places), [line for line, place in zip(lines, places, strict=True) if not place]
    assert {place[1] for place in places if place} - {"p.yaml"} >= set(names) - {"same-name.yaml"}
    assert any("same-name.yaml" in line for line in lines)


def test_bad_policies_are_refused_whole_and_all_named(
    hostwarden: Hostwarden, attempts: Attempts, bad_policies: list[str]
) -> None:
    before, since = hostwarden.status()["generation"], hostwarden.sequence
    assert hostwarden.process
    hostwarden.process.send_signal(signal.SIGHUP)
    record = hostwarden.wait_for(since, action="policy")[0]
    check_all_are_named(record["detail"]["refused"], bad_policies)
    attempts.go_on()
    assert hostwarden.status()["generation"] == before
    said = hostwarden.log_file.read_text()
    assert "nothing changed: what was in force stays in force" in said
    assert "Traceback" not in said


def test_a_daemon_doesnt_start_with_bad_policies(
    hostwarden: Hostwarden, folder: Path, attempts: Attempts, bad_policies: list[str]
) -> None:
    check_all_are_named(errors(daemon(hostwarden.config), INVALID), bad_policies)
    hostwarden.stop()
    attempts.go_on()
    check_all_are_named(errors(daemon(hostwarden.config), INVALID), bad_policies)
    attempts.go_on()
    for path in hostwarden.policy_dir.iterdir():
        if path.name != "p.yaml" and not path.is_dir():
            path.rename(folder / path.name)
    (hostwarden.policy_dir / "a-folder.yaml").rmdir()
    hostwarden.start()
    for path in folder.iterdir():
        path.rename(hostwarden.policy_dir / path.name)
    (hostwarden.policy_dir / "a-folder.yaml").mkdir()


def test_bad_agents_are_refused_with_bad_policies(hostwarden: Hostwarden) -> None:
    """Both folders' mistakes at once; with the policies as they were, nothing has changed."""
    bad = [hostwarden.agents_dir / "bad.yaml", hostwarden.policy_dir / "worse.yaml"]
    bad[0].write_text("agent: 'a b'\nmatch: {exe: [x]}\n")
    bad[1].write_text("policy: 7\n")
    before, since = hostwarden.status()["generation"], hostwarden.sequence
    try:
        assert hostwarden.process
        hostwarden.process.send_signal(signal.SIGHUP)
        refused = "\n".join(hostwarden.wait_for(since, action="policy")[0]["detail"]["refused"])
        assert str(bad[0]) in refused and "worse.yaml" in refused
        assert hostwarden.status()["generation"] == before
    finally:
        for path in bad:
            path.unlink()
    hostwarden.reload()


# configuration


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        (b"[daemon\n", 1),
        (b"[daemon]\nstate_dir = \n", 1),
        (b"\xff", 1),
        (b"[daemon]\nstate_dri = '/x'\n[colector]\n", 2),
        (b"[daemon]\nstate_dir = 7\nrun_dir = 'run'\nevents_ring_kib = 65\ntiers = ['lms']\n", 4),
        (b"[daemon]\ndeny_without_lsm = 'maybe'\n[collector]\naddresses = ['tcp:x']\n", 2),
        (b"[daemon]\nstate_dir = '/x'\nrun_dir = '/x'\n", 1),
    ],
)
def test_bad_configuration(folder: Path, text: bytes, lines: int) -> None:
    config = folder / "bad.toml"
    config.write_bytes(text)
    found = errors(daemon(config), INVALID)
    assert len(found) == lines
    assert all(line.startswith(str(config)) for line in found)


def test_configuration_that_cant_be_read(folder: Path) -> None:
    (line,) = errors(daemon(folder / "missing.toml"), INVALID)
    assert line.startswith(f"{folder}/missing.toml: No such file or directory")
    (line,) = errors(daemon(folder), INVALID)
    assert line == f"{folder}: a folder, expected a file"


@pytest.mark.parametrize("key", ["policy_dir", "agents_dir"])
def test_unreadable_folder(hostwarden: Hostwarden, folder: Path, key: str) -> None:
    """Root can read everything that is a folder; so: a file, and a link in a circle."""
    (folder / "file").write_text("")
    (folder / "circle").symlink_to(folder / "circle")
    for bad in (folder / "file", folder / "circle"):
        (line,) = errors(daemon(configured(hostwarden, folder, **{key: bad})), INVALID)
        assert line.startswith(f"{bad}:1:1: ") and line.endswith("expected a folder that can be read")


def test_folder_that_became_unreadable(hostwarden: Hostwarden, attempts: Attempts) -> None:
    """While the daemon runs: the policies are refused, not taken for none."""
    aside = hostwarden.policy_dir.with_name("aside")
    hostwarden.policy_dir.rename(aside)
    hostwarden.policy_dir.write_text("")
    since = hostwarden.sequence
    try:
        assert hostwarden.process
        hostwarden.process.send_signal(signal.SIGHUP)
        record = hostwarden.wait_for(since, action="policy")[0]
        assert "expected a folder that can be read" in record["detail"]["refused"][0]
        attempts.go_on()
    finally:
        hostwarden.policy_dir.unlink()
        aside.rename(hostwarden.policy_dir)
    hostwarden.reload()


# what a daemon needs and can't have


def test_no_bpffs(hostwarden: Hostwarden, folder: Path) -> None:
    """A file, and a place where no folder can be made."""
    (folder / "file").write_text("")
    for bad in (folder / "file", Path("/proc/hostwarden"), folder / "missing" / "bpf"):
        config = elsewhere(hostwarden, folder)
        config.write_text(config.read_text().replace(str(folder / "bpf"), str(bad)))
        message, hint = errors(daemon(config), FAILED)
        assert message.startswith(f"{bad} ")
        assert hint.startswith("mount one: ")


@pytest.mark.parametrize(
    "shared",
    [
        "bpffs_dir",  # another log, and the same pins
        "state_dir",  # other pins, and the same log
    ],
)
def test_second_daemon(hostwarden: Hostwarden, folder: Path, shared: str) -> None:
    found = errors(daemon(elsewhere(hostwarden, folder, shared)), FAILED)
    which = {"bpffs_dir": hostwarden.bpffs, "state_dir": hostwarden.state_dir}[shared]
    assert found == [f"another hostwardend runs on {which}: stop it, or choose other folders"]
    assert hostwarden.status()["ready"] is True


def test_socket_in_use(hostwarden: Hostwarden, folder: Path) -> None:
    config = elsewhere(hostwarden, folder, "run_dir")
    try:
        found = [line for line in errors(daemon(config), FAILED) if line != "probes loaded"]
        assert found[0] == f"{hostwarden.run_dir}: in use by another running process"
        assert len(found) == 2  # and what to do
        assert hostwarden.status()["pid"] == (hostwarden.process.pid if hostwarden.process else 0)
    finally:
        assert daemon(config, "--off").returncode == 0


# not root


def test_hostwardend_needs_root(hostwarden: Hostwarden) -> None:
    found = errors(daemon(hostwarden.config, user=NOBODY, group=NOBODY, extra_groups=[]), NOT_PERMITTED)
    assert found == ["hostwardend needs root: it loads programs into the kernel", "run it with sudo, or as a service"]


COMMANDS = [
    ["doctor"],
    ["ps"],
    ["events"],
    ["adopt", "--pid", "1"],
    ["kill", "--label", "team=test"],
    ["release", "--label", "team=test"],
    ["arm"],
    ["disarm"],
    ["audit", "verify"],
]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_commands_that_others_may_not_use(hostwarden: Hostwarden, command: list[str]) -> None:
    since = hostwarden.sequence
    done = hostwarden.command(*command, user=NOBODY, group=NOBODY, extra_groups=[])
    assert (done.returncode, done.stdout) == (NOT_PERMITTED, "")
    message, *hints = done.stderr.splitlines()
    assert message.startswith("hostwarden: ") and "permi" in message
    assert len(hints) <= 1
    own = {record["action"] for record in hostwarden.events(since) if record["agent"] is None}
    assert own & {"kill", "release", "adopt", "arm", "disarm"} == set()


def test_log_of_another_user(hostwarden: Hostwarden) -> None:
    done = hostwarden.command("audit", "verify", str(hostwarden.state_dir), user=NOBODY, group=NOBODY, extra_groups=[])
    assert (done.returncode, done.stdout) == (NOT_PERMITTED, "")
    assert len(done.stderr.splitlines()) <= 2 and "Traceback" not in done.stderr


@pytest.mark.parametrize("command", [["status"], *COMMANDS, ["run", "--agent", "a", "--", "true"]], ids=" ".join)
def test_commands_without_a_daemon(folder: Path, command: list[str]) -> None:
    argv = [str(PROGRAMS / "hostwarden"), "--run-dir", str(folder), *command]
    done = subprocess.run(argv, capture_output=True, text=True, user=NOBODY, group=NOBODY, extra_groups=[])
    assert (done.returncode, done.stdout) == (NO_DAEMON, "")
    message, hint = done.stderr.splitlines()
    assert message == f"hostwarden: {folder}: no daemon listens there"
    assert "is hostwardend running?" in hint
