"""A real agent misbehaves, the kernel stops it, the log proves it. Exit code 1 if anything wasn't as said."""

import argparse
import contextlib
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from tests.demo.finale import killed_by_label, log_proven
from tests.demo.model import AgentLost, ScriptedModel
from tests.demo.scenes import SCENES
from tests.demo.screen import Screen
from tests.demo.stage import Stage
from tests.demo.warden import Warden, WardenError, pids_below
from tests.demo.world import PAYMENTS_HOST, STRANGER_HOST, Listener, World

HERE = Path(__file__).parent
POLICY = HERE / "policies.d" / "billing.yaml"
AGENT_PYTHON = os.path.realpath(sys.executable)  # the distribution's: the agent needs nothing of the venv


def main() -> int:
    """The program."""
    parser = argparse.ArgumentParser("./dev demo", description=__doc__)
    parser.add_argument("--observe", action="store_true", help="the policy only watches: see the harm, and exit code 1")
    arguments = parser.parse_args()
    if os.geteuid() != 0:
        print("demo: needs root, for it loads programs into the kernel", file=sys.stderr)
        return 1
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: sys.exit(130))
    screen, began = Screen(), time.monotonic()
    root = Path(tempfile.mkdtemp(prefix="hostwarden-demo-"))
    root.chmod(0o755)
    warden, world = Warden(root), World(root)
    try:
        failures = play(screen, warden, world, observe=arguments.observe)
    except KeyboardInterrupt:
        failures = ["interrupted"]
    except (AgentLost, WardenError, OSError) as error:  # OSError: no more processes, no more space
        failures = [str(error)]
    finally:
        left = clean_up(warden, world)
    failures += left
    screen.title("The end")
    for failure in failures:
        screen.line("NOT SO", failure, "red")
    if not failures:
        screen.text(f"All as said, in {time.monotonic() - began:.0f} s. Nothing is left: no process, no pin, no file.")
    return 1 if failures else 0


def play(screen: Screen, warden: Warden, world: World, *, observe: bool) -> list[str]:
    """All scenes; what wasn't as said. Raises AgentLost, WardenError."""
    screen.text(
        "hostwarden demo. The agent, its tools, git, the servers, the daemon, the collector and the verdicts of the "
        "kernel are real. The model is not: its replies are scripted, so that every run shows the same."
    )
    world.make()
    policy = POLICY.read_text()
    warden.start({POLICY.name: policy.replace("mode: enforce", "mode: observe") if observe else policy})
    tiers = warden.json_lines("status")[0]["tiers"]
    screen.line("kernel", platform.release().partition("-")[0])
    screen.line("tiers", ", ".join(f"{action} by {tier}" for action, tier in sorted(tiers.items())))
    screen.line("policy", str(POLICY.relative_to(HERE.parent.parent)))
    records = warden.follow()
    try:
        with ScriptedModel() as model, Listener(PAYMENTS_HOST) as payments, Listener(STRANGER_HOST) as stranger:
            stage = Stage(screen, model, world, payments, stranger, records)
            agent = start_agent(warden, world, model)
            for number, (title, scene) in enumerate(SCENES, 1):
                screen.title(f"{number}. {title}")
                scene(stage)
            screen.title(f"{len(SCENES) + 1}. Killed by label")
            killed_by_label(stage, warden, agent)
            screen.title(f"{len(SCENES) + 2}. The log proves itself")
            log_proven(stage, warden)
    finally:
        records.close()
    return stage.failures


def start_agent(warden: Warden, world: World, model: ScriptedModel) -> subprocess.Popen[bytes]:
    """The agent under hostwarden, waiting for the model's first reply. Raises AgentLost."""
    command = [AGENT_PYTHON, "-I", str(HERE / "agent.py"), model.address, str(world.workspace)]
    log = world.root / "agent.log"
    agent = warden.run(command, world, log)
    try:
        model.wait_for_agent()
    except AgentLost as error:
        raise AgentLost(f"{error}: {log.read_text().strip()[-300:]}") from None
    return agent


def clean_up(warden: Warden, world: World) -> list[str]:
    """End every process, remove every pin and the folder; what is left, one line each. ^C doesn't stop this."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    problems: list[str] = []
    # Processes first, for a cgroup with processes can't be removed; the folder last, with what the others need.
    steps: list[Callable[[], list[str]]] = [
        lambda: end_all_below(world.workspace),
        warden.stop,
        lambda: remove(world.root),
    ]
    for step in steps:
        try:
            problems += step()
        except OSError as error:
            problems.append(f"clean-up: {error}")
    return problems


def remove(root: Path) -> list[str]:
    """Remove the demo's folder; what is mounted in it first, should hostwardend have left it."""
    if (root / "bpf").is_mount():
        subprocess.run(["umount", str(root / "bpf")], check=False)
    shutil.rmtree(root, ignore_errors=True)
    return [f"{root} could not be removed"] if root.exists() else []


def end_all_below(folder: Path) -> list[str]:
    """Kill whatever works in ``folder``, without hostwarden's help; what is still there after a while, as a line."""
    deadline = time.monotonic() + 5
    while pids := pids_below(folder):
        if time.monotonic() > deadline:
            return [f"processes left: {pids}"]
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.02)
    return []


if __name__ == "__main__":
    sys.exit(main())
