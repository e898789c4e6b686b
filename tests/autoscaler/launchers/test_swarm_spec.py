"""The pure parts of the Swarm launcher: what a service says, and what is read from the manager's answers."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoscaler.launchers.base import Exited, LaunchSpec, Placement
from autoscaler.launchers.docker.containers import ContainerRules
from autoscaler.launchers.docker.engine import Engine
from autoscaler.launchers.swarm.engines import NodeEngines
from autoscaler.launchers.swarm.launcher import swarm_of
from autoscaler.launchers.swarm.services import ServiceRules, service_body
from autoscaler.launchers.swarm.tasks import (
    Node,
    Task,
    end_of,
    first_of_each_service,
    node_of,
    task_of,
    waiting_problem,
)
from gateway.core.errors import LaunchError
from gateway.core.lifecycle import RunStatus
from gateway.core.model import Address, Build, Origin
from gateway.installation import Installation

INSTALLATION = Installation("0123abcd")
NODE = Node(id="n1", name="node1", address="10.0.0.1", is_lost=False, is_drained=False)


def spec(memory_mbytes: int = 1024) -> LaunchSpec:
    build = Build(
        id="build",
        actor_id="actor",
        user_id="user",
        version_number="0.0",
        build_number="0.0.1",
        status=RunStatus.SUCCEEDED,
        started_at=datetime.now(UTC),
        origin=Origin.API,
    )
    return LaunchSpec(
        run_id="run",
        build=build,
        env={"A": "1 = one"},
        placement=Placement(address=Address(host="0.0.0.0", port=4321), port=4321),
        memory_mbytes=memory_mbytes,
        log_path=Path("run.log"),
        max_log_chars=1000,
    )


def rules(*, stops_by_itself: bool = False, **containers: Any) -> ServiceRules:
    return ServiceRules(
        containers=ContainerRules(installation=INSTALLATION, cores=2, **containers),
        network="the-network",
        constraints=["node.labels.actors==true"],
        stop_grace_secs=60,
        stops_by_itself=stops_by_itself,
    )


def test_a_service():
    """Its task is not restarted, is found by its labels, and is reached by a port that its node chooses."""
    body = service_body(spec(), "name", "image", rules())
    task = body["task_template"]
    assert task["RestartPolicy"]["Condition"] == "none"
    assert body["mode"] == {"Replicated": {"Replicas": 1}}
    assert body["endpoint_spec"]["Ports"] == [{"Protocol": "tcp", "TargetPort": 4321, "PublishMode": "host"}]
    assert body["labels"] == task["ContainerSpec"]["Labels"]
    assert {"greenroom.installation": "0123abcd", "greenroom.run": "run"}.items() <= body["labels"].items()
    assert task["Placement"] == {"Constraints": ["node.labels.actors==true"]}
    assert task["ContainerSpec"]["Env"] == ["A=1 = one"]
    assert task["ContainerSpec"]["CapabilityDrop"] == ["ALL"]
    assert task["ContainerSpec"]["StopGracePeriod"] == 60_000_000_000


@given(memory_mbytes=st.sampled_from([2**power for power in range(7, 16)]), cores=st.integers(1, 64))
def test_what_is_reserved_is_never_more_than_the_limit(memory_mbytes, cores):
    """Memory: the same. CPU: what the memory pays for, within a limit of one core at least, never above the node's."""
    containers = ContainerRules(installation=INSTALLATION, cores=cores)
    service_rules = ServiceRules(
        containers=containers, network="n", constraints=[], stop_grace_secs=1, stops_by_itself=False
    )
    resources = service_body(spec(memory_mbytes), "name", "image", service_rules)["task_template"]["Resources"]
    limits, reserved = resources["Limits"], resources["Reservations"]
    assert limits["MemoryBytes"] == reserved["MemoryBytes"] == memory_mbytes * 1024 * 1024
    assert 0 < reserved["NanoCPUs"] <= limits["NanoCPUs"]
    assert 10**9 <= limits["NanoCPUs"] <= cores * 10**9


@pytest.mark.parametrize(
    ("stops_by_itself", "signal"),
    [
        pytest.param(False, "SIGURG", id="engines in reach: Swarm's signal does nothing"),
        pytest.param(True, None, id="out of reach: the image's own, or SIGTERM"),
    ],
)
def test_the_stop_signal(stops_by_itself, signal):
    """A drained node must not end programs before they were told, where Greenroom itself can end them."""
    body = service_body(spec(), "name", "image", rules(stops_by_itself=stops_by_itself))
    assert body["task_template"]["ContainerSpec"].get("StopSignal") == signal


