"""
The peers: what each is started with, pinned to one core, with one process or thread that serves.

All set what Greenroom sets (``X-Forwarded-For``, ``-Host``, ``-Proto``, ``Forwarded``, ``Via``, a fresh request id in
both directions) as far as they can; ``lacks`` says what they can't. None checks a token, keeps per-request logs or
counts by caller: what Greenroom does besides is on its bill alone.
"""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from loadtests.peers.templates import Upstream, for_upstreams, render

TEMPLATES = Path(__file__).parent
CHP_TOKEN = "loadtest"


@dataclass(frozen=True, kw_only=True)
class Site:
    """Where one proxy of a load test lives: its port on loopback, its folder, and what stands behind it."""

    port: int
    folder: Path
    upstreams: tuple[Upstream, ...]


@dataclass(frozen=True, kw_only=True)
class Peer:
    """
    One proxy to compare with. *command* gives its argv for a site and the path of its program.

    ``configure`` is called once it listens, for what can be set only then. ``only_in``: a variant of another peer,
    tuned beyond what its manual advises, which stands beside it in one comparison (``steady`` or ``streams``).
    """

    name: str
    tool: str
    title: str
    command: Callable[[Site, Path], list[str]]
    templates: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    configure: Callable[[Site], None] | None = None
    has_sockets: bool = True
    only_in: str = ""
    lacks: str = ""


def write_configuration(peer: Peer, site: Site) -> None:
    """Its configuration files, in the site's folder."""
    values = {"PORT": site.port, "FOLDER": site.folder}
    for name in peer.templates:
        text = (TEMPLATES / name).read_text()
        (site.folder / name).write_text(render(text, values, for_upstreams(site.upstreams)))


def _nginx(site: Site, program: Path) -> list[str]:
    return [str(program), "-p", str(site.folder), "-c", str(site.folder / "nginx.conf")]


def _go(site: Site, program: Path) -> list[str]:
    routes = [f"-route={one.host}=127.0.0.1:{one.port}" for one in site.upstreams]
    return [str(program), f"-port={site.port}", *routes]


def _python(site: Site, program: Path) -> list[str]:
    routes = [f"{one.host}=127.0.0.1:{one.port}" for one in site.upstreams]
    return [str(program), "-m", "loadtests.peers.python_stack", str(site.port), *routes]


def _relay(site: Site, program: Path) -> list[str]:
    routes = [f"{one.host}=127.0.0.1:{one.port}" for one in site.upstreams]
    return [str(program), "-m", "loadtests.peers.relay", str(site.port), *routes]


def _chp(site: Site, program: Path) -> list[str]:
    return [
        str(program),
        "--ip=127.0.0.1",
        f"--port={site.port}",
        "--api-ip=127.0.0.1",
        f"--api-port={site.port + 1}",
        "--host-routing",
        "--log-level=error",
        # Its default; upstream connections are kept alive by its own agent since 4.6.
        "--keep-alive-timeout=75000",
    ]


def _chp_routes(site: Site) -> None:
    """Its routes are set by its API, which may begin to listen a moment after the proxy."""
    for one in site.upstreams:
        request = urllib.request.Request(
            f"http://127.0.0.1:{site.port + 1}/api/routes/{one.host}",
            data=json.dumps({"target": f"http://127.0.0.1:{one.port}"}).encode(),
            headers={"Authorization": f"token {CHP_TOKEN}"},
            method="POST",
        )
        deadline = time.monotonic() + 10
        while True:
            try:
                urllib.request.urlopen(request, timeout=5).close()
                break
            except urllib.error.URLError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)


_ONE_THREAD = {"GOMAXPROCS": "1"}

PEERS: tuple[Peer, ...] = (
    Peer(
        name="nginx",
        tool="nginx",
        title="nginx",
        templates=("nginx.conf",),
        command=_nginx,
    ),
    Peer(
        name="nginx_large_buffers",
        tool="nginx",
        title="nginx with buffers of 64 KiB",
        templates=("nginx.conf", "nginx-large-buffers.conf"),
        command=_nginx,
        only_in="streams",
    ),
    Peer(
        name="haproxy",
        tool="haproxy",
        title="HAProxy",
        templates=("haproxy.cfg", "hosts.map"),
        command=lambda site, program: [str(program), "-db", "-f", str(site.folder / "haproxy.cfg")],
    ),
    Peer(
        name="go",
        tool="own:proxy",
        title="Go ReverseProxy",
        command=_go,
        environment=_ONE_THREAD,
    ),
    Peer(
        name="go_buffer_pool",
        tool="own:proxy",
        title="Go ReverseProxy with a BufferPool",
        command=lambda site, program: [*_go(site, program), "-pool"],
        environment=_ONE_THREAD,
        only_in="steady",
    ),
    Peer(
        name="caddy",
        tool="caddy",
        title="Caddy",
        templates=("Caddyfile",),
        command=lambda site, program: [
            str(program),
            "run",
            "--adapter=caddyfile",
            f"--config={site.folder / 'Caddyfile'}",
        ],
        environment=_ONE_THREAD,
    ),
    Peer(
        name="traefik",
        tool="traefik",
        title="Traefik",
        templates=("traefik.yml", "traefik-routes.yml"),
        command=lambda site, program: [str(program), f"--configfile={site.folder / 'traefik.yml'}"],
        environment=_ONE_THREAD,
        lacks="a request id, Forwarded, Via",
    ),
    Peer(
        name="envoy",
        tool="envoy",
        title="Envoy",
        templates=("envoy.yaml",),
        command=lambda site, program: [
            str(program),
            "--concurrency",
            "1",
            "--disable-hot-restart",
            "--log-level",
            "error",
            "-c",
            str(site.folder / "envoy.yaml"),
        ],
    ),
    Peer(
        name="chp",
        tool="configurable-http-proxy",
        title="configurable-http-proxy",
        command=_chp,
        environment={"CONFIGPROXY_AUTH_TOKEN": CHP_TOKEN},
        configure=_chp_routes,
        lacks="a request id, Forwarded, Via",
    ),
    Peer(
        name="python",
        tool="python",
        title="uvicorn + Starlette + httpx",
        command=_python,
        has_sockets=False,
    ),
    Peer(
        name="relay",
        tool="python",
        title="bytes back and forth on uvloop, unread",
        command=_relay,
        only_in="steady",
        lacks="all but that",
    ),
)
QUICK = ("nginx", "nginx_large_buffers", "haproxy", "go", "go_buffer_pool", "relay")
