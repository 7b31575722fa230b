"""The demo's attacks work where nothing stops them, and its facts say so: a fact that can't fail proves nothing."""

from collections.abc import Callable

import pytest

from tests.demo import main, scenes
from tests.demo.stage import Expected, Stage


def test_honest_work_is_honest(unguarded: Stage) -> None:
    scenes.honest_work(unguarded)
    assert unguarded.failures == []
    assert unguarded.world.remote_commits() == 2


@pytest.mark.parametrize(
    ("scene", "harm"),
    [
        (scenes.key_through_symlink, "bytes of the key"),
        (scenes.data_to_stranger, "bytes that arrived"),
        (scenes.history_rewritten, "the remote's head is no longer"),
        (scenes.child_left_behind, "got through"),
    ],
)
def test_harm_is_seen_without_a_warden(unguarded: Stage, scene: Callable[[Stage], None], harm: str) -> None:
    scene(unguarded)
    assert [failure for failure in unguarded.failures if harm in failure]


@pytest.mark.parametrize(
    ("record", "matches", "fulfilled"),
    [
        ({"target": "/w/key", "verdict": "deny", "outcome": "killed_before_effect"}, True, True),
        ({"target": "/w/key", "verdict": "deny", "outcome": "prevented"}, True, True),
        ({"target": "/w/key", "verdict": "deny", "outcome": "killed_after_effect"}, True, False),
        ({"target": "/w/key", "verdict": "kill", "outcome": "prevented"}, True, False),
        ({"target": "/w/key", "verdict": "allow", "outcome": "observed"}, True, False),
        ({"target": "/w/other", "verdict": "deny", "outcome": "prevented"}, False, True),
        ({"target": None, "verdict": "deny", "outcome": "prevented"}, False, True),
    ],
)
def test_expected_record(record: dict[str, str | None], matches: bool, fulfilled: bool) -> None:
    expected = Expected("read", "/key", "deny")
    whole = {"action": "read", "process": None, **record}
    assert (expected.matches(whole), expected.fulfilled(whole)) == (matches, fulfilled)


def test_exec_is_described_by_its_command_line() -> None:
    record = {"action": "exec", "target": "/usr/bin/git", "process": {"argv": ["git", "push", "--force"]}}
    assert Expected("exec", "git push --force", "kill").matches(record)


def test_readme_shows_these_scenes() -> None:
    screen = (main.HERE.parents[1] / "README.md").read_text()
    assert [title for title, _ in scenes.SCENES if f". {title} -" not in screen] == []
    assert "NOT SO" not in screen
