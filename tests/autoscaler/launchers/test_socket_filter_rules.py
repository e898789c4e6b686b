"""What the socket filter lets pass, as rules: all that Greenroom asks of an engine, and nothing else."""

from __future__ import annotations

import copy
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoscaler.launchers.base import LaunchSpec, Placement
from autoscaler.launchers.docker.containers import ContainerRules, container_body
from autoscaler.launchers.docker.socket_filter import bodies
from autoscaler.launchers.docker.socket_filter.forbidden import Forbidden, Malformed, NotYet, answer_to
from autoscaler.launchers.docker.socket_filter.rules import judge
from gateway.core.errors import GreenroomError
from gateway.core.lifecycle import RunStatus
from gateway.core.model import Address, Build, Origin
from gateway.installation import BUILD_LABEL, INSTALLATION_LABEL, RUN_LABEL, Installation

OURS = Installation("0123abcd")
ID = "ab" * 32
LABELS = {INSTALLATION_LABEL: OURS.id, BUILD_LABEL: "b", "com.apify.actBuildId": "b"}
BUILD = {"t": f"{OURS.image_name}:b", "labels": json.dumps(LABELS), "networkmode": OURS.network}


def launch_spec(memory_mbytes: int = 256, env: dict[str, str] | None = None) -> LaunchSpec:
    """A run as the supervisor would have it started."""
    build = Build(
        id="b1",
        actor_id="a",
        user_id="u",
        version_number="0.0",
        build_number="0.0.1",
        status=RunStatus.SUCCEEDED,
        started_at=datetime(2026, 1, 1, tzinfo=UTC),
        origin=Origin.API,
    )
    return LaunchSpec(
        run_id="Run1",
        build=build,
        env=env or {"A": "b"},
        placement=Placement(address=Address(host="10.9.0.7", port=4321), port=4321),
        memory_mbytes=memory_mbytes,
        log_path=Path("run.log"),
        max_log_chars=1_000_000,
    )


def own_container(**rules: Any) -> dict[str, Any]:
    """A container as the launcher describes it."""
    made = ContainerRules(installation=OURS, cores=2, **rules)
    return container_body(launch_spec(), f"{OURS.image_name}:b1", made, disk_mbytes=512)


@given(
    memory=st.sampled_from([128 * 2**n for n in range(9)]),
    env=st.dictionaries(st.text("ABC_", min_size=1), st.text()),
    cores=st.integers(1, 256),
    pids=st.integers(16, 10_000),
    files=st.integers(256, 1_000_000),
    read_only=st.booleans(),
    quota=st.booleans(),
)
def test_every_container_of_ours_passes(memory, env, cores, pids, files, read_only, quota):
    """Whatever the settings: what the launcher describes passes, and what is sent on is just that."""
    rules = ContainerRules(
        installation=OURS,
        cores=cores,
        pids_limit=pids,
        open_files_limit=files,
        read_only=read_only,
        disk_quota=quota,
    )
    body = container_body(launch_spec(memory, env), f"{OURS.image_name}:b1", rules, disk_mbytes=2 * memory)
    assert bodies.container(bodies.read_json(json.dumps(body).encode()), OURS) == body


@given(
    name=st.text(min_size=1).filter(lambda name: name not in own_container()["HostConfig"]),
    value=st.one_of(st.booleans(), st.integers(), st.text(), st.lists(st.text())),
)
def test_no_unknown_field_passes(name, value):
    """A field that the launcher does not set is refused, whatever it is: also one that a later engine invents."""
    body = own_container(disk_quota=True, read_only=True)
    if name in body["HostConfig"]:
        return
    body["HostConfig"][name] = value
    with pytest.raises(Forbidden):
        bodies.container(body, OURS)


def _changed(path: str, value: Any) -> dict[str, Any]:
    body = copy.deepcopy(own_container(read_only=True))
    place = body
    *parents, last = path.split("/")
    for parent in parents:
        place = place[parent]
    place[last] = value
    return body


