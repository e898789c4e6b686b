"""
A Docker Swarm of several engines on this one machine, for the tests, and a registry for its images.

Each node is an engine in network, process and mount namespaces of its own, so that ending the node's first process is
as pulling its plug: engine, containers and mounts are gone at once. A bridge in one more namespace joins the nodes;
this machine has an address on it too, so a Greenroom here reaches them. It takes root and Debian's packages docker.io,
iptables and docker-registry.

    python tests/swarm_cluster.py 3      starts one, prints where its nodes are, and ends it when told to (Enter)
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from docker_engine import BASE_NAMES, NoEngine, answers, up

from gateway.installation import RUN_LABEL

_START_SECS = 60
_REGISTRY_PORT = 5000
_ENGINE_PORT = 2375
_NETWORKS = [f"198.18.{number}" for number in range(256)]  # set aside for tests of networks, by RFC 2544


@dataclass(eq=False)
class Node:
    """One engine of the Swarm: ``host`` is its socket on this machine, ``address`` its address on the bridge."""

    name: str
    address: str
    folder: Path
    process: subprocess.Popen[bytes]
    id: str = ""

    @property
    def host(self) -> str:
        return f"unix://{self.folder}/docker.sock"

    def docker(self, *words: str, stdin: bytes | None = None) -> str:
        """What ``docker WORDS`` on this node prints. Fails where it does."""
        done = subprocess.run(["docker", "-H", self.host, *words], input=stdin, capture_output=True, check=False)
        assert done.returncode == 0, f"docker {' '.join(words)} on {self.name}: {done.stderr.decode()}"
        return done.stdout.decode().strip()

    def kill(self) -> None:
        """Pull its plug: everything of it ends at once."""
        self.process.kill()
        self.process.wait()


@dataclass(eq=False)
class Cluster:
    """A Swarm; the first of its ``nodes`` is the manager. ``address`` is this machine's own on their bridge."""

    address: str
    registry: str
    new_node: Callable[[int], contextlib.AbstractContextManager[Node]]
    nodes: list[Node] = field(default_factory=list)

    @property
    def manager(self) -> Node:
        return self.nodes[0]

    @property
    def node_engines(self) -> str:
        """Where the engines of the nodes answer, as the setting ``swarm_node_engines`` wants it."""
        return f"tcp://{{address}}:{_ENGINE_PORT}"

    def availability(self, node: Node, wanted: str) -> None:
        """``drain``, ``pause`` (what is there stays, nothing new comes) or ``active``."""
        self.manager.docker("node", "update", "--availability", wanted, node.id)

    def runs_on(self, node: Node, label: str) -> set[str]:
        """The ids of the runs whose containers run there, of the Greenroom with that *label*."""
        words = ("ps", "--filter", f"label={label}", "--format", f'{{{{.Label "{RUN_LABEL}"}}}}')
        return set(node.docker(*words).split())

    @contextlib.contextmanager
    def one_more(self) -> Iterator[Node]:
        """A worker that joins, and is thrown out in the end, whether it lives or not."""
        number = 1 + max(int(node.name.removeprefix("node")) for node in self.nodes)
        with self.new_node(number) as node:
            _until(lambda: answers(node.host), f"the engine {node.name} did not start")
            _join_swarm(self.manager, node)
            self.nodes.append(node)
            try:
                yield node
            finally:
                self.nodes.remove(node)
                node.kill()
                self.manager.docker("node", "rm", "--force", node.id)


@contextlib.contextmanager
def open_cluster(count: int, *, heartbeat: str = "1s") -> Iterator[Cluster]:
    """A Swarm of *count* nodes that tell every *heartbeat* that they live; gone afterwards. Raises NoEngine."""
    if os.geteuid() != 0:
        raise NoEngine("a Swarm of the tests' own takes root")
    missing = [tool for tool in ("dockerd", "docker", "iptables", "ip", "docker-registry") if not shutil.which(tool)]
    if missing:
        raise NoEngine(f"a Swarm of the tests' own takes {', '.join(missing)}")
    folder = Path(tempfile.mkdtemp(prefix="greenroom-swarm-"))
    with contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        hub = stack.enter_context(_process(["unshare", "--net", "sleep", "infinity"], folder / "hub.log"))
        _until(lambda: _has_own_network(hub.pid), "the hub's namespace is not there")
        network, link = _join(hub)
        stack.callback(_ip, "link", "del", link)
        registry = f"{network}.2:{_REGISTRY_PORT}"

        def new_node(number: int) -> contextlib.AbstractContextManager[Node]:
            return _node(f"node{number}", f"{network}.{number + 9}", registry, hub, folder / f"node{number}")

        cluster = Cluster(address=f"{network}.1", registry=registry, new_node=new_node)
        stack.enter_context(_registry(cluster, hub, folder / "registry"))
        cluster.nodes += [stack.enter_context(new_node(number + 1)) for number in range(count)]
        for node in cluster.nodes:
            _until(lambda node=node: answers(node.host), f"the engine {node.name} did not start")  # type: ignore[misc]
        _form(cluster, heartbeat)
        yield cluster


def load_base(node: Node) -> None:
    """The base image of the tests, from their engine into this one."""
    with subprocess.Popen(["docker", "-H", up(), "save", *BASE_NAMES], stdout=subprocess.PIPE) as saved:
        words = ["docker", "-H", node.host, "load"]
        loaded = subprocess.run(words, stdin=saved.stdout, capture_output=True, check=False)
    assert saved.returncode == 0, "the base image could not be saved"
    assert loaded.returncode == 0, loaded.stderr.decode()


