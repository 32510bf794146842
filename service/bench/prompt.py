"""Prompts of a wanted length: instructions are filled with words until the node counts that many tokens."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import msgspec

from agent.brief import Brief, Kind
from agent.prompt import PromptLibrary
from service.bench.client import LANGUAGE, ContentClient, connections_to
from service.bench.failure import BenchFailed
from service.bench.load import Closed, Exchange, LoadPlan, PromptRecipe, Target

WORDS = tuple("all human beings are born free and equal in dignity and rights".split())
"""Of the sentences that service.bench.tokenizer learns; about one token each for any model that knows English."""
_TOLERANCE = 0.05
_NUM_SAMPLES = 4
_MAX_ROUNDS = 8
_MARKER = "INSTRUCTIONS"


async def calibrate(target: Target, wanted_tokens: int, *, seed: int) -> PromptRecipe:
    """A recipe whose prompts have ``wanted_tokens`` at the node, within 5 % on the mean.

    Raises:
        BenchFailed: the node's own template is longer than that, or it does not answer.
    """
    recipe = PromptRecipe(WORDS, 1, seed)
    shortest = await _prompt_tokens(target, recipe)
    if shortest > wanted_tokens * (1 + _TOLERANCE):
        raise BenchFailed(f"prompts must be {wanted_tokens} tokens, but the node's templates make {shortest:.0f}")
    measured, tokens_per_word = shortest, 1.0
    for _ in range(_MAX_ROUNDS):
        if abs(measured - wanted_tokens) <= _TOLERANCE * wanted_tokens:
            return recipe
        more = round((wanted_tokens - measured) / tokens_per_word)
        recipe = msgspec.structs.replace(recipe, num_words=max(1, recipe.num_words + more))
        measured = await _prompt_tokens(target, recipe)
        if recipe.num_words > 1:
            tokens_per_word = max((measured - shortest) / (recipe.num_words - 1), 0.1)
    raise BenchFailed(f"prompts must come within 5 % of {wanted_tokens} tokens, got {measured:.0f}")


def at_server_without_templates(recipe: PromptRecipe, model: Path) -> PromptRecipe:
    """The recipe for a server that is sent what a node would send to its engine: template and chat markup included."""
    from transformers import AutoTokenizer

    prompt = PromptLibrary.load().render(Brief("bench", Kind.CREATE, LANGUAGE, instructions=_MARKER))
    messages = [{"role": "system", "content": prompt.system}, {"role": "user", "content": prompt.user}]
    tokenizer = AutoTokenizer.from_pretrained(model)
    text = str(tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False))
    before, _, after = text.partition(_MARKER)
    return msgspec.structs.replace(recipe, before=before, after=after)


async def _prompt_tokens(target: Target, recipe: PromptRecipe) -> float:
    """Mean tokens of some prompts."""
    plan = LoadPlan(target, Closed(1), recipe, max_tokens=1, temperature=1.0, warmup_s=0, duration_s=0, seed=0)
    connections = connections_to(target)
    try:
        client = ContentClient(plan, connections)
        exchanges = await asyncio.gather(*(client.send(number, 0.0) for number in range(_NUM_SAMPLES)))
    finally:
        await connections.close()
    return _mean_tokens(exchanges)


def _mean_tokens(exchanges: Sequence[Exchange]) -> float:
    counts = [item.prompt_tokens for item in exchanges if item.prompt_tokens is not None]
    if len(counts) < len(exchanges):
        raise BenchFailed(f"the node must answer while prompts are calibrated, got {exchanges[0].error}")
    return sum(counts) / len(counts)
