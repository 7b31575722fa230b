"""Random graphs: the smallest one answers every text as the large one did."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from hostwarden.policy.minimise import Graph, Row, minimised, reachable

CLASSES = 3


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    """Up to a dozen states, three classes, two answers."""
    size = draw(st.integers(1, 12))
    states = st.integers(0, size - 1)
    explicit = st.dictionaries(st.integers(1, CLASSES - 1), states)
    rows = draw(st.lists(st.builds(Row, states, explicit), min_size=size, max_size=size))
    return Graph(rows, draw(st.lists(st.integers(0, 1), min_size=size, max_size=size)))


def answer(graph: Graph, state: int, text: tuple[int, ...]) -> int:
    """The output behind ``text``."""
    for number in text:
        state = graph.step(state, number)
    return graph.outputs[state]


def distinct(graph: Graph) -> int:
    """How many states texts tell apart, by refining the plain way."""
    block = list(graph.outputs)
    while True:
        keys = [
            (block[state], *(block[graph.step(state, number)] for number in range(CLASSES)))
            for state in range(len(graph.rows))
        ]
        if len(set(keys)) == len(set(block)):
            return len(set(block))
        numbers = {key: index for index, key in enumerate(dict.fromkeys(keys))}
        block = [numbers[key] for key in keys]


@given(graphs())
def test_smallest_and_the_same(graph: Graph) -> None:
    small, blocks = minimised(graph)
    assert len(small.rows) == distinct(graph)
    for state in range(len(graph.rows)):
        for text in itertools.chain.from_iterable(itertools.product(range(CLASSES), repeat=n) for n in range(4)):
            assert answer(small, blocks[state], text) == answer(graph, state, text)


@given(graphs())
def test_only_what_is_reached_stays(graph: Graph) -> None:
    part, numbers = reachable(graph, [0])
    assert numbers[0] == 0
    assert sorted(numbers.values()) == list(range(len(part.rows)))
    for text in itertools.product(range(CLASSES), repeat=4):
        assert answer(part, 0, text) == answer(graph, 0, text)


def test_explicit_moves_equal_to_the_default_are_dropped() -> None:
    small, _ = minimised(Graph([Row(1, {1: 2}), Row(1, {}), Row(2, {})], [1, 0, 0]))
    assert sum(len(row.explicit) for row in small.rows) == 0
