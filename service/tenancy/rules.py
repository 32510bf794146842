"""What a tenant's settings must keep to beyond their types: languages the detector knows, parts a judge scores."""

from collections.abc import Collection
from dataclasses import dataclass

from agent.config import TenantSettings
from agent.errors import InvalidInput
from service.config_file import tenant_rules, unknown_languages


@dataclass(frozen=True, slots=True)
class TenantRules:
    """The rules of one node."""

    labels: Collection[str]
    """Languages that the detector tells apart."""
    parts: Collection[str]
    """Names that a reward weight may have."""

    def check(self, settings: TenantSettings) -> None:
        """Pass, or name the field and the rule.

        Raises:
            InvalidInput: a rule is broken; further ones follow in the message.
        """
        problems = [*tenant_rules(settings, self.parts), *unknown_languages(settings, self.labels)]
        if settings.key_hashes:
            problems.append("key_hashes: must be empty here; keys are made at /admin/tenants/{id}/keys")
        if problems:
            field, _, message = problems[0].partition(": ")
            raise InvalidInput(field, "; ".join([message, *problems[1:]]))
