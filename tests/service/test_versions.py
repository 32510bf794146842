"""Which version a request runs on, and which its completion says."""

from agent.completion import Completion, FinishReason, Sampling, VersionSpan
from agent.ports import GenerateRequest
from service.versions import AdapterVersions, LiveVersions

REQUEST = GenerateRequest("r1", (1, 2), Sampling(max_tokens=8), cache_scope="acme")


def _completion(version: int) -> Completion:
    """As an engine labels it that ran ``version``'s adapter."""
    span = VersionSpan(version, version)
    return Completion("a", (1, 2), (3,), (-0.5,), REQUEST.sampling, FinishReason.STOP, span)


def _named(version: int) -> GenerateRequest:
    return GenerateRequest("r2", (1, 2), Sampling(max_tokens=8), policy_version=version)


def test_an_adapter_is_chosen_when_the_request_starts() -> None:
    """The active one or the one that is named; later activations do not matter to it."""
    versions = AdapterVersions()
    versions.activate(3)
    started, named = versions.start(REQUEST), versions.start(_named(2))
    versions.announce(4)
    versions.activate(4)
    assert (started.request, started.adapter, named.adapter) == (REQUEST, 3, 2)
    assert started.label(_completion(3)).versions == VersionSpan(3, 3)
    assert versions.active == 4


def test_live_weights_need_no_adapter() -> None:
    """Not even a request that names a version, such as a rollout: there is but one set of weights."""
    versions = LiveVersions()
    versions.activate(3)
    started = versions.start(_named(3))
    assert started.adapter == 0
    assert started.label(_completion(0)).versions == VersionSpan(3, 3)


def test_a_request_spans_the_versions_that_came_while_it_ran() -> None:
    """From the one that was active when it started to the one that is when it ends."""
    versions = LiveVersions()
    versions.activate(3)
    started = versions.start(REQUEST)
    for version in (4, 5):
        versions.announce(version)
        versions.activate(version)
    assert started.label(_completion(0)).versions == VersionSpan(3, 5)


def test_an_announced_version_may_have_sampled_already() -> None:
    """The weights change before the front process hears of it."""
    versions = LiveVersions()
    versions.activate(3)
    started = versions.start(REQUEST)
    versions.announce(4)
    assert versions.active == 3
    assert started.label(_completion(0)).versions == VersionSpan(3, 4)


def test_no_request_reads_what_older_weights_have_cached() -> None:
    """Requests share a scope only between two changes; a version that comes back gets a new one."""
    versions = LiveVersions()
    scopes = [versions.start(REQUEST).request.cache_scope]
    assert versions.start(REQUEST).request.cache_scope == scopes[0]
    for version in (1, 0):
        versions.announce(version)
        scopes.append(versions.start(REQUEST).request.cache_scope)
        versions.activate(version)
        scopes.append(versions.start(REQUEST).request.cache_scope)
    assert len(set(scopes)) == 5
    assert all(scope.startswith("acme@") for scope in scopes)
