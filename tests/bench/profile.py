"""Where the time goes: nanoseconds a run of each of hostwarden's programs, as the kernel counts them (bpf_stats)."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from tests.bench.host import AGENTS, NON_AGENT, Host, programs
from tests.bench.load import Load

SWITCH = Path("/proc/sys/kernel/bpf_stats_enabled")


def measure(host: Host, load: Load) -> tuple[list[str], list[list[str]]]:
    """A header and rows: program, ns a run under each configuration. Counting costs some ns itself, in every run."""
    with _counting():
        columns = {NON_AGENT: _runs(host, load.run)}
        for label, name in AGENTS.items():
            columns[name] = _runs(host, partial(load.run, host.as_agent(label)))
    names = sorted({name for column in columns.values() for name in column})
    rows = [[name, *(column.get(name, "-") for column in columns.values())] for name in names]
    return ["program", *columns], rows


@contextmanager
def _counting() -> Iterator[None]:
    before = SWITCH.read_text()
    SWITCH.write_text("1")
    try:
        yield
    finally:
        SWITCH.write_text(before)


def _runs(host: Host, work: Callable[[], object]) -> dict[str, str]:
    """Program → ns a run, and how many runs, while ``work`` is done (others on this host run into them as well)."""
    before = programs()
    work()
    after = programs()
    found = {}
    for number in host.programs & before.keys() & after.keys():
        ns, runs = (
            int(after[number].get(key, 0)) - int(before[number].get(key, 0)) for key in ("run_time_ns", "run_cnt")
        )
        if runs:
            found[str(after[number]["name"])] = f"{ns / runs:,.0f} ns ({runs:,} runs)"
    return found
