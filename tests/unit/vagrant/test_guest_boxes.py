"""What a box is named after, and the BTF that is taken out of a packed kernel."""

import gzip
import subprocess
from pathlib import Path

import pytest

from vagrant import box, btf
from vagrant.guests import GUESTS, VmError, chosen

IMAGES = {"6.1": "linux-image-6.1.0-1-cloud-amd64", "6.12": "linux-image-6.12.1+deb12-cloud-amd64"}


def test_every_guest_has_a_kernel_in_the_box() -> None:
    assert {guest.series for guest in GUESTS.values()} == set(box.SERIES)


def test_no_name_means_all_guests() -> None:
    assert [guest.name for guest in chosen([])] == ["6.1", "6.12", "6.12-nolsm"]
    assert [guest.name for guest in chosen(["6.12"])] == ["6.12"]


def test_unknown_guest_is_one_line_with_a_hint() -> None:
    with pytest.raises(VmError, match=r"no guest 5\.10; there are: 6\.1, 6\.12, 6\.12-nolsm"):
        chosen(["6.1", "5.10"])


def test_name_of_a_box_changes_with_its_kernels_only() -> None:
    assert box.digest(IMAGES) == box.digest(dict(reversed(IMAGES.items())))
    assert box.digest(IMAGES) != box.digest(IMAGES | {"6.1": "linux-image-6.1.0-2-cloud-amd64"})


def test_name_of_a_box_changes_with_each_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = {box.digest(IMAGES)}
    for place, path in enumerate(box.SOURCES):
        changed = tmp_path / path.name
        changed.write_bytes(path.read_bytes() + b"\n")
        monkeypatch.setattr(box, "SOURCES", [*box.SOURCES[:place], changed, *box.SOURCES[place + 1 :]])
        names.add(box.digest(IMAGES))
    assert len(names) == 1 + len(box.SOURCES)


@pytest.fixture
def kernel(tmp_path: Path) -> bytes:
    """An ELF file with a section .BTF, as vmlinux has it."""
    content, elf = tmp_path / "content", tmp_path / "vmlinux"
    content.write_bytes(b"types")
    subprocess.run(["objcopy", "--add-section", f".BTF={content}", "/usr/bin/true", elf], check=True)
    return elf.read_bytes()


def test_btf_is_taken_out_of_a_packed_kernel_behind_bytes_that_only_look_packed(kernel: bytes, tmp_path: Path) -> None:
    vmlinuz = tmp_path / "vmlinuz"
    vmlinuz.write_bytes(b"boot code \x1f\x8b\x08 and more" + gzip.compress(kernel) + b"signature")
    btf.extract(vmlinuz, tmp_path / "raw")
    assert (tmp_path / "raw").read_bytes() == b"types"


@pytest.mark.parametrize(
    ("packed", "problem"),
    [
        (b"nothing that is known", "is packed in a way that isn't known here: gzip, xz, zstd, lz4 are"),
        (gzip.compress(Path("/usr/bin/true").read_bytes()), "no BTF in"),
    ],
)
def test_what_has_no_btf_is_said(packed: bytes, problem: str, tmp_path: Path) -> None:
    (tmp_path / "vmlinuz").write_bytes(packed)
    with pytest.raises(VmError, match=problem):
        btf.extract(tmp_path / "vmlinuz", tmp_path / "raw")
