"""Program: a GGUF file becomes a plain model folder in bf16 that transformers and vLLM load.

    python -m service.models.convert WEIGHTS.gguf FOLDER [--chat-template JINJA]

Prints a line per stage. Ends at once when its standard input is a pipe that closes, so that it never outlives a parent
that gave it one.
"""

import argparse
import json
import os
import stat
import threading
from pathlib import Path
from typing import Any

import torch
from gguf import GGUFReader
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig
from transformers.utils import logging


def main() -> None:
    """Convert what the command line names."""
    parser = argparse.ArgumentParser(prog="service.models.convert")
    parser.add_argument("weights", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--chat-template")
    arguments = parser.parse_args()
    threading.Thread(target=end_with_parent, daemon=True).start()
    logging.disable_progress_bar()
    _say("reading the tokenizer")
    save_tokenizer(arguments.weights, arguments.folder, arguments.chat_template)
    _say("unpacking the weights")
    save_model(arguments.weights, arguments.folder)
    add_legacy_rope(arguments.folder / "config.json")


def save_tokenizer(weights: Path, folder: Path, chat_template: str | None) -> None:
    """Write the tokenizer; `chat_template` is used when the GGUF file has none."""
    # transformers ignores the file's add_bos_token, and Gemma without its first token only repeats the prompt.
    tokenizer = AutoTokenizer.from_pretrained(
        weights.parent, gguf_file=weights.name, add_bos_token=adds_bos(weights), local_files_only=True
    )
    tokenizer.chat_template = tokenizer.chat_template or chat_template
    tokenizer.save_pretrained(folder)


def adds_bos(weights: Path) -> bool:
    """Whether the GGUF file says that texts begin with the beginning-of-sequence token."""
    field = GGUFReader(weights).get_field("tokenizer.ggml.add_bos_token")
    return field is not None and bool(field.contents())


def save_model(weights: Path, folder: Path) -> None:
    """Write weights, configuration and generation defaults. Without `dequantize` the weights stay packed."""
    name = weights.name
    model = AutoModelForCausalLM.from_pretrained(
        weights.parent,
        gguf_file=name,
        dtype=torch.bfloat16,
        quantization_config=GgufConfig(gguf_file=name, dequantize=True),
        local_files_only=True,
    )
    model.save_pretrained(folder)


def add_legacy_rope(path: Path) -> None:
    """Repeat `rope_parameters` of a config.json in the fields that transformers 4 reads."""
    config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    rope = config["rope_parameters"]
    config["rope_theta"] = rope.get("full_attention", rope)["rope_theta"]
    if "sliding_attention" in rope:
        config["rope_local_base_freq"] = rope["sliding_attention"]["rope_theta"]
    path.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def _say(line: str) -> None:
    print(line, flush=True)


def end_with_parent() -> None:
    """End this process when its standard input, a pipe, closes; run it in a thread of its own."""
    if stat.S_ISFIFO(os.fstat(0).st_mode):  # of /dev/null, too, nothing can be read
        os.read(0, 1)
        os._exit(1)


if __name__ == "__main__":
    main()
