"""How long the daemon takes to start, to come back, to change its policies; and how much memory it is."""

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median

from hostwarden.wire.client import connect
from tests.bench.host import AGENTS, GLOBS, Host, policy

TIMES = 3


@dataclass(frozen=True)
class Life:
    """Seconds, and MB."""

    cold_start: float  # header tree not in the cache
    warm_start: float
    adoption: float  # killed, and started again: with both policies in force and an agent under each
    imports: float  # of which Python loading code
    reload: float  # of 1,000 globs that have changed, an agent bound by them
    run: float  # an agent of labels that have their tables already, `true` to its end
    idle: dict[str, float]
    bound: dict[str, float]

    def rows(self) -> list[list[str]]:
        """What and how much."""
        return [
            ["cold start, nothing cached", f"{self.cold_start:.1f} s"],
            ["cold start, headers cached", f"{self.warm_start:.1f} s"],
            ["adoption: killed, started again, ready", f"{self.adoption:.2f} s"],
            ["  of which Python loading code", f"{self.imports:.2f} s"],
            ["reload of 1,000 globs", f"{self.reload:.2f} s"],
            ["`hostwarden run -- true`", f"{self.run:.2f} s"],
            ["resident, idle", memory(self.idle)],
            ["resident, 1,000 globs in force", memory(self.bound)],
        ]


def memory(size: dict[str, float]) -> str:
    """In words."""
    return f"{size['all']:.0f} MB (own {size['own']:.0f}, files {size['files']:.0f})"


def measure(host: Host) -> Life:
    """Takes the host up and down, for the first time of all; at the end it is down."""
    _imports()  # makes the bytecode
    with host.running():
        cold = host.start_s
    with host.running():
        warm, idle = host.start_s, host.idle
        with _agents(host):
            bound = host.resident()
            adoption = median(_adoption(host) for _ in range(TIMES))
            reload = median(_reload(host, n) for n in range(TIMES))
            run = median(_run(host) for _ in range(TIMES))
    return Life(cold, warm, adoption, _imports(), reload, run, idle, bound)


@contextmanager
def _agents(host: Host) -> Iterator[None]:
    """One under each policy, doing nothing."""
    processes = [subprocess.Popen([*host.as_agent(label, f"idle-{label}"), "sleep", "1000"]) for label in AGENTS]
    try:
        host.daemon.wait_until(lambda: all(host.daemon.agent(f"idle-{label}") for label in AGENTS))
        yield
    finally:
        for process in processes:
            process.terminate()
            process.wait()


def _adoption(host: Host) -> float:
    host.daemon.stop(9)
    return host.start()


def _reload(host: Host, n: int) -> float:
    path = host.daemon.policy_dir / "thousand.yaml"
    path.write_text(policy("thousand", GLOBS["thousand"]) + f"# change {n}\n")
    with connect(host.daemon.run_dir) as client:
        began = time.monotonic()
        client.reload()
        return time.monotonic() - began


def _run(host: Host) -> float:
    began = time.monotonic()
    subprocess.run([*host.as_agent("ten"), "true"], check=True)
    return time.monotonic() - began


def _imports() -> float:
    def once() -> float:
        began = time.monotonic()
        subprocess.run([sys.executable, "-c", "import hostwarden.daemon.main"], check=True)
        return time.monotonic() - began

    return median(once() for _ in range(TIMES))
