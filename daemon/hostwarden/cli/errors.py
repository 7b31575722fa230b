"""What can go wrong, as an exit code, one line and a hint; nothing else is ever shown for a mistake of the user's."""

from enum import IntEnum

import typer


class Code(IntEnum):
    """Exit codes (design section 13); `run` exits with its command's instead."""

    DONE = 0
    NO = 1  # the answer is no: a check failed, nothing matched
    INVALID = 2  # usage, or input that can't be right
    NO_DAEMON = 3
    NOT_PERMITTED = 4


class CliError(Exception):
    """Ends the command with ``code``; ``message`` is one line, ``hint`` says what to do."""

    def __init__(self, message: str, hint: str = "", code: int = Code.NO) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.code = code


def usage_error(error: typer.TyperException) -> CliError:
    """What the command line's parser found, in our words: one line, and the nearest thing to try as the hint."""
    context = getattr(error, "ctx", None)
    hint = f"see `{context.command_path if context else 'hostwarden'} --help`"
    possibilities = getattr(error, "possibilities", None)
    text = error.message if possibilities else error.format_message()
    message, _, guess = " ".join(text.split()).partition(" Did you mean ")
    if possibilities or guess:
        hint = f"did you mean {', '.join(possibilities) if possibilities else guess.rstrip('?')}?"
    message = message.rstrip(".").replace("Input should be ", "expected ")
    return CliError(message[:1].lower() + message[1:], hint, error.exit_code)