@pytest.mark.parametrize(
    ("path", "value"),
    [
        pytest.param("HostConfig/Privileged", True, id="privileged"),
        pytest.param("HostConfig/privileged", True, id="privileged in other letters, which the engine would take"),
        pytest.param("HostConfig/Privileged", False, id="also not said to be off"),
        pytest.param("HostConfig/Binds", ["/:/host"], id="a bind of the machine's root"),
        pytest.param("HostConfig/Mounts", [{"Type": "bind", "Source": "/", "Target": "/host"}], id="a mount"),
        pytest.param("HostConfig/VolumesFrom", ["other"], id="another container's volumes"),
        pytest.param("HostConfig/Devices", [{"PathOnHost": "/dev/sda"}], id="a device"),
        pytest.param("HostConfig/DeviceRequests", [{"Count": -1}], id="graphics cards"),
        pytest.param("HostConfig/PidMode", "host", id="the machine's processes"),
        pytest.param("HostConfig/IpcMode", "host", id="the machine's shared memory"),
        pytest.param("HostConfig/UTSMode", "host", id="the machine's name"),
        pytest.param("HostConfig/UsernsMode", "host", id="the machine's users"),
        pytest.param("HostConfig/CgroupnsMode", "host", id="the machine's control groups"),
        pytest.param("HostConfig/CgroupParent", "/system.slice", id="another control group"),
        pytest.param("HostConfig/NetworkMode", "host", id="the machine's network"),
        pytest.param("HostConfig/NetworkMode", "bridge", id="the engine's own network"),
        pytest.param("HostConfig/NetworkMode", f"container:{ID}", id="another container's network"),
        pytest.param("HostConfig/NetworkMode", None, id="no network named, which is the engine's own"),
        pytest.param("HostConfig/CapAdd", ["SYS_ADMIN"], id="a capability that is not ours to give"),
        pytest.param("HostConfig/CapAdd", ["CAP_SYS_ADMIN"], id="by its long name"),
        pytest.param("HostConfig/CapAdd", ["ALL"], id="all capabilities"),
        pytest.param("HostConfig/CapAdd", "ALL", id="all capabilities, as a text"),
        pytest.param("HostConfig/CapDrop", [], id="no capability dropped"),
        pytest.param("HostConfig/CapDrop", None, id="dropping left out"),
        pytest.param("HostConfig/SecurityOpt", ["no-new-privileges", "seccomp=unconfined"], id="no seccomp"),
        pytest.param("HostConfig/SecurityOpt", ["no-new-privileges=false"], id="new privileges"),
        pytest.param("HostConfig/SecurityOpt", None, id="nothing said about privileges"),
        pytest.param("HostConfig/Runtime", "other", id="another runtime"),
        pytest.param("HostConfig/Sysctls", {"net.ipv4.ip_forward": "1"}, id="a sysctl"),
        pytest.param("HostConfig/PortBindings", {"80/tcp": [{"HostPort": "80"}]}, id="a port of the machine"),
        pytest.param("HostConfig/PublishAllPorts", True, id="all ports"),
        pytest.param("HostConfig/ExtraHosts", ["api:1.2.3.4"], id="names of its own"),
        pytest.param("HostConfig/OomKillDisable", True, id="never killed"),
        pytest.param("HostConfig/OomScoreAdj", -1, id="others are killed first"),
        pytest.param("HostConfig/Memory", 0, id="no memory limit"),
        pytest.param("HostConfig/Memory", None, id="memory limit left out"),
        pytest.param("HostConfig/MemorySwap", -1, id="endless swap"),
        pytest.param("HostConfig/MemorySwap", 2**40, id="swap"),
        pytest.param("HostConfig/PidsLimit", -1, id="endless processes"),
        pytest.param("HostConfig/PidsLimit", True, id="a truth value for a number"),
        pytest.param("HostConfig/RestartPolicy", {"Name": "always"}, id="started again by the engine"),
        pytest.param("HostConfig/AutoRemove", True, id="removed by the engine"),
        pytest.param("HostConfig/LogConfig", {"Type": "syslog", "Config": {}}, id="logs that go elsewhere"),
        pytest.param("HostConfig/LogConfig/Config/syslog-address", "tcp://1.2.3.4", id="an option of logs"),
        pytest.param("HostConfig/LogConfig", {}, id="logs without a bound"),
        pytest.param("HostConfig/Tmpfs", {"/etc": "rw,nosuid,nodev,mode=1777,size=1"}, id="a tmpfs elsewhere"),
        pytest.param("HostConfig/Tmpfs", {"/tmp": "rw,exec,suid,dev"}, id="other options of a tmpfs"),
        pytest.param("HostConfig/StorageOpt", {"other": "1"}, id="another storage option"),
        pytest.param("HostConfig/Ulimits", [{"Name": "memlock", "Soft": -1, "Hard": -1}], id="another limit"),
        pytest.param("HostConfig", None, id="no limits at all"),
        pytest.param("HostConfig", [], id="limits that are no object"),
        pytest.param("Image", "other:latest", id="somebody else's image"),
        pytest.param("Image", ID, id="an image by its id"),
        pytest.param("Image", f"{OURS.image_name}:b@sha256:{ID}", id="an image by its digest"),
        pytest.param("Image", f"{OURS.image_name}x:b", id="an image whose name only begins alike"),
        pytest.param("Labels", {}, id="no label"),
        pytest.param(f"Labels/{INSTALLATION_LABEL}", "ffffffff", id="another Greenroom's label"),
        pytest.param("Labels/traefik.enable", "true", id="a label that another program listens to"),
        pytest.param("NetworkingConfig/EndpointsConfig", {"host": {}}, id="another network besides"),
        pytest.param(
            "NetworkingConfig/EndpointsConfig",
            {OURS.network: {"Aliases": ["greenroom"]}},
            id="a name in the network",
        ),
        pytest.param("Volumes", {"/data": {}}, id="a volume"),
        pytest.param("ExposedPorts", {"80/tcp": {}}, id="ports"),
        pytest.param("Healthcheck", {"Test": ["CMD", "true"]}, id="a health check"),
        pytest.param("Env", [1], id="variables that are no texts"),
    ],
)
def test_containers_that_do_not_pass(path, value):
    """Whoever has taken over Greenroom gets no container that is more than a run's."""
    with pytest.raises(Forbidden) as refused:
        bodies.container(_changed(path, value), OURS)
    assert refused.value.http_status == 403


