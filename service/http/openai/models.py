"""What models are called: `coloq` is the tenant's policy, `coloq@v41` one published version that it may have."""

import re
from datetime import datetime
from typing import Literal

from pydantic import BaseModel, Field

from agent.errors import NotFound
from service.http.ports import PolicyPort
from trainer.records import PolicyRecord

ALIAS = "coloq"
"""The model that answers with whatever policy the tenant has now."""

_VERSION = re.compile(rf"{ALIAS}@v(0|[1-9][0-9]{{0,8}})")


def name_of(version: int) -> str:
    """The name of one version."""
    return f"{ALIAS}@v{version}"


async def find_version(model: str, policies: PolicyPort, tenant: str) -> int | None:
    """The policy version that a model's name pins; None for the active one.

    Raises:
        NotFound: no such model, a version that the engine does not hold any longer, or another tenant's.
    """
    if model == ALIAS:
        return None
    match = _VERSION.fullmatch(model)
    if match is None:
        raise NotFound(f"there is no model {model[:60]!r}; use {ALIAS!r}, or one of GET /v1/models")
    return (await policies.find_served(int(match[1]), tenant)).version


class Model(BaseModel):
    """A model's name, in OpenAI's shape."""

    id: str = Field(examples=["coloq@v41"])
    object: Literal["model"] = "model"
    created: int = Field(description="When it was published, in Unix seconds.")
    owned_by: str = ALIAS

    @classmethod
    def of(cls, name: str, created_at: datetime) -> "Model":
        return cls(id=name, created=int(created_at.timestamp()))


class ModelList(BaseModel):
    """What can be asked for now."""

    object: Literal["list"] = "list"
    data: list[Model]

    @classmethod
    def of(cls, served: list[PolicyRecord], active_version: int) -> "ModelList":
        active = next((record for record in served if record.version == active_version), None)
        aliases = [Model.of(ALIAS, active.created_at)] if active is not None else []
        return cls(data=[*aliases, *(Model.of(name_of(record.version), record.created_at) for record in served)])
