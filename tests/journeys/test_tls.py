"""The TLS port of a whole server, with HTTP/1.1 and HTTP/2: Actors, streams, WebSockets, renewals, reloads."""

from __future__ import annotations

import asyncio
import os
import re
import time
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import pytest_asyncio
import websockets
from certificates import Authority
from http2.rig import Answer, Client, client_of
from journeys.greenroom import TOKEN, Greenroom, actor_folder, eventually, workers_of

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]

AUTHORITY = Authority()
# No client believes a wildcard below a name of one label.
DOMAIN = "greenroom.localhost"
HOST = f"local--probe.{DOMAIN}"


def write_certificate(folder: Path, *more: str) -> None:
    """That of the server's domain and what is below it."""
    AUTHORITY.write(folder, "domain", DOMAIN, f"*.{DOMAIN}", *more)


class Server:
    """A server with a TLS port, and clients of it."""

    def __init__(self, greenroom: Greenroom, tls_port: int, folder: Path) -> None:
        self.greenroom = greenroom
        self.tls_port = tls_port
        self.folder = folder

    def client(self, *, http2: bool, **options: Any) -> httpx.AsyncClient:
        """One that believes its certificate."""
        return httpx.AsyncClient(
            base_url=f"https://127.0.0.1:{self.tls_port}",
            http1=not http2,
            http2=http2,
            verify=AUTHORITY.client(),
            headers={"Host": HOST, "Authorization": f"Bearer {TOKEN}"},
            timeout=60,
            trust_env=False,
            **options,
        )


def asking(method: str = "GET", path: str = "/", **options: Any) -> dict[str, Any]:
    """The arguments of a request whose certificate has to be that of the Actor's host."""
    return {"method": method, "url": path, "extensions": {"sni_hostname": HOST}, **options}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Server]:
    """One for these tests, with the probe Actor."""
    base = tmp_path_factory.mktemp("tls")
    write_certificate(base / "tls")
    room = {"idleTimeoutSecs": 600, "desiredRequestsPerActorRun": 100, "maxRequestsPerActorRun": 200}
    settings = {"domain": DOMAIN, "tls_port": 0, "tls_certificates": base / "tls"}
    async with Greenroom(
        base / "data", (actor_folder(base / "actors", "probe", room),), settings=settings
    ) as greenroom:
        port = re.search(r"tls: served on port (\d+)", greenroom.log)
        assert port is not None
        yield Server(greenroom, int(port[1]), base / "tls")


@pytest.mark.parametrize("http2", [False, True], ids=["HTTP/1.1", "HTTP/2"])
async def test_an_actor_is_served_over_tls(server: Server, http2: bool) -> None:
    """It learns by what scheme it was asked, whatever the client says, and gets no token."""
    async with server.client(http2=http2) as client:
        answer = await client.request(
            **asking("POST", "/seen?a=1", content=b"body", headers={"X-Forwarded-Proto": "http", "Cookie": "a=1"})
        )
    assert (answer.status_code, answer.http_version) == (200, "HTTP/2" if http2 else "HTTP/1.1")
    seen = answer.json()
    headers = {name.lower(): value for name, value in seen["headers"]}
    assert (seen["method"], seen["target"], seen["body"]) == ("POST", "/seen?a=1", "body")
    assert headers["x-forwarded-proto"] == "https"
    assert headers["host"] == HOST
    assert headers["via"] == ("2 greenroom" if http2 else "1.1 greenroom")
    assert "proto=https" in headers["forwarded"]
    assert TOKEN not in str(seen["headers"])
    assert answer.headers.get_list("set-cookie") == ["a=1", "b=2"]


@pytest.mark.parametrize("http2", [False, True], ids=["HTTP/1.1", "HTTP/2"])
async def test_the_api_is_served_over_tls(server: Server, http2: bool) -> None:
    """As over the plain port, which stays."""
    async with server.client(http2=http2) as client:
        answer = await client.get("/v2/users/me", headers={"Host": DOMAIN}, extensions={"sni_hostname": DOMAIN})
    assert answer.json()["data"]["username"] == "local"
    assert (await server.greenroom.api("GET", "/users/me")).status_code == 200


