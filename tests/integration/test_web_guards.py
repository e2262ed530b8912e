"""Who may ask: names, origins, tokens and sizes, over a real socket."""

import base64
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.adapters.web import WebFaces, probe, read_token
from agent.config import Http
from agent.core.errors import RefusedError
from agent.core.health import HealthReport
from tests.world.asking import Listener, ask, raw, rest

TOKEN = "a-token-of-some-length"
READY = HealthReport("d", ready=True)


@pytest.fixture(scope="module")
def faces() -> Iterator[WebFaces]:
    faces = WebFaces(
        Http(bind="127.0.0.1:0", hosts=("edge.plant", "nat.plant:9000")), stale_s=300.0
    )
    faces.start()
    faces.show(READY)
    yield faces
    faces.stop()


@pytest.fixture(scope="module")
def open_faces() -> Iterator[WebFaces]:
    settings = Http(bind="0.0.0.0:0", token_file="given by hand below")
    faces = WebFaces(settings, token=TOKEN, stale_s=300.0)
    faces.start()
    faces.show(READY)
    yield faces
    faces.stop()


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1:P", "localhost:P", "LOCALHOST:P", "[::1]:P", "edge.plant:P", "nat.plant:9000"],
)
def test_it_answers_to_its_own_names(faces, host):
    """[http-4.1]"""
    assert ask(faces.port, "/readyz", {"Host": host.replace("P", str(faces.port))}).status == 200


@pytest.mark.parametrize(
    "host",
    ["evil.example:P", "127.0.0.1.evil.example:P", "localhost", "localhost:1", "127.0.0.1:P.evil",
     "", "nat.plant:P", "192.168.1.5:P", "[::1]", "localhost:P@evil", "evil@localhost:P"],
)  # fmt: skip
@pytest.mark.parametrize("path", ["/readyz", "/state", "/"])
def test_it_answers_to_no_other_name(faces, host, path):
    """[http-4.1]"""
    assert ask(faces.port, path, {"Host": host.replace("P", str(faces.port))}).status == 421


def test_a_question_without_a_name_is_misdirected(faces):
    """[http-4.1]"""
    with raw(faces.port) as connection:
        connection.sendall(b"GET /state HTTP/1.0\r\n\r\n")
        assert b" 421 " in rest(connection).split(b"\r\n")[0]


@pytest.mark.parametrize(
    "host", ["192.168.1.5:9999", "10.0.0.7", "[fe80::1]:8080", "localhost:31000"]
)
def test_bound_to_every_interface_any_address_is_its_own_and_ports_may_be_mapped(open_faces, host):
    """[http-4.1]"""
    assert ask(open_faces.port, "/readyz", {"Host": host}).status == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "edge.plant:8080", "10.0.0.7.evil.example:80", "0x7f.1"]
)
def test_bound_to_every_interface_a_name_still_has_to_be_known(open_faces, host):
    """[http-4.1]"""
    assert ask(open_faces.port, "/readyz", {"Host": host}).status == 421


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Origin": "http://127.0.0.1:P"}, 200),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "http://127.0.0.1:1"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://127.0.0.1:P.evil.example"}, 403),
        ({"Sec-Fetch-Site": "same-origin"}, 200),
        ({"Sec-Fetch-Site": "none"}, 200),
        ({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}, 403),
        ({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}, 200),  # a link to the page
    ],
)
def test_pages_of_other_sites_may_not_ask(faces, headers, status):
    """[http-4.2]"""
    headers = {name: value.replace("P", str(faces.port)) for name, value in headers.items()}
    assert ask(faces.port, "/state", headers).status == status


@pytest.mark.parametrize("path", ["/livez", "/readyz"])
def test_health_checks_need_no_token(open_faces, path):
    """[http-4.3]"""
    assert ask(open_faces.port, path).status == 200


PATHS = [
    "/",
    "/state",
    "/receipts",
    "/receipts/m",
    "/metrics",
    "/events",
    "/app.js",
    "/nothing",
    "/livez/",
    "//livez",
    "/livez%2F",
]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("value", ["", f"Bearer {TOKEN}x", f"Bearer {TOKEN[:-1]}", "Bearer", TOKEN,
                                   "Basic !!!", "Bearer \xe9"])  # fmt: skip
def test_everything_else_does(open_faces, path, value):
    """[http-4.3]"""
    heard = ask(open_faces.port, path, {"Authorization": value} if value else {})
    assert heard.status == 401
    assert heard.headers["www-authenticate"].startswith("Bearer ")


