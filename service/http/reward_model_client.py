"""A client of the admin routes of reward models, for the CLI."""

from service.http.client import AdminClient, segment
from service.http.reward_model_schema import (
    ActivateBody,
    LanguageView,
    RewardModelList,
    RewardTrainingView,
    TrainBody,
)

_ROOT = "/admin/rewards"


class RewardModelClient(AdminClient):
    """Reward models of one node. Every method raises NodeRefused."""

    def reward_models(self) -> RewardModelList:
        """Every language, and the newest trainings."""
        return self._call("GET", _ROOT, RewardModelList)

    def language(self, language: str) -> LanguageView:
        """One language with its reports."""
        return self._call("GET", f"{_ROOT}/{segment(language)}", LanguageView)

    def train(self, language: str, body: TrainBody) -> RewardTrainingView:
        """Start a training."""
        content = body.model_dump_json(exclude_none=True)
        return self._call("POST", f"{_ROOT}/{segment(language)}/train", RewardTrainingView, content=content)

    def training(self, training: str) -> RewardTrainingView:
        """One training."""
        return self._call("GET", f"{_ROOT}/trainings/{segment(training)}", RewardTrainingView)

    def cancel(self, training: str) -> RewardTrainingView:
        """End a training."""
        return self._call("POST", f"{_ROOT}/trainings/{segment(training)}/cancel", RewardTrainingView)

    def activate_version(self, language: str, version: int) -> LanguageView:
        """Judge by a version; by none when it is 0."""
        content = ActivateBody(version=version).model_dump_json()
        return self._call("POST", f"{_ROOT}/{segment(language)}/activate", LanguageView, content=content)
