"""Clients that never finish their request: `python -m tests.world.dripper PORT COUNT`.

Each sends a header a byte at a time and comes back at once when it is put out.  Prints one line
when all have connected once, and goes on until it is killed.
"""

import asyncio
import sys

BYTE_S = 0.2
HEAD = b"GET /readyz HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Slow: "


async def drip(port: int, came: asyncio.Semaphore) -> None:
    first = True
    while True:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            await asyncio.sleep(BYTE_S)
            continue
        if first:
            came.release()
            first = False
        try:
            writer.write(HEAD)
            while True:
                await asyncio.sleep(BYTE_S)
                writer.write(b"x")
                await writer.drain()
        except OSError:
            pass
        finally:
            writer.close()


async def main(port: int, count: int) -> None:
    came = asyncio.Semaphore(0)
    async with asyncio.TaskGroup() as group:
        for _ in range(count):
            group.create_task(drip(port, came))
        for _ in range(count):
            await came.acquire()
        print("dripping", flush=True)


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), int(sys.argv[2])))
