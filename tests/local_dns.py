"""A DNS server on loopback that knows what a test tells it, and can be silent, refuse or talk nonsense."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import cast

import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset


@dataclass
class LocalDns:
    """*records*: (name, type) → values as zone files have them. *mood*: well, silent, refuses or nonsense."""

    records: dict[tuple[str, str], list[str]] = field(default_factory=dict)
    mood: str = "well"
    address: str = ""
    asked: list[tuple[str, str]] = field(default_factory=list)

    def answer_to(self, query: bytes) -> bytes | None:
        asked = dns.message.from_wire(query)
        question = asked.question[0]
        name, kind = question.name.to_text(omit_final_dot=True).lower(), dns.rdatatype.to_text(question.rdtype)
        self.asked.append((name, kind))
        if self.mood == "silent":
            return None
        if self.mood == "nonsense":
            return b"\xff" * 12
        answer = dns.message.make_response(asked, recursion_available=True)
        if self.mood == "refuses":
            answer.set_rcode(dns.rcode.SERVFAIL)
            return answer.to_wire()
        if not any(known == name for known, _ in self.records):
            answer.set_rcode(dns.rcode.NXDOMAIN)
        alias = self.records.get((name, "CNAME"))
        if alias:
            answer.answer.append(dns.rrset.from_text(question.name, 60, "IN", "CNAME", f"{alias[0]}."))
            name = alias[0]
        values = self.records.get((name, kind))
        if values:
            answer.answer.append(dns.rrset.from_text(f"{name}.", 60, "IN", kind, *values))
        return answer.to_wire()


class _Udp(asyncio.DatagramProtocol):
    def __init__(self, served: LocalDns) -> None:
        self._served = served

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        answer = self._served.answer_to(data)
        if answer is not None:
            self._transport.sendto(answer, addr)


@asynccontextmanager
async def serving_dns() -> AsyncIterator[LocalDns]:
    """A server on a free port of 127.0.0.1, until it is left; ``address`` is for the setting ``dns_servers``."""
    served = LocalDns()
    transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
        lambda: _Udp(served), local_addr=("127.0.0.1", 0)
    )
    served.address = "{}:{}".format(*transport.get_extra_info("sockname"))
    try:
        yield served
    finally:
        transport.close()
