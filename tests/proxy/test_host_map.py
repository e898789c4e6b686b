"""What Host headers mean, custom domains included, over a real directory of real records."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.core.model import Actor, User
from gateway.core.names import ActorName, NameKind
from gateway.proxy import host_map
from gateway.proxy.host_map import HostMap
from gateway.proxy.hosts import LiveView, Own, Standby, Unknown, parse_host
from gateway.state.directory import Directory
from gateway.state.ports import Records
from gateway.state.records import open_records

AT = datetime(2026, 1, 2, tzinfo=UTC)
BOB = User(id="BobId000000000001", username="bob", is_admin=False, created_at=AT)
HELLO = Actor(
    id="HelloId0000000001",
    user_id=BOB.id,
    name="hello",
    created_at=AT,
    modified_at=AT,
    standby_from_file={"isEnabled": True},
)
OTHER = replace(HELLO, id="OtherId0000000001", name="other")
ALIAS = ActorName(
    id="1",
    actor_id=HELLO.id,
    user_id=BOB.id,
    kind=NameKind.ALIAS,
    name="shop",
    challenge="c1",
    created_at=AT,
    verified_at=AT,
)
DOMAIN = replace(ALIAS, id="2", kind=NameKind.DOMAIN, name="shop.example", challenge="c2")
PENDING = replace(DOMAIN, id="3", name="later.example", challenge="c3", verified_at=None)
HELLO_ID = Standby("helloid0000000001")


@pytest.fixture
async def records(tmp_path: Path) -> AsyncIterator[Records]:
    async with open_records(f"sqlite+aiosqlite:///{tmp_path}/records.sqlite3") as opened:
        await opened.add_user(BOB)
        for actor in (HELLO, OTHER):
            await opened.add_actor(actor)
        for name in (ALIAS, DOMAIN, PENDING):
            await opened.add_name(name)
        yield opened


@pytest.fixture
async def directory(records: Records) -> Directory:
    made = Directory(records)
    await made.load()
    return made


@pytest.fixture
def hosts(directory: Directory) -> HostMap:
    return HostMap("greenroom.test", directory)


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        pytest.param(b"bob--hello.greenroom.test", Standby("bob--hello"), id="an Actor by its name"),
        pytest.param(b"shop.greenroom.test", Standby("shop"), id="an alias"),
        pytest.param(b"SHOP.greenroom.test.:80", Standby("shop"), id="an alias, spelled otherwise"),
        pytest.param(b"nobody.greenroom.test", Standby("nobody"), id="a label that nobody has"),
        pytest.param(b"k3.runs.greenroom.test", LiveView("k3"), id="a live view"),
        pytest.param(b"api.greenroom.test", Own(), id="the API"),
        pytest.param(b"shop.example", HELLO_ID, id="a custom domain"),
        pytest.param(b"shop.example:8010", HELLO_ID, id="with a port"),
        pytest.param(b"Shop.EXAMPLE.", HELLO_ID, id="in capitals, with a dot at the end"),
        pytest.param(b"a.shop.example", Unknown(), id="below a custom domain"),
        pytest.param(b"later.example", Own(claimed="later.example"), id="a domain that is not verified"),
        pytest.param(b"LATER.example:1", Own(claimed="later.example"), id="the same, spelled otherwise"),
        pytest.param(b"shop", Unknown(), id="an alias without its domain"),
        pytest.param(b"shop.example, x", Unknown(), id="a list"),
        pytest.param(b"bob@shop.example", Unknown(), id="user info"),
        pytest.param(b"shop.example\xe9", Unknown(), id="not ASCII"),
        pytest.param(b"", Unknown(), id="empty"),
    ],
)
def test_look(hosts: HostMap, host: bytes, expected: object) -> None:
    """Each host means what it should, the first time and again."""
    assert [hosts.look(host), hosts.look(host)] == [expected, expected]


def test_a_label_is_kept_once(directory: Directory, hosts: HostMap) -> None:
    """However many headers name it, and in the directory: there may be ten thousand."""
    plain, spelled = hosts.look(b"bob--hello.greenroom.test"), hosts.look(b"Bob--Hello.greenroom.test:80")
    assert isinstance(plain, Standby)
    assert isinstance(spelled, Standby)
    assert plain.label is spelled.label is directory.own_label("bob--hello")


@given(host=st.binary(max_size=60))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_comes(hosts: HostMap, host: bytes) -> None:
    """It never raises, and says the same as without a memory."""
    assert hosts.look(host) == hosts.look(host) == parse_host(host, "greenroom.test")


async def test_a_change_holds_at_once(records: Records, directory: Directory, hosts: HostMap) -> None:
    """A domain that is verified, moved to another Actor or given up means the right one with the next look."""
    assert hosts.look(b"later.example") == Own(claimed="later.example")
    await records.verify_name(PENDING.id, AT)
    await directory.renew(HELLO.id)
    assert hosts.look(b"later.example") == HELLO_ID
    await records.delete_name(PENDING.id)
    await records.add_name(replace(PENDING, actor_id=OTHER.id, verified_at=AT))
    await directory.renew(OTHER.id)
    await directory.renew(HELLO.id)
    assert hosts.look(b"later.example") == Standby("otherid0000000001")
    await records.delete_name(PENDING.id)
    await directory.renew(OTHER.id)
    assert hosts.look(b"later.example") == Unknown()


async def test_names_of_a_deleted_actor(records: Records, directory: Directory, hosts: HostMap) -> None:
    """They mean nothing any more, also those that were looked for a moment before."""
    assert hosts.look(b"shop.example") == HELLO_ID
    await records.delete_actor(HELLO.id)
    await directory.renew(HELLO.id)
    assert hosts.look(b"shop.example") == hosts.look(b"later.example") == Unknown()
    assert directory.target("shop") is None


def test_strangers_push_nothing_out(hosts: HostMap, monkeypatch: pytest.MonkeyPatch) -> None:
    """What exists is remembered; hosts that anybody can invent are not, and cost nobody else his place."""
    monkeypatch.setattr(host_map, "_MAX_REMEMBERED", 3)
    known = hosts.look(b"shop.example")
    for number in range(10):
        hosts.look(b"x%d.example" % number)
        hosts.look(b"x%d.greenroom.test" % number)
        hosts.look(b"later.example:%d" % number)
    assert hosts.look(b"shop.example") is known


def test_its_memory_has_a_bound(hosts: HostMap, monkeypatch: pytest.MonkeyPatch) -> None:
    """It begins anew when it is full."""
    monkeypatch.setattr(host_map, "_MAX_REMEMBERED", 3)
    for number in range(20):
        assert hosts.look(b"shop.example:%d" % number) == HELLO_ID
    assert len(hosts._seen) <= 3
