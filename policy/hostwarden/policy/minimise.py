"""Sparse transition graphs and the smallest graph that answers the same.

A row is a target for class OTHER and whatever else isn't named, and the targets that differ. A state of a thousand
path globs has one or two of those, so work goes with what is written in the globs, not with states × 256.
"""

from collections import defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """Where a state goes: by class, else to ``default``. Class OTHER is never explicit, so `default` is its target."""

    default: int
    explicit: dict[int, int]

    def target(self, number: int) -> int:
        """The state that class ``number`` leads to."""
        return self.explicit.get(number, self.default)


@dataclass(frozen=True)
class Graph:
    """A deterministic automaton: a row and an answer for every state."""

    rows: Sequence[Row]
    outputs: Sequence[int]

    def step(self, state: int, number: int) -> int:
        """The state that class ``number`` leads to."""
        return self.rows[state].target(number)


def minimised(graph: Graph) -> tuple[Graph, list[int]]:
    """The graph without two states that answer alike, and for every old state its new one.

    States are merged if no text tells them apart; states that nothing leads to stay (``reachable`` drops them).
    """
    blocks = _blocks(graph.rows, graph.outputs)
    count = max(blocks, default=-1) + 1
    rows: list[Row | None] = [None] * count
    outputs = [0] * count
    for state, row in enumerate(graph.rows):
        if rows[blocks[state]] is None:
            default = blocks[row.default]
            moves = ((number, blocks[target]) for number, target in row.explicit.items())
            rows[blocks[state]] = Row(default, {number: block for number, block in moves if block != default})
            outputs[blocks[state]] = graph.outputs[state]
    return Graph([row for row in rows if row is not None], outputs), blocks


def reachable(graph: Graph, starts: Sequence[int]) -> tuple[Graph, dict[int, int]]:
    """What ``starts`` lead to, numbered in that order (so equal policies give equal tables), and old → new numbers."""
    numbers: dict[int, int] = {}
    queue: list[int] = []
    for start in starts:
        if start not in numbers:
            numbers[start] = len(queue)
            queue.append(start)
    for state in queue:  # grows while it is read
        row = graph.rows[state]
        for target in (row.default, *(row.explicit[number] for number in sorted(row.explicit))):
            if target not in numbers:
                numbers[target] = len(queue)
                queue.append(target)
    rows = []
    for state in queue:
        row = graph.rows[state]
        rows.append(Row(numbers[row.default], {number: numbers[to] for number, to in row.explicit.items()}))
    return Graph(rows, [graph.outputs[state] for state in queue]), numbers


def _blocks(rows: Sequence[Row], outputs: Sequence[Hashable]) -> list[int]:
    """Partition refinement: block numbers such that states share one only if they answer and move alike.

    Between rounds all states of a block have the same signature. A round looks only at states that move to a number
    that is new; the rest of their block doesn't, so the two never have to be compared, and the rest keeps the number.
    Where nothing is left, the largest part keeps it (Hopcroft's "process the smaller half").
    """
    numbers: dict[Hashable, int] = {}
    block = [numbers.setdefault(output, len(numbers)) for output in outputs]
    sizes = [0] * len(numbers)
    for number in block:
        sizes[number] += 1
    sources = _sources(rows)
    touched: set[int] = set(range(len(rows)))
    while touched:
        groups: dict[int, dict[Hashable, list[int]]] = defaultdict(dict)
        for state in touched:
            groups[block[state]].setdefault(_signature(rows[state], block), []).append(state)
        moved: list[int] = []
        for number, parts in groups.items():
            ordered = sorted(parts.values(), key=len)
            if sizes[number] == sum(len(part) for part in ordered):
                ordered.pop()
            for part in ordered:
                for state in part:
                    block[state] = len(sizes)
                sizes[number] -= len(part)
                sizes.append(len(part))
                moved.extend(part)
        touched = {source for state in moved for source in sources[state]}
    renumbered: dict[int, int] = {}
    return [renumbered.setdefault(number, len(renumbered)) for number in block]


def _signature(row: Row, block: Sequence[int]) -> Hashable:
    default = block[row.default]
    return default, frozenset((number, block[to]) for number, to in row.explicit.items() if block[to] != default)


def _sources(rows: Sequence[Row]) -> list[list[int]]:
    """For every state, the states that move to it."""
    sources: list[list[int]] = [[] for _ in rows]
    for state, row in enumerate(rows):
        for target in {row.default, *row.explicit.values()}:
            sources[target].append(state)
    return sources
