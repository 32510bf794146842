"""What a content agent is: briefs, prompts, languages, the language contract, episodes.

No torch, vllm or web framework.
"""
