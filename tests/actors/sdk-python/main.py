"""
An Actor on the Python SDK, 3.x and 4.x alike, that does what a test asks for and keeps what it saw.

As a batch run it stores *numbers* items, waiting *pauseMs* after each, and ends by *ending*. In standby each
``/keep?number=N`` stores one item; ``/seen`` tells what the run knows of itself.
"""

import asyncio
import json
import os
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from urllib.parse import parse_qs, urlsplit

from apify import Actor, Event

PICTURE = bytes(range(256)) * 8
heard = []
load = {}
loads = 0
is_aborting = asyncio.Event()
has_heard_all = asyncio.Event()
has_load = asyncio.Event()


async def on_system_info(event):
    global loads
    loads += 1
    load.update(cpuRatio=event.cpu_info.used_ratio, memoryBytes=event.memory_info.current_size.bytes)
    has_load.set()


async def on_persist_state(event):
    heard.append("persistState while migrating" if event.is_migrating else "persistState")
    if is_aborting.is_set():
        has_heard_all.set()


async def on_aborting(_event):
    heard.append("aborting")
    is_aborting.set()


async def main():
    async with Actor:
        Actor.on(Event.SYSTEM_INFO, on_system_info)
        Actor.on(Event.PERSIST_STATE, on_persist_state)
        Actor.on(Event.ABORTING, on_aborting)
        given = await Actor.get_input()
        await Actor.set_value("SEEN-INPUT", {"input": given})
        if os.environ["APIFY_META_ORIGIN"] == "STANDBY":
            await serve()
        else:
            await work(given or {})


async def keep(number):
    """One item, once it is acknowledged told in the log."""
    await Actor.push_data({"number": number, "text": f"grüß {number}"})
    print(f"acknowledged {number}", flush=True)


async def work(given):
    for number in range(given.get("numbers", 3)):
        await keep(number)
        if pause := given.get("pauseMs"):
            await asyncio.sleep(pause / 1000)
    await Actor.set_value("PICTURE", PICTURE, content_type="image/png")
    await Actor.set_value("NOTE", "a text: äöü")
    await asyncio.wait_for(has_load.wait(), 30)
    await Actor.set_value("OUTPUT", {"numbers": given.get("numbers", 3), "load": load})
    await Actor.set_status_message("nearly done")
    await end(given.get("ending", "exit"), given)


async def end(ending, given):
    if ending == "abort":
        print("waiting to be aborted", flush=True)
        await is_aborting.wait()
        await asyncio.wait_for(has_heard_all.wait(), 10)
        await Actor.set_value("LAST-WORD", heard)
        await Actor.exit(status_message="left politely")
    if ending == "fail":
        await Actor.fail(status_message="it could not be done")
    if ending == "crash":
        raise RuntimeError("nobody catches this")
    if ending == "code":
        sys.exit(given["code"])
    await Actor.exit(status_message="all done")


async def serve():
    loop = asyncio.get_running_loop()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            url = urlsplit(self.path)
            if url.path == "/keep":
                number = int(parse_qs(url.query)["number"][0])
                asyncio.run_coroutine_threadsafe(keep(number), loop).result(60)
            told = {"runId": os.environ["ACTOR_RUN_ID"], "load": load, "loads": loads, "heard": heard}
            body = json.dumps(told).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments):
            pass

    server = ThreadingHTTPServer(("0.0.0.0", Actor.configuration.web_server_port), Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    await is_aborting.wait()
    await asyncio.wait_for(has_heard_all.wait(), 10)
    await Actor.set_value("LAST-WORD", heard)
    server.shutdown()
    await Actor.set_status_message("left politely", is_terminal=True)


if __name__ == "__main__":
    asyncio.run(main())
