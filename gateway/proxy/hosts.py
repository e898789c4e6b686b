"""
No I/O: what a ``Host`` header means, and what the path form means where there is no wildcard DNS.

    <label>.<domain>                              a standby Actor (``user--actor`` or the Actor's id: both are labels)
    <label>.runs.<domain>                         one run's live view
    <domain>, api., console., IPs, localhost      Greenroom itself
    anything else                                 a custom domain (``host_map``), or unknown, and learns nothing
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Literal, NamedTuple

OWN_LABELS = frozenset({"api", "console"})
_RUNS = "runs"

_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_NAME_AND_PORT = re.compile(rf"({_LABEL}(?:\.{_LABEL})*)\.?(?::[0-9]{{0,5}})?")
_IPV6_AND_PORT = re.compile(r"\[([0-9a-f:.]{2,45})\](?::[0-9]{0,5})?")
_PATH_FORM = re.compile(rf"(/(standby|live)/({_LABEL}))(?:/.*)?", re.IGNORECASE | re.ASCII | re.DOTALL)
_LONGEST_NAME = 253


@dataclass(frozen=True, slots=True)
class Standby:
    """A standby Actor, by the DNS label of its name or its id; always lower case."""

    label: str


@dataclass(frozen=True, slots=True)
class LiveView:
    """One run's live view; the label is the secret."""

    label: str


@dataclass(frozen=True, slots=True)
class Own:
    """
    Greenroom's own API and pages.

    It answers itself, too, at a custom domain that somebody wants and has not proven to be his: ``claimed`` is that
    name, where nothing is to be seen but the proof. Empty at all other hosts.
    """

    claimed: str = ""


@dataclass(frozen=True, slots=True)
class Unknown:
    """Nobody's: malformed, or not below our domain."""


Target = Standby | LiveView | Own | Unknown


class PathForm(NamedTuple):
    """``/standby/<label>/…`` or ``/live/<label>/…``; *prefix* is what stands before the Actor's own path, as sent."""

    kind: Literal["standby", "live"]
    label: str
    prefix: str


def parse_host(host_header: bytes | str, domain: str) -> Target:
    """
    Whom a ``Host`` header names below *domain*; port, trailing dot and letter case don't matter. Never raises.

    A header that is not exactly one name or IP literal (empty, user info, spaces, lists, bytes outside ASCII) is
    Unknown. ``runs.<domain>`` itself is reserved, so that no Actor can ever sit above the live views.
    """
    text = _lower(host_header)
    if text.startswith("["):
        return Own() if (match := _IPV6_AND_PORT.fullmatch(text)) and _is_ip(match[1], IPv6Address) else Unknown()
    name = host_name(text)
    if name is None:
        return Unknown()
    domain = domain.lower().rstrip(".")
    if name in (domain, "localhost") or _is_ip(name, IPv4Address):
        return Own()
    if not name.endswith("." + domain):
        return Unknown()
    return _below(name[: -len(domain) - 1].split("."))


def host_name(host_header: bytes | str) -> str | None:
    """The one name that a ``Host`` header is, in lower case, without port and trailing dot; None where it is none."""
    match = _NAME_AND_PORT.fullmatch(_lower(host_header))
    return match[1] if match is not None and len(match[1]) <= _LONGEST_NAME else None


def _lower(host_header: bytes | str) -> str:
    text = host_header.decode("latin-1") if isinstance(host_header, bytes) else host_header
    # Before lower(): there are non-ASCII letters whose lower case is ASCII.
    return text.lower() if text.isascii() else ""


def parse_path_form(path: bytes) -> PathForm | None:
    """
    The path form in a raw path (without query), or None.

    E.g. ``b"/live/k3j5/ws"`` is ``("live", "k3j5", "/live/k3j5")``.
    The label's letter case is ignored, the prefix keeps it, so that stripping it takes exactly what was sent. Percent
    signs are no part of a label: nothing is decoded here.
    """
    match = _PATH_FORM.fullmatch(path.decode("latin-1"))
    if match is None or match[2] not in ("standby", "live"):
        return None
    return PathForm("standby" if match[2] == "standby" else "live", match[3].lower(), match[1])


def _below(labels: list[str]) -> Target:
    match labels:
        case [label] if label in OWN_LABELS:
            return Own()
        case [label] if label != _RUNS:
            return Standby(label)
        case [label, "runs"]:
            return LiveView(label)
        case _:
            return Unknown()


def _is_ip(text: str, kind: type[IPv4Address | IPv6Address]) -> bool:
    try:
        kind(text)
    except ValueError:
        return False
    return True
