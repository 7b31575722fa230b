"""Defaults, and every error in one line with file and key, all at once."""

from pathlib import Path

import pytest

from hostwarden.collector import config
from hostwarden.collector.config import ConfigError, Settings, load


def test_defaults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config, "DEFAULT_FILE", tmp_path / "missing.toml")
    settings = load(None)
    assert settings == Settings()
    assert settings.socket == Path("/run/hostwarden-collector/collector.sock")
    assert settings.database == Path("/var/lib/hostwarden-collector/records.db")
    (tmp_path / "missing.toml").write_text('[collector]\nlisten = "unix:/run/other.sock"\n')
    assert load(None).socket == Path("/run/other.sock")


def test_empty_file_is_the_defaults(tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text("")
    assert load(tmp_path / "c.toml") == Settings()


def test_all_errors_at_once(tmp_path: Path) -> None:
    file = tmp_path / "c.toml"
    file.write_text(
        '[collector]\nlisten = "0.0.0.0:443"\nstore = "sqlite:///relative.db"\ngroup = "no-such-group"\n'
        "listne = 1\n[deamon]\nx = 1\n"
    )
    with pytest.raises(ConfigError) as caught:
        load(file)
    assert sorted(caught.value.lines) == [
        f"{file}: collector.group: no group 'no-such-group' on this host",
        f'{file}: collector.listen: must be "unix:/path"; TCP comes with mutual TLS, later',
        f"{file}: collector.listne: unknown key",
        f'{file}: collector.store: must be "sqlite:////path", with an absolute path',
        f"{file}: deamon: unknown key",
    ]


@pytest.mark.parametrize(
    ("text", "error"),
    [
        (b"[collector\n", "c.toml: Expected"),
        (b"\xff", "c.toml: not UTF-8 text"),
        (b"collector = 1", "c.toml: collector: Input should be"),
        (b"[collector]\nlisten = 7", "c.toml: collector.listen: Input should be a valid string"),
        (b'[collector]\nstore = "nats://x"', "NATS comes later"),
    ],
)
def test_errors(tmp_path: Path, text: bytes, error: str) -> None:
    (tmp_path / "c.toml").write_bytes(text)
    with pytest.raises(ConfigError) as caught:
        load(tmp_path / "c.toml")
    assert error in caught.value.lines[0]
    assert "\n" not in caught.value.lines[0]


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file or directory"):
        load(tmp_path / "none.toml")
