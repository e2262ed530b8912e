"""Free TCP ports on the loopback."""

import socket


def free_port() -> int:
    """A port that was free a moment ago; start the server soon and let it fail loudly if not."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
