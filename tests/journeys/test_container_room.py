"""Containers that never serve, or die again and again, are left alone; those that are unused make room for others."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from journeys.greenroom import Greenroom, actor_folder, error_of, eventually

from autoscaler.launchers.docker.engine import Engine
from gateway.installation import RUN_LABEL, installation_of

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]  # images are built

SERVES = """
import http.server, os

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(os.environ["ACTOR_RUN_ID"].encode())
        self.wfile.flush()
        if self.path == "/die":
            os._exit(9)

    def log_message(self, *_):
        pass

http.server.ThreadingHTTPServer(("", int(os.environ["ACTOR_WEB_SERVER_PORT"])), Handler).serve_forever()
"""
NEVER_SERVES = "print('the licence is missing', flush=True)\nraise SystemExit(3)\n"


def folder(parent: Path, name: str, main: str = SERVES, **standby: Any) -> Path:
    made = actor_folder(parent, name, {"idleTimeoutSecs": 300, **standby}, main=main)
    (made / "Dockerfile").write_text('FROM greenroom-tests:base\nCOPY main.py ./\nCMD ["python3", "main.py"]\n')
    return made


def server(data: Path, folders: Sequence[Path], **settings: Any) -> Greenroom:
    plain = {"launcher": "docker", "readiness_timeout_secs": 60, "tick_secs": 0.5, "wind_down_grace_secs": 1}
    return Greenroom(data, tuple(folders), {**plain, **settings})


@contextmanager
def watched(docker_host: str, data: Path) -> Iterator[Callable[[], list[str]]]:
    """The states of the containers of this installation's runs, as the engine tells them when it is asked."""
    client = Engine(docker_host).connect()

    def states() -> list[str]:
        labels = [RUN_LABEL, installation_of(data).label]
        return [one["State"] for one in client.containers(all=True, filters={"label": labels})]

    try:
        yield states
    finally:
        client.close()


async def test_a_container_that_never_serves_is_left_alone(docker_host: str, docker_data: Path, tmp_path: Path) -> None:
    """
    After three starts callers hear at once that it is, and what its log said; no container is made for them, and none
    is left. A new build is tried at once, and serves.
    """
    parent = tmp_path / "actors"
    async with server(docker_data, [folder(parent, "broken", NEVER_SERVES)]) as greenroom:
        assert [error_of(await greenroom.call("broken"))[1] for _ in range(3)] == ["standby-run-finished"] * 3
        for _ in range(3):
            refused = await greenroom.call("broken")
            assert error_of(refused) == (503, "standby-quarantined")
            error = refused.json()["error"]
            assert (error["data"]["failedStarts"], "exit code 3" in error["message"]) == (3, True)
            assert any(line.endswith("the licence is missing") for line in error["data"]["logTail"])
            assert 1 <= int(refused.headers["retry-after"]) <= 10
        runs = await greenroom.runs()
        assert [run["status"] for run in runs] == ["FAILED"] * 3
        with watched(docker_host, docker_data) as states:
            await eventually(lambda: not states(), within_secs=30, what="an engine without its containers")
        await greenroom.push(folder(tmp_path / "mended", "broken"))
        assert (await greenroom.call("broken")).status_code == 200


async def test_a_container_that_dies_again_and_again_is_left_alone(docker_data: Path, tmp_path: Path) -> None:
    """Three that served and died within a minute; a retry by the command is served."""
    async with server(docker_data, [folder(tmp_path / "actors", "fragile")]) as greenroom:
        for number in range(3):
            run_id = (await greenroom.call("fragile", "/die")).text
            run = await greenroom.ended(run_id, within_secs=30)
            assert (run["status"], run["exitCode"]) == ("FAILED", 9), number
        refused = await greenroom.call("fragile")
        assert error_of(refused) == (503, "standby-quarantined")
        assert refused.json()["error"]["data"]["crashes"] == 3
        assert "is tried again with the next request" in await greenroom.command("retry", "local/fragile")
        assert (await greenroom.call("fragile")).status_code == 200


async def test_unused_containers_make_room(docker_host: str, docker_data: Path, tmp_path: Path) -> None:
    """
    With memory for two, three Actors that are called by turns are all served, each time in place of the one that was
    unused for longest; the engine never has a third container at work.
    """
    names = ("one", "two", "three")
    folders = [folder(tmp_path / "actors", name, memoryMbytes=256) for name in names]
    async with server(docker_data, folders, max_memory_mbytes=512) as greenroom:
        with watched(docker_host, docker_data) as states:
            most, is_over = 0, asyncio.Event()

            async def watch() -> None:
                nonlocal most
                while not is_over.is_set():
                    most = max(most, (await asyncio.to_thread(states)).count("running"))

            async with asyncio.TaskGroup() as group:
                group.create_task(watch())
                try:
                    served = [(await greenroom.call(name)).text for name in (*names, "one")]
                finally:
                    is_over.set()
        assert len(set(served)) == 4
        for run_id in served[:2]:
            ended = await greenroom.ended(run_id, within_secs=30)
            assert ended["status"] == "SUCCEEDED"
            assert "others need the room" in await greenroom.log_of(run_id)
        assert most == 2


async def test_a_container_that_can_never_fit_is_told_at_once(docker_data: Path, tmp_path: Path) -> None:
    """503 with the name of the setting, and nothing is started."""
    folders = [folder(tmp_path / "actors", "large", memoryMbytes=1024)]
    async with server(docker_data, folders, max_memory_mbytes=512) as greenroom:
        refused = await greenroom.call("large")
        assert error_of(refused) == (503, "memory-limit-exceeded")
        assert "max_memory_mbytes" in refused.json()["error"]["message"]
        assert await greenroom.runs() == []
