"""C2SP signed notes (c2sp.org/signed-note) and checkpoints (c2sp.org/tlog-checkpoint), Ed25519 only, one signature.

A note is text, an empty line, and a signature line::

    hostwarden/0123456789abcdef0123456789abcdef        origin: who signs
    4711                                               tree size: the last record's sequence
    qINS1GRFhWHwdkUeqLEoP4yEMkTBBzxBkGwGQlVlVcs=        RFC 6962 root over the leaf hashes of records 1 to 4711
    head 5f1c…                                         leaf hash of record 4711, hex
    prev 9a0b…                                         SHA-256 of the checkpoint line before this one, hex; 64 zeros
                                                       for the first
    (empty)
    — hostwarden/0123456789abcdef0123456789abcdef 3q2+7wAB…

The signature covers the text up to and with its last newline, not the empty line. Everything is parsed by the rule
"what it says, written again by us, must be the same bytes", so nothing can be changed that doesn't matter to someone.
"""

import base64
import binascii
import hashlib
import re
from dataclasses import dataclass
from typing import Protocol

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

MAX_NOTE = 4096  # characters; ours have about 470
_ED25519 = b"\x01"  # signature type, in key hashes and verifier keys
_HASH_BYTES, _KEY_HASH_BYTES, _SIGNATURE_BYTES = 32, 4, 64
_NAME = re.compile(r"[!-*,-~]{1,200}")  # visible ASCII without "+"; C2SP allows more, we don't write it
_CHECKPOINT = re.compile(
    r"(?P<origin>[!-*,-~]{1,200})\n(?P<size>0|[1-9][0-9]{0,18})\n(?P<root>[A-Za-z0-9+/]{43}=)\n"
    r"head (?P<head>[0-9a-f]{64})\nprev (?P<prev>[0-9a-f]{64})\n"
)


class NoteError(ValueError):
    """Not a note, not signed by that key, or not a checkpoint; the message says which."""


class Signer(Protocol):
    """What signing needs to know about a key (``key.LogKey`` is one)."""

    @property
    def name(self) -> str: ...
    @property
    def public(self) -> bytes: ...
    def sign(self, message: bytes) -> bytes: ...


def key_hash(name: str, public: bytes) -> bytes:
    """The 4 bytes that say which key made a signature. ``public``: the raw Ed25519 key, 32 bytes."""
    return hashlib.sha256(name.encode() + b"\n" + _ED25519 + public).digest()[:_KEY_HASH_BYTES]


def verifier_key(name: str, public: bytes) -> str:
    """The key as other tools for signed notes want it: ``name+hash+base64``."""
    return f"{name}+{key_hash(name, public).hex()}+{base64.b64encode(_ED25519 + public).decode()}"


def parse_verifier_key(text: str) -> tuple[str, bytes]:
    """Name and raw public key of a verifier key. Raises NoteError."""
    name, _, rest = text.strip().partition("+")
    try:
        public = base64.b64decode(rest.partition("+")[2], validate=True)[1:]
    except binascii.Error:
        public = b""
    if not _NAME.fullmatch(name) or len(public) != _HASH_BYTES or verifier_key(name, public) != text.strip():
        raise NoteError("not an Ed25519 verifier key (name+hash+base64)")
    return name, public


def sign_note(text: str, signer: Signer) -> str:
    """The signed note for ``text``, which ends in a newline and has no empty line."""
    if not text.endswith("\n") or "\n\n" in text or not _NAME.fullmatch(signer.name):
        raise ValueError("a note's text ends in one newline and has no empty line; a name has no space and no +")
    signature = base64.b64encode(key_hash(signer.name, signer.public) + signer.sign(text.encode())).decode()
    return f"{text}\n— {signer.name} {signature}\n"


def open_note(note: str, name: str, public: bytes) -> str:
    """The text of a note that ``name`` signed with the key ``public`` (raw, 32 bytes). Raises NoteError."""
    text, signature = _split(note, name)
    if signature[:_KEY_HASH_BYTES] != key_hash(name, public):
        raise NoteError("signed by another key")
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature[_KEY_HASH_BYTES:], text.encode())
    except InvalidSignature:
        raise NoteError("the signature is wrong") from None
    return text


def _split(note: str, name: str) -> tuple[str, bytes]:
    """Text, and key hash with signature; both as the only way to write them."""
    if len(note) > MAX_NOTE:
        raise NoteError(f"longer than {MAX_NOTE} characters")
    text, separator, line = note.partition("\n\n")
    text += "\n"
    prefix = f"— {name} "
    if not separator or not line.startswith(prefix):
        raise NoteError(f"not signed by {name}")
    try:
        signature = base64.b64decode(line[len(prefix) :].rstrip("\n"), validate=True)
    except (binascii.Error, ValueError):
        raise NoteError("the signature is not base64") from None
    if len(signature) != _KEY_HASH_BYTES + _SIGNATURE_BYTES:
        raise NoteError("the signature has the wrong length")
    if note != f"{text}\n{prefix}{base64.b64encode(signature).decode()}\n":
        raise NoteError("not written the canonical way")
    return text, signature


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint says. Hashes are raw, 32 bytes."""

    origin: str
    size: int
    root: bytes
    head: bytes
    prev: bytes

    def text(self) -> str:
        """The text that is signed."""
        root = base64.b64encode(self.root).decode()
        return f"{self.origin}\n{self.size}\n{root}\nhead {self.head.hex()}\nprev {self.prev.hex()}\n"

    @classmethod
    def parse(cls, text: str) -> "Checkpoint":
        """Raises NoteError unless ``text`` is exactly what text() would write."""
        match = _CHECKPOINT.fullmatch(text)
        if not match:
            raise NoteError("not a checkpoint of a hostwarden log")
        root, head, prev = (base64.b64decode(match["root"]), *(bytes.fromhex(match[k]) for k in ("head", "prev")))
        checkpoint = cls(match["origin"], int(match["size"]), root, head, prev)
        if checkpoint.text() != text:
            raise NoteError("not written the canonical way")
        return checkpoint


def open_checkpoint(note: str, name: str, public: bytes) -> Checkpoint:
    """The checkpoint in a note that ``name`` signed about its own log. Raises NoteError."""
    open_note(note, name, public)
    return read_unproven(note, name)


def read_unproven(note: str, name: str) -> Checkpoint:
    """The checkpoint in a note as if ``name`` had signed it: form only, for whoever lacks the key. Raises NoteError."""
    checkpoint = Checkpoint.parse(_split(note, name)[0])
    if checkpoint.origin != name:
        raise NoteError(f"a checkpoint of another log, {checkpoint.origin}")
    return checkpoint
