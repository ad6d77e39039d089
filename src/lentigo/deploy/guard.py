"""What every request passes: the rules of access, the security headers, the counters and the log.

It is the outermost layer, so that errors have the headers too and no traceback gets out.
"""

from __future__ import annotations

import logging
import time
import traceback
from dataclasses import dataclass
from http.cookies import SimpleCookie
from typing import TYPE_CHECKING

from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, HTTPConnection
from starlette.responses import JSONResponse, RedirectResponse, Response

from lentigo.deploy.access import COOKIE, Access
from lentigo.deploy.limits import Refused
from lentigo.deploy.service_metrics import ServiceMetrics

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

log = logging.getLogger("lentigo.service")

CONTENT_SECURITY_POLICY = (
    "default-src 'self'; script-src 'self' 'wasm-unsafe-eval'; img-src 'self' blob: data:; worker-src 'self' blob:; "
    "object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
SECURITY_HEADERS = {
    "content-security-policy": CONTENT_SECURITY_POLICY,
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-embedder-policy": "require-corp",
    "cross-origin-resource-policy": "same-origin",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "permissions-policy": "camera=(self), microphone=(), geolocation=()",
    "cache-control": "no-store",
}
"""Sent with every answer that does not set its own. The two in the middle let wasm use threads."""
UPLOAD_PATH = "/api/predict"
"""The one route that takes images; it counts its body itself, by `ServiceLimits`."""
MAX_BODY_BYTES = 64 * 1024
"""Of a request to any other route: a decision about a suspect has a few hundred bytes."""
BODY_TOO_LONG = Refused(
    413,
    f"the request is larger than {MAX_BODY_BYTES >> 10} KiB",
    f"Only `{UPLOAD_PATH}` takes images; `/api/docs` lists what the operations take.",
)
CLIENT_LEFT = 499
"""Status in the log and the counters where the client hung up; nobody receives it."""


def problem(refused: Refused) -> Response:
    """The JSON answer {error, remedy} of a refusal."""
    content = {"error": refused.message, "remedy": refused.remedy}
    return JSONResponse(content, refused.status, headers=refused.headers)


@dataclass(slots=True)
class Guard:
    """ASGI layer around the whole service."""

    app: ASGIApp
    access: Access
    metrics: ServiceMetrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
            return
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        start_s, status = time.perf_counter(), 0

        async def send_guarded(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                for name, value in SECURITY_HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        try:
            answer = self._answer_at_once(scope)
            body = receive if scope["path"] == UPLOAD_PATH else counted(receive)
            await (answer or self.app)(scope, body, send_guarded)
        except ClientDisconnect:
            status = status or CLIENT_LEFT
        except Exception as error:
            log.error("bug: %s", describe_bug(error))
            if not status:
                failed = Refused(500, "the service failed at this request", "Report it with the lines of its log.")
                await problem(failed)(scope, receive, send_guarded)
        finally:
            self._record(scope, status or CLIENT_LEFT, time.perf_counter() - start_s)

    def _answer_at_once(self, scope: Scope) -> Response | None:
        """A refusal, or the cookie for whoever opens the page with the token; None where the service shall answer."""
        connection, method = HTTPConnection(scope), scope["method"]
        given = connection.query_params.get("token")
        known = self.access.knows(connection.headers.get("host", ""))
        if given is not None and method == "GET" and known and self.access.is_token(given):
            # Only to a page that is known: `//other.example` as a path would lead to another site.
            target = scope["path"] if scope["path"] in self.access.open_paths else "/"
            return _log_in(target, self.access.cookie())
        try:
            self.access.check(connection, method)
        except Refused as refused:
            return problem(refused)
        length = connection.headers.get("content-length", "")
        announced = int(length[:20]) if length.isascii() and length.isdecimal() else 0
        if scope["path"] != UPLOAD_PATH and announced > MAX_BODY_BYTES:
            return problem(BODY_TOO_LONG)
        return None

    def _record(self, scope: Scope, status: int, duration_s: float) -> None:
        method = scope["method"] if scope["method"] in ("GET", "HEAD", "POST") else "other"
        route = getattr(scope.get("route"), "path", "other")
        self.metrics.count_request(method, route, status, duration_s)
        log.info("%s %s %d %.0f ms", method, route, status, 1000 * duration_s)


def counted(receive: Receive) -> Receive:
    """`receive` that raises as soon as more than `MAX_BODY_BYTES` have come, whatever length was announced."""
    received = 0

    async def receive_counted() -> Message:
        nonlocal received
        message = await receive()
        received += len(message.get("body", b""))
        if received > MAX_BODY_BYTES:
            # FastAPI makes a 400 of every other exception while it receives a body, `Refused` too.
            raise HTTPException(BODY_TOO_LONG.status)
        return message

    return receive_counted


def describe_bug(error: BaseException) -> str:
    """Kind and places of an error without its message, which could quote an image's name or metadata."""
    frames = traceback.extract_tb(error.__traceback__)
    return f"{type(error).__name__} at " + " < ".join(f"{frame.name}:{frame.lineno}" for frame in frames[::-1])


def _log_in(path: str, cookie: str) -> Response:
    jar: SimpleCookie = SimpleCookie()
    jar[COOKIE] = cookie
    for key, value in (("path", "/"), ("httponly", "1"), ("samesite", "Strict")):
        jar[COOKIE][key] = value
    response = RedirectResponse(path, 303)
    response.headers["set-cookie"] = jar[COOKIE].OutputString()
    return response
