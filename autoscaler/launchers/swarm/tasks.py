"""
No I/O: what the manager says of a run's task and of the nodes, read truthfully.

A task goes new, pending, assigned, accepted, preparing, ready, starting, running, and ends as complete (exit code 0),
failed, shutdown (Swarm wanted it gone), rejected (its node could not even begin) or orphaned (its node is gone for a
day). The task of a lost node says "running" all that time: only the node's own state tells.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from autoscaler.launchers.base import Exited
from autoscaler.launchers.docker.containers import start_problem
from gateway.installation import RUN_LABEL

KILLED_CODE = 137  # of what had no chance to have an exit code of its own

_BEFORE_RUNNING = frozenset({"new", "allocated", "pending", "assigned", "accepted", "preparing", "ready", "starting"})
_BEFORE_PLACED = frozenset({"new", "allocated", "pending"})
_UNWANTED = frozenset({"shutdown", "remove"})
_PLAIN_EXIT = "task: non-zero exit"


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A machine of the Swarm. ``is_lost``: the manager has not heard of it for so long that it counts as down."""

    id: str
    name: str
    address: str
    is_lost: bool
    is_drained: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """
    The task of one run. ``node_id``, ``container_id``, ``port`` (of the node) and ``exit_code`` come with time;
    ``problem`` is what the manager says of why it is not running.
    """

    id: str
    service_id: str
    run_id: str
    state: str
    is_wanted: bool
    created_at: str
    node_id: str | None = None
    container_id: str | None = None
    port: int | None = None
    exit_code: int | None = None
    problem: str | None = None

    @property
    def is_unplaced(self) -> bool:
        """No node has been found for it yet."""
        return self.state in _BEFORE_PLACED

    @property
    def is_starting(self) -> bool:
        """Its program does not run yet."""
        return self.state in _BEFORE_RUNNING

    @property
    def is_running(self) -> bool:
        """Its program runs, as far as the manager knows."""
        return self.state == "running"

    @property
    def has_ended(self) -> bool:
        """For good: tasks of ours are not restarted."""
        return not self.is_starting and not self.is_running

    @property
    def has_begun(self) -> bool:
        """Its program runs, or has run and ended by itself: that is the run's own end, whatever it was."""
        if self.is_running or self.state == "complete":
            return True
        return self.state == "failed" and (self.problem or "").startswith(_PLAIN_EXIT)


def node_of(found: Mapping[str, Any]) -> Node:
    """From the manager's record of a node."""
    status, manager = found.get("Status") or {}, found.get("ManagerStatus") or {}
    address = status.get("Addr") or ""
    if address in ("", "0.0.0.0", "::"):
        address = str(manager.get("Addr", "127.0.0.1")).rpartition(":")[0].strip("[]")
    return Node(
        id=found["ID"],
        name=(found.get("Description") or {}).get("Hostname") or found["ID"],
        address=address,
        is_lost=status.get("State") == "down",
        is_drained=(found.get("Spec") or {}).get("Availability") == "drain",
    )


def task_of(found: Mapping[str, Any]) -> Task:
    """From the manager's record of a task."""
    status = found["Status"]
    container = status.get("ContainerStatus") or {}
    ports = (status.get("PortStatus") or {}).get("Ports") or []
    return Task(
        id=found["ID"],
        service_id=found["ServiceID"],
        run_id=found["Spec"]["ContainerSpec"]["Labels"][RUN_LABEL],
        state=status["State"],
        is_wanted=found.get("DesiredState") not in _UNWANTED,
        created_at=found.get("CreatedAt", ""),
        node_id=found.get("NodeID") or None,
        container_id=container.get("ContainerID") or None,
        port=next((port["PublishedPort"] for port in ports if port.get("PublishedPort")), None),
        exit_code=container.get("ExitCode"),
        problem=status.get("Err") or None,
    )


def first_of_each_service(tasks: Iterable[Task]) -> dict[str, Task]:
    """By service; one that was shut down may have a second task, which waits in vain for a node."""
    found: dict[str, Task] = {}
    for task in sorted(tasks, key=lambda task: (task.created_at, task.id)):
        found.setdefault(task.service_id, task)
    return found


def end_of(task: Task, node: Node | None, *, is_asked: bool) -> Exited | None:
    """
    The end of the run, None while it lives; *is_asked*: Greenroom itself wanted it, so no reason has to be given.

    ``node`` is where it runs. When that is lost, so is the run, for whatever the manager says of its task.
    """
    code = task.exit_code if task.exit_code is not None and task.exit_code >= 0 else KILLED_CODE
    if task.has_ended:
        reason = None if is_asked or task.state == "complete" else _why_ended(task, node)
        return Exited(exit_code=0 if task.state == "complete" else code or KILLED_CODE, reason=reason)
    if node is not None and node.is_lost:
        return Exited(exit_code=KILLED_CODE, reason=f"The node {node.name} was lost, and the run with it.")
    return None


def _why_ended(task: Task, node: Node | None) -> str | None:
    where = f"node {node.name}" if node is not None else "its node"
    if task.state == "shutdown":
        drained = ", which was drained" if node is not None and node.is_drained else ""
        return f"Docker Swarm stopped the run on {where}{drained}."
    if task.state == "orphaned":
        return f"The run was lost with {where}."
    if (task.problem or "").startswith(_PLAIN_EXIT):
        return None
    return start_problem(task.problem) if task.problem else None


def waiting_problem(task: Task | None, waited_secs: float) -> str:
    """Why a run that is to start still has no node, and what to do."""
    why = (task.problem if task is not None else None) or "the manager has not looked for one"
    return (
        f"No node of the Swarm took the run within {waited_secs:.0f} s: {why}. Abort runs to free memory, add a "
        "node, or look at the settings swarm_constraints and registry."
    )
