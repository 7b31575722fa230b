"""Refuses to start where an ``__init__.py`` would hide code: every suite would then test something else, or nothing."""

from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SOURCE_ROOTS = ("daemon", "policy", "probes")


def pytest_configure() -> None:
    """Raises UsageError, which pytest prints as one line."""
    strays = hiding_files(ROOT)
    if strays:
        raise pytest.UsageError(f"remove {', '.join(strays)}: an __init__.py there hides other source roots")


def hiding_files(root: Path) -> list[str]:
    """The files below ``root`` that may not be, relative to it.

    One directly under a ``hostwarden/`` makes that folder the whole package; one under ``tests`` takes test modules out
    of importlib mode, where equal file names clash.
    """
    found = [root / source / "hostwarden" / "__init__.py" for source in SOURCE_ROOTS]
    found += sorted((root / "tests").rglob("__init__.py"))
    return [str(path.relative_to(root)) for path in found if path.exists()]