def test_the_token_opens_it(open_faces):
    """[http-4.3]"""
    bearer = {"Authorization": f"Bearer {TOKEN}"}
    assert ask(open_faces.port, "/state", bearer).status == 200
    with Listener(open_faces.port, bearer) as listener:
        assert listener.status == 200


def test_a_browser_may_send_the_token_as_a_password(open_faces):
    """[http-4.3]"""
    basic = base64.b64encode(f"anyone:{TOKEN}".encode()).decode()
    assert ask(open_faces.port, "/", {"Authorization": f"Basic {basic}"}).status == 200
    wrong = base64.b64encode(f"{TOKEN}:wrong".encode()).decode()
    assert ask(open_faces.port, "/", {"Authorization": f"Basic {wrong}"}).status == 401


@pytest.mark.parametrize("size", [8 * 1024, 70_000, 1_000_000])
def test_headers_are_limited(faces, size):
    """[http-4.7]"""
    with raw(faces.port) as connection:
        head = f"GET /state HTTP/1.1\r\nHost: 127.0.0.1:{faces.port}\r\nX: {'x' * size}\r\n\r\n"
        try:
            connection.sendall(head.encode())
        except ConnectionError:
            return  # put out before it had finished: just as well
        first = rest(connection).split(b"\r\n")[0]
        assert first == b"" or b" 431 " in first or b" 400 " in first
    assert ask(faces.port, "/readyz").status == 200


def test_a_body_is_limited(faces):
    """[http-4.7]"""
    with raw(faces.port) as connection:
        head = (
            f"GET /state HTTP/1.1\r\nHost: 127.0.0.1:{faces.port}\r\nContent-Length: 65537\r\n\r\n"
        )
        connection.sendall(head.encode())
        assert b" 413 " in rest(connection).split(b"\r\n")[0]


@pytest.mark.parametrize(
    "junk", [b"\x16\x03\x01\x02\x00", b"GET\r\n\r\n", b"\0" * 5000, b"GET / HTTP/9.9\r\n\r\n",
             b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
             b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"],
)  # fmt: skip
def test_what_is_no_http_is_put_out(faces, junk):
    """[http-4.7]"""
    with raw(faces.port) as connection:
        connection.sendall(junk)
        first = rest(connection).split(b"\r\n")[0]
        assert first == b"" or b" 4" in first
    assert ask(faces.port, "/readyz").status == 200


def test_one_connection_carries_one_request(faces):
    """[http-4.8]"""
    one = f"GET /livez HTTP/1.1\r\nHost: 127.0.0.1:{faces.port}\r\n\r\n".encode()
    with raw(faces.port) as connection:
        connection.sendall(one * 3)
        assert rest(connection).count(b"HTTP/1.1 200") == 1


def test_a_token_is_made_once_and_kept_from_others(tmp_path: Path):
    """[http-4.5]"""
    path = tmp_path / "store" / "http.token"
    made = read_token(path)
    assert len(made) >= 43
    assert read_token(path) == made
    if sys.platform != "win32":
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize(
    "text", ["", "short", "two words of some length", "ein-schlüssel-mit-umlaut", "x" * 600]
)
def test_what_is_no_token_is_refused(tmp_path: Path, text):
    """[http-4.5]"""
    path = tmp_path / "token"
    path.write_text(text, encoding="utf-8")
    path.chmod(0o600)
    with pytest.raises(RefusedError, match="the token in"):
        read_token(path)


def test_a_token_that_cannot_be_read_is_refused(tmp_path: Path):
    """[http-4.5]"""
    with pytest.raises(RefusedError, match="cannot read the token"):
        read_token(tmp_path)


def test_whether_it_could_be_opened_can_be_asked_beforehand(faces, free_port, tmp_path: Path):
    """[http-4.12]"""
    free = f"127.0.0.1:{free_port}"
    assert probe(Http(bind=free)) == f"{free} is free, for this machine only"
    for _ in range(2):  # asking makes no token
        told = probe(Http(bind=free, token_file=str(tmp_path / "token")))
        assert told == f"{free} is free, with a token that is made at first start"
    with pytest.raises(RefusedError, match="cannot be had"):
        probe(Http(bind=f"127.0.0.1:{faces.port}"))
    with pytest.raises(RefusedError, match="needs http"):
        probe(Http(bind=f"0.0.0.0:{free_port}"))
    (tmp_path / "token").write_text("short")
    with pytest.raises(RefusedError, match="must have 16"):
        probe(Http(bind=free, token_file=str(tmp_path / "token")))