@pytest.mark.parametrize("value", [None, [], "container", 1, True])
def test_a_container_is_an_object(value):
    """Nothing else describes one."""
    with pytest.raises(Forbidden, match="described by an object"):
        bodies.container(value, OURS)


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"{", id="cut off"),
        pytest.param(b'{"Memory": 1, "Memory": 0}', id="a field twice"),
        pytest.param(b'{"a": {"b": 1, "b": 2}}', id="a field twice, deep inside"),
        pytest.param(b'{"a": NaN}', id="no number"),
        pytest.param(b"[" * 100_000, id="too deep"),
        pytest.param(b"\xff\xfe", id="no text"),
    ],
)
def test_json_that_is_read_in_two_ways_is_not_read(content):
    """Two readers of one body never disagree: what is not plain is refused."""
    with pytest.raises(Malformed):
        bodies.read_json(content)


NETWORK = {
    "Name": OURS.network,
    "Driver": "bridge",
    "Options": {
        "com.docker.network.bridge.name": OURS.bridge,
        "com.docker.network.bridge.enable_icc": "false",
    },
    "IPAM": {
        "Driver": "default",
        "Config": [
            {"Subnet": "10.9.0.0/16", "Gateway": "10.9.0.1", "IPRange": "10.9.128.0/17", "AuxiliaryAddresses": None}
        ],
    },
    "CheckDuplicate": True,
    "Labels": {INSTALLATION_LABEL: OURS.id},
}
PROBE = {"Name": f"{OURS.network}-probe", "Driver": "bridge", "Labels": {INSTALLATION_LABEL: OURS.id}}


