"""Asking an HTTP endpoint on the loopback: politely, in raw bytes, and as a listener."""

import http.client
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Self


@dataclass(frozen=True)
class Heard:
    status: int
    headers: Mapping[str, str]  # names in lower case
    text: str


def ask(
    port: int,
    path: str,
    headers: Mapping[str, str] | None = None,
    *,
    method: str = "GET",
    body: bytes | None = None,
    seconds: float = 10.0,
) -> Heard:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=seconds)
    try:
        connection.request(method, path, body, dict(headers or {}))
        answer = connection.getresponse()
        text = answer.read().decode()
        return Heard(answer.status, {k.lower(): v for k, v in answer.getheaders()}, text)
    finally:
        connection.close()


@contextmanager
def raw(port: int, seconds: float = 10.0) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", port), timeout=seconds) as connection:
        yield connection


def rest(connection: socket.socket) -> bytes:
    """All that still comes until the other side ends it, in order or not."""
    got = b""
    try:
        while part := connection.recv(65536):
            got += part
    except ConnectionError:
        pass
    return got


class Listener:
    """One open question to /events."""

    def __init__(self, port: int, headers: Mapping[str, str] | None = None) -> None:
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        self.connection.request("GET", "/events", headers=dict(headers or {}))
        self.answer = self.connection.getresponse()
        self.status = self.answer.status

    def line(self) -> str:
        """The next line; empty at the end."""
        return self.answer.readline().decode()

    def blocks(self, count: int) -> list[dict[str, str]]:
        """The next `count` events, by field; comments are left out."""
        found: list[dict[str, str]] = []
        fields: dict[str, str] = {}
        while len(found) < count and (line := self.line()):
            name, _, value = line.rstrip("\n").partition(": ")
            if line == "\n":
                if "data" in fields:
                    found.append(fields)
                fields = {}
            elif name:
                fields[name] = value
        return found

    def close(self) -> None:
        self.answer.close()
        self.connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
