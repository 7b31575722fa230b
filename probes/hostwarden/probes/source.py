"""The C, as one text: bcc rewrites map accesses only in the main file, so includes are put in place beforehand."""

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path

FOLDER = Path(__file__).parent / "bpf"
MAIN = "hostwarden.c"
INCLUDE = re.compile(r'#include "([a-z0-9_]+\.h)"')


def text(name: str = MAIN) -> str:
    """The file with its includes in place; #line keeps the compiler's messages pointing at the real files."""
    lines = []
    for number, line in enumerate((FOLDER / name).read_text().splitlines(), 1):
        found = INCLUDE.fullmatch(line)
        if found:
            lines += [f'#line 1 "{found[1]}"', text(found[1]).rstrip("\n"), f'#line {number + 1} "{name}"']
        else:
            lines.append(line)
    return "\n".join(lines) + "\n"


def digest(defines: Mapping[str, int]) -> str:
    """What the pinned programs were made from: a daemon adopts pins only of its own digest."""
    made_of = text() + "".join(f"{name}={value};" for name, value in sorted(defines.items()))
    return hashlib.sha256(made_of.encode()).hexdigest()[:32]
