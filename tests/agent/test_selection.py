"""What a step may claim."""

from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from agent.brief import Brief, Kind
from agent.completion import Completion, FinishReason, Sampling, VersionSpan
from agent.episode import Episode, PromptRef
from agent.selection import PassedOver, Selection, share_of
from agent.verdict import LanguageVerdict, Verdict


def _episode(prompt: int, tenant: str = "acme", end_user: str | None = None) -> Episode:
    completion = Completion("a", (prompt, 2), (97,), (-1.0,), Sampling(8), FinishReason.STOP, VersionSpan(0, 0))
    return Episode(
        f"{tenant}-{prompt}",
        datetime(2026, 1, 1, tzinfo=UTC),
        Brief(tenant, Kind.CREATE, "de", instructions="x", end_user=end_user),
        PromptRef("v1", "create", "de"),
        (completion,),
        0,
        LanguageVerdict("de", Verdict.UNDETERMINED, None, ()),
    )


def test_a_prompt_is_its_token_ids() -> None:
    """Whoever sent it, under whichever id; another order or another length is another prompt."""
    first = _episode(1)
    assert first.prompt_digest == _episode(1, tenant="zeta").prompt_digest
    swapped = replace(first.completions[0], prompt_token_ids=(2, 1))
    longer = replace(first.completions[0], prompt_token_ids=(1, 2, 0))
    digests = {replace(first, completions=(item,)).prompt_digest for item in (first.completions[0], swapped, longer)}
    assert len(digests) == 3


def test_a_tenant_has_no_more_than_its_cap() -> None:
    """Its third prompt is refused, another tenant's is not; one that is given back makes room for one."""
    selection = Selection(per_tenant=2)
    selection.take(_episode(1))
    assert selection.has_room("acme")
    selection.take(_episode(2))
    assert not selection.has_room("acme")
    assert selection.flaw_of_fresh(_episode(3)) is PassedOver.TENANT_CAPPED
    assert selection.flaw_of_fresh(_episode(4, "zeta")) is None
    selection.give_back(_episode(1))
    assert selection.flaw_of_fresh(_episode(3)) is None


def test_an_end_user_has_no_more_than_its_cap() -> None:
    """The id is the tenant's own: the same one of another tenant is another person, and no id is no person."""
    selection = Selection(per_end_user=1)
    selection.take(_episode(1, end_user="u1"))
    assert selection.flaw_of_fresh(_episode(2, end_user="u1")) is PassedOver.END_USER_CAPPED
    assert selection.flaw_of_fresh(_episode(2, end_user="u2")) is None
    assert selection.flaw_of_fresh(_episode(2, "zeta", end_user="u1")) is None
    selection.take(_episode(3))
    assert selection.flaw_of_fresh(_episode(4)) is None


def test_a_prompt_of_the_run_is_a_duplicate_when_fresh_and_may_be_repeated() -> None:
    """In the step that took it, it may not even be repeated, until it is given back; the run remembers it."""
    tally: Counter[str] = Counter()
    earlier = Selection(tally=tally)
    earlier.take(_episode(1))
    step = Selection(tally=tally)
    assert step.flaw_of_fresh(_episode(1)) is PassedOver.DUPLICATE
    assert step.flaw_of_repeated(_episode(1)) is None
    step.take(_episode(1))
    assert step.flaw_of_repeated(_episode(1, "zeta")) is PassedOver.DUPLICATE
    step.give_back(_episode(1))
    assert step.flaw_of_repeated(_episode(1)) is None
    assert (tally[_episode(1).prompt_digest], step.num_prompts) == (2, 1)


def test_reasons_are_counted() -> None:
    """By name, and only what happened."""
    selection = Selection()
    for reason in (PassedOver.DUPLICATE, PassedOver.END_USER_CAPPED, PassedOver.DUPLICATE):
        selection.pass_over(reason)
    assert selection.passed_over == {"duplicate": 2, "end_user_capped": 1}


@pytest.mark.parametrize(
    ("num_prompts", "share", "cap"),
    [(4, 1.0, None), (4, 0.5, 2), (5, 0.5, 2), (4, 0.1, 1), (100, 0.29, 29), (1, 0.5, 1)],
)
def test_a_share_is_rounded_down_to_one_prompt_at_the_least(num_prompts: int, share: float, cap: int | None) -> None:
    """0.29 * 100 is 28.999999999999996 in floats and 29 all the same; the whole is no cap."""
    assert share_of(num_prompts, share) == cap
