"""The tenants' endpoints, and the hosts that their callbacks may name."""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta

from agent.errors import Conflict, DestinationRefused, NotFound
from service.webhooks.config import WebhooksConfig
from service.webhooks.destinations import Destination, Destinations
from service.webhooks.ports import EndpointRecords
from service.webhooks.records import Clock, Endpoint, SigningSecrets, utc_now
from service.webhooks.signing import new_secret, rotated


@dataclass(frozen=True, slots=True)
class EndpointChange:
    """What a tenant changes of an endpoint; None leaves it."""

    url: str | None = None
    event_types: tuple[str, ...] | None = None
    description: str | None = None
    enabled: bool | None = None


class Endpoints:
    """Makes, changes and deletes endpoints. Methods raise StoreError, and NotFound for another tenant's endpoint."""

    def __init__(
        self, records: EndpointRecords, destinations: Destinations, config: WebhooksConfig, clock: Clock = utc_now
    ) -> None:
        self._records, self._destinations = records, destinations
        self._config, self._clock = config, clock

    async def create(self, tenant: str, url: str, event_types: Sequence[str], description: str) -> Endpoint:
        """Make an endpoint with a secret of its own.

        Raises:
            DestinationRefused: the URL must not be called.
            Conflict: the tenant has as many as it may.
        """
        destination = await self._destinations.check(url)
        endpoint = Endpoint(
            id=f"ep_{secrets.token_hex(12)}",
            tenant=tenant,
            url=destination.url,
            event_types=tuple(dict.fromkeys(event_types)),
            description=description,
            enabled=True,
            disabled_reason=None,
            created_at=self._clock(),
            secrets=SigningSecrets(new_secret()),
        )
        limit = self._config.max_endpoints
        if not await self._records.add(endpoint, limit=limit):
            raise Conflict(f"a tenant may have {limit} endpoints, and this one has as many; delete one first")
        return endpoint

    async def list(self, tenant: str) -> list[Endpoint]:
        """Oldest first."""
        return await self._records.list(tenant)

    async def get(self, tenant: str, endpoint_id: str) -> Endpoint:
        """One endpoint."""
        return _found(await self._records.get(tenant, endpoint_id), endpoint_id)

    async def update(self, tenant: str, endpoint_id: str, change: EndpointChange) -> Endpoint:
        """Change an endpoint; enabling one forgets why it was disabled and that it failed.

        Raises:
            DestinationRefused: the new URL must not be called.
        """
        url = None if change.url is None else (await self._destinations.check(change.url)).url

        def changed(endpoint: Endpoint) -> Endpoint:
            enabled = endpoint.enabled if change.enabled is None else change.enabled
            return replace(
                endpoint,
                url=url or endpoint.url,
                event_types=(
                    endpoint.event_types if change.event_types is None else tuple(dict.fromkeys(change.event_types))
                ),
                description=endpoint.description if change.description is None else change.description,
                enabled=enabled,
                disabled_reason=None if enabled or change.enabled is False else endpoint.disabled_reason,
            )

        endpoint = _found(await self._records.change(tenant, endpoint_id, changed), endpoint_id)
        if change.enabled:
            await self._records.working(tenant, endpoint_id)
        return endpoint

    async def tenants(self) -> Sequence[str]:
        """Every tenant that has had an endpoint."""
        return await self._records.tenants()

    async def delete(self, tenant: str, endpoint_id: str) -> None:
        """Delete an endpoint; what was on its way to it is discarded."""
        if not await self._records.remove(tenant, endpoint_id):
            raise NotFound(_unknown(endpoint_id))

    async def rotate(self, tenant: str, endpoint_id: str) -> Endpoint:
        """Give an endpoint a new secret; the old one signs too for ``rotation_overlap_s``."""
        now = self._clock()
        until = now + timedelta(seconds=self._config.rotation_overlap_s)
        endpoint = await self._records.change(
            tenant, endpoint_id, lambda endpoint: replace(endpoint, secrets=rotated(endpoint.secrets, now, until))
        )
        return _found(endpoint, endpoint_id)

    async def rotate_callback_secret(self, tenant: str) -> SigningSecrets:
        """Give the tenant's callbacks a new secret; the old one signs too for ``rotation_overlap_s``."""
        now = self._clock()
        current = await self._records.callback_secrets(tenant, SigningSecrets(new_secret()))
        changed = rotated(current, now, now + timedelta(seconds=self._config.rotation_overlap_s))
        await self._records.set_callback_secrets(tenant, changed)
        return changed

    def parse_callback(self, tenant: str, url: str) -> Destination:
        """The parts of a callback URL that this tenant may name; its host is not looked up.

        Raises:
            DestinationRefused: the URL breaks a rule, or its host is not among the tenant's; the field is
                ``callback_url``.
        """
        destination = self._destinations.rules.parse(url, "callback_url")
        allowed = self._config.callback_hosts.get(tenant, ())
        if allowed and not any(_matches(destination.host, pattern) for pattern in allowed):
            raise DestinationRefused(
                "callback_url", f"must name one of this tenant's callback hosts ({', '.join(allowed)})"
            )
        return destination

    async def check_callback(self, tenant: str, url: str) -> Destination:
        """As ``parse_callback``, and the host is looked up.

        Raises:
            DestinationRefused: also when the host does not resolve, or not to public addresses only.
        """
        self.parse_callback(tenant, url)
        return await self._destinations.check(url, "callback_url")


def _matches(host: str, pattern: str) -> bool:
    """``*.example.com`` takes every name below example.com, not example.com itself."""
    pattern = pattern.lower()
    return host.endswith(pattern[1:]) if pattern.startswith("*.") else host == pattern


def _unknown(endpoint_id: str) -> str:
    return f"there is no endpoint {endpoint_id}"


def _found(endpoint: Endpoint | None, endpoint_id: str) -> Endpoint:
    if endpoint is None:
        raise NotFound(_unknown(endpoint_id))
    return endpoint
