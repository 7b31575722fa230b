"""What the demo prints: at most 80 columns, colours only on a terminal, plain ASCII for any locale."""

import os
import sys
import textwrap

WIDTH = 79  # one less than a terminal's 80: some wrap at the last column
LABEL = 12
STYLES = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33"}


class Screen:
    """Titles, labelled lines, and facts that hold or don't."""

    def __init__(self) -> None:
        self._colours = sys.stdout.isatty() and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"

    def title(self, text: str) -> None:
        """Begin a scene."""
        print(flush=True)
        self._print(("bold", f"-- {text} ".ljust(WIDTH, "-")))

    def text(self, text: str) -> None:
        """A paragraph."""
        for line in textwrap.wrap(text, WIDTH):
            self._print((None, line))

    def line(self, label: str, text: str, style: str | None = None) -> None:
        """``label`` in its column and ``text`` beside it, wrapped there."""
        indent = " " * (LABEL + 2)
        first, *rest = textwrap.wrap(text, WIDTH - len(indent), break_on_hyphens=False) or [""]
        self._print(("dim", "  " + label.ljust(LABEL)), (style, first))
        for line in rest:
            self._print((None, indent), (style, line))

    def fact(self, text: str, holds: bool) -> None:
        """Something about the world that was looked up, and whether it is as it must be."""
        self.line("afterwards", f"{text}  [{'ok' if holds else 'NOT SO'}]", "green" if holds else "red")

    def _print(self, *parts: tuple[str | None, str]) -> None:
        print("".join(self._styled(style, text) for style, text in parts), flush=True)

    def _styled(self, style: str | None, text: str) -> str:
        # What comes from a record may hold anything: no control character, and nothing unencodable, gets through.
        safe = "".join(char if char.isascii() and char.isprintable() else "?" for char in text)
        return f"\033[{STYLES[style]}m{safe}\033[0m" if self._colours and style else safe
