"""Signed notes as C2SP has them, and checkpoints that can be written in one way only."""

import base64
import hashlib

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from hypothesis import given
from hypothesis import strategies as st

from hostwarden.records.key import LogKey
from hostwarden.records.note import (
    Checkpoint,
    NoteError,
    key_hash,
    open_checkpoint,
    open_note,
    parse_verifier_key,
    read_unproven,
    sign_note,
    verifier_key,
)

# The example of c2sp.org/signed-note.
VKEY = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k"
NOTE = (
    "This is an example message.\n\n"
    "— example.com/foo Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXppzi2ONncAlTgK7Ztg1ERYNZXsYjOBH3mFXmRKuwHjG1Yu72IneyaQM=\n"
)

KEY = LogKey(Ed25519PrivateKey.from_private_bytes(bytes(range(32))))
CHECKPOINT = Checkpoint(KEY.name, 4711, b"r" * 32, b"h" * 32, b"p" * 32)
SIGNED = sign_note(CHECKPOINT.text(), KEY)


def test_the_published_example() -> None:
    name, public = parse_verifier_key(VKEY)
    assert name == "example.com/foo"
    assert verifier_key(name, public) == VKEY
    assert key_hash(name, public).hex() == "530d903a"
    assert open_note(NOTE, name, public) == "This is an example message.\n"


def test_a_stranger_checks_a_checkpoint_with_an_ed25519_library_and_the_specification_only() -> None:
    text, _, rest = SIGNED.partition("\n\n")
    dash, name, blob = rest.removesuffix("\n").split(" ")
    raw = base64.b64decode(blob)
    assert dash == "\u2014"
    assert raw[:4] == hashlib.sha256(name.encode() + b"\n\x01" + KEY.public).digest()[:4]
    Ed25519PublicKey.from_public_bytes(KEY.public).verify(raw[4:], text.encode() + b"\n")
    origin, size, root, *extensions = text.split("\n")
    assert (origin, size, base64.b64decode(root)) == (name, "4711", b"r" * 32)
    assert extensions == [f"head {b'h'.hex() * 32}", f"prev {b'p'.hex() * 32}"]


def test_a_checkpoint_is_read_as_it_was_written() -> None:
    assert open_checkpoint(SIGNED, KEY.name, KEY.public) == CHECKPOINT
    assert read_unproven(SIGNED, KEY.name) == CHECKPOINT


@given(st.integers(0, len(SIGNED) - 1), st.characters(codec="utf-8"))
def test_no_character_can_be_changed(at: int, character: str) -> None:
    changed = SIGNED[:at] + character + SIGNED[at + 1 :]
    if changed != SIGNED:
        with pytest.raises(NoteError):
            open_checkpoint(changed, KEY.name, KEY.public)


@given(st.integers(0, len(SIGNED)), st.text(min_size=1, max_size=3))
def test_nothing_can_be_put_in(at: int, text: str) -> None:
    with pytest.raises(NoteError):
        open_checkpoint(SIGNED[:at] + text + SIGNED[at:], KEY.name, KEY.public)


@given(st.text(max_size=600))
def test_anything_else_is_no_note(text: str) -> None:
    with pytest.raises(NoteError):
        open_note(text, KEY.name, KEY.public)


OTHER = LogKey(Ed25519PrivateKey.from_private_bytes(bytes(32)))


@pytest.mark.parametrize(
    ("note", "why"),
    [
        (sign_note(CHECKPOINT.text(), OTHER), "not signed by"),
        (sign_note("hostwarden/x\n1\n", KEY), "not a checkpoint"),
        (sign_note(CHECKPOINT.text().replace(KEY.name, OTHER.name), KEY), "another log"),
        (SIGNED.replace("4711", "04711"), "wrong"),
        (SIGNED + "x" * 5000, "longer"),
        (SIGNED + SIGNED.partition("\n\n")[2], "base64"),
    ],
)
def test_what_is_wrong_is_said(note: str, why: str) -> None:
    with pytest.raises(NoteError, match=why):
        open_checkpoint(note, KEY.name, KEY.public)


def test_the_same_name_with_another_key_is_no_signature() -> None:
    with pytest.raises(NoteError, match="another key"):
        open_note(SIGNED, KEY.name, OTHER.public)


def test_a_root_whose_base64_has_a_second_spelling_is_refused() -> None:
    text = CHECKPOINT.text()
    twin = text.replace("I=\n", "J=\n")  # the same 32 bytes for a lax decoder
    assert twin != text
    with pytest.raises(NoteError):
        Checkpoint.parse(twin)


@pytest.mark.parametrize("text", ["", "no newline", "two\n\nparts\n"])
def test_what_cannot_be_a_note_is_not_signed(text: str) -> None:
    with pytest.raises(ValueError, match="newline"):
        sign_note(text, KEY)


@pytest.mark.parametrize("text", ["", "a+b+c", VKEY[:-1], VKEY.replace("530d", "530e"), VKEY + "\n+", "ü" + VKEY])
def test_a_bad_verifier_key_is_refused(text: str) -> None:
    with pytest.raises(NoteError, match="verifier key"):
        parse_verifier_key(text)
