"""The operator's routes of reward models: train, see, activate, roll back."""

from typing import Annotated

from fastapi import APIRouter, Path, Response, Security
from starlette.requests import Request

from service.http.guard import ADMIN_KEY, AdminRoute, changed
from service.http.openapi import problems
from service.http.reward_model_schema import (
    MAX_TRAININGS,
    ActivateBody,
    LanguageSummary,
    LanguageView,
    RewardModelList,
    RewardTrainingView,
    TrainBody,
)
from service.http.state import Parts
from service.tenancy.audit import digest

router = APIRouter(
    prefix="/admin/rewards",
    tags=["admin"],
    route_class=AdminRoute,
    dependencies=[Security(ADMIN_KEY)],
    responses=problems(401, 403, 503),
)

Language = Annotated[str, Path(min_length=2, max_length=35, description="ISO 639-1 code of a tenant's language.")]
TrainingId = Annotated[str, Path(min_length=1, max_length=64, description="A training's id.")]
_LOCATION = {"Location": {"description": "Where the training's status is.", "schema": {"type": "string"}}}
_WRITES = problems(400, 404, 409, 413, 415, 422)


@router.get("", summary="Reward models of every language", responses=problems(500))
async def list_reward_models(parts: Parts) -> RewardModelList:
    """Active version, versions with accuracy and numbers of pairs; a tenant's language without any is there too."""
    desk = parts.node.reward_models
    trainings = (await desk.trainings())[:MAX_TRAININGS]
    return RewardModelList(
        languages=[LanguageSummary.of(models) for models in await desk.list()],
        trainings=[RewardTrainingView.of(status) for status in trainings],
    )


@router.get("/trainings/{training}", summary="A training of a reward model", responses=problems(404, 422))
async def get_reward_training(training: TrainingId, parts: Parts) -> RewardTrainingView:
    """Poll it while `state` is `running`."""
    return RewardTrainingView.of(await parts.node.reward_models.training(training))


@router.post("/trainings/{training}/cancel", summary="Cancel a training", responses=problems(404, 422))
async def cancel_reward_training(training: TrainingId, parts: Parts) -> RewardTrainingView:
    """Nothing of it is kept. One that has ended is returned as it is."""
    return RewardTrainingView.of(await parts.node.reward_models.cancel(training))


@router.get("/{language}", summary="One language's reward models", responses=problems(404, 422, 500))
async def get_reward_models(language: Language, parts: Parts) -> LanguageView:
    """Each version with what it was worth on held-out pairs, and the gate's verdict."""
    return LanguageView.of(await parts.node.reward_models.of(language))


@router.post(
    "/{language}/train",
    status_code=202,
    summary="Train a reward model from people's feedback",
    responses={202: {"headers": _LOCATION}, **_WRITES},
)
async def train_reward_model(
    language: Language, body: TrainBody, request: Request, response: Response, parts: Parts
) -> RewardTrainingView:
    """On the CPU, beside serving. One training at a time: while one is running, the answer is 409 with its id in
    `running_id`. With too few pairs it is 409 with the counts. The new version is activated when it ranks held-out
    pairs better than the active one, and kept as rejected otherwise."""
    status = await parts.node.reward_models.train(language, body.request())
    changed(request, before=None, after=_digest(language, status.version))
    response.headers["Location"] = f"/admin/rewards/trainings/{status.id}"
    return RewardTrainingView.of(status)


@router.post(
    "/{language}/activate", summary="Roll back or forward to a version", responses={**_WRITES, **problems(500)}
)
async def activate_reward_model(language: Language, body: ActivateBody, request: Request, parts: Parts) -> LanguageView:
    """An accepted version judges from now on; 0 judges by none."""
    desk = parts.node.reward_models
    before = (await desk.of(language)).active
    models = await desk.activate(language, body.version)
    changed(request, before=_digest(language, before), after=_digest(language, models.active))
    return LanguageView.of(models)


def _digest(language: str, version: int | None) -> str | None:
    return digest(f"{language} {version}") if version is not None else None
