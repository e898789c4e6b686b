"""A standby Actor on the Apify SDK: greets whoever calls, keeps each greeting, and shows its own CPU live."""

import asyncio
import json
import time
from collections import deque
from datetime import UTC, datetime
from pathlib import Path

import uvicorn
from apify import Actor, Event
from starlette.applications import Starlette
from starlette.responses import FileResponse, JSONResponse, StreamingResponse
from starlette.routing import Route

PAGE = Path(__file__).with_name("page.html")
PROBE = "x-apify-container-server-readiness-probe"


class Greeter:
    """What one run knows and does."""

    def __init__(self, greeting):
        self.greeting = greeting
        self.greeted = 0
        self.latest = []
        self.load = {}
        self.history = deque(maxlen=60)
        self.is_leaving = False
        self.news = asyncio.Condition()

    async def greet(self, name):
        """Says it, and keeps it: an item of the dataset, a record of the key-value store, the run's status message."""
        item = {"text": f"{self.greeting}, {name}!", "name": name, "at": datetime.now(UTC).isoformat()}
        await Actor.push_data(item)
        self.greeted += 1
        self.latest = [item, *self.latest][:5]
        await Actor.set_value("OUTPUT", {"greeted": self.greeted, "latest": item})
        await Actor.set_status_message(f"Greeted {self.greeted}, at last {name}")
        await self.tell()
        return item

    async def on_system_info(self, event):
        """Once a second the platform tells what this run uses."""
        self.load = {
            "cpuRatio": round(event.cpu_info.used_ratio, 3),
            "memoryBytes": event.memory_info.current_size.bytes,
        }
        self.history.append(self.load["cpuRatio"])
        await self.tell()

    async def on_aborting(self, _event):
        """Somebody aborts the run, or nobody has called for long: a last word, and then the web server ends."""
        await Actor.set_status_message(f"Greeted {self.greeted} and left politely", is_terminal=True)
        self.is_leaving = True
        await self.tell()

    async def tell(self):
        async with self.news:
            self.news.notify_all()

    def figures(self):
        return {
            "sdk": "Python",
            "runId": Actor.configuration.actor_run_id,
            "greeted": self.greeted,
            "latest": self.latest,
            "history": list(self.history),
            **self.load,
        }

    async def stream(self):
        """The figures as server-sent events, whenever there is something new."""
        while not self.is_leaving:
            yield f"data: {json.dumps(self.figures())}\n\n"
            async with self.news:
                await self.news.wait()


def web_app(greeter):
    async def page(request):
        # Greenroom asks until the server answers; the answer itself is not looked at.
        if PROBE in request.headers:
            return JSONResponse("ready")
        return FileResponse(PAGE, media_type="text/html")

    async def greet(request):
        name = request.query_params.get("name", "").strip()
        if not 0 < len(name) <= 100:
            return JSONResponse({"error": "a name of 1 to 100 characters is expected: /greet?name=Ann"}, 400)
        return JSONResponse(await greeter.greet(name))

    async def figures(_request):
        return JSONResponse(greeter.figures())

    async def live(_request):
        return StreamingResponse(greeter.stream(), media_type="text/event-stream")

    async def work(_request):
        """Keeps a core busy for three seconds, so that the curve on the page has something to show."""
        await asyncio.to_thread(be_busy, 3)
        return JSONResponse("done")

    routes = {"/": page, "/greet": greet, "/figures": figures, "/live": live, "/work": work}
    return Starlette(routes=[Route(path, endpoint) for path, endpoint in routes.items()])


def be_busy(secs):
    until = time.monotonic() + secs
    while time.monotonic() < until:
        pass


async def serve(greeter):
    """Answers requests until the platform says that the run is about to end."""
    port = Actor.configuration.web_server_port
    server = uvicorn.Server(uvicorn.Config(web_app(greeter), host="0.0.0.0", port=port, log_level="warning"))

    async def leave(event):
        await greeter.on_aborting(event)
        server.should_exit = True

    Actor.on(Event.SYSTEM_INFO, greeter.on_system_info)
    Actor.on(Event.ABORTING, leave)
    await server.serve()


async def main():
    async with Actor:
        given = await Actor.get_input() or {}
        greeter = Greeter(given.get("greeting", "Hello"))
        if Actor.configuration.meta_origin == "STANDBY":
            await serve(greeter)
        else:
            await greeter.greet(given.get("name", "World"))


if __name__ == "__main__":
    asyncio.run(main())
