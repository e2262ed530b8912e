"""How a worker comes to its two sockets, and to its errand if there was none when it started."""

import os
import socket
import sys
from typing import Any

from agent.worker import control, priority

SECRET_BYTES = 32


def joined(errand: dict[str, Any]) -> tuple[socket.socket, socket.socket, dict[str, Any]]:
    """The data and the control socket, and the errand; ends the process if nobody has one for it.

    The sockets are inherited, or (Windows) dialled on the loopback.  There the agent cannot know
    who dials, so the first bytes of each are a secret that came by the child's standard input.
    """
    if errand["port"] == 0:
        data = socket.socket(fileno=errand["data"])
        asked = socket.socket(fileno=errand["control"])
        return data, asked, _told(asked) if errand.get("waits") else errand
    secret = sys.stdin.buffer.read(SECRET_BYTES)
    pair = []
    for _ in range(2):
        sock = socket.create_connection(("127.0.0.1", errand["port"]), timeout=10)
        sock.settimeout(None)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.sendall(secret)
        pair.append(sock)
    return pair[0], pair[1], errand


def _told(asked: socket.socket) -> dict[str, Any]:
    try:
        errand = control.receive_errand(asked)
    except control.GoneError:
        os._exit(0)
    if errand["background"] and priority.may_return():
        priority.lower((0,))
    return errand
