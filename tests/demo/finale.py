"""The last two scenes, in which people act: a responder kills by label, and a stranger verifies the log."""

import shutil
import subprocess
import time
from pathlib import Path

from tests.demo.stage import Record, Stage
from tests.demo.warden import Warden, WardenError, first_words, pids_below

ROUTE_PATIENCE_S = 15
VERDICT = b'"verdict":"'


def killed_by_label(stage: Stage, warden: Warden, agent: subprocess.Popen[bytes]) -> None:
    """One command ends the agent with all that it left, and bars the label until it is released."""
    alive = _agents_processes(stage, agent)
    began = time.monotonic()
    killed = warden.json_lines("kill", "--label", "team=billing")[0]["killed"]
    took_ms = round(1000 * (time.monotonic() - began))
    stage.screen.line("responder", "hostwarden kill --label team=billing", "bold")
    left = _agents_processes(stage, agent)
    stage.screen.line("answer", f"killed: {killed}, in {took_ms} ms with the command's own start")
    stage.fact(f"processes of the agent before: {len(alive)}, left: {len(left)}", len(alive) == killed and not left)
    tries = stage.world.straggler()[1]
    time.sleep(0.3)
    more = stage.world.straggler()[1] - tries
    stage.fact(f"the child's tries in the next 300 ms: {more}", more == 0)
    stage.fact(f"the agent's own exit code: {agent.wait(10)} (128 + SIGKILL)", agent.returncode == 137)
    refused = _touch(stage, warden, "again")
    stage.screen.line("somebody", "hostwarden run --label team=billing -- touch again", "bold")
    stage.screen.line("answer", first_words((stage.world.root / "again.log").read_text()), "yellow")
    missing = not (stage.world.workspace / "again").exists()
    stage.fact("nothing new starts: no file `again`", refused != 0 and missing)
    stage.screen.line("responder", "hostwarden release --label team=billing", "bold")
    released = warden.command("release", "--label", "team=billing")
    stage.screen.line("answer", first_words(released.stderr if released.returncode else released.stdout))
    started = _touch(stage, warden, "released")
    there = (stage.world.workspace / "released").exists()
    stage.fact("now it starts: file `released`", released.returncode == 0 and started == 0 and there)


def log_proven(stage: Stage, warden: Warden) -> None:
    """Every record reached the collector; the log verifies; one changed byte is found and named."""
    here, there = _same_records(warden)
    stage.screen.line("question", "hostwarden events, and the same through the collector", "bold")
    stage.fact(f"records on this host: {len(here)}, at the collector: {len(there)}", here == there)
    sequences = [record["sequence"] for record in here]
    stage.fact(f"numbered 1 to {sequences[-1]} without a hole", sequences == list(range(1, len(here) + 1)))
    warden.stop_daemon()
    verified = warden.command("audit", "verify", str(warden.state_dir))
    stage.screen.line("stranger", "hostwarden audit verify STATE_DIR", "bold")
    for line in verified.stdout.splitlines():
        stage.screen.line("answer", line.strip())
    stage.fact("the log is as it was written", verified.returncode == 0)
    killed = (record["sequence"] for record in here if record["verdict"] == "kill")
    sequence = next(killed, sequences[-1])
    copy = stage.world.root / "copy"
    before, after = _flip(warden.state_dir, copy, sequence)
    forged = warden.command("audit", "verify", str(copy))
    stage.screen.line("forger", f"in a copy, one bit of record {sequence}: {before} became {after}", "bold")
    stage.screen.line("stranger", "hostwarden audit verify COPY", "bold")
    named = [line.strip() for line in (forged.stdout + forged.stderr).splitlines() if str(sequence) in line]
    for line in named[:2]:
        stage.screen.line("answer", line, "yellow")
    stage.fact(f"verification fails and names record {sequence}", forged.returncode == 1 and bool(named))


def _agents_processes(stage: Stage, agent: subprocess.Popen[bytes]) -> list[int]:
    # `hostwarden run` itself is no agent.
    return [pid for pid in pids_below(stage.world.workspace) if pid != agent.pid]


def _touch(stage: Stage, warden: Warden, name: str) -> int:
    path = stage.world.workspace / name
    log = stage.world.root / f"{name}.log"
    return warden.run(["/usr/bin/touch", str(path)], stage.world, log).wait(30)


def _same_records(warden: Warden) -> tuple[list[Record], list[Record]]:
    """All records of the host and of the collector, once they are equally many or ROUTE_PATIENCE_S have passed."""
    deadline = time.monotonic() + ROUTE_PATIENCE_S
    while True:
        there = warden.json_lines("events", collector=True)
        here = warden.json_lines("events")
        if len(here) == len(there) or time.monotonic() > deadline:
            return here, there


def _flip(state_dir: Path, copy: Path, sequence: int) -> tuple[str, str]:
    """Copy what an auditor needs of ``state_dir`` and change one bit of one record's verdict; before and after.

    Raises WardenError if there is no such record.
    """
    copy.mkdir()
    shutil.copytree(state_dir / "log", copy / "log")
    shutil.copy(state_dir / "log.pub", copy)
    for segment in sorted((copy / "log").glob("*.seg")):
        content = bytearray(segment.read_bytes())
        start = content.find(b'{"sequence":%d,' % sequence)
        if start >= 0:
            at = content.index(VERDICT, start) + len(VERDICT)
            end = content.index(b'"', at)
            before = content[at:end].decode()
            content[at] ^= 1
            segment.write_bytes(content)
            return before, content[at:end].decode()
    raise WardenError(f"record {sequence} is in no segment")
