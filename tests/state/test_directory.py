"""Which host means which Actor, kept true against real records and signals."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from typing import Any, cast

import pytest
from state.known_actors import AT, BOB, HELLO, OTHER, THIRD, name, present, told

from gateway.core.lifecycle import RunStatus
from gateway.core.model import Build, Origin
from gateway.core.names import ActorName, NameKind
from gateway.core.standby import Generation
from gateway.state.directory import Directory
from gateway.state.ports import Changed, Records
from gateway.state.signals_memory import MemorySignals


@pytest.mark.parametrize(
    ("label", "is_known"),
    [
        pytest.param("bob-smith--hello", True, id="user and Actor, as DNS has them"),
        pytest.param("helloid0000000001", True, id="the Actor's id in lower case"),
        pytest.param("HelloId0000000001", False, id="labels are asked for in lower case"),
        pytest.param("bob-smith--other", False, id="no such Actor"),
        pytest.param("bob--hello", False, id="no such user"),
        pytest.param("", False, id="nothing"),
    ],
)
async def test_labels(directory: Directory, label: str, is_known: bool) -> None:
    """By name and by id."""
    assert (directory.target(label) is not None) is is_known


async def test_what_a_target_says(directory: Directory) -> None:
    """All that gateway and autoscaler need, the same by either label and listed once."""
    target = directory.target("bob-smith--hello")
    assert target is not None
    assert (target.actor_id, target.owner_id, target.owner_name) == (HELLO.id, BOB.id, "Bob.Smith")
    assert target.generation == Generation(build_id="b", memory_mbytes=1024)
    assert directory.target("helloid0000000001") is target
    assert directory.targets() == [target]
    assert await directory.actor(HELLO.id) == (HELLO, BOB)


@pytest.mark.parametrize(
    ("change", "is_warm"),
    [
        pytest.param({"standby_from_api": {"minRuns": 1}}, True, id="runs are kept warm"),
        pytest.param({"standby_from_api": {"minRuns": 0}}, False, id="none"),
        pytest.param({"standby_from_api": {"minRuns": 1, "isEnabled": False}}, False, id="standby is off"),
        pytest.param({"standby_from_api": {"minRuns": 1}, "tagged_builds": {}}, False, id="there is no build"),
    ],
)
async def test_who_is_kept_warm(records: Records, directory: Directory, change: dict[str, Any], is_warm: bool) -> None:
    """Asked for without a walk over all; it follows each change, and what is deleted is kept no more."""
    await records.add_actor(replace(OTHER, standby_from_api={"minRuns": 2}))
    await told(directory, OTHER)
    assert [target.actor_id for target in directory.warm_targets()] == [OTHER.id]
    hello = await records.replace_actor(replace(HELLO, **change))
    await told(directory, hello)
    expected = {OTHER.id, HELLO.id} if is_warm else {OTHER.id}
    assert {target.actor_id for target in directory.warm_targets()} == expected
    assert all(target in directory.targets() for target in directory.warm_targets())
    for actor in (OTHER, HELLO):
        await records.delete_actor(actor.id)
    await told(directory, OTHER)
    await directory.load()
    assert directory.warm_targets() == []


async def test_a_name_too_long_for_dns_leaves_the_id(records: Records, directory: Directory) -> None:
    """63 octets are all that a label has."""
    long = replace(OTHER, name="a" * 60)
    await records.add_actor(long)
    await told(directory, long)
    assert directory.target(f"bob-smith--{long.name}") is None
    assert name(directory, "otherid0000000001") == "other"


async def test_changes_are_taken_in(records: Records, directory: Directory) -> None:
    """A new Actor, a renamed one (the old label is free at once) and a deleted one."""
    await records.add_actor(OTHER)
    await told(directory, OTHER)
    assert name(directory, "bob-smith--other") == "other"
    renamed = await records.replace_actor(replace(OTHER, name="renamed"))
    await told(directory, renamed)
    assert name(directory, "bob-smith--other") is None
    assert name(directory, "bob-smith--renamed") == name(directory, "otherid0000000001") == "other"
    await records.delete_actor(OTHER.id)
    await told(directory, OTHER)
    assert [target.actor_id for target in directory.targets()] == [HELLO.id]
    assert await directory.actor(OTHER.id) is None
    await told(directory, OTHER)


@pytest.mark.parametrize("hello_first", [True, False], ids=["one first", "the other first"])
async def test_two_that_swap_names(records: Records, directory: Directory, hello_first: bool) -> None:
    """Each name means its present holder, in whichever order the changes are heard."""
    await records.add_actor(OTHER)
    await told(directory, OTHER)
    moved = await records.replace_actor(replace(HELLO, name="aside"))
    other = await records.replace_actor(replace(OTHER, name="hello"))
    hello = await records.replace_actor(replace(moved, name="other"))
    await told(directory, *((hello, other) if hello_first else (other, hello)))
    holders = {label: directory.target(f"bob-smith--{label}") for label in ("hello", "other", "aside")}
    assert {label: target and target.actor_id for label, target in holders.items()} == {
        "hello": OTHER.id,
        "other": HELLO.id,
        "aside": None,
    }


async def test_a_name_that_was_taken_over_and_given_up(records: Records, directory: Directory) -> None:
    """Its first holder's later end is no error."""
    await records.add_actor(OTHER)
    await told(directory, OTHER)
    moved = await records.replace_actor(replace(HELLO, name="aside"))
    other = await records.replace_actor(replace(OTHER, name="hello"))
    await told(directory, other)
    await told(directory, await records.replace_actor(replace(other, name="third")))
    await told(directory, moved)
    assert [name(directory, f"bob-smith--{label}") for label in ("hello", "aside", "third")] == [None, "Hello", "other"]


