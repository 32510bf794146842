"""The operator's routes."""

import math
from dataclasses import replace

import httpx
import pytest

from agent.errors import InvalidInput, PublicationFailed
from service.http.fake_tuning import EPOCH, step_report
from service.http.fakes import FakeNode
from service.http.tuning_schema import RunBody
from tests.service.gate_reports import gate_report
from trainer.records import Evaluation, ParityReport, PolicyRecord, RunRequest, RunState

EVALUATION = Evaluation(
    version=2,
    baseline_version=0,
    reward=0.75,
    baseline_reward=0.5,
    by_language={"de": (0.75, 0.5)},
    fidelity={"de": (1.0, 0.875)},
    rejected={},
)
POLICY = PolicyRecord(2, "adapter", 0, "run_1", EPOCH, "ab" * 32, ParityReport(64, 0.01, 0.05), EVALUATION)


@pytest.fixture
def operator(client: httpx.AsyncClient, admin_key: dict[str, str]) -> httpx.AsyncClient:
    """A client with the admin key."""
    client.headers.update(admin_key)
    return client


async def test_starting_a_run_is_201_with_its_location(operator: httpx.AsyncClient, node: FakeNode) -> None:
    """Every field reaches the node; the Location answers with the same run."""
    body = {
        "languages": ["de", "en"],
        "steps": 3,
        "group_size": 4,
        "prompts_per_step": 2,
        "max_tokens": 32,
        "learning_rate": 0.001,
        "publish_every": 1,
        "gate": False,
        "seed": 7,
    }
    response = await operator.post("/admin/tuning/runs", json=body)
    assert response.status_code == 201
    assert response.headers["Location"] == "/admin/tuning/runs/run_1"
    assert node.tuning.runs["run_1"].request == RunRequest(
        languages=("de", "en"),
        steps=3,
        group_size=4,
        prompts_per_step=2,
        max_tokens=32,
        learning_rate=0.001,
        publish_every=1,
        gate=False,
        seed=7,
    )
    assert (await operator.get(response.headers["Location"])).json() == response.json()


async def test_an_empty_body_takes_the_nodes_configuration(operator: httpx.AsyncClient, node: FakeNode) -> None:
    """Nothing chosen is RunRequest's defaults, with a seed that the run shows."""
    response = await operator.post("/admin/tuning/runs", json={})
    assert response.status_code == 201
    assert node.tuning.runs["run_1"].request == RunRequest(seed=response.json()["request"]["seed"])


def test_runs_that_choose_no_seed_have_one_each() -> None:
    """Two of them do not draw the same prompts with the same noise, nor answer the gate with it; one that names a seed,
    0 too, gets it. All had 0."""
    drawn = {RunBody().request().seed for _ in range(8)}
    assert len(drawn) == 8
    assert all(0 <= seed < 2**31 for seed in drawn)
    assert RunBody(seed=0).request().seed == 0


async def test_a_second_run_is_409_with_the_running_id(operator: httpx.AsyncClient) -> None:
    """One run at a time; the problem says which one runs."""
    await operator.post("/admin/tuning/runs", json={})
    response = await operator.post("/admin/tuning/runs", json={})
    assert response.status_code == 409
    assert response.json()["code"] == "conflict"
    assert response.json()["running_id"] == "run_1"


async def test_a_language_that_no_tenant_has_is_422(operator: httpx.AsyncClient, node: FakeNode) -> None:
    """The node's InvalidInput names field and rule."""
    node.tuning.error = InvalidInput("languages", "must be among de, en, got xx")
    response = await operator.post("/admin/tuning/runs", json={"languages": ["xx"]})
    assert response.status_code == 422
    assert response.json()["detail"] == "languages must be among de, en, got xx"


async def test_a_group_of_one_is_422(operator: httpx.AsyncClient) -> None:
    """The advantage of a group of one is undefined."""
    response = await operator.post("/admin/tuning/runs", json={"group_size": 1})
    assert response.status_code == 422
    assert response.json()["detail"] == "group_size must be between 2 and 256, got 1"


async def test_a_run_shows_its_steps_and_how_it_ended(operator: httpx.AsyncClient, node: FakeNode) -> None:
    """A measurement that was not finite is null; the reason of a failure is told."""
    node.tuning.reports = [step_report(1, reward=0.25), step_report(2, reward=0.5, loss=math.nan)]
    node.tuning.ends, node.tuning.reason = RunState.FAILED, "loss must be finite, got nan at step 2"
    await operator.post("/admin/tuning/runs", json={"steps": 2})
    first = (await operator.get("/admin/tuning/runs/run_1")).json()
    assert (first["state"], first["steps_done"], first["num_steps"]) == ("running", 1, 2)
    last = (await operator.get("/admin/tuning/runs/run_1")).json()
    assert (last["state"], last["reason"]) == ("failed", "loss must be finite, got nan at step 2")
    assert [step["reward_mean"] for step in last["steps"]] == [0.25, 0.5]
    assert [step["loss"] for step in last["steps"]] == [0.1, None]
    assert last["published"] == []


