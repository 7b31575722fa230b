"""The guests, as guests.json lists them for the Vagrantfile too, and what can go wrong with them."""

import json
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
TREE = HERE.parent


class VmError(Exception):
    """Something that a person can mend: the message is one line, with a hint."""


@dataclass(frozen=True)
class Guest:
    """``series`` is the kernel's, ``append`` goes to its command line."""

    name: str
    series: str
    append: str


GUESTS = {name: Guest(name, **fields) for name, fields in json.loads((HERE / "guests.json").read_text()).items()}


def chosen(names: list[str]) -> list[Guest]:
    """The guests of those names, all of them for none. Raises VmError."""
    for name in names:
        if name not in GUESTS:
            raise VmError(f"there is no guest {name}; there are: {', '.join(GUESTS)}")
    return [GUESTS[name] for name in names or GUESTS]
