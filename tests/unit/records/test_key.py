"""The signing key: made once, kept to oneself, never silently replaced."""

import os
import re
import stat
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from hostwarden.records.key import load_or_create, read_public
from hostwarden.records.segments import LogError


def test_a_new_key_is_private_whole_and_the_same_next_time(tmp_path: Path) -> None:
    key = load_or_create(tmp_path)
    assert stat.S_IMODE((tmp_path / "log.key").stat().st_mode) == 0o600
    assert (tmp_path / "log.key").read_text().startswith("-----BEGIN PRIVATE KEY-----")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["log.key", "log.pub"]
    again = load_or_create(tmp_path)
    assert (again.public, again.fingerprint, again.sign(b"x")) == (key.public, key.fingerprint, key.sign(b"x"))
    assert re.fullmatch(r"hostwarden/[0-9a-f]{32}", key.name)
    assert read_public(tmp_path / "log.pub") == key.public


def test_a_lost_log_pub_is_written_again(tmp_path: Path) -> None:
    key = load_or_create(tmp_path)
    (tmp_path / "log.pub").write_text("nonsense")
    load_or_create(tmp_path)
    assert read_public(tmp_path / "log.pub") == key.public


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644, 0o601])
def test_a_key_that_others_may_touch_is_refused_with_a_hint(tmp_path: Path, mode: int) -> None:
    load_or_create(tmp_path)
    (tmp_path / "log.key").chmod(mode)
    with pytest.raises(LogError, match="chmod 600") as caught:
        load_or_create(tmp_path)
    assert "\n" not in str(caught.value)


def elliptic() -> bytes:
    return ec.generate_private_key(ec.SECP256R1()).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


@pytest.mark.parametrize("content", [b"", b"nonsense", b"\xff" * 9000, elliptic()])
def test_what_is_no_ed25519_key_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "log.key").write_bytes(content)
    (tmp_path / "log.key").chmod(0o600)
    with pytest.raises(LogError, match="not an Ed25519 key"):
        load_or_create(tmp_path)


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    load_or_create(tmp_path / "elsewhere")
    (tmp_path / "log.key").symlink_to(tmp_path / "elsewhere" / "log.key")
    with pytest.raises(LogError, match=r"log\.key"):
        load_or_create(tmp_path)


def test_a_fifo_does_not_make_us_wait(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "log.key", 0o600)
    with pytest.raises(LogError, match="not a plain file"):
        load_or_create(tmp_path)


def test_no_new_key_under_an_old_log(tmp_path: Path) -> None:
    (tmp_path / "log").mkdir()
    (tmp_path / "log" / f"{1:020d}.seg").write_bytes(b"")
    with pytest.raises(LogError, match="is missing"):
        load_or_create(tmp_path)
    assert not (tmp_path / "log.key").exists()


def test_a_folder_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(LogError, match="No such file") as caught:
        load_or_create(tmp_path / "nowhere")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"hostwarden/x+00+AA=="])
def test_a_bad_public_key_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "log.pub").write_bytes(content)
    with pytest.raises(LogError, match=r"log\.pub in the host's state_dir"):
        read_public(tmp_path / "log.pub")


def test_a_public_key_under_another_log_s_name_is_refused(tmp_path: Path) -> None:
    key = load_or_create(tmp_path)
    from hostwarden.records.note import verifier_key

    (tmp_path / "log.pub").write_text(verifier_key("hostwarden/" + "0" * 32, key.public))
    with pytest.raises(LogError, match="belong together"):
        read_public(tmp_path / "log.pub")