async def test_http2_by_prior_knowledge(server: Server) -> None:
    """On the plain port, for a proxy in front that speaks it."""
    async with httpx.AsyncClient(http1=False, http2=True, trust_env=False, timeout=60) as client:
        url = f"http://127.0.0.1:{server.greenroom.port}/seen"
        answer = await client.get(url, headers={"Host": HOST, "Authorization": f"Bearer {TOKEN}"})
    assert (answer.status_code, answer.http_version) == (200, "HTTP/2")
    assert ["X-Forwarded-Proto", "http"] in answer.json()["headers"]


@pytest.mark.parametrize("http2", [False, True], ids=["HTTP/1.1", "HTTP/2"])
async def test_events_come_as_they_are_written(server: Server, http2: bool) -> None:
    """The first one long before the last."""
    async with server.client(http2=http2) as client:
        times = []
        async with client.stream(**asking(path="/stream?n=5&ms=100")) as answer:
            async for piece in answer.aiter_raw():
                times += [time.monotonic()] * piece.count(b"data:")
    assert len(times) == 5
    assert times[-1] - times[0] > 0.3


async def test_websockets_over_tls(server: Server) -> None:
    """By HTTP/1.1, also from a client that could do HTTP/2: it is not offered WebSockets there."""
    for protocols in ([], ["http/1.1"]):
        context = AUTHORITY.client(*protocols)
        async with websockets.connect(
            f"wss://{HOST}/ws", host="127.0.0.1", port=server.tls_port, ssl=context, proxy=None,
            additional_headers={"Authorization": f"Bearer {TOKEN}"},
        ) as socket_:  # fmt: skip
            await socket_.send("over TLS")
            assert await socket_.recv() == "over TLS"


