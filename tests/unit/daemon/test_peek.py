"""What the kernel says of itself: read on this one, and told from what others show."""

import os
from pathlib import Path

import pytest

from hostwarden.daemon import peek


def test_a_file_system_that_is_mounted_nowhere_can_be_read_and_stays_so() -> None:
    before = Path("/proc/self/mountinfo").read_text()
    descriptors = os.listdir("/proc/self/fd")
    assert peek.read_unmounted("proc", "sys/kernel/osrelease") == os.uname().release
    assert peek.read_unmounted("proc", "nothing") is None
    assert peek.read_unmounted("no-such-type", "x") is None
    assert Path("/proc/self/mountinfo").read_text() == before
    assert os.listdir("/proc/self/fd") == descriptors


def test_this_kernel_tells_its_modules_and_its_mode() -> None:
    modules = peek.security_modules()
    assert modules is not None and "capability" in modules
    assert peek.preemption() in ("none", "voluntary", "lazy", "full")


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    assert peek.read(str(tmp_path / "none")) is None


@pytest.mark.parametrize(
    ("shown", "version", "command_line", "options", "expected"),
    [
        # debugfs knows best: it may have been changed since
        ("none (voluntary) full", "#1 SMP PREEMPT_DYNAMIC Debian", "preempt=full", {}, "voluntary"),
        ("none voluntary (full) lazy", "#1 SMP PREEMPT_DYNAMIC Debian", "", {}, "full"),
        # then what it was booted with, the last word counting
        (None, "#1 SMP PREEMPT_DYNAMIC Debian", "quiet preempt=none preempt=full", {}, "full"),
        (None, "#1 SMP PREEMPT_DYNAMIC Debian", "xpreempt=full", {"CONFIG_PREEMPT_VOLUNTARY": "y"}, "voluntary"),
        # then how it was built
        (None, "#1 SMP PREEMPT_DYNAMIC", "", {"CONFIG_PREEMPT_NONE": "y"}, "none"),
        (None, "#1 SMP PREEMPT_DYNAMIC", "", {"CONFIG_PREEMPT_LAZY": "y"}, "lazy"),
        (None, "#1 SMP PREEMPT_DYNAMIC", "", {"CONFIG_PREEMPT": "y"}, "full"),
        (None, "#1 SMP PREEMPT_DYNAMIC", "", {}, None),
        # kernels that can't change it say it in their version
        (None, "#1 SMP Debian 6.1", "preempt=full", {}, "voluntary"),
        (None, "#1 SMP PREEMPT Debian", "", {}, "full"),
        (None, "#1 SMP PREEMPT_RT Debian", "", {}, "full"),
        (None, "#1 SMP PREEMPT(lazy) Debian", "", {}, "lazy"),
    ],
)
def test_how_it_preempts(
    shown: str | None, version: str, command_line: str, options: dict[str, str], expected: str | None
) -> None:
    assert peek.mode(shown, version, command_line, options.get) == expected
