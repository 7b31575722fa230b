"""What the header tree tells of a kernel."""

from pathlib import Path

import pytest

from hostwarden.probes import headers


@pytest.mark.parametrize(
    ("types", "flags"),
    [
        ("struct file { struct callback_head f_task_work; };", {"HAS_F_TASK_WORK": 1}),
        ("struct file { struct callback_head f_rcuhead; };", {}),
        ("struct other { int no_f_task_work; };", {}),
        ("", {}),
    ],
)
def test_members_that_moved_are_told_from_the_types(tmp_path: Path, types: str, flags: dict[str, int]) -> None:
    (tmp_path / "include").mkdir()
    (tmp_path / "include/vmlinux.h").write_text(types)
    assert headers.defines(tmp_path) == flags


@pytest.mark.parametrize(
    ("release", "code"),
    [
        ("6.1.0-56-cloud-amd64", "6, 1, 0"),
        ("6.12.117+deb12-cloud-amd64", "6, 12, 117"),
        ("6.18.44-fc-v669", "6, 18, 44"),
        ("7.0", "7, 0, 0"),
    ],
)
def test_the_version_is_the_releases(release: str, code: str) -> None:
    assert f"LINUX_VERSION_CODE KERNEL_VERSION({code})\n" in headers._version_header(release)


def test_a_kernel_without_types_is_an_error_that_says_so(tmp_path: Path) -> None:
    with pytest.raises(headers.HeadersError, match="CONFIG_DEBUG_INFO_BTF"):
        headers.tree(tmp_path / "cache", btf=tmp_path / "nothing")
    assert not (tmp_path / "cache").exists()


def test_a_file_that_is_no_btf_is_an_error_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "btf").write_bytes(b"no types")
    with pytest.raises(headers.HeadersError, match="can't read"):
        headers.tree(tmp_path / "cache", btf=tmp_path / "btf", release="6.1.0")
    assert list((tmp_path / "cache").iterdir()) == []
