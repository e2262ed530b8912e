"""The Open Inference Protocol over a real socket: who is asked, what is told, who may ask."""

import asyncio
import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from agent.adapters.web import WebFaces
from agent.adapters.web.inference import BYTES_MAX, WAITING_MAX
from agent.config import Http
from agent.core.errors import RefusedError, UnavailableError
from agent.core.health import HealthReport, ModelHealth, Version
from agent.core.scores import Known, ScoreColumns
from tests.world.asking import ask
from tests.world.waiting import eventually

JSON = {"Content-Type": "application/json"}
ONE = {"inputs": [{"name": "v", "shape": [2], "datatype": "FP32", "data": [1, 2]}]}


class Clerk:
    """Answers for one model, `m`: each row twice itself."""

    def __init__(self) -> None:
        self.waits = threading.Event()
        self.waits.set()
        self.here = 0

    async def known(self, model):
        if model != "m":
            raise RefusedError(f"this device has no model {model}", 404)
        return Known(3, ("v",), ("score",))

    async def ask(self, model, inputs, *, release=None):
        await self.known(model)
        if release not in (None, 3):
            raise RefusedError("m:2 is not active; m:3 is", 404)
        self.here += 1
        await asyncio.to_thread(self.waits.wait)
        if np.isnan(inputs["v"]).any():
            raise UnavailableError("m did not answer in 10 s")
        return 3, ScoreColumns(inputs["v"] * 2)


@pytest.fixture
def clerk() -> Clerk:
    return Clerk()


@pytest.fixture
def faces(clerk) -> Iterator[WebFaces]:
    faces = WebFaces(Http(bind="127.0.0.1:0"), stale_s=300.0)
    faces.start()
    faces.questions_to(clerk)
    active = Version(3, "sha256:0", provider="cpu")
    models = {
        "m": ModelHealth(stream="s", state="Healthy", phase="steady", active=active),
        "cold": ModelHealth(stream="s", phase="steady", active=Version(3, "sha256:0")),
        "new": ModelHealth(stream="s", state="Unknown", phase="fetching"),
    }
    faces.show(HealthReport("d", ready=True, models=models))
    yield faces
    clerk.waits.set()
    faces.stop()


def get(faces, path):
    heard = ask(faces.port, path)
    assert heard.headers["content-type"] == "application/json"
    return heard.status, json.loads(heard.text)


def infer(faces, document, path="/v2/models/m/infer", **headers):
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    heard = ask(faces.port, path, JSON | headers, method="POST", body=body)
    return heard.status, json.loads(heard.text)


def test_the_agent_and_its_models_are_told_in_the_words_of_the_protocol(faces):
    """[http-8.1] [http-8.2]"""
    status, server = get(faces, "/v2")
    assert (status, server["name"], server["extensions"]) == (200, "edge-agent", [])
    assert get(faces, "/v2/health/live") == (200, {"live": True})
    assert get(faces, "/v2/health/ready") == (200, {"ready": True})
    assert get(faces, "/v2/models/m/ready") == (200, {"name": "m", "ready": True})
    assert get(faces, "/v2/models/m/versions/3/ready")[0] == 200
    assert get(faces, "/v2/models/m/versions/2/ready")[0] == 503
    assert get(faces, "/v2/models/new/ready")[0] == 503
    assert get(faces, "/v2/models/cold/ready")[0] == 503, "active, and not loaded"
    assert get(faces, "/v2/models/other/ready")[0] == 404
    status, told = get(faces, "/v2/models/m")
    assert (status, told["versions"], told["platform"]) == (200, ["3"], "onnx_onnxv1")
    assert get(faces, "/v2/models/m/versions/3") == (200, told)
    status, told = get(faces, "/v2/models/m/versions/x")
    assert (status, told) == (404, {"error": "there is no version x; versions are numbers"})


def test_who_is_not_ready_says_so(faces, clerk):
    """[http-8.1]"""
    faces.show(HealthReport("d", ready=False, reasons=("no model is desired yet",)))
    assert get(faces, "/v2/health/live")[0] == 200
    assert get(faces, "/v2/health/ready") == (503, {"ready": False})
    faces.show(HealthReport("d", live=False, reasons=("the scoring lane does not answer",)))
    assert get(faces, "/v2/health/live") == (503, {"live": False})
    assert get(faces, "/v2/models/m/ready")[0] == 503
    faces.questions_to(None)
    assert infer(faces, ONE) == (503, {"error": "the agent is just starting"})


def test_a_question_is_answered_with_the_columns(faces):
    """[http-8.3]"""
    score = {"name": "score", "datatype": "FP64", "shape": [2], "data": [2.0, 4.0]}
    told = {"model_name": "m", "model_version": "3", "id": "q", "outputs": [score]}
    assert infer(faces, ONE | {"id": "q"}) == (200, told)
    assert infer(faces, ONE | {"id": "q"}, "/v2/models/m/versions/3/infer") == (200, told)
    head = json.loads(json.dumps(ONE))
    del head["inputs"][0]["data"]
    head["inputs"][0]["parameters"] = {"binary_data_size": 8}
    raw = json.dumps(head | {"id": "q"}).encode()
    behind = {
        "Content-Type": "application/octet-stream",
        "Inference-Header-Content-Length": str(len(raw)),
    }
    body = raw + np.array([1, 2], "<f4").tobytes()
    assert infer(faces, body, **behind) == (200, told)


