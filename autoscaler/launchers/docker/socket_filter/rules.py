"""
No I/O: the calls of the engine that Greenroom makes, as a table: method, path, query, body, and what it is about.

What is not in the table does not pass. A call that passes is written anew by its ``Call``: nothing of the request's own
line or headers reaches the engine.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import parse_qsl, quote, urlencode

from autoscaler.launchers.docker.socket_filter import bodies
from autoscaler.launchers.docker.socket_filter.forbidden import Forbidden, Malformed
from gateway.installation import Installation

Kind = Literal["containers", "images", "networks"]
# What a parameter becomes; it is asked also where the parameter is not there (None).
Parameter = Callable[[str | None, Installation], str | None]
BodyRule = Callable[[Any, Installation], dict[str, Any]]

_TARGET = re.compile(r"(?P<version>/v1\.(?:4[1-9]|[5-9][0-9]))?(?P<path>(?:/[A-Za-z0-9_.:-]+)+)(?:\?(?P<query>.*))?")
_CONTAINER = re.compile(r"[0-9a-f]{64}")
_IMAGE_ID = re.compile(r"(sha256:)?[0-9a-f]{64}")
_NETWORK_ID = re.compile(r"[0-9a-f]{64}")
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,128}")
_VALUE = re.compile(r"[A-Za-z0-9_.:+-]{0,64}")
_FILE = re.compile(r"[A-Za-z0-9_.-][A-Za-z0-9_./ -]{0,255}")
_FALSE = frozenset({"", "0", "no", "false", "none"})  # as the engine reads them
_MAX_PARAMETERS = 40


@dataclass(frozen=True, slots=True)
class Call:
    """
    A call that may be made. ``reference``: the object of ``kind`` that it is about, which must be ours.

    ``body``: the rule for its JSON, None where it has none; ``stream``: its body passes as it comes (a build's files).
    """

    method: str
    version: str
    path: str
    query: Mapping[str, str]
    kind: Kind | None = None
    reference: str = ""
    body: BodyRule | None = None
    stream: bool = False

    def target(self, reference: str | None = None) -> str:
        """The request's target, for the object by its *reference*, e.g. the full id that a name stands for."""
        path = self.path.replace("{}", quote(reference or self.reference, safe=":"))
        return f"{self.version}{path}" + (f"?{urlencode(self.query)}" if self.query else "")


@dataclass(frozen=True, slots=True)
class _Route:
    method: str
    path: str
    query: Mapping[str, Parameter] = field(default_factory=dict)
    body: BodyRule | None = None
    stream: bool = False


def judge(method: str, target: str, installation: Installation) -> Call:
    """The call that this is, if Greenroom needs it. Raises Forbidden or Malformed."""
    found = _TARGET.fullmatch(target)
    if found is None:
        raise Forbidden("a target that is not a plain path of API version 1.41 or later")
    words = found["path"][1:].split("/")
    if any(word in (".", "..") for word in words):
        raise Forbidden("a path with '.' or '..'")
    for route in _ROUTES:
        pattern = route.path[1:].split("/")
        if route.method != method or len(pattern) != len(words):
            continue
        if any(part not in ("{}", word) for part, word in zip(pattern, words, strict=True)):
            continue
        reference = next((word for part, word in zip(pattern, words, strict=True) if part == "{}"), "")
        return Call(
            method=method,
            version=found["version"] or "",
            path=route.path,
            query=_query(found["query"] or "", route, installation),
            kind=_kind(words[0], reference, installation),
            reference=reference,
            body=route.body,
            stream=route.stream,
        )
    raise Forbidden(f"{method} {found['path'][:200]} is no call that Greenroom makes")


def _kind(word: str, reference: str, installation: Installation) -> Kind | None:
    if not reference:
        return None
    if word == "containers" and (_CONTAINER.fullmatch(reference) or _is_own_name(reference, installation)):
        return "containers"
    if word == "images" and (_IMAGE_ID.fullmatch(reference) or bodies.is_own_image(reference, installation)):
        return "images"
    own_networks = (installation.network, bodies.probe_name(installation))
    if word == "networks" and (_NETWORK_ID.fullmatch(reference) or reference in own_networks):
        return "networks"
    raise Forbidden(f"{word} {reference[:150]} is not a full id, nor a name of Greenroom {installation.id}")


def _query(text: str, route: _Route, installation: Installation) -> dict[str, str]:
    try:
        pairs = parse_qsl(text, keep_blank_values=True, strict_parsing=bool(text), max_num_fields=_MAX_PARAMETERS)
    except ValueError as error:
        raise Malformed(f"The query can't be read: {error}.") from error
    given = dict(pairs)
    if len(given) != len(pairs):
        raise Malformed("A parameter is there twice.")
    for name in given:
        if name not in route.query:
            raise Forbidden(f"{route.method} {route.path} with the parameter {name[:100]}")
    made = {}
    for name, rule in route.query.items():
        value = rule(given.get(name), installation)
        if value is not None:
            made[name] = value
    return made


def _is_own_name(name: str, installation: Installation) -> bool:
    return name.startswith(f"greenroom-{installation.id}-") and _NAME.fullmatch(name) is not None


# -- parameters -----------------------------------------------------------------------------------------------------


def _plain(value: str | None, installation: Installation) -> str | None:
    if value is not None and not _VALUE.fullmatch(value):
        raise Forbidden("a parameter that is no short word or number")
    return value


def _off(value: str | None, installation: Installation) -> str | None:
    if value is not None and value.strip().lower() not in _FALSE:
        raise Forbidden("an option that Greenroom never switches on")
    return None


def _own_filters(value: str | None, installation: Installation) -> str:
    """The same filters, and besides only what is ours."""
    filters = bodies.read_json(value.encode()) if value else {}
    if not isinstance(filters, dict):
        raise Malformed("filters is an object of lists.")
    made: dict[str, list[str]] = {}
    for name, wanted in filters.items():
        words = [word for word, is_on in wanted.items() if is_on] if isinstance(wanted, dict) else wanted
        if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
            raise Malformed("filters is an object of lists.")
        made[name] = words
    made["label"] = list(dict.fromkeys([*made.get("label", []), installation.label]))
    return json.dumps(made)


def _container_name(value: str | None, installation: Installation) -> str:
    if value is None or not _is_own_name(value, installation):
        raise Forbidden(f"a container whose name does not begin with greenroom-{installation.id}-")
    return value


def _own_tag(value: str | None, installation: Installation) -> str:
    if value is None or not bodies.is_own_image(value, installation):
        raise Forbidden(f"an image that is not named {installation.image_name}:TAG")
    return value


def _own_repository(value: str | None, installation: Installation) -> str:
    if value != installation.image_name:
        raise Forbidden(f"an image that is not named {installation.image_name}:TAG")
    return value


def _own_labels(value: str | None, installation: Installation) -> str:
    labels = bodies.read_json(value.encode()) if value else None
    if not bodies.labels(labels, installation):
        raise Forbidden(f"a build without the label {installation.label}, or with labels that are not Greenroom's")
    return json.dumps(labels)


def _own_network(value: str | None, installation: Installation) -> str:
    if value not in (installation.network, "none"):
        raise Forbidden(f"a build on another network than {installation.network}")
    return value


def _arguments(value: str | None, installation: Installation) -> str | None:
    if value is None:
        return None
    arguments = bodies.read_json(value.encode())
    if not isinstance(arguments, dict) or not all(isinstance(one, str | None) for one in arguments.values()):
        raise Malformed("buildargs is an object of texts.")
    return json.dumps(arguments)


def _file(value: str | None, installation: Installation) -> str | None:
    if value is not None and (not _FILE.fullmatch(value) or ".." in value.split("/")):
        raise Forbidden("a Dockerfile outside of the build's files")
    return value


# -- the table ------------------------------------------------------------------------------------------------------

_BUILD: Mapping[str, Parameter] = {
    "t": _own_tag,
    "labels": _own_labels,
    "networkmode": _own_network,
    "dockerfile": _file,
    "buildargs": _arguments,
    **dict.fromkeys(("q", "nocache", "rm", "forcerm", "pull", "target", "platform"), _plain),
    **dict.fromkeys(("remote", "squash"), _off),
    **dict.fromkeys(("memory", "memswap", "cpushares", "cpuperiod", "cpuquota", "shmsize"), _plain),
}

_LISTED = dict.fromkeys(("limit", "all", "size", "trunc_cmd", "since", "before", "digests", "only_ids"), _plain)

_ROUTES = (
    _Route("GET", "/_ping"),
    _Route("HEAD", "/_ping"),
    _Route("GET", "/version"),
    _Route("GET", "/info"),
    _Route("GET", "/events", {"filters": _own_filters, "since": _plain, "until": _plain}),
    _Route("GET", "/containers/json", {"filters": _own_filters, **_LISTED}),
    _Route("POST", "/containers/create", {"name": _container_name}, body=bodies.container),
    _Route("GET", "/containers/{}/json", {"size": _plain}),
    _Route(
        "GET",
        "/containers/{}/logs",
        dict.fromkeys(("stdout", "stderr", "timestamps", "follow", "since", "until", "tail"), _plain),
    ),
    _Route("GET", "/containers/{}/stats", {"stream": _plain, "one-shot": _plain}),
    _Route("POST", "/containers/{}/start"),
    _Route("POST", "/containers/{}/kill", {"signal": _plain}),
    _Route("POST", "/containers/{}/pause"),
    _Route("POST", "/containers/{}/unpause"),
    _Route("POST", "/containers/{}/update", body=bodies.update),
    _Route("DELETE", "/containers/{}", {"v": _plain, "force": _plain, "link": _off}),
    _Route("GET", "/images/json", {"filters": _own_filters, **_LISTED}),
    _Route("GET", "/images/{}/json"),
    _Route("DELETE", "/images/{}", {"force": _plain, "noprune": _plain}),
    _Route("POST", "/images/{}/tag", {"repo": _own_repository, "tag": _plain, "force": _plain}),
    _Route("POST", "/build", _BUILD, stream=True),
    _Route("GET", "/networks", {"filters": _own_filters}),
    _Route("POST", "/networks/create", body=bodies.network),
    _Route("GET", "/networks/{}", {"verbose": _off}),
    _Route("DELETE", "/networks/{}"),
)