@pytest.mark.parametrize("body", [NETWORK, PROBE])
def test_own_networks_pass(body):
    """The runs' network and the probe before it."""
    assert bodies.network(body, OURS) == body


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"Driver": "macvlan"}, id="the machine's own network card"),
        pytest.param({"Options": None}, id="a bridge on which runs reach each other"),
        pytest.param({"Options": NETWORK["Options"] | {"com.docker.network.bridge.name": "docker0"}}, id="a bridge"),
        pytest.param({"Options": NETWORK["Options"] | {"x": "y"}}, id="another option"),
        pytest.param({"Name": "bridge"}, id="another name"),
        pytest.param({"Labels": {}}, id="no label"),
        pytest.param({"Attachable": True}, id="another field"),
        pytest.param({"IPAM": {"Config": [{"Subnet": "8.8.8.0/24", "Gateway": "8.8.8.1"}]}}, id="a public subnet"),
        pytest.param({"IPAM": {"Config": [{"Subnet": "0.0.0.0/0", "Gateway": "10.0.0.1"}]}}, id="everything"),
        pytest.param({"IPAM": {"Config": [{"Subnet": "10.0.0.0/8", "Gateway": "11.0.0.1"}]}}, id="gateway outside"),
        pytest.param({"IPAM": {"Config": [{"Subnet": 1, "Gateway": 2}]}}, id="no texts"),
        pytest.param({"IPAM": {"Config": [{"Subnet": "10.9.0.0/16"}]}}, id="no gateway"),
        pytest.param({"IPAM": {"Driver": "other", "Config": []}}, id="another driver"),
    ],
)
def test_networks_that_do_not_pass(changes):
    """Only the network as the launcher makes it: private, of its own bridge, without traffic between runs."""
    with pytest.raises(Forbidden):
        bodies.network(NETWORK | changes, OURS)


@pytest.mark.parametrize(
    ("body", "passes"),
    [
        ({"CpuQuota": 25_000, "CpuPeriod": 100_000}, True),
        ({"CpuQuota": 25_000, "Memory": None}, True),
        ({"Memory": 2**40}, False),
        ({"RestartPolicy": {"Name": "always"}}, False),
        ({"CpuQuota": "much"}, False),
    ],
)
def test_updates(body, passes):
    """A running container may get another share of the processor, and nothing else."""
    if passes:
        assert set(bodies.update(body, OURS)) <= {"CpuQuota", "CpuPeriod"}
        return
    with pytest.raises(Forbidden):
        bodies.update(body, OURS)


