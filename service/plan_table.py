"""A memory plan for people and for programs: a table, one line, or plain values."""

from io import StringIO
from typing import Any

from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from service.memory_plan import MemoryPlan

_GIB = 2**30
_TEXT_WIDTH = 120


def plan_table(plan: MemoryPlan) -> Group:
    """The whole plan: every line with its size and how it was computed, then what they add up to."""
    table = Table("part", "GiB", "computed as", box=None, pad_edge=False)
    table.columns[0].no_wrap = True
    table.columns[1].justify = "right"
    for line in plan.lines:
        name = f"{line.name.replace('_', ' ')}{' (host)' if line.on_host else ''}"
        table.add_row(name, f"{line.size_bytes / _GIB:.2f}", Text(line.basis))
    table.add_row("total", f"{plan.used_bytes / _GIB:.2f}", Text(_balance(plan)), style="bold")
    if plan.host_bytes and plan.limit_bytes is not None:
        table.add_row("host", f"{plan.host_bytes / _GIB:.2f}", Text("main memory of the host, not checked"))
    size = f", {plan.device_bytes / _GIB:.1f} GiB" if plan.device_bytes is not None else ""
    heading = Text(f"Memory plan: {plan.model} ({plan.num_parameters:,} parameters) on {plan.device}{size}")
    return Group(heading, table, _cache(plan))


def plan_text(plan: MemoryPlan) -> str:
    """What a node says at its start: the table on a GPU; one line on a CPU, where nothing is refused."""
    if plan.limit_bytes is None:
        sizes = {"weights": plan.size_of("weights"), "KV cache": plan.kv_cache_bytes, "training": plan.training_bytes}
        parts = ", ".join(f"{name} {size / _GIB:.2f}" for name, size in sizes.items())
        return f"Memory plan in GiB: {parts}; {plan.used_bytes / _GIB:.2f} in all."
    output = StringIO()
    Console(file=output, width=_TEXT_WIDTH).print(plan_table(plan))
    return output.getvalue().rstrip("\n")


def plan_record(plan: MemoryPlan) -> dict[str, Any]:
    """The plan as values of JSON."""
    return {
        "model": plan.model,
        "num_parameters": plan.num_parameters,
        "device": plan.device,
        "device_bytes": plan.device_bytes,
        "fits": plan.fits,
        "limit_bytes": plan.limit_bytes,
        "used_bytes": plan.used_bytes,
        "excess_bytes": plan.excess_bytes,
        "host_bytes": plan.host_bytes,
        "kv_cache": {
            "bytes_per_token": plan.kv_bytes_per_token,
            "tokens": plan.kv_cache_tokens,
            "full_length_sequences": round(plan.full_length_sequences, 2),
        },
        "lines": [
            {
                "name": line.name,
                "part": line.part,
                "bytes": line.size_bytes,
                "on_host": line.on_host,
                "basis": line.basis,
            }
            for line in plan.lines
        ],
    }


def _balance(plan: MemoryPlan) -> str:
    if plan.limit_bytes is None:
        return "of main memory, not checked"
    bound, meaning = plan.limit_bytes, "that the node may take"
    if plan.free_bytes is not None and plan.free_bytes < bound:
        bound, meaning = plan.free_bytes, "that other programs leave free"
    too_much = f"; {plan.excess_bytes / _GIB:.2f} too much" if plan.excess_bytes else ""
    return f"of {bound / _GIB:.2f} {meaning}{too_much}"


def _cache(plan: MemoryPlan) -> Text:
    return Text(
        f"The KV cache holds {plan.kv_cache_tokens:,} tokens: {plan.full_length_sequences:.1f} sequences of "
        f"{plan.max_model_len:,} tokens at one time."
    )
