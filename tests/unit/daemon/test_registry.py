"""Agents: names, labels, slots; what the kernel is told (its half is a recorder of rows here)."""

from typing import Any, cast

import pytest

from hostwarden.daemon.registry import AgentProblem, Registry, carries, check_name, show_labels
from hostwarden.probes.pins import Kernel


class Rows:
    """What Registry asks of the kernel."""

    def __init__(self) -> None:
        self.rows: dict[int, tuple[int, int, int]] = {}
        self.cleared: list[int] = []

    def set_agent(self, slot: int, agent_id: int, profile: int, state: int) -> None:
        self.rows[slot] = (agent_id, profile, state)

    def agent(self, slot: int) -> tuple[int, int, int]:
        return self.rows.get(slot, (0, 0, 0))

    def clear_counts(self, slot: int) -> None:
        self.cleared.append(slot)


@pytest.fixture
def rows() -> Rows:
    return Rows()


@pytest.fixture
def registry(rows: Rows) -> Registry:
    return Registry(cast(Kernel, rows))


def test_a_slot_that_is_used_again_has_another_id(registry: Registry, rows: Rows) -> None:
    first = registry.create("a", {"team": "x"}, 2)
    registry.free(first)
    assert rows.rows[first.slot] == (0, 0, 0)
    second = registry.create("b", {"team": "x"}, 2)
    assert second.slot == first.slot
    assert second.id != first.id
    assert registry.agent(first.id) is first, "events in the ring may still be its"
    assert rows.cleared == [first.slot, second.slot]


def test_same_name_joins_only_with_the_same_labels(registry: Registry) -> None:
    agent = registry.create("a", {"team": "x"}, 2)
    assert registry.running("a", {"team": "x"}) is agent
    assert registry.running("b", {"team": "x"}) is None
    with pytest.raises(AgentProblem, match="team=x"):
        registry.running("a", {"team": "y"})


def test_all_places_taken_is_said(registry: Registry) -> None:
    for number in range(1022):
        registry.create(f"a{number}", {}, 2)
    with pytest.raises(AgentProblem, match="1022 places"):
        registry.create("one-more", {}, 2)


@pytest.mark.parametrize(
    ("labels", "wanted", "expected"),
    [
        ({"a": "1", "b": "2"}, {"a": "1"}, True),
        ({"a": "1"}, {"a": "1", "b": "2"}, False),
        ({"a": "1"}, {"a": "*"}, True),
        ({"a": "1"}, {"a": "2"}, False),
        ({}, {}, True),
    ],
)
def test_carries(labels: dict[str, str], wanted: dict[str, str], expected: bool) -> None:
    assert carries(labels, wanted) is expected


@pytest.mark.parametrize("name", ["", "-a", "a/b", "a b", "x" * 65, "ü", "a\n"])
def test_names_that_cant_be(name: str) -> None:
    with pytest.raises(AgentProblem):
        check_name(name, {})


@pytest.mark.parametrize("labels", [{"a b": "x"}, {"": "x"}, {"a": "x y"}, {str(n): "x" for n in range(33)}])
def test_labels_that_cant_be(labels: dict[str, Any]) -> None:
    with pytest.raises(AgentProblem):
        check_name("a", labels)


def test_show_labels() -> None:
    assert show_labels({"b": "2", "a": "1"}) == "a=1,b=2"
    assert show_labels({}) == "(none)"