def test_a_read_only_container():
    """It can write to memory alone: /tmp, beside the /dev/shm that all have."""
    targets = {
        read_only: [
            mount["Target"]
            for mount in service_body(spec(), "name", "image", rules(read_only=read_only))["task_template"][
                "ContainerSpec"
            ]["Mounts"]
        ]
        for read_only in (False, True)
    }
    assert targets == {False: ["/dev/shm"], True: ["/dev/shm", "/tmp"]}


def record(state: str = "running", **changes: Any) -> dict[str, Any]:
    """A task as the manager tells it."""
    status: dict[str, Any] = {"State": state, "ContainerStatus": {"ContainerID": "c1", "ExitCode": 0}}
    status |= changes.pop("Status", {})
    return {
        "ID": "t1",
        "ServiceID": "s1",
        "NodeID": "n1",
        "DesiredState": "running",
        "CreatedAt": "2026-01-01T00:00:00.000000001Z",
        "Spec": {"ContainerSpec": {"Labels": {"greenroom.run": "run"}}},
        "Status": status,
        **changes,
    }


def test_a_running_task():
    """Node, container and the port that its node chose (which the manager names twice)."""
    port = {"Protocol": "tcp", "TargetPort": 4321, "PublishedPort": 32768, "PublishMode": "host"}
    task = task_of(record(Status={"PortStatus": {"Ports": [port, port]}}))
    assert (task.run_id, task.node_id, task.container_id, task.port) == ("run", "n1", "c1", 32768)
    assert (task.is_running, task.has_begun, task.is_wanted, task.has_ended) == (True, True, True, False)


@pytest.mark.parametrize(
    "state", ["new", "allocated", "pending", "assigned", "accepted", "preparing", "ready", "starting"]
)
def test_a_task_that_does_not_run_yet(state):
    """It has neither begun nor ended, and only its first states leave the node open."""
    task = task_of(record(state, NodeID="", Status={"ContainerStatus": None}))
    assert (task.is_starting, task.has_begun, task.has_ended) == (True, False, False)
    assert task.is_unplaced == (state in ("new", "allocated", "pending"))
    assert end_of(task, None, is_asked=False) is None


LOST = Node(id="n1", name="node1", address="10.0.0.1", is_lost=True, is_drained=False)
DRAINED = Node(id="n1", name="node1", address="10.0.0.1", is_lost=False, is_drained=True)


@pytest.mark.parametrize(
    ("found", "node", "expected"),
    [
        pytest.param(record("running"), NODE, None, id="lives"),
        pytest.param(record("running", DesiredState="shutdown"), DRAINED, None, id="lives, and is to leave"),
        pytest.param(record("complete"), NODE, Exited(exit_code=0), id="exit code 0"),
        pytest.param(
            record("failed", Status={"Err": "task: non-zero exit (7)", "ContainerStatus": {"ExitCode": 7}}),
            NODE,
            Exited(exit_code=7),
            id="its own exit code needs no reason",
        ),
        pytest.param(
            record("shutdown", Status={"ContainerStatus": {"ExitCode": 143}}),
            DRAINED,
            Exited(exit_code=143, reason="Docker Swarm stopped the run on node node1, which was drained."),
            id="drained",
        ),
        pytest.param(
            record("shutdown", Status={"ContainerStatus": {"ExitCode": -1}}),
            NODE,
            Exited(exit_code=137, reason="Docker Swarm stopped the run on node node1."),
            id="shut down with no exit code",
        ),
        pytest.param(
            record("rejected", Status={"Err": "No such image: x", "ContainerStatus": None}),
            NODE,
            Exited(exit_code=137, reason="No such image: x."),
            id="rejected",
        ),
        pytest.param(
            record("running"),
            LOST,
            Exited(exit_code=137, reason="The node node1 was lost, and the run with it."),
            id="its node is lost, although the manager calls it running",
        ),
        pytest.param(record("complete"), LOST, Exited(exit_code=0), id="ended before its node was lost"),
        pytest.param(
            record("orphaned"), None, Exited(exit_code=137, reason="The run was lost with its node."), id="orphaned"
        ),
    ],
)
def test_the_end(found, node, expected):
    """The end as it was, with a reason where the exit code alone misleads; none as long as the run lives."""
    assert end_of(task_of(found), node, is_asked=False) == expected


def test_an_end_that_was_asked_for_needs_no_reason():
    """Whoever aborts a run knows why."""
    found = task_of(record("shutdown", Status={"ContainerStatus": {"ExitCode": 143}}))
    assert end_of(found, NODE, is_asked=True) == Exited(exit_code=143)


