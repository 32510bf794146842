"""Endpoints and inbound hooks on the node's store.

t:<tenant>:webhooks:endpoints          hash: endpoint id → the endpoint as JSON, with its secrets
t:<tenant>:webhooks:failing            hash: endpoint id → since when it fails without a success
t:<tenant>:webhooks:callback_secrets   text: the secrets that sign callbacks, as JSON
t:<tenant>:hooks                       hash: hook id → the inbound hook as JSON
node:webhooks:tenants                  set: tenants that have had an endpoint
node:hooks                             hash: hook id → tenant
"""

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import cast

from service.store import Store, store_errors
from service.stored_record import RecordCodec
from service.webhooks.hook import Hook
from service.webhooks.records import Endpoint, SigningSecrets

_TENANTS = "node:webhooks:tenants"
_HOOKS = "node:hooks"

# KEYS: hash, index. ARGV: id, json, limit, member of a set or value of a hash, kind of index.
_ADD = """
if redis.call('HLEN', KEYS[1]) >= tonumber(ARGV[3]) then return 0 end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
if ARGV[5] == 'set' then redis.call('SADD', KEYS[2], ARGV[4]) else redis.call('HSET', KEYS[2], ARGV[1], ARGV[4]) end
return 1
"""
# KEYS: hash. ARGV: id, the value that must still be there, the one that takes its place.
_SWAP = """
if redis.call('HGET', KEYS[1], ARGV[1]) ~= ARGV[2] then return 0 end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])
return 1
"""
_REPLACE = """
if redis.call('HEXISTS', KEYS[1], ARGV[1]) == 0 then return 0 end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
return 1
"""
# Only the tenant that has the hook may take it out of the index.
_REMOVE = """
if redis.call('HDEL', KEYS[1], ARGV[1]) == 0 then return 0 end
redis.call('HDEL', KEYS[2], ARGV[1])
return 1
"""


def _endpoints_key(tenant: str) -> str:
    return f"t:{tenant}:webhooks:endpoints"


def _failing_key(tenant: str) -> str:
    return f"t:{tenant}:webhooks:failing"


def _callback_key(tenant: str) -> str:
    return f"t:{tenant}:webhooks:callback_secrets"


def _hooks_key(tenant: str) -> str:
    return f"t:{tenant}:hooks"


