"""Settings for every test: no model hub is asked, and vLLM reports no usage."""

import os

# Set before any test imports transformers or vLLM, which read them once.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["VLLM_NO_USAGE_STATS"] = "1"
os.environ["DO_NOT_TRACK"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