async def test_a_name_that_was_taken_over_and_comes_back(records: Records, directory: Directory) -> None:
    """It leads to its first holder again, also where nothing told of the time between."""
    await records.add_actor(OTHER)
    await told(directory, OTHER)
    hello = await records.replace_actor(replace(HELLO, name="aside"))
    other = await records.replace_actor(replace(OTHER, name="hello"))
    await told(directory, other)
    assert name(directory, "bob-smith--hello") == "other"
    await told(directory, await records.replace_actor(replace(other, name="third")))
    hello = await records.replace_actor(replace(hello, name="Hello"))
    await told(directory, hello)
    assert name(directory, "bob-smith--hello") == "Hello"


async def test_settings_that_no_longer_hold(
    records: Records, directory: Directory, caplog: pytest.LogCaptureFixture
) -> None:
    """The Actor has no host until they are mended, the log says why, and others are not troubled."""
    broken = await records.replace_actor(replace(HELLO, standby_from_api={"minRuns": -1}))
    await records.add_actor(OTHER)
    await directory.load()
    assert name(directory, "bob-smith--hello") is None
    assert name(directory, "bob-smith--other") == "other"
    assert "minRuns" in caplog.text
    mended = await records.replace_actor(replace(broken, standby_from_api={"minRuns": 1}))
    await told(directory, mended)
    assert name(directory, "bob-smith--hello") == "Hello"


async def test_reading_anew_forgets_what_is_gone(records: Records, directory: Directory) -> None:
    """Also where nothing told of it: a deleted Actor's host must not wake anything."""
    await records.add_actor(OTHER)
    await directory.load()
    await records.delete_actor(HELLO.id)
    await directory.load()
    assert [target.actor_id for target in directory.targets()] == [OTHER.id]
    assert directory.target("bob-smith--hello") is None


async def test_more_than_one_page(records: Records, directory: Directory, monkeypatch: pytest.MonkeyPatch) -> None:
    """All Actors are read, however many."""
    monkeypatch.setattr("gateway.state.directory._PAGE", 2)
    for number in range(5):
        await records.add_actor(replace(OTHER, id=f"NumberId{number:09d}", name=f"number-{number}"))
    await directory.load()
    assert len(directory.targets()) == 6


class Heard(MemorySignals):
    """Real signals that tell when the follower has taken in all that was sent before."""

    def __init__(self) -> None:
        super().__init__()
        self.waits = asyncio.Event()

    def watch_changes(self):  # type: ignore[no-untyped-def]
        return self._counted(super().watch_changes())

    @asynccontextmanager
    async def _counted(self, watched):  # type: ignore[no-untyped-def]
        async with watched as changes:
            yield self._each(changes)

    async def _each(self, changes):  # type: ignore[no-untyped-def]
        while True:
            self.waits.set()
            change = await anext(changes)
            self.waits.clear()
            yield change

    async def tell(self, kind: str, changed_id: str) -> None:
        self.waits.clear()
        await self.changed(Changed(kind=kind, id=changed_id))
        await self.waits.wait()


