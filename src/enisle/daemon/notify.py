"""Telling systemd how it goes (sd_notify(3)), in a few lines and without its library."""

from __future__ import annotations

import contextlib
import os
import socket


def notify(state: str) -> None:
    """Send "READY=1", "STOPPING=1", "STATUS=…" if systemd asked for it. Never raises."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
        sock.sendto(state.encode(), address.replace("@", "\0", 1) if address.startswith("@") else address)
