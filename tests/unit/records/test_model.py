"""Helpers that the daemon's records are made with, and the lists a reader may rely on."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostwarden.policy.words import Action
from hostwarden.records.model import ACTIONS, OWN_ACTS, REQUIRED, Process, printable, raw_bytes, rfc3339

BYTES = st.lists(st.sampled_from([b"\\", b"x", b"f", b"\xff", b"\xc3\xbc", b"a", b"\xc3"])).map(b"".join) | st.binary()


@pytest.mark.parametrize(
    ("time_ns", "text"),
    [
        (0, "1970-01-01T00:00:00.000000000Z"),
        (1_000_000_001, "1970-01-01T00:00:01.000000001Z"),
        (1_795_504_799_999_999_999, "2026-11-24T07:19:59.999999999Z"),
        (951_782_400_000_000_000, "2000-02-29T00:00:00.000000000Z"),
    ],
)
def test_time_is_rfc_3339_with_nanoseconds(time_ns: int, text: str) -> None:
    assert rfc3339(time_ns) == text


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (b"/srv/data", "/srv/data"),
        ("/srv/ü".encode(), "/srv/ü"),
        (b"a\\b", "a\\b"),
        (b"\xff", "\\xff"),
        (b"\\xff", "\\\\xff"),
        (b"a\\\xff", "a\\\\\\xff"),
    ],
)
def test_names_as_text(raw: bytes, text: str) -> None:
    assert printable(raw) == text
    assert raw_bytes(text) == raw


@given(BYTES)
def test_no_name_is_lost(raw: bytes) -> None:
    text = printable(raw)
    text.encode()  # valid UTF-8, so valid JSON
    assert raw_bytes(text) == raw


@pytest.mark.parametrize("text", ["\\xZZ", "\\x41", "\\\\a\\b", "\\xc3\\xbc"])
def test_text_that_is_never_written_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not how"):
        raw_bytes(text)


def test_every_action_is_explained() -> None:
    assert {str(action) for action in Action} | set(OWN_ACTS) == set(ACTIONS)
    assert not {str(action) for action in Action} & set(OWN_ACTS)


def test_the_names_that_the_command_line_promises() -> None:
    """design.md section 13."""
    promised = "sequence time agent labels process action target verdict rule policy tier outcome"
    assert set(promised.split()) <= REQUIRED
    assert Process.__required_keys__ == {"pid", "exe", "argv", "uid"}
