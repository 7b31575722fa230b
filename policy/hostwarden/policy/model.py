"""A policy as the oracle and the compiler read it: parsed, checked, frozen.

``hostwarden.policy.parse`` makes these from files. Globs are parsed already (``globs``), addresses are 16 bytes with
IPv4 as IPv4-mapped IPv6, users are uids. A condition that is None is absent and matches every target.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict

from hostwarden.policy.globs import ArgvGlob, PathGlob
from hostwarden.policy.labels import Selector
from hostwarden.policy.words import BROADER, Action, Mode, RecordMode, Verdict


@dataclass(frozen=True)
class Net:
    """A prefix of ``length`` bits of a 16-byte address (10.0.0.0/8 is ::ffff:10.0.0.0/104) and a port, None for any.

    Length 0 is every address of both families; no other prefix holds v4 and v6 addresses at once.
    """

    prefix: bytes
    length: int
    port: int | None


@dataclass(frozen=True)
class PathPattern:
    """A path glob as written, where it stands, and the globs it stands for (braces expanded)."""

    text: str
    line: int
    column: int
    globs: tuple[PathGlob, ...]


@dataclass(frozen=True)
class ArgvPattern:
    """An argv glob as written, where it stands, and the globs it stands for (braces expanded)."""

    text: str
    line: int
    column: int
    globs: tuple[ArgvGlob, ...]


@dataclass(frozen=True)
class NetPattern:
    """An address of ``to`` as written, where it stands, and what it means."""

    text: str
    line: int
    column: int
    net: Net


@dataclass(frozen=True)
class UnixPattern:
    """A unix socket of ``to`` as written (`unix:/run/*.sock`, `unix:@name`), where it stands, and the globs it stands
    for (braces expanded).
    """

    text: str
    line: int
    column: int
    globs: tuple[PathGlob, ...]


ToPattern = NetPattern | UnixPattern
Paths = Literal["host", "root"]  # what `/` is in a policy's globs: the host's root, or the agent's container's


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Rule(_Frozen):
    """One entry of ``rules``: it matches if action, user and every condition match, and no exception does.

    With ``path`` and ``argv`` each exception narrows its own half: the path must match and not be excepted, and so
    must the argv.
    """

    location: str  # "file:line", the file's base name: what records call `rule`
    line: int
    column: int
    verdict: Verdict
    actions: tuple[Action, ...]
    path: tuple[PathPattern, ...] | None = None  # FILE_ACTIONS only
    argv: tuple[ArgvPattern, ...] | None = None  # EXEC only
    to: tuple[ToPattern, ...] | None = None  # NET_ACTIONS only
    sha256: tuple[bytes, ...] | None = None  # of the file's content, 32 bytes each; EXEC and LOAD only
    users: tuple[int, ...] | None = None  # uids, ascending
    except_path: tuple[PathPattern, ...] = ()
    except_argv: tuple[ArgvPattern, ...] = ()
    except_to: tuple[ToPattern, ...] = ()
    why: str | None = None

    @property
    def path_globs(self) -> tuple[PathGlob, ...] | None:
        """All globs of ``path``; None without that condition."""
        return None if self.path is None else tuple(g for pattern in self.path for g in pattern.globs)

    @property
    def argv_globs(self) -> tuple[ArgvGlob, ...] | None:
        """All globs of ``argv``; None without that condition."""
        return None if self.argv is None else tuple(g for pattern in self.argv for g in pattern.globs)

    @property
    def nets(self) -> tuple[Net, ...] | None:
        """All addresses of ``to``; None without that condition."""
        return None if self.to is None else tuple(p.net for p in self.to if isinstance(p, NetPattern))

    @property
    def unix_globs(self) -> tuple[PathGlob, ...] | None:
        """All globs of unix sockets in ``to``; None without that condition."""
        return None if self.to is None else tuple(g for p in self.to if isinstance(p, UnixPattern) for g in p.globs)

    @property
    def except_path_globs(self) -> tuple[PathGlob, ...]:
        """All globs that are excepted from ``path``."""
        return tuple(g for pattern in self.except_path for g in pattern.globs)

    @property
    def except_argv_globs(self) -> tuple[ArgvGlob, ...]:
        """All globs that are excepted from ``argv``."""
        return tuple(g for pattern in self.except_argv for g in pattern.globs)

    @property
    def except_nets(self) -> tuple[Net, ...]:
        """All addresses that are excepted from ``to``."""
        return tuple(p.net for p in self.except_to if isinstance(p, NetPattern))

    @property
    def except_unix_globs(self) -> tuple[PathGlob, ...]:
        """All globs of unix sockets that are excepted from ``to``."""
        return tuple(g for p in self.except_to if isinstance(p, UnixPattern) for g in p.globs)

    @property
    def walked(self) -> tuple[PathPattern | UnixPattern, ...] | None:
        """The patterns that are matched with a path: those of ``path``, or the unix sockets of ``to``; None without a
        condition.
        """
        return self.path if self.to is None else tuple(p for p in self.to if isinstance(p, UnixPattern))

    @property
    def except_walked(self) -> tuple[PathGlob, ...]:
        """The exceptions that are matched with a path; a rule has them of one kind only."""
        return self.except_path_globs or self.except_unix_globs

    def decides(self, action: Action) -> bool:
        """Whether it has a say in what a policy decides as ``action``. What must not be executed must not be mapped
        executable either, so exec's severe rules speak of `load`, too; those about argv can't, for nothing is started.
        """
        if action in self.actions:
            return True
        severe = self.verdict >= Verdict.HOLD and self.argv is None
        return action is Action.LOAD and severe and Action.EXEC in self.actions

    @property
    def covers(self) -> bool:
        """Whether a match keeps the policy's ``otherwise`` away."""
        return self.verdict in (Verdict.ALLOW, Verdict.AUDIT)


class Policy(_Frozen):
    """One policy file."""

    name: str
    digest: str  # SHA-256 of the file's bytes, hex
    file: str  # as the caller named it
    selector: Selector
    mode: Mode
    rules: tuple[Rule, ...]
    otherwise: Mapping[Action, Verdict]
    record: Mapping[Action, RecordMode]
    paths: Paths = "host"
    places: Mapping[str, tuple[int, int]]  # top key → line and column of its value
    notes: tuple[tuple[int, int, str], ...] = ()  # line, column and message of what is likely not meant (``check``)

    def decided_as(self, action: Action) -> Action:
        """The action as which this policy decides ``action``: itself if a rule or `otherwise` names it or nothing is
        broader, else the broader one (a create is decided as a write).
        """
        if action not in BROADER or action in self.otherwise or any(action in rule.actions for rule in self.rules):
            return action
        return BROADER[action]

    def record_mode(self, action: Action) -> RecordMode:
        """Which decisions of ``action`` this policy wants recorded: what `record` names for it, else for the action
        as which it is decided, else all.
        """
        return self.record.get(action, self.record.get(self.decided_as(action), RecordMode.ALL))
