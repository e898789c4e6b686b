"""Containers that burn, fill and come back: what they hear of themselves, what the API tells, and what ends them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from journeys.greenroom import Greenroom, actor_folder, eventually

pytestmark = pytest.mark.slow  # images are built

MIB = 1024 * 1024

# Hears its own events, by just enough of the WebSocket protocol, and does what it is asked for.
MAIN = """
import base64, json, os, socket, struct, threading, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

heard, held, burns = [], [], False

def listen():
    url = urlsplit(os.environ["ACTOR_EVENTS_WEBSOCKET_URL"])
    stream = socket.create_connection((url.hostname, url.port or 80)).makefile("rwb")
    key = base64.b64encode(os.urandom(16)).decode()
    head = (f"GET {url.path}?{url.query} HTTP/1.1", f"Host: {url.netloc}", "Upgrade: websocket", "Connection: Upgrade",
            f"Sec-WebSocket-Key: {key}", "Sec-WebSocket-Version: 13")
    stream.write("".join(line + chr(13) + chr(10) for line in (*head, "")).encode())
    stream.flush()
    while stream.readline().strip():
        pass
    while len(start := stream.read(2)) == 2:
        length = struct.unpack(">H", stream.read(2))[0] if start[1] == 126 else start[1]
        data = stream.read(length)
        if start[0] & 15 == 1:
            heard.append(json.loads(data))

def burn():
    while True:
        if not burns:
            time.sleep(.05)

def fill(folder):
    os.makedirs(folder, exist_ok=True)
    block = os.urandom(1 << 20)
    for number in range(2000):
        with open(f"{folder}/{number}", "wb") as file:
            file.write(block)
        if number % 8 == 0:
            time.sleep(.02)

class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        global burns
        url = urlsplit(self.path)
        query = parse_qs(url.query)
        answer = b"ok"
        if url.path == "/heard":
            answer = json.dumps(heard).encode()
        elif url.path == "/burn":
            burns = query["on"] == ["1"]
        elif url.path == "/hold":
            held.append(bytearray(b"x" * (int(query["mib"][0]) << 20)))
        elif url.path == "/send":
            answer = bytes(int(query["mib"][0]) << 20)
        elif url.path == "/fill":
            threading.Thread(target=fill, args=("/filled",), daemon=True).start()
        elif url.path == "/run":
            answer = os.environ["ACTOR_RUN_ID"].encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *words):
        pass

for work in (listen, burn):
    threading.Thread(target=work, daemon=True).start()