async def test_following(records: Records) -> None:
    """From the first moment on every change arrives; those of other kinds change nothing."""
    directory, signals = Directory(records), Heard()
    async with asyncio.timeout(20), asyncio.TaskGroup() as group:
        following = group.create_task(directory.follow(signals))
        await signals.waits.wait()
        assert name(directory, "bob-smith--hello") == "Hello"
        await records.add_actor(OTHER)
        await signals.tell("run", OTHER.id)
        assert name(directory, "bob-smith--other") is None
        await signals.tell("actor", OTHER.id)
        assert name(directory, "bob-smith--other") == "other"
        await records.add_actor(THIRD)
        await signals.tell("user", BOB.id)
        assert name(directory, "bob-smith--third") == "third"
        following.cancel()
        with suppress(asyncio.CancelledError):
            await following
    await signals.close()


async def test_a_build_named_by_its_number_is_found_although_no_tag_points_to_it(
    records: Records, directory: Directory
) -> None:
    """``actorStandby.build`` may pin a number; a build that failed doesn't count."""
    build = Build(
        id="b6",
        actor_id=HELLO.id,
        user_id=BOB.id,
        version_number="0.1",
        build_number="0.1.6",
        status=RunStatus.SUCCEEDED,
        started_at=AT,
        origin=Origin.CLI,
    )
    await records.add_build(build)
    await records.add_build(replace(build, id="b7", build_number="0.1.7", status=RunStatus.FAILED))
    for number, expected in (("0.1.6", Generation(build_id="b6", memory_mbytes=1024)), ("0.1.7", None)):
        await records.replace_actor(replace(await present(records), standby_from_api={"build": number}))
        await told(directory, HELLO)
        target = directory.target("bob-smith--hello")
        assert target is not None
        assert target.generation == expected


# Further names

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
DOMAIN = replace(ALIAS, id="2", kind=NameKind.DOMAIN, name="shop.test", challenge="c2")
PENDING = replace(DOMAIN, id="3", name="later.test", challenge="c3", verified_at=None)


@pytest.fixture
async def with_names(records: Records) -> Directory:
    """An alias, a custom domain and one that is not verified, all of one Actor; a second one without."""
    await records.add_actor(OTHER)
    for each in (ALIAS, DOMAIN, PENDING):
        await records.add_name(each)
    made = Directory(records)
    await made.load()
    return made


async def test_further_names(with_names: Directory) -> None:
    """An alias is one more label of its target, a domain's label is one that stays, a claim has its challenge."""
    target = with_names.target("bob-smith--hello")
    assert target is not None
    assert with_names.target("shop") is target
    assert with_names.label_of_domain("shop.test") == "helloid0000000001"
    assert with_names.label_of_domain("later.test") is None
    assert [with_names.is_claimed(each) for each in ("shop.test", "later.test", "x.test")] == [False, True, False]
    assert with_names.is_challenge("later.test", "c3")
    assert not with_names.is_challenge("later.test", "c2")
    assert not with_names.is_challenge("shop.test", "c2"), "what is verified is nobody's claim any more"
    assert sorted(each.actor_id for each in with_names.targets()) == [HELLO.id, OTHER.id]


async def test_names_stay_when_actor_and_user_are_renamed(records: Records, with_names: Directory) -> None:
    """They belong to the Actor, whatever it is called."""
    renamed = await records.replace_actor(replace(HELLO, name="renamed"))
    await told(with_names, renamed)
    assert name(with_names, "shop") == "Hello"
    assert name(with_names, with_names.label_of_domain("shop.test") or "") == "Hello"


async def test_two_that_claim_one_domain(records: Records, with_names: Directory) -> None:
    """Each has its challenge, and one that gives up takes only his own with him."""
    await records.add_name(replace(PENDING, id="4", actor_id=OTHER.id, challenge="c4"))
    await told(with_names, OTHER)
    assert with_names.is_challenge("later.test", "c3")
    assert with_names.is_challenge("later.test", "c4")
    await records.delete_actor(HELLO.id)
    await told(with_names, HELLO)
    assert not with_names.is_challenge("later.test", "c3")
    assert with_names.is_challenge("later.test", "c4")


