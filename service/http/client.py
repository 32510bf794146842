"""A client of the admin routes, for the CLI. Proxies and `.netrc` of the environment are ignored: a node is reached
directly, and its key comes from the caller alone."""

from collections.abc import Mapping
from types import TracebackType
from typing import Self, TypeVar
from urllib.parse import quote, urlencode

import httpx
from pydantic import BaseModel, ValidationError

from agent.errors import ColoqError
from service.http.canary_schema import CanaryBody, CanaryView, PinBody, PromoteBody, RollbackBody, TrialView
from service.http.problem_schema import Problem
from service.http.tenant_schema import TenantView
from service.http.tuning_schema import PolicyList, PolicyView, RunBody, RunList, RunView
from service.http.validation import field_errors

View = TypeVar("View", bound=BaseModel)
Body = TypeVar("Body", bound=BaseModel)
TIMEOUT_S = 30.0


class NodeRefused(ColoqError):
    """The node answered with a problem, or could not be reached; the message says what to do next."""


class AdminClient:
    """The admin routes of one node. Use it as a context manager.

    Every method raises NodeRefused.
    """

    def __init__(self, url: str, admin_key: str) -> None:
        """Raises NodeRefused when ``url`` is none."""
        self._url = url
        headers = {"Authorization": f"Bearer {admin_key}"}
        try:
            self._http = httpx.Client(base_url=url, headers=headers, timeout=TIMEOUT_S, trust_env=False)
        except httpx.InvalidURL as error:
            raise self.lost(error) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.close()

    def start(self, body: RunBody) -> RunView:
        """Start a run."""
        content = body.model_dump_json(exclude_none=True)
        return self._call("POST", "/admin/tuning/runs", RunView, content=content)

    def runs(self) -> RunList:
        """Runs, newest first."""
        return self._call("GET", "/admin/tuning/runs", RunList)

    def run(self, run_id: str) -> RunView:
        """One run with its steps."""
        return self._call("GET", f"/admin/tuning/runs/{segment(run_id)}", RunView)

    def stop(self, run_id: str) -> RunView:
        """Ask a run to stop after its current step."""
        return self._call("POST", f"/admin/tuning/runs/{segment(run_id)}/stop", RunView)

    def resume(self, run_id: str) -> RunView:
        """Go on with an interrupted run."""
        return self._call("POST", f"/admin/tuning/runs/{segment(run_id)}/resume", RunView)

    def policies(self) -> PolicyList:
        """Policies, newest first."""
        return self._call("GET", "/admin/policies", PolicyList)

    def activate(self, version: int) -> PolicyView:
        """Make a policy the one that new requests get."""
        return self._call("POST", f"/admin/policies/{version}/activate", PolicyView)

    def canary(self) -> CanaryView:
        """The canary in progress, and those that ended."""
        return self._call("GET", "/admin/canary", CanaryView)

    def start_canary(self, version: int, body: CanaryBody) -> TrialView:
        """Try a policy on a share of the traffic."""
        return self._call("POST", f"/admin/policies/{version}/canary", TrialView, content=_json(body))

    def stop_canary(self) -> TrialView:
        """Take the candidate back."""
        return self._call("DELETE", "/admin/canary", TrialView)

    def promote(self, version: int, body: PromoteBody) -> PolicyView:
        """Give a policy to everybody, or to one tenant."""
        return self._call("POST", f"/admin/policies/{version}/promote", PolicyView, content=_json(body))

    def roll_back(self, version: int, body: RollbackBody) -> PolicyView:
        """Take a policy back; answers with what serves now."""
        return self._call("POST", f"/admin/policies/{version}/rollback", PolicyView, content=_json(body))

    def pin(self, version: int, body: PinBody) -> TenantView:
        """Keep a tenant on a policy."""
        return self._call("POST", f"/admin/policies/{version}/pin", TenantView, content=_json(body))

    def unpin(self, version: int, tenant: str, language: str | None) -> TenantView:
        """Let a tenant follow what is active again."""
        query = urlencode({"tenant": tenant} | ({} if language is None else {"language": language}))
        return self._call("DELETE", f"/admin/policies/{version}/pin?{query}", TenantView)

    def lost(self, error: Exception) -> NodeRefused:
        """What to tell of a connection that failed."""
        if isinstance(error, httpx.InvalidURL | httpx.UnsupportedProtocol):
            return NodeRefused(f"--url must be a URL such as http://127.0.0.1:8080, got {self._url!r} ({error})")
        if isinstance(error, httpx.ReadTimeout):
            return NodeRefused(
                f"the node at {self._url} did not answer within {TIMEOUT_S:.0f} s; it may still do what it was asked"
            )
        reason = str(error) or type(error).__name__
        return NodeRefused(f"no node answers at {self._url} ({reason}); is it running?")

    def _call(self, method: str, path: str, view: type[View], content: str | None = None) -> View:
        response = self._send(method, path, content)
        try:
            return view.model_validate_json(response.content)
        except ValidationError as error:
            raise NodeRefused(f"{self._url} does not answer like a node of this version") from error

    def _send(self, method: str, path: str, content: str | None = None) -> httpx.Response:
        headers = {"Content-Type": "application/json"} if content is not None else {}
        try:
            response = self._http.request(method, path, content=content, headers=headers)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise self.lost(error) from error
        if not response.is_success:
            raise NodeRefused(refusal(response))
        return response


def valid_body(model: type[Body], chosen: Mapping[str, object]) -> Body:
    """A body of what a command was given.

    Raises:
        NodeRefused: it breaks a rule that the node would refuse it for.
    """
    try:
        return model.model_validate(chosen)
    except ValidationError as error:
        found = [{**item, "loc": ("body", *item["loc"])} for item in error.errors()]
        raise NodeRefused("; ".join(field.message for field in field_errors(found, model))) from error


def _json(body: BaseModel) -> str:
    return body.model_dump_json(exclude_none=True)


def segment(value: str) -> str:
    """A value as one segment of a path, whatever it holds."""
    return quote(value, safe="")


def refusal(response: httpx.Response) -> str:
    """The problem's detail and request id, or the bare status of something that is no problem document."""
    try:
        problem = Problem.model_validate_json(response.content)
    except ValidationError:
        return f"{response.url} answered {response.status_code}, which is not from a Coloq node"
    wait = f" (retry after {problem.retry_after} s)" if problem.retry_after is not None else ""
    return f"{problem.detail}{wait} [{problem.status} {problem.code}, {problem.request_id}]"
