"""hostwardend's configuration (design section 13): TOML, every key with a default, all errors at once, one line each.

An error reads ``file: section.key: what, expected``; one in the TOML itself ``file:line:column: what``. The collector's
own keys may stand in the same file, so that one file can serve both programs; they are its business and not looked at.
"""

import os
import re
import tomllib
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, PrivateAttr, ValidationError
from pydantic_core import ErrorDetails

from hostwarden.daemon.files import FileProblem, read_regular
from hostwarden.policy.vocabulary import quote, unknown
from hostwarden.policy.words import Tier

DEFAULT_FILE = Path("/etc/hostwarden/hostwarden.toml")
MAX_BYTES = 1 << 16  # a full file has less than 2 kB
SOCKET_PATH_LIMIT = 107  # sun_path holds 108 bytes with the terminating zero (unix(7))
TIER_WORDS = tuple(str(tier) for tier in Tier if tier is not Tier.NONE)
LATER = "isn't in this version yet"
_LATER_KEYS = {("collector", "ca"), ("collector", "cert"), ("collector", "key")}
_COLLECTORS_OWN = ("listen", "store", "group")  # of hostwarden-collector, in the table that both read


class ConfigError(Exception):
    """The configuration can't be used. ``lines`` has one line for each error."""

    def __init__(self, lines: list[str]) -> None:
        super().__init__("\n".join(lines))
        self.lines = lines


def _path(value: object) -> Path:
    if not isinstance(value, str) or not value.startswith("/") or "\0" in value:
        raise ValueError('expected an absolute path like "/var/lib/hostwarden"')
    if ".." in PurePosixPath(value).parts:
        raise ValueError("expected a path without ..")
    return Path(value)


def _power_of_two(value: int) -> int:
    # A BPF ring buffer is whole pages, and a power of two of them (man 2 bpf, BPF_MAP_TYPE_RINGBUF).
    if value & (value - 1):
        raise ValueError(f"expected a power of two, like {1 << value.bit_length()}")
    return value


def _tier(value: object) -> Tier:
    if not isinstance(value, str) or value not in TIER_WORDS:
        text = value if isinstance(value, str) else repr(value)
        raise ValueError(unknown("tier", text, TIER_WORDS))
    return Tier[value.upper()]


def _tiers(value: tuple[Tier, ...]) -> tuple[Tier, ...]:
    if not value:
        raise ValueError(f"an empty list, expected some of {', '.join(TIER_WORDS)}")
    if len(set(value)) < len(value):
        raise ValueError("the same tier twice, expected each once")
    return value


def _none_yet(value: object) -> tuple[str, ...]:
    if value != []:
        raise ValueError(f"rules with host names, which resolvers are for: {LATER}, expected []")
    return ()


def _address(value: object) -> str:
    text = value if isinstance(value, str) else repr(value)
    form = 'expected "unix:/path"'
    if not text.startswith("unix:"):
        looks_like_tcp = re.fullmatch(r"(tcp://)?.+:[0-9]+", text)
        raise ValueError(f"a TCP address {quote(text)} {LATER}, {form}" if looks_like_tcp else f"{quote(text)}, {form}")
    path = text.removeprefix("unix:")
    if not path.startswith("/") or "\0" in path:
        raise ValueError(f"{quote(text)}, {form} with an absolute path")
    if len(os.fsencode(path)) > SOCKET_PATH_LIMIT:
        raise ValueError(f"{quote(text)}, expected a path of at most {SOCKET_PATH_LIMIT} bytes")
    return text