async def test_runs_are_listed_newest_first_without_steps(operator: httpx.AsyncClient) -> None:
    """The list stays small."""
    await operator.post("/admin/tuning/runs", json={})
    await operator.post("/admin/tuning/runs/run_1/stop")
    await operator.post("/admin/tuning/runs", json={})
    runs = (await operator.get("/admin/tuning/runs")).json()["runs"]
    assert [(run["id"], run["state"]) for run in runs] == [("run_2", "running"), ("run_1", "stopped")]
    assert "steps" not in runs[0]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/admin/tuning/runs/run_9"),
        ("POST", "/admin/tuning/runs/run_9/stop"),
        ("POST", "/admin/policies/9/activate"),
    ],
)
async def test_what_does_not_exist_is_404(operator: httpx.AsyncClient, method: str, path: str) -> None:
    """With the code of a missing thing, which is not that of a missing route."""
    response = await operator.request(method, path)
    assert (response.status_code, response.json()["code"]) == (404, "not_found")


async def test_policies_show_parity_evaluation_and_which_one_is_active(
    operator: httpx.AsyncClient, node: FakeNode
) -> None:
    """Newest first; pairs are named."""
    node.policies.records[2] = POLICY
    listed = (await operator.get("/admin/policies")).json()
    assert listed["active_version"] == 0
    assert [(policy["version"], policy["active"]) for policy in listed["policies"]] == [(2, False), (0, True)]
    newest = listed["policies"][0]
    assert newest["parity"] == {"num_tokens": 64, "mean": 0.01, "max": 0.05}
    assert newest["evaluation"]["by_language"] == {"de": {"candidate": 0.75, "baseline": 0.5}}
    assert newest["evaluation"]["fidelity"] == {"de": {"candidate": 1.0, "baseline": 0.875}}


async def test_a_policy_shows_how_the_gate_decided(operator: httpx.AsyncClient, node: FakeNode) -> None:
    """Verdict, words and figures by language and metric; a policy that was recorded without a report shows none."""
    evaluation = replace(EVALUATION, report=gate_report(("de", "reward", 0.25)))
    node.policies.records[2] = replace(POLICY, evaluation=evaluation)
    node.policies.records[1] = replace(POLICY, version=1)
    newest, older, _ = (await operator.get("/admin/policies")).json()["policies"]
    report = newest["evaluation"]["report"]
    assert (report["verdict"], report["num_prompts"]) == ("undetermined", {"de": 16, "fr": 0})
    assert report["undetermined"] == {"fr": "no held-out prompt, at least 8 are needed"}
    assert [report["comparisons"][0][name] for name in ("difference", "margin", "verdict")] == [0.25, 0.05, "passed"]
    assert (report["improvement"]["shown"], report["drift"]["de"]["kl"], report["texts"]) == (True, 0.0625, [])
    assert older["evaluation"]["report"] is None


async def test_activating_a_policy_makes_it_the_active_one(operator: httpx.AsyncClient, node: FakeNode) -> None:
    """Forward and back."""
    node.policies.records[2] = POLICY
    for version in (2, 0):
        response = await operator.post(f"/admin/policies/{version}/activate")
        assert (response.json()["version"], response.json()["active"]) == (version, True)
        assert node.policies.active_version == version


async def test_a_failed_activation_says_why_and_that_serving_goes_on(
    operator: httpx.AsyncClient, node: FakeNode
) -> None:
    """The operator sees the reason, unlike a tenant."""
    node.policies.error = PublicationFailed("the manifest's digest must be ab12, got cd34")
    response = await operator.post("/admin/policies/0/activate")
    assert response.status_code == 500
    assert response.json()["detail"] == (
        "the manifest's digest must be ab12, got cd34. The policy that was serving still serves."
    )


async def test_an_interrupted_run_goes_on(operator: httpx.AsyncClient, node: FakeNode) -> None:
    """The answer is the running run, which says after how many steps it was resumed; a second time is 409."""
    await operator.post("/admin/tuning/runs", json={})
    node.tuning.runs["run_1"] = replace(
        node.tuning.runs["run_1"], state=RunState.INTERRUPTED, steps=(step_report(1),), reason="the node stopped"
    )
    assert (await operator.get("/admin/tuning/runs/run_1")).json()["state"] == "interrupted"
    response = await operator.post("/admin/tuning/runs/run_1/resume")
    body = response.json()
    assert (response.status_code, body["state"], body["resumed_after"]) == (200, "running", [1])
    assert (await operator.post("/admin/tuning/runs/run_1/resume")).status_code == 409
    assert (await operator.post("/admin/tuning/runs/run_9/resume")).status_code == 404
