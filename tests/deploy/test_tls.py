"""TLS as deployed: Caddy with the Caddyfile of deploy/ in front of a real Greenroom."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
import websockets
from journeys.greenroom import TOKEN, Greenroom, actor_folder, eventually

pytestmark = pytest.mark.slow

CADDYFILE = Path(__file__).parents[2] / "deploy" / "Caddyfile"
DOMAIN = "greenroom.localhost"  # what the Caddyfile has where nothing else is set
BEARER = {"Authorization": f"Bearer {TOKEN}"}


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


class BehindCaddy(Greenroom):
    """What it prints is Caddy's port, so its own one is given."""

    async def wait_until_ready(self) -> None:
        """Until ``/health/ready`` is 200."""
        self.client = httpx.AsyncClient(base_url=f"http://127.0.0.1:{self.port}", timeout=60, trust_env=False)

        async def is_ready() -> bool:
            with contextlib.suppress(httpx.TransportError):
                return (await self.client.get("/health/ready")).status_code == 200
            return False

        await eventually(is_ready, within_secs=30, what="greenroom's start")


@pytest.fixture
async def https(tmp_path: Path) -> AsyncIterator[tuple[Greenroom, int, ssl.SSLContext]]:
    """A Greenroom behind Caddy: the port of that, and who trusts its own authority."""
    caddy = shutil.which("caddy", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    if caddy is None:
        pytest.skip("caddy is not installed")
    port = free_port()
    settings = {"domain": DOMAIN, "public_scheme": "https", "public_port": port, "trusted_proxies": "127.0.0.1"}
    folder = actor_folder(tmp_path, "web", {"isEnabled": True})
    async with BehindCaddy(tmp_path / "data", (folder,), settings, port=free_port()) as greenroom:
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(tmp_path),
            "XDG_DATA_HOME": str(tmp_path),
            "GREENROOM_PORT": str(greenroom.port),
            "CADDY_HTTP_PORT": str(free_port()),
            "CADDY_HTTPS_PORT": str(port),
        }
        process = _start(caddy, environment, tmp_path / "caddy.log")
        try:
            authority = tmp_path / "caddy" / "pki" / "authorities" / "local" / "root.crt"
            await eventually(authority.exists, within_secs=20, what=f"Caddy's authority, see {tmp_path}/caddy.log")
            trust = ssl.create_default_context(cafile=str(authority))
            await eventually(lambda: _shakes_hands(port, trust, f"web.{DOMAIN}"), within_secs=20, what="a certificate")
            yield greenroom, port, trust
        finally:
            process.send_signal(signal.SIGTERM)
            assert process.wait(20) == 0


def _start(caddy: str, environment: dict[str, str], log_path: Path) -> subprocess.Popen[bytes]:
    with log_path.open("wb") as log:
        words = [caddy, "run", "--config", str(CADDYFILE), "--adapter", "caddyfile"]
        return subprocess.Popen(words, env=environment, stderr=log)


def _shakes_hands(port: int, trust: ssl.SSLContext, name: str) -> bool:
    try:
        with (
            socket.create_connection(("127.0.0.1", port), timeout=5) as plain,
            trust.wrap_socket(plain, server_hostname=name),
        ):
            return True
    except OSError:
        return False


async def test_standby_live_view_and_api_by_tls(https):
    """Each kind of host has a certificate that fits its name, and what is behind it is what Greenroom serves there."""
    greenroom, port, trust = https
    async with httpx.AsyncClient(verify=trust, trust_env=False, timeout=30) as client:

        async def get(host: str, path: str, **headers: str) -> httpx.Response:
            extensions = {"sni_hostname": host}
            return await client.get(
                f"https://127.0.0.1:{port}{path}", headers={"Host": f"{host}:{port}", **headers}, extensions=extensions
            )

        api = await get(DOMAIN, "/v2/users/me", **BEARER)
        assert api.json()["data"]["username"] == "local"
        answer = await get(f"local--web.{DOMAIN}", "/", **BEARER)
        assert answer.status_code == 200
        (run,) = await greenroom.runs()
        view = (await greenroom.run(run["id"]))["containerUrl"]
        label = view.removeprefix("https://").partition(".")[0]
        assert view.startswith(f"https://{label}.runs.{DOMAIN}:{port}")
        assert (await get(f"{label}.runs.{DOMAIN}", "/")).status_code == 200
        assert (await get(f"local--web.{DOMAIN}", "/")).status_code == 401


async def test_sockets_by_tls(https):
    """A WebSocket goes through, both ways."""
    _, port, trust = https
    async with websockets.connect(
        f"wss://local--web.{DOMAIN}:{port}/ws",
        host="127.0.0.1",
        port=port,
        ssl=trust,
        additional_headers=BEARER,
        proxy=None,
    ) as connection:
        await connection.send("hello")
        assert "hello" in str(await connection.recv())


async def test_names_outside_of_the_domain(https):
    """For another name there is no certificate, and so no request."""
    _, port, trust = https
    assert _shakes_hands(port, trust, f"any.runs.{DOMAIN}")
    assert not _shakes_hands(port, trust, f"a.b.c.{DOMAIN}")
    assert not _shakes_hands(port, trust, "example.com")
