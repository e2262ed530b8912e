"""POST /v1/streams/NAME: takes a body, waits until its readings are accounted for, answers."""

import asyncio
from collections.abc import Mapping

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from agent.adapters.web.saying import say
from agent.adapters.web.source import HttpSource

POSTS = "/v1/streams/"
WAITING_MAX = 16  # posts, over all streams: half of all connections stay free for other questions
ACCEPT_S_MAX = 10.0
# What a page of another site could send without asking first; none is a format of readings.
FORM_TYPES = ("", "application/x-www-form-urlencoded", "multipart/form-data", "text/plain")


def post_route(sources: Mapping[str, HttpSource], *, accept_s_max: float = ACCEPT_S_MAX) -> Route:
    """The route for posts to `sources`, by the names of their streams."""
    waiting = 0

    async def post(request: Request) -> Response:
        nonlocal waiting
        source = sources.get(request.path_params["name"])
        if source is None:
            return say(404, f"no such stream takes posts; these do: {', '.join(sorted(sources))}")
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() in FORM_TYPES:
            return say(415, "say what it is, as in content-type: application/json")
        if waiting >= WAITING_MAX:
            return say(429, "too many readings wait; post again", {"retry-after": "1"})
        waiting += 1
        try:
            body = await body_of(request, source.body_bytes_max)
            if not body:
                return say(400, "there is nothing in it")
            async with asyncio.timeout(accept_s_max):
                taken = await source.offer(body)
        except TimeoutError:
            sentence = f"not accounted for within {accept_s_max:g} s; post again"
            return say(503, sentence, {"retry-after": "5"})
        except ClientDisconnect:
            return say(400, "it broke off")
        finally:
            waiting -= 1
        return Response(status_code=202) if taken else say(503, "the stream has closed; post again")

    return Route(f"{POSTS}{{name}}", post, methods=["POST"])


async def body_of(request: Request, bytes_max: int) -> bytes:
    """All of it; HTTPException 413 where it is more."""
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > bytes_max:
            raise HTTPException(413, f"more than {bytes_max} bytes")
        parts.append(part)
    return b"".join(parts)
