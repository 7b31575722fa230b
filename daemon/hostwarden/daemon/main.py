"""hostwardend: read the configuration, take the kernel's half, say ready, record until told to stop.

What is pinned decides on when this process ends, however it ends.
"""

import argparse
import ctypes
import logging
import os
import signal
import sys
from pathlib import Path

from hostwarden.daemon import config
from hostwarden.daemon.attach import AttachError
from hostwarden.daemon.generations import PolicyProblem
from hostwarden.daemon.off import OffError, off
from hostwarden.daemon.service import StartError, serve
from hostwarden.policy.source import PolicyErrors

DONE, FAILED, INVALID, NOT_PERMITTED = 0, 1, 2, 4
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -2, -3, -8  # malloc.h


def main() -> int:
    """The program's exit code: 0 stopped as asked, 1 can't run here, 2 invalid input, 4 not root."""
    _keep_memory_small()
    arguments = _arguments()
    logging.basicConfig(level=logging.INFO, format="hostwardend: %(message)s", stream=sys.stderr)
    if os.geteuid() != 0:
        return _say(
            NOT_PERMITTED,
            "hostwardend needs root: it loads programs into the kernel",
            "run it with sudo, or as a service",
        )
    os.umask(0o077)
    try:
        settings = config.load(arguments.config)
        if arguments.off:
            gone = off(settings)
            print(f"hostwardend: {gone} pins removed: nothing is enforced any more", file=sys.stderr)
            return DONE
        serve(settings)
    except config.ConfigError as error:
        return _say(INVALID, *error.lines)
    except PolicyErrors as error:
        return _say(INVALID, *map(str, error.errors))
    except PolicyProblem as error:
        return _say(INVALID, str(error))
    except (AttachError, StartError, OffError) as error:
        return _say(error.code if isinstance(error, OffError) else FAILED, str(error), error.hint)
    return DONE


def _keep_memory_small() -> None:
    """Big batches are made of memory that goes back to the system when they are done (malloc.h: what glibc keeps)."""
    libc = ctypes.CDLL(None)
    for parameter, value in (
        (M_ARENA_MAX, 2),
        (M_TRIM_THRESHOLD, 1 << 17),
        (M_TOP_PAD, 1 << 16),
        (M_MMAP_THRESHOLD, 1 << 16),
    ):
        libc.mallopt(parameter, value)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="hostwardend", description="Binds the hands of AI agents on this host.")
    parser.add_argument("--config", type=Path, help="TOML; without it /etc/hostwarden/hostwarden.toml, or the defaults")
    parser.add_argument(
        "--off", action="store_true", help="remove every pin, so that nothing is enforced any more, and end"
    )
    return parser.parse_args()


def _say(code: int, *lines: str) -> int:
    for line in lines:
        if line:
            print(f"hostwardend: {line}", file=sys.stderr)
    return code


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.exit(main())
