"""hostwardend's configuration: defaults, and every error in one line with file and key, all at once."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostwarden.daemon import config
from hostwarden.daemon.config import ConfigError, Settings, load
from hostwarden.policy.words import Tier


def errors_of(tmp_path: Path, text: str | bytes) -> list[str]:
    """What is wrong with ``text``, without the file's name."""
    file = tmp_path / "h.toml"
    file.write_bytes(text.encode() if isinstance(text, str) else text)
    with pytest.raises(ConfigError) as caught:
        load(file)
    assert all(line.startswith(f"{file}:") and "\n" not in line for line in caught.value.lines)
    return [line.removeprefix(f"{file}:").strip() for line in caught.value.lines]


def test_defaults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    default = tmp_path / "hostwarden.toml"
    monkeypatch.setattr(config, "DEFAULT_FILE", default)
    settings = load(None)
    assert settings == Settings()
    assert settings.daemon.state_dir == Path("/var/lib/hostwarden")
    assert settings.daemon.bpffs_dir == Path("/sys/fs/bpf/hostwarden")
    assert settings.daemon.tiers == (Tier.LSM, Tier.MODIFY_RETURN, Tier.CGROUP, Tier.LANDLOCK, Tier.SIGNAL)
    assert settings.collector.addresses == ("unix:/run/hostwarden-collector/collector.sock",)
    default.write_text('[daemon]\nrun_dir = "/tmp/run"\n')
    assert load(None).daemon.run_dir == Path("/tmp/run")
    default.unlink()
    default.symlink_to("nowhere")  # it is there, and it can't be read: not the same as no file
    with pytest.raises(ConfigError, match="No such file"):
        load(None)


def test_everything_set(tmp_path: Path) -> None:
    file = tmp_path / "h.toml"
    file.write_text(
        '[daemon]\nstate_dir="/s"\nrun_dir="/r/"\npolicy_dir="/p"\nagents_dir="/a"\ncache_dir="/c"\nbpffs_dir="/b"\n'
        'deny_without_lsm="audit"\ntiers=["signal","cgroup"]\nresolvers=[]\nevents_ring_kib=65536\n'
        "denials_ring_kib=64\nargv_shown=2047\nsegment_mib=1\n[collector]\naddresses=[]\n"
    )
    settings = load(file)
    assert settings.daemon.run_dir == Path("/r")
    assert settings.daemon.deny_without_lsm == "audit"
    assert settings.daemon.tiers == (Tier.SIGNAL, Tier.CGROUP)
    assert settings.daemon.events_ring_kib == 65536
    assert settings.collector.addresses == ()


def test_one_file_for_both_programs(tmp_path: Path) -> None:
    file = tmp_path / "h.toml"
    file.write_text('[collector]\nlisten="unix:/x"\nstore="sqlite:////x"\ngroup="g"\naddresses=["unix:/x"]\n')
    assert load(file).collector.addresses == ("unix:/x",)


def test_all_errors_at_once(tmp_path: Path) -> None:
    text = (
        '[daemon]\nstate_dir = "relative"\nrun_dir = 7\ncache_dir="/a/../b"\ndeny_without_lsm = "maybe"\n'
        'tiers = ["lsm", "signl", 3]\nresolvers = ["1.1.1.1"]\nevents_ring_kib = 5000\ndenials_ring_kib = 32\n'
        'argv_shown = 2048\nsegment_mib = "8"\nsate_dir = "/x"\n'
        '[collector]\naddresses = ["10.0.0.1:443", "unix:rel", "x", 5]\nca = "/x"\n[deamon]\nx = 1\n'
    )
    assert errors_of(tmp_path, text) == [
        'daemon.state_dir: `relative`, expected an absolute path like "/var/lib/hostwarden"',
        'daemon.run_dir: `7`, expected an absolute path like "/var/lib/hostwarden"',
        "daemon.cache_dir: `/a/../b`, expected a path without ..",
        "daemon.deny_without_lsm: `maybe`, expected 'kill', 'audit' or 'refuse'",
        "daemon.tiers[1]: unknown tier `signl`, did you mean signal?",
        "daemon.tiers[2]: unknown tier `3`, expected one of lsm, modify_return, cgroup, landlock, signal",
        "daemon.resolvers: rules with host names, which resolvers are for: isn't in this version yet, expected []",
        "daemon.events_ring_kib: `5000`, expected a power of two, like 8192",
        "daemon.denials_ring_kib: `32`, expected at least 64",
        "daemon.argv_shown: `2048`, expected at most 2047",
        "daemon.segment_mib: `8`, expected a whole number",
        "daemon.sate_dir: unknown key `sate_dir`, did you mean state_dir?",
        'collector.addresses[0]: a TCP address `10.0.0.1:443` isn\'t in this version yet, expected "unix:/path"',
        'collector.addresses[1]: `unix:rel`, expected "unix:/path" with an absolute path',
        'collector.addresses[2]: `x`, expected "unix:/path"',
        'collector.addresses[3]: `5`, expected "unix:/path"',
        "collector.ca: TCP isn't in this version yet, expected unix sockets without certificates",
        "deamon: unknown section `deamon`, did you mean daemon?",
    ]