def _form(cluster: Cluster, heartbeat: str) -> None:
    manager = cluster.manager
    manager.docker("swarm", "init", "--advertise-addr", manager.address, "--dispatcher-heartbeat", heartbeat)
    manager.id = _node_id(manager)
    for node in cluster.nodes[1:]:
        _join_swarm(manager, node)


def _join_swarm(manager: Node, node: Node) -> None:
    token = manager.docker("swarm", "join-token", "-q", "worker")
    node.docker("swarm", "join", "--token", token, "--advertise-addr", node.address, f"{manager.address}:2377")
    node.id = _node_id(node)


def _node_id(node: Node) -> str:
    return str(json.loads(node.docker("info", "--format", "{{json .Swarm.NodeID}}")))


def _join(hub: subprocess.Popen[bytes]) -> tuple[str, str]:
    """A bridge in the hub's namespace, with a cable from this machine; the network's first three numbers, the cable."""
    link = f"grsw{hub.pid % 10**8}"
    taken = subprocess.run(["ip", "-4", "-o", "addr"], capture_output=True, text=True, check=True).stdout
    start = hub.pid % len(_NETWORKS)
    network = next(one for one in _NETWORKS[start:] + _NETWORKS[:start] if f" {one}." not in taken)
    for words in ("link add br0 type bridge", "link set br0 up", "link set lo up", f"addr add {network}.2/24 dev br0"):
        _ip(*words.split(), at=hub)
    _ip("link", "add", link, "type", "veth", "peer", "name", "uplink", "netns", str(hub.pid))
    _ip("link", "set", "uplink", "master", "br0", "up", at=hub)
    _ip("addr", "add", f"{network}.1/24", "dev", link)
    _ip("link", "set", link, "up")
    return network, link


@contextlib.contextmanager
def _node(name: str, address: str, registry: str, hub: subprocess.Popen[bytes], folder: Path) -> Iterator[Node]:
    folder.mkdir()
    dockerd = [
        *("dockerd", "--data-root", f"{folder}/data", "--exec-root", f"{folder}/exec", "-p", f"{folder}/pid"),
        *("-H", f"unix://{folder}/docker.sock", "-H", f"tcp://{address}:{_ENGINE_PORT}", "--tls=false"),
        *("--insecure-registry", registry, "--cgroup-parent", f"/{folder.parent.name}-{name}"),
    ]
    # A shell is process 1 of the node, since an engine does not care for orphans. It waits for the node's cable.
    script = f'read go; hostname {name}; "$@" & wait'
    words = ["unshare", "--net", "--mount", "--uts", "--pid", "--fork", "--kill-child", "--mount-proc"]
    with _process([*words, "sh", "-c", script, "sh", *dockerd], folder / "log", has_stdin=True) as process:
        _until(lambda: _has_own_network(process.pid), f"the namespace of {name} is not there")
        # The cable's end in the hub goes with the node's namespace.
        _ip("link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", str(process.pid), at=hub)
        _ip("link", "set", name, "master", "br0", "up", at=hub)
        for line in ("link set lo up", f"addr add {address}/24 dev eth0", "link set eth0 up"):
            _ip(*line.split(), at=process)
        # Everything else is out of reach, but said at once: an unknown name does not cost its time-out.
        _ip("route", "add", "default", "via", f"{address.rpartition('.')[0]}.2", at=process)
        assert process.stdin is not None
        process.stdin.write(b"go\n")
        process.stdin.close()
        yield Node(name=name, address=address, folder=folder, process=process)


@contextlib.contextmanager
def _registry(cluster: Cluster, hub: subprocess.Popen[bytes], folder: Path) -> Iterator[None]:
    folder.mkdir()
    config = {
        "version": 0.1,
        "log": {"level": "warn"},
        "storage": {"filesystem": {"rootdirectory": str(folder / "data")}},
        "http": {"addr": cluster.registry},
    }
    (folder / "config.yml").write_text(json.dumps(config))
    command = ["nsenter", f"--net=/proc/{hub.pid}/ns/net", "docker-registry", "serve", str(folder / "config.yml")]
    with _process(command, folder / "log"):
        yield


@contextlib.contextmanager
def _process(command: list[str], log_path: Path, *, has_stdin: bool = False) -> Iterator[subprocess.Popen[bytes]]:
    with log_path.open("ab") as log:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE if has_stdin else subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def _ip(*words: str, at: subprocess.Popen[bytes] | None = None) -> None:
    inside = ["nsenter", f"--net=/proc/{at.pid}/ns/net"] if at is not None else []
    subprocess.run([*inside, "ip", *words], check=True)


def _has_own_network(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/ns/net").readlink() != Path("/proc/self/ns/net").readlink()
    return False


def _until(holds: object, problem: str) -> None:
    deadline = time.monotonic() + _START_SECS
    while not holds():  # type: ignore[operator]
        if time.monotonic() > deadline:
            raise NoEngine(problem)
        time.sleep(0.02)


def main() -> None:
    with open_cluster(int(sys.argv[1]) if sys.argv[1:] else 3) as cluster:
        load_base(cluster.manager)
        for node in cluster.nodes:
            print(f"{node.name}: DOCKER_HOST={node.host} {node.address} {node.id}")
        print(f"registry {cluster.registry}, this machine {cluster.address}", flush=True)
        sys.stdin.readline()


if __name__ == "__main__":
    main()