@pytest.mark.parametrize("http2", [False, True], ids=["HTTP/1.1", "HTTP/2"])
async def test_large_bodies_take_no_memory(server: Server, http2: bool) -> None:
    """64 MiB to the Actor, and 64 MiB from it."""
    size, piece = 64 * 1024 * 1024, os.urandom(1024 * 1024)
    process = psutil.Process(workers_of(server.greenroom.process.pid)[0])  # type: ignore[union-attr]
    most = 0

    async def body() -> AsyncIterator[bytes]:
        nonlocal most
        for _ in range(size // len(piece)):
            yield piece
            most = max(most, process.memory_info().rss)

    async with server.client(http2=http2) as client:
        await client.request(**asking(path="/seen"))
        before, received = process.memory_info().rss, 0
        assert (await client.request(**asking("POST", "/sum", content=body()))).json()["size"] == size
        up, most = most, 0
        async with client.stream(**asking(path=f"/bytes?n={size}")) as answer:
            async for data in answer.aiter_raw():
                received += len(data)
                most = max(most, process.memory_info().rss)
    assert received == size
    print(f"above rest: {(up - before) / 2**20:.1f} MiB up, {(most - before) / 2**20:.1f} MiB down")
    assert max(up, most) - before < 16 * 2**20


async def test_a_renewal_is_taken_over_by_itself(server: Server) -> None:
    """Within seconds; who is connected notices nothing. What can't be used is seen in a metric."""
    greenroom = server.greenroom

    async def shows(name: str) -> bool:
        _, writer = await asyncio.open_connection(
            "127.0.0.1", server.tls_port, ssl=AUTHORITY.client(), server_hostname=HOST
        )
        names = [value for _, value in writer.get_extra_info("peercert")["subjectAltName"]]
        writer.close()
        return name in names

    async with server.client(http2=True) as client:
        assert (await client.request(**asking())).status_code == 200
        write_certificate(server.folder, "renewed.test")
        await eventually(lambda: shows("renewed.test"), what="the new certificate")
        assert (await client.request(**asking())).status_code == 200
    assert await greenroom.metric("greenroom_tls_files_unusable") == 0
    assert await greenroom.metric("greenroom_tls_expiry_seconds") > time.time() + 80 * 86_400
    good = (server.folder / "domain.pem").read_bytes()
    (server.folder / "domain.pem").write_bytes(b"broken")

    async def is_told() -> bool:
        return await greenroom.metric("greenroom_tls_files_unusable") == 1

    await eventually(is_told, what="the broken file")
    await eventually(lambda: "holds no certificate in PEM form" in greenroom.log, what="the line of log")
    assert await shows("renewed.test")
    (server.folder / "domain.pem").write_bytes(good)


async def test_a_reload_loses_no_request_over_tls(server: Server) -> None:
    """Of connections that stand and of new ones, by both protocols."""
    greenroom = server.greenroom
    assert greenroom.process is not None
    ends: Counter[str] = Counter()
    is_over = asyncio.Event()

    async def ask(client: httpx.AsyncClient) -> None:
        answer = await client.request(**asking(path="/slow?ms=5"))
        ends[f"{answer.http_version} {answer.status_code}"] += 1

    async def keep_asking(*, stays: bool) -> None:
        while not is_over.is_set():
            async with server.client(http2=False) as client:
                while not is_over.is_set():
                    async with asyncio.TaskGroup() as group:
                        for _ in range(5):
                            group.create_task(ask(client))
                    if not stays:
                        break

    async def keep_asking_http2(*, stays: bool) -> None:
        # Not by httpx, which takes GOAWAY for the end of what it has not read yet.
        tls = {"ssl": AUTHORITY.client("h2"), "server_hostname": HOST}
        while not is_over.is_set():
            async with client_of(server.tls_port, **tls) as client:
                first = 1
                while not is_over.is_set() and not client.goaways and (stays or first == 1):
                    ends.update(await five_at_once(client, first))
                    first += 10

    async with asyncio.TaskGroup() as group:
        for stays in (True, False):
            group.create_task(keep_asking(stays=stays))
            group.create_task(keep_asking_http2(stays=stays))
        await eventually(lambda: len(ends) == 2)
        for _ in range(2):
            (before,) = workers_of(greenroom.process.pid)
            await greenroom.command("reload")
            pid = greenroom.process.pid
            await eventually(lambda: before not in workers_of(pid), within_secs=40)  # noqa: B023
        is_over.set()
    print(dict(ends))
    assert set(ends) - {"HTTP/2 again"} == {"HTTP/1.1 200", "HTTP/2 200"}


async def five_at_once(client: Client, first: int) -> list[str]:
    """How five requests on a connection went: with a status, or that GOAWAY says that they may be sent again."""
    fields = [
        (b":method", b"GET"), (b":scheme", b"https"), (b":path", b"/slow?ms=5"), (b":authority", HOST.encode()),
        (b"authorization", f"Bearer {TOKEN}".encode()),
    ]  # fmt: skip
    answers = {stream: client.answers.setdefault(stream, Answer()) for stream in range(first, first + 10, 2)}
    for stream in answers:
        client.ask(fields, stream=stream)

    def is_untaken(stream: int) -> bool:
        return bool(client.goaways) and stream > client.goaways[-1].last_stream_id

    await client.wait(lambda: all(answer.is_whole or is_untaken(stream) for stream, answer in answers.items()))
    return [f"HTTP/2 {answer.status}" if answer.is_whole else "HTTP/2 again" for answer in answers.values()]


async def test_without_a_certificate_it_says_what_is_missing(tmp_path: Path) -> None:
    """And does not serve without TLS what was to be served with it."""
    greenroom = Greenroom(tmp_path / "data", settings={"tls_port": 0, "tls_certificates": tmp_path / "none"})
    greenroom.start()
    assert greenroom.process is not None
    assert await asyncio.to_thread(greenroom.process.wait, 30) == 1
    assert "there is no certificate with its key in" in greenroom.log or "can't be read" in greenroom.log
