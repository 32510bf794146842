"""The configuration of the demo's node: the embedded defaults, and settings for a run of minutes on two cores."""

from collections.abc import Sequence

MODEL = "smollm2-135m-instruct"
REPLY_TOKENS = 32
"""Longest reply of the demo."""
GATE_PROMPTS = 6
"""Held-out prompts of the gate, in each language."""

_TEMPLATE = """\
# Written by `coloq demo`. Everything that is not here has its default.
data_dir = "data"

[server]
port = 0

[engine]
model = "{model}"
max_num_seqs = 32

[store]
held_out_share = 0.55

[agent]
temperature = 0.5
max_tokens = {reply_tokens}

# Short copy was asked for: length counts most. The other parts weigh their defaults.
[rewards.weights]
length = 2.0

# Few cores both serve and train here: held to the default of 1.05, tuning would wait for the demo's own clients.
[slo]
ratio = 10.0

[tuning]
max_tokens = {reply_tokens}
prompts_per_step = 6
group_size = 4
learning_rate = 1.5e-3

[tuning.adapter]
rank = 8
alpha = 16.0
target_modules = ["q_proj", "v_proj", "o_proj", "down_proj"]

# The default margins: a language that got worse by more than chance stops the candidate. Few short replies cannot show
# that none did: what stays undetermined is published, as by default, and the report says how many prompts would do.
[tuning.gate]
num_prompts = {gate_prompts}
num_replies = {gate_prompts}

[[tenants]]
id = "demo"
key_hashes = ["{key_hash}"]
{languages}"""


def configuration(key_hash: str, languages: Sequence[str]) -> str:
    """The node's TOML for one tenant with these languages."""
    return _TEMPLATE.format(
        model=MODEL,
        reply_tokens=REPLY_TOKENS,
        gate_prompts=GATE_PROMPTS,
        key_hash=key_hash,
        languages="".join(f"\n[tenants.languages.{language}]\n" for language in languages),
    )
