"""What an Actor in a container may not is stopped, while Greenroom and its neighbours serve on; what it may, works."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import socket
import subprocess
import threading
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import docker_engine
import pytest
import pytest_asyncio
from journeys.greenroom import ACTORS, Greenroom, eventually
from journeys.outside_world import CLOSED, INTERNET, TCP_PORT, UDP_PORT, World, outside_world

from gateway.installation import RUN_LABEL, Installation, installation_of

pytestmark = [
    pytest.mark.slow,
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.skipif(os.geteuid() != 0 or shutil.which("iptables") is None, reason="takes root and iptables"),
]

PIDS_LIMIT = 64

NEIGHBOUR = """
import json, os
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        body = json.dumps({"runId": os.environ["ACTOR_RUN_ID"]}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

ThreadingHTTPServer(("", int(os.environ["ACTOR_WEB_SERVER_PORT"])), Handler).serve_forever()
"""


class Prober(threading.Thread):
    """Calls the neighbour again and again; a thread of its own, so that nothing in the tests holds it up."""

    def __init__(self, port: int, host: str) -> None:
        super().__init__(daemon=True)
        self.port, self.host = port, host
        self.answered = 0
        self.failures: list[str] = []
        self.is_over = threading.Event()

    def run(self) -> None:
        while not self.is_over.wait(0.1):
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
            try:
                connection.request("GET", "/", headers={"Host": self.host})
                answer = connection.getresponse()
                if answer.status == 200:
                    self.answered += 1
                else:
                    self.failures.append(f"{answer.status}: {answer.read(500)!r}")
            except OSError as error:
                self.failures.append(repr(error))
            finally:
                connection.close()


@dataclass
class House:
    """A Greenroom with its rules. Alice attacks, from images with a user of their own and without; bob is attacked."""

    greenroom: Greenroom
    installation: Installation
    host: str
    alice: str
    bob: str
    prober: Prober
    actors: dict[str, dict[str, Any]] = field(default_factory=dict)
    neighbour: dict[str, Any] = field(default_factory=dict)

    async def attempt(self, who: str, what: str, **arguments: Any) -> dict[str, Any]:
        """What the Actor *who* gains by the attempt *what*: ``done`` or ``stopped``."""
        answer = await self.greenroom.call(
            f"isolation-{who}",
            method="POST",
            user="alice",
            token=self.alice,
            json={"attempt": what, **arguments},
        )
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    async def done(self, who: str, what: str, **arguments: Any) -> Any:
        """The same, where nothing may stop it."""
        told = await self.attempt(who, what, **arguments)
        assert "done" in told, told
        return told["done"]

    async def container_of(self, actor: Mapping[str, Any], token: str) -> dict[str, Any]:
        """The engine's description of the container of an Actor's run."""
        (run_id,) = await self.greenroom.serving(actor, 1, token=token)
        found = _docker(self.host, "ps", "-q", "--filter", f"label={RUN_LABEL}={run_id}").split()
        return dict(json.loads(_docker(self.host, "inspect", *found))[0])


def _docker(host: str, *words: str) -> str:
    return subprocess.run(["docker", "-H", host, *words], capture_output=True, text=True, check=True).stdout


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house(docker_host: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    data = tmp_path_factory.mktemp("isolation") / "data"
    settings = {"launcher": "docker", "container_pids_limit": PIDS_LIMIT}
    try:
        async with Greenroom(data, (), settings) as greenroom:
            await eventually(lambda: "network rules are not installed" in greenroom.log, what="the warning")
            alice, bob = await greenroom.user("alice"), await greenroom.user("bob")
            prober = Prober(greenroom.port, greenroom.host("neighbour", "bob"))
            house = House(greenroom, installation_of(data), docker_host, alice, bob, prober)
            await _trust_is_asked_anew(house)
            for who, user in (("user", "USER myuser\n"), ("root", "")):
                folder = tmp_path_factory.mktemp("actors") / f"isolation-{who}"
                shutil.copytree(ACTORS / "isolation-probe", folder)
                dockerfile = (folder / "Dockerfile").read_text().replace("USER myuser\n", user)
                (folder / "Dockerfile").write_text(dockerfile)
                definition = (folder / ".actor/actor.json").read_text()
                (folder / ".actor/actor.json").write_text(definition.replace("isolation-probe", f"isolation-{who}"))
                house.actors[who] = await greenroom.push(folder, token=alice)
            prober.start()
            try:
                yield house
            finally:
                prober.is_over.set()
                prober.join(60)
    finally:
        with contextlib.suppress(AssertionError):
            await Greenroom(data).command("network-rules", "--remove")
        if (data / "installation").exists():
            docker_engine.remove_all(docker_host, installation_of(data).label)


async def _trust_is_asked_anew(house: House) -> None:
    """Without the rules nothing of another user's is built or run, and he is told why; once they are there, at once."""
    greenroom = house.greenroom
    advice = (f"greenroom network-rules --data {greenroom.data}", "--trust-users", "bob/neighbour may not run")
    standby = {"public": True, "idleTimeoutSecs": 600}
    with pytest.raises(AssertionError) as refused_build:
        await greenroom.probe("neighbour", standby, token=house.bob, main=NEIGHBOUR)
    assert all(part in str(refused_build.value) for part in advice)
    assert _docker(house.host, "images", "-q", "--filter", f"label={house.installation.label}") == ""
    await greenroom.command("network-rules")
    house.neighbour = await greenroom.probe("neighbour", standby, token=house.bob, main=NEIGHBOUR)
    await greenroom.command("network-rules", "--remove")
    refused_run = await greenroom.call("neighbour", user="bob", token=None)
    assert refused_run.status_code == 503
    assert all(part in refused_run.json()["error"]["message"] for part in advice)
    await greenroom.command("network-rules")

    async def serves() -> bool:
        return (await greenroom.call("neighbour", user="bob", token=None)).status_code == 200

    await eventually(serves, within_secs=60, what="the neighbour's first answer")


@pytest.fixture(autouse=True)
async def neighbour_serves(house: House) -> AsyncIterator[None]:
    """Whatever was tried: no request to the neighbour failed meanwhile, and it answers still."""
    before = house.prober.answered
    yield
    since = house.prober.answered
    await eventually(lambda: house.prober.answered > since, within_secs=40, what="an answer of the neighbour")
    assert house.prober.failures == []
    assert house.prober.answered > before


@pytest.fixture(scope="module")
def world(house: House) -> Iterator[World]:
    text = Path("/etc/resolv.conf").read_text()
    servers = [line.split()[1] for line in text.splitlines() if line.startswith("nameserver ")]
    resolvers = tuple(server for server in servers if ":" not in server and not server.startswith("127."))
    with outside_world(house.installation.id, house.installation.bridge, resolvers) as world:
        yield world


def _host_addresses() -> list[str]:
    """The machine's own, but loopback and those of networks that other tests make and remove meanwhile."""
    told = subprocess.run(["ip", "-4", "-o", "addr", "show"], capture_output=True, text=True, check=True).stdout
    words = [line.split() for line in told.splitlines()]
    return [word[3].partition("/")[0] for word in words if not word[1].startswith(("lo", "gr", "br-", "veth"))]


def _listening_ports() -> set[int]:
    """Each TCP port that anything on this machine listens on, at whatever address."""
    lines = [
        line.split() for name in ("tcp", "tcp6") for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]
    ]
    return {int(words[1].rpartition(":")[2], 16) for words in lines if words[3] == "0A"}


