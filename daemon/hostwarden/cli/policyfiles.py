"""Policy files from disk, and what this host knows about them: its users, the running daemon's tiers and agents.

Loaded by the `policy` commands only: the language's model takes a while.
"""

import pwd
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import typer

from hostwarden.cli.door import has_sockets, host, parsed
from hostwarden.cli.errors import CliError, Code
from hostwarden.cli.options import Globals
from hostwarden.cli.output import clean, note, print_json
from hostwarden.policy.model import Policy
from hostwarden.policy.parse import PolicyError, PolicyErrors, load_policies
from hostwarden.policy.source import MAX_BYTES
from hostwarden.policy.words import Action, Tier

POLICY_DIR = Path("/etc/hostwarden/policies.d")


@dataclass
class Found:
    """Files with their bytes, and what couldn't be read."""

    files: list[tuple[str, bytes]] = field(default_factory=list)
    errors: list[PolicyError] = field(default_factory=list)  # line and column 0: about the whole file


@dataclass(frozen=True)
class Daemon:
    """What the running daemon says; None for what isn't known."""

    tiers: dict[Action, Tier] | None = None
    labels: list[dict[str, str]] | None = None  # of its agents
    policy_dir: Path | None = None


@contextmanager
def mistakes_shown(options: Globals) -> Iterator[None]:
    """Shows the mistakes that PolicyErrors from the block has: on stderr, or as one object with `--json`; exits 2."""
    try:
        yield
    except PolicyErrors as found:
        if options.json:
            print_json(findings([], found.errors, []))
        for error in [] if options.json else found.errors:
            note(str(error) if error.line else f"{error.file}: {error.message}")
        raise typer.Exit(Code.INVALID) from None


def load(paths: Sequence[Path]) -> tuple[Policy, ...]:
    """The policies in files, and in the ``*.yaml`` files of folders. Raises PolicyErrors with all mistakes of all."""
    found = read(paths)
    policies: tuple[Policy, ...] = ()
    try:
        policies = load_policies(found.files, uid_of)
    except PolicyErrors as error:
        found.errors += error.errors
    if found.errors:
        raise PolicyErrors(found.errors)
    return policies


def read(paths: Sequence[Path]) -> Found:
    """The bytes of files. What is longer than a policy may be is cut, and the parser says that it is too long."""
    found = Found()
    for path in paths:
        try:
            files = _in_folder(path, found) if path.is_dir() else [path]
        except OSError as error:
            found.errors.append(_unreadable(path, error))
            continue
        for file in files:
            try:
                with file.open("rb") as stream:
                    found.files.append((clean(str(file)), stream.read(MAX_BYTES + 1)))
            except OSError as error:
                found.errors.append(_unreadable(file, error))
    return found


def _in_folder(folder: Path, found: Found) -> list[Path]:
    """What the daemon would read there. Only plain files: a FIFO would make us wait for good."""
    paths = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    for path in paths:
        if path.suffix == ".yml":  # left out in silence, its rules would bind nobody
            message = "a name that ends in .yml, expected .yaml"
            found.errors.append(PolicyError(clean(str(path)), 0, 0, message))
    files = [path for path in paths if path.suffix == ".yaml"]
    for path in files:
        if path.exists() and not path.is_file():
            message = "not a regular file, expected one"
            found.errors.append(PolicyError(clean(str(path)), 0, 0, message))
    if not files:
        message = "no *.yaml files in this folder, expected at least one"
        found.errors.append(PolicyError(clean(str(folder)), 0, 0, message))
    return [path for path in files if path.is_file() or not path.exists()]


def _unreadable(path: Path, error: OSError) -> PolicyError:
    message = f"{(error.strerror or 'unreadable').lower()}, expected a file or folder that can be read"
    return PolicyError(clean(str(path)), 0, 0, message)


def findings(policies: Sequence[Policy], errors: Sequence[Any], warnings: Sequence[Any]) -> dict[str, Any]:
    """What `policy check --json` prints; errors and warnings have file, line, column and message."""
    return {
        "ok": not errors,
        "policies": [policy.name for policy in policies],
        "errors": [_place(error) for error in errors],
        "warnings": [_place(warning) for warning in warnings],
    }


def _place(problem: Any) -> dict[str, Any]:
    line, column = (problem.line, problem.column) if problem.line else (None, None)
    return {"file": problem.file, "line": line, "column": column, "message": problem.message}


def uid_of(name: str) -> int | None:
    """The uid of a user of this host."""
    try:
        return pwd.getpwnam(name).pw_uid
    except (KeyError, ValueError):
        return None


def ask_daemon(options: Globals) -> Daemon:
    """What the daemon says, if one is there and tells us. Never an error: a policy is checked on laptops as well."""
    if not has_sockets(options):
        return Daemon()
    try:
        with host(options) as client:
            reply = client.status()
            told = parsed(reply.json)
            # An agent's socket answers neither; a status without tiers is how that shows.
            agents = [parsed(agent.json).get("labels") for agent in client.ps()] if reply.tiers else []
    except CliError:
        return Daemon()
    labels = [agent for agent in agents if isinstance(agent, dict)]
    folder = told.get("policy_dir")
    return Daemon(_tiers(dict(reply.tiers)), labels or None, Path(folder) if isinstance(folder, str) else None)


def _tiers(words: dict[str, str]) -> dict[Action, Tier] | None:
    """A newer daemon may have actions and tiers that this command doesn't know."""
    actions, tiers = {str(action): action for action in Action}, {str(tier): tier for tier in Tier}
    return {actions[key]: tiers[word] for key, word in words.items() if key in actions and word in tiers} or None
