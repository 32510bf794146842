"""Who gets which policy, on a real engine: a canary that a run starts, promotion, a pin, a tenant's own policy."""

import asyncio
import itertools
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.secrets import NewKey, new_key
from tests.integration.node_process import CONFIG, NodeProcess
from tests.tiny_model import save_tiny_llama

pytestmark = pytest.mark.engine

CANARY = """
[canary]
on_publish = true
share = 0.5
min_duration_s = 3600.0
auto_stop = false

[[tenants]]
id = "zeta"
key_hashes = ["{zeta}"]
[tenants.languages.en]

[[tenants]]
"""


class Callers:
    """Both tenants and the operator."""

    def __init__(self, http: httpx.AsyncClient, node: NodeProcess, zeta: NewKey) -> None:
        self._http, self._node = http, node
        self._keys = {"acme": node.key.plain, "zeta": zeta.plain}

    async def ask(self, end_user: str, tenant: str = "acme") -> int:
        """The policy that answered one person; every request is answered."""
        body = {
            "kind": "create",
            "language": "en",
            "instructions": f"Write about {end_user}.",
            "max_tokens": 12,
            "end_user": end_user,
        }
        headers = {"Authorization": f"Bearer {self._keys[tenant]}"}
        response = await self._http.post("/v1/content", json=body, headers=headers)
        assert response.status_code == 200, response.text
        return int(response.json()["policy_version"])

    async def versions(self, num: int, tenant: str = "acme") -> Counter[int]:
        """Who answers that many people."""
        return Counter(await asyncio.gather(*(self.ask(f"user-{number}", tenant) for number in range(num))))

    async def act(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        """An operator's act that succeeds."""
        response = await self._http.request(method, f"/admin{path}", json=body, headers=self._node.admin_headers)
        assert response.is_success, response.text
        return response.json()

    async def tuned(self, **request: Any) -> int:
        """The policy that a run of one step publishes."""
        run = await self.act("POST", "/tuning/runs", {"steps": 1, "gate": False, "languages": ["en"]} | request)
        async with asyncio.timeout(120):
            while True:
                status = await self.act("GET", f"/tuning/runs/{run['id']}")
                if status["state"] not in ("running", "stopping"):
                    break
                await asyncio.sleep(0.1)
        assert status["state"] == "succeeded", status["reason"]
        (version,) = status["published"]
        return int(version)


async def test_a_policy_goes_from_canary_to_everybody_and_back(tmp_path: Path) -> None:
    """No request is refused meanwhile; pins and tenants' own policies hold against what is active."""
    zeta = new_key("zeta")
    config = CONFIG.replace("\n[[tenants]]\n", CANARY.replace("{zeta}", zeta.hash), 1)
    node = NodeProcess(tmp_path, save_tiny_llama(tmp_path / "model"), new_key("acme"), config=config)
    await asyncio.to_thread(node.start)
    try:
        async with httpx.AsyncClient(base_url=node.url, timeout=60) as http:
            callers = Callers(http, node, zeta)
            await _canary_to_promotion(callers, http)
            await _pins_and_tenants(callers)
    finally:
        node.kill()


async def _canary_to_promotion(callers: Callers, http: httpx.AsyncClient) -> None:
    assert set(await callers.versions(24)) == {0}
    first = await callers.tuned()
    running = (await callers.act("GET", "/canary"))["running"]
    assert (running["candidate"], running["stable"], running["share"]) == (first, 0, 0.5)
    shares = await callers.versions(24)
    assert set(shares) == {0, first}
    assert await callers.versions(24) == shares  # the same people on the same side
    shown = await callers.act("GET", "/canary")
    assert shown["num_candidate"]["en"] + shown["num_stable"]["en"] == 48
    assert "coloq_canary_share 0.5" in (await http.get("/metrics")).text
    moving = asyncio.create_task(_ask_on(callers))
    await callers.act("POST", f"/policies/{first}/promote", {})
    await asyncio.sleep(0.5)
    moving.cancel()
    await asyncio.wait({moving})
    assert moving.cancelled()  # else one of its requests was refused or failed
    assert set(await callers.versions(8)) == {first}


async def _ask_on(callers: Callers) -> None:
    for number in itertools.count():
        await callers.ask(f"mover-{number}")


async def _pins_and_tenants(callers: Callers) -> None:
    common = (await callers.act("GET", "/policies"))["active_version"]
    await callers.act("POST", "/policies/0/pin", {"tenant": "zeta"})
    assert set(await callers.versions(4, "zeta")) == {0}
    own = await callers.tuned(tenant="acme")
    assert set(await callers.versions(4)) == {own}
    assert (await callers.act("GET", "/policies"))["active_version"] == common
    await callers.act("DELETE", "/policies/0/pin?tenant=zeta")
    assert set(await callers.versions(4, "zeta")) == {common}
    await callers.act("POST", f"/policies/{own}/rollback", {"tenant": "acme"})
    assert set(await callers.versions(4)) == {common}
    await callers.act("POST", f"/policies/{common}/rollback", {})
    assert set(await callers.versions(4)) == {0}
    actions = {entry["action"] for entry in (await callers.act("GET", "/audit"))["entries"]}
    assert {"canary_started", "canary_promoted", "promote_policy", "rollback_policy", "pin_policy"} <= actions