async def _reached(house: House, targets: Mapping[str, tuple[str, int]]) -> set[str]:
    """The names of those *targets* that a run can connect to."""
    told = {name: await house.attempt("user", "tcp", host=host, port=port) for name, (host, port) in targets.items()}
    return {name for name, outcome in told.items() if "done" in outcome}


async def test_rules_close_what_is_open_without_them(house: House, world: World) -> None:
    """
    Docker's API by TCP, other ports of this machine at each of its addresses, private, link-local and metadata
    addresses: a run reaches them without the rules, and none of them with them; the internet and DNS with them too.
    """
    gateway = _gateway_of(house)
    with contextlib.ExitStack() as stack:
        listeners = {
            name: stack.enter_context(socket.create_server((address, 0))).getsockname()[1]
            for name, address in (("engine", "0.0.0.0"), ("bridge", gateway), ("loopback", "127.0.0.1"))
        }
        addresses = [gateway, *_host_addresses()]
        targets = {f"engine's API at {address}": (address, listeners["engine"]) for address in addresses}
        targets["a port of the bridge's address"] = (gateway, listeners["bridge"])
        targets |= {address: (address, TCP_PORT) for address in (*CLOSED, *world.resolvers)}
        public = {"the internet": (INTERNET, TCP_PORT), "Greenroom": (gateway, house.greenroom.port)}
        await house.done("user", "whoami")  # it runs: without the rules it could not be started
        try:
            await house.greenroom.command("network-rules", "--remove")
            await house.greenroom.command("network-rules", "--check", expect=1)
            assert await _reached(house, targets | public) == {*targets, *public}
            assert await house.done("user", "udp", host=CLOSED[0], port=UDP_PORT) == "echo"
            assert world.reaches(gateway, house.greenroom.port)
        finally:
            await house.greenroom.command("network-rules")
        await house.greenroom.command("network-rules", "--check")
        assert await _reached(house, targets | public) == set(public)
        assert "stopped" in await house.attempt("user", "udp", host=CLOSED[0], port=UDP_PORT)
        assert await house.done("user", "udp", host=INTERNET, port=UDP_PORT) == "echo"
        assert not world.reaches(gateway, house.greenroom.port)
        if world.resolvers:
            assert await house.done("user", "resolve", name="www.example.com") == INTERNET
        ports = sorted({*_listening_ports(), *listeners.values()})
        assert house.greenroom.port in ports
        assert await house.done("user", "tcp_many", host=gateway, ports=ports) == [house.greenroom.port]
        assert await house.done("user", "tcp_many", host="127.0.0.1", ports=[listeners["loopback"]]) == []