ThreadingHTTPServer(("", int(os.environ["ACTOR_WEB_SERVER_PORT"])), Handler).serve_forever()
"""


def folder_of(parent: Path, name: str, memory_mbytes: int) -> Path:
    folder = actor_folder(parent, name, {"memoryMbytes": memory_mbytes, "idleTimeoutSecs": 600}, main=MAIN)
    (folder / "Dockerfile").write_text('FROM greenroom-tests:base\nCOPY main.py ./\nCMD ["python3", "main.py"]\n')
    return folder


def greenroom(data: Path, *folders: Path, port: int = 0) -> Greenroom:
    return Greenroom(data, folders, {"launcher": "docker", "readiness_timeout_secs": 60}, port=port)


async def heard(server: Greenroom, actor: str, name: str) -> list[dict[str, Any]]:
    """The data of all events of that name that the Actor has heard, oldest first."""
    return [event["data"] for event in (await server.call(actor, "/heard")).json() if event["name"] == name]


@asynccontextmanager
async def called_all_the_time(server: Greenroom, actor: str) -> AsyncIterator[list[int]]:
    """An Actor is called one time after the other; the statuses of its answers."""
    statuses: list[int] = []

    async def call() -> None:
        while True:
            statuses.append((await server.call(actor, "/run")).status_code)

    async with asyncio.TaskGroup() as group:
        calls = group.create_task(call())
        yield statuses
        calls.cancel()


async def test_a_busy_container_hears_it_and_the_api_tells(docker_data: Path, tmp_path: Path) -> None:
    """
    By its own events, from inside: its share is a quarter of a core, and all of that is overload, after its boot; it
    sees its memory and its limit. The run's stats have memory, CPU and network, while it lives and when it has ended.
    """
    async with greenroom(docker_data, folder_of(tmp_path / "actors", "busy", 1024)) as server:
        run_id = (await server.call("busy", "/run")).text
        assert (await server.call("busy", "/hold?mib=60")).text == "ok"

        async def is_calm() -> bool:
            infos = await heard(server, "busy", "systemInfo")
            return bool(infos) and infos[-1]["memCurrentBytes"] > 60 * MIB and infos[-1]["cpuCurrentUsage"] < 10

        await eventually(is_calm, within_secs=20, what="an idle second")
        await server.call("busy", "/burn?on=1")

        async def is_overloaded() -> bool:
            return any(info["isCpuOverloaded"] for info in await heard(server, "busy", "cpuInfo"))

        await eventually(is_overloaded, within_secs=20, what="the overload")
        infos = await heard(server, "busy", "systemInfo")
        busy = next(info for info in infos if info["isCpuOverloaded"])
        assert 15 < busy["cpuCurrentUsage"] < 40
        assert busy["memMaxBytes"] == 1024 * MIB
        assert 60 * MIB < busy["memCurrentBytes"] < 200 * MIB
        await server.call("busy", "/burn?on=0")

        async def is_over() -> bool:
            return not (await heard(server, "busy", "cpuInfo"))[-1]["isCpuOverloaded"]

        await eventually(is_over, within_secs=20, what="the end of the overload")
        assert len((await server.call("busy", "/send?mib=3")).content) == 3 * MIB

        async def stats() -> dict[str, Any] | None:
            told = (await server.run(run_id))["stats"]
            return dict(told) if told["netTxBytes"] > 3 * MIB else None

        live = await eventually(stats, what="what was sent")
        assert live["netRxBytes"] > 0
        assert live["memCurrentBytes"] > 60 * MIB
        await server.data_of("POST", f"/actor-runs/{run_id}/abort")
        ended = (await server.ended(run_id))["stats"]
    assert ended["netTxBytes"] >= live["netTxBytes"]
    assert ended["netRxBytes"] >= live["netRxBytes"]
    assert ended["memMaxBytes"] >= ended["memAvgBytes"] > 0
    assert ended["cpuMaxUsage"] >= busy["cpuCurrentUsage"]
    integers = ("netRxBytes", "netTxBytes", "memMaxBytes", "memCurrentBytes")
    assert all(isinstance(told[name], int) for told in (live, ended) for name in integers)


async def test_a_boot_is_no_overload(docker_data: Path, tmp_path: Path) -> None:
    """A run that uses a whole core until it serves, four times its share, hears nothing of an overload."""
    folder = folder_of(tmp_path / "actors", "booting", 1024)
    slow = MAIN.replace("\nThreadingHTTPServer(", "\nwhile time.process_time() < 3: pass\nThreadingHTTPServer(")
    (folder / "main.py").write_text(slow)
    async with greenroom(docker_data, folder) as server:
        await server.call("booting", "/run")

        async def infos() -> list[dict[str, Any]]:
            return [info for info in await heard(server, "booting", "systemInfo") if info["cpuCurrentUsage"] > 60]

        assert await eventually(infos, what="a busy second")
        assert not any(info["isCpuOverloaded"] for info in await infos())


async def test_a_filler_is_ended_and_nobody_else(docker_data: Path, tmp_path: Path) -> None:
    """
    FAILED, with a message that names the limit and what to do; its neighbour is served all the time, and so is its own
    next caller. The same after a kill of Greenroom in between.
    """
    folders = [folder_of(tmp_path / "actors", name, 128) for name in ("filler", "neighbour")]
    async with greenroom(docker_data, *folders) as server:
        neighbour = (await server.call("neighbour", "/run")).text
        run_id = (await server.call("filler", "/run")).text
        async with called_all_the_time(server, "neighbour") as statuses:
            await server.call("filler", "/fill")
            run = await server.ended(run_id, within_secs=30)
        assert (run["status"], run["exitCode"]) == ("FAILED", 137)
        assert "Out of disk (256 MiB)" in run["statusMessage"]
        assert "more memory" in run["statusMessage"]
        assert set(statuses) == {200}
        second = (await server.call("filler", "/run")).text
        assert second != run_id
        await server.kill()
    async with greenroom(docker_data, port=server.port) as again:
        assert (await again.call("filler", "/run")).text == second
        await again.call("filler", "/fill")
        assert "256 MiB" in (await again.ended(second, within_secs=30))["statusMessage"]
        assert (await again.call("neighbour", "/run")).text == neighbour
