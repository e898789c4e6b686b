"""
No I/O: who the caller is, also where a proxy that is trusted to say so stands before Greenroom.

Anybody may send ``X-Forwarded-For`` and ``X-Forwarded-Proto``, so they are believed of the peers in the setting
``trusted_proxies`` alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

# Some proxies add the caller's port.
_WITH_PORT = re.compile(r"\[([0-9A-Fa-f:.]+)\](?::[0-9]+)?|([0-9]+\.[0-9]+\.[0-9]+\.[0-9]+):[0-9]+")
_SCHEMES = {"http": "http", "https": "https", "ws": "http", "wss": "https"}


@dataclass(frozen=True, slots=True)
class Client:
    """
    Where a request comes from: the *address* of its client and the *scheme* that he used.

    ``proxies`` are the trusted ones that it came through, the one that is connected to us last.
    """

    address: str
    scheme: str
    proxies: tuple[str, ...] = ()


def client_of(peer: str, headers: Iterable[tuple[bytes, bytes]], *, trusted: tuple[str, ...], scheme: str) -> Client:
    """
    The caller behind *peer*, the address that is connected to us; *scheme* is what holds where nobody trusted says.

    ``X-Forwarded-For`` is read from its end, as each proxy adds whom it heard: the first address that is not trusted is
    the client, and what stands before it is his own tale. E.g. peer 10.0.0.2 and ``6.6.6.6, 203.0.113.7, 10.0.0.1``
    with 10.0.0.0/8 trusted: 203.0.113.7, by way of 10.0.0.1 and 10.0.0.2.
    """
    if not trusted or not is_trusted(peer, trusted):
        return Client(peer, scheme)
    heard: list[str] = []
    for name, value in headers:
        if name == b"x-forwarded-for":
            heard += value.decode("latin-1").split(",")
        elif name == b"x-forwarded-proto":
            scheme = _SCHEMES.get(value.decode("latin-1").rpartition(",")[2].strip().lower(), scheme)
    client, proxies = peer, []
    while heard and is_trusted(client, trusted):
        address = _address(heard.pop())
        if address is None:
            break
        proxies.append(client)
        client = str(address)
    return Client(client, scheme, tuple(reversed(proxies)))


def network_problem(text: str) -> str | None:
    """What is wrong with an item of ``trusted_proxies``, or None: an address or a network is expected."""
    try:
        ip_network(text, strict=False)
    except ValueError:
        return f"an address or a network such as 10.0.0.0/8 is expected, not {text!r}"
    return None


@lru_cache(maxsize=16)
def _networks(trusted: tuple[str, ...]) -> tuple[IPv4Network | IPv6Network, ...]:
    return tuple(ip_network(text, strict=False) for text in trusted)


def is_trusted(text: str, trusted: tuple[str, ...]) -> bool:
    """Whether the address in *text* is one of *trusted*, which are addresses and networks."""
    address = _address(text)
    return address is not None and any(address in network for network in _networks(trusted))


def _address(text: str) -> IPv4Address | IPv6Address | None:
    text = text.strip()
    if match := _WITH_PORT.fullmatch(text):
        text = match[1] or match[2]
    try:
        address = ip_address(text)
    except ValueError:
        return None
    # A socket that takes both kinds shows IPv4 peers as ::ffff:192.0.2.1.
    return getattr(address, "ipv4_mapped", None) or address
