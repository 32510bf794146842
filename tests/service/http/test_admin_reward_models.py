"""The operator's routes of reward models."""

import httpx
import pytest

from agent.errors import RewardModelFailed, TooFewPairs
from service.http.fakes import FakeNode
from service.reward_models.fakes import shelved
from service.reward_models.records import TrainingState
from service.reward_models.shelf import LanguageModels
from service.reward_models.trainings import TrainingRequest


@pytest.fixture
def operator(client: httpx.AsyncClient, admin_key: dict[str, str]) -> httpx.AsyncClient:
    """A client with the admin key."""
    client.headers.update(admin_key)
    return client


@pytest.fixture
def node(node: FakeNode) -> FakeNode:
    """German has an active version that ranked 9 of 10 pairs right, and a rejected one that ranked 5 of 10 right."""
    node.reward_models.models["de"] = LanguageModels("de", 1, (shelved(2, num_right=5, num_wrong=5), shelved(1)))
    return node


async def test_training_is_202_with_its_location(operator: httpx.AsyncClient, node: FakeNode) -> None:
    """What was chosen reaches the node; the location tells how far it is, and in the end why it was accepted."""
    node.reward_models.reason = "it ranks 9 held-out prompts better"
    body = {"epochs": 3, "learning_rate": 0.001, "rank": 8, "seed": 7}
    response = await operator.post("/admin/rewards/de/train", json=body)
    assert response.status_code == 202
    assert node.reward_models.requests == [TrainingRequest(3, 0.001, 8, 7)]
    assert response.json()["num_training"] == {"edit": 90, "rating": 10}
    assert response.headers["Location"] == "/admin/rewards/trainings/training_1"
    first = (await operator.get(response.headers["Location"])).json()
    assert (first["state"], first["step"], first["num_steps"], first["loss"]) == ("running", 1, 2, 0.5)
    last = (await operator.get(response.headers["Location"])).json()
    assert (last["state"], last["reason"]) == ("accepted", "it ranks 9 held-out prompts better")


async def test_an_empty_body_takes_the_configuration(operator: httpx.AsyncClient, node: FakeNode) -> None:
    """Nothing chosen is TrainingRequest's defaults."""
    assert (await operator.post("/admin/rewards/de/train", json={})).status_code == 202
    assert node.reward_models.requests == [TrainingRequest()]


@pytest.mark.parametrize("body", [{"epochs": 0}, {"rank": 257}, {"learning_rate": 0}, {"seed": -1}, {"steps": 3}])
async def test_settings_out_of_bounds_are_422(operator: httpx.AsyncClient, body: dict[str, float]) -> None:
    """With the field's name."""
    response = await operator.post("/admin/rewards/de/train", json=body)
    assert response.status_code == 422
    assert response.json()["errors"][0]["field"] == next(iter(body))


async def test_a_second_training_is_409_with_the_running_id(operator: httpx.AsyncClient) -> None:
    """One at a time; cancelling it makes way."""
    await operator.post("/admin/rewards/de/train", json={})
    refused = await operator.post("/admin/rewards/en/train", json={})
    assert (refused.status_code, refused.json()["running_id"]) == (409, "training_1")
    cancelled = await operator.post("/admin/rewards/trainings/training_1/cancel")
    assert (cancelled.status_code, cancelled.json()["state"]) == (200, "cancelled")
    assert (await operator.post("/admin/rewards/en/train", json={})).status_code == 202


async def test_too_few_pairs_are_409_with_the_counts(operator: httpx.AsyncClient, node: FakeNode) -> None:
    """Under a code of their own."""
    node.reward_models.error = TooFewPairs("a reward model for de needs at least 100 training pairs, got 3 (edit 3)")
    response = await operator.post("/admin/rewards/de/train", json={})
    assert (response.status_code, response.json()["code"]) == (409, "too_few_pairs")
    assert "got 3 (edit 3)" in response.json()["detail"]


