"""A real Mosquitto on a free port of this machine, to be started, stopped, killed and paused.

Not a simulation: what it does to a client is what brokers do.  `hostile.py` beside this file is for
what a well-behaved broker never does.
"""

import getpass
import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Self

import pytest
import trustme

from agent.adapters.embedded import EmbeddedBroker

START_S_MAX = 10.0
_DICE = random.SystemRandom()  # a test that sets a seed sets it in every process
_CONF = """\
user {user}
log_dest file {log}
log_type all
persistence {persistence}
persistence_location {dir}/
allow_anonymous {anonymous}
{password}
max_inflight_messages 0
max_queued_messages 0
set_tcp_nodelay true
listener {port} 127.0.0.1
{tls}
{websockets}
{extra}
"""


def free_port(*, in_a_row: int = 1) -> int:
    """The first of `in_a_row` ports of 127.0.0.1 that nobody listens on just now.

    Below the range from which connections get theirs, so that none of ours takes it meanwhile.
    """
    while True:
        first = _DICE.randrange(15_000, 32_000)
        try:
            for port in range(first, first + in_a_row):
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", port))
        except OSError:
            continue
        return first


class Certificates:
    """A certificate authority for one test: server and client certificates as PEM files."""

    def __init__(self, folder: Path, *, host: str = "127.0.0.1") -> None:
        self.ca = trustme.CA()
        self.ca_file = folder / "ca.pem"
        self.cert_file = folder / "server.pem"
        self.key_file = folder / "server.key"
        self.client_cert_file = folder / "client.pem"
        self.client_key_file = folder / "client.key"
        self.ca.cert_pem.write_to_path(self.ca_file)
        server, client = self.ca.issue_cert(host), self.ca.issue_cert("device@edge.test")
        for cert, chain, key in (
            (server, self.cert_file, self.key_file),
            (client, self.client_cert_file, self.client_key_file),
        ):
            cert.private_key_pem.write_to_path(key)
            chain.unlink(missing_ok=True)
            for pem in cert.cert_chain_pems:
                pem.write_to_path(chain, append=True)


class Broker:
    """One Mosquitto.  Same port across restarts; no limits on queues and windows.

    Args:
        tls: whose certificates to serve with; None is plain TCP.
        client_certs: with `tls`, let only clients in whose certificate that authority signed.
        password: the one user and password that may connect; None lets anyone in.
        persistent: whether sessions and retained messages survive `stop` and `start`
            (`kill` loses what was not yet written, as with any Mosquitto).
        websockets: also listen for MQTT over websockets, at `ws_url`.
        extra: more lines for mosquitto.conf.
    """

    def __init__(
        self,
        *,
        tls: Certificates | None = None,
        client_certs: bool = False,
        password: tuple[str, str] | None = None,
        persistent: bool = False,
        websockets: bool = False,
        extra: Sequence[str] = (),
    ) -> None:
        self.port = free_port()
        self.ws_port = free_port() if websockets else 0
        self.tls = tls
        self._client_certs = client_certs
        self._password = password
        self._persistent = persistent
        self._extra = extra
        self._process: subprocess.Popen[bytes] | None = None
        self._folder = tempfile.TemporaryDirectory(prefix="broker-")
        self.folder = Path(self._folder.name)
        self.log = self.folder / "mosquitto.log"

    @property
    def url(self) -> str:
        """Where clients find it."""
        return f"{'mqtts' if self.tls else 'mqtt'}://127.0.0.1:{self.port}"

    @property
    def ws_url(self) -> str:
        """Where clients that speak websockets find it."""
        return f"ws://127.0.0.1:{self.ws_port}"

    @property
    def pid(self) -> int:
        """The process, for those who want to measure or hurt it."""
        assert self._process is not None, "the broker is not started"
        return self._process.pid

    def start(self) -> Self:
        """Start it and wait until it takes connections."""
        self.folder.mkdir(exist_ok=True)
        conf = self.folder / "mosquitto.conf"
        conf.write_text(self._configuration(), encoding="utf-8")
        with self.log.open("ab") as log:
            self._process = subprocess.Popen([mosquitto(), "-c", conf], stdout=log, stderr=log)
        deadline = time.monotonic() + START_S_MAX
        while time.monotonic() < deadline and self._process.poll() is None:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
            except OSError:
                time.sleep(0.01)
            else:
                return self
        self.kill()
        pytest.fail(f"mosquitto did not start:\n{self.log.read_text(encoding='utf-8')}")

    def stop(self) -> None:
        """End it in order: it says goodbye to its clients and writes what is persistent."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it at once."""
        self._end(signal.SIGKILL)

    def restart(self) -> None:
        """Stop and start, on the same port."""
        self.stop()
        self.start()

    def pause(self) -> None:
        """Freeze it: connections stand, nothing answers."""
        os.kill(self.pid, signal.SIGSTOP)

    def unpause(self) -> None:
        """Let it go on."""
        os.kill(self.pid, signal.SIGCONT)

    def close(self) -> None:
        """End it and forget everything it kept."""
        self.stop()
        self._folder.cleanup()

    def __enter__(self) -> Self:
        return self if self._process else self.start()

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _end(self, how: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(how)
        if hasattr(signal, "SIGCONT"):
            process.send_signal(signal.SIGCONT)  # a paused one would not hear SIGTERM
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _configuration(self) -> str:
        password = tls = websockets = ""
        if self._password:
            users = self.folder / "users"
            subprocess.run(
                ["mosquitto_passwd", "-b", "-c", users, *self._password],
                check=True,
                capture_output=True,
            )
            password = f"password_file {users}"
        if self.tls:
            tls = (
                f"cafile {self.tls.ca_file}\ncertfile {self.tls.cert_file}\n"
                f"keyfile {self.tls.key_file}\n"
                f"require_certificate {str(self._client_certs).lower()}"
            )
        if self.ws_port:
            websockets = f"listener {self.ws_port} 127.0.0.1\nprotocol websockets"
        return _CONF.format(
            user=_user(),
            log=self.log,
            dir=self.folder,
            persistence=str(self._persistent).lower(),
            anonymous=str(self._password is None).lower(),
            password=password,
            port=self.port,
            tls=tls,
            websockets=websockets,
            extra="\n".join(self._extra),
        )


class Embedded:
    """The product's own broker instead: in memory, MQTT 5 at `url`, 3.1.1 at `url_of(4)`."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="embedded-")
        bind = f"127.0.0.1:{free_port(in_a_row=2)}"
        self._broker = EmbeddedBroker(bind, Path(self._folder.name))
        self.url = self._broker.url
        self.url_of = self._broker.url_of

    def start(self) -> Self:
        self._broker.start()
        return self

    def stop(self) -> None:
        """End it, and all it kept."""
        self._broker.stop()

    def __enter__(self) -> Self:
        return self if self._broker.is_running else self.start()

    def __exit__(self, *exc: object) -> None:
        self.stop()
        self._folder.cleanup()


def mosquitto() -> str:
    """The mosquitto binary.  Where it is missing: fail in CI, elsewhere skip aloud."""
    found = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin")
    if found:
        return found
    missing = "mosquitto is not installed; `make test` installs it (apt install mosquitto)"
    if os.environ.get("CI"):
        pytest.fail(missing)
    pytest.skip(missing)


def _user() -> str:
    """Who runs this: a Mosquitto started by root would become nobody and not read our files."""
    return getpass.getuser()


@pytest.fixture
def broker() -> Iterator[Broker]:
    """A plain broker for one test."""
    with Broker() as it:
        yield it
