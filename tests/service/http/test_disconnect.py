"""A caller that hangs up stops the work."""

import asyncio
import json
import socket
import time
from collections.abc import Callable
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.types import Message

from service.config import NodeConfig
from service.http.disconnect import ClientGone, while_connected
from service.http.fakes import FakeMetrics, FakeNode, served

BRIEF = json.dumps({"kind": "create", "language": "de", "instructions": "Eine Klingel."}).encode()


async def never() -> Message:
    await asyncio.Event().wait()
    raise AssertionError("unreachable")


async def test_work_that_ends_first_gives_its_result() -> None:
    """The watcher leaves nothing behind."""

    async def work() -> int:
        return 7

    before = asyncio.all_tasks()
    assert await while_connected(never, work()) == 7
    assert asyncio.all_tasks() == before


async def test_an_error_of_the_work_passes_through() -> None:
    """The caller sees the work's own exception."""

    async def work() -> int:
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        await while_connected(never, work())


async def test_hanging_up_cancels_the_work_and_waits_for_its_clean_up() -> None:
    """When ClientGone is raised, the work's finally blocks have run."""
    cleaned = False
    started = asyncio.Event()

    async def work() -> int:
        nonlocal cleaned
        started.set()
        try:
            await asyncio.sleep(30)
        finally:
            await asyncio.sleep(0)
            cleaned = True
        return 0

    async def hang_up() -> Message:
        await started.wait()
        return {"type": "http.disconnect"}

    with pytest.raises(ClientGone):
        await while_connected(hang_up, work())
    assert cleaned


async def test_cancelling_the_caller_cancels_the_work() -> None:
    """A shutdown or a timeout around the call stops the work too."""
    cancelled = asyncio.Event()

    async def work() -> None:
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            cancelled.set()
            raise

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await while_connected(never, work())
    assert cancelled.is_set()


async def test_a_disconnect_during_a_content_request_cancels_the_generation(
    app: FastAPI, node: FakeNode, metrics: FakeMetrics
) -> None:
    """The app is driven by hand: body, then http.disconnect once the node has begun. It is counted as 499."""
    node.content.delay_s = 30
    messages: list[Message] = [{"type": "http.request", "body": BRIEF, "more_body": False}]

    async def receive() -> Message:
        if messages:
            return messages.pop()
        await node.content.started.wait()
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        assert message["type"] != "http.response.start" or message["status"] == 499

    scope: dict[str, Any] = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": "/v1/content",
        "raw_path": b"/v1/content",
        "query_string": b"",
        "root_path": "",
        "headers": [(b"authorization", b"Bearer tenant-key"), (b"content-type", b"application/json")],
        "server": ("node", 80),
        "client": ("127.0.0.1", 1),
    }
    async with asyncio.timeout(5):
        await app(scope, receive, send)
    assert node.content.cancelled.is_set()
    assert [(seen.route, seen.status) for seen in metrics.observations] == [("/v1/content", 499)]


@pytest.mark.parametrize("config", [NodeConfig()])
def test_closing_the_socket_cancels_the_generation(app: FastAPI, node: FakeNode, config: NodeConfig) -> None:
    """The same behind a real server: the caller closes its connection, and the generation stops within the 25 s that
    the node would hold it."""
    node.content.delay_s = 30
    head = (
        "POST /v1/content HTTP/1.1\r\nHost: node\r\nAuthorization: Bearer tenant-key\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(BRIEF)}\r\n\r\n"
    )
    with served(app) as url:
        port = int(url.rsplit(":", 1)[1])
        with socket.create_connection(("127.0.0.1", port)) as connection:
            connection.sendall(head.encode() + BRIEF)
            wait_until(node.content.started.is_set)
        wait_until(node.content.cancelled.is_set)


def wait_until(happened: Callable[[], bool], timeout_s: float = 5.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not happened():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.005)
