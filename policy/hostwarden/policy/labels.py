"""Labels of agents, and the selectors by which policies and responders pick agents.

A label is ``key=value``. A selector names keys and the value each must have; ``*`` is any value, but the key must be
there; a selector without terms picks every agent.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

ANY = "*"
MAX_LABELS = 32  # of one agent
_KEY = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._/-]{0,62})")
_VALUE = re.compile(r"[A-Za-z0-9._:@/+-]{1,63}")
KEY_SHAPE = "1 to 63 of A-Z a-z 0-9 . _ / - that begin with a letter or digit"
VALUE_SHAPE = "1 to 63 of A-Z a-z 0-9 . _ : @ / + -"


@dataclass(frozen=True)
class Selector:
    """``terms`` are (key, value or ``*``); all must hold."""

    terms: tuple[tuple[str, str], ...] = ()

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Whether an agent with these labels is picked."""
        return all(key in labels and value in (ANY, labels[key]) for key, value in self.terms)

    def __str__(self) -> str:
        return "{" + ", ".join(f"{key}: {value}" for key, value in self.terms) + "}"


def is_key(text: str) -> bool:
    """Whether ``text`` can be a label's key (KEY_SHAPE)."""
    return _KEY.fullmatch(text) is not None


def is_value(text: str) -> bool:
    """Whether ``text`` can be a label's value (VALUE_SHAPE)."""
    return _VALUE.fullmatch(text) is not None


def parse_label(text: str) -> tuple[str, str]:
    """``team=billing`` as (``team``, ``billing``). Raises ValueError with a message for the one who typed it."""
    key, equals, value = text.partition("=")
    if not equals:
        raise ValueError(f"label {text[:80]!r}: expected key=value")
    if not is_key(key):
        raise ValueError(f"label key {key[:80]!r}: expected {KEY_SHAPE}")
    if not is_value(value):
        raise ValueError(f"label value {value[:80]!r}: expected {VALUE_SHAPE}")
    return key, value


def parse_selector(texts: list[str]) -> Selector:
    """``["team=billing", "stage=*"]`` as a selector. Raises ValueError for a bad label or a key that comes twice."""
    terms: dict[str, str] = {}
    for text in texts:
        key, value = (text[: -len("=*")], ANY) if text.endswith("=*") else parse_label(text)
        if not is_key(key):
            raise ValueError(f"label key {key[:80]!r}: expected {KEY_SHAPE}")
        if key in terms:
            raise ValueError(f"label {key} is given twice")
        terms[key] = value
    return Selector(tuple(terms.items()))