@pytest.mark.parametrize(
    ("method", "target"),
    [
        ("GET", "/_ping"),
        ("HEAD", "/_ping"),
        ("GET", "/v1.41/version"),
        ("GET", "/v1.41/info"),
        ("GET", "/v1.41/events"),
        ("GET", "/v1.41/containers/json?limit=-1&all=1&size=0&trunc_cmd=0"),
        ("POST", f"/v1.41/containers/create?name=greenroom-{OURS.id}-Run1-ab"),
        ("GET", f"/v1.41/containers/{ID}/json"),
        ("GET", f"/v1.41/containers/greenroom-{OURS.id}-Run1-ab/json"),
        ("GET", f"/v1.41/containers/{ID}/logs?stdout=1&stderr=1&timestamps=1&follow=1&since=17"),
        ("GET", f"/v1.41/containers/{ID}/stats?stream=False&one-shot=True"),
        ("POST", f"/v1.41/containers/{ID}/start"),
        ("POST", f"/v1.41/containers/{ID}/kill?signal=SIGTERM"),
        ("POST", f"/v1.41/containers/{ID}/pause"),
        ("POST", f"/v1.41/containers/{ID}/unpause"),
        ("POST", f"/v1.41/containers/{ID}/update"),
        ("DELETE", f"/v1.41/containers/{ID}?v=True&link=False&force=True"),
        ("GET", "/v1.41/images/json"),
        ("GET", f"/v1.41/images/{OURS.image_name}:b/json"),
        ("DELETE", f"/v1.41/images/{OURS.image_name}:b?force=False&noprune=False"),
        ("POST", f"/v1.41/images/{OURS.image_name}:b/tag?repo={OURS.image_name}&tag=c"),
        ("POST", "/v1.41/build?" + urlencode(BUILD)),
        ("POST", "/v1.51/build?" + urlencode(BUILD | {"dockerfile": ".actor/Dockerfile", "rm": "True"})),
        ("GET", f"/v1.41/networks/{OURS.network}"),
        ("DELETE", f"/v1.41/networks/{ID}"),
        ("POST", "/v1.41/networks/create"),
    ],
)
def test_calls_that_pass(method, target):
    """What the Docker launcher asks, by the path it has."""
    call = judge(method, target, OURS)
    assert (call.method, urlsplit(call.target()).path) == (method, target.partition("?")[0])


