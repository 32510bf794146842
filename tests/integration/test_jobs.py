"""Jobs on a real node: an accepted job outlives kill -9 of everything, and of its engine."""

import asyncio
from typing import Any

import httpx
import pytest

from tests.integration.node_process import NodeProcess

pytestmark = pytest.mark.engine

BRIEF = {"kind": "create", "language": "en", "instructions": "Write about a quiet harbour.", "max_tokens": 200}


async def accepted(node: NodeProcess, **headers: str) -> dict[str, Any]:
    """The job of a call that does not wait."""
    async with httpx.AsyncClient(base_url=node.url, timeout=60.0, headers=node.tenant_headers) as http:
        response = await http.post("/v1/content", json=BRIEF, headers={"Prefer": "respond-async", **headers})
    assert response.status_code == 202, response.text
    job: dict[str, Any] = response.json()
    return job


async def final(node: NodeProcess, job_id: str) -> dict[str, Any]:
    async with (
        httpx.AsyncClient(base_url=node.url, timeout=60.0, headers=node.tenant_headers) as http,
        asyncio.timeout(120),
    ):
        while True:
            response = await http.get(f"/v1/jobs/{job_id}")
            job: dict[str, Any] = response.json()
            # 503 while the store is started again.
            if response.status_code == 200 and job["state"] not in ("queued", "running"):
                return job
            await asyncio.sleep(0.1)


async def test_an_accepted_job_outlives_the_death_of_its_node(node: NodeProcess) -> None:
    """Kill -9 of front, engine and store right after 202: the next start finishes the job, and the journal has one
    episode, under the id that the caller was given."""
    job = await accepted(node, **{"Idempotency-Key": "harbour"})
    node.kill()
    node.start()
    done = await final(node, job["id"])
    assert (done["state"], done["result"]["request_id"]) == ("succeeded", job["request_id"])
    async with httpx.AsyncClient(base_url=node.url, timeout=60.0, headers=node.tenant_headers) as http:
        again = await http.post("/v1/content", json=BRIEF, headers={"Idempotency-Key": "harbour"})
    assert (again.status_code, again.json()) == (200, done["result"])
    assert (await node.episode(job["request_id"])).id == job["request_id"]


async def test_an_accepted_job_outlives_the_death_of_its_engine_and_its_store(node: NodeProcess) -> None:
    """Kill -9 of both below a front that stays: both are started again, and the job succeeds."""
    job = await accepted(node)
    store = next(process for process in node.processes() if "valkey" in process.name())
    node.engine().kill()
    store.kill()
    done = await final(node, job["id"])
    assert done["state"] == "succeeded"


async def test_cancelling_a_job_stops_its_generation(node: NodeProcess) -> None:
    """Of 8 jobs in the engine some are cancelled before their 200 tokens are done; what each became stays."""
    jobs = [await accepted(node) for _ in range(8)]
    async with httpx.AsyncClient(base_url=node.url, timeout=60.0, headers=node.tenant_headers) as http:
        states = [(await http.post(f"/v1/jobs/{job['id']}/cancel")).json()["state"] for job in jobs]
    assert "cancelled" in states
    for job, state in zip(jobs, states, strict=True):
        assert (await final(node, job["id"]))["state"] == state
