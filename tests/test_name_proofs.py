"""The proofs of custom domains, looked for at a real DNS server and a real web server on loopback."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from journeys.greenroom import eventually
from local_dns import LocalDns, serving_dns

from gateway import dns_lookup, name_proofs
from gateway.core.errors import TooManyNameChecks
from gateway.core.names import ActorName, NameKind
from gateway.name_proofs import NameProofs
from gateway.settings import Settings

HOST = "shop.test"
NAME = ActorName(
    id="1",
    actor_id="a",
    user_id="u",
    kind=NameKind.DOMAIN,
    name=HOST,
    challenge="c0ffee",
    created_at=datetime(2026, 1, 2, tzinfo=UTC),
)
TXT = (NAME.proof_record, "TXT")
ADDRESS = (HOST, "A")


@dataclass
class Web:
    """Answers each request with the next of *answers*, raw bytes (the last one for ever), and remembers the heads."""

    port: int = 0
    answers: list[bytes] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            self.asked.append((await reader.readuntil(b"\r\n\r\n")).decode())
            answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
            writer.write(answer)
            if not answer:  # one that says nothing, until the other side has enough of it
                await reader.read()
            await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


def reply(body: str, status: str = "200 OK", **headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", "Connection: close"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", body]).encode()


@pytest.fixture
async def web() -> AsyncIterator[Web]:
    """A web server at the port where proofs are looked for; at first it has the proof."""
    served = Web(answers=[reply(NAME.proof)])
    async with await asyncio.start_server(served.serve, "127.0.0.1", 0) as server:
        served.port = server.sockets[0].getsockname()[1]
        yield served


@pytest.fixture
async def dns() -> AsyncIterator[LocalDns]:
    """A DNS server that knows where the web server is, and of no proof."""
    async with serving_dns() as served:
        served.records[ADDRESS] = ["127.0.0.1"]
        yield served


Make = Callable[..., NameProofs]


@pytest.fixture
def proofs(tmp_path: Path, dns: LocalDns, web: Web) -> Make:
    """Makes the checks, with other settings where they are given."""

    def make(**changes: Any) -> NameProofs:
        given = {"dns_servers": (dns.address,), "name_check_port": web.port, "allow_private_names": True} | changes
        return NameProofs(Settings(data=tmp_path, **given))

    return make


@pytest.mark.parametrize(
    "values",
    [
        pytest.param([f'"{NAME.proof}"'], id="alone"),
        pytest.param(['"v=spf1 -all"', f'"{NAME.proof}"'], id="among others"),
        pytest.param(['"greenroom-verification=" "c0ffee"'], id="cut into several texts"),
    ],
)
async def test_a_txt_record(proofs: Make, dns: LocalDns, web: Web, values: list[str]) -> None:
    """It suffices, and nobody is asked by HTTP."""
    dns.records[TXT] = values
    assert await proofs().missing(NAME, by_http=True) == []
    assert web.asked == []


async def test_a_txt_record_by_cname(proofs: Make, dns: LocalDns) -> None:
    """The record may stand elsewhere, where the owner of the name lets it."""
    dns.records |= {(NAME.proof_record, "CNAME"): ["proofs.test"], ("proofs.test", "TXT"): [f'"{NAME.proof}"']}
    assert await proofs().missing(NAME, by_http=False) == []


@pytest.mark.parametrize(
    ("values", "mood", "told"),
    [
        pytest.param(None, "well", "DNS has none", id="no such name"),
        pytest.param([], "well", "DNS has none", id="no such record"),
        pytest.param(['"greenroom-verification=c0ffe"'], "well", "something else", id="another challenge"),
        pytest.param([f'"x{NAME.proof}"'], "well", "something else", id="more than the proof"),
        pytest.param([f'"{NAME.proof.upper()}"'], "well", "something else", id="in capitals"),
        pytest.param([f'"{NAME.proof}"'], "refuses", "in error", id="a server in error"),
        pytest.param([f'"{NAME.proof}"'], "silent", "no DNS server answers", id="a silent server"),
        pytest.param([f'"{NAME.proof}"'], "nonsense", "no DNS server answers", id="a server that talks nonsense"),
    ],
)
async def test_no_txt_record(
    proofs: Make,
    dns: LocalDns,
    monkeypatch: pytest.MonkeyPatch,
    values: list[str] | None,
    mood: str,
    told: str,
) -> None:
    """Told with the record's name and what there is instead; with *by_http* False nothing else is looked at."""
    monkeypatch.setattr(dns_lookup, "_SECS", 0.3)
    if values is not None:
        dns.records[TXT] = values
    dns.mood = mood
    (missing,) = await proofs().missing(NAME, by_http=False)
    assert "_greenroom.shop.test" in missing
    assert told in missing
    assert {name for name, _ in dns.asked} == {"_greenroom.shop.test"}


async def test_by_http(proofs: Make, web: Web) -> None:
    """Asked of the address that DNS has, under the name itself and without anything of ours in it."""
    assert await proofs().missing(NAME, by_http=True) == []
    (head,) = web.asked
    assert head.startswith("GET /.well-known/greenroom-verification/c0ffee HTTP/1.1\r\n")
    assert f"\r\nHost: shop.test:{web.port}\r\n" in head
    assert "authorization" not in head.lower()
    assert "cookie" not in head.lower()


