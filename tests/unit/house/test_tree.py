"""The tree's own promises: no file that hides source roots, a README in each folder, and links that lead somewhere."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
FOLDERS = ("daemon", "policy", "probes", "tests", "vagrant", "systemd")
PAGES = [ROOT / "README.md", *(ROOT / folder / "README.md" for folder in FOLDERS)]


def test_hiding_files_are_found(tmp_path: Path, pytestconfig: pytest.Config) -> None:
    """The plugin is tests/conftest.py as pytest loaded it: the guard that runs is the one that is tested."""
    plugins = pytestconfig.pluginmanager.get_plugins()
    guard = next(p for p in plugins if getattr(p, "__file__", None) == str(ROOT / "tests" / "conftest.py"))
    assert guard.hiding_files(tmp_path) == []
    strays = ["policy/hostwarden/__init__.py", "tests/__init__.py", "tests/unit/policy/__init__.py"]
    for stray in strays:
        (tmp_path / stray).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / stray).touch()
    assert guard.hiding_files(tmp_path) == strays


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_of_a_page_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#:]+)\)", page.read_text())
    assert [link for link in links if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("folder", ["daemon", "policy", "probes", "vagrant"])
def test_map_of_a_folder_names_every_module(folder: str) -> None:
    page = (ROOT / folder / "README.md").read_text()
    files = [
        path
        for path in (ROOT / folder).rglob("*")
        if path.suffix in (".py", ".c", ".h", ".proto") and path.name != "__init__.py" and "_pb2" not in path.name
    ]
    assert sorted(path.name for path in files if f"`{path.name}`" not in page) == []