def _gateway_of(house: House) -> str:
    network = json.loads(_docker(house.host, "network", "inspect", house.installation.network))[0]
    return str(network["IPAM"]["Config"][0]["Gateway"])


async def test_neither_neighbours_nor_the_outside_reach_a_run(house: House, world: World) -> None:
    """By address and by name; the gateway does, and what comes from outside ends in the rule that is there for it."""
    container = await house.container_of(house.neighbour, house.bob)
    port = int(container["Config"]["Labels"]["greenroom.port"])
    address = str(container["NetworkSettings"]["Networks"][house.installation.network]["IPAddress"])
    socket.create_connection((address, port), timeout=5).close()  # from this machine: there is something to reach
    for host in (address, container["Name"].strip("/"), container["Id"][:12]):
        assert "stopped" in await house.attempt("user", "tcp", host=host, port=port), host
    before = _dropped(house.installation)
    assert not world.reaches(address, port)
    assert _dropped(house.installation) > before


def _dropped(installation: Installation) -> int:
    """The packets that the last rule of the chain before the runs has stopped."""
    words = ["iptables", "-w", "-v", "-n", "-x", "-L", f"GR-{installation.id}-TO"]
    return int(subprocess.run(words, capture_output=True, text=True, check=True).stdout.splitlines()[-1].split()[0])


@pytest.mark.parametrize("who", ["user", "root"])
async def test_the_engine_s_socket_is_not_there(house: House, who: str) -> None:
    """Neither where it usually is nor where this engine has it."""
    for path in ("/var/run/docker.sock", "/run/docker.sock", house.host.removeprefix("unix://")):
        told = await house.attempt(who, "unix", path=path)
        assert told.get("stopped") in ("ENOENT", "EACCES"), (path, told)


