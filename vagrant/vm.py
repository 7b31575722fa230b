"""./dev vm: its words, carried out. ./dev has the usage and installs what is needed."""

import subprocess
import sys

from vagrant import machine, services, suites
from vagrant.guests import GUESTS, VmError, chosen


def main(words: list[str]) -> int:
    """Exit code 0, or that of what ran in the guest. Raises VmError."""
    match words:
        case ["up", *names]:
            for guest in chosen(names):
                machine.up(guest)
                services.start(guest)
        case ["down", *names]:
            machine.down(chosen(names))
        case ["ssh", name]:
            return subprocess.run(machine.ssh(chosen([name])[0], "")).returncode
        case ["ssh", name, "--", *line] if line:
            return subprocess.run(machine.ssh(chosen([name])[0], " ".join(line))).returncode
        case ["test"]:
            return suites.run(list(GUESTS.values()))
        case ["test", name, *arguments]:
            (guest,) = chosen([name])
            machine.up(guest)
            return subprocess.run(machine.ssh(guest, suites.line(guest, arguments))).returncode
        case _:
            raise VmError("that is not how it is called; try: ./dev vm")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except VmError as problem:
        sys.exit(f"dev: {problem}")
