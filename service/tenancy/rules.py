"""What a tenant's settings must keep to beyond their types: languages the detector knows, parts a judge scores.

What may be, but should be known, is a warning.
"""

from collections.abc import Collection
from dataclasses import dataclass

from agent.config import TenantSettings
from agent.errors import InvalidInput
from service.config_file import tenant_rules, unknown_languages
from service.language_rules import language_oddities


@dataclass(frozen=True, slots=True)
class TenantRules:
    """The rules of one node."""

    labels: Collection[str]
    """Languages that the detector tells apart."""
    parts: Collection[str]
    """Names that a reward weight may have."""
    second_labels: Collection[str] | None = None
    """Languages that the gate's own detector tells apart; None warns of none."""
    templates: Collection[str] | None = None
    """Languages with prompt templates of their own; None warns of none."""

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

    def warnings(self, settings: TenantSettings) -> tuple[str, ...]:
        """What is accepted and odd, each with its field."""
        second = self.second_labels if self.second_labels is not None else settings.languages
        templates = self.templates if self.templates is not None else settings.languages
        return tuple(language_oddities(settings, second_labels=second, templates=templates))
