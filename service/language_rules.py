"""What the settings of one tenant's language must keep to beyond their types, and what is odd about them.

A message reads ``path: rule, got what``. Rules are broken or kept; an oddity is accepted and said: in the answer of the
admin route that wrote it, and in the log.
"""

from collections.abc import Collection, Iterator

from agent.config import LanguageSettings, TenantSettings
from agent.language import find_language, primary_code
from agent.own_template import template_flaw


def language_rules(settings: LanguageSettings, path: str) -> Iterator[str]:
    """A message for each rule that the settings at ``path`` break."""
    for kind, template in settings.prompts.model_dump(exclude_none=True).items():
        if flaw := template_flaw(template):
            yield f"{path}.prompts.{kind}: {flaw}"
    for code in settings.foreign_languages:
        if find_language(code) is None:
            yield f"{path}.foreign_languages: must be ISO 639-1 codes, got {code[:35]!r}"
    if settings.foreign_languages and settings.foreign_share == 0:
        yield f"{path}.foreign_languages: needs a foreign_share above 0, got 0"


def fallback_rules(tenant: TenantSettings, prefix: str = "") -> Iterator[str]:
    """A message when the fallback is none of the tenant's languages."""
    code = tenant.fallback_language
    if code is not None and code not in tenant.languages:
        known = ", ".join(sorted(tenant.languages))
        yield f"{prefix}fallback_language: must be one of the tenant's languages ({known}), got {code[:35]!r}"


def language_oddities(
    tenant: TenantSettings, *, second_labels: Collection[str], templates: Collection[str]
) -> Iterator[str]:
    """What an operator should know about a tenant's languages.

    Args:
        second_labels: languages that the gate's own detector tells apart; one that it cannot is not guarded by it.
        templates: languages with prompt templates of their own.
    """
    for code in tenant.languages:
        if primary_code(code) not in second_labels:
            yield (
                f"languages.{code}: the promotion gate's detector cannot tell it, so that a policy which leaves the "
                "language is found by the reward's detector alone"
            )
        if primary_code(code) not in templates:
            yield f"languages.{code}: has no prompt templates of its own, so that English ones name it"
