"""What the bench prints: medians, ratios, aims, and tables of them. No measuring here.

A ratio is made within a round, from a cost and the costs of "nothing" right before and after it, and the median over
the rounds is what counts: the machine drifts, and drifts alike for both.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean, median

Costs = Mapping[str, float]  # kind of operation → ns, the median; quiet(kind) → ns of the least disturbed tenth
KINDS = {"open": "open + close", "exec": "spawn + exec + wait", "connect": "TCP connect + accept + close"}


def quiet(kind: str) -> str:
    """The key of a kind's cost where nothing else on the machine got between: what to look at if the machine is shared,
    though it leaves out what comes now and then (a full backlog) as well."""
    return f"{kind} quiet"


@dataclass(frozen=True)
class Pair:
    """One measurement and those of the baseline around it."""

    costs: Costs
    around: Sequence[Costs]

    def ratio(self, kind: str) -> float:
        """How much dearer."""
        return self.costs[kind] / mean(costs[kind] for costs in self.around)


@dataclass(frozen=True)
class Ratio:
    """Over the rounds."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, pairs: Sequence[Pair], kind: str) -> "Ratio":
        """Of at least one pair."""
        ratios = [pair.ratio(kind) for pair in pairs]
        return cls(median(ratios), min(ratios), max(ratios))


@dataclass(frozen=True)
class Aim:
    """``value`` is what was measured, None if it wasn't; ``undisturbed`` for ratios, see quiet()."""

    what: str
    value: float | None
    limit: float
    undisturbed: float | None = None
    is_floor: bool = False  # at least, instead of at most
    unit: str = ""

    @property
    def is_met(self) -> bool | None:
        """None: not measured."""
        if self.value is None:
            return None
        return self.value >= self.limit if self.is_floor else self.value <= self.limit

    def row(self) -> list[str]:
        """What, measured, undisturbed, aim, verdict."""
        verdict = {True: "met", False: "missed", None: "not measured"}[self.is_met]
        sign = "≥" if self.is_floor else "≤"
        shown = "-" if self.value is None else f"{number(self.value)}{self.unit}"
        undisturbed = "" if self.undisturbed is None else number(self.undisturbed)
        return [self.what, shown, undisturbed, f"{sign} {number(self.limit)}{self.unit}", verdict]


def medians(samples: Sequence[Costs]) -> dict[str, float]:
    """By key."""
    return {key: median(sample[key] for sample in samples) for key in samples[0]}


def number(value: float) -> str:
    """Three digits that matter, thousands with commas."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def cost_row(name: str, samples: Sequence[Costs], pairs: Sequence[Pair], lost: str) -> list[str]:
    """A configuration: for each kind the ns and, if it is compared, the ratio, its spread, and the undisturbed one."""
    costs = medians(samples)
    cells = [name]
    for kind in KINDS:
        cell = number(costs[kind])
        if pairs:
            ratio, undisturbed = Ratio.of(pairs, kind), Ratio.of(pairs, quiet(kind))
            cell += f" ({ratio.median:.2f}, {ratio.low:.2f} to {ratio.high:.2f}; {undisturbed.median:.2f})"
        cells.append(cell)
    return [*cells, lost]


def text_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns as wide as what is in them."""
    lines = [list(header), *map(list, rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    padded = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]
    return "\n".join([padded[0], "  ".join("-" * width for width in widths), *padded[1:]])


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """The same for a README."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
