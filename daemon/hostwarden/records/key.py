"""The key that signs a host's checkpoints: Ed25519, made at first start, never replaced while its log is there.

``STATE_DIR/log.key`` is PKCS#8 PEM, mode 0600; ``STATE_DIR/log.pub`` is the public half as a verifier key of C2SP
signed notes, for auditors. Whoever can read log.key can sign another history, so a key that others may read is refused.
"""

import os
import stat
from contextlib import suppress
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from hostwarden.records.note import NoteError, parse_verifier_key, verifier_key
from hostwarden.records.segments import LogError, fingerprint, list_segments, log_dir, origin

KEY_FILE, PUBLIC_FILE = "log.key", "log.pub"
_MAX_KEY = 4096  # bytes of a key file; ours have 119


class LogKey:
    """A private key and what is known of it."""

    def __init__(self, private: Ed25519PrivateKey) -> None:
        self._private = private
        self.public = private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)  # 32 bytes
        self.fingerprint = fingerprint(self.public)
        self.name = origin(self.fingerprint)

    def sign(self, message: bytes) -> bytes:
        """64 bytes of Ed25519 (RFC 8032)."""
        return self._private.sign(message)

    @property
    def verifier_key(self) -> str:
        """The public half for auditors."""
        return verifier_key(self.name, self.public)


def load_or_create(state_dir: Path) -> LogKey:
    """The key of the log in ``state_dir``, a new one if neither key nor log exist. Raises LogError."""
    path = state_dir / KEY_FILE
    try:
        if not os.path.lexists(path):
            _refuse_to_orphan(state_dir)
            _create(path)
        key = _load(path)
        _publish(state_dir / PUBLIC_FILE, key)
    except OSError as error:
        where = error.filename or path
        raise LogError(f"{where}: {error.strerror}; hostwardend must be able to write {state_dir}") from None
    return key


def read_public(path: Path) -> bytes:
    """The raw public key (32 bytes) in a log.pub. Raises LogError."""
    try:
        with path.open("rb") as file:
            name, public = parse_verifier_key(file.read(_MAX_KEY).decode())
    except OSError as error:
        raise LogError(f"{path}: {error.strerror}; the public key is log.pub in the host's state_dir") from None
    except (NoteError, UnicodeDecodeError):
        raise LogError(f"{path}: not a log's public key; it is log.pub in the host's state_dir") from None
    if name != origin(fingerprint(public)):
        raise LogError(f"{path}: name and key don't belong together; get log.pub from the host again")
    return public


def _refuse_to_orphan(state_dir: Path) -> None:
    """A new key under an old log would sign what it can't vouch for, and the loss of the key would go unnoticed."""
    folder = log_dir(state_dir)
    if folder.is_dir() and list_segments(folder):
        raise LogError(f"{state_dir / KEY_FILE} is missing but {folder} holds a log; restore it, or move the log away")


def _create(path: Path) -> None:
    """Write a new key beside ``path`` and link it there: whole or not at all, and never over another."""
    pem = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    temporary = path.with_name(f"{path.name}.{os.getpid()}.new")
    temporary.unlink(missing_ok=True)
    try:
        write_new(temporary, pem, 0o600)
        with suppress(FileExistsError):  # another start was faster; its key is as good, and _load takes it
            os.link(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(path.parent)


def _load(path: Path) -> LogKey:
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(fd, "rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise LogError(f"{path}: not a plain file; restore the key from your backup")
        if status.st_mode & 0o077:
            raise LogError(f"{path}: others may read or write it (mode {status.st_mode & 0o777:04o}); chmod 600 {path}")
        if status.st_uid not in (0, os.geteuid()):
            raise LogError(f"{path}: belongs to uid {status.st_uid}, who could read it; chown root {path}")
        pem = file.read(_MAX_KEY)
    try:
        private = load_pem_private_key(pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        private = None
    if not isinstance(private, Ed25519PrivateKey):
        raise LogError(f"{path}: not an Ed25519 key in PEM; restore the key from your backup")
    return LogKey(private)


def _publish(path: Path, key: LogKey) -> None:
    """log.pub follows from log.key: (re)write it unless it is right."""
    text = key.verifier_key.encode() + b"\n"
    if path.is_file() and path.read_bytes() == text:
        return
    replace_file(path, text, 0o644)


def write_new(path: Path, data: bytes, mode: int) -> None:
    """Create ``path``, which must not exist, with ``data``, on disk when this returns. Raises OSError."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    with os.fdopen(fd, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def replace_file(path: Path, data: bytes, mode: int) -> None:
    """Put ``data`` at ``path`` in one step, on disk when this returns. Raises OSError."""
    temporary = path.with_name(f"{path.name}.new")
    temporary.unlink(missing_ok=True)
    try:
        write_new(temporary, data, mode)
        temporary.rename(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make names in ``folder`` durable. Raises OSError."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
