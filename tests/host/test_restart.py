"""The daemon dies, stands still, comes back: what is pinned decides on, and the log says what nobody recorded."""

import os
import re
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.host.attempts import attempting
from tests.host.conftest import Hostwarden, Record

Start = Callable[..., Hostwarden]
Program = Callable[[str], Path]
DIES, STOPS = signal.SIGKILL, signal.SIGTERM


def deny(action: str, path: Path, verdict: str = "deny") -> str:
    return f"policy: p\nfor: {{team: test}}\nrules:\n  - {verdict}: {action}\n    path: {path}\n"


def check_log(hostwarden: Hostwarden) -> list[Record]:
    """All records: numbered from 1 without a hole, no kernel event twice, and a stranger can verify them."""
    records = hostwarden.events()
    assert [record["sequence"] for record in records] == list(range(1, len(records) + 1))
    rings = [record["ring"] for record in records if "ring" in record]
    assert len(rings) == len(set(rings))
    verified = hostwarden.command("audit", "verify", str(hostwarden.state_dir))
    assert verified.returncode == 0, verified.stdout + verified.stderr
    return records


def starts(hostwarden: Hostwarden) -> list[str]:
    """How each start of this daemon got the kernel's half: loaded or adopted."""
    return re.findall(r"probes (loaded|adopted)", hostwarden.log_file.read_text())


@pytest.fixture
def marker(program: Program, folder: Path) -> Path:
    """A program of this test's own that must never run."""
    path = folder / "mark"
    path.write_bytes(program("mark").read_bytes())
    path.chmod(0o755)
    return path


def test_killed_exec_never_succeeds_while_the_daemon_dies_and_comes_back(
    hostwarden: Hostwarden, program: Program, folder: Path, marker: Path
) -> None:
    hostwarden.set_policies(p=deny("exec", marker, "kill"))
    name = f"executor-{os.getpid()}"
    with attempting(hostwarden, program, "exec", marker, folder / "counters", agent=name) as attempts:
        hostwarden.stop(DIES)
        attempts.go_on(50)
        hostwarden.start()
        attempts.go_on(50)
    assert starts(hostwarden)[-1] == "adopted"
    hostwarden.wait_for(agent=name, action="exec", verdict="kill", count=attempts.tries)
    records = check_log(hostwarden)
    gap = [record for record in records if record["action"] == "gap"][-1]
    assert gap["from"] < gap["to"] and gap["lost"] == 0
    killed = [r for r in records if r["agent"] == name and r["target"] == str(marker)]
    assert len(killed) == attempts.tries
    assert {record["outcome"] for record in killed} == {"killed_before_effect"}
    assert any(gap["from"] < record["time"] < gap["to"] for record in killed)  # what the rings kept meanwhile


def test_a_daemon_that_stands_still_changes_nothing(
    hostwarden: Hostwarden, program: Program, folder: Path, marker: Path
) -> None:
    hostwarden.set_policies(p=deny("exec", marker, "kill"))
    name = f"still-{os.getpid()}"
    with attempting(hostwarden, program, "exec", marker, folder / "counters", agent=name) as attempts:
        assert hostwarden.process
        hostwarden.process.send_signal(signal.SIGSTOP)
        attempts.go_on(50)
        hostwarden.process.send_signal(signal.SIGCONT)
        attempts.go_on(10)
    hostwarden.wait_for(agent=name, target=str(marker), count=attempts.tries)
    killed = [r for r in check_log(hostwarden) if r["agent"] == name and r["target"] == str(marker)]
    assert len(killed) == attempts.tries


