"""The committed protobuf code is what the contract gives."""

import subprocess
import sys

import pytest

from hostwarden.wire import generate


def test_committed_code_is_fresh() -> None:
    assert generate.stale() == []


def test_check_names_what_is_stale(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    stale = dict.fromkeys(generate.GENERATED, "old")
    monkeypatch.setattr(generate, "generate", lambda: stale)
    monkeypatch.setattr(sys, "argv", ["generate", "--check"])
    assert generate.main() == 1
    assert capsys.readouterr().err.count("differs from hostwarden.proto") == 3


def test_command() -> None:
    assert subprocess.run([sys.executable, "-m", "hostwarden.wire.generate", "--check"]).returncode == 0
