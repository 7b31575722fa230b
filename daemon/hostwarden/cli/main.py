"""The `hostwarden` command: what it knows, and how it ends. Each command is a function of its family's file."""

import errno
import os
import signal
import sys
from pathlib import Path
from typing import Annotated

import typer

from hostwarden.cli import agents, audit, events, later, policy, respond, run, status
from hostwarden.cli.door import refuse_collector
from hostwarden.cli.errors import CliError, Code, usage_error
from hostwarden.cli.options import RUN_DIR, Globals, Json
from hostwarden.cli.output import report, say

NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EFBIG})

# Plain help and plain errors: a person reads them over a serial line as well, and boxes hide the one line that matters.
app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)

app.command("status")(status.status)
app.command("doctor")(status.doctor)
app.command("run", context_settings={"allow_interspersed_args": False})(run.run)
app.command("adopt")(agents.adopt)
app.command("ps")(agents.ps)
app.command("events")(events.events)
app.command("kill")(respond.kill)
app.command("freeze")(respond.freeze)
app.command("release")(respond.release)
app.command("arm")(respond.arm)
app.command("disarm")(respond.disarm)
app.add_typer(policy.app, name="policy")
app.add_typer(audit.app, name="audit")
later.add(app, later.COMMANDS)


def _version(is_wanted: bool) -> None:
    if is_wanted:
        from importlib.metadata import version

        say(f"hostwarden {version('hostwarden')}")
        raise typer.Exit


@app.callback()
def options(
    context: typer.Context,
    run_dir: Annotated[
        Path, typer.Option("--run-dir", metavar="DIR", envvar="HOSTWARDEN_RUN_DIR", help="Where the sockets are.")
    ] = RUN_DIR,
    collector: Annotated[
        str | None, typer.Option("--collector", metavar="ADDRESS", help="Ask a collector: unix:/path.")
    ] = None,
    json: Json = False,
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Say which.")] = False,
) -> None:
    """Binds the hands of AI agents on this host: see what they do, know why, stop it.

    Exit codes: 0 done, 1 the answer is no, 2 usage or invalid input, 3 no daemon, 4 not permitted.
    """
    context.obj = Globals(run_dir, collector, json)
    refuse_collector(context.obj, context.invoked_subcommand)


def main() -> int:
    """The program. Returns its exit code."""
    # As every tool in a pipe: whoever closes it (`| head`) ends us without a word.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    return command(sys.argv[1:])


def command(args: list[str]) -> int:
    """One command, as typed. Returns its exit code; whatever the user did wrong has been said by then."""
    try:
        # Typer turns ^C into exit code 130, and the value of a command into ours.
        code = int(app(args, standalone_mode=False, prog_name="hostwarden") or Code.DONE)
        sys.stdout.flush()
    except CliError as error:
        report(error.message, error.hint)
        return error.code
    except typer.TyperException as error:
        wrong = usage_error(error)
        report(wrong.message, wrong.hint)
        return wrong.code
    except OSError as error:
        if error.errno not in NO_SPACE:
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what is left would be tried again, now and at Python's end
        report(f"the output can't be written: {(error.strerror or '').lower()}")
        return Code.NO
    return code
