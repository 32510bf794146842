"""An engine process to be killed: answers requests that come over a pipe, each after its own while.

    python engine_child.py     {"id": 7, "name": "req_1", "delay_s": 0.03}  ─►  {"id": 7, "text": "Antwort auf req_1."}

One line of JSON each way. It ends when its standard input does, as an engine ends with its node. Imports nothing but
the standard library, so that it is back soon.
"""

import asyncio
import json
import sys


async def answer(line: bytes) -> None:
    request = json.loads(line)
    await asyncio.sleep(request["delay_s"])
    sys.stdout.write(json.dumps({"id": request["id"], "text": f"Antwort auf {request['name']}."}) + "\n")
    sys.stdout.flush()


async def main() -> None:
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    answers: set[asyncio.Task[None]] = set()
    while line := await reader.readline():
        task = asyncio.create_task(answer(line))
        answers.add(task)
        task.add_done_callback(answers.discard)


if __name__ == "__main__":
    asyncio.run(main())
