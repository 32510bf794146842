"""The configuration of the demo's node: the embedded defaults, and what makes a short run on two cores show something."""

from collections.abc import Sequence

MODEL = "smollm2-135m-instruct"
REPLY_TOKENS = 32
"""Longest reply of the demo."""

_TEMPLATE = """\
# Written by `coloq demo`. Everything that is not here has its default.
data_dir = "data"

[server]
port = 0

[engine]
model = "{model}"
max_num_seqs = 32

[store]
held_out_share = 0.4

[agent]
temperature = 0.7
max_tokens = {reply_tokens}

# Short copy was asked for: length counts as much as the language.
[rewards.weights]
fidelity = 1.0
length = 1.0
repetition = 0.5
substance = 0.5

[tuning]
max_tokens = {reply_tokens}
prompts_per_step = 4
group_size = 6
learning_rate = 2e-3
microbatch_size = 16

[tuning.adapter]
rank = 8
alpha = 16.0
target_modules = ["q_proj", "v_proj", "o_proj", "down_proj"]

# Two replies to the same held-out prompt differ by more than the default margin allows for so few prompts.
[tuning.gate]
num_prompts = {gate_prompts}
margin = 0.1

[[tenants]]
id = "demo"
key_hashes = ["{key_hash}"]
{languages}"""

GATE_PROMPTS = 32


def configuration(key_hash: str, languages: Sequence[str]) -> str:
    """The node's TOML for one tenant with these languages."""
    return _TEMPLATE.format(
        model=MODEL,
        reply_tokens=REPLY_TOKENS,
        gate_prompts=GATE_PROMPTS,
        key_hash=key_hash,
        languages="".join(f"\n[tenants.languages.{language}]\n" for language in languages),
    )
