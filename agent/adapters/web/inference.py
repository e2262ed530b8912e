"""The Open Inference Protocol, version 2: how the agent is, what its models want, what they say.

What is asked here is scored like a reading and counted nowhere; readings are posted elsewhere.
"""

from collections.abc import Awaitable, Callable
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

import agent
from agent.adapters.web.posts import FORM_TYPES, body_of
from agent.adapters.web.routes import Shown
from agent.adapters.web.saying import encode
from agent.core import open_inference
from agent.core.errors import RefusedError, UnavailableError
from agent.ports import Questions

PATHS = "/v2/models/"
VERBS = ("/infer",)  # of paths that are posted to
BYTES_MAX = open_inference.BYTES_MAX
JSON_BYTES = "inference-header-content-length"
WAITING_MAX = 16  # questions: half of all connections stay free for others
STATUS = {404: 404, 409: 503, 413: 413}  # unknown, not now; what else is refused: 400

Page = Callable[[Request], Awaitable[Response]]


def is_question(path: str) -> bool:
    """Whether `path` is posted to."""
    return path.startswith(PATHS) and path.endswith(VERBS)


def routes(shown: Shown, desk: Callable[[], Questions | None]) -> list[Route]:
    """`desk` gives who answers; None as long as nobody does."""
    waiting = 0

    async def server(_: Request) -> Response:
        return _say({"name": "edge-agent", "version": agent.__version__, "extensions": []})

    async def live(_: Request) -> Response:
        silence = shown.silence()
        return _say({"live": not silence}, 503 if silence else 200)

    async def ready(_: Request) -> Response:
        is_ready = not shown.silence() and shown.last is not None and shown.last[0].ready
        return _say({"ready": is_ready}, 200 if is_ready else 503)

    async def model_ready(request: Request) -> Response:
        name, silence = request.path_params["model"], shown.silence()
        model = shown.last[0].models.get(name) if shown.last and not silence else None
        active = model.active if model is not None else None
        is_ready = active is not None and bool(active.provider)
        if is_ready and active is not None and _release(request) in (None, active.release):
            return _say({"name": name, "ready": True})
        if model is None and not silence:
            raise RefusedError(f"this device has no model {name}", 404)
        return _say({"name": name, "ready": False, "error": silence or "it is not loaded"}, 503)

    async def model(request: Request) -> Response:
        name, release = request.path_params["model"], _release(request)
        known = await _desk(desk).known(name)
        if release not in (None, known.release):
            raise RefusedError(f"{name}:{release} is not active; {name}:{known.release} is", 404)
        return _say(open_inference.metadata(name, known))

    async def infer(request: Request) -> Response:
        nonlocal waiting
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind and kind in FORM_TYPES:  # none is what Triton's client sends; nothing is changed
            return _wrong("say what it is, as in content-type: application/json", 415)
        if (packed := request.headers.get("content-encoding", "identity")) != "identity":
            return _wrong(f"a body in {packed} is not taken; send it as it is", 415)
        if waiting >= WAITING_MAX:
            return _wrong("too many questions wait; ask again", 429)
        waiting += 1
        try:
            body = await body_of(request, BYTES_MAX)
            asked = open_inference.read_request(body, _json_bytes(request))
            name = request.path_params["model"]
            release, columns = await _desk(desk).ask(name, asked.inputs, release=_release(request))
            return _say(open_inference.answer(name, release, asked, columns))
        except ClientDisconnect:
            return _wrong("it broke off", 400)
        finally:
            waiting -= 1

    pages: dict[str, Page] = {
        "": server,
        "/health/live": live,
        "/health/ready": ready,
    }
    for versions in ("", "/versions/{version}"):
        pages[f"/models/{{model}}{versions}"] = model
        pages[f"/models/{{model}}{versions}/ready"] = model_ready
    found = [Route(f"/v2{path}", _blaming(page), methods=["GET"]) for path, page in pages.items()]
    for versions in ("", "/versions/{version}"):
        path = f"/v2/models/{{model}}{versions}/infer"
        found.append(Route(path, _blaming(infer), methods=["POST"]))
    return found


def _blaming(page: Page) -> Page:
    async def blaming(request: Request) -> Response:
        try:
            return await page(request)
        except RefusedError as error:
            return _wrong(str(error), STATUS.get(error.code, 400))
        except HTTPException as error:
            return _wrong(error.detail, error.status_code)
        except UnavailableError as error:
            return _wrong(str(error), 503)

    return blaming


def _desk(desk: Callable[[], Questions | None]) -> Questions:
    found = desk()
    if found is None:
        raise UnavailableError("the agent is just starting")
    return found


def _release(request: Request) -> int | None:
    version = request.path_params.get("version")
    if version is None:
        return None
    if not (version.isascii() and version.isdigit()) or len(version) > 18:
        raise RefusedError(f"there is no version {version}; versions are numbers", 404)
    return int(version)


def _json_bytes(request: Request) -> int | None:
    text = request.headers.get(JSON_BYTES)
    if text is None:
        return None
    if not (text.isascii() and text.isdigit()) or len(text) > 18:
        raise RefusedError(f"{JSON_BYTES} is a number of bytes")
    return int(text)


def _say(document: dict[str, Any], status: int = 200) -> Response:
    return Response(encode(document), status, media_type="application/json")


def _wrong(sentence: str, status: int) -> Response:
    return _say({"error": sentence}, status)
