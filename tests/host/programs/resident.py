"""The agent's half of tests/host/resident.py: commands come as JSON lines on stdin, what came of them goes to stdout.

Each command is a child of this process, so it is a member by inheritance; one that is killed takes only itself along.
"""

import json
import os
import signal
import subprocess
import sys
from typing import Any


def execute(order: dict[str, Any]) -> dict[str, Any]:
    """Run one command to its end, or to the end of its time, and of everything that holds its stdout."""
    process = subprocess.Popen(
        order["argv"],
        user=order["uid"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    timed_out = False
    try:
        out, err = process.communicate(order["input"].encode(), timeout=order["timeout_s"])
    except subprocess.TimeoutExpired:
        timed_out = True
        os.killpg(process.pid, signal.SIGKILL)
        out, err = process.communicate(timeout=5)
    code = process.returncode
    return {
        "code": code if code >= 0 else 128 - code,
        "pid": process.pid,
        "out": out.decode(errors="replace"),
        "err": err.decode(errors="replace"),
        "timed_out": timed_out,
    }


def main() -> None:
    marker = sys.argv[1]
    for line in sys.stdin:
        answer = execute(json.loads(line))
        for mark in (marker, f"{marker}.plain"):  # their records come after those of the command
            with open(mark):
                pass
        print(json.dumps(answer), flush=True)


main()
