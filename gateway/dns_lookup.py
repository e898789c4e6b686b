"""Asks DNS itself, whatever else this machine resolves names by; each look-up is bounded in time."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import TypeVar

import dns.asyncresolver
import dns.exception
import dns.nameserver
import dns.rdtypes.txtbase
import dns.resolver

from gateway.dns_servers import dns_server

T = TypeVar("T")

_SECS = 5.0


class NotInDns(Exception):
    """There is nothing of the kind, or nobody says; the text is for people."""


async def texts_of(name: str, servers: tuple[str, ...]) -> list[bytes]:
    """The TXT records of *name*, asked of *servers* (none: those of this machine). Raises NotInDns."""
    answer = await _told(_resolver(servers).resolve(f"{name}.", "TXT", search=False))
    # One record may be cut into several texts of 255 bytes.
    return [b"".join(record.strings) for record in answer if isinstance(record, dns.rdtypes.txtbase.TXTBase)]


async def addresses_of(name: str, servers: tuple[str, ...]) -> list[str]:
    """The addresses of *name*, at least one. Raises NotInDns."""
    found = list((await _told(_resolver(servers).resolve_name(f"{name}.", search=False))).addresses())
    if not found:
        raise NotInDns("DNS has none")
    return found


def _resolver(servers: tuple[str, ...]) -> dns.asyncresolver.Resolver:
    named = [dns.nameserver.Do53Nameserver(*dns_server(text)) for text in servers]
    try:
        resolver = dns.asyncresolver.Resolver(configure=not named)
    except dns.resolver.NoResolverConfiguration as error:
        raise NotInDns("this machine names no DNS server, but the setting dns_servers can") from error
    if named:
        resolver.nameservers = named
    resolver.lifetime = _SECS
    return resolver


async def _told(look: Awaitable[T]) -> T:
    try:
        return await look
    except dns.exception.DNSException as error:
        raise NotInDns(_words(error)) from error


def _words(error: dns.exception.DNSException) -> str:
    match error:
        case dns.resolver.NXDOMAIN() | dns.resolver.NoAnswer():
            return "DNS has none (a DNS server may believe that for some minutes after there is one)"
        case dns.exception.Timeout():
            return f"no DNS server answers within {_SECS:g} s"
        case dns.resolver.NoNameservers():
            return "the DNS servers refuse to answer or are in error"
        case _:
            return f"DNS can't tell ({type(error).__name__})"
