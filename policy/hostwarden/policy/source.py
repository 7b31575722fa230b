"""YAML with positions: nodes instead of values, and a reader that collects every error of a file before it gives up.

Only the plain part of YAML is taken. Scalars are text, whatever YAML 1.1 makes of `yes` or `1:20`; anchors, aliases
and tags are refused, so the tree is never larger than the file.
"""

import re
from dataclasses import dataclass

import yaml

from hostwarden.policy.vocabulary import quote

MAX_BYTES = 1 << 20
MAX_DEPTH = 8  # a policy needs 5; libyaml's composer recurses in C, without a limit of its own
MAX_ERRORS = 200  # of one file: the rest would not be read anyway
# What YAML can't hold, and what it takes for a line's end but editors (and our line numbers) don't.
_FORBIDDEN = re.compile("[^\t\n\r\x20-\x7e\xa0-\u2027\u202a-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]|\r(?!\n)")


@dataclass(frozen=True)
class PolicyError:
    """One mistake in one file; line and column start at 1."""

    file: str
    line: int
    column: int
    message: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}: {self.message}"


class PolicyErrors(Exception):
    """All mistakes that were found, in the order of files, lines and columns."""

    def __init__(self, errors: list[PolicyError]) -> None:
        super().__init__("\n".join(str(error) for error in errors))
        self.errors = errors


@dataclass(frozen=True)
class Entry:
    """One ``key: value`` of a mapping."""

    key: yaml.ScalarNode
    value: yaml.Node


