"""policy check, explain and test: exit codes, all mistakes at once, what the daemon adds, JSON."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from hostwarden.cli.policyfiles import POLICY_DIR
from hostwarden.wire.errors import Code, WireError

if TYPE_CHECKING:
    from tests.unit.cli.conftest import Cli, Daemon

GOOD = """
policy: billing
for: {team: billing}
rules:
  - allow: exec
    path: [/usr/bin/git]
  - deny: read
    path: ["**/.env"]
    why: ask the owner
  - deny: connect
    to: ["10.0.0.0/8:*"]
otherwise: {exec: deny}
"""
OTHER = "policy: other\nfor: {team: web}\nrules:\n  - deny: write\n    path: [/etc/**]\n"
BAD = "policy: bad name!\nfor: {}\nrulez: []\n"
SHADOWED = OTHER + "  - audit: write\n    path: [/etc/passwd]\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "policies.d"
    folder.mkdir()
    (folder / "billing.yaml").write_text(GOOD)
    return folder


# check


def test_a_good_folder(cli: Cli, folder: Path) -> None:
    (folder / "web.yaml").write_text(OTHER)
    (folder / ".hidden.yaml").write_text(BAD)
    (folder / "notes.txt").write_text(BAD)
    done = cli("policy", "check", str(folder))
    assert (done.code, done.text, done.err) == (0, "2 policies checked, 0 warnings\n", "")
    done = cli("policy", "check", str(folder / "billing.yaml"), "--json")
    assert (done.code, done.err) == (0, "")
    assert done.object == {"ok": True, "policies": ["billing"], "errors": [], "warnings": []}


def test_warnings_are_exit_0_and_on_stderr(cli: Cli, folder: Path) -> None:
    (folder / "web.yaml").write_text(SHADOWED)
    done = cli("policy", "check", str(folder))
    assert (done.code, done.text) == (0, "2 policies checked, 1 warning\n")
    [warning] = done.err.splitlines()
    assert warning.startswith(f"{folder}/web.yaml:6:5: warning: this audit never decides")
    done = cli("policy", "check", str(folder), "--json")
    assert (done.code, done.err) == (0, "")
    [shown] = done.object["warnings"]
    assert (shown["file"], shown["line"], shown["column"]) == (f"{folder}/web.yaml", 6, 5)


def test_every_mistake_of_every_file_is_said(cli: Cli, folder: Path) -> None:
    (folder / "a.yaml").write_text(BAD)
    (folder / "b.yaml").write_bytes(b"policy: b\nfor: {}\nrules: [{deny: eat}]\n")
    (folder / "c.yaml").write_bytes(b"\xff\xfe")
    (folder / "d.yml").write_text(OTHER)
    (folder / "e.yaml").symlink_to(folder / "gone")
    (folder / "f.yaml").mkdir()
    os.mkfifo(folder / "g.yaml")
    done = cli("policy", "check", str(folder))
    assert (done.code, done.out) == (2, b"")
    lines = done.err.splitlines()
    assert all(line.startswith(f"{folder}/") for line in lines)
    for part in (
        *("a.yaml:1:9: name `bad name!`", "a.yaml:3:1: unknown key `rulez`, did you mean rules?"),
        *("b.yaml:3:16: unknown action `eat`", "c.yaml:1:1: ", "d.yml: a name that ends in .yml, expected .yaml"),
        *("e.yaml: no such file or directory", "f.yaml: not a regular file", "g.yaml: not a regular file"),
    ):
        assert sum(line.startswith(f"{folder}/{part}") for line in lines) == 1, (part, lines)
    shown = cli("policy", "check", str(folder), "--json")
    assert (shown.code, shown.err) == (2, "")
    assert shown.object["ok"] is False and len(shown.object["errors"]) == len(lines)


@pytest.mark.parametrize("json", [True, False])
@pytest.mark.parametrize(
    ("name", "what"),
    [("none", "no such file or directory"), ("empty", "no *.yaml files in this folder"), ("x" * 300, "too long")],
)
def test_nothing_to_check_is_exit_2(cli: Cli, tmp_path: Path, name: str, what: str, json: bool) -> None:
    (tmp_path / "empty").mkdir()
    done = cli("policy", "check", str(tmp_path / name), *(["--json"] if json else []))
    assert done.code == 2
    said = done.object["errors"][0]["message"] if json else done.err
    assert what in said


def test_two_policies_with_one_name(cli: Cli, folder: Path) -> None:
    (folder / "again.yaml").write_text(GOOD)
    done = cli("policy", "check", str(folder))
    assert done.code == 2 and "policy billing is also in" in done.err


def test_a_policy_that_the_kernels_tables_cannot_hold(cli: Cli, tmp_path: Path) -> None:
    rules = "".join(f"  - deny: exec\n    path: [/x{n}]\n    argv: ['* {n}']\n" for n in range(65))
    (tmp_path / "big.yaml").write_text(f"policy: big\nfor: {{}}\nrules:\n{rules}")
    done = cli("policy", "check", str(tmp_path / "big.yaml"))
    assert (done.code, done.out) == (2, b"")
    assert done.err.startswith(f"{tmp_path}/big.yaml: 65 rules with sha256, or with both path and argv, at most 64 fit")


def test_a_policy_from_a_pipe(cli: Cli) -> None:
    done = cli.process("policy", "check", "/dev/stdin", input=GOOD.encode())
    assert (done.code, done.text) == (0, "1 policy checked, 0 warnings\n")


def test_names_of_files_are_harmless(cli: Cli, tmp_path: Path) -> None:
    name = os.fsencode(tmp_path) + b"/x\x1b[2J\xff.yaml"
    Path(os.fsdecode(name)).write_text(BAD)
    done = cli.process("policy", "check", name)
    assert done.code == 2
    assert all("/x\\x1b[2J\\xff.yaml:" in line for line in done.err.splitlines())
    assert cli.process("policy", "check", "--json", name).object["errors"][0]["file"].endswith("\\xff.yaml")


def test_users_are_this_hosts(cli: Cli, tmp_path: Path) -> None:
    policy = tmp_path / "u.yaml"
    policy.write_text("policy: u\nfor: {}\nrules:\n  - deny: read\n    path: [/x]\n    user: root\n")
    assert cli("policy", "check", str(policy)).code == 0
    policy.write_text(policy.read_text().replace("root", "nobody-at-all"))
    done = cli("policy", "check", str(policy))
    assert done.code == 2 and "nobody-at-all" in done.err


# What a running daemon adds


def test_tiers_and_labels_come_from_the_daemon(cli: Cli, daemon: Daemon, folder: Path) -> None:
    daemon.tiers = {"read": "signal", "exec": "signal", "later": "lsm", "connect": "from-the-future"}
    daemon.agents = [{"agent": "a", "labels": {"team": "biling"}}]
    done = cli("policy", "check", str(folder))
    assert done.code == 0
    assert "matches no agent: label team is biling" in done.err
    assert "deny of read is a kill after the open on this host (tier signal)" in done.err


def test_the_daemons_folder_is_the_default(cli: Cli, daemon: Daemon, folder: Path) -> None:
    daemon.status_json = {"policy_dir": str(folder)}
    assert cli("policy", "check").text.startswith("1 policy checked")
    assert "kill exec" not in cli("policy", "explain", "exec", "/x").text
    assert cli("policy", "explain", "--label", "team=billing", "exec", "/x").text.splitlines()[0].endswith(": deny")


def test_without_one_the_packages_folder_is(cli: Cli) -> None:
    done = cli("policy", "check", "--json")
    files = {error["file"] for error in done.object["errors"]}
    assert done.code == 0 or all(file.startswith(str(POLICY_DIR)) for file in files)


def test_a_daemon_that_says_no_is_no_error(cli: Cli, daemon: Daemon, folder: Path) -> None:
    daemon.trouble = {"ps": WireError(Code.BUSY, "later")}
    assert cli("policy", "check", str(folder)).code == 0
    daemon.trouble = {"status": WireError(Code.INTERNAL, "oops")}
    assert cli("policy", "check", str(folder)).code == 0


def test_a_stranger_can_check(cli: Cli, daemon: Daemon, run_dir: Path, as_stranger: dict[str, Any]) -> None:
    (run_dir.parent / "p.yaml").write_text(GOOD)
    assert cli.process("policy", "check", str(run_dir.parent / "p.yaml"), **as_stranger).code == 0


# explain


def test_explain(cli: Cli, folder: Path) -> None:
    where = ["--policies", str(folder)]
    done = cli("policy", "explain", "--label", "team=billing", "read", "/srv/.env", *where)
    assert (done.code, done.err) == (0, "")
    assert done.text.splitlines()[:3] == [
        "read `/srv/.env` by an agent {team: billing}: deny",
        "  decided by billing.yaml:7 of policy billing",
        "  why: ask the owner",
    ]
    shown = cli("policy", "explain", "--label", "team=billing", "read", "/srv/.env", *where, "--json").object
    assert (shown["verdict"], shown["rule"], shown["why"], shown["uid"]) == (
        *("deny", "billing.yaml:7", "ask the owner", 65534),
    )


@pytest.mark.parametrize(
    ("args", "verdict", "argv"),
    [
        (["exec", "/usr/bin/git"], "allow", ["/usr/bin/git"]),
        (["exec", "/usr/bin/git", "--", "git", "push", "--json"], "allow", ["git", "push", "--json"]),
        (["exec", "/usr/bin/id"], "deny", ["/usr/bin/id"]),
        (["connect", "10.1.2.3:443"], "deny", None),
        (["connect", "[::1]:443"], "allow", None),
        (["read", "/"], "allow", None),
    ],
)
def test_explain_json(cli: Cli, folder: Path, args: list[str], verdict: str, argv: list[str] | None) -> None:
    done = cli("policy", "explain", "--json", "--policies", str(folder), "--label", "team=billing", *args)
    assert (done.code, done.object["verdict"], done.object["argv"]) == (0, verdict, argv)


def test_explain_makes_the_target_harmless(cli: Cli, folder: Path) -> None:
    done = cli("policy", "explain", "--policies", str(folder), "read", "/a\x1b[2Jb")
    assert done.text.replace("\n", "").isprintable()


def test_explain_with_a_bad_policy_is_exit_2(cli: Cli, folder: Path) -> None:
    (folder / "a.yaml").write_text(BAD)
    done = cli("policy", "explain", "read", "/x", "--policies", str(folder))
    assert (done.code, done.out) == (2, b"") and "a.yaml:3:1: " in done.err
    done = cli("policy", "explain", "read", "/x", "--policies", str(folder), "--json")
    assert (done.code, done.object["ok"]) == (2, False)


def test_a_user_by_name(cli: Cli, folder: Path) -> None:
    done = cli("policy", "explain", "read", "/x", "--user", "root", "--policies", str(folder), "--json")
    assert done.object["uid"] == 0


# test

CASES = """
cases:
  - {labels: {team: billing}, exec: /usr/bin/git, expect: allow, rule: "billing.yaml:5"}
  - {labels: {team: billing}, read: /srv/.env, expect: deny}