class RedisEndpoints:
    """``service.webhooks.ports.EndpointRecords`` on Redis or Valkey."""

    def __init__(self, store: Store) -> None:
        self._redis = store.redis
        self._codec = RecordCodec(Endpoint)
        self._secrets = RecordCodec(SigningSecrets)
        self._add = self._redis.register_script(_ADD)
        self._swap = self._redis.register_script(_SWAP)

    async def add(self, endpoint: Endpoint, *, limit: int) -> bool:
        """See EndpointRecords."""
        with store_errors("store an endpoint"):
            return bool(
                await self._add(
                    keys=[_endpoints_key(endpoint.tenant), _TENANTS],
                    args=[endpoint.id, self._codec.encode(endpoint), limit, endpoint.tenant, "set"],
                )
            )

    async def get(self, tenant: str, endpoint_id: str) -> Endpoint | None:
        """See EndpointRecords."""
        with store_errors("read an endpoint"):
            text = await self._redis.hget(_endpoints_key(tenant), endpoint_id)
        return None if text is None else self._codec.decode(text)

    async def list(self, tenant: str) -> list[Endpoint]:
        """See EndpointRecords."""
        with store_errors("read the endpoints"):
            texts = await self._redis.hvals(_endpoints_key(tenant))
        return sorted(map(self._codec.decode, texts), key=lambda endpoint: (endpoint.created_at, endpoint.id))

    async def change(self, tenant: str, endpoint_id: str, change: Callable[[Endpoint], Endpoint]) -> Endpoint | None:
        """See EndpointRecords."""
        while True:
            with store_errors("change an endpoint"):
                old = await self._redis.hget(_endpoints_key(tenant), endpoint_id)
                if old is None:
                    return None
                changed = change(self._codec.decode(old))
                args = [endpoint_id, old, self._codec.encode(changed)]
                if await self._swap(keys=[_endpoints_key(tenant)], args=args):
                    return changed

    async def remove(self, tenant: str, endpoint_id: str) -> bool:
        """See EndpointRecords."""
        with store_errors("delete an endpoint"):
            async with self._redis.pipeline(transaction=True) as transaction:
                transaction.hdel(_endpoints_key(tenant), endpoint_id)
                transaction.hdel(_failing_key(tenant), endpoint_id)
                removed, _ = await transaction.execute()
        return bool(removed)

    async def tenants(self) -> Sequence[str]:
        """See EndpointRecords."""
        with store_errors("read the tenants with endpoints"):
            return sorted(cast("set[str]", await self._redis.smembers(_TENANTS)))

    async def failing_since(self, tenant: str, endpoint_id: str, at: datetime) -> datetime:
        """See EndpointRecords."""
        key = _failing_key(tenant)
        with store_errors("note a failing endpoint"):
            await self._redis.hsetnx(key, endpoint_id, at.isoformat())
            since = cast("str | None", await self._redis.hget(key, endpoint_id))
        return at if since is None else datetime.fromisoformat(since)

    async def working(self, tenant: str, endpoint_id: str) -> None:
        """See EndpointRecords."""
        with store_errors("note a working endpoint"):
            await self._redis.hdel(_failing_key(tenant), endpoint_id)

    async def callback_secrets(self, tenant: str, new: SigningSecrets) -> SigningSecrets:
        """See EndpointRecords."""
        key = _callback_key(tenant)
        with store_errors("read the callback secrets"):
            await self._redis.set(key, self._secrets.encode(new), nx=True)
            text = await self._redis.get(key)
        return new if text is None else self._secrets.decode(text)

    async def set_callback_secrets(self, tenant: str, secrets: SigningSecrets) -> None:
        """See EndpointRecords."""
        with store_errors("store the callback secrets"):
            await self._redis.set(_callback_key(tenant), self._secrets.encode(secrets))


class RedisHooks:
    """``service.webhooks.ports.HookRecords`` on Redis or Valkey."""

    def __init__(self, store: Store) -> None:
        self._redis = store.redis
        self._codec = RecordCodec(Hook)
        self._add = self._redis.register_script(_ADD)
        self._replace = self._redis.register_script(_REPLACE)
        self._remove = self._redis.register_script(_REMOVE)

    async def add(self, hook: Hook, *, limit: int) -> bool:
        """See HookRecords."""
        with store_errors("store a hook"):
            return bool(
                await self._add(
                    keys=[_hooks_key(hook.tenant), _HOOKS],
                    args=[hook.id, self._codec.encode(hook), limit, hook.tenant, "hash"],
                )
            )

    async def find(self, hook_id: str) -> Hook | None:
        """See HookRecords."""
        with store_errors("read a hook"):
            tenant = cast("str | None", await self._redis.hget(_HOOKS, hook_id))
            text = None if tenant is None else await self._redis.hget(_hooks_key(tenant), hook_id)
        return None if text is None else self._codec.decode(text)

    async def list(self, tenant: str) -> list[Hook]:
        """See HookRecords."""
        with store_errors("read the hooks"):
            texts = await self._redis.hvals(_hooks_key(tenant))
        return sorted(map(self._codec.decode, texts), key=lambda hook: (hook.created_at, hook.id))

    async def replace(self, hook: Hook) -> bool:
        """See HookRecords."""
        with store_errors("change a hook"):
            args = [hook.id, self._codec.encode(hook)]
            return bool(await self._replace(keys=[_hooks_key(hook.tenant)], args=args))

    async def remove(self, tenant: str, hook_id: str) -> bool:
        """See HookRecords."""
        with store_errors("delete a hook"):
            return bool(await self._remove(keys=[_hooks_key(tenant), _HOOKS], args=[hook_id]))
