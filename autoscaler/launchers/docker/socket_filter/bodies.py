"""
No I/O: what may be asked of the engine in JSON: containers and networks as Greenroom makes them, and no others.

A description is read into fields, each of which must be known and have a value that is allowed; what is sent on is
written anew from those fields. So nothing passes that another reader of the same bytes would understand differently:
a field twice, ``privileged`` for ``Privileged``, or one that a later engine gives a meaning.
"""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Callable, Collection, Mapping
from typing import Any

from autoscaler.launchers.docker.containers import CAPABILITIES
from autoscaler.launchers.docker.socket_filter.forbidden import Forbidden, Malformed
from gateway.installation import INSTALLATION_LABEL, Installation

Check = Callable[[Any], bool]

_LABEL_PREFIXES = ("greenroom.", "com.apify.")
_MAX_INT = 2**53
_DIGITS = re.compile(r"[0-9]{1,15}[kmgKMG]?")
_TMPFS = re.compile(r"rw,nosuid,nodev,mode=1777,size=[0-9]{1,15}")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_PRIVATE = tuple(
    ipaddress.IPv4Network(network) for network in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10")
)
_BRIDGE_NAME = "com.docker.network.bridge.name"
_BRIDGE_ICC = "com.docker.network.bridge.enable_icc"