async def test_by_http_with_white_space(proofs: Make, web: Web) -> None:
    """Files end with a line break."""
    web.answers = [reply(f"{NAME.proof}\r\n")]
    assert await proofs().missing(NAME, by_http=True) == []


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        pytest.param(reply("c0ffee"), "something else", id="an echo of the path"),
        pytest.param(reply(f"<p>{NAME.proof}</p>"), "something else", id="more than the proof"),
        pytest.param(reply(""), "something else", id="nothing"),
        pytest.param(reply(NAME.proof, "404 Not Found"), "answers 404", id="404"),
        pytest.param(reply(NAME.proof, "203 Fine"), "answers 203", id="not quite 200"),
        pytest.param(reply(NAME.proof + " " * 2000), "something else", id="too much"),
        pytest.param(reply(NAME.proof)[:-3], "can't be read", id="cut off"),
        pytest.param(b"SSH-2.0-x\r\n", "can't be read", id="not HTTP"),
        pytest.param(b"", "no answer within", id="silence"),
        pytest.param(reply("", "302 Found"), "answers 302", id="a redirect to nowhere"),
        pytest.param(reply("", "302 Found", Location="http://other.test/"), "another place", id="to another name"),
        pytest.param(reply("", "302 Found", Location="http://127.0.0.1/"), "another place", id="to an address"),
        pytest.param(reply("", "302 Found", Location=f"http://{HOST}:22/"), "another place", id="to another port"),
        pytest.param(reply("", "302 Found", Location=f"http://a@{HOST}/"), "another place", id="with user info"),
        pytest.param(reply("", "302 Found", Location=f"ftp://{HOST}/"), "another place", id="to another protocol"),
        pytest.param(reply("", "302 Found", Location=f"http://{HOST}:x/"), "can't be read", id="to no URL"),
        pytest.param(reply("", "302 Found", Location="/again"), "more than 3 times", id="in a circle"),
    ],
)
async def test_not_by_http(proofs: Make, web: Web, monkeypatch: pytest.MonkeyPatch, answer: bytes, told: str) -> None:
    """Told with the URL and what came instead, after what DNS has."""
    monkeypatch.setattr(name_proofs, "_HTTP_SECS", 0.5)
    web.answers = [answer]
    checks = proofs()
    _, missing = await checks.missing(NAME, by_http=True)
    assert checks.url(NAME) in missing
    assert told in missing
    assert len(web.asked) <= 4


async def test_a_redirect_within_the_name(proofs: Make, web: Web) -> None:
    """Is followed, to the address that was looked at before."""
    web.answers = [reply("", "301 Moved", Location=f"http://{HOST}:{web.port}/elsewhere"), reply(NAME.proof)]
    assert await proofs().missing(NAME, by_http=True) == []
    assert web.asked[1].startswith("GET /elsewhere ")


@pytest.mark.parametrize(
    "addresses",
    [
        pytest.param({"A": ["127.0.0.1"]}, id="this machine"),
        pytest.param({"A": ["10.0.0.5"]}, id="a private network"),
        pytest.param({"A": ["169.254.169.254"]}, id="link-local"),
        pytest.param({"A": ["192.0.2.9"], "AAAA": ["::1"]}, id="one among several"),
        pytest.param({"AAAA": ["::ffff:10.0.0.1"]}, id="within IPv6"),
    ],
)
async def test_private_addresses(proofs: Make, dns: LocalDns, web: Web, addresses: dict[str, list[str]]) -> None:
    """Nobody there is asked unless the administrator allows it."""
    del dns.records[ADDRESS]
    dns.records |= {(HOST, kind): values for kind, values in addresses.items()}
    _, missing = await proofs(allow_private_names=False).missing(NAME, by_http=True)
    assert "allow_private_names" in missing
    assert web.asked == []


async def test_no_address(proofs: Make, dns: LocalDns) -> None:
    """Told as such."""
    del dns.records[ADDRESS]
    _, missing = await proofs().missing(NAME, by_http=True)
    assert "the address of shop.test: DNS has none" in missing


async def test_nobody_listens(proofs: Make, dns: LocalDns, unused_tcp_port: int) -> None:
    """Told as such; a TXT record would have done."""
    checks = proofs(name_check_port=unused_tcp_port)
    assert "can't be read" in (await checks.missing(NAME, by_http=True))[1]
    dns.records[TXT] = [f'"{NAME.proof}"']
    assert await checks.missing(NAME, by_http=True) == []


async def test_checks_at_once_are_bounded(proofs: Make, dns: LocalDns, monkeypatch: pytest.MonkeyPatch) -> None:
    """One more than may be is refused, at once; when they have ended, checks are made again."""
    monkeypatch.setattr(dns_lookup, "_SECS", 1.0)
    dns.mood = "silent"
    checks = proofs()
    async with asyncio.TaskGroup() as group:
        under_way = [group.create_task(checks.missing(NAME, by_http=False)) for _ in range(name_proofs._AT_ONCE)]
        await eventually(lambda: len(dns.asked) >= len(under_way), what="that all of them ask")
        with pytest.raises(TooManyNameChecks):
            await checks.missing(NAME, by_http=False)
    assert all(task.result() for task in under_way)
    dns.mood = "well"
    assert len(await checks.missing(NAME, by_http=False)) == 1


async def test_the_usual_port_is_left_out(proofs: Make) -> None:
    """As people write URLs."""
    assert proofs(name_check_port=80).url(NAME) == f"http://shop.test{NAME.proof_path}"
