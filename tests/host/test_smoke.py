"""The shortest whole path: a policy file, an agent, a verdict, its effect, its record."""

from pathlib import Path

import pytest

from tests.host.conftest import Hostwarden


def test_denied_read_gives_no_bytes(hostwarden: Hostwarden, folder: Path) -> None:
    secret = folder / "secret"
    secret.write_text("bytes that must not leave")
    rules = f"  - deny: read\n    path: {secret}\n    why: ask\n"
    hostwarden.set_policies(p="policy: p\nfor: {team: test}\nrules:\n" + rules)
    since = hostwarden.sequence
    done = hostwarden.run(["cat", str(secret)])
    assert done.returncode == 128 + 9
    assert done.stdout == ""
    record = hostwarden.wait_for(since, action="read", verdict="deny")[0]
    assert record["target"] == str(secret)
    assert record["outcome"] == "killed_before_effect"
    assert record["rule"] == "p.yaml:4"
    assert record["why"] == "ask"
    assert record["process"]["argv"] == ["cat", str(secret)]


def test_non_agent_is_untouched(folder: Path) -> None:
    (folder / "secret").write_text("bytes")
    assert (folder / "secret").read_text() == "bytes"


@pytest.mark.parametrize("argv", [["true"], ["sh", "-c", "exit 7"]])
def test_run_gives_the_commands_exit_code(hostwarden: Hostwarden, argv: list[str]) -> None:
    done = hostwarden.run(argv)
    assert (done.returncode, done.stdout, done.stderr) == (0 if argv == ["true"] else 7, "", "")