@pytest.mark.parametrize(
    ("method", "target"),
    [
        pytest.param("POST", f"/v1.41/containers/{ID}/exec", id="a program in a container"),
        pytest.param("POST", f"/v1.41/exec/{ID}/start", id="start of one"),
        pytest.param("POST", f"/v1.41/containers/{ID}/attach", id="a container's input"),
        pytest.param("PUT", f"/v1.41/containers/{ID}/archive?path=/", id="files into a container"),
        pytest.param("GET", f"/v1.41/containers/{ID}/archive?path=/", id="files out of one"),
        pytest.param("GET", f"/v1.41/containers/{ID}/export", id="a whole container"),
        pytest.param("POST", f"/v1.41/containers/{ID}/rename?name=x", id="another name"),
        pytest.param("POST", "/v1.41/commit", id="an image of a container"),
        pytest.param("POST", "/v1.41/images/create?fromImage=x", id="a pull"),
        pytest.param("POST", "/v1.41/images/load", id="images from a file"),
        pytest.param("GET", "/v1.41/images/get", id="images into a file"),
        pytest.param("POST", f"/v1.41/images/{OURS.image_name}/push", id="a push"),
        pytest.param("POST", f"/v1.41/images/{OURS.image_name}:b/tag?repo=other", id="another name for an image"),
        pytest.param("POST", "/v1.41/containers/prune", id="pruning of containers"),
        pytest.param("POST", "/v1.41/images/prune", id="pruning of images"),
        pytest.param("POST", "/v1.41/build/prune", id="pruning of layers"),
        pytest.param("GET", "/v1.41/volumes", id="volumes"),
        pytest.param("POST", "/v1.41/volumes/create", id="a volume"),
        pytest.param("POST", f"/v1.41/networks/{ID}/connect", id="a container to a network"),
        pytest.param("GET", "/v1.41/networks/bridge", id="another network"),
        pytest.param("DELETE", "/v1.41/networks/host", id="another network's end"),
        pytest.param("POST", "/v1.41/swarm/init", id="a Swarm"),
        pytest.param("POST", "/v1.41/services/create", id="a service"),
        pytest.param("GET", "/v1.41/secrets", id="secrets"),
        pytest.param("POST", "/v1.41/plugins/pull", id="a plugin"),
        pytest.param("POST", "/v1.41/session", id="a session of BuildKit"),
        pytest.param("POST", "/grpc", id="BuildKit itself"),
        pytest.param("POST", "/v1.41/auth", id="a registry's credentials"),
        pytest.param("GET", "/v1.41/system/df", id="what others have"),
        pytest.param("GET", "/v1.41/containers/other/json", id="a container by a name that is not ours"),
        pytest.param("GET", "/v1.41/containers/abc123/json", id="by a part of an id"),
        pytest.param("GET", f"/v1.41/containers/greenroom-{OURS.id}x-Run/json", id="a name that only begins alike"),
        pytest.param("GET", "/v1.41/images/python:3.12-slim/json", id="another image"),
        pytest.param("DELETE", f"/v1.41/images/other/{OURS.image_name}:b", id="an image of a registry"),
        pytest.param("GET", "/v1.23/containers/json", id="an old version, in which start takes a description"),
        pytest.param("GET", "/v2.0/containers/json", id="another version"),
        pytest.param("GET", "/v1.41//containers/json", id="an empty part of a path"),
        pytest.param("GET", "/v1.41/containers/../images/json", id="a step up"),
        pytest.param("GET", "/v1.41/containers/%6ason", id="letters as numbers"),
        pytest.param("GET", f"/v1.41/containers/{ID}/json/", id="a slash at the end"),
        pytest.param("GET", "http://docker/v1.41/info", id="a whole URL"),
        pytest.param("OPTIONS", "*", id="no path"),
        pytest.param("CONNECT", "docker:80", id="a tunnel"),
        pytest.param("GET", "", id="nothing"),
        pytest.param("POST", "/v1.41/info", id="another method"),
        pytest.param("HEAD", "/v1.41/info", id="a method that only _ping has"),
        pytest.param("GET", "/v1.41/info?x=1", id="a parameter that is not in the table"),
        pytest.param("POST", f"/v1.41/containers/{ID}/start?checkpoint=x", id="a checkpoint"),
        pytest.param("DELETE", f"/v1.41/containers/{ID}?link=1", id="an option that is never on"),
        pytest.param("POST", "/v1.41/containers/create", id="a container without a name"),
        pytest.param("POST", "/v1.41/containers/create?name=other", id="a container with another name"),
        pytest.param("POST", f"/v1.41/containers/{ID}/kill?signal=a%20b", id="a signal that is none"),
    ],
)
def test_calls_that_do_not_pass(method, target):
    """Everything else is refused."""
    with pytest.raises(Forbidden):
        judge(method, target, OURS)


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"networkmode": "host"}, id="the machine's network"),
        pytest.param({"networkmode": None}, id="the engine's network"),
        pytest.param({"t": "python:3.12-slim"}, id="another's name"),
        pytest.param({"t": None}, id="no name"),
        pytest.param({"labels": None}, id="no label"),
        pytest.param({"labels": json.dumps(LABELS | {INSTALLATION_LABEL: "ffffffff"})}, id="another's label"),
        pytest.param({"labels": "[]"}, id="labels that are none"),
        pytest.param({"remote": "http://example.org/x.git"}, id="files that the engine fetches"),
        pytest.param({"extrahosts": "a:1.2.3.4"}, id="names of its own"),
        pytest.param({"cgroupparent": "/"}, id="another control group"),
        pytest.param({"securityopt": "[]"}, id="security options"),
        pytest.param({"cachefrom": '["other"]'}, id="another's layers"),
        pytest.param({"version": "2"}, id="BuildKit"),
        pytest.param({"session": "x"}, id="a session"),
        pytest.param({"outputs": "[]"}, id="files on the machine"),
        pytest.param({"squash": "1"}, id="squash"),
        pytest.param({"dockerfile": "../Dockerfile"}, id="a Dockerfile outside"),
        pytest.param({"dockerfile": "/etc/passwd"}, id="an absolute Dockerfile"),
        pytest.param({"dockerfile": "http://example.org/Dockerfile"}, id="a Dockerfile that the engine fetches"),
        pytest.param({"memory": "1 2"}, id="a limit that is no number"),
    ],
)
def test_builds_that_do_not_pass(changes):
    """An image is built in the runs' network, under this Greenroom's name and label, of the files that are sent."""
    query = {name: value for name, value in (BUILD | changes).items() if value is not None}
    with pytest.raises(Forbidden):
        judge("POST", "/v1.41/build?" + urlencode(query), OURS)