@pytest.mark.parametrize("loser_first", [True, False], ids=["the loser first", "the winner first"])
async def test_a_name_that_moves(records: Records, with_names: Directory, loser_first: bool) -> None:
    """It means its present holder, in whichever order the changes are heard."""
    await records.delete_name(ALIAS.id)
    await records.delete_name(DOMAIN.id)
    for each in (ALIAS, DOMAIN):
        await records.add_name(replace(each, actor_id=OTHER.id))
    await told(with_names, *([HELLO, OTHER] if loser_first else [OTHER, HELLO]))
    assert name(with_names, "shop") == "other"
    assert with_names.label_of_domain("shop.test") == "otherid0000000001"


async def test_who_remembers_domains_is_told(records: Records, with_names: Directory) -> None:
    """Of each change of custom domains, after it has happened; of other changes not."""
    heard: list[str | None] = []
    with_names.on_domains_changed = lambda: heard.append(with_names.label_of_domain("later.test"))
    await told(with_names, HELLO, OTHER)
    await records.add_name(replace(ALIAS, id="5", name="second"))
    await told(with_names, HELLO)
    assert heard == []
    await records.verify_name(PENDING.id, AT)
    await told(with_names, HELLO)
    assert heard == ["helloid0000000001"]
    await records.delete_name(PENDING.id)
    await told(with_names, HELLO)
    assert heard == ["helloid0000000001", None]
    await records.delete_actor(HELLO.id)
    await told(with_names, HELLO)
    assert len(heard) == 3


async def test_loading_again_brings_names_in(records: Records, with_names: Directory) -> None:
    """Also when nothing told of them."""
    await records.verify_name(PENDING.id, AT)
    await records.delete_name(ALIAS.id)
    await with_names.load()
    assert with_names.label_of_domain("later.test") == "helloid0000000001"
    assert with_names.target("shop") is None


class SlowNames:
    """Records that answer the first question for names only when they are let, with what they held when asked."""

    def __init__(self, records: Records) -> None:
        self._records = records
        self.was_asked, self.may_answer = asyncio.Event(), asyncio.Event()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._records, name)

    async def list_names(self, actor_id: str | None) -> Any:
        answer = await self._records.list_names(actor_id)
        if not self.was_asked.is_set():
            self.was_asked.set()
            await self.may_answer.wait()
        return answer


@pytest.mark.parametrize("slow", ["one look", "all of them"])
async def test_a_slow_look_undoes_nothing(records: Records, slow: str) -> None:
    """What began earlier and ends later does not bring back what was before: names, nor an Actor that is gone."""
    await records.add_actor(OTHER)
    held_up = SlowNames(records)
    directory = Directory(cast(Records, held_up))
    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        group.create_task(directory.renew(HELLO.id) if slow == "one look" else directory.load())
        await held_up.was_asked.wait()
        await records.add_name(ALIAS)
        await directory.renew(HELLO.id)
        assert name(directory, "shop") == "Hello"
        await records.delete_actor(OTHER.id)
        await directory.renew(OTHER.id)
        held_up.may_answer.set()
    assert name(directory, "shop") == "Hello"
    assert directory.target("otherid0000000001") is None


async def test_what_is_gone_leaves_nothing_behind(records: Records, with_names: Directory) -> None:
    """Not even that it was looked for."""
    await with_names.actor(HELLO.id)
    for actor in (OTHER, HELLO):
        await records.delete_actor(actor.id)
        await told(with_names, actor)
    await with_names.load()
    kept = ("_known", "_by_label", "_warm", "_domains", "_claims", "_recent", "_gone")
    assert {what: len(getattr(with_names, what)) for what in kept} == dict.fromkeys(kept, 0)


async def test_every_change_of_what_a_host_means_counts(records: Records, directory: Directory) -> None:
    """So that whoever remembers what one means need not ask again meanwhile; a look that finds nothing new is none."""

    async def renewed() -> bool:
        before = directory.version
        await directory.renew(HELLO.id)
        return directory.version != before

    assert not await renewed()
    hello = await records.replace_actor(replace(HELLO, standby_from_api={"idleTimeoutSecs": 77}))
    assert await renewed()
    assert not await renewed()
    hello = await records.replace_actor(replace(hello, name="renamed"))
    assert await renewed()
    await records.add_name(replace(DOMAIN, verified_at=None))
    assert await renewed()
    await records.verify_name(DOMAIN.id, AT)
    assert await renewed()
    await records.delete_name(DOMAIN.id)
    assert await renewed()
    await records.delete_actor(hello.id)
    assert await renewed()
    assert not await renewed()