async def test_languages_are_listed_with_versions_and_accuracy(operator: httpx.AsyncClient) -> None:
    """Also one without any; trainings stand beside them."""
    await operator.post("/admin/rewards/de/train", json={})
    listed = (await operator.get("/admin/rewards")).json()
    assert [
        (language["language"], language["active_version"], language["accuracy"]) for language in listed["languages"]
    ] == [
        ("de", 1, 0.9),
        ("en", None, None),
    ]
    versions = listed["languages"][0]["versions"]
    assert [(item["version"], item["active"], item["accepted"], item["accuracy"]) for item in versions] == [
        (2, False, False, 0.5),
        (1, True, True, 0.9),
    ]
    assert [(item["num_pairs"], item["num_held_out"]) for item in versions] == [(100, 10), (100, 10)]
    assert [training["id"] for training in listed["trainings"]] == ["training_1"]


async def test_a_language_shows_its_reports(operator: httpx.AsyncClient) -> None:
    """9 of 10 votes: (C(10,9) + C(10,10)) / 1024 = 0.0107; margins of ±1, so confidence 0.7311 in one bin."""
    view = (await operator.get("/admin/rewards/de")).json()
    report = view["versions"][1]["report"]
    assert report["verdict"]["p_value"] == pytest.approx(11 / 1024)
    assert report["verdict"]["reason"].startswith("it ranks 9 held-out prompts better than chance and 1 worse")
    assert report["candidate"]["accuracy"] == pytest.approx(
        {"num_pairs": 10, "value": 0.9, "low": 0.5958, "high": 0.9821}, abs=1e-4
    )
    assert report["candidate"]["calibration_error"] == pytest.approx(0.9 - 0.7311, abs=1e-4)
    assert report["candidate"]["by_source"]["edit"]["num_pairs"] == 10
    assert report["baseline"] is None


async def test_activating_flips_the_version_and_is_audited(operator: httpx.AsyncClient, node: FakeNode) -> None:
    """Digests of before and after; 0 judges by none."""
    response = await operator.post("/admin/rewards/de/activate", json={"version": 0})
    assert (response.status_code, response.json()["active_version"]) == (200, None)
    assert (await operator.post("/admin/rewards/de/activate", json={"version": 1})).json()["active_version"] == 1
    none, back = node.audit.entries
    assert (none.action, none.path) == ("activate_reward_model", "/admin/rewards/de/activate")
    assert none.before == back.after
    assert none.before is not None
    assert none.after is back.before is None


async def test_training_and_cancelling_are_audited(operator: httpx.AsyncClient, node: FakeNode) -> None:
    """As every act of an operator."""
    await operator.post("/admin/rewards/de/train", json={})
    await operator.post("/admin/rewards/trainings/training_1/cancel")
    assert [entry.action for entry in node.audit.entries] == ["train_reward_model", "cancel_reward_training"]


async def test_a_damaged_version_says_so(operator: httpx.AsyncClient, node: FakeNode) -> None:
    """The operator sees what is wrong, and that judging goes on."""
    node.reward_models.error = RewardModelFailed("reward model de/v1/adapter_model.safetensors must have sha256 ab")
    response = await operator.post("/admin/rewards/de/activate", json={"version": 1})
    assert (response.status_code, response.json()["code"]) == (500, "reward_model_failed")
    assert response.json()["detail"] == (
        "reward model de/v1/adapter_model.safetensors must have sha256 ab. What judged before still judges."
    )


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/admin/rewards/xx"),
        ("POST", "/admin/rewards/xx/train"),
        ("POST", "/admin/rewards/de/activate"),
        ("GET", "/admin/rewards/trainings/training_9"),
        ("POST", "/admin/rewards/trainings/training_9/cancel"),
    ],
)
async def test_what_does_not_exist_is_404(operator: httpx.AsyncClient, method: str, path: str) -> None:
    """A language that no tenant has, a version that was never made, a training that nobody started."""
    body = {"version": 9} if path.endswith("activate") else {}
    response = await operator.request(method, path, json=body)
    assert (response.status_code, response.json()["code"]) == (404, "not_found")


@pytest.mark.parametrize("state", [state for state in TrainingState if state.final])
async def test_every_end_is_shown(operator: httpx.AsyncClient, node: FakeNode, state: TrainingState) -> None:
    """By its name."""
    node.reward_models.ends, node.reward_models.num_steps = state, 1
    await operator.post("/admin/rewards/de/train", json={})
    assert (await operator.get("/admin/rewards/trainings/training_1")).json()["state"] == state.value
