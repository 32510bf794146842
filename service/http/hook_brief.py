"""What an inbound hook makes of a payload: the request that `POST /v1/content` would take."""

from collections.abc import Mapping

from fastapi.exceptions import RequestValidationError
from pydantic import JsonValue, ValidationError

from agent.config import AgentConfig, TenantSettings
from service.http.content_order import ContentOrder
from service.http.content_schema import ContentRequest
from service.webhooks.mapping import PayloadMapping


def brief_of(mapping: Mapping[str, JsonValue], payload: JsonValue) -> ContentRequest:
    """The content request that ``mapping`` makes of ``payload``.

    Raises:
        InvalidInput: an expression cannot be applied.
        RequestValidationError: the fields break a rule of content requests; each error names its field.
    """
    fields = PayloadMapping(mapping, ContentRequest).apply(payload)
    try:
        return ContentRequest.model_validate(fields)
    except ValidationError as error:
        found = [{**item, "loc": ("body", *item["loc"])} for item in error.errors()]
        raise RequestValidationError(found) from error


def checked_brief(
    mapping: Mapping[str, JsonValue], example: JsonValue, tenant: TenantSettings, defaults: AgentConfig
) -> ContentRequest:
    """As ``brief_of``, and the tenant may ask for it. For a mapping that is to be stored.

    Raises:
        InvalidBrief: also when the tenant does not have the language, or the brief's own rules are broken.
    """
    content = brief_of(mapping, example)
    ContentOrder.of(content, tenant, defaults, request_id="")
    return content


def as_fields(content: ContentRequest) -> dict[str, JsonValue]:
    """The request's body as JSON, without what was not given."""
    fields: dict[str, JsonValue] = content.model_dump(mode="json", exclude_unset=True, by_alias=True)
    return fields
