"""The collector's configuration: TOML, every key with a default, every error in one line, all of them at once."""

import grp
import tomllib
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError, field_validator

DEFAULT_FILE = Path("/etc/hostwarden/collector.toml")


class ConfigError(Exception):
    """The configuration is invalid. ``lines`` has one ``file: key: what is wrong`` for each error."""

    def __init__(self, lines: list[str]) -> None:
        super().__init__("\n".join(lines))
        self.lines = lines


class Settings(BaseModel):
    """The table ``[collector]``."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    listen: str = "unix:/run/hostwarden-collector/collector.sock"
    store: str = "sqlite:////var/lib/hostwarden-collector/records.db"
    group: str = ""  # whose members may connect beside root and the collector's user; empty: the collector's group

    @field_validator("listen")
    @classmethod
    def _listen(cls, value: str) -> str:
        if not value.startswith("unix:/"):
            raise ValueError('must be "unix:/path"; TCP comes with mutual TLS, later')
        return value

    @field_validator("store")
    @classmethod
    def _store(cls, value: str) -> str:
        if value.startswith("nats://"):
            raise ValueError('must be "sqlite:////path"; NATS comes later')
        if not value.startswith("sqlite:////"):
            raise ValueError('must be "sqlite:////path", with an absolute path')
        return value

    @field_validator("group")
    @classmethod
    def _group(cls, value: str) -> str:
        if value:
            try:
                grp.getgrnam(value)
            except KeyError:
                raise ValueError(f"no group {value!r} on this host") from None
        return value

    @property
    def socket(self) -> Path:
        """Path of the socket."""
        return Path(self.listen.removeprefix("unix:"))

    @property
    def database(self) -> Path:
        """Path of the SQLite file."""
        return Path(self.store.removeprefix("sqlite:///"))


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)
    collector: Settings = Settings()


def load(path: Path | None) -> Settings:
    """The settings in ``path``; without one those of DEFAULT_FILE, or the defaults if it doesn't exist.

    Raises ConfigError.
    """
    if path is None and not DEFAULT_FILE.exists():
        return Settings()
    path = path or DEFAULT_FILE
    try:
        return _File.model_validate(tomllib.loads(path.read_text())).collector
    except OSError as error:
        raise ConfigError([f"{path}: {error.strerror}"]) from error
    except UnicodeDecodeError as error:
        raise ConfigError([f"{path}: not UTF-8 text"]) from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError([f"{path}: {error}"]) from error
    except ValidationError as error:
        raise ConfigError([_line(path, detail["loc"], detail) for detail in error.errors()]) from error


def _line(path: Path, where: tuple[int | str, ...], detail: object) -> str:
    assert isinstance(detail, dict)
    message = "unknown key" if detail["type"] == "extra_forbidden" else str(detail["msg"])
    return f"{path}: {'.'.join(map(str, where))}: {message.removeprefix('Value error, ')}"