def read_json(content: bytes) -> Any:
    """The value of *content*. Raises Malformed, also for a field that is there twice."""
    try:
        return json.loads(content, object_pairs_hook=_without_twins, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise Malformed(f"The body is not the JSON that is expected here: {error}.") from error


def _without_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise ValueError("a field is there twice")
    return fields


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is no JSON")


def container(body: Any, installation: Installation) -> dict[str, Any]:
    """A container to be created. Raises Forbidden."""
    network = installation.network
    return _fields(
        "a container",
        body,
        {
            "Image": lambda value: is_own_image(value, installation),
            "Env": _texts,
            "Labels": lambda value: labels(value, installation),
            "HostConfig": lambda value: _host(value, network),
            "NetworkingConfig": lambda value: _networking(value, network),
        },
        required=("Image", "Labels", "HostConfig"),
    )


def update(body: Any, installation: Installation) -> dict[str, Any]:
    """New limits of a running container. Raises Forbidden."""
    return _fields("an update of a container", body, {"CpuQuota": _number, "CpuPeriod": _number})


def network(body: Any, installation: Installation) -> dict[str, Any]:
    """The network of all runs, or the probe by which a free subnet is found. Raises Forbidden."""
    is_probe = isinstance(body, dict) and body.get("Name") == probe_name(installation)
    options = {_BRIDGE_NAME: installation.bridge, _BRIDGE_ICC: "false"}
    return _fields(
        "a network",
        body,
        {
            "Name": _one_of(installation.network, probe_name(installation)),
            "Driver": _one_of("bridge"),
            "Options": _one_of({}) if is_probe else _one_of(options),
            "IPAM": _ipam,
            "CheckDuplicate": _flag,
            "EnableIPv6": _one_of(False),
            "Labels": lambda value: labels(value, installation),
        },
        required=("Name", "Driver", "Labels") if is_probe else ("Name", "Driver", "Labels", "Options"),
    )


def probe_name(installation: Installation) -> str:
    """The network that is made and removed to learn of a free subnet."""
    return f"{installation.network}-probe"


def is_own_image(name: Any, installation: Installation) -> bool:
    """Whether *name* is that of an image of this Greenroom's, with its tag."""
    if not isinstance(name, str):
        return False
    repository, _, tag = name.partition(":")
    return repository == installation.image_name and _TAG.fullmatch(tag) is not None


def labels(value: Any, installation: Installation) -> bool:
    """Whether these are labels of this Greenroom's, and none to which other programs on the machine would listen."""
    return (
        isinstance(value, dict)
        and all(name.startswith(_LABEL_PREFIXES) and isinstance(text, str) for name, text in value.items())
        and value.get(INSTALLATION_LABEL) == installation.id
    )


# -- a container's surroundings -------------------------------------------------------------------------------------

_HOST_REQUIRED = ("CapDrop", "Memory", "MemorySwap", "NetworkMode", "PidsLimit", "RestartPolicy", "SecurityOpt")


def _host(value: Any, network: str) -> bool:
    fields = _fields("HostConfig", value, _host_rules(network), _HOST_REQUIRED)
    return bool(fields["MemorySwap"] == fields["Memory"])  # the sum of both: no swap


def _host_rules(network: str) -> Mapping[str, Check]:
    return {
        "AutoRemove": _one_of(False),
        "CapAdd": lambda value: isinstance(value, list) and all(name in CAPABILITIES for name in value),
        "CapDrop": _one_of(["ALL"]),
        "CpuPeriod": _number,
        "CpuQuota": _positive,
        "Init": _flag,
        "LogConfig": lambda value: bool(_fields("LogConfig", value, _LOG_CONFIG, tuple(_LOG_CONFIG))),
        "Memory": _positive,
        "MemorySwap": _positive,
        "NetworkMode": _one_of(network),
        "OomScoreAdj": lambda value: _number(value) and 0 <= value <= 1000,
        "PidsLimit": _positive,
        "ReadonlyRootfs": _flag,
        "RestartPolicy": _one_of({"Name": "no"}),
        "SecurityOpt": _one_of(["no-new-privileges"]),
        "ShmSize": _positive,
        "StorageOpt": _sizes("size"),
        "Tmpfs": lambda value: _matches(value, {"/tmp": _TMPFS}),  # noqa: S108 - in the container
        "Ulimits": lambda value: (
            isinstance(value, list) and all(bool(_fields("Ulimits", one, _ULIMIT)) for one in value)
        ),
    }


def _networking(value: Any, network: str) -> bool:
    return bool(
        _fields(
            "NetworkingConfig",
            value,
            {"EndpointsConfig": lambda of: isinstance(of, dict) and set(of) == {network} and _endpoint(of[network])},
            required=("EndpointsConfig",),
        )
    )


def _endpoint(value: Any) -> bool:
    return isinstance(value, dict) and (
        value == {} or (set(value) == {"IPAMConfig"} and _matches(value["IPAMConfig"], {"IPv4Address": _ADDRESS}))
    )


def _ipam(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and set(value) <= {"Driver", "Config"}
        and value.get("Driver", "default") == "default"
        and isinstance(value.get("Config"), list)
        and all(_pool(pool) for pool in value["Config"])
    )


def _pool(value: Any) -> bool:
    """A subnet of private addresses: another one would take the machine's own traffic away."""
    if not isinstance(value, dict):
        return False
    given = {name: of for name, of in value.items() if of is not None}
    if not {"Subnet", "Gateway"} <= set(given) <= {"Subnet", "Gateway", "IPRange"}:
        return False
    if not all(isinstance(of, str) for of in given.values()):
        return False
    try:
        subnet, gateway = ipaddress.IPv4Network(given["Subnet"]), ipaddress.IPv4Address(given["Gateway"])
        automatic = ipaddress.IPv4Network(given.get("IPRange", given["Subnet"]))
    except ValueError:
        return False
    return gateway in subnet and automatic.subnet_of(subnet) and any(subnet.subnet_of(private) for private in _PRIVATE)


# -- values ---------------------------------------------------------------------------------------------------------


def _fields(where: str, value: Any, rules: Mapping[str, Check], required: Collection[str] = ()) -> dict[str, Any]:
    """The fields of *value* that are set, all of which *rules* allow. Messages name fields, and never their values."""
    if not isinstance(value, dict):
        raise Forbidden(f"{where} is described by an object")
    fields = {name: one for name, one in value.items() if one is not None}
    for name, one in fields.items():
        check = rules.get(name)
        if check is None:
            raise Forbidden(f"{where} with {name[:100]}")
        if not check(one):
            raise Forbidden(f"{where} with this value of {name}")
    if missing := [name for name in required if name not in fields]:
        raise Forbidden(f"{where} without {', '.join(missing)}")
    return fields


def _one_of(*allowed: Any) -> Check:
    # The type too: 0 is not False here.
    return lambda value: any(type(value) is type(one) and value == one for one in allowed)


def _flag(value: Any) -> bool:
    return isinstance(value, bool)


def _number(value: Any) -> bool:
    return type(value) is int and -1000 <= value <= _MAX_INT


def _positive(value: Any) -> bool:
    return type(value) is int and 0 < value <= _MAX_INT


def _texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(one, str) for one in value)


def _matches(value: Any, patterns: Mapping[str, re.Pattern[str]]) -> bool:
    return isinstance(value, dict) and all(
        name in patterns and isinstance(text, str) and patterns[name].fullmatch(text) for name, text in value.items()
    )


def _sizes(*names: str) -> Check:
    return lambda value: _matches(value, dict.fromkeys(names, _DIGITS))


_ADDRESS = re.compile(r"[0-9]{1,3}(\.[0-9]{1,3}){3}")
_LOG_CONFIG: Mapping[str, Check] = {"Type": _one_of("json-file"), "Config": _sizes("max-size", "max-file")}
_ULIMIT: Mapping[str, Check] = {"Name": _one_of("core", "nofile"), "Soft": _number, "Hard": _number}
