"""A node as its own process, as `coloq serve` starts it, for tests that speak HTTP and look into its store."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import psutil

from agent.episode import Episode
from service.bench.peers.vllm_server import free_port
from service.config import StoreConfig
from service.journal import RedisJournal
from service.secrets import NewKey
from service.store import open_store
from tests.only_parts import only_in_toml

_ROOT = Path(__file__).resolve().parents[2]
_READY = re.compile(r"^Ready: (http\S+)$", re.MULTILINE)
_ADMIN_KEY = re.compile(r"clq_admin_[\w-]+")
START_TIMEOUT_S = 400.0

CONFIG = (
    """
[server]
port = 0

[engine]
model = "{model}"
dtype = "float32"
max_model_len = 512
max_num_seqs = 24
live_reserve = 4
kv_cache_gib = 0.25
max_restarts = 5

[agent]
max_tokens = 256
temperature = 1.0
hold_s = 60.0
repair = "off"

[store]
held_out_share = 0.5

[rewards]
extra = {{ vowels = "tests.integration.judges:VowelShare" }}

[rewards.weights]
"""
    + only_in_toml(vowels=1.0)
    + """
[slo]
ratio = 50.0

[tuning]
steps = 8
prompts_per_step = 4
group_size = 8
max_tokens = 16
learning_rate = 0.01
microbatch_tokens = 4096

[tuning.adapter]
rank = 8
alpha = 32.0

[tuning.gate]
num_prompts = 8
num_replies = 8

[webhooks]
allow_http = true
allowed_ports = [{receiver_port}]
allowed_networks = ["127.0.0.0/8"]

[[tenants]]
id = "acme"
key_hashes = ["{key_hash}"]
[tenants.languages.en]
[tenants.languages.es]
[tenants.languages.de]
[tenants.languages.fr]
[tenants.languages.pl]
"""
)
"""The loose SLO leaves the trainer its turns: with the default one it waits, rightly, for the tests' own requests. A
random model's language is never right: each reply would be repaired, and what was sampled for it be a group to train
on. Half of the prompts are held out: with four replies in a language no exact test can tell that a candidate is
worse."""


class NodeProcess:
    """`coloq serve` with its engine and store below it."""

    def __init__(self, folder: Path, model: Path, key: NewKey, *, config: str = CONFIG) -> None:
        self.folder = folder
        self.key = key
        self.url = ""
        self.admin_key = ""
        self.receiver_port = free_port()
        """Where the node may send events to, on loopback."""
        self._log = folder / "node.log"
        (folder / "node.toml").write_text(
            config.format(model=model, key_hash=key.hash, receiver_port=self.receiver_port)
        )
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def tenant_headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.key.plain}"}

    @property
    def admin_headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.admin_key}"}

    def start(self) -> float:
        """Start and wait until the node serves; returns the seconds that took."""
        started = time.perf_counter()
        self._log.write_bytes(b"")
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "service", "serve", "--config", str(self.folder / "node.toml")],
                cwd=self.folder,
                env=os.environ
                | {"PYTHONPATH": os.pathsep.join(filter(None, (str(_ROOT), os.environ.get("PYTHONPATH"))))},
                stdout=log,
                stderr=log,
            )
        while (ready := _READY.search(self.log())) is None:
            if self._process.poll() is not None or time.perf_counter() - started > START_TIMEOUT_S:
                self.kill()
                raise RuntimeError(f"the node did not start:\n{self.log()[-4000:]}")
            time.sleep(0.1)
        self.url = ready[1]
        if key := _ADMIN_KEY.search(self.log()):
            self.admin_key = key[0]
        return time.perf_counter() - started

    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def processes(self) -> list[psutil.Process]:
        """The node's process and all below it."""
        assert self._process is not None
        root = psutil.Process(self._process.pid)
        return [root, *root.children(recursive=True)]

    def engine(self) -> psutil.Process:
        """The engine process."""
        return next(process for process in self.processes() if "EngineCore" in "".join(process.cmdline()[:1]))

    def wait(self, timeout_s: float) -> int:
        """The exit status."""
        assert self._process is not None
        return self._process.wait(timeout_s)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> tuple[int, list[psutil.Process]]:
        """Stop as an operator does; returns the exit status and the processes that outlived it by two seconds."""
        processes = self.processes()
        processes[0].send_signal(number)
        status = self.wait(60.0)
        _, left = psutil.wait_procs(processes[1:], timeout=2.0)
        return status, left

    @property
    def running(self) -> bool:
        """Started and not ended."""
        return self._process is not None and self._process.poll() is None

    def kill(self) -> None:
        """End whatever is left."""
        if not self.running:
            return
        for process in self.processes():
            process.kill()
        self.wait(10.0)

    @asynccontextmanager
    async def journal(self) -> AsyncIterator[RedisJournal]:
        """The node's own journal, through the socket of its store."""
        titles = [word for process in self.processes() for part in process.cmdline() for word in part.split()]
        socket_path = next(word.removeprefix("unixsocket:") for word in titles if word.startswith("unixsocket:"))
        config = StoreConfig(url=f"unix://{socket_path}")
        async with open_store(config, self.folder) as store:
            yield RedisJournal(store, config)

    async def episode(self, request_id: str) -> Episode:
        """A journalled episode."""
        async with self.journal() as journal:
            episode = await journal.get("acme", request_id)
        assert episode is not None
        return episode
