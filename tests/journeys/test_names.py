"""Aliases and custom domains on a whole server: what is added is served, by either way of proxying, and no more."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from journeys.greenroom import TOKEN, Greenroom, error_of
from local_dns import LocalDns, serving_dns

pytestmark = pytest.mark.slow

BEARER = {"Authorization": f"Bearer {TOKEN}"}


@pytest.fixture
async def dns() -> AsyncIterator[LocalDns]:
    """A DNS server of this test's, for which every name that it knows is this machine's."""
    async with serving_dns() as served:
        yield served


@pytest.fixture(params=["splice", "asgi"])
async def greenroom(
    request: pytest.FixtureRequest, tmp_path: Path, dns: LocalDns, unused_tcp_port: int
) -> AsyncIterator[Greenroom]:
    """A server that looks for proofs at its own port, as at port 80 of a machine that serves the public."""
    settings = {
        "proxy_protocol": request.param,
        "dns_servers": dns.address,
        "name_check_port": unused_tcp_port,
        "allow_private_names": "true",
    }
    async with Greenroom(tmp_path / "data", settings=settings, port=unused_tcp_port) as server:
        yield server


async def test_an_alias_is_served(greenroom: Greenroom) -> None:
    """At once after it was added by the command line, under the same rules as any standby host; then no more."""
    actor = await greenroom.probe("hello", {"isEnabled": True})
    host = f"front.localhost:{greenroom.port}"
    unknown = await greenroom.at(host, headers=BEARER)
    assert error_of(unknown) == (404, "record-not-found")

    printed = await greenroom.command("names", "hello", "add", "Front")
    assert printed == f"http://{host}  alias  verified\n"
    served = await greenroom.at(host.upper(), "/count", headers=BEARER)
    assert served.status_code == 200
    assert (await greenroom.at(host, "/count")).status_code == 401
    by_path = await greenroom.at(f"127.0.0.1:{greenroom.port}", "/standby/front/count", headers=BEARER)
    assert by_path.status_code == 200
    by_name = await greenroom.call("hello", "/count")
    assert by_name.json()["runId"] == served.json()["runId"], "one pool, whatever the host"

    await greenroom.data_of("PUT", f"/actors/{actor['id']}", json={"name": "renamed"})
    assert (await greenroom.at(host, "/count", headers=BEARER)).status_code == 200
    await greenroom.command("names", "renamed", "remove", "front")
    gone = await greenroom.at(host, headers=BEARER)
    assert gone.json() == unknown.json()


async def test_a_custom_domain_is_served_once_it_points_here(greenroom: Greenroom, dns: LocalDns) -> None:
    """Greenroom gives the proof of a claim by itself; before that and after its end the name is nobody's."""
    actor = await greenroom.probe("hello", {"isEnabled": True})
    path = f"/greenroom/actors/{actor['id']}/names"
    claimed = await greenroom.data_of("POST", path, json={"name": "Shop.Test"})
    host = f"shop.test:{greenroom.port}"
    proof = next(proof for proof in claimed["proofs"] if proof["kind"] == "http")
    assert proof["url"].startswith(f"http://{host}/")
    proof_path = proof["url"].removeprefix(f"http://{host}")

    refused = await greenroom.api("POST", f"{path}/shop.test/verify")
    assert error_of(refused) == (409, "name-not-verified")
    for at, asked in ((host, "/"), (host, f"{proof_path}0"), (f"other.test:{greenroom.port}", proof_path)):
        assert error_of(await greenroom.at(at, asked, headers=BEARER)) == (404, "record-not-found"), (at, asked)
    assert error_of(await greenroom.at(host, "/v2/users/me", headers=BEARER)) == (404, "record-not-found")
    answered = await greenroom.at(host, proof_path)
    assert (answered.status_code, answered.text) == (200, proof["body"])

    dns.records["shop.test", "A"] = ["127.0.0.1"]
    printed = await greenroom.command("names", "hello", "verify", "shop.test")
    assert printed == f"http://{host}  domain  verified\n"
    served = await greenroom.at(host, "/count", headers=BEARER)
    assert served.status_code == 200
    assert (await greenroom.at("SHOP.test.", "/count", headers=BEARER)).json()["runId"] == served.json()["runId"]
    assert (await greenroom.at(host, "/count")).status_code == 401
    headers = (await greenroom.at(host, "/seen", headers=BEARER)).json()["headers"]
    seen = {name.lower(): value for name, value in headers}
    assert seen["host"] == host, "the Actor sees the host that it was asked for"
    assert "authorization" not in seen

    assert (await greenroom.api("DELETE", f"/actors/{actor['id']}")).status_code == 204
    assert error_of(await greenroom.at(host, "/count", headers=BEARER)) == (404, "record-not-found")


@pytest.mark.slow
async def test_names_outlive_a_restart_and_a_reload(greenroom: Greenroom) -> None:
    """They are in the records: whichever process serves knows them."""
    await greenroom.probe("hello", {"isEnabled": True})
    await greenroom.command("names", "hello", "add", "front")
    await greenroom.command("reload")
    host = f"front.localhost:{greenroom.port}"
    assert (await greenroom.at(host, "/count", headers=BEARER)).status_code == 200
    await greenroom.client.aclose()
    await greenroom.stop()
    greenroom.start()
    await greenroom.wait_until_ready()
    assert (await greenroom.at(host, "/count", headers=BEARER)).status_code == 200
