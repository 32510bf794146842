"""HTTP/1.1 with bounds on what a caller may send before it is known: header fields, and the time to send them.

uvicorn's parser has neither bound: a caller could send one header field for ever, or nothing at all. What is refused
here never reaches the app. The bound on bodies and their time is `middleware.BodyLimit`, behind the keys.
"""

import asyncio
import json
from typing import Any

import structlog
import uvicorn
from starlette.exceptions import HTTPException
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol
from uvicorn.server import ServerState

from service.config import ServerConfig
from service.http.middleware import new_request_id
from service.http.problem_schema import MEDIA_TYPE
from service.http.problems import STATUS_ROWS, problem_of

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


class BoundedConfig(uvicorn.Config):
    """A server's configuration with the bounds of `BoundedHttp`."""

    def __init__(self, app: Any, bounds: ServerConfig, **options: Any) -> None:
        super().__init__(app, http=BoundedHttp, ws="none", log_config=None, access_log=False, lifespan="off", **options)
        self.bounds = bounds


class BoundedHttp(HttpToolsProtocol):
    """One connection. A head that is too large is 431, one that is too slow 408; both close the connection."""

    def __init__(
        self,
        config: uvicorn.Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        assert isinstance(config, BoundedConfig)
        self._bounds = config.bounds
        self._deadline: asyncio.TimerHandle | None = None
        self._in_head = True
        self._head_bytes = 0
        self._refused = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's
        super().connection_made(transport)
        self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._head_is_there()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._refused:
            return
        super().data_received(data)
        if self._in_head and not self._refused:
            # Nothing but a head has come since it began, so all of this belongs to it.
            self._head_bytes += len(data)
            if self._head_bytes > self._bounds.max_header_bytes:
                self._refuse_large()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        if not self._in_head:
            self._expect_head()

    def on_headers_complete(self) -> None:
        self._head_is_there()
        num_bytes = len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
        if len(self.headers) > self._bounds.max_headers or num_bytes > self._bounds.max_header_bytes:
            self._refuse_large()
            return
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        if not self._refused:
            super().on_body(body)

    def on_message_complete(self) -> None:
        if not self._refused:
            super().on_message_complete()

    def _expect_head(self) -> None:
        self._in_head, self._head_bytes = True, 0
        self._deadline = self.loop.call_later(self._bounds.header_timeout_s, self._head_is_late)

    def _head_is_there(self) -> None:
        self._in_head = False
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _head_is_late(self) -> None:
        if self._head_bytes:
            self._refuse(408, f"the header fields must come within {self._bounds.header_timeout_s:g} s")
        else:
            self.transport.close()

    def _refuse_large(self) -> None:
        most, fields = self._bounds.max_header_bytes, self._bounds.max_headers
        self._refuse(431, f"path and header fields must be at most {most} bytes in at most {fields} fields, got more")

    def _refuse(self, status: int, detail: str) -> None:
        """Answer with a problem and close; nothing of the request is repeated, not even its path."""
        self._refused = True
        self._head_is_there()
        problem = problem_of(HTTPException(status), instance="", request_id=new_request_id(), detail=detail)
        body = json.dumps(problem.model_dump(exclude_none=True)).encode()
        head = (
            f"content-type: {MEDIA_TYPE}\r\ncontent-length: {len(body)}\r\n"
            f"x-request-id: {problem.request_id}\r\nconnection: close\r\n\r\n"
        )
        log.info("request_refused", status=status, code=STATUS_ROWS[status].code, request_id=problem.request_id)
        self.transport.write(STATUS_LINE[status] + head.encode() + body)
        self.transport.close()
