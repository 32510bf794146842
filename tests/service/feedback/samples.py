"""Episodes for the tests of feedback."""

from datetime import UTC, datetime

from agent.brief import Brief, Kind
from agent.completion import Completion, FinishReason, Sampling, VersionSpan
from agent.episode import Episode, PromptRef
from agent.verdict import LanguageVerdict, Verdict


def episode(
    request_id: str,
    *texts: str,
    prompt: str = "Eine Klingel.",
    language: str = "de",
    tenant: str = "acme",
    served: int = 0,
) -> Episode:
    """One reply, or several texts of which one was served; its prompt's tokens are its letters."""
    completions = tuple(
        Completion(
            text=text,
            prompt_token_ids=tuple(map(ord, prompt)),
            token_ids=(7, 8),
            logprobs=(-0.5, -1.25),
            sampling=Sampling(max_tokens=16),
            finish_reason=FinishReason.STOP,
            versions=VersionSpan(2, 3),
        )
        for text in texts or ("Die neue Klingel ist da.",)
    )
    return Episode(
        id=request_id,
        created_at=datetime(2026, 1, 1, 12, tzinfo=UTC),
        brief=Brief(tenant, Kind.CREATE, language, instructions=prompt, keywords=("Klang",), end_user="anna"),
        prompt=PromptRef("v1", "create", language),
        completions=completions,
        served=served,
        verdict=LanguageVerdict(language, Verdict.PASS, 1.0, ()),
    )
