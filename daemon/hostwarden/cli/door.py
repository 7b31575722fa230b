"""The way to the daemon, or to a collector. Errors of the wire become the command's here, and nowhere else."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hostwarden.cli.errors import CliError, Code
from hostwarden.cli.options import Globals

if TYPE_CHECKING:
    from hostwarden.wire.client import CollectorClient, HostClient

THROUGH_COLLECTOR = frozenset({"events", "status"})  # what a collector answers today


@contextmanager
def host(options: Globals, call: str = "") -> "Iterator[HostClient]":
    """The daemon, through the first socket that may be opened. Raises CliError, for calls in the block as well.

    ``call``: what will be asked. If the first socket doesn't answer that but another may (a responder who wants to
    `run` something needs agent.sock), it is the other.
    """
    from hostwarden.wire.client import connect

    with _translated():
        with connect(options.run_dir) as client:
            other = _other(options.run_dir, client, call)
            if other is None:
                yield client
                return
            with other:
                yield other


@contextmanager
def service(options: Globals) -> "Iterator[HostClient | CollectorClient]":
    """The collector if one was named, else the daemon. Raises CliError, for calls in the block as well."""
    if options.collector is None:
        with host(options) as daemon:
            yield daemon
        return
    from hostwarden.wire.client import connect_collector

    with _translated(), connect_collector(options.collector) as client:
        yield client


def refuse_collector(options: Globals, command: str | None) -> None:
    """Raises CliError if a collector was named for a command that works on one host only."""
    if options.collector is not None and command not in THROUGH_COLLECTOR:
        raise CliError(f"{command} doesn't work through a collector", "use it on the host itself", Code.INVALID)


def has_sockets(options: Globals) -> bool:
    """Whether a daemon may be there: a look that costs nothing, before gRPC is loaded."""
    from hostwarden.wire.roles import DOORS

    try:
        return any((options.run_dir / door.file).exists() for door in DOORS.values())
    except OSError:
        return False


def parsed(data: bytes) -> dict[str, Any]:
    """A JSON object of a reply; empty if there is none. Raises CliError for anything else."""
    import orjson

    try:
        value = orjson.loads(data or b"{}")
    except orjson.JSONDecodeError:
        value = None
    if not isinstance(value, dict):
        raise CliError("the answer can't be read", "do the command and hostwardend have the same version?")
    return value


def _other(run_dir: Path, client: "HostClient", call: str) -> "HostClient | None":
    from hostwarden.wire.client import connect
    from hostwarden.wire.errors import ClientError
    from hostwarden.wire.roles import DOORS, Role

    if not call or call in DOORS[client.role].calls:
        return None
    for role in Role:
        if call in DOORS[role].calls:
            try:
                return connect(run_dir, role)
            except ClientError:
                continue
    return None  # the first one will say no, and which sockets would have said yes


@contextmanager
def _translated() -> Iterator[None]:
    from hostwarden.wire.errors import ClientError

    try:
        yield
    except ClientError as error:
        raise CliError(error.message, error.hint, error.exit_code) from None
