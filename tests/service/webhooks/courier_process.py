"""A program that sends what is due until it is killed: `courier_process.py <store's URL> <receiver's port>`."""

import asyncio
import sys
from pathlib import Path

from service.config import StoreConfig
from service.store import open_store
from service.webhooks.assembly import open_webhooks
from service.webhooks.config import WebhooksConfig


async def main(url: str, port: int) -> None:
    config = WebhooksConfig(allow_http=True, allowed_ports=(port,), allowed_networks=("127.0.0.0/8",))
    async with open_store(StoreConfig(url=url), Path()) as store, open_webhooks(store, config):
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