@pytest.mark.parametrize(
    ("path", "document", "status", "why"),
    [
        ("/v2/models/other/infer", ONE, 404, "no model other"),
        ("/v2/models/m/versions/2/infer", ONE, 404, "m:2 is not active"),
        ("/v2/models/m/infer", b"{", 400, "not JSON"),
        ("/v2/models/m/infer", ONE | {"outputs": [{"name": "y"}]}, 400, "and no y"),
        (
            "/v2/models/m/infer",
            {"inputs": [{"name": "v", "shape": [1], "datatype": "FP32", "data": [None]}]},
            503,
            "did not answer",
        ),
    ],
)
def test_what_cannot_be_answered_is_an_error_of_the_protocol(faces, path, document, status, why):
    """[http-8.4]"""
    heard, told = infer(faces, document, path)
    assert heard == status
    assert why in told["error"]


def test_a_length_that_is_none_is_an_error_of_the_protocol(faces):
    """[http-8.4]"""
    status, told = infer(faces, ONE, **{"Inference-Header-Content-Length": "all"})
    assert (status, told) == (
        400,
        {"error": "inference-header-content-length is a number of bytes"},
    )


def test_questions_have_limits(faces, clerk):
    """[http-8.5]"""
    clerk.waits.clear()
    with ThreadPoolExecutor(WAITING_MAX) as askers:
        asked = [askers.submit(infer, faces, ONE) for _ in range(WAITING_MAX)]
        eventually(lambda: clerk.here == WAITING_MAX, 10, "all of them wait")
        status, told = infer(faces, ONE)
        assert (status, told) == (429, {"error": "too many questions wait; ask again"})
        assert ask(faces.port, "/readyz").status == 200
        clerk.waits.set()
        assert {one.result(20)[0] for one in asked} == {200}
    assert ask(faces.port, "/v2/models/m/infer", JSON, method="POST", body=b"x" * 3).status == 400
    assert infer(faces, ONE, **{"Content-Encoding": "gzip"})[0] == 415


def test_what_is_refused_before_it_is_read_is_an_error_of_the_protocol_too(faces):
    """[http-8.4]"""
    too_long = JSON | {"Content-Length": str(BYTES_MAX + 1)}
    heard = ask(faces.port, "/v2/models/m/infer", too_long, method="POST")
    assert (heard.status, "bytes" in json.loads(heard.text)["error"]) == (413, True)
    assert get(faces, "/v2/models/m/infer") == (405, {"error": "only POST here"})
    status, told = get(faces, "/v2/models/m/config")
    assert (status, told["error"].startswith("nothing is here")) == (404, True)
    assert ask(faces.port, "/nothing").headers["content-type"].startswith("text/plain")


def test_no_page_of_another_site_asks_and_nothing_else_is_posted_to(faces):
    """[http-8.5]"""
    body = json.dumps(ONE).encode()
    path = "/v2/models/m/infer"
    assert (
        ask(faces.port, path, {"Content-Type": "text/plain"}, method="POST", body=body).status
        == 415
    )
    assert ask(faces.port, path, method="POST", body=body).status == 200, "as Triton's client does"
    foreign = JSON | {"Origin": "http://evil.example"}
    assert ask(faces.port, path, foreign, method="POST", body=body).status == 403
    assert ask(faces.port, path).status == 405
    for other in ("/v2", "/v2/models/m", "/v2/repository/index", "/v1/streams/s", "/infer"):
        assert ask(faces.port, other, JSON, method="POST", body=body).status == 405


def test_where_there_is_a_token_questions_want_it(clerk):
    """[http-8.5]"""
    faces = WebFaces(Http(bind="127.0.0.1:0"), token="a-token-of-some-length", stale_s=300.0)
    faces.start()
    try:
        faces.questions_to(clerk)
        faces.show(HealthReport("d", ready=True))
        assert ask(faces.port, "/v2/health/live").status == 200, "as /livez"
        assert ask(faces.port, "/v2/health/ready").status == 200
        assert "bearer token" in get(faces, "/v2/models/m")[1]["error"]
        body = json.dumps(ONE).encode()
        path = "/v2/models/m/infer"
        assert ask(faces.port, path, JSON, method="POST", body=body).status == 401
        basic = JSON | {"Authorization": "Basic OmEtdG9rZW4tb2Ytc29tZS1sZW5ndGg="}
        assert ask(faces.port, path, basic, method="POST", body=body).status == 401
        assert ask(faces.port, "/v2", basic).status == 200, "for reading it will do"
        known = JSON | {"Authorization": "Bearer a-token-of-some-length"}
        assert ask(faces.port, path, known, method="POST", body=body).status == 200
    finally:
        faces.stop()