def _list(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value  # TOML has lists, frozen models have tuples


Folder = Annotated[Path, BeforeValidator(_path)]
RingKib = Annotated[int, Field(ge=64, le=1 << 19), AfterValidator(_power_of_two)]
Tiers = Annotated[tuple[Annotated[Tier, BeforeValidator(_tier)], ...], BeforeValidator(_list), AfterValidator(_tiers)]
Addresses = Annotated[
    tuple[Annotated[str, BeforeValidator(_address)], ...], BeforeValidator(_list), Field(max_length=16)
]


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class DaemonSettings(_Table):
    """The table ``[daemon]``."""

    state_dir: Folder = Path("/var/lib/hostwarden")  # everything that the host keeps: log, key, state
    run_dir: Folder = Path("/run/hostwarden")  # the four sockets
    policy_dir: Folder = Path("/etc/hostwarden/policies.d")
    agents_dir: Folder = Path("/etc/hostwarden/agents.d")
    cache_dir: Folder = Path("/var/cache/hostwarden")  # header trees, by the digest of the kernel's BTF
    bpffs_dir: Folder = Path("/sys/fs/bpf/hostwarden")  # a bpffs of our own is mounted here
    deny_without_lsm: Literal["kill", "audit", "refuse"] = "kill"  # what `deny` becomes on the signal tier
    tiers: Tiers = tuple(tier for tier in Tier if tier is not Tier.NONE)  # those that may be used
    resolvers: Annotated[tuple[str, ...], BeforeValidator(_none_yet)] = ()
    events_ring_kib: RingKib = 4096
    denials_ring_kib: RingKib = 1024
    argv_shown: Annotated[int, Field(ge=0, le=2047)] = (
        1024  # bytes of argv in a record; the kernel's half masks with 2047
    )
    segment_mib: Annotated[int, Field(ge=1, le=4096)] = 64  # a segment of the log is closed when it has grown to this


class CollectorSettings(_Table):
    """The table ``[collector]``: where records are streamed to, the first that answers. Empty: nowhere."""

    addresses: Addresses = ("unix:/run/hostwarden-collector/collector.sock",)


class Settings(_Table):
    """The file."""

    daemon: DaemonSettings = DaemonSettings()
    collector: CollectorSettings = CollectorSettings()
    _file: Path | None = PrivateAttr(default=None)

    @property
    def file(self) -> Path | None:
        """The file itself; None where these are the defaults."""
        return self._file


def load(path: Path | None) -> Settings:
    """The settings in ``path``; without one those in DEFAULT_FILE, or the defaults if that doesn't exist.

    Raises ConfigError.
    """
    if path is None:
        if not os.path.lexists(DEFAULT_FILE):
            return Settings()
        path = DEFAULT_FILE
    table = _parse(path, _read(path))
    collector = table.get("collector")
    if isinstance(collector, dict):
        table["collector"] = {key: value for key, value in collector.items() if key not in _COLLECTORS_OWN}
    try:
        settings = Settings.model_validate(table)
    except ValidationError as error:
        raise ConfigError([_line(path, detail) for detail in error.errors()]) from None
    if lines := list(_shared_folders(path, settings.daemon)):
        raise ConfigError(lines)
    settings._file = path.absolute()
    return settings


def _read(path: Path) -> str:
    try:
        data = read_regular(path, MAX_BYTES)
    except FileProblem as problem:
        raise ConfigError([f"{path}: {problem}"]) from None
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        column = error.start - data.rfind(b"\n", 0, error.start)
        message = f"byte 0x{data[error.start]:02x} is not UTF-8, expected a text file in UTF-8"
        raise ConfigError([f"{path}:{line}:{column}: {message}"]) from None


def _parse(path: Path, text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        message = str(error)
        place = re.search(r" \(at line ([0-9]+), column ([0-9]+)\)\Z", message)
        if place:
            raise ConfigError([f"{path}:{place[1]}:{place[2]}: not TOML: {message[: place.start()]}"]) from None
        lines = text.split("\n")
        message = message.removesuffix(" (at end of document)")
        raise ConfigError([f"{path}:{len(lines)}:{len(lines[-1]) + 1}: not TOML: {message}"]) from None
    except (ValueError, RecursionError):  # a number of thousands of digits, brackets in brackets without end
        raise ConfigError(
            [f"{path}:1:1: not TOML: a value that is too large, expected plain keys and values"]
        ) from None


def _line(path: Path, detail: ErrorDetails) -> str:
    """One error of pydantic's in our words. ``loc`` is section, key, and the index in a list."""
    where = [str(part) for part in detail["loc"]]
    key = ".".join(where[:2]) + "".join(f"[{index}]" for index in where[2:])
    value, message = detail["input"], str(detail["msg"])
    if detail["type"] == "extra_forbidden":
        return f"{path}: {quote(key)[1:-1]}: {_unknown_key(where)}"
    if detail["type"] == "value_error":
        message = message.removeprefix("Value error, ")
        return f"{path}: {key}: {message if not message.startswith('expected') else f'{_shown(value)}, {message}'}"
    expected = message.removeprefix("Input should be ").removeprefix("a valid ")
    expected = _EXPECTED.get(detail["type"], expected)
    expected = re.sub(r"(greater|less) than or equal to", lambda found: _BOUNDS[found[1]], expected)
    return f"{path}: {key}: {_shown(value)}, expected {expected}"


_BOUNDS = {"greater": "at least", "less": "at most"}
_EXPECTED = {
    "int_type": "a whole number",
    "tuple_type": "a list",
    "too_long": "at most 16 of them",
    "model_type": "a table",
    "model_attributes_type": "a table",
    "dict_type": "a table",
}


def _shown(value: object) -> str:
    if isinstance(value, dict):
        return "a table"
    if isinstance(value, list | tuple):
        return f"a list of {len(value)}"
    if isinstance(value, bool):
        return quote(str(value).lower())
    if isinstance(value, int) and value.bit_length() > 64:  # Python won't write thousands of digits
        return "a huge number"
    return quote(str(value))


def _unknown_key(where: list[str]) -> str:
    if len(where) == 1:
        return unknown("section", where[0], tuple(Settings.model_fields))
    if tuple(where) in _LATER_KEYS:
        return f"TCP {LATER}, expected unix sockets without certificates"
    table = DaemonSettings if where[0] == "daemon" else CollectorSettings
    return unknown("key", where[1], tuple(table.model_fields))


def _shared_folders(path: Path, settings: DaemonSettings) -> Iterable[str]:
    """Folders that two purposes can't share: sockets, the log, pins and caches would be in each other's way."""
    seen: dict[Path, str] = {}
    for key in ("state_dir", "run_dir", "cache_dir", "bpffs_dir"):
        folder = getattr(settings, key)
        if folder in seen:
            yield f"{path}: daemon.{key}: the same as {seen[folder]}, expected a folder of its own"
        seen.setdefault(folder, key)
