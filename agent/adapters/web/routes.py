"""What each address answers.  Every page renders the last HealthReport it was shown."""

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from importlib import resources

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from agent.adapters.web import metrics
from agent.adapters.web.backlog import LISTENERS_MAX, Backlog
from agent.adapters.web.saying import encode, refuse, say
from agent.core.health import HealthReport

LINE_MAX = 1000
DASHBOARD = {
    "/": ("index.html", "text/html"),
    "/app.js": ("app.js", "text/javascript"),
    "/draw.js": ("draw.js", "text/javascript"),
    "/model.js": ("model.js", "text/javascript"),
    "/receipt.js": ("receipt.js", "text/javascript"),
    "/style.css": ("style.css", "text/css"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}

Endpoint = Callable[[Request], Awaitable[Response]]


@dataclass(slots=True)
class Shown:
    """The last report, and when (monotonic) it came; written by one thread, read by another."""

    stale_s: float
    last: tuple[HealthReport, float] | None = None

    def silence(self) -> str:
        """Why the agent cannot be taken for alive, in a sentence; empty if it can."""
        if self.last is None:
            return "the agent's loop has not been heard yet"
        report, at = self.last
        age = time.monotonic() - at
        if age > self.stale_s:
            return f"the agent's loop was last heard from {age:.0f} s ago"
        if not report.live:
            return _line(report.reasons) or "the agent says of itself that it is not live"
        return ""


def application(shown: Shown, backlog: Backlog, more: list[Route]) -> Starlette:
    """The pages, without any guard.  `more` are routes of other parts of this room."""

    async def livez(_: Request) -> Response:
        silence = shown.silence()
        return say(503 if silence else 200, silence or "live")

    async def readyz(_: Request) -> Response:
        if silence := shown.silence():
            return say(503, f"not ready: {silence}")
        report = _report(shown)
        word, why = ("ready" if report.ready else "not ready"), _line(report.reasons)
        return say(200 if report.ready else 503, f"{word}: {why}" if why else word)

    async def state(_: Request) -> Response:
        if shown.last is None:
            return say(503, shown.silence())
        body = encode(_report(shown).document())
        return Response(body, media_type="application/json")

    async def receipts(request: Request) -> Response:
        if shown.last is None:
            return say(503, shown.silence())
        report, model = _report(shown), request.path_params.get("model", "")
        if model and model not in report.receipts and model not in report.models:
            return say(404, "no such model is here")
        return Response(encode(report.receipts_document(model)), media_type="application/json")

    async def prometheus(_: Request) -> Response:
        if shown.last is None:
            return say(503, shown.silence())
        return Response(
            metrics.render(_report(shown)), headers={"content-type": metrics.CONTENT_TYPE}
        )

    async def events(request: Request) -> Response:
        if backlog.listeners >= LISTENERS_MAX:
            sentence = f"{LISTENERS_MAX} listeners are here already; poll /state instead"
            return say(503, sentence, {"retry-after": "5"})
        if request.method == "HEAD":
            return Response(media_type="text/event-stream")
        return _Events(backlog, request.headers.get("last-event-id", ""))

    async def nothing(request: Request, _: Exception) -> Response:
        pages = "/livez /readyz /metrics /state /receipts /events /v2 and /"
        return refuse(request.url.path, 404, f"nothing is here; see {pages}")

    pages: dict[str, Endpoint] = {
        "/livez": livez,
        "/readyz": readyz,
        "/state": state,
        "/receipts": receipts,
        "/receipts/{model}": receipts,
        "/metrics": prometheus,
        "/events": events,
    }
    pages |= {path: _static(name, kind) for path, (name, kind) in DASHBOARD.items()}
    routes = [Route(path, page, methods=["GET"]) for path, page in pages.items()]
    return Starlette(routes=routes + more, exception_handlers={404: nothing})


class _Events(StreamingResponse):
    """Counts itself as a listener for as long as it lasts, however it ends."""

    def __init__(self, backlog: Backlog, last_id: str) -> None:
        super().__init__(backlog.listen(last_id), media_type="text/event-stream")
        self._backlog = backlog

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._backlog.listeners += 1  # nothing was awaited since the limit was checked
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._backlog.listeners -= 1


def _static(name: str, kind: str) -> Endpoint:
    body = resources.files("agent").joinpath("dashboard", name).read_bytes()

    async def page(_: Request) -> Response:
        return Response(body, media_type=kind)

    return page


def _report(shown: Shown) -> HealthReport:
    assert shown.last is not None
    return shown.last[0]


def _line(reasons: object) -> str:
    """All reasons on one line, which no reason can break out of."""
    sentences = reasons if isinstance(reasons, list | tuple) else [str(reasons)]
    return " ".join("; ".join(map(str, sentences)).split())[:LINE_MAX]