class Reader:
    """Reads one file's nodes. Its methods return None, or leave out, what they reported as an error."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.errors: list[PolicyError] = []
        self.notes: list[PolicyError] = []  # what is no mistake, but most likely isn't meant
        self._lines: list[str] = []

    def error(self, node: yaml.Node, message: str, offset: int = 0) -> None:
        """Report ``message`` at ``node``, ``offset`` characters into its text where that can be told."""
        line, column = place(node)
        self.error_at(line, column + _shift(node, offset), message)

    def error_at(self, line: int, column: int, message: str) -> None:
        """Report ``message`` at a place of the file."""
        if len(self.errors) < MAX_ERRORS:
            self.errors.append(PolicyError(self.file, line, column, message))

    def note_comment(self, node: yaml.Node) -> None:
        """Note a `#word` that YAML cut off an unquoted scalar (`ask in #releases`)."""
        end = node.end_mark
        line = self._lines[end.line] if end.line < len(self._lines) else ""
        cut = re.compile(r" +(#\S+)").match(line, end.column)
        if cut and isinstance(node, yaml.ScalarNode) and not node.style:
            message = f"{quote(cut[1])} is a YAML comment, not part of the text: quote the sentence to keep it"
            self.notes.append(PolicyError(self.file, end.line + 1, cut.start(1) + 1, message))

    def raise_errors(self) -> None:
        """Raises PolicyErrors if anything was reported."""
        if self.errors:
            raise PolicyErrors(sorted(self.errors, key=lambda error: (error.line, error.column)))

    def compose(self, data: bytes, expected: str) -> yaml.Node:
        """The root node of a file, which should be ``expected``. Raises PolicyErrors."""
        text = self._decode(data)
        root = None
        try:
            self._lines = text.split("\n") if text is not None else []
            if text is not None and self._is_plain(text):
                root = yaml.compose(text, Loader=yaml.CSafeLoader)
                if root is None:
                    self.error_at(1, 1, f"an empty file, expected {expected}")
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
            if line > len(self._lines):  # behind a last line without a line feed
                line, column = len(self._lines), len(self._lines[-1]) + 1
            self.error_at(line, column, f"not YAML: {self._explain(error, line)}")
        except yaml.YAMLError as error:
            self.error_at(1, 1, f"not YAML: {quote(str(error))}, expected {expected}")
        self.raise_errors()
        assert root is not None
        return root

    def mapping(self, node: yaml.Node, what: str) -> dict[str, Entry] | None:
        """The entries of a mapping; a key that comes twice or isn't text is reported and left out."""
        if not isinstance(node, yaml.MappingNode):
            self.error(node, f"{_kind(node)}, expected {what}")
            return None
        entries: dict[str, Entry] = {}
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                self.error(key, f"{_kind(key)} as a key, expected a word")
            elif key.value in entries:
                first = entries[key.value].key.start_mark.line + 1
                self.error(key, f"{quote(key.value)} comes twice, expected it once (the first is on line {first})")
            else:
                entries[key.value] = Entry(key, value)
        return entries

    def scalar(self, node: yaml.Node, what: str) -> str | None:
        """The text of a scalar; what YAML takes for null is none."""
        if not isinstance(node, yaml.ScalarNode):
            self.error(node, f"{_kind(node)}, expected {what}")
            return None
        if node.tag.endswith(":null"):
            self.error(node, f"nothing, expected {what}")
            return None
        return str(node.value)

    def items(self, node: yaml.Node, what: str) -> list[yaml.Node] | None:
        """The nodes of a list."""
        if not isinstance(node, yaml.SequenceNode):
            self.error(node, f"{_kind(node)}, expected {what}")
            return None
        return list(node.value)

    def one_or_more(self, node: yaml.Node, what: str) -> list[tuple[yaml.Node, str]]:
        """The texts of a scalar or of a list of scalars, with their nodes; an empty list is reported."""
        nodes = node.value if isinstance(node, yaml.SequenceNode) else [node]
        if not nodes:
            self.error(node, f"an empty list, expected {what}")
        texts = [(item, self.scalar(item, what)) for item in nodes]
        return [(item, text) for item, text in texts if text is not None]

    def _decode(self, data: bytes) -> str | None:
        if len(data) > MAX_BYTES:
            self.error_at(1, 1, f"{len(data)} bytes, expected at most {MAX_BYTES}")
            return None
        try:
            text = data.decode("utf-8")
        except UnicodeDecodeError as error:
            line, column = _position(data[: error.start].decode("utf-8"))
            self.error_at(line, column, f"byte 0x{data[error.start]:02x} is not UTF-8, expected a text file in UTF-8")
            return None
        forbidden = _FORBIDDEN.search(text)
        if forbidden:
            line, column = _position(text[: forbidden.start()])
            self.error_at(
                line, column, f"character U+{ord(forbidden[0]):04X} can't be in YAML, expected printable text"
            )
            return None
        return text

    def _is_plain(self, text: str) -> bool:
        """Whether the file is one document without anchors, aliases and tags, and not nested too deeply."""
        depth = documents = 0
        for event in yaml.parse(text, Loader=yaml.CSafeLoader):
            message = ""
            if isinstance(event, yaml.AliasEvent):
                message = 'a YAML alias, expected plain values (a value that begins with * needs quotes: "*")'
            elif isinstance(event, yaml.DocumentStartEvent):
                documents += 1
                message = "a second YAML document, expected one in a file" if documents > 1 else ""
            elif isinstance(event, yaml.CollectionStartEvent):
                depth += 1
                message = f"nested deeper than {MAX_DEPTH}, expected a flatter file" if depth > MAX_DEPTH else ""
            elif isinstance(event, yaml.CollectionEndEvent):
                depth -= 1
            if isinstance(event, yaml.ScalarEvent | yaml.CollectionStartEvent) and not message:
                if event.anchor is not None:
                    message = "a YAML anchor, expected plain values (a value that begins with & needs quotes)"
                elif event.tag is not None:
                    message = "a YAML tag, expected plain values (a value that begins with ! needs quotes)"
            if message:
                mark = event.start_mark
                assert mark is not None  # events of the C parser always have one
                self.error_at(mark.line + 1, mark.column + 1, message)
                return False
        return True

    def _explain(self, error: yaml.MarkedYAMLError, line: int) -> str:
        """libyaml's words, and what is most likely meant by them."""
        source = self._lines[line - 1] if line <= len(self._lines) else ""
        problem = error.problem or "unreadable"
        if "\t" in source[: len(source) - len(source.lstrip())]:
            return f"{problem}; expected spaces for indentation, not tabs"
        if "alias" in f"{error.context} {problem}":
            return f'{problem}; expected quotes around a value that begins with * ("**/.env")'
        return f"{problem}; expected valid YAML (values with * {{ }} [ ] : # or ! need quotes)"


def place(node: yaml.Node) -> tuple[int, int]:
    """Line and column of a node, from 1."""
    return node.start_mark.line + 1, node.start_mark.column + 1


def _shift(node: yaml.Node, offset: int) -> int:
    """How far right of its start the character ``offset`` of a scalar stands; 0 where escapes or folding hide it."""
    if not offset or not isinstance(node, yaml.ScalarNode) or node.start_mark.line != node.end_mark.line:
        return 0
    quotes = 1 if node.style in ("'", '"') else 0
    width = node.end_mark.column - node.start_mark.column
    return quotes + offset if width == len(node.value) + 2 * quotes else 0


def _position(before: str) -> tuple[int, int]:
    return before.count("\n") + 1, len(before) - (before.rfind("\n") + 1) + 1


def _kind(node: yaml.Node) -> str:
    if isinstance(node, yaml.MappingNode):
        return "a mapping"
    if isinstance(node, yaml.SequenceNode):
        return "a list"
    return f"the text {quote(node.value)}" if node.value else "nothing"