@pytest.mark.parametrize(
    "target",
    [
        pytest.param("/info?x=1&x=2", id="a parameter twice"),
        pytest.param("/info?" + "&".join(f"p{n}=1" for n in range(50)), id="too many"),
        pytest.param("/info?a", id="no value"),
        pytest.param("/containers/json?filters=nonsense", id="filters that are no JSON"),
        pytest.param("/containers/json?filters=[]", id="filters that are no object"),
        pytest.param('/containers/json?filters={"label":1}', id="a filter that is no list"),
        pytest.param('/containers/json?filters={"label":[1]}', id="a filter of no texts"),
    ],
)
def test_queries_that_are_not_read(target):
    """What can't be read in one way only is no request."""
    with pytest.raises(Malformed):
        judge("GET", target, OURS)


@pytest.mark.parametrize(
    ("given_filters", "others"),
    [
        pytest.param(None, {}, id="none"),
        pytest.param({"label": ["x=y"], "status": ["exited"]}, {"label": ["x=y"], "status": ["exited"]}, id="lists"),
        pytest.param({"label": {"x=y": True, "no": False}}, {"label": ["x=y"]}, id="the older form"),
        pytest.param({"label": [OURS.label, RUN_LABEL]}, {"label": [RUN_LABEL]}, id="ours is there already"),
        pytest.param({"label": ["greenroom.installation=ffffffff"]}, {"label": ["greenroom.installation=ffffffff"]},
                     id="another's: both must hold, so there is nothing"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("path", ["/containers/json", "/images/json", "/networks", "/events"])
def test_lists_hold_only_what_is_ours(path, given_filters, others):
    """Whatever is asked for, the engine is asked for what has our label besides."""
    target = path if given_filters is None else f"{path}?{urlencode({'filters': json.dumps(given_filters)})}"
    made = json.loads(parse_qs(urlsplit(judge("GET", target, OURS).target()).query)["filters"][0])
    assert OURS.label in made["label"]
    assert len(made["label"]) == len(set(made["label"]))
    assert {name: set(words) - {OURS.label} for name, words in made.items()} == {"label": set()} | {
        name: set(words) for name, words in others.items()
    }


@given(st.text(), st.text())
def test_judging_ends_in_a_call_or_a_refusal(method, target):
    """No input makes the rules break in another way."""
    try:
        call = judge(method, target, OURS)
    except GreenroomError:
        return
    assert call.target().startswith("/")


@given(st.dictionaries(st.text(), st.text()))
def test_build_arguments_arrive_as_they_are(arguments):
    """Values with ``&``, ``;`` or other letters reach the engine unchanged, and as nothing else."""
    query = BUILD | {"buildargs": json.dumps(arguments)}
    target = judge("POST", "/v1.41/build?" + urlencode(query), OURS).target()
    sent = parse_qs(urlsplit(target).query, keep_blank_values=True)
    assert set(sent) == {"t", "labels", "networkmode", "buildargs"}
    assert json.loads(sent["buildargs"][0]) == arguments


def test_secret_values_are_in_no_message():
    """A refusal names the field, and never what stands in it: variables of a run may be secrets."""
    with pytest.raises(Forbidden) as refused:
        bodies.container(own_container() | {"Env": [{"TOKEN": "hush"}]}, OURS)
    assert "hush" not in refused.value.message
    with pytest.raises(Forbidden) as refused:
        judge("POST", "/v1.41/build?" + urlencode(BUILD | {"networkmode": "hush"}), OURS)
    assert "hush" not in refused.value.message


def test_refusals_look_like_the_engines():
    """A client of the engine finds status and message where it looks for them, and the end of the connection."""
    head, _, content = answer_to(NotYet("soon")).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 503 ")
    assert b"Connection: close" in head
    assert json.loads(content) == {"message": "soon"}
