"""Says its words into the dataset; called on standby, it tells by HTTP who and where it is."""

from __future__ import annotations

import asyncio
import getpass
import json
import os
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from apify import Actor


def surroundings() -> dict[str, object]:
    return {
        "user": getpass.getuser(),
        "files": sorted(path.name for path in Path.cwd().iterdir()),
        "memory": int(os.environ["ACTOR_MEMORY_MBYTES"]),
        "cpus": os.environ["APIFY_DEDICATED_CPUS"],
        "run": os.environ["ACTOR_RUN_ID"],
    }


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = json.dumps(surroundings()).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


async def main() -> None:
    async with Actor:
        if Actor.configuration.meta_origin == "STANDBY":
            port = Actor.configuration.web_server_port
            with ThreadingHTTPServer(("", port), Handler) as server:
                await asyncio.to_thread(server.serve_forever)
        given = await Actor.get_input() or {}
        Actor.log.info("Saying %d words", len(given["words"]))
        await Actor.push_data([{"word": word} for word in given["words"]])
        await Actor.set_value("OUTPUT", surroundings())
        await Actor.set_status_message(f"Said {len(given['words'])} words", is_terminal=True)
