"""Aliases and custom domains by the API: who may have which name, and what proves it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import quote

import pytest
from local_dns import LocalDns, serving_dns

from gateway.core.names import MAX_NAMES_PER_ACTOR
from gateway.name_proofs import NameProofs


def names_of(actor: Any) -> str:
    return f"/greenroom/actors/{actor['id']}/names"


@pytest.fixture
async def hello(bob: Any) -> Any:
    """An Actor of bob's, who is an administrator."""
    return await bob.post("/actors", json={"name": "hello"})


@pytest.fixture
async def shop(eve: Any) -> Any:
    """An Actor of eve's, who is none."""
    return await eve.post("/actors", json={"name": "shop"})


@pytest.fixture
async def dns(api: Any, unused_tcp_port: int) -> AsyncIterator[LocalDns]:
    """A DNS server that the API asks; nobody listens where proofs are looked for by HTTP."""
    async with serving_dns() as served:
        given = {"dns_servers": (served.address,), "name_check_port": unused_tcp_port}
        proofs = NameProofs(api.services.settings.model_copy(update=given))
        object.__setattr__(api.services, "name_proofs", proofs)
        yield served


def prove(dns: LocalDns, claimed: Any) -> None:
    """Set the TXT record that *claimed*, as the API shows it, asks for."""
    record = next(proof for proof in claimed["proofs"] if proof["kind"] == "dns")
    dns.records.setdefault((record["name"], record["type"]), []).append(f'"{record["value"]}"')


async def test_an_alias(api: Any, bob: Any, hello: Any) -> None:
    """Routes at once at this gateway, is listed, shown with the Actor, and gone when it is removed."""
    added = await bob.post(names_of(hello), json={"name": "Front-Door"})
    assert added == {
        "name": "front-door",
        "unicodeName": "front-door",
        "kind": "alias",
        "status": "verified",
        "url": "http://front-door.localhost:8010",
        "createdAt": "2026-03-04T05:06:07.890Z",
        "verifiedAt": "2026-03-04T05:06:07.890Z",
        "whatToDo": "Nothing: requests to front-door.localhost reach the Actor.",
    }
    target = api.services.directory.target("front-door")
    assert target is not None
    assert target.actor_id == hello["id"]
    listed = await bob.get(names_of(hello))
    assert (listed["items"], listed["total"]) == ([added], 1)
    shown = (await bob.get(f"/actors/{hello['id']}"))["names"]
    assert shown == [{key: value for key, value in added.items() if key != "whatToDo"}]
    assert await bob.post(f"{names_of(hello)}/front-door/verify", 200) == added
    await bob.delete(f"{names_of(hello)}/FRONT-DOOR.localhost")
    assert api.services.directory.target("front-door") is None
    assert (await bob.get(names_of(hello)))["items"] == []
    assert "names" not in await bob.get(f"/actors/{hello['id']}")
    await bob.delete(f"{names_of(hello)}/front-door", 404)


async def test_a_custom_domain(api: Any, bob: Any, hello: Any, dns: LocalDns) -> None:
    """Pending until its proof is found: told what to do, nowhere routed, told what was found; then it routes."""
    claimed = await bob.post(names_of(hello), json={"name": "B\u00fccher.Test."})
    assert (claimed["name"], claimed["unicodeName"]) == ("xn--bcher-kva.test", "b\u00fccher.test")
    assert (claimed["kind"], claimed["status"], claimed["verifiedAt"]) == ("domain", "pending", None)
    txt, http = claimed["proofs"]
    assert txt["name"] == "_greenroom.xn--bcher-kva.test"
    assert http["url"].endswith("/.well-known/greenroom-verification/" + txt["value"].rpartition("=")[2])
    assert http["body"] == txt["value"]
    assert all(word in claimed["whatToDo"] for word in (txt["name"], txt["value"], http["url"], "CNAME"))
    directory = api.services.directory
    assert directory.label_of_domain("xn--bcher-kva.test") is None

    one = f"{names_of(hello)}/{quote(claimed['unicodeName'])}"
    error = await bob.post(f"{one}/verify", 409)
    assert error["type"] == "name-not-verified"
    assert len(error["data"]["found"]) == 2
    assert txt["value"] in error["message"]
    assert directory.label_of_domain("xn--bcher-kva.test") is None

    prove(dns, claimed)
    api.clock.pass_by(seconds=1)
    verified = await bob.post(f"{one}/verify", 200)
    assert (verified["status"], verified["verifiedAt"]) == ("verified", "2026-03-04T05:06:08.890Z")
    assert directory.label_of_domain("xn--bcher-kva.test") == hello["id"].lower()
    await bob.delete(one)
    assert directory.label_of_domain("xn--bcher-kva.test") is None


