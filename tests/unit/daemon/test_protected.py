"""Which files a policy's deny rules name on a real file system."""

from pathlib import Path

import pytest

from hostwarden.daemon.protected import scan
from hostwarden.policy.parse import parse_policy


def files_of(root: Path, globs: list[str]) -> tuple[set[str], list[str]]:
    """Names below root that are found, and the globs that aren't followed."""
    listed = ", ".join(f'"{root}{glob}"' if glob.startswith("/") else f'"{glob}"' for glob in globs)
    policy = parse_policy(
        f"policy: p\nfor: {{}}\nrules:\n  - deny: read\n    path: [{listed}]\n".encode(), "p.yaml", lambda name: None
    )
    found = scan([policy])
    return {str(Path(file.path.decode()).relative_to(root)) for file in found.files}, found.skipped


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name in ("a/.ssh/id", "a/.ssh/sub/deep", "a/notes", "b/.ssh/id", "c"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    (tmp_path / "link").symlink_to(tmp_path / "c")
    return tmp_path


@pytest.mark.parametrize(
    ("globs", "expected"),
    [
        (["/c"], {"c"}),
        (["/missing"], set()),
        (["/a/*"], {"a/notes"}),
        (["/*/.ssh/id"], {"a/.ssh/id", "b/.ssh/id"}),
        (["/a/**"], {"a/.ssh/id", "a/.ssh/sub/deep", "a/notes"}),
        (["/a/**/deep"], {"a/.ssh/sub/deep"}),
        (["/**/id"], {"a/.ssh/id", "b/.ssh/id"}),
        (["/c/**"], {"c"}),
        (["/link"], set()),  # not a regular file: what it leads to is judged by its own name
        (["/{c,a/notes}"], {"c", "a/notes"}),
    ],
)
def test_globs_are_followed(tree: Path, globs: list[str], expected: set[str]) -> None:
    assert files_of(tree, globs) == (expected, [])


def test_a_glob_for_everywhere_is_said_not_followed(tree: Path) -> None:
    assert files_of(tree, ["**/.env", "/c"]) == ({"c"}, ["**/.env"])


def test_allow_rules_protect_nothing(tree: Path) -> None:
    text = f'policy: p\nfor: {{}}\nrules:\n  - allow: read\n    path: "{tree}/c"\n'
    assert scan([parse_policy(text.encode(), "p.yaml", lambda name: None)]).files == []
