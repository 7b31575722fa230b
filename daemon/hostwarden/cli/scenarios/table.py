"""The table of scenarios × kinds of host, made from the rows' promises, which runs in every guest hold them to.

``python -m hostwarden.cli.scenarios.table`` writes it into `tests/scenarios/README.md`; a test compares.
"""

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from hostwarden.cli.scenarios.model import ALLOWED, NO_CONTENT, Row, Scenarios, folder, load

BEGIN, END = "<!-- the table: made by hostwarden.cli.scenarios.table -->\n", "<!-- end of the table -->\n"
COLUMNS = {
    "signal + cgroup, 6.18": "signal",
    "lsm, 6.1": "lsm",
    "lsm, 6.12": "lsm",
    "modify_return, 6.12": "modify_return",
}


def table(scenarios: Scenarios) -> str:
    """Markdown: a table for each section, then the sentences that its cells point to."""
    numbers: dict[str, int] = {}
    lines = list(_tables(scenarios, numbers))
    lines.append("")
    lines += [f"({number}) {scenarios.limits[key]}.  " for key, number in numbers.items()]
    return "\n".join(lines) + "\n"


def _tables(scenarios: Scenarios, numbers: dict[str, int]) -> Iterator[str]:
    section = ""
    for row in scenarios.rows:
        if row.section != section:
            section = row.section
            yield f"\n### {section}\n"
            yield f"| scenario | {' | '.join(COLUMNS)} |"
            yield f"| --- |{' --- |' * len(COLUMNS)}"
        cells = [_cell(row, kind, scenarios.limits, numbers) for kind in COLUMNS.values()]
        yield f"| {_escaped(row.name)} | {' | '.join(cells)} |"


def _cell(row: Row, kind: str, limits: Mapping[str, str], numbers: dict[str, int]) -> str:
    promise = row.promises[kind]
    if promise in limits:
        if promise == NO_CONTENT:
            return f"policy refused ({numbers.setdefault(promise, len(numbers) + 1)})"
        happens = {"works": "refused", "observed": "unrecorded"}.get(row.answer, "happens")
        return f"{happens} ({numbers.setdefault(promise, len(numbers) + 1)})"
    return "works" if promise == ALLOWED else promise


def _escaped(text: str) -> str:
    for character in "\\|*_<>`":
        text = text.replace(character, f"\\{character}")
    return text


def renewed(page: str, scenarios: Scenarios) -> str:
    """``page`` with the table of today."""
    head, _, rest = page.partition(BEGIN)
    _, _, tail = rest.partition(END)
    return f"{head}{BEGIN}{table(scenarios)}{END}{tail}"


def main() -> int:
    """Write it. ``--check`` only compares: exit code 1 if it is out of date."""
    path = folder() / "README.md"
    text = renewed(path.read_text(), load())
    if "--check" in sys.argv[1:]:
        return int(text != path.read_text())
    Path(path).write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
