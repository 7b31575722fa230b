"""What hostwardend must still know after a restart or a reboot: state.json in the state folder.

Above all what `kill` has shut: forgetting a block would let an agent start again that a person has stopped. So a file
that can't be read, isn't ours, or was changed, stops the daemon's start with one line, and is never taken for an empty
one. A digest tells what was changed by accident: a letter in a label would be another label.
"""

import hashlib
import os
import stat
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from hostwarden.daemon.files import FileProblem, read_regular

NAME = "state.json"
VERSION: Literal[1] = 1
MAX_BYTES = 8 << 20  # 512 agents with all their labels are less than a fifth of it
MAX_BLOCKS = 4096
U32 = Annotated[int, Field(ge=0, le=0xFFFFFFFF)]
Text = Annotated[str, Field(max_length=64)]
Labels = Annotated[dict[Text, Text], Field(max_length=32)]
_IF_SET = Field(exclude_if=lambda value: not value)  # came later: a file that needs it not is the same as ever


class StateError(Exception):
    """The state can't be read or written. One line, with what to do."""


class _Frozen(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class StartedAgent(_Frozen):
    """An agent that `run` or `adopt` made, and no file of agents.d. Slot and incarnation are its id in the kernel."""

    slot: U32
    incarnation: U32
    name: Annotated[str, Field(min_length=1, max_length=64)]
    labels: Labels = {}
    profile: U32 = 0  # of the tables in the kernel
    uid: U32 = 0  # who started it
    cgroup: str | None = None
    ancestors: Annotated[tuple[Labels, ...], Field(max_length=64)] = ()  # of agents that started it, nearest first
    standing: bool = False  # a file of agents.d names it, too
    frozen: Annotated[bool, _IF_SET] = False  # by a verdict or by name, and not released


class State(_Frozen):
    """All of it; the defaults are a host's on which nothing happened yet."""

    blocked: Annotated[tuple[Labels, ...], Field(max_length=MAX_BLOCKS)] = ()  # selectors; "*" is any value
    armed: bool = True
    agents: Annotated[tuple[StartedAgent, ...], Field(max_length=1024)] = ()
    incarnations: U32 = 0  # the last that was given to a slot: ids of agents are never used again
    generation: U32 = 0  # of the tables that were put in force last
    instance: Text = ""  # names the pinned maps that slots and generation belong to
    frozen: Annotated[tuple[Labels, ...], Field(max_length=MAX_BLOCKS), _IF_SET] = ()  # selectors, as in ``blocked``


class _Head(BaseModel):
    """What every version has."""

    version: int


class _File(_Frozen):
    version: Literal[1]
    sha256: str  # of `state`, as pydantic writes it
    state: State


def load(folder: Path) -> State:
    """The state in ``folder``, the defaults if it has none. Raises StateError."""
    path = folder / NAME
    if not os.path.lexists(path):
        return State()
    try:
        data = read_regular(path, MAX_BYTES)
        status = path.stat()
    except (FileProblem, OSError) as error:
        raise StateError(f"{path}: {error}; {_HINT}") from error
    if status.st_uid != os.geteuid() or stat.S_IMODE(status.st_mode) & 0o022:
        raise StateError(f"{path}: others may write it (chown and chmod 600 it once you trust what it says)")
    try:
        version = _Head.model_validate_json(data).version
        if version != VERSION:
            raise StateError(
                f"{path}: version {version}, this hostwardend reads {VERSION}: start the one that wrote it"
            )
        file = _File.model_validate_json(data)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        message = f"{where!a}: {first['msg']}".replace("\n", " ")
        raise StateError(f"{path}: corrupted ({message}); {_HINT}") from error
    if file.sha256 != _digest(file.state):
        raise StateError(f"{path}: corrupted (its digest doesn't fit what it says); {_HINT}")
    return file.state


def _digest(state: State) -> str:
    return hashlib.sha256(state.model_dump_json().encode()).hexdigest()


_HINT = "restore it from a copy, or move it away: then nothing is blocked any more, and enforcement is armed"


def save(folder: Path, state: State) -> None:
    """Replace the state in ``folder``, whole or not at all, durable when this returns. Raises StateError.

    One caller at a time: the state of two would be that of the later. What a failed one leaves behind is overwritten.
    """
    file = _File(version=VERSION, sha256=_digest(state), state=state)
    data = file.model_dump_json(indent=1).encode() + b"\n"
    path, staged = folder / NAME, folder / f"{NAME}.new"
    try:
        staged.unlink(missing_ok=True)
        # Exclusive: never through a link or into a file that someone else holds open.
        with open(os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as out:  # noqa: PTH123
            out.write(data)
            out.flush()
            os.fsync(out.fileno())
        staged.rename(path)
        _sync(folder)
    except OSError as error:
        _drop(staged)
        raise StateError(f"{path}: can't be written: {error.strerror}; what it said before still holds") from error


def _sync(folder: Path) -> None:
    """The rename itself is on the disk (man 2 fsync: the folder needs its own)."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _drop(staged: Path) -> None:
    try:
        staged.unlink(missing_ok=True)
    except OSError:
        return  # the folder is gone or read-only: the error that led here says so
