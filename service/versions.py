"""Which policy version a request runs on, by method.

    adapter   one version from its first token to its last; the engine is told which
    full      whatever is live; when it ends, it gets the span of versions that may have sampled its tokens

Knows no engine: it is told when a version becomes active, and when a request starts and ends.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

from agent.completion import BASE_VERSION, Completion, VersionSpan
from agent.ports import GenerateRequest
from service.routing import PolicyRoutes


@dataclass(frozen=True, slots=True)
class VersionedRequest:
    """A request as the engine process gets it."""

    request: GenerateRequest
    adapter: int
    """Version whose adapter it runs with; 0 for none."""
    label: Callable[[Completion], Completion]
    """Gives the completion its versions; call when it has ended."""


class Versions(Protocol):
    """The versions of one engine, as requests see them."""

    @property
    def active(self) -> int:
        """The version that new live requests run on."""
        ...

    def announce(self, version: int) -> None:
        """See trainer.ports.PolicySink.announce."""
        ...

    def activate(self, version: int) -> None:
        """See trainer.ports.PolicySink.activate."""
        ...

    def start(self, request: GenerateRequest) -> VersionedRequest:
        """A request begins now."""
        ...


class AdapterVersions:
    """Method ``adapter``: the engine labels completions itself."""

    def __init__(self, routes: PolicyRoutes | None = None) -> None:
        """``routes`` choose for requests that name no version; without any, all get the active one."""
        self.active = BASE_VERSION
        self._routes = routes or PolicyRoutes()

    def announce(self, version: int) -> None:
        """No request runs on a version that is not active yet."""

    def activate(self, version: int) -> None:
        """See Versions.activate."""
        self.active = version

    def start(self, request: GenerateRequest) -> VersionedRequest:
        """The version that the request names, or its audience's."""
        version = request.policy_version
        if version is None:
            version = self._routes.version_for(request.audience, self.active)
        return VersionedRequest(request, version, lambda completion: completion)


class LiveVersions:
    """Method ``full``: every request runs on the live weights, whatever version it names.

    The engine's prefix cache must never give a new request keys and values of older weights. Between an announcement
    and its activation the weights change at a moment that only the engine knows, so the cache is scoped anew at both;
    a version number would not do, for a rolled back version comes live a second time.
    """

    def __init__(self) -> None:
        self.active = BASE_VERSION
        self._newest = BASE_VERSION
        self._num_changes = 0

    def announce(self, version: int) -> None:
        """See Versions.announce."""
        self._newest = version
        self._num_changes += 1

    def activate(self, version: int) -> None:
        """See Versions.activate."""
        self.active = self._newest = version
        self._num_changes += 1

    def start(self, request: GenerateRequest) -> VersionedRequest:
        """No adapter, and a cache scope that ends with the next change of the weights."""
        first = self.active
        scoped = replace(request, cache_scope=f"{request.cache_scope}@live-{self._num_changes}")
        return VersionedRequest(
            scoped, BASE_VERSION, lambda completion: replace(completion, versions=VersionSpan(first, self._newest))
        )
