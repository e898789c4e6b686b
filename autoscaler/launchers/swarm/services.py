"""
No I/O: a run as a Swarm service of one task: what it reserves, its limits, its rights, where it may be placed.

What a service can't say in version 1.41 of the API, and therefore does not hold on Swarm: no new privileges (give the
engines of the nodes ``"no-new-privileges": true``), no swap (have none on the nodes), the score for the kernel's choice
when a node itself runs short of memory, a quota on disk.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from autoscaler.launchers.base import LaunchSpec
from autoscaler.launchers.docker.containers import (
    CAPABILITIES,
    PORT_LABEL,
    ContainerRules,
    boot_cpus,
    cpu_share,
    log_config,
)
from gateway.installation import BUILD_LABEL, INSTALLATION_LABEL, RUN_LABEL

# What next to no program reacts to: Swarm sends the stop signal the moment a node is drained, and whoever ended by it
# would have no time to migrate. Where Greenroom reaches the node's engine, it says itself when a run is to end.
HARMLESS_SIGNAL = "SIGURG"

# Matches no node: what is shut down is not to come back.
NOWHERE = "node.id==none"

_MIB = 1024 * 1024
_NANO = 1_000_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceRules:
    """
    What holds for all services of one Greenroom.

    ``stop_grace_secs``: how long a task may live on once Swarm wants it gone. ``stops_by_itself``: Greenroom reaches no
    engine but its own, so Swarm's stop signal is what ends a program.
    """

    containers: ContainerRules
    network: str
    constraints: Sequence[str]
    stop_grace_secs: float
    stops_by_itself: bool


def service_body(spec: LaunchSpec, name: str, image: str, rules: ServiceRules) -> dict[str, Any]:
    """The manager's description of a service for *spec* (the arguments of ``create_service``)."""
    labels = {
        INSTALLATION_LABEL: rules.containers.installation.id,
        RUN_LABEL: spec.run_id,
        BUILD_LABEL: spec.build.id,
        PORT_LABEL: str(spec.placement.port),
        "com.apify.actRunId": spec.run_id,
    }
    return {
        "name": name,
        "labels": labels,
        "mode": {"Replicated": {"Replicas": 1}},
        # By a port of the node itself: the routing mesh would need IPVS, and an overlay a gateway that is inside of it.
        # The node chooses the port, which can't collide with anything then.
        "endpoint_spec": {
            "Mode": "dnsrr",
            "Ports": [{"Protocol": "tcp", "TargetPort": spec.placement.port, "PublishMode": "host"}],
        },
        "task_template": {
            "ContainerSpec": _container(spec, image, labels, rules),
            "LogDriver": _log_driver(spec.max_log_chars),
            "Networks": [{"Target": rules.network}],
            "Placement": {"Constraints": list(rules.constraints)},
            "Resources": _resources(spec, rules.containers),
            "RestartPolicy": {"Condition": "none", "MaxAttempts": 0},  # the supervisor decides
        },
    }


def _container(spec: LaunchSpec, image: str, labels: dict[str, str], rules: ServiceRules) -> dict[str, Any]:
    containers = rules.containers
    half = spec.memory_mbytes * _MIB // 2
    mounts = [_tmpfs("/dev/shm", half)]  # noqa: S108 - in the container; browsers want a large one
    if containers.read_only:
        mounts.append(_tmpfs("/tmp", half))  # noqa: S108 - in the container
    container: dict[str, Any] = {
        "Image": image,
        "Env": [f"{name}={value}" for name, value in spec.env.items()],
        "Labels": labels,
        "Init": True,  # reaps orphans
        "CapabilityDrop": ["ALL"],
        "CapabilityAdd": [f"CAP_{name}" for name in CAPABILITIES],
        "Mounts": mounts,
        "ReadOnly": containers.read_only,
        "StopGracePeriod": int(rules.stop_grace_secs * _NANO),
        "Ulimits": [
            {"Name": "core", "Soft": 0, "Hard": 0},
            {"Name": "nofile", "Soft": containers.open_files_limit, "Hard": containers.open_files_limit},
        ],
    }
    if not rules.stops_by_itself:
        container["StopSignal"] = HARMLESS_SIGNAL
    return container


def _tmpfs(target: str, size_bytes: int) -> dict[str, Any]:
    return {"Type": "tmpfs", "Target": target, "TmpfsOptions": {"SizeBytes": size_bytes, "Mode": 0o1777}}


def _resources(spec: LaunchSpec, rules: ContainerRules) -> dict[str, Any]:
    """It reserves what its memory pays for, and has up to one core until it serves."""
    memory_bytes = spec.memory_mbytes * _MIB
    return {
        "Limits": {
            "MemoryBytes": memory_bytes,
            "NanoCPUs": nano_cpus(boot_cpus(spec.memory_mbytes, rules.cores)),
            "Pids": rules.pids_limit,
        },
        "Reservations": {
            "MemoryBytes": memory_bytes,
            "NanoCPUs": nano_cpus(cpu_share(spec.memory_mbytes, rules.cores)),
        },
    }


def nano_cpus(cpus: float) -> int:
    """Cores as the API counts them; the kernel wants a hundredth at least."""
    return max(_NANO // 100, round(cpus * _NANO))


def _log_driver(max_log_chars: int) -> dict[str, Any]:
    config = log_config(max_log_chars)
    return {"Name": config["Type"], "Options": config["Config"]}
