"""Tells systemd how we are (sd_notify(3)), with a datagram to the socket it names in the environment."""

import os
import socket


def sd_notify(state: str) -> bool:
    """Sends ``state`` (``READY=1``, ``STOPPING=1``, ``WATCHDOG=1`` …). False if nobody asked, or nobody listens."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return False
    if address.startswith("@"):
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as out:
        try:
            out.connect(address)
            out.send(state.encode())
        except OSError:
            return False  # a service manager that went away is no reason to fail
    return True
