"""The box that all guests start from, made once per change and kept in a cache outside the tree.

Its name is a digest of what it is made from. In its folder:

    key, key.pub                      vagrant's and root's ssh key in the guests
    vmlinuz-SERIES, initrd-SERIES     Debian's kernels, booted directly: choosing one is choosing two files
    btf-SERIES, release-SERIES        what header trees and probes for the guest are made from, outside it
    boxes/                            what VAGRANT_HOME/boxes shall be

``python -m vagrant.box`` makes it if it isn't there, and prints the folder.
"""

import fcntl
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hostwarden.probes import headers
from vagrant import btf
from vagrant.guests import HERE, TREE, VmError
from vagrant.run import logged, say

# Debian 12's packages that depend on the newest kernel of a series.
SERIES = {"6.1": "linux-image-cloud-amd64", "6.12": "linux-image-6.12-cloud-amd64"}
SOURCES = [
    *(HERE / name for name in ("recipe.sh", "box.py", "btf.py")),
    *(TREE / name for name in ("requirements.lock", "probes/hostwarden/probes/headers.py")),
]
DISK_GB = 8  # what guests see; sparse
KEPT = 2  # boxes in the cache: this one and the one before


def folder() -> Path:
    """The folder of the box, made if need be: 4 minutes. Raises VmError."""
    cache = Path(os.environ.get("HOSTWARDEN_CACHE", "/var/cache/hostwarden")) / "boxes"
    cache.mkdir(parents=True, exist_ok=True)
    with _lock(cache / "lock"):
        target = cache / digest(kernels())
        if not target.is_dir():
            logged(["apt-get", "update", "-q"], cache / "build.log")  # the newest kernels may be newer than the lists
            target = cache / digest(kernels())
        if not target.is_dir():
            _make(target, kernels(), cache / "build.log")
        os.utime(target)
        _prune(cache)
    return target


def kernels() -> dict[str, str]:
    """Series to the package of its newest kernel, as apt's lists have it. Raises VmError."""
    found = {}
    for series, package in SERIES.items():
        said = subprocess.run(["apt-cache", "depends", package], capture_output=True, text=True).stdout
        depends = re.search(rf"Depends: (linux-image-{re.escape(series)}\S+)", said)
        if depends is None:
            logged(["apt-get", "update", "-q"], Path("/dev/null"))
            said = subprocess.run(["apt-cache", "depends", package], capture_output=True, text=True).stdout
            depends = re.search(rf"Depends: (linux-image-{re.escape(series)}\S+)", said)
        if depends is None:
            raise VmError(f"apt knows no {package}: guests are made of Debian 12, on Debian 12 (try: apt-get update)")
        found[series] = depends[1]
    return found


def digest(images: dict[str, str]) -> str:
    """Names a box: changes with all that it is made from, but not with Debian's minor updates."""
    state = hashlib.sha256(json.dumps(images, sort_keys=True).encode())
    for path in SOURCES:
        state.update(b"\0" + path.read_bytes())
    project = tomllib.loads((TREE / "pyproject.toml").read_text())
    state.update(repr([project["build-system"], project["project"], project["tool"]["hatch"]]).encode())
    return state.hexdigest()[:12]


def _make(target: Path, images: dict[str, str], log: Path) -> None:
    began = time.monotonic()
    log.unlink(missing_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix="making-", dir=target.parent))
    try:
        root, done = scratch / "root", scratch / "done"
        done.mkdir()
        say(f"making the guests' box {target.name}, once per change: root file system (log: {log})")
        logged(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "guests", "-f", done / "key"], log)
        _wheels(scratch / "wheels", log)
        recipe: list[str | Path] = [
            HERE / "recipe.sh",
            root,
            TREE,
            scratch / "wheels",
            done / "key.pub",
            *images.values(),
        ]
        logged(recipe, log)
        for series, image in images.items():
            _kernel(series, image.removeprefix("linux-image-"), root, done)
        say("making the guests' box: disk image")
        _image(root, scratch, log)
        logged(["tar", "-C", scratch, "-cf", scratch / "box", "metadata.json", "box.img", "Vagrantfile"], log)
        (scratch / "box.img").unlink()
        add: list[str | Path] = ["vagrant", "box", "add", "--name", f"hostwarden-{target.name}", scratch / "box"]
        logged(add, log, {"VAGRANT_HOME": str(scratch / "home")})
        (scratch / "home" / "boxes").rename(done / "boxes")
        done.rename(target)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    say(f"the guests' box is made: {time.monotonic() - began:.0f} s")


def _wheels(target: Path, log: Path) -> None:
    """Everything that pip needs in the guest's root, which has no network: the lock, and what builds this package."""
    pip: list[str | Path] = [sys.executable, "-m", "pip", "wheel", "--quiet", "--wheel-dir", target]
    logged([*pip, "--no-deps", "--requirement", TREE / "requirements.lock"], log)
    logged([*pip, "hatchling>=1.27", "editables"], log)


def _kernel(series: str, release: str, root: Path, done: Path) -> None:
    """Kernel and initrd to boot with, and in the guest the header tree, which would take a minute to make there."""
    vmlinuz, raw = done / f"vmlinuz-{series}", done / f"btf-{series}"
    shutil.copy(root / "boot" / f"vmlinuz-{release}", vmlinuz)
    shutil.copy(root / "boot" / f"initrd.img-{release}", done / f"initrd-{series}")
    btf.extract(vmlinuz, raw)
    (done / f"release-{series}").write_text(release)
    headers.tree(root / "var" / "cache" / "hostwarden", raw, release)


def _image(root: Path, scratch: Path, log: Path) -> None:
    raw = scratch / "box.raw"
    with raw.open("wb") as file:
        file.truncate(DISK_GB << 30)
    logged(["mkfs.ext4", "-q", "-F", "-d", root, raw], log)
    shutil.rmtree(root)
    convert = ["qemu-img", "convert", "-c", "-W", "-m", "8", "-O", "qcow2", "-o", "compression_type=zstd"]
    logged([*convert, raw, scratch / "box.img"], log)
    raw.unlink()
    metadata = {"provider": "libvirt", "format": "qcow2", "virtual_size": DISK_GB}
    (scratch / "metadata.json").write_text(json.dumps(metadata))
    (scratch / "Vagrantfile").write_text('Vagrant.configure("2") {}\n')


def _prune(cache: Path) -> None:
    boxes = sorted((path for path in cache.iterdir() if path.is_dir()), key=lambda path: path.stat().st_mtime)
    for old in boxes[:-KEPT]:
        shutil.rmtree(old, ignore_errors=True)


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


if __name__ == "__main__":
    try:
        print(folder())
    except VmError as problem:
        raise SystemExit(f"dev: {problem}") from problem