def test_five_restarts_in_a_row_under_load(hostwarden: Hostwarden, program: Program, folder: Path) -> None:
    """Each is an adoption; every read is recorded once, or counted, whichever way the daemon ended."""
    secret = folder / "secret"
    secret.write_text("bytes")
    hostwarden.set_policies(p=deny("read", secret))
    name, before = f"reader-{os.getpid()}", len(starts(hostwarden))
    with attempting(hostwarden, program, "read", secret, folder / "counters", agent=name) as attempts:
        for how in (DIES, STOPS, DIES, DIES, STOPS):
            hostwarden.stop(how)
            attempts.go_on(10)
            hostwarden.start()
    assert starts(hostwarden)[before:] == ["adopted"] * 5
    hostwarden.wait_for(agent=name, target=str(secret), count=attempts.tries)
    records = check_log(hostwarden)
    refused = [record for record in records if record["agent"] == name and record["target"] == str(secret)]
    assert len(refused) == attempts.tries
    assert {record["verdict"] for record in refused} == {"deny"}
    assert len({record["rule"] for record in refused}) == 1  # a restart forgets no reason
    assert all(record["lost"] == 0 for record in records if record["action"] == "gap")
    # After each start: what was adopted, then that it began; a daemon that was killed left no word of its end.
    own = [record["action"] for record in records if record["action"] in ("start", "stop", "gap")]
    assert own[-12:] == ["gap", "start", "stop", "gap", "start", "gap", "start", "gap", "start", "stop", "gap", "start"]


def test_members_stay_members_over_a_restart(hostwarden: Hostwarden, folder: Path) -> None:
    """Of the same agent, with the same labels: what they do afterwards is theirs, and bound."""
    secret = folder / "secret"
    secret.write_text("bytes that must not leave")
    hostwarden.set_policies(p=deny("read", secret))
    name = f"stays-{os.getpid()}"
    command = ["sh", "-c", f"read line; cat {secret}; echo $? > {folder}/code; read line"]
    with hostwarden.spawn_agent(command, agent=name, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as shell:
        assert shell.stdin and shell.stdout
        hostwarden.wait_for(agent=name, action="exec")
        before = hostwarden.agent(name)
        hostwarden.stop(DIES)
        hostwarden.start()
        after = hostwarden.agent(name)
        assert before and after and (before["pids"], before["labels"]) == (after["pids"], after["labels"])
        shell.stdin.write("go\n")
        shell.stdin.flush()
        record = hostwarden.wait_for(agent=name, action="read", target=str(secret))[0]
        assert (record["verdict"], record["labels"]) == ("deny", {"team": "test"})
        shell.stdin.write("end\n")
        shell.stdin.close()
        assert shell.stdout.read() == ""
    assert (folder / "code").read_text() == "137\n"


def test_a_stopped_daemon_leaves_what_it_enforced(
    hostwarden: Hostwarden, program: Program, folder: Path, marker: Path
) -> None:
    """Policies that were changed while nobody ran are in force after the next start, the old ones until then."""
    hostwarden.set_policies(p=deny("exec", marker))
    with attempting(
        hostwarden, program, "exec", marker, folder / "counters", agent=f"old-and-new-{os.getpid()}"
    ) as attempts:
        hostwarden.stop(STOPS)
        other = folder / "other"
        other.write_text("bytes")
        (hostwarden.policy_dir / "p.yaml").write_text(deny("exec", marker) + f"  - deny: read\n    path: {other}\n")
        attempts.go_on(10)
        hostwarden.start()
        assert hostwarden.run(["cat", str(other)]).returncode == 137


def test_agents_that_nobody_remembers_stay_bound(hostwarden: Hostwarden, folder: Path) -> None:
    """state.json was moved away, as its error messages advise: what runs goes on being what it is in the kernel."""
    secret, name = folder / "secret", f"forgotten-{os.getpid()}"
    secret.write_text("bytes that must not leave")
    hostwarden.set_policies(p=deny("read", secret))
    with hostwarden.spawn_agent(["sh"], agent=name, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as shell:
        assert shell.stdin and shell.stdout
        hostwarden.wait_for(agent=name, action="exec")
        hostwarden.stop()
        (hostwarden.state_dir / "state.json").unlink()
        hostwarden.start()
        unknown = [agent for agent in hostwarden.json_lines("ps") if agent["labels"] == {"hostwarden": "unknown"}]
        assert [agent["processes"] for agent in unknown] == [1]
        for n in range(3):  # new agents take free slots, and never its own
            assert hostwarden.run(["true"], agent=f"new-{os.getpid()}-{n}", labels="team=other").returncode == 0
        shell.stdin.write(f"cat {secret}; echo\n")
        shell.stdin.close()
        assert shell.stdout.read() == "\n"