async def test_verified_once_it_stays(api: Any, bob: Any, hello: Any, dns: LocalDns) -> None:
    """A check that finds nothing tells so and takes nothing away; it looks in DNS alone, not at the Actor."""
    claimed = await bob.post(names_of(hello), json={"name": "shop.test"})
    prove(dns, claimed)
    await bob.post(f"{names_of(hello)}/shop.test/verify", 200)
    await bob.post(f"{names_of(hello)}/shop.test/verify", 200)
    dns.records.clear()
    error = await bob.post(f"{names_of(hello)}/shop.test/verify", 409)
    assert len(error["data"]["found"]) == 1
    assert "stays so" in error["message"]
    assert api.services.directory.label_of_domain("shop.test") == hello["id"].lower()
    assert {name for name, _ in dns.asked} == {"_greenroom.shop.test"}


async def test_each_claim_has_its_own_challenge(bob: Any, eve: Any, hello: Any, shop: Any, dns: LocalDns) -> None:
    """Several may claim a domain; the proof of one proves nothing for another, and who proves it first has it."""
    bobs = await bob.post(names_of(hello), json={"name": "shop.test"})
    eves = await eve.post(names_of(shop), json={"name": "shop.test"})
    assert bobs["proofs"] != eves["proofs"]
    prove(dns, bobs)
    assert (await eve.post(f"{names_of(shop)}/shop.test/verify", 409))["type"] == "name-not-verified"
    await bob.post(f"{names_of(hello)}/shop.test/verify", 200)
    prove(dns, eves)
    taken = await eve.post(f"{names_of(shop)}/shop.test/verify", 409)
    assert (taken["type"], taken["message"]) == ("name-not-unique", "The name shop.test is taken.")
    await bob.delete(f"{names_of(hello)}/shop.test")
    await eve.post(f"{names_of(shop)}/shop.test/verify", 200)


async def test_where_claims_compete_only_dns_counts(bob: Any, eve: Any, hello: Any, shop: Any, dns: LocalDns) -> None:
    """That DNS points here shows nothing about with whom its owner agrees; two Actors of one user don't compete."""
    await bob.post(names_of(hello), json={"name": "shop.test"})
    other = await bob.post("/actors", json={"name": "other"})
    await bob.post(names_of(other), json={"name": "shop.test"})
    assert len((await bob.post(f"{names_of(hello)}/shop.test/verify", 409))["data"]["found"]) == 2
    await eve.post(names_of(shop), json={"name": "shop.test"})
    error = await bob.post(f"{names_of(hello)}/shop.test/verify", 409)
    assert len(error["data"]["found"]) == 1
    assert "only the TXT record counts" in error["message"]


async def test_two_that_are_proven_at_once(api: Any, bob: Any, eve: Any, hello: Any, shop: Any, dns: LocalDns) -> None:
    """One has it, the other hears that it is taken."""
    for caller, actor in ((bob, hello), (eve, shop)):
        prove(dns, await caller.post(names_of(actor), json={"name": "shop.test"}))
    answers = await asyncio.gather(
        *(caller.http.post(f"/v2{names_of(actor)}/shop.test/verify") for caller, actor in ((bob, hello), (eve, shop)))
    )
    assert sorted(answer.status_code for answer in answers) == [200, 409]
    winner = hello if answers[0].status_code == 200 else shop
    assert api.services.directory.label_of_domain("shop.test") == winner["id"].lower()


async def test_what_is_taken(api: Any, bob: Any, eve: Any, hello: Any, shop: Any) -> None:
    """Strangers hear only that; the owner and an administrator hear which Actor has it."""
    await eve.post(names_of(shop), json={"name": "front"})
    second = await eve.post("/actors", json={"name": "second"})
    own = await eve.post(names_of(second), 409, json={"name": "front"})
    assert own["type"] == "name-not-unique"
    assert own["data"] == {"actorId": shop["id"]}
    administrators = await bob.post(names_of(hello), 409, json={"name": "front"})
    assert administrators["data"] == {"actorId": shop["id"]}
    await bob.post(names_of(hello), json={"name": "door"})
    strangers = await eve.post(names_of(shop), 409, json={"name": "door.localhost"})
    assert strangers == {"type": "name-not-unique", "message": "The name door is taken."}


async def test_adding_again(bob: Any, hello: Any) -> None:
    """What the Actor has is answered as it is: a call may be repeated; the challenge stays."""
    first = await bob.post(names_of(hello), json={"name": "shop.test"})
    assert await bob.post(names_of(hello), 200, json={"name": "SHOP.test"}) == first
    assert (await bob.get(names_of(hello)))["total"] == 1


async def test_names_are_free_when_their_actor_is_gone(api: Any, bob: Any, eve: Any, hello: Any, shop: Any) -> None:
    """At once."""
    await bob.post(names_of(hello), json={"name": "front"})
    await bob.delete(f"/actors/{hello['id']}")
    assert api.services.directory.target("front") is None
    await eve.post(names_of(shop), json={"name": "front"})


