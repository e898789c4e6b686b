"""The network rules of a Swarm's nodes, tried from outside and from inside of a run, with real engines."""

from __future__ import annotations

import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from journeys.greenroom import Greenroom
from journeys.swarm import container_actor, open_with_base, serving
from swarm_cluster import Cluster, Node

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

# GET /HOST/PORT tells whether it could connect there.
CALLER = """
import os, socket
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        _, host, port, *_ = self.path.split("/") + ["", ""]
        told = "hello"
        if port:
            try:
                socket.create_connection((host, int(port)), timeout=2).close()
                told = "open"
            except OSError as error:
                told = "closed"
        self.send_response(200)
        self.send_header("Content-Length", str(len(told)))
        self.end_headers()
        self.wfile.write(told.encode())

ThreadingHTTPServer(("0.0.0.0", int(os.environ["ACTOR_WEB_SERVER_PORT"])), Handler).serve_forever()
"""

KNOCK = "import socket, sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=2)"


@pytest.fixture(scope="module")
def cluster(docker_host: str) -> Iterator[Cluster]:
    """Two nodes, which have IPv6 addresses too."""
    for opened in open_with_base(2):
        for number, node in enumerate(opened.nodes):
            _inside(node, "ip", "addr", "add", f"fd00:6772::{number + 10}/64", "dev", "eth0", "nodad")
        yield opened


def _inside(node: Node, *words: str) -> None:
    subprocess.run(["nsenter", f"--net=/proc/{node.process.pid}/ns/net", *words], check=True)


def _reaches(node: Node, host: str, port: int) -> bool:
    """Whether *node* itself, which is no gateway, connects there."""
    words = ["nsenter", f"--net=/proc/{node.process.pid}/ns/net", "python3", "-c", KNOCK, host, str(port)]
    return subprocess.run(words, stderr=subprocess.DEVNULL, check=False).returncode == 0


async def _placed(greenroom: Greenroom, cluster: Cluster, actor: str) -> tuple[Node, int]:
    """The node of the Actor's run and the port that is open there for it."""
    (run_id,) = await greenroom.serving({"id": f"local~{actor}"}, 1)
    for node in cluster.nodes:
        for line in node.docker("ps", "--filter", f"label=greenroom.run={run_id}", "-q").split():
            ports = node.docker("port", line).splitlines()
            return node, int(ports[0].rpartition(":")[2])
    raise AssertionError(f"run {run_id} is on no node")


async def test_runs_are_called_by_the_gateway_alone(cluster: Cluster, tmp_path: Path) -> None:
    """
    Before the rules everybody on the nodes' network can call a run's port, by IPv6 too, and a run calls its neighbour
    on the other node, the nodes' own ports and other ports of Greenroom's machine. Afterwards nobody can; the gateway
    and Greenroom's API are reached as before, and without the rules again all is open again.
    """
    on = [{"swarm_constraints": f"node.id=={node.id}"} for node in cluster.nodes]
    actor = container_actor(tmp_path / "actors", "caller", {"idleTimeoutSecs": 300}, main=CALLER)
    near, far = cluster.nodes[1], cluster.nodes[0]
    with _Listener(cluster.address) as stranger:
        async with serving(cluster, tmp_path, actor, **on[1]) as greenroom:

            async def tries(host: str, port: int) -> str:
                return (await greenroom.call("caller", f"/{host}/{port}")).text

            assert (await greenroom.call("caller")).text == "hello"
            node, port = await _placed(greenroom, cluster, "caller")
            assert node is near
            outside = {"IPv4": (near.address, port), "IPv6": ("fd00:6772::11", port)}
            targets: dict[str, tuple[str, int]] = {
                "the node's engine": (near.address, 2375),
                "another node's engine": (far.address, 2375),
                "a port of Greenroom's machine": (cluster.address, stranger),
                "its own port of the node": (near.address, port),
            }
            assert {name: _reaches(far, *where) for name, where in outside.items()} == dict.fromkeys(outside, True)
            before = {name: await tries(*where) for name, where in targets.items()}
            assert before == dict.fromkeys(targets, "open")

            script = tmp_path / "rules.sh"
            engine = ("--set", f"docker_host={cluster.manager.host}", "--set", f"run_host={cluster.address}")
            script.write_text(await greenroom.command("network-rules", "--nodes", *engine))
            for one in cluster.nodes:
                _inside(one, "sh", str(script))
                _inside(one, "sh", str(script), "check")
            try:
                assert {name: _reaches(far, *where) for name, where in outside.items()} == dict.fromkeys(outside, False)
                after: dict[str, Any] = {name: await tries(*where) for name, where in targets.items()}
                assert after == dict.fromkeys(targets, "closed")
                assert await tries(cluster.address, greenroom.port) == "open"
                assert (await greenroom.call("caller")).text == "hello"
            finally:
                for one in cluster.nodes:
                    _inside(one, "sh", str(script), "remove")
            assert _reaches(far, near.address, port)


class _Listener:
    """Something else that listens on this machine."""

    def __init__(self, host: str) -> None:
        self._socket = socket.create_server((host, 0))

    def __enter__(self) -> int:
        threading.Thread(target=self._accept, daemon=True).start()
        return int(self._socket.getsockname()[1])

    def __exit__(self, *_: object) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def _accept(self) -> None:
        while True:
            try:
                self._socket.accept()[0].close()
            except OSError:
                return
