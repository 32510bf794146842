"""What surrounds every request, as plain ASGI (a `BaseHTTPMiddleware` would hide disconnects from the routes).

HeadAsGet        lets HEAD have the head of GET's answer
RequestContext   gives the request its id, in the log's context and on the response
  AccessLog      counts and logs the request under its route's template
    Boundary     turns what nobody expected into a 500 problem, logged once
      BodyLimit  refuses to read more than `server.max_body_bytes`, or for longer than `server.body_timeout_s`
        routes
"""

import asyncio
import secrets
import time
import traceback
from collections.abc import MutableMapping
from pathlib import PurePath
from typing import Any
from urllib.parse import quote

import structlog
from fastapi import HTTPException
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.http.ports import RequestMetrics
from service.http.problems import problem_of, problem_response

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

UNMATCHED = "unmatched"
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
QUIET_ROUTES = frozenset({"/healthz", "/readyz", "/metrics"})
"""Polled all day: logged at debug."""
CLIENT_GONE = 499
"""Status recorded for a request that ended without a response; nginx uses the same number."""


def new_request_id() -> str:
    """`req_` and 22 URL-safe characters: 128 random bits."""
    return f"req_{secrets.token_urlsafe(16)}"


class HeadAsGet:
    """Answers HEAD as GET (RFC 9110, section 9.3.2), which FastAPI's routes do not: monitors ask so whether a node is
    up. The server leaves the body away."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        is_head = scope["type"] == "http" and scope["method"] == "HEAD"
        await self._app({**scope, "method": "GET"} if is_head else scope, receive, send)


class RequestContext:
    """Gives each request an id of ours; an `X-Request-Id` from outside is never taken over."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = new_request_id()
        scope.setdefault("state", {})["request_id"] = request_id

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)["X-Request-Id"] = request_id
            await send(message)

        with structlog.contextvars.bound_contextvars(request_id=request_id):
            try:
                await self._app(scope, receive, send_with_id)
            finally:
                structlog.contextvars.unbind_contextvars("tenant", "key")


class AccessLog:
    """Counts and logs each request: method, route template, status, duration. Never a path, query or body."""

    def __init__(self, app: ASGIApp, metrics: RequestMetrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status = CLIENT_GONE
        started = time.perf_counter()

        async def send_noting_status(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, send_noting_status)
        finally:
            self._record(scope, status, time.perf_counter() - started)

    def _record(self, scope: Scope, status: int, duration_s: float) -> None:
        route = route_template(scope)
        method = scope["method"] if scope["method"] in METHODS else "OTHER"
        self._metrics.observe_request(method=method, route=route, status=status, duration_s=duration_s)
        emit = log.debug if route in QUIET_ROUTES and status < 400 else log.info
        emit("request_handled", method=method, route=route, status=status, duration_ms=round(duration_s * 1000, 1))


def route_template(scope: MutableMapping[str, Any]) -> str:
    """The template of the route that took the request, such as `/admin/tuning/runs/{run_id}`."""
    return str(getattr(scope.get("route"), "path", UNMATCHED))


class Boundary:
    """Outlives any failure of a request. An exception's message may quote a prompt, so only its type and place are
    logged, and the caller gets neither."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        response_started = False

        async def send_noting_start(message: Message) -> None:
            nonlocal response_started
            response_started = response_started or message["type"] == "http.response.start"
            await send(message)

        try:
            await self._app(scope, receive, send_noting_start)
        except Exception as error:  # noqa: BLE001  # a request is a boundary that must outlive any failure
            log.error("request_broke", error=type(error).__name__, route=route_template(scope), where=_where(error))
            if not response_started:
                request_id = scope["state"]["request_id"]
                problem = problem_of(
                    RuntimeError(), instance=quote(scope["path"], errors="replace"), request_id=request_id
                )
                await problem_response(problem)(scope, receive, send)


def _where(error: BaseException) -> list[str]:
    """Innermost frames, as `file:line function`, without source or values."""
    frames = traceback.extract_tb(error.__traceback__)[-8:]
    return [f"{'/'.join(PurePath(frame.filename).parts[-2:])}:{frame.lineno} {frame.name}" for frame in frames]


class BodyLimit:
    """Stops reading a body that is, or declares to be, larger than the limit, or that takes too long to come.

    The refusal is raised where a route reads the body, so that keys are checked first and a route without a body does
    not care.
    """

    def __init__(self, app: ASGIApp, max_body_bytes: int, timeout_s: float) -> None:
        self._app = app
        self._max_body_bytes = max_body_bytes
        self._timeout_s = timeout_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        declared = Headers(scope=scope).get("content-length", "")
        num_bytes = 0
        deadline_s: float | None = asyncio.get_running_loop().time() + self._timeout_s

        async def receive_within_limit() -> Message:
            nonlocal num_bytes, deadline_s
            self._check(int(declared) if declared.isdecimal() else 0)
            message = await self._in_time(receive, deadline_s)
            if not message.get("more_body", False):
                deadline_s = None
            num_bytes += len(message.get("body", b""))
            self._check(num_bytes)
            return message

        await self._app(scope, receive_within_limit, send)

    async def _in_time(self, receive: Receive, deadline_s: float | None) -> Message:
        """The next message; what comes after the body (the caller hangs up) may take its time."""
        try:
            async with asyncio.timeout_at(deadline_s):
                return await receive()
        except TimeoutError as error:
            raise HTTPException(408, f"the body must come within {self._timeout_s:g} s") from error

    def _check(self, num_bytes: int) -> None:
        if num_bytes > self._max_body_bytes:
            raise HTTPException(413, f"the body must be at most {self._max_body_bytes} bytes, got {num_bytes} or more")
