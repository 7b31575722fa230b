"""Making text harmless, and words of JSON values."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostwarden.cli.output import clean, count, labels_words, words


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("", ""),
        ("plain é 漢 “quoted”", "plain é 漢 “quoted”"),
        ("\x1b[31mred", "\\x1b[31mred"),
        ("a\tb\nc\rd\x00\x7f", "a\\x09b\\x0ac\\x0dd\\x00\\x7f"),
        ("\x9b2J", "\\x9b2J"),  # CSI in one character (ECMA-48)
        ("\u202etxt.exe", "\\u202etxt.exe"),  # right to left
        ("a\u200bb\u2028c", "a\\u200bb\\u2028c"),
        ("\U000e0041", "\\U000e0041"),  # invisible tag characters
        ("\udcff\udc80", "\\xff\\x80"),  # bytes that are no UTF-8, as argv carries them
        ("\ud800", "\\ud800"),
    ],
)
def test_clean(text: str, shown: str) -> None:
    assert clean(text) == shown


@given(st.text())
def test_what_is_clean_is_printable_and_stays(text: str) -> None:
    assert clean(text).isprintable()
    assert clean(clean(text)) == clean(text)
    clean(text).encode()


@pytest.mark.parametrize(
    ("value", "said"),
    [
        *((None, "-"), (True, "yes"), (False, "no"), (3, "3"), ("x", "x"), ([], "-"), ({}, "-")),
        *(([1, None], "1, -"), ({"a": 1, "b": {"c": False}}, "a 1, b c no")),
    ],
)
def test_words(value: Any, said: str) -> None:
    assert words(value) == said


@pytest.mark.parametrize(("labels", "said"), [({"a": "b", "c": "d"}, "a=b c=d"), ({}, "-"), (None, "-"), ([1], "-")])
def test_labels(labels: Any, said: str) -> None:
    assert labels_words(labels) == said


def test_count() -> None:
    assert [count(0, "case"), count(1, "case"), count(2, "policy", "policies")] == ["0 cases", "1 case", "2 policies"]