async def test_names_stay_when_the_actor_is_renamed(api: Any, bob: Any, hello: Any) -> None:
    """They belong to the Actor, not to its name."""
    await bob.post(names_of(hello), json={"name": "front"})
    await bob.put(f"/actors/{hello['id']}", json={"name": "renamed"})
    assert api.services.directory.target("front").actor_id == hello["id"]
    assert api.services.directory.target("bob--hello") is None


@pytest.mark.parametrize(
    "body",
    [
        pytest.param({}, id="none"),
        pytest.param({"name": ""}, id="empty"),
        pytest.param({"name": 7}, id="a number"),
        pytest.param({"name": "a" * 1001}, id="endless"),
        pytest.param({"name": "api"}, id="reserved"),
        pytest.param({"name": "bob--hello"}, id="like a user's Actor"),
        pytest.param({"name": "abcdefghij1234567"}, id="like an id"),
        pytest.param({"name": "*.shop.test"}, id="a wildcard"),
        pytest.param({"name": "a.b.localhost"}, id="two labels below the domain"),
        pytest.param({"name": "192.0.2.1"}, id="an address"),
        pytest.param({"name": "http://shop.test"}, id="a URL"),
    ],
)
async def test_what_is_no_name(bob: Any, hello: Any, body: dict[str, Any]) -> None:
    """Refused with the field's name, and nothing is stored."""
    error = await bob.post(names_of(hello), 400, json=body)
    assert (error["type"], error["data"]["field"]) == ("invalid-request", "name")
    assert (await bob.get(names_of(hello)))["total"] == 0


async def test_an_actor_has_so_many_names_at_most(bob: Any, hello: Any) -> None:
    """Also those count that are not verified; one that is removed makes room."""
    for number in range(MAX_NAMES_PER_ACTOR):
        await bob.post(names_of(hello), json={"name": f"n{number}" + (".test" if number % 2 else "")})
    error = await bob.post(names_of(hello), 400, json={"name": "more"})
    assert str(MAX_NAMES_PER_ACTOR) in error["message"]
    await bob.delete(f"{names_of(hello)}/n0")
    await bob.post(names_of(hello), json={"name": "more"})


async def test_who_may(api: Any, bob: Any, eve: Any, shop: Any) -> None:
    """The owner and administrators; others don't learn of pending claims, nor may they change a public Actor's."""
    public = await bob.post("/actors", json={"name": "public", "isPublic": True})
    await bob.post(names_of(public), json={"name": "open"})
    api.clock.pass_by(seconds=1)
    await bob.post(names_of(public), json={"name": "later.test"})
    assert [name["name"] for name in (await eve.get(f"/actors/{public['id']}"))["names"]] == ["open"]
    assert [name["name"] for name in (await bob.get(f"/actors/{public['id']}"))["names"]] == ["open", "later.test"]
    for method, path in (
        ("GET", ""),
        ("POST", ""),
        ("POST", "/open/verify"),
        ("DELETE", "/open"),
    ):
        error = await eve.ask(method, names_of(public) + path, 403, json={"name": "x"})
        assert error["type"] == "insufficient-permissions"

    added = await bob.post(f"/greenroom/actors/eve~{shop['name']}/names", json={"name": "front"})
    assert [name["name"] for name in (await eve.get(names_of(shop)))["items"]] == [added["name"]]
    stored = await api.services.state.records.list_names(shop["id"])
    assert [name.user_id for name in stored] == [api.eve.user.id]
    await bob.delete(f"{names_of(shop)}/front")
    await bob.get("/greenroom/actors/AAAAAAAAAAAAAAAAA/names", 404)


@pytest.mark.parametrize(("scope", "may_write"), [("actors:read", False), ("actors:write", True)])
async def test_scopes(api: Any, hello: Any, scope: str, may_write: bool) -> None:
    """Reading and writing, as for Actors."""
    caller = await api.caller(api.bob.user, frozenset({scope}))
    await caller.get(names_of(hello))
    await caller.post(names_of(hello), 201 if may_write else 403, json={"name": "front"})
    await caller.delete(f"{names_of(hello)}/front", 204 if may_write else 403)


async def test_a_name_that_is_allowed_no_more(api: Any, bob: Any, hello: Any) -> None:
    """Where Greenroom's domain has changed since, it can still be removed."""
    await bob.post(names_of(hello), json={"name": "a.b.test"})
    settings = api.services.settings.model_copy(update={"domain": "test"})
    object.__setattr__(api.services, "settings", settings)
    await bob.post(names_of(hello), 400, json={"name": "c.d.test"})
    await bob.delete(f"{names_of(hello)}/a.b.test")