ATTEMPTS = [
    pytest.param("mount", {}, id="mount"),
    pytest.param("bind_mount", {}, id="bind mount"),
    pytest.param("raw_socket", {}, id="raw socket"),
    pytest.param("packet_socket", {}, id="packet socket"),
    pytest.param("user_namespace", {}, id="user namespace"),
    pytest.param("network_namespace", {}, id="network namespace"),
    pytest.param("write", {"path": "/proc/sys/kernel/core_pattern"}, id="core_pattern"),
    pytest.param("write", {"path": "/proc/sys/net/ipv4/ip_forward"}, id="ip_forward"),
    pytest.param("write", {"path": "/proc/sysrq-trigger"}, id="sysrq"),
    pytest.param("write", {"path": "/sys/kernel/mm/transparent_hugepage/enabled"}, id="sys"),
    pytest.param("write", {"path": "/sys/fs/cgroup/memory/memory.limit_in_bytes"}, id="own limits, version 1"),
    pytest.param("write", {"path": "/sys/fs/cgroup/memory.max"}, id="own limits, version 2"),
    pytest.param("make_device", {}, id="device"),
    pytest.param("chroot", {}, id="chroot"),
    pytest.param("set_clock", {}, id="clock"),
    pytest.param("load_module", {}, id="kernel module"),
]


@pytest.mark.parametrize("who", ["user", "root"])
@pytest.mark.parametrize(("what", "arguments"), ATTEMPTS)
async def test_the_kernel_refuses(house: House, who: str, what: str, arguments: dict[str, Any]) -> None:
    """What would change the machine, or look past the container, is refused to root in an image as to anybody."""
    told = await house.attempt(who, what, **arguments)
    assert told.get("stopped") in ("EPERM", "EACCES", "EROFS", "ENOENT"), told


@pytest.mark.parametrize("who", ["user", "root"])
async def test_other_processes_are_out_of_reach(house: House, who: str) -> None:
    """Those of this machine, of Greenroom and of a neighbour can be neither seen, signalled nor traced."""
    process = house.greenroom.process
    assert process is not None
    container = await house.container_of(house.neighbour, house.bob)
    seen = (await house.done(who, "whoami"))["pids"]
    assert len(seen) <= 5, seen
    for pid in (os.getpid(), process.pid, int(container["State"]["Pid"])):
        assert pid not in seen
        for what in ("kill", "ptrace"):
            assert await house.attempt(who, what, pid=pid) == {"stopped": "ESRCH"}


async def test_a_setuid_program_gives_no_rights(house: House) -> None:
    """Root's own program in the image runs as who calls it, and nobody becomes root."""
    who = await house.done("user", "whoami")
    assert who["uid"] == 1000
    assert await house.done("user", "setuid_program") == "1000"
    assert await house.attempt("user", "become_root") == {"stopped": "EPERM"}
    assert await house.done("root", "setuid_program") == "0"  # the program itself works


