"""Everything that is printed. JSON goes to stdout as it is; people's words are made harmless for their terminals first.

Paths, arguments and names are chosen by agents: one that holds an escape sequence must not move the reader's cursor,
set a title or hide a line.
"""

import os
import sys
from collections.abc import Iterable, Sequence
from typing import Any

import orjson

STYLES = {"good": "32", "bad": "31;1", "warn": "33", "dim": "2", "bold": "1"}  # SGR, ECMA-48
_PIPED_WIDTH = 100_000  # a table that nobody looks at isn't folded: one row is one line


def clean(text: str) -> str:
    r"""``text`` with everything that isn't printable escaped: ``\x1b``, ``\u202e``; a byte that was no UTF-8, ``\xff``.

    Line feeds as well: what is printed as one line is one line.
    """
    return text if text.isprintable() else "".join(map(_escape, text))


def _escape(char: str) -> str:
    if char.isprintable():
        return char
    if "\udc80" <= char <= "\udcff":  # os.fsdecode's way to carry a byte
        return f"\\x{ord(char) - 0xDC00:02x}"
    # Not unicode_escape: that writes \t and \n, and our records and messages write \x09.
    return char.encode("ascii", "backslashreplace").decode() if ord(char) > 0x7F else f"\\x{ord(char):02x}"


def is_colour() -> bool:
    """Whether stdout is a terminal that wants colours (no-color.org)."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def paint(text: str, style: str) -> str:
    """``text``, made harmless, in a style of STYLES if stdout wants colours."""
    harmless = clean(text)
    return f"\x1b[{STYLES[style]}m{harmless}\x1b[0m" if style and is_colour() else harmless


def say(text: str, style: str = "") -> None:
    """One line for people, on stdout."""
    sys.stdout.write(paint(text, style) + "\n")


def say_pairs(pairs: Iterable[tuple[str, str]]) -> None:
    """Names and values in two columns."""
    rows = [(clean(name), clean(value)) for name, value in pairs]
    width = max((len(name) for name, _ in rows), default=0)
    for name, value in rows:
        sys.stdout.write(f"{name:{width}}  {value}".rstrip() + "\n")


def note(text: str) -> None:
    """One line for people, on stderr."""
    # What is already on stdout came before; on a terminal the two should not change places.
    sys.stdout.flush()
    sys.stderr.write(clean(text) + "\n")


def report(message: str, hint: str = "") -> None:
    """An error: ``hostwarden: message``, and below it the hint. A daemon's answer may have several lines."""
    for line in message.splitlines() or [""]:
        note(f"hostwarden: {line}")
    for line in hint.splitlines():
        note(f"  {line}")


def print_json(value: Any) -> None:
    """One object, one line. ``value`` may hold text from the command line that is no UTF-8."""
    try:
        line = orjson.dumps(value)
    except orjson.JSONEncodeError:
        line = orjson.dumps(_encodable(value))
    print_line(line)


def print_line(line: bytes) -> None:
    """JSON that is made already, as one line."""
    sys.stdout.buffer.write(line + b"\n")


def _encodable(value: Any) -> Any:
    if isinstance(value, str):
        return clean(value) if any("\ud800" <= char <= "\udfff" for char in value) else value
    if isinstance(value, dict):
        return {_encodable(key): _encodable(item) for key, item in value.items()}
    return [_encodable(item) for item in value] if isinstance(value, (list, tuple)) else value


def say_table(headers: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """A table: folded to the width of a terminal, otherwise one row a line."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    is_terminal = sys.stdout.isatty()
    console = Console(
        width=None if is_terminal else _PIPED_WIDTH,
        color_system="standard" if is_colour() else None,
        force_terminal=is_terminal,
    )
    table = Table(box=None, pad_edge=False, header_style="bold")
    for header in headers:
        table.add_column(Text(clean(header)), no_wrap=not is_terminal, overflow="fold")
    for row in rows:
        table.add_row(*(Text(clean(cell)) for cell in row))  # Text: brackets in a name are no markup
    with console.capture() as captured:
        console.print(table)
    for line in captured.get().splitlines():
        sys.stdout.write(line.rstrip() + "\n")


def words(value: Any) -> str:
    """A value out of JSON, on one line: ``a 1, b yes``."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        return ", ".join(f"{key} {words(item)}" for key, item in value.items()) or "-"
    if isinstance(value, list):
        return ", ".join(map(words, value)) or "-"
    return str(value)


def labels_words(labels: Any) -> str:
    """An agent's labels as they are typed: ``team=billing stage=test``."""
    return " ".join(f"{key}={value}" for key, value in labels.items()) or "-" if isinstance(labels, dict) else "-"


def count(number: int, one: str, many: str = "") -> str:
    """``1 case``, ``2 cases``."""
    return f"{number} {one if number == 1 else many or one + 's'}"
