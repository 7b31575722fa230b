"""What a misbehaving agent leaves behind: a daemon that outlives it. Started as ``straggler.py HOST:PORT NOTES``.

Forks twice with a new session between, so that its parent is init and no terminal or process group leads to it; then
tries to connect every 50 ms, and writes to ``NOTES`` its pid and, after each try, how many there were and how many got
through.
"""

import os
import socket
import sys
import time

INTERVAL_S = 0.05


def main() -> None:
    """The program; returns in the first process only."""
    address, notes = sys.argv[1:3]
    if os.fork():
        return
    os.setsid()
    if os.fork():
        os._exit(0)
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)
    keep_trying(address, notes)


def keep_trying(address: str, notes: str) -> None:
    """Never returns."""
    host, port = address.rsplit(":", 1)
    log = os.open(notes, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    tries = connected = 0
    while True:
        with socket.socket() as client:
            client.settimeout(1)
            try:
                client.connect((host, int(port)))
                client.sendall(b"still here\n")
                connected += 1
            except OSError:  # refused by the kernel: try again
                pass
        tries += 1
        os.write(log, f"{os.getpid()} {tries} {connected}\n".encode())
        time.sleep(INTERVAL_S)


if __name__ == "__main__":
    main()
