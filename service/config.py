"""The node's configuration: one frozen tree from one TOML file. Each package owns its section."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from agent.config import AgentConfig, Section, TenantSettings
from rewards.config import RewardsConfig
from service.canary.config import CanaryConfig
from service.webhooks.config import WebhooksConfig
from trainer.config import TuningConfig


class EngineConfig(Section):
    """Section `[engine]`."""

    model: str = "smollm2-135m-instruct"
    """Hugging Face id, local folder, or an embedded model's name (`coloq model list`)."""
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = "auto"
    """Type of the weights in memory; `auto` takes the model's own."""
    max_model_len: Annotated[int, Field(ge=16)] = 1024
    """Context window: prompt and reply together, in tokens."""
    max_num_seqs: Annotated[int, Field(ge=1)] = 16
    """Sequences that the engine runs at once, live requests and rollouts together."""
    live_reserve: Annotated[int, Field(ge=1)] = 2
    """Sequence slots that rollouts never take."""
    max_num_batched_tokens: Annotated[int, Field(ge=16)] | None = None
    """Most tokens of an engine step; a longer prompt is read in several. Unset takes 2,048 on a GPU, or one for each of
    `max_num_seqs` where that is more. On a CPU a prompt is never split."""
    kv_cache_gib: Annotated[float, Field(gt=0)] | None = None
    """Memory of the KV cache, in GiB; unset takes 0.5 on a CPU and what the memory plan leaves on a GPU."""
    enforce_eager: bool = False
    """Skip CUDA graphs and torch.compile: starts faster, serves slower. Always so on a CPU."""
    cuda_graphs: Literal["full", "piecewise"] = "full"
    """What is captured of a step with prompts in it: all of it, for steps up to the largest, or what lies between its
    attention layers in steps of up to 512 tokens, as vLLM does by itself (with `torch_compile` only)."""
    torch_compile: bool = False
    """Let torch.compile make the kernels between attention layers. Starts take longer; without it `piecewise` captures
    steps of decoding alone."""
    num_threads: Annotated[int, Field(ge=1)] | None = None
    """CPU threads of the engine process; unset takes all cores. Ignored on a GPU."""
    start_timeout_s: Annotated[float, Field(gt=0)] = 600.0
    """The node gives up when the engine is not ready after this long."""
    max_restarts: Annotated[int, Field(ge=0)] = 3
    """Engine restarts within ten minutes before the node exits non-zero for its supervisor."""
    seed: Annotated[int, Field(ge=0, le=2**32 - 1)] = 0
    """Seed of the engine's own random choices; a request's seed goes before it."""


class CudaConfig(Section):
    """Section `[cuda]`; ignored on a CPU."""

    memory_fraction: Annotated[float, Field(gt=0, le=1)] = 0.9
    """Share of the GPU's memory that the whole node may use: weights, KV cache, training, graphs and slack."""


class SloConfig(Section):
    """Section `[slo]`: what tuning may cost live requests."""

    ttft_p99_ms: Annotated[float, Field(gt=0)] | None = None
    """Bound of the live requests' 99th percentile of the time to the first token, in milliseconds."""
    inter_token_p99_ms: Annotated[float, Field(gt=0)] | None = None
    """Bound of the live requests' 99th percentile of the mean time between tokens, in milliseconds."""
    ratio: Annotated[float, Field(gt=1)] = 1.05
    """Where a bound is unset: tuning may make the time between tokens, or to the first one, this many times what it is
    without. Held to by the engine's steps, not by percentiles."""


class StoreConfig(Section):
    """Section `[store]`."""

    url: str | None = None
    """URL of a Redis or Valkey; unset starts an embedded Valkey. Its password comes from COLOQ_STORE_PASSWORD."""
    journal_retention: Annotated[int, Field(ge=1)] = 100_000
    """Episodes kept per tenant and language, held-out ones apart. The store holds them in main memory: about 40 bytes
    for each token of a reply."""
    feedback_retention: Annotated[int, Field(ge=1)] = 100_000
    """Pieces of feedback kept per tenant."""
    held_out_share: Annotated[float, Field(ge=0, lt=1)] = 0.2
    """Share of episodes, by hash of the prompt, that is never trained on and feeds the gate."""


class ServerConfig(Section):
    """Section `[server]`."""

    host: str = "127.0.0.1"
    """Address to listen on."""
    port: Annotated[int, Field(ge=0, le=65535)] = 8080
    """Port to listen on; 0 picks a free one."""
    max_body_bytes: Annotated[int, Field(ge=1024)] = 262_144
    """Largest request body."""
    max_header_bytes: Annotated[int, Field(ge=1024)] = 16_384
    """Largest path and header fields of a request, together."""
    max_headers: Annotated[int, Field(ge=8)] = 64
    """Most header fields of a request."""
    header_timeout_s: Annotated[float, Field(gt=0)] = 10.0
    """How long a caller may take to send the header fields."""
    body_timeout_s: Annotated[float, Field(gt=0)] = 30.0
    """How long a caller may take to send a body."""
    admin_host: str | None = None
    """Address of `/admin` and `/metrics`, which are then nowhere else; unset serves them beside `/v1`."""
    admin_port: Annotated[int, Field(ge=0, le=65535)] = 8081
    """Port of `admin_host`; 0 picks a free one."""
    shutdown_grace_s: Annotated[float, Field(ge=0)] = 10.0
    """How long requests in flight may finish after SIGTERM."""


class JobsConfig(Section):
    """Section `[jobs]`: calls that became jobs, and idempotency keys."""

    concurrency: Annotated[int, Field(ge=1)] = 32
    """Queued jobs that this node carries out at once; jobs whose caller is held start at once and do not count."""
    max_attempts: Annotated[int, Field(ge=1)] = 5
    """Tries of a job whose failure is the node's; after the last one it has failed for good."""
    lease_s: Annotated[float, Field(gt=0)] = 30.0
    """Another node takes a job over when the one that runs it has not been heard of for this long."""
    retention_s: Annotated[float, Field(gt=0)] = 604_800.0
    """How long a finished job can be read; never less than `jobs.idempotency_ttl_s`."""
    idempotency_ttl_s: Annotated[float, Field(gt=0)] = 86_400.0
    """How long an idempotency key is kept."""
    answered_body_ttl_s: Annotated[float, Field(gt=0)] = 600.0
    """In body mode: how long the same body gets the same answer once a caller has received it."""
    max_wait_s: Annotated[float, Field(gt=0, le=300)] = 25.0
    """Longest time that `Prefer: wait=N` may ask for, where that is more than `agent.hold_s`."""


class NodeConfig(Section):
    """The whole tree."""

    data_dir: Path = Path(".coloq")
    """Folder of the node's data: policies, embedded store, admin key's hash. Relative to the configuration file."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """Least severity that is logged."""
    log_format: Literal["console", "json"] = "console"
    """`console` for people, `json` for one JSON object a line."""
    server: ServerConfig = ServerConfig()
    engine: EngineConfig = EngineConfig()
    cuda: CudaConfig = CudaConfig()
    slo: SloConfig = SloConfig()
    store: StoreConfig = StoreConfig()
    jobs: JobsConfig = JobsConfig()
    agent: AgentConfig = AgentConfig()
    rewards: RewardsConfig = RewardsConfig()
    tuning: TuningConfig = TuningConfig()
    canary: CanaryConfig = CanaryConfig()
    webhooks: WebhooksConfig = WebhooksConfig()
    tenants: tuple[TenantSettings, ...] = ()
    """Who may use the node, one `[[tenants]]` table each."""