"""


def test_cases_that_are_as_expected(cli: Cli, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "cases.yaml").write_text(CASES)
    done = cli("policy", "test", str(tmp_path / "cases.yaml"), "--policies", str(folder))
    assert (done.code, done.text, done.err) == (0, "2 cases: 2 as expected, 0 not\n", "")


def test_a_case_that_fails_is_exit_1_with_expected_and_actual(cli: Cli, folder: Path, tmp_path: Path) -> None:
    cases = tmp_path / "cases.yaml"
    cases.write_text(CASES + "  - {labels: {team: billing}, read: /srv/.env, expect: kill}\n")
    done = cli("policy", "test", str(cases), "--policies", str(folder))
    assert done.code == 1
    assert done.text.splitlines() == [
        f"{cases}:5:5: read `/srv/.env`: expected kill, decided deny by billing.yaml:7",
        "3 cases: 2 as expected, 1 not",
    ]
    done = cli("policy", "test", str(cases), "--policies", str(folder), "--json")
    assert (done.code, done.object["passed"], done.object["failed"]) == (1, 2, 1)
    failed = done.object["cases"][2]
    assert (failed["passed"], failed["expected"], failed["actual"], failed["rule"], failed["line"]) == (
        *(False, "kill", "deny", "billing.yaml:7", 5),
    )


@pytest.mark.parametrize(
    ("cases", "policy", "where"),
    [
        ("cases: [{read: /x}]", GOOD, "cases.yaml:1:9: no `expect`"),
        (CASES, BAD, "p.yaml:1:9: "),
        (None, GOOD, "cases.yaml: no such file or directory"),
    ],
)
def test_invalid_files_are_exit_2(cli: Cli, tmp_path: Path, cases: str | None, policy: str, where: str) -> None:
    if cases is not None:
        (tmp_path / "cases.yaml").write_text(cases)
    (tmp_path / "p.yaml").write_text(policy)
    done = cli("policy", "test", str(tmp_path / "cases.yaml"), "--policies", str(tmp_path / "p.yaml"))
    assert (done.code, done.out) == (2, b"")
    assert f"{tmp_path}/{where}" in done.err


# What it costs to start


@pytest.mark.parametrize(
    ("args", "unwanted"),
    [
        (["--help"], ["rich", "grpc", "pydantic", "yaml", "cryptography"]),
        (["policy", "check", "/none"], ["rich", "grpc", "cryptography"]),
        (["audit", "verify", "/none"], ["rich", "grpc", "hostwarden.policy.parse"]),
        (["status"], ["rich", "cryptography", "hostwarden.policy.parse"]),
    ],
    ids=lambda value: " ".join(value),
)
def test_only_what_is_needed_is_loaded(cli: Cli, args: list[str], unwanted: list[str]) -> None:
    probe = (
        "import sys; from hostwarden.cli.main import command; command(sys.argv[2:]);"
        "print(*[name for name in sys.argv[1].split() if name in sys.modules], file=sys.stderr)"
    )
    program = [sys.executable, "-c", probe, " ".join(unwanted), *args]
    done = subprocess.run(program, capture_output=True, env=cli.environment(), text=True)
    assert done.stderr.splitlines()[-1] == ""
