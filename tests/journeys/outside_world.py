"""
Targets outside of containers, which no test may look for on real networks: a network namespace with their addresses.

Only packets that come from one bridge are led there, so nothing else on this machine notices. Takes root.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass

INTERNET = "203.0.113.10"  # of a network for documentation: it stands for any address of the internet
CLOSED = (
    "169.254.169.254",  # the metadata of clouds
    "169.254.0.7",
    "10.254.77.1",
    "172.31.254.1",
    "192.168.254.1",
    "100.64.254.1",
    "192.0.0.10",
    "198.19.254.1",
    "240.0.0.7",
)
TCP_PORT = 80
UDP_PORT = 7777

# Accepts on TCP, echoes on UDP, and answers each question for a name with INTERNET.
_SERVERS = """
import socket, struct, sys, threading

def accept(port):
    server = socket.create_server(("", port), backlog=128)
    while True:
        server.accept()[0].close()

def answer(sock, reply):
    while True:
        data, peer = sock.recvfrom(4096)
        sock.sendto(reply(data), peer)

def dns(query):
    end = query.index(b"\\0", 12) + 5
    is_a = query[end - 4 : end - 2] == b"\\0\\1"
    record = b"\\xc0\\x0c" + struct.pack("!HHIH", 1, 1, 60, 4) + socket.inet_aton(sys.argv[1])
    return query[:2] + struct.pack("!HHHHH", 0x8180, 1, int(is_a), 0, 0) + query[12:end] + record * is_a

for port, reply in ((53, dns), (int(sys.argv[3]), lambda data: b"echo")):
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    # What is asked at one of many addresses has to be answered from that one.
    for address in sys.argv[4:]:
        bound = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        bound.bind((address, port))
        threading.Thread(target=answer, args=(bound, reply), daemon=True).start()
threading.Thread(target=accept, args=(int(sys.argv[2]),), daemon=True).start()
print("up", flush=True)
sys.stdin.read()
"""

_TRY = """
import socket, sys
socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=1.5)
"""


@dataclass(frozen=True)
class World:
    """What *bridge* sees as the outside; *number* keeps the worlds of tests that run side by side apart."""

    bridge: str
    number: int
    resolvers: tuple[str, ...]

    @property
    def name(self) -> str:
        return f"{self.bridge}-out"

    @property
    def link(self) -> str:
        """The machine's end of the cable."""
        return f"gro{self.number}"

    @property
    def host(self) -> str:
        """The machine's address on it."""
        return f"100.{96 + self.number // 16384}.{self.number // 64 % 256}.{self.number % 64 * 4 + 1}"

    @property
    def own(self) -> str:
        """The other end's."""
        return self.host.rpartition(".")[0] + f".{int(self.host.rpartition('.')[2]) + 1}"

    def reaches(self, host: str, port: int) -> bool:
        """Whether somebody outside can connect to *host* by way of this machine."""
        words = ["ip", "netns", "exec", self.name, sys.executable, "-c", _TRY, host, str(port)]
        return subprocess.run(words, capture_output=True, check=False).returncode == 0


@contextlib.contextmanager
def outside_world(installation_id: str, bridge: str, resolvers: tuple[str, ...]) -> Iterator[World]:
    """All of it, until the end of the block."""
    world = World(bridge, int(installation_id, 16) % 65536, resolvers)
    addresses = (INTERNET, *CLOSED, *resolvers)
    table = str(100_000 + world.number)
    try:
        _ip("netns", "add", world.name)
        _ip("link", "add", world.link, "type", "veth", "peer", "name", "eth0", "netns", world.name)
        _ip("addr", "add", f"{world.host}/30", "dev", world.link)
        _ip("link", "set", world.link, "up")
        for device in ("lo", "eth0"):
            _ip("-n", world.name, "link", "set", device, "up")
        _ip("-n", world.name, "addr", "add", f"{world.own}/30", "dev", "eth0")
        for address in addresses:
            _ip("-n", world.name, "addr", "add", f"{address}/32", "dev", "eth0")
        _ip("-n", world.name, "route", "add", "default", "via", world.host)
        _ip("route", "add", "default", "via", world.own, "dev", world.link, "table", table)
        for address in addresses:
            _ip("rule", "add", "iif", bridge, "to", f"{address}/32", "lookup", table)
        words = ["ip", "netns", "exec", world.name, sys.executable, "-c", _SERVERS, INTERNET]
        with subprocess.Popen(
            [*words, str(TCP_PORT), str(UDP_PORT), *addresses], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as servers:
            assert servers.stdout is not None
            assert servers.stdout.readline() == b"up\n"
            try:
                yield world
            finally:
                servers.kill()
    finally:
        for address in addresses:
            _ip("rule", "del", "iif", bridge, "to", f"{address}/32", "lookup", table, must=False)
        _ip("link", "del", world.link, must=False)
        _ip("netns", "del", world.name, must=False)


def _ip(*words: str, must: bool = True) -> None:
    done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0 or not must, f"ip {' '.join(words)}: {done.stderr}"