@pytest.mark.parametrize(
    ("text", "error"),
    [
        # not TOML
        ("[daemon\n", "1:8: not TOML: Expected ']' at the end of a table declaration"),
        ('[daemon]\nrun_dir = "', "2:12: not TOML: Unterminated string"),
        ("[daemon]\nrun_dir = \n", "2:11: not TOML: Invalid value"),
        ("a = 1\na = 2\n", "2:6: not TOML: Cannot overwrite a value"),
        (b"a = 1\nb = '\xff'", "2:6: byte 0xff is not UTF-8, expected a text file in UTF-8"),
        ("a = " + "[" * 20_000, "1:1: not TOML: a value that is too large, expected plain keys and values"),
        ("a = " + "9" * 5_000, "1:1: not TOML: a value that is too large, expected plain keys and values"),
        ("#" * 70_000, "longer than 65536 bytes, expected a smaller file"),
        # wrong types
        ("daemon = 1", "daemon: `1`, expected a table"),
        ("[daemon]\ntiers = 'lsm'", "daemon.tiers: `lsm`, expected a list"),
        ("[daemon]\nargv_shown = true", "daemon.argv_shown: `true`, expected a whole number"),
        ("[daemon]\nargv_shown = 1.5", "daemon.argv_shown: `1.5`, expected a whole number"),
        ("[daemon.run_dir]\nx=1", 'daemon.run_dir: a table, expected an absolute path like "/var/lib/hostwarden"'),
        # wrong values
        ("[daemon]\nargv_shown = 0x" + "f" * 6000, "daemon.argv_shown: a huge number, expected at most 2047"),
        ("[daemon]\ntiers = [0x" + "f" * 6000 + "]", "daemon.tiers[0]: "),
        ("[daemon]\nargv_shown = -1", "daemon.argv_shown: `-1`, expected at least 0"),
        ("[daemon]\ntiers = []", "daemon.tiers: an empty list, expected some of"),
        ("[daemon]\ntiers = ['lsm', 'lsm']", "daemon.tiers: the same tier twice, expected each once"),
        ("[daemon]\nrun_dir = '/x'\nbpffs_dir = '/x/'", "daemon.bpffs_dir: the same as run_dir, expected a folder"),
        (f"[collector]\naddresses = ['unix:/{'x' * 107}']", "collector.addresses[0]: `unix:/xxx"),
        (
            "[collector]\naddresses = [" + "'unix:/x'," * 17 + "]",
            "collector.addresses: a list of 17, expected at most 16",
        ),
        ("[daemon]\n'a\\u001bb' = 1", "daemon.a\\u001bb: unknown key `a\\u001bb`, expected one of state_dir"),
    ],
)
def test_errors(tmp_path: Path, text: str | bytes, error: str) -> None:
    (line,) = errors_of(tmp_path, text)
    assert line.startswith(error)


def test_control_characters_never_reach_a_terminal(tmp_path: Path) -> None:
    text = '"\\u001b[2J" = 1\n[daemon]\n"\\u001b]0;x" = 1\nrun_dir = "\\u001b\\n"\n'
    lines = errors_of(tmp_path, text)
    assert len(lines) == 3
    assert all(line.isprintable() for line in lines)


def test_what_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    cases = {
        tmp_path: "a folder, expected a file",
        tmp_path / "fifo": "not a regular file, expected one",
        tmp_path / "none": "No such file or directory, expected a file that can be read",
    }
    for path, message in cases.items():
        with pytest.raises(ConfigError) as caught:
            load(path)
        assert caught.value.lines == [f"{path}: {message}"]


@given(st.one_of(st.binary(max_size=200), st.text(max_size=200).map(str.encode)))
def test_any_bytes_give_settings_or_one_line_errors(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    file = tmp_path_factory.getbasetemp() / "any.toml"
    file.write_bytes(data)
    try:
        assert load(file).model_dump() == Settings().model_dump()
    except ConfigError as error:
        assert error.lines and all("\n" not in line for line in error.lines)
