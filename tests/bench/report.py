"""What a run of the bench found, held against the aims, as tables."""

import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass, field

from tests.bench.host import AGENTS, NON_AGENT
from tests.bench.life import Life, memory
from tests.bench.rates import Rates
from tests.bench.tables import KINDS, Aim, Costs, Pair, Ratio, cost_row, markdown_table, quiet, text_table

NOTHING = "nothing"
# By configuration, for each of KINDS: the ratio that it may have at most.
LIMITS = {NON_AGENT: (1.05, 1.02, 1.02), AGENTS["ten"]: (1.5, 1.05, 1.10)}
GLOBS_LIMIT = 1.05


@dataclass
class Results:
    """Everything that was measured; what wasn't is empty or None."""

    nothing: list[Costs] = field(default_factory=list)
    samples: dict[str, list[Costs]] = field(default_factory=dict)
    pairs: dict[str, list[Pair]] = field(default_factory=dict)
    globs: list[Pair] = field(default_factory=list)  # 1,000 against 10
    lost: dict[str, str] = field(default_factory=dict)
    life: Life | None = None
    loaded: dict[str, float] | None = None  # the daemon's memory after the floods
    rates: Rates | None = None
    replay: dict[str, dict[str, float]] | None = None
    profile: tuple[list[str], list[list[str]]] | None = None
    remarks: list[str] = field(default_factory=list)

    def add(self, found: dict[str, list[Costs]], around: Sequence[Costs]) -> None:
        """One round of a configuration."""
        for name, samples in found.items():
            self.samples.setdefault(name, []).extend(samples)
            self.pairs.setdefault(name, []).extend(Pair(costs, around) for costs in samples)

    def aims(self) -> list[Aim]:
        """As the project's design states them for these tiers."""
        found = [
            _ratio(f"{name}: {what}", self.pairs.get(name), kind, limit)
            for name, limits in LIMITS.items()
            for (kind, what), limit in zip(KINDS.items(), limits, strict=True)
        ]
        found += [_ratio(f"10 → 1,000 globs: {what}", self.globs, kind, GLOBS_LIMIT) for kind, what in KINDS.items()]
        lossless = self.rates.lossless.synced_s if self.rates and self.rates.lossless else None
        if self.rates and lossless is None:
            lossless = 0.0
        found += [
            Aim("ring to synced log, nothing lost", lossless, 60_000, is_floor=True, unit="/s"),
            Aim("daemon resident, idle", self.life.idle["all"] if self.life else None, 80, unit=" MB"),
            Aim("daemon resident, after the floods", self.loaded["all"] if self.loaded else None, 80, unit=" MB"),
            Aim("adoption", self.life.adoption if self.life else None, 1, unit=" s"),
            Aim("cold start, nothing cached", self.life.cold_start if self.life else None, 10, unit=" s"),
        ]
        return found


def _ratio(what: str, pairs: Sequence[Pair] | None, kind: str, limit: float) -> Aim:
    if not pairs:
        return Aim(what, None, limit)
    return Aim(what, Ratio.of(pairs, kind).median, limit, Ratio.of(pairs, quiet(kind)).median)


def show(results: Results, rounds: int, *, is_markdown: bool) -> None:
    """All tables, on stdout."""
    table = markdown_table if is_markdown else text_table
    host = f"{platform.system()} {platform.release()}, {os.cpu_count()} CPUs"
    print(f"{host}, {rounds} rounds, load average at the end {os.getloadavg()[1]:.1f}")
    for remark in results.remarks:
        print(f"Note: {remark}.")
    if results.nothing:
        names = list(results.samples)
        rows = [cost_row(NOTHING, results.nothing, [], "")]
        rows += [cost_row(n, results.samples[n], results.pairs[n], results.lost.get(n, "")) for n in names]
        print("\nns an operation, median (ratio to nothing, lowest to highest round; undisturbed batches alone)\n")
        print(table(["", *KINDS.values(), "lost"], rows))
    print()
    print(
        table(
            ["aim", "measured", "undisturbed", "limit", ""],
            [aim.row() for aim in results.aims() if aim.value is not None],
        )
    )
    others_ = [*(results.life.rows() if results.life else []), *(results.rates.rows() if results.rates else [])]
    if results.loaded:
        others_.append(["resident, after the floods", memory(results.loaded)])
    if results.replay:
        others_ += [[f"replay, {name}", _replay(numbers)] for name, numbers in results.replay.items()]
    if others_:
        print()
        print(table(["hostwarden itself", ""], others_))
    if results.profile:
        print("\nProcessor time of each program\n")
        print(table(*results.profile))


def _replay(numbers: dict[str, float]) -> str:
    return f"{numbers['records_per_s']:,.0f} records/s ({numbers['bytes_per_record']:.0f} bytes each)"