def test_a_program_that_could_not_be_started_has_not_begun():
    """Told apart from one that ran and failed: only the latter is the run's own end."""
    failed = task_of(record("failed", Status={"Err": "starting container failed: exec: nosuch"}))
    ran = task_of(record("failed", Status={"Err": "task: non-zero exit (1)"}))
    assert (failed.has_begun, ran.has_begun) == (False, True)


def test_the_first_task_of_a_service_is_the_run():
    """What was shut down by moving its service to nowhere has a second task, which waits in vain."""
    first = task_of(record("shutdown"))
    second = task_of(record("pending", ID="t2", CreatedAt="2026-01-01T00:00:09Z", NodeID=""))
    other = task_of(record("running", ID="t3", ServiceID="s2"))
    assert first_of_each_service([second, other, first]) == {"s1": first, "s2": other}


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        pytest.param(
            {"ID": "n", "Status": {"State": "ready", "Addr": "10.0.0.2"}, "Spec": {"Availability": "active"}},
            Node(id="n", name="n", address="10.0.0.2", is_lost=False, is_drained=False),
            id="ready",
        ),
        pytest.param(
            {
                "ID": "n",
                "Description": {"Hostname": "h"},
                "Status": {"State": "down", "Addr": "10.0.0.2"},
                "Spec": {"Availability": "drain"},
            },
            Node(id="n", name="h", address="10.0.0.2", is_lost=True, is_drained=True),
            id="drained, then lost",
        ),
        pytest.param(
            {"ID": "n", "Status": {"State": "unknown", "Addr": "10.0.0.2"}, "Spec": {"Availability": "active"}},
            Node(id="n", name="n", address="10.0.0.2", is_lost=False, is_drained=False),
            id="unknown, as after a restart of the manager, is not lost",
        ),
        pytest.param(
            {"ID": "n", "Status": {"State": "ready", "Addr": "0.0.0.0"}, "ManagerStatus": {"Addr": "10.0.0.3:2377"}},
            Node(id="n", name="n", address="10.0.0.3", is_lost=False, is_drained=False),
            id="a manager that knows itself by no address",
        ),
        pytest.param(
            {"ID": "n", "Status": {"State": "ready", "Addr": ""}, "ManagerStatus": {"Addr": "[fd00::3]:2377"}},
            Node(id="n", name="n", address="fd00::3", is_lost=False, is_drained=False),
            id="by IPv6",
        ),
    ],
)
def test_a_node(found, expected):
    """Lost is only what the manager calls down; its address is the one at which its ports are reached."""
    assert node_of(found) == expected


def test_why_a_run_has_no_node():
    """The manager's own words, how long that was tried, and the settings to look at."""
    task = task_of(record("pending", Status={"Err": "no suitable node (insufficient resources on 3 nodes)"}))
    told = waiting_problem(task, 30.04)
    assert "insufficient resources on 3 nodes" in told
    assert "within 30 s" in told
    assert "swarm_constraints" in told
    assert "has not looked" in waiting_problem(None, 1)


@pytest.mark.parametrize(
    ("info", "told"),
    [
        pytest.param({"Swarm": {"LocalNodeState": "inactive"}}, "inactive", id="no Swarm"),
        pytest.param({"Swarm": {"LocalNodeState": "active", "ControlAvailable": False}}, "active", id="a worker"),
        pytest.param({}, "inactive", id="an engine that says nothing"),
    ],
)
def test_no_manager(info, told):
    """Refused with what the engine is and what to do."""
    with pytest.raises(LaunchError, match=f"its state: {told}.*docker swarm init"):
        swarm_of(info, "unix:///x")


def test_ways_to_engines():
    """The manager's own node always; others by the template, and none of a node that is lost."""
    local = Engine("unix:///nowhere")
    other = Node(id="n2", name="node2", address="10.0.0.2", is_lost=False, is_drained=False)
    alone, all_of_them = NodeEngines(local, "n1", None), NodeEngines(local, "n1", "tcp://{address}:2376")
    try:
        assert (alone.of(NODE), alone.of(other), alone.of(None), alone.reach_all) == (local, None, None, False)
        found = all_of_them.of(other)
        assert found is not None
        assert found.url == "tcp://10.0.0.2:2376"
        assert all_of_them.of(other) is found
        assert all_of_them.of(LOST) is None
    finally:
        alone.close()
        all_of_them.close()
        local.close()


def test_tasks_are_told_apart_by_their_time_alone():
    """Equal times are told apart by the id, so that the answer never depends on the manager's order."""
    tasks = [
        Task(id=name, service_id="s", run_id="r", state="running", is_wanted=True, created_at="t") for name in "ba"
    ]
    assert first_of_each_service(tasks)["s"].id == first_of_each_service(reversed(tasks))["s"].id == "a"
