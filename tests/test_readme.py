"""The README shows bodies that their routes take."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from fastapi.routing import APIRoute

from service.config import NodeConfig
from service.http.app import create_app
from service.http.fakes import FakeAuthenticator, FakeMetrics, FakeNode

TEXT = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")


def posted() -> list[tuple[str, str]]:
    """Path and body of every `curl -d`."""
    commands = re.findall(r"^curl .*", TEXT.replace("\\\n", ""), re.MULTILINE)
    found = [(re.search(r"127\.0\.0\.1:8080(\S+)", command), re.search(r"-d '(.*?)'", command)) for command in commands]
    return [(path[1], body[1]) for path, body in found if path is not None and body is not None]


@pytest.mark.parametrize(("path", "body"), posted(), ids=[path for path, _ in posted()])
def test_every_body_of_the_readme_fits_its_route(path: str, body: str) -> None:
    """As FastAPI would read it."""
    app = create_app(FakeNode(), FakeAuthenticator({}), NodeConfig(), FakeMetrics())
    fields: dict[str, Any] = {
        route.path: route.body_field for route in app.routes if isinstance(route, APIRoute) and "POST" in route.methods
    }
    _, errors = fields[path].validate(json.loads(body), {}, loc=("body",))
    assert not errors


def test_the_readme_posts_content_runs_and_feedback() -> None:
    """Those that are checked above."""
    assert {path for path, _ in posted()} == {"/v1/content", "/admin/tuning/runs", "/v1/feedback"}
