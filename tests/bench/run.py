"""``./dev bench``: the same load with nothing, auditd, bpftrace and hostwarden in one run, and the daemon's own cost.

Configurations take turns in rounds, each between two measurements of "nothing", because machines drift. Exits 0
whatever the numbers are: they inform, they gate nothing.
"""

import argparse
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from tests.bench import bench_records, life, profile, rates
from tests.bench.host import AGENTS, Host, others
from tests.bench.load import Load
from tests.bench.peers import Auditd, Bpftrace, Unusable
from tests.bench.report import NOTHING, Results, show
from tests.bench.tables import Costs, Pair

Peer = TypeVar("Peer", Auditd, Bpftrace)
PARTS = ("auditd", "bpftrace", "hostwarden", "rates", "profile", "records")


def main() -> None:
    """See the module."""
    arguments = _arguments()
    wanted = {arguments.only} if arguments.only else set(PARTS)
    rounds = 1 if arguments.quick else arguments.rounds
    # Short, since the load's file has a path of forty bytes in all.
    folder = Path(tempfile.mkdtemp(prefix="hwb-", dir="/var/tmp"))
    # As an installed package has it: bytecode. Here it is the bench's own, whatever the caller's environment says.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    os.environ["PYTHONPYCACHEPREFIX"] = str(folder / "bytecode")
    try:
        results = _measure(folder, wanted, rounds, is_quick=arguments.quick)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    show(results, rounds, is_markdown=arguments.markdown)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="./dev bench", description="Cost and throughput, against auditd and bpftrace."
    )
    parser.add_argument("--quick", action="store_true", help="one short round")
    parser.add_argument("--rounds", type=int, default=5, help="default: 5")
    parser.add_argument("--only", choices=PARTS, help="this alone")
    parser.add_argument("--markdown", action="store_true", help="tables for a README")
    return parser.parse_args()


def _measure(folder: Path, wanted: set[str], rounds: int, *, is_quick: bool) -> Results:
    results = Results()
    load = Load(folder, batches=50 if is_quick else 150)
    host = Host(folder / "host", repetitions=1 if is_quick else 3)
    foreign = others()
    if foreign:
        results.remarks.append(f'{foreign} other hostwardend had programs attached: "{NOTHING}" has their cost in it')
    _say(f"load average {os.getloadavg()[0]:.1f}")
    audit = _usable(Auditd(folder), results)
    with _without_audit(audit):
        if "hostwarden" in wanted:
            _say("starting and adopting")
            results.life = life.measure(host)
        tracer = _usable(Bpftrace(folder), results) if "bpftrace" in wanted else None
        if tracer or "hostwarden" in wanted:
            for number in range(rounds):
                _say(f"round {number + 1} of {rounds}")
                _round(results, load, tracer, host if "hostwarden" in wanted else None)
    if audit and "auditd" in wanted:
        _audit_rounds(results, load, audit, rounds)
    if tracer:
        results.lost[tracer.name] = tracer.lost()
    results.lost |= {name: str(host.lost()) for name in AGENTS.values()} if "hostwarden" in wanted else {}
    with _without_audit(audit):
        _inside(results, load, host, wanted, is_quick=is_quick)
    if "records" in wanted:
        _say("replaying rings")
        results.replay = bench_records.measure(0.5 if is_quick else 2.0)
    return results


def _usable(peer: Peer, results: Results) -> Peer | None:
    try:
        peer.check()
    except (Unusable, OSError) as error:
        results.remarks.append(f"{peer.name}: not measured: {error}")
        return None
    return peer


@contextmanager
def _without_audit(audit: Auditd | None) -> Iterator[None]:
    if audit is None:
        yield
        return
    with audit.absent():
        yield


def _round(results: Results, load: Load, tracer: Bpftrace | None, host: Host | None) -> None:
    before = _nothing(results, load)
    if tracer:
        with tracer.running(load):
            found = {tracer.name: [load.run()]}
        after = _nothing(results, load)
        results.add(found, (before, after))
        before = after
    if host:
        with host.running():
            found = host.measure(load)
        after = _nothing(results, load)
        results.add(found, (before, after))
        ten, thousand = (found[AGENTS[name]] for name in ("ten", "thousand"))
        results.globs += [Pair(many, (few,)) for few, many in zip(ten, thousand, strict=True)]


def _audit_rounds(results: Results, load: Load, audit: Auditd, rounds: int) -> None:
    """After all others: see Auditd.absent for why audit isn't simply one more of them."""
    for number in range(rounds):
        _say(f"auditd, round {number + 1} of {rounds}")
        with audit.absent():
            before = _nothing(results, load)
        try:
            with audit.running(load):
                found = {audit.name: [load.run()]}
        except Unusable as error:
            results.remarks.append(f"{audit.name}: not measured: {error}")
            return
        with audit.absent():
            after = _nothing(results, load)
        results.add(found, (before, after))
    results.lost[audit.name] = audit.lost()


def _nothing(results: Results, load: Load) -> Costs:
    costs = load.run()
    results.nothing.append(costs)
    return costs


def _inside(results: Results, load: Load, host: Host, wanted: set[str], *, is_quick: bool) -> None:
    """What is measured of hostwarden alone."""
    if not wanted & {"rates", "profile"}:
        return
    with host.running():
        if "profile" in wanted:
            _say("counting the programs' time")
            results.profile = profile.measure(host, load)
        if "rates" in wanted:
            _say("flooding")
            results.rates = rates.measure(host, load, rates.EVENTS // 10 if is_quick else rates.EVENTS)
            results.loaded = host.resident()


def _say(words: str) -> None:
    print(f"bench: {words}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