@pytest.mark.parametrize("who", ["user", "root"])
async def test_what_others_have_is_closed_to_its_token(house: House, who: str) -> None:
    """Another user's storages, runs and logs; another run's events, with a secret of one's own."""
    greenroom = house.greenroom
    (run_id,) = await greenroom.serving(house.neighbour, 1, token=house.bob)
    run = await greenroom.run(run_id, token=house.bob)
    paths = [
        f"/v2/datasets/{run['defaultDatasetId']}",
        f"/v2/datasets/{run['defaultDatasetId']}/items",
        f"/v2/key-value-stores/{run['defaultKeyValueStoreId']}",
        f"/v2/key-value-stores/{run['defaultKeyValueStoreId']}/records/INPUT",
        f"/v2/request-queues/{run['defaultRequestQueueId']}",
        f"/v2/actor-runs/{run_id}",
        f"/v2/logs/{run_id}",
    ]
    for path in paths:
        assert (await greenroom.api("GET", path.removeprefix("/v2"), token=house.bob)).status_code in (200, 204, 404)
        assert (await house.done(who, "http", path=path))["status"] in (401, 403, 404), path
    assert (await greenroom.api("GET", f"/actor-runs/{run_id}", token=house.bob)).status_code == 200
    own = (await house.done(who, "whoami"))["environ"]["ACTOR_EVENTS_WEBSOCKET_URL"]
    base, own_id, secret = own.rsplit("/", 2)
    assert own_id != run_id
    assert await house.done(who, "websocket") == "open"
    for url in (f"{base}/{run_id}/{secret}", f"{base}/{run_id}/{'0' * len(secret)}"):
        assert await house.done(who, "websocket", url=url) == "closed with 1008"


@pytest.mark.parametrize("who", ["user", "root"])
async def test_what_an_actor_needs_works(house: House, who: str) -> None:
    """The API by its token, its events, another Actor by the path form, and a resolver to ask for names."""
    me = await house.done(who, "whoami")
    run = await house.done(who, "http", path=f"/v2/actor-runs/{me['environ']['ACTOR_RUN_ID']}")
    assert (run["status"], json.loads(run["text"])["data"]["status"]) == (200, "RUNNING")
    assert await house.done(who, "websocket") == "open"
    neighbour = await house.done(who, "http", path="/standby/bob--neighbour/", token=False)
    assert neighbour["status"] == 200
    (run_id,) = await house.greenroom.serving(house.neighbour, 1, token=house.bob)
    assert json.loads(neighbour["text"])["runId"] == run_id
    assert "nameserver 127.0.0.11" in me["resolv_conf"]
    assert await house.done(who, "resolve", name=me["hostname"]) == me["address"]


async def _harm(house: House, harm: str, memory_mbytes: int) -> dict[str, Any]:
    actor = house.actors["user"]
    path = f"/actors/{actor['id']}/runs?memory={memory_mbytes}"
    run = await house.greenroom.data_of("POST", path, token=house.alice, json={"harm": harm})
    return dict(run)


async def test_processes_are_limited(house: House) -> None:
    """A program that starts one after the other has them refused at the limit, and serves on."""
    told = await house.done("user", "fork")
    assert told["why"] == "EAGAIN"
    assert PIDS_LIMIT // 2 < told["children"] < PIDS_LIMIT
    assert (await house.done("user", "whoami"))["uid"] == 1000


async def test_fork_bomb(house: House) -> None:
    """It stays within its limit, and an abort ends all of it."""
    run = await _harm(house, "fork bomb", 256)

    def processes() -> int:
        found = _docker(house.host, "ps", "-q", "--filter", f"label={RUN_LABEL}={run['id']}").split()
        return len(_docker(house.host, "top", *found, "-o", "pid").splitlines()) - 1 if found else 0

    await eventually(lambda: processes() > PIDS_LIMIT // 2, within_secs=40, what="the bomb")
    answered = house.prober.answered
    await eventually(lambda: house.prober.answered >= answered + 5, within_secs=60, what="five answers of a neighbour")
    assert processes() <= PIDS_LIMIT
    await house.greenroom.data_of("POST", f"/actor-runs/{run['id']}/abort", token=house.alice)
    ended = await house.greenroom.ended(run["id"], within_secs=60, token=house.alice)
    assert ended["status"] == "ABORTED"
    assert processes() == 0


async def test_memory_hog(house: House) -> None:
    """It is killed at its limit, and told so with the size to try next."""
    run = await _harm(house, "memory hog", 128)
    ended = await house.greenroom.ended(run["id"], within_secs=60, token=house.alice)
    assert (ended["status"], ended["exitCode"]) == ("FAILED", 137)
    assert ended["statusMessage"] == "Out of memory (128 MiB): start it with 256 MiB."
