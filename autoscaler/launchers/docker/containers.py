"""
No I/O: what a run's container is made of: its limits, its rights, its labels, its place in the network.

The rights are what images need to start as root and to become another user, and no more. Source of the figures:
apify-platform.md §3.11; Docker's own list of default capabilities, less those that only attacks have a use for.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from autoscaler.launchers.base import LaunchSpec
from gateway.installation import BUILD_LABEL, INSTALLATION_LABEL, RUN_LABEL, Installation

PORT_LABEL = "greenroom.port"

# Without AUDIT_WRITE, MKNOD, NET_RAW, SETFCAP, SETPCAP and SYS_CHROOT of Docker's defaults.
CAPABILITIES = ("CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "NET_BIND_SERVICE", "SETGID", "SETUID")

_MIB = 1024 * 1024
CPU_PERIOD_USECS = 100_000
_BOOT_CPUS = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerRules:
    """
    What holds for all containers of one Greenroom.

    ``cores`` are the engine's. ``disk_quota``: the storage driver can limit a container's writable layer.
    """

    installation: Installation
    cores: int
    pids_limit: int = 1024
    open_files_limit: int = 16384
    read_only: bool = False
    disk_quota: bool = False


def cpu_share(memory_mbytes: int, cores: int) -> float:
    """A container's share: memory ÷ 4096 cores, e.g. 0.25 for 1024 MiB; never more than the engine has."""
    return min(float(cores), memory_mbytes / 4096)


def cpu_quota_usecs(cpus: float) -> int:
    """The same as microseconds of each period of 100 ms; the kernel wants 1 ms at least."""
    return max(1000, round(cpus * CPU_PERIOD_USECS))


def boot_cpus(memory_mbytes: int, cores: int) -> float:
    """The share until it serves: up to one core, since booting is what its caller waits for."""
    return min(float(cores), max(_BOOT_CPUS, cpu_share(memory_mbytes, cores)))


def container_body(spec: LaunchSpec, image: str, rules: ContainerRules, disk_mbytes: int) -> dict[str, Any]:
    """The engine's description of a container for *spec* (body of ``POST /containers/create``)."""
    installation = rules.installation
    memory_bytes = spec.memory_mbytes * _MIB
    host: dict[str, Any] = {
        "AutoRemove": False,  # its exit code is read after its end
        "CapAdd": list(CAPABILITIES),
        "CapDrop": ["ALL"],
        "CpuPeriod": CPU_PERIOD_USECS,
        "CpuQuota": cpu_quota_usecs(boot_cpus(spec.memory_mbytes, rules.cores)),
        "Init": True,  # reaps orphans, and lets a program that ignores its duties as process 1 be stopped
        "LogConfig": log_config(spec.max_log_chars),
        "Memory": memory_bytes,
        "MemorySwap": memory_bytes,  # the sum of both: no swap
        "NetworkMode": installation.network,
        "OomScoreAdj": 500,  # should the machine itself run short, a run goes before Greenroom and the engine
        "PidsLimit": rules.pids_limit,
        "ReadonlyRootfs": rules.read_only,
        "RestartPolicy": {"Name": "no"},  # the supervisor decides
        "SecurityOpt": ["no-new-privileges"],
        "ShmSize": memory_bytes // 2,  # browsers want a large one; what is used of it counts as memory
        "Ulimits": [
            {"Name": "core", "Soft": 0, "Hard": 0},
            {"Name": "nofile", "Soft": rules.open_files_limit, "Hard": rules.open_files_limit},
        ],
    }
    if rules.read_only:
        host["Tmpfs"] = {"/tmp": f"rw,nosuid,nodev,mode=1777,size={memory_bytes // 2}"}  # noqa: S108 - in the container
    if rules.disk_quota:
        host["StorageOpt"] = {"size": f"{disk_mbytes}M"}
    address = spec.placement.address.host
    return {
        "Image": image,
        "Env": [f"{name}={value}" for name, value in spec.env.items()],
        "Labels": {
            INSTALLATION_LABEL: installation.id,
            RUN_LABEL: spec.run_id,
            BUILD_LABEL: spec.build.id,
            PORT_LABEL: str(spec.placement.port),
            "com.apify.actRunId": spec.run_id,
        },
        "HostConfig": host,
        "NetworkingConfig": {"EndpointsConfig": {installation.network: {"IPAMConfig": {"IPv4Address": address}}}},
    }


def log_config(max_log_chars: int) -> dict[str, Any]:
    """The engine keeps output only until it is in the run's own log, and not without bound."""
    megabytes = max(1, min(16, 2 * max_log_chars // 1_000_000))
    return {"Type": "json-file", "Config": {"max-size": f"{megabytes}m", "max-file": "2"}}


def start_problem(message: str) -> str:
    """The one part of the runtime's long chain of errors that tells its reader something."""
    text = message.removeprefix("Docker: ")
    if "exec: " in text:
        text = text[text.index("exec: ") :]
    return text.removesuffix(": unknown") + "."
