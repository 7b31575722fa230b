"""Commands of the contract (design section 13) that this version doesn't have. They are known, so that whoever follows
the documentation of a newer version learns what is the matter.
"""

from collections.abc import Callable

import typer

from hostwarden.cli.errors import CliError, Code

COMMANDS = ("why", "holds", "approve", "refuse", "top")
POLICY_COMMANDS = ("replay", "learn", "schema", "apply")
AUDIT_COMMANDS = ("prove", "export")

_ANYTHING = {"ignore_unknown_options": True, "allow_extra_args": True}


def add(app: typer.Typer, names: tuple[str, ...], prefix: str = "") -> None:
    """Gives ``app`` the commands ``names``, hidden; each says that it isn't there yet, whatever follows it."""
    for name in names:
        app.command(name, hidden=True, context_settings=_ANYTHING, add_help_option=False)(_absent(prefix + name))


def _absent(name: str) -> Callable[[], None]:
    def command() -> None:
        raise CliError(f"{name} isn't in this version yet", "see `hostwarden --help` for what is", Code.INVALID)

    return command
