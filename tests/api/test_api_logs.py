"""Logs over a real server, since following is about bytes that come while the connection stays open."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import uvicorn


@pytest.fixture
async def url(api: Any, until: Any) -> AsyncIterator[str]:
    """The app under uvicorn on a free port."""
    config = uvicorn.Config(api.app, log_level="error", lifespan="off")
    server = uvicorn.Server(config)
    listener = socket.create_server(("127.0.0.1", 0))
    async with asyncio.TaskGroup() as group:
        serving = group.create_task(server._serve([listener]))
        await until(lambda: server.started)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/v2"
        server.should_exit = True
        await serving


@pytest.fixture
async def run(bob: Any) -> Any:
    """A run of bob's."""
    await bob.built_actor()
    return await bob.post("/actors/hello/runs")


@pytest.fixture
async def http(bob: Any) -> AsyncIterator[httpx.AsyncClient]:
    """A client with bob's token."""
    async with httpx.AsyncClient(headers={"Authorization": f"Bearer {bob.token}"}, timeout=20) as http:
        yield http


@pytest.mark.parametrize("path", ["/logs/{}", "/actor-runs/{}/log", "/actors/hello/runs/{}/log"])
async def test_a_log_as_it_is(api: Any, http: Any, url: str, run: Any, path: str) -> None:
    """A log is plain text with a time on each line, while the run lives and afterwards."""
    api.services.logs.append(run["id"], "hello\nworld")
    live = await http.get(url + path.format(run["id"]))
    assert live.headers["content-type"] == "text/plain; charset=utf-8"
    assert [line[25:] for line in live.text.splitlines()] == ["hello", "world"]
    await api.finish(run)
    await api.services.logs.keep(run["id"])
    assert (await http.get(url + path.format(run["id"]))).text == live.text


async def test_no_log_yet(http: Any, url: str, run: Any) -> None:
    """A run that has written nothing has an empty log; a run that is none has no log."""
    assert (await http.get(f"{url}/logs/{run['id']}")).text == ""
    unknown = await http.get(f"{url}/logs/AAAAAAAAAAAAAAAAA")
    assert (unknown.status_code, unknown.json()["error"]["type"]) == (404, "record-not-found")
    assert (await http.head(f"{url}/logs/{run['id']}")).status_code == 200


async def test_colours(api: Any, http: Any, url: str, run: Any) -> None:
    """Terminal colours are left out unless the raw log is asked for."""
    api.services.logs.append(run["id"], "\x1b[31mred\x1b[0m")
    assert (await http.get(f"{url}/logs/{run['id']}")).text[25:] == "red\n"
    assert (await http.get(f"{url}/logs/{run['id']}?raw=1")).text[25:] == "\x1b[31mred\x1b[0m\n"


async def test_download(http: Any, url: str, run: Any) -> None:
    """A browser can save the log as a file."""
    answer = await http.get(f"{url}/logs/{run['id']}?download=1")
    assert answer.headers["content-disposition"] == f'attachment; filename="{run["id"]}.log"'


async def test_a_build_has_a_log(bob: Any, http: Any, url: str, run: Any) -> None:
    """Builds have logs of the same kind."""
    by_build = (await http.get(f"{url}/actor-builds/{run['buildId']}/log")).text
    assert "0.1.1" in by_build
    assert (await http.get(f"{url}/logs/{run['buildId']}?stream=1")).text == by_build


async def test_follow(api: Any, http: Any, url: str, run: Any) -> None:
    """A followed log brings each line as it is written and ends, whole, when the run does."""
    async with http.stream("GET", f"{url}/logs/{run['id']}?stream=1") as answer:
        lines = answer.aiter_lines()
        api.services.logs.append(run["id"], "first")
        assert (await anext(lines))[25:] == "first"
        api.services.logs.append(run["id"], "second")
        assert (await anext(lines))[25:] == "second"
        api.services.logs.append(run["id"], "last")
        await api.finish(run)
        await api.services.logs.keep(run["id"])
        assert [line[25:] async for line in lines] == ["last"]


async def test_a_follower_that_goes_away(api: Any, http: Any, url: str, run: Any, until: Any) -> None:
    """When the client is gone nobody listens for its run any more."""
    watchers = api.services.state.signals._store.change_watchers
    async with http.stream("GET", f"{url}/logs/{run['id']}?stream=1") as answer:
        api.services.logs.append(run["id"], "first")
        await anext(answer.aiter_lines())
        await until(lambda: watchers)
    await until(lambda: not watchers)


async def test_following_what_is_deleted(api: Any, bob: Any, http: Any, url: str, run: Any) -> None:
    """A follower of a run that is deleted comes to an end."""
    async with http.stream("GET", f"{url}/logs/{run['id']}?stream=1") as answer:
        await api.finish(run)
        await bob.delete(f"/actor-runs/{run['id']}")
        async with asyncio.timeout(10):
            assert [line async for line in answer.aiter_lines()] == []
